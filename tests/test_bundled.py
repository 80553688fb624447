"""The bundled checkpoint is what its card says, gazes better than chance, and its absence is told."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import autogaze
from autogaze import checks, loading
from autogaze.cli import main
from autogaze.errors import CheckpointError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.loading import BUNDLED_FOLDER, checkpoint_path, load_selector
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.calibration import Calibration, rounded_up
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.selectors.base import Budget
from autogaze.selectors.canvas import quality
from autogaze.selectors.cells import resize

ROOT = Path(__file__).parents[1]
CARD = (BUNDLED_FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bundled() -> AutoGazeSelector:
    selector = load_selector("bundled")
    assert isinstance(selector, AutoGazeSelector)
    return selector


@pytest.fixture(scope="module")
def clip() -> Frames:
    with autogaze.open_video(ROOT / "examples" / "sample.mp4") as reader:
        rgb = next(reader).rgb
    return Frames.from_rgb(resize(rgb, height_px=224, width_px=224))


def loss(clip: Frames, gaze: Gaze) -> float:
    return float(quality(clip, gaze=gaze).loss.mean())


class TestModel:
    def test_is_what_its_card_says(self, bundled: AutoGazeSelector) -> None:
        config = bundled.model.config
        assert sum(weight.numel() for weight in bundled.model.parameters()) == 3_258_240
        assert "3,258,240 weights" in CARD
        assert config.positions == "true"
        assert config.max_num_frames == 16
        assert bundled.grid.scales_px == (32, 64, 112, 224)
        table = bundled.model.calibration
        assert table is not None
        worth = table.default_threshold(0.025)
        assert bundled.default_budget == Budget(ratio=0.75, threshold=worth)
        assert f"ratio 0.75 and threshold {worth:.4g}" in CARD

    def test_is_stored_small_and_computes_in_fp32(self, bundled: AutoGazeSelector) -> None:
        assert (BUNDLED_FOLDER / "model.safetensors").stat().st_size < 7_000_000
        assert bundled.model.dtype == torch.float32

    def test_everybody_may_read_it(self) -> None:
        for name in ("config.json", "model.safetensors", "calibration.json", "README.md"):
            assert (BUNDLED_FOLDER / name).stat().st_mode & 0o444 == 0o444, name

    def test_card_names_no_folder_of_a_machine(self) -> None:
        assert CARD.startswith("---\nlicense: apache-2.0\n")
        assert not re.search(r"(?<![\w.])/(?:tmp|home|mnt|usr)/", CARD)


class TestGazes:
    def test_beat_chance_and_come_near_replenish(self, bundled: AutoGazeSelector, clip: Frames) -> None:
        layout = FrameLayout.resized(bundled.grid, height_px=224, width_px=224)
        budget = Budget(ratio=0.05)
        of_model = bundled.open(layout, budget).step(clip)
        of_search = load_selector("replenish").open(layout, budget).step(clip)
        of_chance = load_selector("random").open(layout, budget).step(clip)
        assert of_model.count.tolist() == of_chance.count.tolist() == [13] * 16
        # On this clip 0.41 times the loss of chance, and 1.85 times that of its teacher.
        assert loss(clip, of_model) < 0.6 * loss(clip, of_chance)
        assert loss(clip, of_search) < loss(clip, of_model) < 2.5 * loss(clip, of_search)

    def test_smaller_thresholds_keep_more_and_come_nearer(self, bundled: AutoGazeSelector, clip: Frames) -> None:
        gazes = [bundled.model.gaze(clip.rgb, threshold=threshold) for threshold in (0.06, 0.03)]
        assert gazes[0].num_gazes < gazes[1].num_gazes < 0.3 * gazes[1].num_patches
        assert loss(clip, gazes[0]) > loss(clip, gazes[1])

    def test_thresholds_are_kept_where_bare_predictions_are_too_hopeful(
        self, bundled: AutoGazeSelector, clip: Frames
    ) -> None:
        bare = AutoGaze.from_pretrained(BUNDLED_FOLDER, calibrated=False)
        layout = FrameLayout.resized(bundled.grid, height_px=224, width_px=224)
        for threshold in (0.05, 0.035):
            kept = quality(clip, gaze=bundled.open(layout, Budget(threshold=threshold)).step(clip)).loss
            missed = quality(clip, gaze=bare.gaze(clip.rgb, threshold=threshold)).loss
            assert (kept > threshold).mean() <= 0.1 < (missed > threshold).mean()

    def test_predictions_are_in_the_unit_of_the_canvas(self, bundled: AutoGazeSelector, clip: Frames) -> None:
        gaze = bundled.model.gaze(clip.rgb, ratio=0.05)
        assert gaze.predicted_loss is not None
        first_frame = gaze.predicted_loss[:10]
        assert 0.5 < np.median(first_frame) / loss_after(clip, gaze[0], 5) < 2


def loss_after(clip: Frames, gaze: Gaze, gazes: int) -> float:
    """Loss of the first frame after some of its gazes."""
    part = Gaze(index=gaze.index[:gazes], count=np.array([gazes]), layout=gaze.layout)
    return loss(Frames.from_rgb(clip.rgb[:1]), part)


class TestCommandLine:
    def test_gazes(self, tmp_path: Path) -> None:
        words = ["gaze", str(ROOT / "examples" / "sample.mp4"), "--model", "bundled", "--resize", "--frames", "16"]
        done = subprocess.run(
            [sys.executable, "-m", "autogaze.cli", *words, "--out", str(tmp_path), "--no-overlay"],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )
        assert (done.returncode, done.stderr) == (0, "")
        gaze = Gaze.load(tmp_path / "sample.gaze")
        assert gaze.num_frames == 16
        assert 16 < gaze.num_gazes < 0.3 * gaze.num_patches
        assert f"{gaze.num_gazes:,} of {gaze.num_patches:,} patches kept" in done.stdout

    def test_describes(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exit_:
            main(["info", "bundled"])
        assert exit_.value.code == 0
        out = capsys.readouterr().out
        assert "3,258,240" in out
        table = Calibration.load(BUNDLED_FOLDER)
        assert table is not None
        assert f"threshold: {table.default_threshold(0.025):.4g}" in out
        least = rounded_up(table.lowest_threshold)
        assert f"alpha: 0.1, reconstructor: canvas, lowest_threshold: {least:.4g}" in out

    def test_checks_see_it(self) -> None:
        assert checks._bundled().ok


class TestWithout:
    """A package from which the checkpoint was taken out."""

    @pytest.fixture(autouse=True)
    def nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (loading, checks):
            monkeypatch.setattr(module, "BUNDLED_FOLDER", tmp_path / "none")

    def test_asking_for_it_says_what_to_use(self) -> None:
        with pytest.raises(CheckpointError, match=r"no checkpoint is bundled with this version .*; use replenish"):
            checkpoint_path("bundled")

    def test_checks_say_so_and_go_on(self) -> None:
        check = checks._bundled()
        assert not check.ok
        assert not check.required
        assert check.found == "none in this version"
