"""SigLIP, and SigLIP 2 for any size (NaFlex). SigLIP 2 of a fixed size is a SigLIP model in transformers."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autogaze.vision_encoders.towers.base import Tower, no_tokens


class SiglipTower(Tower):
    """``SiglipVisionModel``: no class token, learned positions, an attention head that pools."""

    attention: ClassVar[str] = "self_attn"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(getattr(model, "vision_model", model))

    @property
    def patch_embedding(self) -> Any:
        """See :class:`Tower`."""
        return self.embeddings.patch_embedding

    @property
    def prefix_tokens(self) -> int:
        """None."""
        return 0

    def prefix(self) -> Tensor:
        """See :meth:`Tower.prefix`."""
        return no_tokens(self.weight, self.model.config.hidden_size)

    def enter(self, x_MC: Tensor) -> Tensor:
        """See :meth:`Tower.enter`."""
        return x_MC

    def leave(self, x_MC: Tensor) -> Tensor:
        """See :meth:`Tower.leave`."""
        return cast("Tensor", self.model.post_layernorm(x_MC))

    def pool(self, prefix_GPC: Tensor) -> Tensor | None:
        """None: the head pools patches."""
        return None

    def pool_patches(self, patches_1NC: Tensor) -> Tensor | None:
        """See :meth:`Tower.pool_patches`."""
        head = getattr(self.model, "head", None)
        return None if head is None else cast("Tensor", head(patches_1NC))


class Siglip2Tower(SiglipTower):
    """``Siglip2VisionModel``: patches are flat rows of pixels, positions are resized smoothly to any grid."""

    def embed(self, pixels_N3Fpp: Tensor) -> Tensor:
        """See :meth:`Tower.embed`: rows, columns and then colours."""
        flat = pixels_N3Fpp[:, :, 0].permute(0, 2, 3, 1).flatten(1)
        return cast("Tensor", self.patch_embedding(flat.to(self.weight.dtype)))

    def position_table(self, rows: int, columns: int) -> Tensor:
        """See :meth:`Tower.position_table`."""
        side = int(self.model.config.num_patches**0.5)
        table = self.embeddings.position_embedding.weight.unflatten(0, (side, side)).permute(2, 0, 1)[None]
        resized = F.interpolate(table.float(), (rows, columns), mode="bilinear", align_corners=False, antialias=True)
        return resized[0].flatten(1).T.to(table.dtype)

    def pool_patches(self, patches_1NC: Tensor) -> Tensor | None:
        """See :meth:`Tower.pool_patches`."""
        head = getattr(self.model, "head", None)
        if head is None:
            return None
        everything = torch.ones(patches_1NC.shape[:2], dtype=torch.int64, device=patches_1NC.device)
        return cast("Tensor", head(patches_1NC, everything))
