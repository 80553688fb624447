"""The refiner that comes with the package is what its card says, and better than the canvas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import autogaze
from autogaze.errors import CheckpointError
from autogaze.frames import Frames
from autogaze.reconstructors import load_reconstructor, loading, rebuild
from autogaze.reconstructors.loading import BUNDLED_REFINER
from autogaze.reconstructors.refined import RefinedReconstructor
from autogaze.selectors.cells import resize

ROOT = Path(__file__).parents[1]
CARD = (BUNDLED_REFINER / "README.md").read_text(encoding="utf-8")


def test_it_is_what_its_card_says() -> None:
    refined = load_reconstructor("refined")
    assert isinstance(refined, RefinedReconstructor)
    weights = sum(weight.numel() for weight in refined.refiner.parameters())
    assert f"({weights:,} weights)" in CARD
    assert refined.refiner.config.scales_px == (32, 64, 112, 224)
    assert refined.name == "refined"
    assert refined.loss_unit == load_reconstructor("canvas").loss_unit


def test_it_is_stored_small_and_everybody_may_read_it() -> None:
    assert (BUNDLED_REFINER / "model.safetensors").stat().st_size < 2_500_000
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (BUNDLED_REFINER / name).stat().st_mode & 0o444 == 0o444, name


def test_its_absence_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "BUNDLED_REFINER", tmp_path / "gone")
    with pytest.raises(CheckpointError, match="no refiner is bundled with this version of autogaze; use canvas"):
        load_reconstructor("refined")


def test_it_is_better_than_the_canvas() -> None:
    with autogaze.open_video(ROOT / "examples" / "sample.mp4", sampling=autogaze.Sampling(stride=12)) as reader:
        rgb = next(reader).rgb
    frames = Frames.from_rgb(resize(rgb, height_px=224, width_px=224))
    gaze = autogaze.gaze(frames.rgb, ratio=0.03, per="clip")
    canvas, refined = (rebuild(frames, gaze=gaze, reconstructor=name) for name in ("canvas", "refined"))
    assert refined.loss.mean() < 0.97 * canvas.loss.mean()
    squared = [np.square(found.rgb.astype(float) - frames.rgb).mean() for found in (canvas, refined)]
    assert squared[1] < 0.9 * squared[0]
