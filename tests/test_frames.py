"""Frames as selectors read them."""

import numpy as np
import pytest

from autogaze.frames import Frames

RGB = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
LEGAL = {"rgb": RGB, "time_seconds": np.arange(5.0), "number": np.arange(5)}


def test_frames_of_an_array():
    frames = Frames.from_rgb(RGB, fps=25)
    assert (len(frames), frames.height_px, frames.width_px) == (5, 4, 6)
    np.testing.assert_allclose(frames.time_seconds, [0, 0.04, 0.08, 0.12, 0.16])
    assert frames.number.tolist() == [0, 1, 2, 3, 4]
    assert frames.motion_vectors is None
    assert repr(frames) == "Frames(5 of 6×4 px, 0.000–0.160 s)"


def test_a_slice_takes_everything_along_without_a_copy():
    vectors = tuple(np.zeros(n, [("motion_x", "i4")]) for n in range(5))
    part = Frames(**LEGAL, motion_vectors=vectors)[1:4:2]
    assert np.shares_memory(part.rgb, RGB)
    np.testing.assert_array_equal(part.rgb, RGB[[1, 3]])
    assert part.number.tolist() == [1, 3] and part.time_seconds.tolist() == [1.0, 3.0]
    assert [len(v) for v in part.motion_vectors or ()] == [1, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rgb": RGB[0]}, r"must be \(T, H, W, 3\) uint8, got \(4, 6, 3\)"),
        ({"rgb": RGB[..., :2]}, r"\(T, H, W, 3\)"),
        ({"rgb": RGB / 255}, "got .* float64"),
        ({"rgb": RGB[:0]}, "at least one frame"),
        ({"rgb": RGB[:, :0]}, "at least one frame of 1 × 1 px"),
        ({"time_seconds": np.arange(4.0)}, r"must be \(5,\) like rgb, got \(4,\) and \(5,\)"),
        ({"number": np.arange(6)}, r"got \(5,\) and \(6,\)"),
        ({"motion_vectors": ()}, "must have 5 entries, got 0"),
    ],
)
def test_impossible_frames(change: dict, message: str):
    Frames(**LEGAL)
    with pytest.raises(ValueError, match=message):
        Frames(**(LEGAL | change))


def test_an_empty_slice_is_no_frames():
    with pytest.raises(ValueError, match="at least one frame"):
        Frames(**LEGAL)[5:]


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_fps_must_be_positive(fps: float):
    with pytest.raises(ValueError, match="fps must be a positive number"):
        Frames.from_rgb(RGB, fps=fps)
