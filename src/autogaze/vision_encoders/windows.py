"""Which tokens of a packed sequence see which: for every token one run of keys.

Tokens of all clips lie one after the other without padding, those of a frame together. In each of the four kinds of
attention the keys a token sees are a run, so two numbers a token say everything. Shape letters: M packed tokens,
L keys, which are the M tokens and, before them, those of earlier steps of a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

Attention: TypeAlias = Literal["frame", "block_causal", "causal", "bidirectional"]
"""``frame``: tokens see those of their own frame. ``block_causal``: of their own frame and of earlier ones.
``causal``: those before them, and themselves. ``bidirectional``: all of the clip."""

ATTENTIONS: tuple[Attention, ...] = get_args(Attention)


@dataclass(frozen=True, slots=True)
class Span:
    """Queries that see the same keys, or, if causal, one key more each, the last query all of them."""

    first_query: int
    end_query: int
    first_key: int
    end_key: int
    causal: bool

    @property
    def shape(self) -> tuple[int, int, bool]:
        """Queries, keys, causal: spans of equal shape can be computed together."""
        return self.end_query - self.first_query, self.end_key - self.first_key, self.causal


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """The keys that each of M packed tokens sees: ``first_M[m] … end_M[m] - 1``."""

    first_M: Indices
    """(M,) first key of each token."""
    end_M: Indices
    """(M,) one past the last key of each token."""
    spans: tuple[Span, ...]
    """The same as runs of queries, which cover all M in order."""

    @property
    def num_tokens(self) -> int:
        """M."""
        return len(self.first_M)

    @property
    def num_keys(self) -> int:
        """L."""
        return int(self.end_M.max(initial=0))

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], *, attention: Attention, past: int = 0) -> Windows:
        """The windows of packed sequences.

        Args:
            sequences: for each sequence (a clip) the number of tokens of each of its frames; they are packed one
                after the other.
            attention: see :data:`Attention`.
            past: keys of earlier frames that lie before all tokens and belong to the one sequence there is.

        Raises:
            ValueError: there is a past, and more than one sequence or an attention that has none.
        """
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, got {attention!r}")
        if past and (len(sequences) != 1 or attention == "bidirectional"):
            raise ValueError("keys of earlier frames need one sequence and an attention that is causal or per frame")
        spans: list[Span] = []
        token = 0
        for frames in sequences:
            start, length = token, sum(frames)
            if attention in ("bidirectional", "causal"):
                keys = (0 if past else start, past + start + length)
                spans += [Span(start, start + length, *keys, attention == "causal")] if length else []
                token += length
                continue
            for count in frames:
                first_key = past + token if attention == "frame" else (0 if past else start)
                if count:
                    spans.append(Span(token, token + count, first_key, past + token + count, False))
                token += count
        return cls._from_spans(tuple(spans), token)

    @classmethod
    def _from_spans(cls, spans: tuple[Span, ...], num_tokens: int) -> Windows:
        first, end = np.zeros(num_tokens, np.int64), np.zeros(num_tokens, np.int64)
        for span in spans:
            queries = slice(span.first_query, span.end_query)
            first[queries] = span.first_key
            end[queries] = span.end_key
            if span.causal:
                end[queries] -= np.arange(span.end_query - span.first_query)[::-1]
        return cls(first_M=first, end_M=end, spans=spans)
