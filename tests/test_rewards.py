"""Judges: the exact losses of a canvas, and those of any reconstructor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autogaze.errors import CheckpointError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.reconstructors.refined import RefinedReconstructor
from autogaze.reconstructors.refiner import Refiner, RefinerConfig
from autogaze.selectors.canvas import quality
from autogaze.training.rewards import CanvasJudge, ClipCanvas, ReconstructorJudge, canvas_losses, load_judge

SMALL = PatchGrid(scales_px=(32, 64))


def random_clip(height_px: int, width_px: int, *, frames: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height_px, width_px, 3), np.uint8)


def random_gaze(layout: FrameLayout, *, frames: int = 4, seed: int = 0, most: int = 9) -> Gaze:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most + 1, frames)  # frames without a gaze too
    index = [rng.permutation(layout.num_indices)[:count] for count in counts]
    return Gaze(index=np.concatenate(index).astype(np.int64), count=counts, layout=layout)


LAYOUTS = {
    "published": FrameLayout.tiled(PatchGrid(), height_px=224, width_px=224),
    "small": FrameLayout.tiled(SMALL, height_px=64, width_px=64),
    "one scale": FrameLayout.tiled(PatchGrid(scales_px=(48,)), height_px=48, width_px=48),
    # Cells of 14 px that leave a border of the tile to no patch.
    "border": FrameLayout.tiled(PatchGrid(scales_px=(40, 80), patch_px=14), height_px=80, width_px=80),
    "several tiles, padded": FrameLayout.tiled(SMALL, height_px=90, width_px=150),
    "resized": FrameLayout.resized(SMALL, height_px=50, width_px=100),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_equals_the_quality_of_a_canvas(name: str) -> None:
    layout = LAYOUTS[name]
    rgb = random_clip(layout.height_px, layout.width_px)
    gazes = [random_gaze(layout, seed=seed) for seed in range(4)]
    judged = CanvasJudge().losses(rgb, gazes)
    assert judged.shape == (4, 4) and judged.dtype == np.float64
    for gaze, losses in zip(gazes, judged, strict=True):
        assert np.array_equal(losses, quality(Frames.from_rgb(rgb), gaze=gaze).loss)
        assert np.array_equal(losses, canvas_losses(rgb, gaze))


def test_the_worst_picture_there_is_is_counted_right() -> None:
    """White patches that stay on black frames: the largest sums that can occur."""
    layout = LAYOUTS["published"]
    rgb = np.zeros((2, 224, 224, 3), np.uint8)
    rgb[0] = 255
    gaze = Gaze(index=np.arange(69, 265), count=np.array([196, 0]), layout=layout)
    assert canvas_losses(rgb, gaze).tolist() == [0, 1]


def test_one_gaze_does_not_change_the_next() -> None:
    layout = LAYOUTS["small"]
    clip = ClipCanvas(random_clip(64, 64), layout)
    gazes = [random_gaze(layout, seed=seed) for seed in range(3)]
    once = [clip.losses(gaze) for gaze in gazes]
    for gaze, losses in zip(gazes[::-1], once[::-1], strict=True):
        assert np.array_equal(clip.losses(gaze), losses)


def refiner(grid: PatchGrid) -> Refiner:
    torch.manual_seed(0)
    network = Refiner(RefinerConfig(scales_px=grid.scales_px, patch_px=grid.patch_px, widths=(8, 8)))
    torch.nn.init.normal_(network.head.weight, std=0.1)  # untrained it would change nothing
    return network.eval()


def test_a_refiner_judges_what_it_makes_of_the_canvas(tmp_path: Path) -> None:
    layout, network = LAYOUTS["small"], refiner(SMALL)
    network.save_pretrained(tmp_path)
    rgb, gazes = random_clip(64, 64), [random_gaze(LAYOUTS["small"], seed=seed) for seed in range(3)]
    judged = load_judge(tmp_path).losses(rgb, gazes)
    assert judged.shape == (3, 4)
    for gaze, losses in zip(gazes, judged, strict=True):
        # Frame by frame, as the video would be rebuilt.
        session = RefinedReconstructor(network).open(layout)
        steps = [session.step(Frames.from_rgb(rgb)[t : t + 1], gaze[t : t + 1]).loss[0] for t in range(4)]
        np.testing.assert_allclose(losses, steps, atol=1e-3)  # 8-bit colours may round the other way
        assert np.abs(losses - canvas_losses(rgb, gaze)).max() > 1e-3


def test_judges_by_name() -> None:
    assert load_judge("canvas") == CanvasJudge()
    refined = load_judge("refined")
    assert isinstance(refined, ReconstructorJudge) and refined.reconstructor.name == "refined"
    with pytest.raises(CheckpointError, match="did you mean canvas"):
        load_judge("canvass")


def test_no_gazes_have_no_losses() -> None:
    for judge in (CanvasJudge(), ReconstructorJudge(RefinedReconstructor(refiner(SMALL)))):
        assert judge.losses(random_clip(64, 64), []).shape == (0, 4)


def test_what_does_not_fit_is_refused() -> None:
    rgb, gaze = random_clip(64, 64), random_gaze(LAYOUTS["small"])
    for judge in (CanvasJudge(), ReconstructorJudge(RefinedReconstructor(refiner(SMALL)))):
        with pytest.raises(ValueError, match="one for each of 4 frames"):
            judge.losses(rgb[:3], [gaze])
        with pytest.raises(ValueError, match="must have one layout"):
            judge.losses(rgb, [gaze, random_gaze(LAYOUTS["one scale"])])
        with pytest.raises(ValueError, match=r"64×64 px|a frame of this layout"):
            judge.losses(rgb[:, :48], [gaze])
    unfit = FrameLayout.tiled(PatchGrid(scales_px=(48, 224)), height_px=224, width_px=224)
    with pytest.raises(ValueError, match="do not cut a tile of 224 px"):
        canvas_losses(random_clip(224, 224), random_gaze(unfit))
