"""What every reconstructor promises, and finding one by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autogaze.errors import CheckpointError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.reconstructors import CanvasReconstructor, Reconstruction, load_reconstructor, rebuild
from autogaze.selectors.canvas import quality, reconstruct

LAYOUT = FrameLayout.tiled(PatchGrid(scales_px=(32, 64)), height_px=70, width_px=100)


def video(frames: int = 5) -> Frames:
    return Frames.from_rgb(np.random.default_rng(0).integers(0, 256, (frames, 70, 100, 3), dtype=np.uint8))


def gaze(share: float, frames: int = 5) -> Gaze:
    mask = np.random.default_rng(1).random((frames, LAYOUT.num_indices)) < share
    return Gaze.from_mask(mask & LAYOUT.inside, LAYOUT)


def test_the_canvas_is_what_it_was() -> None:
    rebuilt = rebuild(video(), gaze=gaze(0.2))
    np.testing.assert_array_equal(rebuilt.rgb, reconstruct(video(), gaze=gaze(0.2)))
    np.testing.assert_array_equal(rebuilt.loss, quality(video(), gaze=gaze(0.2)).loss)


def test_steps_of_the_canvas_are_the_whole() -> None:
    session = CanvasReconstructor().open(LAYOUT)
    frames, gazes = video(), gaze(0.2)
    parts = [session.step(frames[a:b], gazes[a:b]) for a, b in ((0, 2), (2, 3), (3, 5))]
    np.testing.assert_array_equal(np.concatenate([part.rgb for part in parts]), rebuild(frames, gaze=gazes).rgb)


def test_all_patches_rebuild_the_frame() -> None:
    rebuilt = rebuild(video(), gaze=gaze(1.1))
    np.testing.assert_array_equal(rebuilt.rgb, video().rgb)
    assert (rebuilt.loss == 0).all()


@pytest.mark.parametrize(
    ("frames", "gazes", "message"),
    [
        (Frames.from_rgb(np.zeros((5, 70, 99, 3), np.uint8)), gaze(0.2), "the gaze is of frames of 100×70 px, these"),
        (video(4), gaze(0.2), "frames and gaze must be equally long, got 4 frames and gazes of 5"),
    ],
)
def test_a_gaze_of_another_video_is_refused(frames: Frames, gazes: Gaze, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rebuild(frames, gaze=gazes)


def test_a_gaze_of_another_layout_is_refused() -> None:
    other = replace(gaze(0), layout=FrameLayout.resized(LAYOUT.grid, height_px=70, width_px=100))
    with pytest.raises(ValueError, match="use the same layout"):
        CanvasReconstructor().open(LAYOUT).step(video(), other)


class TestByName:
    def test_the_canvas(self) -> None:
        assert load_reconstructor("canvas").name == load_reconstructor().name == "canvas"

    def test_an_object(self) -> None:
        made = CanvasReconstructor()
        assert load_reconstructor(made) is made

    def test_what_is_none(self) -> None:
        with pytest.raises(TypeError, match="got int"):
            load_reconstructor(3)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("canvs", "is no reconstructor \\(did you mean canvas\\?\\)"),
            ("no/such/place", "is no reconstructor"),
            ("", "is no reconstructor"),
            ("x" * 5000, "is no reconstructor"),
            ("a\0b", "is no reconstructor"),
        ],
    )
    def test_nothing_of_that_name(self, name: str, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            load_reconstructor(name)

    def test_a_folder_that_holds_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"config\.json"):
            load_reconstructor(tmp_path)


@pytest.mark.parametrize(
    ("rgb", "loss", "message"),
    [
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2), "rgb must be"),
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2), "rgb must be"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3), "loss must be"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.float32), "loss must be"),
    ],
)
def test_a_reconstruction_is_checked(rgb: np.ndarray, loss: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reconstruction(rgb=rgb, loss=loss)
