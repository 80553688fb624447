"""DINOv3: class token, registers, and queries and keys that are turned by where their patch lies in the frame."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from autogaze.vision_encoders.towers.base import TokenPositions, Tower


class DINOv3Tower(Tower):
    """``DINOv3ViTModel``. Positions are shares of the frame, so every scale has them without any resizing."""

    @property
    def patch_embedding(self) -> Any:
        """See :class:`Tower`."""
        return self.embeddings.patch_embeddings

    @property
    def layers(self) -> nn.ModuleList:
        """See :class:`Tower`."""
        return cast("nn.ModuleList", self.model.model.layer if hasattr(self.model, "model") else self.model.layer)

    @property
    def prefix_tokens(self) -> int:
        """The class token and the registers."""
        return 1 + int(self.model.config.num_register_tokens)

    def tables(self, rows: int, columns: int, *, finest: tuple[int, int]) -> tuple[Tensor, ...]:
        """(R · K, D) cosine and sine, see :meth:`Tower.tables`."""
        like = self.weight.new_empty(()).expand(1, 1, rows * self.patch_px, columns * self.patch_px)
        rope = copy.copy(self.model.rope_embeddings)
        rope.training = False  # in training it moves all positions at random, which scales would have to share
        return cast("tuple[Tensor, ...]", rope(like))

    def place(self, patches_NC: Tensor, position: tuple[Tensor, ...]) -> Tensor:
        """Nothing is added."""
        return patches_NC

    def prefix(self) -> Tensor:
        """See :meth:`Tower.prefix`."""
        return torch.cat([self.embeddings.cls_token[0], self.embeddings.register_tokens[0]])

    def enter(self, x_MC: Tensor) -> Tensor:
        """See :meth:`Tower.enter`."""
        return x_MC

    def turns(self, positions: TokenPositions) -> tuple[Tensor, ...]:
        """(M, D) cosine and sine of every token; class and register tokens are not turned."""
        cos, sin = positions.patch
        return (
            cos.new_ones(positions.tokens, cos.shape[1]).index_copy_(0, positions.patch_slot, cos),
            sin.new_zeros(positions.tokens, sin.shape[1]).index_copy_(0, positions.patch_slot, sin),
        )

    def run_layer(self, layer: Any, x_1MC: Tensor, turns: tuple[Tensor, ...]) -> Tensor:
        """See :meth:`Tower.run_layer`."""
        return cast("Tensor", layer(x_1MC, attention_mask=None, position_embeddings=turns))

    def leave(self, x_MC: Tensor) -> Tensor:
        """See :meth:`Tower.leave`."""
        return cast("Tensor", self.model.norm(x_MC))
