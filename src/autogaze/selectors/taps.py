"""Resizing in whole numbers, so that every device gives the pixels of :func:`~autogaze.selectors.cells.resize`.

Torch resizes 8-bit pictures on the CPU with weights that are whole numbers of a power of two, first along rows, then
along columns, and rounds to 8 bits after each. On other devices it computes in floating point, which differs by a level
here and there. Here the same weights are applied in 32-bit integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Shape letters: L places along an axis after resizing, U pixels that each of them is made of.

_WEIGHT_BITS = 15
_MOST_BITS = 22


@dataclass(frozen=True, kw_only=True, eq=False)
class Taps:
    """How one axis is resized: bilinear, antialiased, edges clamped."""

    index_LU: Tensor
    """(L, U) int64 pixels that each place is made of."""
    weight_LU: Tensor
    """(L, U) int32 their weights, in units of 2^−shift; 0 where a place is made of fewer."""
    shift: int
    """Bits of a weight after the point."""

    @classmethod
    def of(cls, from_px: int, to_px: int, *, pieces: int = 1, device: torch.device) -> Taps:
        """From ``pieces`` stretches of ``from_px`` pixels, each resized by itself, to as many of ``to_px``."""
        scale = from_px / to_px
        reach = max(1.0, scale)
        starts, weights = [], []
        for place in range(to_px):
            centre = scale * (place + 0.5)
            first = max(int(centre - reach + 0.5), 0)
            last = min(int(centre + reach + 0.5), from_px)
            parts = [max(0.0, 1 - abs((pixel - centre + 0.5) / reach)) for pixel in range(first, last)]
            starts.append(first)
            weights.append([part / sum(parts) for part in parts])
        largest = max(max(row) for row in weights)
        shift = next(b for b in range(_MOST_BITS) if int(0.5 + largest * 2 ** (b + 1)) >= 2**_WEIGHT_BITS)
        U = max(map(len, weights))
        whole = [[math.floor(0.5 + part * 2**shift) for part in row] + [0] * (U - len(row)) for row in weights]
        index_LU = (torch.tensor(starts)[:, None] + torch.arange(U)).clamp(max=from_px - 1)
        every = torch.arange(pieces)[:, None, None] * from_px + index_LU
        return cls(
            index_LU=every.reshape(-1, U).to(device),
            weight_LU=torch.tensor(whole, dtype=torch.int32).repeat(pieces, 1).to(device),
            shift=shift,
        )

    def along(self, images: Tensor, axis: int) -> Tensor:
        """Resize int32 images of 8-bit values along one axis."""
        shape = [1] * images.ndim
        shape[axis] = -1
        total = torch.full((), 1 << self.shift - 1, dtype=torch.int32, device=images.device)
        for index_L, weight_L in zip(self.index_LU.T, self.weight_LU.T, strict=True):
            total = total + images.index_select(axis, index_L) * weight_L.reshape(shape)
        return (total >> self.shift).clamp_(0, 255)
