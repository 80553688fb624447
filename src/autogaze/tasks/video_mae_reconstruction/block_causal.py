"""Block-causal attention: a token sees its own frame and earlier ones, without a mask of tokens by tokens.

Tokens lie frame after frame, so what a frame may see is a prefix of the keys: one attention call for each frame, in
memory linear in the tokens. The class token is a frame of its own before all others. Rows of a batch may keep
different numbers of cells in a frame; then some slots are unused, and a mask of keys alone hides them.

Shape letters: B rows, T frames, P cells of a frame, N tokens (slots) of a row, H heads, D channels of a head; of what
is tried on top of a shared past: C candidates, n tokens of each, L tokens of the past.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer: (B, N, H, D) queries, keys and values in, (B, N, H, D) out."""

_KEYS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameTokens:
    """The cells of each frame that are tokens, one slot each, in ascending order."""

    cell_BN: Tensor
    """Cell of each slot (int64); any cell in unused slots."""
    frame_N: Tensor
    """Frame of each slot (int64), counted from the first of these frames."""
    used_BN: Tensor | None
    """False where a row has fewer cells in a frame than another row (bool); None where all slots are used."""
    starts: tuple[int, ...]
    """First slot of each frame, and N."""
    full: int
    """Slots of the leading frames in which no slot is unused."""
    num_cells: int
    """P."""

    @classmethod
    def from_mask(cls, mask_BTP: Tensor) -> FrameTokens:
        """The tokens of a (B, T, P) bool mask of cells."""
        T, P = mask_BTP.shape[1:]
        count_BT = mask_BTP.sum(-1)
        least_T, most_T = torch.stack([count_BT.amin(0), count_BT.amax(0)]).tolist()  # the only wait for a device
        starts = tuple(np.cumsum([0, *most_T]).tolist())
        ragged = [t for t in range(T) if least_T[t] != most_T[t]]
        slot_N = np.concatenate([np.arange(most) for most in most_T])
        frame_N = np.repeat(np.arange(T), most_T)
        device = mask_BTP.device
        frame = torch.from_numpy(frame_N).to(device)
        # Stable: the cells of a frame stay in order, its kept ones come first.
        order_BTP = mask_BTP.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
        return cls(
            cell_BN=order_BTP.flatten(1)[:, torch.from_numpy(frame_N * P + slot_N).to(device)],
            frame_N=frame,
            used_BN=torch.from_numpy(slot_N).to(device) < count_BT[:, frame] if ragged else None,
            starts=starts,
            full=starts[ragged[0]] if ragged else starts[-1],
            num_cells=P,
        )

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.starts) - 1

    @property
    def num_slots(self) -> int:
        """N."""
        return self.starts[-1]

    @cached_property
    def place_BN(self) -> Tensor:
        """Frame · P + cell of each slot, T · P in unused ones (int64)."""
        place_BN = self.frame_N * self.num_cells + self.cell_BN
        return (
            place_BN if self.used_BN is None else place_BN.masked_fill(~self.used_BN, self.num_frames * self.num_cells)
        )

    def slots_in(self, other: FrameTokens) -> Tensor:
        """(B, N) slot of ``other``, which has all these cells and maybe more, for each slot.

        For an unused slot it is one that ``other`` does not use either, or its N.
        """
        B, spare = len(self.cell_BN), self.num_frames * self.num_cells
        slot_BS = torch.full((B, spare + 1), other.num_slots, device=self.cell_BN.device)
        slot_BM = torch.arange(other.num_slots, device=slot_BS.device).expand(B, -1)
        return slot_BS.scatter_(1, other.place_BN, slot_BM).gather(1, self.place_BN)


class BlockCausal:
    """Attention of whole clips whose class token stands before the slots of ``tokens``. One serves all layers.

    If not ``causal``, every token sees every other, and the class token sees them all, as in an image ViT.
    """

    def __init__(self, tokens: FrameTokens, *, causal: bool) -> None:
        N = 1 + tokens.num_slots
        self._ends = sorted({1 + start for start in tokens.starts}) if causal else [N]
        self._full = 1 + tokens.full
        self._used_B11N = None if tokens.used_BN is None else F.pad(tokens.used_BN, (1, 0), value=True)[:, None, None]

    def __call__(self, q_BNHD: Tensor, k_BNHD: Tensor, v_BNHD: Tensor) -> Tensor:
        """(B, N, H, D) attention; what unused slots get means nothing."""
        k, v = k_BNHD.transpose(1, 2), v_BNHD.transpose(1, 2)
        sizes = np.diff([0, *self._ends]).tolist()
        parts = []
        for q, end in zip(torch.split(q_BNHD.transpose(1, 2), sizes, dim=2), self._ends, strict=True):
            used = None if self._used_B11N is None or end <= self._full else self._used_B11N[..., :end]
            parts.append(F.scaled_dot_product_attention(q, k[:, :, :end], v[:, :, :end], used))
        return torch.cat(parts, dim=2).transpose(1, 2)


def attend_branches(
    q_CnHD: Tensor,
    k_CnHD: Tensor,
    v_CnHD: Tensor,
    *,
    used_Cn: Tensor | None,
    past_k_LHD: Tensor,
    past_v_LHD: Tensor,
    past_used_L: Tensor | None,
) -> Tensor:
    """(C, n, H, D) attention of C candidates, each to its own tokens and to one past that all of them share.

    The past is never repeated: all candidates' queries attend to it as one sequence, and both parts are joined by
    the logarithms of their sums (the identity behind Rabe & Staats 2021). L is at least 1. Without gradients.
    """
    q = q_CnHD.transpose(1, 2)
    own, own_log = _with_log_sum(q, k_CnHD.transpose(1, 2), v_CnHD.transpose(1, 2), _hidden(used_Cn, q.dtype))
    together = q_CnHD.flatten(0, 1)[None].transpose(1, 2)
    hidden = None if past_used_L is None else _hidden(past_used_L[None], q.dtype)
    past, past_log = _with_log_sum(together, past_k_LHD.transpose(0, 1)[None], past_v_LHD.transpose(0, 1)[None], hidden)
    C, n = q_CnHD.shape[:2]
    past_CHnD = past[0].reshape(-1, C, n, past.shape[-1]).transpose(0, 1)
    share = torch.sigmoid(own_log - past_log[0].reshape(-1, C, n).transpose(0, 1))[..., None]
    return torch.lerp(past_CHnD, own, share.to(own.dtype)).transpose(1, 2)


def _hidden(used_BL: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """(B, 1, 1, L) what is added to the scores; finite, so that a row without any used key is no NaN."""
    if used_BL is None:
        return None
    return torch.zeros(used_BL.shape, dtype=dtype, device=used_BL.device).masked_fill_(
        ~used_BL, torch.finfo(dtype).min / 2
    )[:, None, None]


def _with_log_sum(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of each query's sum of exponentials: (B, H, N, D) and (B, H, N) float32."""
    if q.device.type == "cpu":
        # The kernel behind scaled_dot_product_attention on a CPU, which alone gives the sums as well.
        out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=hidden)
        return out, log_sum
    return _with_log_sum_in_parts(q, k, v, hidden)


def _with_log_sum_in_parts(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    out, log_sum = None, None
    q = q * q.shape[-1] ** -0.5
    for start in range(0, k.shape[2], _KEYS_AT_ONCE):
        keys = slice(start, start + _KEYS_AT_ONCE)
        score = (q @ k[:, :, keys].transpose(-1, -2)).float()
        if hidden is not None:
            score = score + hidden[..., keys]
        part_log = score.logsumexp(-1)
        part = torch.exp(score - part_log[..., None]).to(v.dtype) @ v[:, :, keys]
        if out is None or log_sum is None:
            out, log_sum = part, part_log
        else:
            out = torch.lerp(out, part, torch.sigmoid(part_log - log_sum)[..., None].to(part.dtype))
            log_sum = torch.logaddexp(log_sum, part_log)
    assert out is not None and log_sum is not None
    return out, log_sum
