"""Which tokens see which: against the definition, token by token."""

from __future__ import annotations

import tracemalloc
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autogaze.vision_encoders.windows import ATTENTIONS, Attention, Windows

Sequences = list[list[int]]

ragged = st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=4)
attentions = st.sampled_from(ATTENTIONS)
# A busy machine is no failure.
unhurried = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def seen(sequences: Sequences, attention: Attention, past: int = 0) -> NDArray[np.bool_]:
    """(M, L) by the words of each kind of attention; the past is earlier frames of the first sequence."""
    tokens = [(s, t) for s, frames in enumerate(sequences) for t, count in enumerate(frames) for _ in range(count)]
    keys = [(0, -1)] * past + tokens
    matrix = np.zeros((len(tokens), len(keys)), bool)
    for q, (sequence, frame) in enumerate(tokens):
        for k, (other_sequence, other_frame) in enumerate(keys):
            matrix[q, k] = (
                sequence == other_sequence
                and {
                    "frame": other_frame == frame,
                    "block_causal": other_frame <= frame,
                    "causal": k <= past + q,
                    "bidirectional": True,
                }[attention]
            )
    return matrix


def expanded(windows: Windows, keys: int) -> NDArray[np.bool_]:
    """(M, L) of the two numbers of every token."""
    key = np.arange(keys)
    matrix: NDArray[np.bool_] = (key >= windows.first_M[:, None]) & (key < windows.end_M[:, None])
    return matrix


@unhurried
@given(sequences=ragged, attention=attentions)
def test_windows_are_the_definition(sequences: Sequences, attention: Attention) -> None:
    windows, expected = Windows.of(sequences, attention=attention), seen(sequences, attention)
    assert windows.num_tokens == windows.num_keys == len(expected)
    assert np.array_equal(expanded(windows, len(expected)), expected)


@unhurried
@given(frames=st.lists(st.integers(0, 6), min_size=1, max_size=5), past=st.integers(1, 20), attention=attentions)
def test_windows_of_a_stream_see_its_past(frames: list[int], past: int, attention: Attention) -> None:
    if attention == "bidirectional":
        return
    expected = seen([frames], attention, past)
    windows = Windows.of([frames], attention=attention, past=past)
    assert np.array_equal(expanded(windows, past + sum(frames)), expected)
    assert not sum(frames) or windows.num_keys == past + sum(frames)


@unhurried
@given(sequences=ragged, attention=attentions)
def test_spans_say_the_same_as_runs_that_cover_all_tokens_in_order(sequences: Sequences, attention: Attention) -> None:
    windows = Windows.of(sequences, attention=attention)
    spans = windows.spans
    assert all(span.first_query < span.end_query for span in spans)
    edges = [0, *(span.end_query for span in spans)]
    assert edges[-1] == windows.num_tokens
    assert all(span.first_query == edge for span, edge in zip(spans, edges, strict=False))
    for span in spans:
        queries = range(span.first_query, span.end_query)
        later = [span.end_query - 1 - q if span.causal else 0 for q in queries]
        assert windows.first_M[queries].tolist() == [span.first_key] * len(queries)
        assert windows.end_M[queries].tolist() == [span.end_key - n for n in later]
        assert span.shape == (len(queries), span.end_key - span.first_key, attention == "causal")


@unhurried
@given(left=ragged, right=ragged, attention=attentions)
def test_sequences_know_nothing_of_each_other(left: Sequences, right: Sequences, attention: Attention) -> None:
    both = Windows.of(left + right, attention=attention)
    alone, after = (Windows.of(part, attention=attention) for part in (left, right))
    assert np.array_equal(both.first_M, np.concatenate([alone.first_M, after.first_M + alone.num_tokens]))
    assert np.array_equal(both.end_M, np.concatenate([alone.end_M, after.end_M + alone.num_tokens]))


@unhurried
@given(frames=st.lists(st.integers(0, 6), min_size=2, max_size=6), data=st.data())
def test_steps_of_a_stream_see_what_the_whole_clip_does(frames: list[int], data: st.DataObject) -> None:
    attention = data.draw(st.sampled_from(["frame", "block_causal", "causal"]))
    whole = Windows.of([frames], attention=attention)
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, len(frames) - 1)))), len(frames)]
    past = [sum(frames[:cut]) for cut in cuts]
    steps = [
        Windows.of([frames[start:stop]], attention=attention, past=keys)
        for (start, stop), keys in zip(pairwise(cuts), past, strict=False)
    ]
    assert list(chain(*(step.first_M for step in steps))) == whole.first_M.tolist()
    assert list(chain(*(step.end_M for step in steps))) == whole.end_M.tolist()


def test_memory_is_linear_in_tokens() -> None:
    frames = [1250] * 16  # 20,000 tokens; a mask of all against all has 400 million entries
    tracemalloc.start()
    try:
        windows = Windows.of([frames], attention="block_causal")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert windows.num_tokens == 20_000 and len(windows.spans) == 16
    assert most < 64 * windows.num_tokens


def test_unknown_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="one of frame, block_causal, causal, bidirectional, got 'full'"):
        Windows.of([[3]], attention="full")  # type: ignore[arg-type]


@pytest.mark.parametrize(("sequences", "attention"), [([[3], [2]], "causal"), ([[3]], "bidirectional")])
def test_a_past_needs_one_sequence_that_has_one(sequences: Sequences, attention: Attention) -> None:
    with pytest.raises(ValueError, match="need one sequence and an attention that is causal or per frame"):
        Windows.of(sequences, attention=attention, past=1)
