"""Attention of new tokens over a preallocated cache whose rows have different lengths.

Two ways that must agree: row by row without any padding, which suits a CPU, and all rows at once under a mask,
which suits an accelerator. Each is made once for a feed of tokens and used by every layer. Queries come multiplied by
:data:`~autogaze.tiled_attention.QUERY_SCALE` / sqrt(D). Shape letters: B rows of the cache, A rows in use, N new tokens
of all of them, packed row after row, Q the most of one row, L tokens of the cache, H query heads, G key/value heads,
D channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from autogaze.tiled_attention import QUERY_SCALE, Scratch, attend


@dataclass(frozen=True, slots=True)
class Spans:
    """Where the new tokens of each row in use lie; plain Python numbers, so that no device is waited for."""

    rows: Sequence[int]
    """(A,) row of the cache, each once."""
    new: Sequence[int]
    """(A,) new tokens of the row, at least 1; they sum to N."""
    seen: Sequence[int]
    """(A,) tokens of the row in the cache, the new ones included."""


@contextmanager
def any_length() -> Iterator[None]:
    """Attention by kernels that are there for any length.

    On recent NVIDIA devices torch would ask cuDNN first in half precision, which builds a kernel for every length that
    it has not met before: half a second each. The setting is the process's, as torch has no other.
    """
    asked = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(asked)


class Feed(Protocol):
    """One way of adding tokens to a cache and attending from them."""

    def append(self, cache_BGLD: Tensor, new_NGD: Tensor) -> None:
        """Write the new tokens of each row behind what the row held before."""
        ...

    def attend(self, q_NHD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        """(N, H, D) attention of every new token to its row up to itself."""
        ...

    def attend_last(self, q_AHD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        """(A, H, D) attention of each row's last token."""
        ...


class RowByRow:
    """Each row on its own: no padding, no copies, exact lengths."""

    def __init__(self, spans: Spans, *, scratch: Scratch) -> None:
        self._spans, self._scratch = spans, scratch

    def append(self, cache_BGLD: Tensor, new_NGD: Tensor) -> None:
        """See :class:`Feed`."""
        start = 0
        for row, new, seen in zip(self._spans.rows, self._spans.new, self._spans.seen, strict=True):
            cache_BGLD[row, :, seen - new : seen] = new_NGD[start : start + new].transpose(0, 1)
            start += new

    def attend(self, q_NHD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        """See :class:`Feed`."""
        return self._attend(q_NHD, k_BGLD, v_BGLD, self._spans.new)

    def attend_last(self, q_AHD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        """See :class:`Feed`."""
        return self._attend(q_AHD, k_BGLD, v_BGLD, [1] * len(self._spans.rows))

    def _attend(self, q_NHD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor, queries: Sequence[int]) -> Tensor:
        spans = zip(self._spans.rows, q_NHD.split_with_sizes(list(queries)), self._spans.seen, strict=True)
        parts = [
            attend(q, k_BGLD[row, :, :seen], v_BGLD[row, :, :seen], scratch=self._scratch) for row, q, seen in spans
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


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

    def append(self, cache_BGLD: Tensor, new_NGD: Tensor) -> None:
        """See :class:`Feed`."""
        cache_BGLD[self._row, :, self._position] = new_NGD

    def attend(self, q_NHD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        """See :class:`Feed`."""
        out_AQHD = self._attend(q_NHD[self._padded], k_BGLD, v_BGLD, self._visible)
        return out_AQHD.flatten(0, 1)[self._packed]

    def attend_last(self, q_AHD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor) -> Tensor:
        """See :class:`Feed`."""
        return self._attend(q_AHD[:, None], k_BGLD, v_BGLD, self._seen[:, None])[:, 0]

    def _attend(self, q_AQHD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor, visible_AQL: Tensor) -> Tensor:
        out_AHQD = F.scaled_dot_product_attention(
            q_AQHD.transpose(1, 2),
            k_BGLD[:, :, : self._longest][self._rows],
            v_BGLD[:, :, : self._longest][self._rows],
            visible_AQL[:, None],
            scale=1 / QUERY_SCALE,
            enable_gqa=q_AQHD.shape[2] != k_BGLD.shape[1],
        )
        return out_AHQD.transpose(1, 2)
