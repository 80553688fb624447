"""Which frames are kept: by stride, by time, by count."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autogaze.sampling import Sampling, even_numbers, pick


@dataclass(frozen=True)
class Shown:
    number: int
    time_seconds: float
    duration_seconds: float


def at(times: list[float], *, last_seconds: float = 0.04) -> list[Shown]:
    durations = [*np.diff(times), last_seconds]
    return [
        Shown(number, time, float(duration))
        for number, (time, duration) in enumerate(zip(times, durations, strict=True))
    ]


def kept(times: list[float], sampling: Sampling, **options: float) -> list[int]:
    frames = at(times, last_seconds=options.pop("last_seconds", 0.04))
    return [frame.number for frame in pick(frames, sampling=sampling, num_frames=len(frames), **options)]


def test_every_frame_by_default() -> None:
    assert kept([0.0, 0.1, 0.2], Sampling()) == [0, 1, 2]


@given(st.integers(1, 60), st.integers(1, 70))
def test_stride_keeps_every_nth(num_frames: int, stride: int) -> None:
    sampling = Sampling(stride=stride)
    numbers = kept([t / 30 for t in range(num_frames)], sampling)
    assert numbers == list(range(0, num_frames, stride))
    assert len(numbers) == sampling.num_kept(num_frames, source_fps=30)


@given(st.integers(1, 200), st.integers(1, 220))
def test_count_is_even_and_has_both_ends(num_frames: int, count: int) -> None:
    sampling = Sampling(count=count)
    numbers = kept([t / 30 for t in range(num_frames)], sampling)
    if count >= num_frames:
        assert numbers == list(range(num_frames))
    else:
        assert numbers == [round(x) for x in np.linspace(0, num_frames - 1, count)]
        assert len(set(numbers)) == count and numbers[0] == 0
        if count > 1:
            assert numbers[-1] == num_frames - 1
            assert max(np.diff(numbers)) - min(np.diff(numbers)) <= 1
    assert len(numbers) == sampling.num_kept(num_frames, source_fps=30)


def test_even_numbers_of_a_known_case() -> None:
    assert even_numbers(10, 4).tolist() == [0, 3, 6, 9]
    assert even_numbers(10, 1).tolist() == [0]


def test_count_ends_with_the_real_last_frame_if_frames_are_missing() -> None:
    frames = at([t / 30 for t in range(7)])
    picked = pick(frames, sampling=Sampling(count=4), num_frames=10)
    assert [frame.number for frame in picked] == [0, 3, 6]
    picked = pick(frames[:6], sampling=Sampling(count=4), num_frames=10)
    assert [frame.number for frame in picked] == [0, 3, 5]


def test_count_without_a_number_of_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="count needs the number of frames"):
        pick(at([0.0]), sampling=Sampling(count=4), num_frames=None)


def test_fps_of_a_constant_rate_keeps_one_in_n() -> None:
    for source_fps, fps in ((30, 10), (30, 30), (24, 8), (25, 5), (60, 1)):
        numbers = kept([t / source_fps for t in range(2 * source_fps)], Sampling(fps=fps), last_seconds=1 / source_fps)
        assert numbers == list(range(0, 2 * source_fps, source_fps // fps)), (source_fps, fps)


def test_fps_above_the_source_gives_each_frame_once() -> None:
    assert kept([t / 10 for t in range(20)], Sampling(fps=1000)) == list(range(20))


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=40),
    st.floats(0.2, 60, allow_nan=False),
    st.integers(0, 5000),
)
def test_fps_keeps_just_the_frames_shown_at_ticks(gaps_ms: list[int], fps: float, start_ms: int) -> None:
    """The definition, tick by tick, for a variable rate."""
    times = [(start_ms + sum(gaps_ms[:i])) / 1000 for i in range(len(gaps_ms))]
    end = (start_ms + sum(gaps_ms)) / 1000
    ticks = times[0] + np.arange(math.ceil((end - times[0]) * fps) + 2) / fps
    edges = np.array([*times, end])
    near = np.abs(ticks[:, None] - edges[None]).min(1) < 1e-5
    if near[1:].any():  # a tick on an edge is a matter of rounding, tested with constant rates
        return
    shown = np.searchsorted(edges + 1e-9 * (np.arange(len(edges)) > 0), ticks + 1e-9, side="right") - 1
    expected = sorted({int(i) for i in shown if i < len(times)})
    assert kept(times, Sampling(fps=fps), last_seconds=gaps_ms[-1] / 1000) == expected


def test_times_rounded_to_milliseconds_lose_no_frame() -> None:
    for fps in (24, 30, 60, 29.97):
        times = [round(t / fps, 3) for t in range(200)]
        options = {"tolerance_seconds": 0.0005, "last_seconds": 1 / fps}
        assert kept(times, Sampling(fps=fps), **options) == list(range(200)), fps
        assert kept(times, Sampling(fps=fps / 2), **options) == list(range(0, 200, 2)), fps


def test_rate_of_what_is_kept() -> None:
    assert Sampling().kept_fps(30, num_frames=90) == 30
    assert Sampling(stride=3).kept_fps(30, num_frames=90) == 10
    assert Sampling(fps=5).kept_fps(30, num_frames=90) == 5
    assert Sampling(fps=50).kept_fps(30, num_frames=90) == 30
    assert Sampling(count=9).kept_fps(30, num_frames=90) == 3
    assert Sampling(count=900).kept_fps(30, num_frames=90) == 30
    assert Sampling(fps=10).num_kept(60, source_fps=30) == 20
    assert Sampling(fps=100).num_kept(60, source_fps=30) == 60


@pytest.mark.parametrize("stride", [0, -1, 1.5, True, "2"])
def test_illegal_stride(stride: object) -> None:
    with pytest.raises(ValueError, match="stride must be a whole number of at least 1"):
        Sampling(stride=stride)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, -4, 2.0])
def test_illegal_count(count: object) -> None:
    with pytest.raises(ValueError, match="count must be a whole number of at least 1"):
        Sampling(count=count)  # type: ignore[arg-type]


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf, "5", True])
def test_illegal_fps(fps: object) -> None:
    with pytest.raises(ValueError, match="fps must be a finite number above 0"):
        Sampling(fps=fps)  # type: ignore[arg-type]


def test_two_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="one of stride, fps and count"):
        Sampling(stride=2, fps=5)
