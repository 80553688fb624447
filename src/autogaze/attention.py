"""Attention of new tokens over a preallocated cache whose rows have different lengths.

Two ways that must agree: row by row without any padding, which suits a CPU, and all rows at once under a mask,
which suits an accelerator. Each is made once for a feed of tokens and used by every layer. Shape letters: B rows of
the cache, A rows in use, N new tokens of all of them, packed row after row, L tokens of the cache, H query heads,
G key/value heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Spans:
    """Where the new tokens of each row in use lie; plain Python numbers, so that no device is waited for."""

    rows: Sequence[int]
    """(A,) row of the cache, each once."""
    new: Sequence[int]
    """(A,) new tokens of the row, at least 1; they sum to N."""
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


class Feed(Protocol):
    """One way of adding tokens to a cache and attending from them."""

    def append(self, cache_BLGD: Tensor, new_NGD: Tensor) -> None:
        """Write the new tokens of each row behind what the row held before."""
        ...

    def attend(self, q_NHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor) -> Tensor:
        """(N, H, D) attention of every new token to its row up to itself."""
        ...

    def attend_last(self, q_AHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor) -> Tensor:
        """(A, H, D) attention of each row's last token."""
        ...


class RowByRow:
    """Each row on its own: no padding, no copies, exact lengths."""

    def __init__(self, spans: Spans, causal: CausalStrip) -> None:
        self._spans, self._causal = spans, causal

    def append(self, cache_BLGD: Tensor, new_NGD: Tensor) -> None:
        """See :class:`Feed`."""
        start = 0
        for row, new, seen in zip(self._spans.rows, self._spans.new, self._spans.seen, strict=True):
            cache_BLGD[row, seen - new : seen] = new_NGD[start : start + new]
            start += new

    def attend(self, q_NHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor) -> Tensor:
        """See :class:`Feed`."""
        return self._attend(q_NHD, k_BLGD, v_BLGD, self._spans.new)

    def attend_last(self, q_AHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor) -> Tensor:
        """See :class:`Feed`."""
        return self._attend(q_AHD, k_BLGD, v_BLGD, [1] * len(self._spans.rows))

    def _attend(self, q_NHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor, queries: Sequence[int]) -> Tensor:
        grouped = q_NHD.shape[1] != k_BLGD.shape[2]
        out_NHD, start = torch.empty_like(q_NHD), 0
        for row, count, seen in zip(self._spans.rows, queries, self._spans.seen, strict=True):
            q = q_NHD[start : start + count].transpose(0, 1)[None]
            k, v = k_BLGD[row, :seen].transpose(0, 1)[None], v_BLGD[row, :seen].transpose(0, 1)[None]
            mask = self._causal.mask(count, seen) if count > 1 else None
            attended = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=grouped)
            out_NHD[start : start + count] = attended[0].transpose(0, 1)
            start += count
        return out_NHD


class Together:
    """All rows in one call: queries padded to the row with most, keys to the longest, and both masked."""

    def __init__(self, spans: Spans, *, device: torch.device, cache_rows: int) -> None:
        new_A, seen_A = np.asarray(spans.new), np.asarray(spans.seen)
        self._longest, slots = int(seen_A.max()), np.arange(new_A.max())
        # Padded queries repeat the row's last token: a query that sees nothing would be NaN.
        token_AQ = np.minimum(slots, new_A[:, None] - 1)
        position_AQ = (seen_A - new_A)[:, None] + token_AQ
        first_A = np.cumsum(new_A) - new_A
        real_AQ = slots < new_A[:, None]

        def place(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        self._padded = place(first_A[:, None] + token_AQ)
        self._packed = place(np.flatnonzero(real_AQ))
        self._row = place(np.repeat(np.asarray(spans.rows), new_A))
        self._position = place(position_AQ[real_AQ])
        self._visible = torch.arange(self._longest, device=device) <= place(position_AQ)[..., None]
        self._seen = torch.arange(self._longest, device=device) < place(seen_A)[:, None]
        whole = list(spans.rows) == list(range(cache_rows))
        self._rows = slice(None) if whole else place(np.asarray(spans.rows))

    def append(self, cache_BLGD: Tensor, new_NGD: Tensor) -> None:
        """See :class:`Feed`."""
        cache_BLGD[self._row, self._position] = new_NGD

    def attend(self, q_NHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor) -> Tensor:
        """See :class:`Feed`."""
        out_AQHD = self._attend(q_NHD[self._padded], k_BLGD, v_BLGD, self._visible)
        return out_AQHD.flatten(0, 1)[self._packed]

    def attend_last(self, q_AHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor) -> Tensor:
        """See :class:`Feed`."""
        return self._attend(q_AHD[:, None], k_BLGD, v_BLGD, self._seen[:, None])[:, 0]

    def _attend(self, q_AQHD: Tensor, k_BLGD: Tensor, v_BLGD: Tensor, visible_AQL: Tensor) -> Tensor:
        out_AHQD = F.scaled_dot_product_attention(
            q_AQHD.transpose(1, 2),
            k_BLGD[:, : self._longest][self._rows].transpose(1, 2),
            v_BLGD[:, : self._longest][self._rows].transpose(1, 2),
            visible_AQL[:, None],
            enable_gqa=q_AQHD.shape[2] != k_BLGD.shape[2],
        )
        return out_AHQD.transpose(1, 2)
