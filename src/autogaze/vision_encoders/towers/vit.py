"""ViT and its relatives with a class token and learned positions: DeiT, ViT-MAE, CLIP, DINOv2."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from autogaze.vision_encoders.towers.base import Tower


class ViTTower(Tower):
    """``ViTModel``, with a pooler on its class token if it was made with one."""

    def pool(self, prefix_GPC: Tensor) -> Tensor | None:
        """See :meth:`Tower.pool`."""
        pooler = getattr(self.model, "pooler", None)
        return prefix_GPC[:, 0] if pooler is None else cast("Tensor", pooler(prefix_GPC))


class DeiTTower(ViTTower):
    """``DeiTModel``: a distillation token beside the class token."""

    @property
    def prefix_tokens(self) -> int:
        """Two."""
        return 2

    def prefix(self) -> Tensor:
        """See :meth:`Tower.prefix`."""
        tokens = torch.cat([self.embeddings.cls_token[0], self.embeddings.distillation_token[0]])
        return cast("Tensor", tokens + self.embeddings.position_embeddings[0, :2])


class ViTMAETower(Tower):
    """``ViTMAEModel``, the encoder of a masked autoencoder; nothing is masked at random."""

    def enter(self, x_MC: Tensor) -> Tensor:
        """See :meth:`Tower.enter`."""
        return x_MC


class CLIPTower(Tower):
    """``CLIPVisionModel``: a norm before the layers too, and a norm on the class token alone after them."""

    attention: ClassVar[str] = "self_attn"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(getattr(model, "vision_model", model))

    @property
    def patch_embedding(self) -> Any:
        """See :class:`Tower`."""
        return self.embeddings.patch_embedding

    def prefix(self) -> Tensor:
        """See :meth:`Tower.prefix`."""
        return cast("Tensor", self.embeddings.class_embedding[None] + self.embeddings.position_embedding.weight[:1])

    def enter(self, x_MC: Tensor) -> Tensor:
        """See :meth:`Tower.enter`."""
        return cast("Tensor", self.model.pre_layrnorm(x_MC))

    def leave(self, x_MC: Tensor) -> Tensor:
        """Patches stay as the last layer leaves them, as in the model's own output."""
        return x_MC

    def pool(self, prefix_GPC: Tensor) -> Tensor | None:
        """See :meth:`Tower.pool`."""
        return cast("Tensor", self.model.post_layernorm(prefix_GPC[:, 0]))


class Dinov2Tower(Tower):
    """``Dinov2Model`` and ``Dinov2WithRegistersModel``: registers stand between class token and patches."""

    @property
    def prefix_tokens(self) -> int:
        """The class token and the registers."""
        return 1 + self._registers

    @property
    def _registers(self) -> int:
        return int(getattr(self.model.config, "num_register_tokens", 0))

    def tables(self, rows: int, columns: int, *, finest: tuple[int, int]) -> tuple[Tensor, ...]:
        """See :meth:`Tower.tables`: registers have no positions."""
        return (self.position_table(rows, columns)[1:],)

    def position_table(self, rows: int, columns: int) -> Tensor:
        """(1 + R · K, C): see :meth:`Tower.position_table`."""
        like = self.weight.new_empty(0, 1 + rows * columns, self.model.config.hidden_size)
        table: Tensor = self.embeddings.interpolate_pos_encoding(like, rows * self.patch_px, columns * self.patch_px)
        return table[0]

    def prefix(self) -> Tensor:
        """See :meth:`Tower.prefix`."""
        first = super().prefix()
        return torch.cat([first, self.embeddings.register_tokens[0]]) if self._registers else first
