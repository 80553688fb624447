"""V-JEPA 2: patches of two frames, no class token, queries and keys turned by time, row and column."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from autogaze.vision_encoders.towers.base import TokenPositions, Tower, no_tokens


class VJEPA2Tower(Tower):
    """``VJEPA2Model``. Rows and columns are counted in cells of the finest scale; coarser cells lie between them."""

    @property
    def frames_per_patch(self) -> int:
        """Two, in the published models."""
        return int(self.model.config.tubelet_size)

    @property
    def embeddings(self) -> Any:
        """See :class:`Tower`."""
        return self.model.encoder.embeddings

    @property
    def patch_embedding(self) -> Any:
        """See :class:`Tower`."""
        return self.embeddings.patch_embeddings.proj

    @property
    def prefix_tokens(self) -> int:
        """None."""
        return 0

    def prefix(self) -> Tensor:
        """See :meth:`Tower.prefix`."""
        return no_tokens(self.weight, self.model.config.hidden_size)

    def tables(self, rows: int, columns: int, *, finest: tuple[int, int]) -> tuple[Tensor, ...]:
        """(R · K,) row and column of every cell's centre in the finest grid, see :meth:`Tower.tables`."""
        row, column = (
            (torch.arange(count, dtype=torch.float32, device=self.weight.device) + 0.5) * (of / count) - 0.5
            for count, of in ((rows, finest[0]), (columns, finest[1]))
        )
        return row.repeat_interleave(columns), column.repeat(rows)

    def place(self, patches_NC: Tensor, position: tuple[Tensor, ...]) -> Tensor:
        """Nothing is added."""
        return patches_NC

    def enter(self, x_MC: Tensor) -> Tensor:
        """See :meth:`Tower.enter`."""
        return x_MC

    def turns(self, positions: TokenPositions) -> tuple[Tensor, ...]:
        """(M,) time, row and column of every token."""
        numbers = (positions.frame.to(torch.float32), *positions.patch)
        return tuple(torch.empty_like(part).index_copy_(0, positions.patch_slot, part) for part in numbers)

    def run_layer(self, layer: Any, x_1MC: Tensor, turns: tuple[Tensor, ...]) -> Tensor:
        """See :meth:`Tower.run_layer`; positions that are no whole numbers cannot be given as places in a grid."""
        at = tuple(part.to(x_1MC.dtype) for part in turns)
        layer.attention.get_position_ids = lambda *_args, **_options: at
        return cast("Tensor", layer(x_1MC)[0])

    def leave(self, x_MC: Tensor) -> Tensor:
        """See :meth:`Tower.leave`."""
        return cast("Tensor", self.model.encoder.layernorm(x_MC))

    def pool(self, prefix_GPC: Tensor) -> Tensor | None:
        """None: the model has no head."""
        return None
