"""A canvas that moves with the camera: shifts are found, kept, followed, and save patches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autogaze.errors import GazeFileError
from autogaze.frames import Frames
from autogaze.gaze import FORMAT_VERSION, SHIFTED_VERSION, Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.reconstructors.canvas import CanvasReconstructor
from autogaze.reconstructors.provenance import OLDEST, CanvasRecorder
from autogaze.selectors.base import Budget
from autogaze.selectors.canvas import Canvas, quality, reconstruct
from autogaze.selectors.cells import Tiling
from autogaze.selectors.device import DeviceEasel
from autogaze.selectors.motion import Picture, global_shift
from autogaze.selectors.replenish import Replenish, ReplenishSession
from autogaze.tiling import tile

ODD = PatchGrid(scales_px=(8, 16, 28, 56), patch_px=4)  # the published grid at a quarter of its size
STEPS = [(0, 0), (3, -5), (3, -5), (0, 0), (-7, 2), (3, -5)]


def texture(height_px: int, width_px: int, seed: int = 0) -> np.ndarray:
    """A picture with detail of every size."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height_px, width_px, 3))
    for side in (4, 16, 48):
        coarse = torch.from_numpy(rng.normal(0, 1, (1, 3, side, side)))
        large = torch.nn.functional.interpolate(coarse, size=(height_px, width_px), mode="bicubic")
        picture += large[0].permute(1, 2, 0).numpy()
    picture -= picture.min()
    return (picture * 255 / picture.max()).astype(np.uint8)


@pytest.fixture(scope="module")
def panning() -> Frames:
    """Six frames of 100×130 px that a camera sees of a still picture while it moves by STEPS."""
    picture, top, left, frames = texture(160, 220), 30, 40, []
    for down, right in STEPS:
        top, left = top - down, left - right
        frames.append(picture[top : top + 100, left : left + 130])
    return Frames.from_rgb(np.stack(frames))


def gazed(frames: Frames, layout: FrameLayout, budget: Budget, motion: str = "global") -> Gaze:
    return Replenish(ODD, motion=motion).open(layout, budget).step(frames)  # type: ignore[arg-type]


LAYOUT = FrameLayout.tiled(ODD, height_px=100, width_px=130)


def test_a_moving_camera_is_followed_pixel_by_pixel(panning: Frames):
    gaze = gazed(panning, LAYOUT, Budget(threshold=0.02))
    assert gaze.shift_px is not None
    assert gaze.shift_px.tolist() == [list(step) for step in STEPS]
    still = gazed(panning, LAYOUT, Budget(threshold=0.02), motion="none")
    assert still.shift_px is None
    assert gaze.num_gazes < 0.7 * still.num_gazes
    assert quality(panning, gaze=gaze).loss.max() <= 0.02


@pytest.mark.parametrize("budget", [Budget(threshold=0.02), Budget(ratio=0.1), Budget(ratio=0.1, per="clip")], ids=str)
@pytest.mark.parametrize("resized", [False, True])
def test_what_the_selector_painted_is_painted_again(panning: Frames, budget: Budget, resized: bool):
    make = FrameLayout.resized if resized else FrameLayout.tiled
    session = Replenish(ODD, motion="global").open(make(ODD, height_px=100, width_px=130), budget)
    gaze = session.step(panning)
    last, painted = np.cumsum(gaze.count) - 1, gaze.count > 0
    losses = quality(panning, gaze=gaze).loss
    np.testing.assert_allclose(gaze.predicted_loss[last][painted], losses[painted], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(session.canvas.image(), reconstruct(panning, gaze=gaze)[-1])
    streamed = CanvasReconstructor().open(session.layout)
    parts = [streamed.step(panning[t : t + 2], gaze[t : t + 2]) for t in range(0, 6, 2)]
    np.testing.assert_array_equal(np.concatenate([part.loss for part in parts]), losses)


def test_frames_one_by_one_move_as_all_at_once(panning: Frames):
    session = Replenish(ODD, motion="global").open(LAYOUT, Budget(threshold=0.03))
    parts = [session.step(panning[t : t + 1]) for t in range(6)]
    assert Gaze.concatenate(parts).equals(gazed(panning, LAYOUT, Budget(threshold=0.03)))


def test_a_device_moves_alike(panning: Frames):
    easel = DeviceEasel(LAYOUT, squared=False, device=torch.device("cpu"))
    session = ReplenishSession(LAYOUT, Budget(threshold=0.05), easel, motion="global")
    assert session.step(panning[:3]).equals(gazed(panning[:3], LAYOUT, Budget(threshold=0.05)))


def test_a_cut_moves_nothing():
    frames = Frames.from_rgb(np.stack([texture(100, 130, seed) for seed in range(3)]))
    gaze = gazed(frames, LAYOUT, Budget(threshold=0.05))
    still = gazed(frames, LAYOUT, Budget(threshold=0.05), motion="none")
    # A shift is followed only where it helps, and between pictures that have nothing in common it hardly does.
    assert gaze.num_gazes <= still.num_gazes * 1.05


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (-2, 3), (9, -14), (-40, 0)])
@pytest.mark.parametrize("size", [(100, 130), (300, 700)])
def test_shifts_of_known_size_are_found(shift: tuple[int, int], size: tuple[int, int]):
    picture = texture(size[0] + 100, size[1] + 100, seed=4)
    top, left = 50, 50
    before = picture[top : top + size[0], left : left + size[1]]
    after = picture[top - shift[0] :, left - shift[1] :][: size[0], : size[1]]
    assert global_shift(Picture.of(before), Picture.of(after)) == shift


def test_tiles_shift_as_their_frame_does_and_keep_its_edges():
    tiling = Tiling(LAYOUT)
    frame = texture(100, 130)
    moved = tiling.join(tiling.shifted(tiling.cut(frame), 7, -60))
    np.testing.assert_array_equal(moved[7:, :70], frame[:-7, 60:])
    np.testing.assert_array_equal(moved[:7, :70], np.repeat(frame[:1, 60:], 7, 0))
    np.testing.assert_array_equal(moved[7:, 70:], np.repeat(frame[:-7, -1:], 60, 1))


def test_scale_and_age_of_pixels_move_with_them(panning: Frames):
    gaze = gazed(panning, LAYOUT, Budget(ratio=0.03))
    view = CanvasRecorder(LAYOUT).step(panning, gaze)
    np.testing.assert_array_equal(view.canvas, reconstruct(panning, gaze=gaze))
    unpainted = (view.age[1] > 0)[3:, :-5]
    assert unpainted.any()
    np.testing.assert_array_equal(view.scale[1][3:, :-5][unpainted], view.scale[0][:-3, 5:][unpainted])
    older = np.minimum(view.age[0][:-3, 5:].astype(int) + 1, OLDEST)
    np.testing.assert_array_equal(view.age[1][3:, :-5][unpainted], older[unpainted])
    np.testing.assert_array_equal(view.before[1][3:, :-5], view.canvas[0][:-3, 5:])


# Gazes with shifts


@pytest.fixture
def shifted() -> Gaze:
    shift_px = np.array([[0, 0], [3, -5], [3, -5], [0, 0], [-7, 2], [3, -5]])
    return Gaze(index=np.arange(6), count=np.ones(6, np.int64), layout=LAYOUT, shift_px=shift_px)


def test_shifts_are_saved_and_only_then_the_version_is_newer(shifted: Gaze, tmp_path: Path):
    shifted.save(tmp_path / "a.gaze")
    assert Gaze.load(tmp_path / "a.gaze").equals(shifted)
    text = json.loads(json.dumps(shifted.to_json()))
    assert text["version"] == SHIFTED_VERSION
    assert Gaze.from_json(text).equals(shifted)
    plain = replace(shifted, shift_px=None)
    assert plain.to_json()["version"] == FORMAT_VERSION
    assert not plain.equals(shifted)
    with pytest.raises(GazeFileError, match="damaged"):
        Gaze.from_json(text | {"shift_px": [[1, 2], [3]]})


def test_slices_and_wholes_keep_shifts(shifted: Gaze):
    assert shifted[1:3].shift_px.tolist() == [[3, -5], [3, -5]]
    assert shifted[4].shift_px.tolist() == [[-7, 2]]
    assert Gaze.concatenate([shifted[:2], shifted[2:]]).equals(shifted)
    still = replace(shifted[:2], shift_px=None)
    assert Gaze.concatenate([still, shifted[4:]]).shift_px.tolist() == [[0, 0], [0, 0], [-7, 2], [3, -5]]
    assert Gaze.concatenate([still, still]).shift_px is None
    # Frames that are left out have moved all the same.
    assert shifted[::2].shift_px.tolist() == [[0, 0], [6, -10], [-7, 2]]
    assert shifted[::-5].shift_px.tolist() == [[3, -5], [-2, 13]]
    assert shifted.in_order().equals(shifted)


def test_zeros_say_that_nothing_moves(shifted: Gaze):
    still = replace(shifted, shift_px=None)
    assert replace(shifted, shift_px=np.zeros((6, 2), int)).equals(still)
    assert [one.shift_px is None for one in shifted] == [True, False, False, True, False, False]
    assert shifted[3].equals(still[3])
    back = replace(shifted, shift_px=np.array([[0, 0], [1, 2], [-1, -2], [0, 0], [0, 0], [0, 0]]))
    assert back[::2].shift_px is None


def test_what_cannot_be_done_is_refused_in_words(shifted: Gaze):
    with pytest.raises(ValueError, match=r"shift_px must be \(6, 2\), got \(6,\)"):
        replace(shifted, shift_px=np.arange(6))
    with pytest.raises(ValueError, match="shift_px must hold whole numbers"):
        replace(shifted, shift_px=np.full((6, 2), 0.5))
    with pytest.raises(ValueError, match="cannot be cut into tiles; gaze again without motion"):
        tile(shifted, 0)
    with pytest.raises(ValueError, match=r"motion must be .none. or .global., got 'local'"):
        Replenish(motion="local")  # type: ignore[arg-type]


def test_a_canvas_moves_before_it_is_painted(panning: Frames):
    canvas = Canvas(LAYOUT)
    everything = Gaze.from_mask(LAYOUT.inside[None] & True, LAYOUT)
    canvas.paste(panning.rgb[0], everything)
    nothing = Gaze(index=[], count=[0], layout=LAYOUT, shift_px=np.array([STEPS[1]]))  # type: ignore[arg-type]
    moved = canvas.paste(panning.rgb[1], nothing)
    np.testing.assert_array_equal(moved[3:, :-5], panning.rgb[1][3:, :-5])
