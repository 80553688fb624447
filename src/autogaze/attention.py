"""Attention of new tokens over a preallocated cache whose rows have different lengths.

Two ways that must agree: row by row without any padding, which suits a CPU, and all rows at once under a mask,
which suits an accelerator. Shape letters: B rows of the cache, A rows in use, N new tokens of all of them, packed
row after row, L tokens of the cache, H query heads, G key/value heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Spans:
    """Where the new tokens of each row in use lie; plain Python numbers, so that no device is waited for."""

    rows: Sequence[int]
    """(A,) row of the cache."""
    new: Sequence[int]
    """(A,) new tokens of the row; they sum to N."""
    seen: Sequence[int]
    """(A,) tokens of the row in the cache, the new ones included."""


class CausalStrip:
    """Additive causal masks for n new tokens at the end of L, as views of one buffer.

    Column c of the strip is visible to row i when c <= i + capacity: any window of it that ends ``n`` columns after
    ``capacity`` is the mask of ``n`` tokens at the end of a longer sequence.
    """

    def __init__(self, *, new: int, capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        self.new, self.capacity = new, capacity
        row = torch.arange(new, device=device)[:, None]
        hidden = torch.arange(capacity + new, device=device) > row + capacity
        self.strip = torch.zeros(new, capacity + new, device=device, dtype=dtype).masked_fill_(hidden, float("-inf"))

    def mask(self, new: int, seen: int) -> Tensor:
        """(new, seen) additive mask."""
        past = seen - new
        return self.strip[:new, self.capacity - past : self.capacity + new]


def append(cache_BLGD: Tensor, new_NGD: Tensor, spans: Spans) -> None:
    """Write the new tokens of each row behind what the row holds."""
    start = 0
    for row, new, seen in zip(spans.rows, spans.new, spans.seen, strict=True):
        cache_BLGD[row, seen - new : seen] = new_NGD[start : start + new]
        start += new


def attend_rows(q_NHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor, spans: Spans, causal: CausalStrip) -> Tensor:
    """(N, H, D) attention of the last tokens of each row, one row after the other.

    ``q_NHD`` may hold fewer tokens a row than ``spans.new``: the last ones, equally many in every row.
    """
    grouped = q_NHD.shape[1] != k_BLGD.shape[2]
    asked = _asked(q_NHD, spans)
    out = torch.empty_like(q_NHD)
    start = 0
    for row, queries, seen in zip(spans.rows, asked, spans.seen, strict=True):
        q = q_NHD[start : start + queries].transpose(0, 1)[None]
        k = k_BLGD[row, :seen].transpose(0, 1)[None]
        v = v_BLGD[row, :seen].transpose(0, 1)[None]
        mask = causal.mask(queries, seen) if queries > 1 else None
        attended = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=grouped)
        out[start : start + queries] = attended[0].transpose(0, 1)
        start += queries
    return out


def attend_together(q_NHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor, spans: Spans) -> Tensor:
    """The same as :func:`attend_rows` in one call, rows padded to the longest and the padding masked."""
    device, asked = q_NHD.device, _asked(q_NHD, spans)
    A, most, longest = len(spans.rows), max(asked), max(spans.seen)
    queries = torch.tensor(asked, device=device)
    seen = torch.tensor(spans.seen, device=device)
    slot = torch.arange(most, device=device)
    real = slot < queries[:, None]
    # Padded queries repeat the row's last token: an all-masked row would be NaN.
    position = (seen - queries)[:, None] + torch.minimum(slot, queries[:, None] - 1)
    visible = torch.arange(longest, device=device) <= position[..., None]
    q = q_NHD.new_zeros(A, most, *q_NHD.shape[1:])
    q[real] = q_NHD
    whole = list(spans.rows) == list(range(k_BLGD.shape[0]))
    rows = slice(None) if whole else torch.tensor(spans.rows, device=device)
    attended = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k_BLGD[:, :longest][rows].transpose(1, 2),
        v_BLGD[:, :longest][rows].transpose(1, 2),
        visible[:, None],
        enable_gqa=q.shape[2] != k_BLGD.shape[2],
    )
    return attended.transpose(1, 2)[real]


def _asked(q_NHD: Tensor, spans: Spans) -> Sequence[int]:
    """Queries of each row: all its new tokens, or the same number of last ones in every row."""
    if q_NHD.shape[0] == sum(spans.new):
        return spans.new
    queries, rest = divmod(q_NHD.shape[0], len(spans.rows))
    assert rest == 0, f"{q_NHD.shape[0]} queries do not split over {len(spans.rows)} rows"
    return [queries] * len(spans.rows)
