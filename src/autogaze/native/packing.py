"""Matrices in the order in which the C code reads them.

Shape letters: M outputs and C inputs of a matrix, W the width of a panel, F channels inside the feed-forward layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """One block's matrices, each in panels (M / W, C, W), norms folded in; fp32 on the CPU."""

    q: Tensor
    kv: Tensor
    o: Tensor
    gate_up: Tensor
    """In every panel W / 2 gates, and then what they gate."""
    down: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order of the C code."""
        return (self.q, self.kv, self.o, self.gate_up, self.down)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedDecoder:
    """All matrices of a decoder, and its sizes."""

    layers: tuple[PackedLayer, ...]
    heads: Tensor
    """Panels of everything that is read out of a token."""
    channels: int
    """C: of a token."""
    query_heads: int
    """Query heads of a block."""
    inner: int
    """F: channels inside a feed-forward layer."""
    outputs: int
    """Numbers read out of a token."""
    eps: float
    """Of the norms."""


def pack(weight_MC: Tensor, *, panel: int) -> Tensor:
    """(M / W, C, W) panels of a matrix, the last one filled up with zeros."""
    outputs, inputs = weight_MC.shape
    filled = F.pad(weight_MC, (0, 0, 0, -outputs % panel))
    return filled.view(-1, panel, inputs).transpose(1, 2).contiguous()


def pack_gated(gate_FC: Tensor, up_FC: Tensor, *, panel: int) -> Tensor:
    """(F / (W / 2), C, W) panels of two matrices, half of each from either."""
    half = panel // 2
    both = F.pad(torch.stack([gate_FC, up_FC]), (0, 0, 0, -len(gate_FC) % half))
    return both.view(2, -1, half, gate_FC.shape[1]).permute(1, 3, 0, 2).flatten(2).contiguous()
