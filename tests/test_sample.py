"""The sample video is what its script draws, and holds what the rest of the project needs to show."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from numpy.typing import NDArray

EXAMPLES = Path(__file__).parents[1] / "examples"
SAMPLE = EXAMPLES / "sample.mp4"
FIRST_OF_HILLS, FIRST_OF_BOARD = 108, 150


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(EXAMPLES))
    try:
        import make_sample
    finally:
        sys.path.remove(str(EXAMPLES))
    return make_sample


@pytest.fixture(scope="module")
def decoded() -> NDArray[np.uint8]:
    with av.open(str(SAMPLE)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def changes(decoded: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of pixels that differ visibly from the frame before, one number per pair of neighbours."""
    return np.array(
        [(np.abs(after.astype(np.int16) - before).max(-1) > 24).mean() for before, after in pairwise(decoded)]
    )


def test_file_is_small_and_as_long_as_it_says(script, decoded):
    assert SAMPLE.stat().st_size < 1_000_000
    assert decoded.shape == (script.NUM_FRAMES, 360, 640, 3)
    with av.open(str(SAMPLE)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == script.FPS
        assert file.duration / av.time_base == pytest.approx(script.NUM_FRAMES / script.FPS, abs=0.05)
    assert script.NUM_FRAMES / script.FPS >= 6


@pytest.mark.parametrize("number", [0, 60, 107, 108, 149, 150, 191])
def test_file_shows_what_the_script_draws(script, decoded, number):
    drawn = np.asarray(script.draw_frame(number)).astype(float)
    error = ((drawn - decoded[number]) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 30


def test_a_frame_depends_on_its_number_alone(script):
    first = script.draw_frame(50)
    script.draw_frame(160)
    assert script.draw_frame(50).tobytes() == first.tobytes()


@pytest.mark.parametrize("number", [-1, 192])
def test_there_is_no_frame_outside_the_video(script, number):
    with pytest.raises(IndexError, match=r"0\.\.191"):
        script.draw_frame(number)


def test_cuts_pan_and_still_part_are_there(decoded):
    changed = changes(decoded)
    assert set(np.flatnonzero(changed > 0.5)) == {FIRST_OF_HILLS - 1, FIRST_OF_BOARD - 1}
    resting, panning, still = changed[:16], changed[40:70], changed[FIRST_OF_BOARD + 1 :]
    assert panning.min() > 3 * resting.max()
    assert still.mean() > 0 and still.max() < 0.005


def test_writing_it_again_gives_the_same_picture(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "NUM_FRAMES", 3)
    for name in ("a.mp4", "b.mp4"):
        script.write_video(tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
