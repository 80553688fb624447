"""Attention of packed tokens within their windows: exact, without padding and without a mask of all against all.

Three back ends with one result. ``sdpa`` computes spans of equal shape in one call of torch's kernel and suits CPUs
and MPS. ``varlen`` is torch's kernel for packed sequences on CUDA. ``flex`` compiles the windows into one kernel on
CUDA; elsewhere torch interprets it, which is for tests. Shape letters: M packed tokens, L keys (the M, behind those
of earlier steps), H heads, D channels of a head, S spans of one shape, Q queries and K keys of each.
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from autogaze.attention import any_length
from autogaze.vision_encoders.windows import Span, Windows

Backend: TypeAlias = Literal["sdpa", "varlen", "flex"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

FLEX_BLOCK = 128
"""Tokens of a block of the ``flex`` back end."""
MANY_SPANS = 64
"""From so many shapes of spans on, one compiled kernel beats a call for each on a GPU."""


class Attend(Protocol):
    """Attention of the M new tokens to L keys; made once for a pass and used by every layer."""

    def __call__(self, q_MHD: Tensor, k_LHD: Tensor, v_LHD: Tensor, *, scale: float, dropout: float) -> Tensor:
        """(M, H, D)."""
        ...


def attend_with(windows: Windows, *, backend: Backend | None, device: torch.device, dtype: torch.dtype) -> Attend:
    """The attention of these windows.

    Args:
        windows: what every token sees.
        backend: None: what suits device, precision and windows.
        device: of the tokens.
        dtype: of the tokens.

    Raises:
        ValueError: there is no such back end, or it cannot compute these windows on this device.
    """
    if backend is None:
        backend = _suitable(windows, device, dtype)
    if backend == "sdpa":
        return SpanAttention(windows, device=device)
    if backend == "flex":
        return FlexAttention(windows, device=device)
    if backend == "varlen":
        reason = _why_no_varlen(windows, device, dtype)
        if reason:
            raise ValueError(f'the back end "varlen" {reason}; use "sdpa" or "flex"')
        return VarlenAttention(windows, device=device)
    raise ValueError(f"backend must be one of {', '.join(BACKENDS)} or None, got {backend!r}")


def _suitable(windows: Windows, device: torch.device, dtype: torch.dtype) -> Backend:
    if device.type != "cuda":
        return "sdpa"
    if _why_no_varlen(windows, device, dtype) is None:
        return "varlen"
    return "flex" if len({span.shape for span in windows.spans}) > MANY_SPANS else "sdpa"


def _why_no_varlen(windows: Windows, device: torch.device, dtype: torch.dtype) -> str | None:
    """What forbids torch's packed kernel; None: nothing."""
    if device.type != "cuda":
        return f"runs on CUDA alone, not on {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"needs half precision, not {dtype}"
    if len({span.causal for span in windows.spans}) > 1 or _overlap(windows):
        return "needs sequences that share no keys, not frames that see earlier ones"
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"is not part of torch {torch.__version__}"
    return None


def _overlap(windows: Windows) -> bool:
    """Whether some key is in the windows of two spans."""
    return any(
        after.first_key < before.end_key for before, after in zip(windows.spans, windows.spans[1:], strict=False)
    )


class SpanAttention:
    """Spans of one shape in one call each."""

    def __init__(self, windows: Windows, *, device: torch.device) -> None:
        by_shape: dict[tuple[int, int, bool], list[Span]] = defaultdict(list)
        for span in windows.spans:
            by_shape[span.shape].append(span)
        self._groups = [_SpanGroup(spans, device) for spans in by_shape.values()]

    def __call__(self, q_MHD: Tensor, k_LHD: Tensor, v_LHD: Tensor, *, scale: float, dropout: float) -> Tensor:
        """See :class:`Attend`."""
        if len(self._groups) == 1 and self._groups[0].whole(len(q_MHD)):
            return self._groups[0].attend(q_MHD, k_LHD, v_LHD, scale=scale, dropout=dropout)
        parts = [group.attend(q_MHD, k_LHD, v_LHD, scale=scale, dropout=dropout) for group in self._groups]
        if not parts:
            return torch.zeros_like(q_MHD)
        return torch.cat(parts)[self._order]

    @cached_property
    def _order(self) -> Tensor:
        """(M,) where the output of each token lies behind the groups' outputs one after the other."""
        tokens = torch.cat([group.queries_SQ.flatten() for group in self._groups])
        return torch.empty_like(tokens).scatter_(0, tokens, torch.arange(len(tokens), device=tokens.device))


class _SpanGroup:
    """Spans of one shape: where their queries and keys lie."""

    def __init__(self, spans: list[Span], device: torch.device) -> None:
        self._spans = spans
        queries, keys, self._causal = spans[0].shape
        first = np.array([(span.first_query, span.first_key) for span in spans])
        self._shape = (len(spans), queries, keys)
        self.queries_SQ = torch.from_numpy(first[:, :1] + np.arange(queries)).to(device)
        self._keys_SK = torch.from_numpy(first[:, 1:] + np.arange(keys)).to(device) if len(spans) > 1 else None

    def whole(self, tokens: int) -> bool:
        """Whether the group's queries are all tokens, in their order."""
        first, last = self._spans[0], self._spans[-1]
        return first.first_query == 0 and self.queries_SQ.numel() == tokens == last.end_query

    def attend(self, q_MHD: Tensor, k_LHD: Tensor, v_LHD: Tensor, *, scale: float, dropout: float) -> Tensor:
        """(S · Q, H, D), span after span."""
        (S, Q, K), span = self._shape, self._spans[0]
        if S == 1:
            q = q_MHD[None, span.first_query : span.end_query]
            k, v = (x[None, span.first_key : span.end_key] for x in (k_LHD, v_LHD))
        else:
            assert self._keys_SK is not None
            q, k, v = q_MHD[self.queries_SQ], k_LHD[self._keys_SK], v_LHD[self._keys_SK]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        triangle = self._causal and Q == K
        mask = causal_lower_right(Q, K) if self._causal and not triangle and Q > 1 else None
        with any_length():
            out_SHQD = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, is_causal=triangle, scale=scale)
        return out_SHQD.transpose(1, 2).flatten(0, 1)


class VarlenAttention:
    """torch's kernel for packed sequences: spans that share no keys."""

    def __init__(self, windows: Windows, *, device: torch.device) -> None:
        from torch.nn.attention.varlen import varlen_attn

        self._kernel: Callable[..., Any] = varlen_attn
        spans = windows.spans
        queries, keys = [span.shape[0] for span in spans], [span.shape[1] for span in spans]
        self._keys = slice(spans[0].first_key, spans[-1].end_key) if spans else slice(0)
        self._starts = [
            torch.from_numpy(np.cumsum([0, *counts]).astype(np.int32)).to(device) for counts in (queries, keys)
        ]
        self._longest = (max(queries, default=0), max(keys, default=0))
        # (left, right) keys a query may see beside itself; −1: all of them.
        self._window = (-1, 0) if spans and spans[0].causal else (-1, -1)

    def __call__(self, q_MHD: Tensor, k_LHD: Tensor, v_LHD: Tensor, *, scale: float, dropout: float) -> Tensor:
        """See :class:`Attend`.

        Raises:
            ValueError: there is dropout, which the kernel does not have.
        """
        if dropout:
            raise ValueError('attention dropout needs the back end "sdpa"')
        k, v = k_LHD[self._keys].contiguous(), v_LHD[self._keys].contiguous()
        out: Tensor = self._kernel(
            q_MHD.contiguous(), k, v, *self._starts, *self._longest, scale=scale, window_size=self._window
        )
        return out


class FlexAttention:
    """One kernel made from the windows, with blocks of keys that no query sees left out."""

    def __init__(self, windows: Windows, *, device: torch.device) -> None:
        self._mask = _block_mask(windows, device)
        self._kernel = _compiled_flex() if device.type == "cuda" else _flex()

    def __call__(self, q_MHD: Tensor, k_LHD: Tensor, v_LHD: Tensor, *, scale: float, dropout: float) -> Tensor:
        """See :class:`Attend`.

        Raises:
            ValueError: there is dropout, which the kernel does not have.
        """
        if dropout:
            raise ValueError('attention dropout needs the back end "sdpa"')
        q, k, v = (x.transpose(0, 1)[None] for x in (q_MHD, k_LHD, v_LHD))
        out: Tensor = self._kernel(q, k, v, block_mask=self._mask, scale=scale)
        return out[0].transpose(0, 1)


def _block_mask(windows: Windows, device: torch.device) -> Any:
    """The windows as a block mask, from runs of blocks: no matrix of tokens against tokens is made."""
    from torch.nn.attention.flex_attention import BlockMask

    M, L = windows.num_tokens, windows.num_keys
    columns = -(-L // FLEX_BLOCK)
    edges = np.arange(0, M, FLEX_BLOCK)
    lowest, highest_first = np.minimum.reduceat(windows.first_M, edges), np.maximum.reduceat(windows.first_M, edges)
    lowest_end, highest = np.minimum.reduceat(windows.end_M, edges), np.maximum.reduceat(windows.end_M, edges)
    first_block, end_block = lowest // FLEX_BLOCK, -(-highest // FLEX_BLOCK)
    # Blocks of keys that every query of a row sees as a whole are not masked.
    first_full, end_full = -(-highest_first // FLEX_BLOCK), lowest_end // FLEX_BLOCK
    column = np.arange(columns)
    inside = (column >= first_block[:, None]) & (column < end_block[:, None])
    full = inside & (column >= first_full[:, None]) & (column < end_full[:, None])
    partial = inside & ~full

    def ordered(which: Any) -> tuple[Tensor, Tensor]:
        count = torch.from_numpy(which.sum(1).astype(np.int32)).to(device)[None, None]
        index = torch.from_numpy(np.argsort(~which, axis=1, kind="stable").astype(np.int32)).to(device)[None, None]
        return count, index

    first, end = (torch.from_numpy(x).to(device) for x in (windows.first_M, windows.end_M))

    def seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key >= first[query]) & (key < end[query])

    return BlockMask.from_kv_blocks(
        *ordered(partial), *ordered(full), BLOCK_SIZE=FLEX_BLOCK, mask_mod=seen, seq_lengths=(M, L)
    )


def _flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(_flex(), dynamic=True)
    return compiled
