"""``precision`` from every entry, and what cannot have one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import autogaze
from autogaze.cli import main
from autogaze.loading import load_selector
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.pipeline import make_recipe
from autogaze.watching import watch
from make_video import write_video

MODEL = str(Path(__file__).parent / "data" / "gaze_small")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture
def rgb_THW3() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("precision", list(DTYPES))
def test_every_entry_gazes_with_weights_of_that_precision(precision, rgb_THW3, monkeypatch):
    seen = []
    open_session = AutoGazeSelector.open

    def spying(self, *args, **options):
        seen.append(self.model.dtype)
        return open_session(self, *args, **options)

    monkeypatch.setattr(AutoGazeSelector, "open", spying)
    selector = load_selector(MODEL, precision=precision)
    assert isinstance(selector, AutoGazeSelector) and selector.model.dtype == DTYPES[precision]
    options = {"model": MODEL, "ratio": 0.2, "precision": precision}
    whole = autogaze.gaze(rgb_THW3, **options)
    session = autogaze.stream(height_px=64, width_px=64, **options)
    frames = [session.step(frame) for frame in rgb_THW3]
    assert np.concatenate([gaze.index for gaze in frames]).tolist() == whole.index.tolist()
    watch(rgb_THW3, fps=1000, **options)
    assert set(seen) == {DTYPES[precision]}
    assert make_recipe(**options).settings.precision == precision


def test_half_precision_is_close_to_the_whole_and_not_the_same(rgb_THW3):
    exact = autogaze.gaze(rgb_THW3, model=MODEL, ratio=0.2)
    half = autogaze.gaze(rgb_THW3, model=MODEL, ratio=0.2, precision="bf16")
    assert exact.count.tolist() == half.count.tolist()
    first = slice(0, int(exact.count[0]))
    difference = np.abs(exact.probability[first] - half.probability[first])
    assert 0 < difference.max() < 0.1


def test_the_command_line_says_what_it_gazed_with(tmp_path, rgb_THW3):
    video = write_video(tmp_path / "video.mp4", rgb_THW3, fps=5)
    for precision in ("bf16", "fp32"):  # other settings are no finished result
        words = ["gaze", video, "--model", MODEL, "--ratio", "0.2", "--precision", precision, "--out", tmp_path / "out"]
        with pytest.raises(SystemExit) as ended:
            main([*map(str, words), "--quiet"])
        assert ended.value.code == 0
        settings = json.loads((tmp_path / "out" / "video.json").read_text())["settings"]
        assert settings["precision"] == precision


@pytest.mark.parametrize(
    ("model", "precision", "message"),
    [
        (MODEL, "int8", "precision must be one of fp32, bf16, fp16, got 'int8'"),
        ("replenish", "bf16", "replenish has no network"),
        ("object", "bf16", "as precise as it was made"),
    ],
)
def test_what_has_no_such_precision_is_refused(model, precision, message):
    given = load_selector(MODEL) if model == "object" else model
    with pytest.raises(ValueError, match=message):
        load_selector(given, precision=precision)
