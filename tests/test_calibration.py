"""Thresholds through a calibration: conformal risk control by hand and by lot, the stored table, and who may use it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from autogaze.errors import AutoGazeWarning, BudgetError, CalibrationWarning, CheckpointError
from autogaze.evaluation.conformal import (
    CalibrationError,
    clip_risks,
    corrected_risk,
    fewest_clips,
    next_level,
    promised_thresholds,
)
from autogaze.frames import Frames
from autogaze.grid import FrameLayout
from autogaze.info import ModelInfo, describe
from autogaze.loading import load_selector
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.calibration import CALIBRATION_NAME, Calibration, rounded_up, weights_fingerprint
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.selectors.base import Budget
from calibration_samples import calibration
from small_models import small_config


class TestRiskControl:
    def test_correction_by_hand(self) -> None:
        assert corrected_risk(0.0, clips=9) == pytest.approx(0.1)
        assert corrected_risk(0.05, clips=19) == pytest.approx((0.95 + 1) / 20)
        assert corrected_risk(1.0, clips=3) == 1

    @pytest.mark.parametrize(("alpha", "clips"), [(0.1, 9), (0.05, 19), (0.5, 1), (0.9, 1), (0.11, 9), (1 / 3, 2)])
    def test_fewest_clips_are_those_whose_perfection_is_enough(self, alpha: float, clips: int) -> None:
        assert fewest_clips(alpha) == clips
        assert corrected_risk(0, clips=clips) <= alpha + 1e-12
        assert clips == 1 or corrected_risk(0, clips=clips - 1) > alpha

    def test_threshold_of_one_level_by_hand(self) -> None:
        # Four clips of two frames, α = 0.4: the risks may sum to 0.4 · 5 − 1 = 1, which is two of the eight frames.
        losses = [np.array([[a, b]]) for a, b in ((0.1, 0.2), (0.3, 0.4), (0.5, 0.6), (0.7, 0.8))]
        assert promised_thresholds(losses, alpha=0.4).tolist() == [0.6]
        assert clip_risks(losses, 0.6).sum() == 1
        assert clip_risks(losses, np.nextafter(0.6, 0)).sum() > 1

    def test_as_few_clips_as_can_be_promise_their_largest_loss(self) -> None:
        losses = [np.array([[0.1 * clip, 0.01]]) for clip in range(1, 10)]
        assert promised_thresholds(losses, alpha=0.1).tolist() == [pytest.approx(0.9)]

    def test_clips_count_and_not_frames(self) -> None:
        """A long clip weighs as much as a short one."""
        short = [np.full((1, 1), 0.1)] * 3
        long = [np.full((1, 1000), 0.9)]
        assert promised_thresholds(short + long, alpha=0.4).tolist() == [0.1]  # the one bad clip is just allowed
        assert promised_thresholds(short + long, alpha=0.39).tolist() == [0.9]

    def test_a_laxer_level_never_promises_more(self) -> None:
        rng = np.random.default_rng(0)
        losses = [rng.random((6, 16)) for _ in range(30)]  # no order among levels at all
        promised = promised_thresholds(losses, alpha=0.2)
        assert (np.diff(promised) >= 0).all()
        for level, threshold in enumerate(promised):
            risk = clip_risks(losses, float(threshold))[:, level].mean()
            assert corrected_risk(risk, clips=30) <= 0.2 + 1e-9
            just_below = clip_risks(losses, float(np.nextafter(threshold, 0)))[:, level].mean()
            assert corrected_risk(just_below, clips=30) > 0.2

    def test_clips_may_be_of_different_lengths(self) -> None:
        rng = np.random.default_rng(1)
        losses = [rng.random((3, frames)) for frames in (1, 16, 5, 9, 16, 2, 16, 16, 3, 16, 8)]
        for level, threshold in enumerate(promised_thresholds(losses, alpha=0.3)):
            assert corrected_risk(clip_risks(losses, float(threshold))[:, level].mean(), clips=11) <= 0.3 + 1e-9

    def test_too_few_clips_are_refused_with_what_would_do(self) -> None:
        with pytest.raises(CalibrationError, match=r"alpha 0.1 can be promised from 9 clips on, got 8.*at least 0.111"):
            promised_thresholds([np.zeros((1, 1))] * 8, alpha=0.1)

    @pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
    def test_alpha_must_be_a_share(self, alpha: float) -> None:
        with pytest.raises(CalibrationError, match="alpha must be above 0 and below 1"):
            promised_thresholds([np.zeros((1, 1))], alpha=alpha)


class TestCoverage:
    LEVELS = np.geomspace(0.02, 0.15, 30)

    def clips(self, rng: np.random.Generator, count: int) -> list[np.ndarray]:
        """True losses of frames that end at a level: the level times how far the clip's head is off, and noise."""
        return list(self.LEVELS[None, :, None] * self.off(rng, count))

    def off(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return np.exp(rng.normal(0.3, 0.4, (count, 1, 1)) + rng.normal(0, 0.2, (count, 1, 16)))

    @pytest.mark.parametrize("alpha", [0.1, 0.25])
    def test_holds_on_average_over_calibrations_and_new_clips_and_is_not_wasted(self, alpha: float) -> None:
        rng = np.random.default_rng(0)
        asked, risks = 0.1, []
        for _ in range(100):
            promised = promised_thresholds(self.clips(rng, 40), alpha=alpha)
            level = int(np.searchsorted(promised, asked, side="right")) - 1
            new = np.stack(self.clips(rng, 50))[:, level]
            risks.append((new > asked).mean())
        error = np.std(risks) / np.sqrt(len(risks))
        assert np.mean(risks) < alpha + 3 * error
        # One clip in 41 is held to be all bad, and between two levels the stricter one is taken.
        assert np.mean(risks) > alpha - 0.045

    @pytest.mark.parametrize("alpha", [0.1, 0.25])
    def test_on_the_line_few_levels_cost_no_more_than_the_clips_do(self, alpha: float) -> None:
        rng = np.random.default_rng(0)
        few, asked, risks = self.LEVELS[::7], 0.1, []
        for _ in range(300):
            off = self.off(rng, 60)
            promised = promised_thresholds(list(few[:, None] * off), alpha=alpha)
            level = calibration(*zip(few.tolist(), promised.tolist(), strict=True)).level(asked)
            risks.append((level * self.off(rng, 60) > asked).mean())
        error = np.std(risks) / np.sqrt(len(risks))
        assert np.mean(risks) == pytest.approx(alpha - (1 - alpha) / 61, abs=3 * error + 0.003)


class TestNextLevel:
    def test_goes_into_the_widest_gap(self) -> None:
        assert next_level([1.0, 2.0, 8.0], [0.1, 0.11, 0.2]) == pytest.approx(4.0)

    def test_comes_near_wanted_thresholds_in_few_steps(self) -> None:
        """Promises that bend: the line finds a level whose promise is near, and is content."""

        def promised(levels: list[float]) -> list[float]:
            return [0.02 + 0.9 * level + 3 * level**2 for level in levels]

        levels, wanted = [0.005, 0.01, 0.02, 0.04, 0.1], (0.03, 0.05)
        for _ in range(4):
            level = next_level(levels, promised(levels), wanted=wanted)
            if level is None:
                break
            levels = sorted([*levels, level])
        assert next_level(levels, promised(levels), wanted=wanted) is None
        for threshold in wanted:
            assert min(abs(t / threshold - 1) for t in promised(levels)) < 0.01

    def test_the_wanted_threshold_farthest_from_all_promises_comes_first(self) -> None:
        levels, thresholds = [1.0, 2.0, 4.0], [0.1, 0.2, 0.4]
        assert next_level(levels, thresholds, wanted=(0.11, 0.3)) == pytest.approx(3.0)
        assert next_level(levels, thresholds, wanted=(0.15, 0.38)) == pytest.approx(1.5)
        assert next_level(levels, thresholds, wanted=(0.1, 0.2005)) is None

    def test_a_wanted_threshold_below_all_promises_asks_for_a_stricter_level(self) -> None:
        assert next_level([0.02, 0.04], [0.1, 0.2], wanted=(0.05,)) == pytest.approx(0.01)
        assert next_level([-0.2, 0.1], [0.1, 0.2], wanted=(0.05,)) == pytest.approx(-0.5)
        # No farther than the line through the two strictest says, and never farther off than they are.
        assert next_level([0.02, 0.04], [0.1, 0.2], wanted=(0.1 / 2**0.5,)) == pytest.approx(0.02 / 2**0.5)
        assert next_level([0.02, 0.04], [0.1, 0.2], wanted=(0.001,)) == pytest.approx(0.01)
        assert next_level([0.02, 0.04], [0.1, 0.1], wanted=(0.05,)) == pytest.approx(0.01)

    def test_is_content(self) -> None:
        assert next_level([1.0, 1.005], [0.1, 0.9]) is None
        assert next_level([1.0, 2.0], [0.1, 0.1]) is None
        assert next_level([1.0, 2.0], [0.1, 0.2], wanted=(0.3,)) is None


class TestTable:
    TABLE = ((0.01, 0.02), (0.02, 0.03), (0.025, 0.03), (0.05, 0.06))

    def test_a_threshold_that_was_promised_gets_the_largest_level_that_promises_it(self) -> None:
        table = calibration(*self.TABLE)
        asked = [0.02, 0.03, 0.06, 7.0]
        assert [table.level(threshold) for threshold in asked] == [0.01, 0.025, 0.05, 0.05]
        assert (table.lowest_threshold, table.highest_threshold) == (0.02, 0.06)

    def test_between_two_promises_it_is_on_the_line_in_logarithms(self) -> None:
        table = calibration(*self.TABLE)
        assert table.level(math.sqrt(0.03 * 0.06)) == pytest.approx(math.sqrt(0.025 * 0.05))
        assert table.level(0.03 * 2**0.25) == pytest.approx(0.025 * 2**0.25)
        # A promise that lies on the line changes nothing.
        finer = calibration(*self.TABLE[:3], (0.025 * 2**0.5, 0.03 * 2**0.5), self.TABLE[3])
        for asked in np.linspace(0.02, 0.07, 50).tolist():
            assert finer.level(asked) == pytest.approx(table.level(asked))

    def test_levels_below_nothing_have_a_line_too(self) -> None:
        table = calibration((-0.2, 0.1), (0.1, 0.2))
        assert table.level(math.sqrt(0.1 * 0.2)) == pytest.approx(-0.05)
        assert table.threshold(-0.05) == pytest.approx(math.sqrt(0.1 * 0.2))
        assert calibration((0.1, 0.0), (0.4, 0.2)).level(0.1) == pytest.approx(0.2)

    def test_levels_never_fall_and_stay_between_their_promises(self) -> None:
        table = calibration(*self.TABLE)
        for low, high in itertools.pairwise(np.linspace(0.02, 0.1, 200).tolist()):
            assert table.level(low) <= table.level(high)
        for below, above in itertools.pairwise(table.promises):
            for asked in np.linspace(below.threshold, above.threshold, 20)[:-1].tolist():
                assert below.level <= table.level(asked) <= above.level

    @pytest.mark.parametrize("threshold", [0.0199, 0.0, -1.0])
    def test_below_the_table_nothing_is_promised(self, threshold: float) -> None:
        with pytest.raises(BudgetError, match=r"the least that at most 0.1 of the frames pass is 0.02 \(canvas\)"):
            calibration(*self.TABLE).level(threshold)

    def test_corrected_predictions_end_frames_where_the_level_does(self) -> None:
        table = calibration(*self.TABLE)
        predicted = np.array([[-1, 0.005, 0.01, 0.011], [0.02, 0.0201, 0.025, 0.03], [0.05, 0.051, 2, np.nan]])
        corrected = table.corrected(predicted)
        assert corrected.shape == predicted.shape
        assert corrected[0, :3].tolist() == [0.02] * 3
        assert corrected[1, :3].tolist() == [0.03] * 3
        assert corrected[2, :3].tolist() == [0.06, np.inf, np.inf]
        assert np.isnan(corrected[2, 3])
        assert 0.02 < corrected[0, 3] < 0.03 < corrected[1, 3] < 0.06
        for asked in (0.02, 0.0207, 0.025, 0.03, 0.04, 0.06, 1.0):
            np.testing.assert_array_equal(predicted <= table.level(asked), corrected <= asked)

    def test_threshold_and_level_are_inverse_where_promises_rise(self) -> None:
        table = calibration((0.01, 0.02), (0.02, 0.03), (0.05, 0.06))
        for level in np.linspace(0.01, 0.05, 30).tolist():
            assert table.level(table.threshold(level)) == pytest.approx(level, rel=1e-12)

    def test_a_default_stays_where_it_is_and_is_called_what_it_is_worth(self) -> None:
        table = calibration(*self.TABLE)
        asked = [0.02, 0.024, 0.7, 0.001]
        assert [table.default_threshold(level) for level in asked] == [0.03, 0.03, 0.06, 0.02]
        # Of two levels with one promise the laxer is used.
        assert [table.level(table.default_threshold(level)) for level in asked] == [0.025, 0.025, 0.05, 0.01]
        assert table.level(table.default_threshold(0.033)) == pytest.approx(0.033, rel=0.002)

    @pytest.mark.parametrize("threshold", [0.02096549, 0.02097, 1 / 3, 0.99999, 12345.6, 1e-7, 0.0, 7.0, 0.1])
    def test_what_people_read_is_no_smaller_and_hardly_larger(self, threshold: float) -> None:
        assert threshold <= rounded_up(threshold) <= threshold * 1.001
        assert len(f"{rounded_up(threshold):.10e}".split("e")[0].rstrip("0")) <= 5
        assert rounded_up(rounded_up(threshold)) == rounded_up(threshold)

    def test_a_default_is_short(self) -> None:
        table = calibration((0.1, 1 / 3), (0.2, 0.33335), (0.3, 0.5))
        assert [table.default_threshold(level) for level in (0.1, 0.2)] == [0.3334, 0.3334]

    @pytest.mark.parametrize(
        "pairs", [((0.02, 0.1), (0.01, 0.2)), ((0.01, 0.2), (0.02, 0.1)), ((0.01, 0.1), (0.01, 0.2)), ()]
    )
    def test_must_be_in_order(self, pairs: tuple[tuple[float, float], ...]) -> None:
        with pytest.raises(ValueError, match=r"must rise|at least one promise"):
            calibration(*pairs)

    def test_numbers_must_be_numbers(self) -> None:
        with pytest.raises(ValueError, match="finite"):
            calibration((0.01, float("nan")))
        with pytest.raises(ValueError, match="alpha"):
            dataclasses.replace(calibration((0.01, 0.1)), alpha=1.0)


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        table = calibration((0.1 + 0.2, 1 / 3), (0.5, 2 / 3))
        silent = dataclasses.replace(table.promises[1], predicted=None)
        table = dataclasses.replace(table, promises=(table.promises[0], silent))
        assert table.save(tmp_path) == tmp_path / CALIBRATION_NAME
        assert Calibration.load(tmp_path) == table

    def test_none_is_none(self, tmp_path: Path) -> None:
        assert Calibration.load(tmp_path) is None

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            ({"format": "other"}, "not a calibration"),
            ({"version": 2}, "version 2, this autogaze reads version 1"),
            ({"promises": [{"level": 1.0}]}, "damaged"),
            ({"promises": []}, "damaged: a calibration needs"),
            ({"alpha": None}, "damaged"),
            ({"alpha": "a"}, "damaged"),
        ],
    )
    def test_damage_is_told_with_the_file(self, damage: dict[str, object], message: str, tmp_path: Path) -> None:
        data = {**calibration((0.01, 0.1)).to_json(), **damage}
        (tmp_path / CALIBRATION_NAME).write_text(json.dumps(data))
        with pytest.raises(CheckpointError, match=rf"calibration\.json: .*{message}"):
            Calibration.load(tmp_path)

    def test_what_is_no_json(self, tmp_path: Path) -> None:
        (tmp_path / CALIBRATION_NAME).write_text("{")
        with pytest.raises(CheckpointError, match=r"calibration\.json is not JSON"):
            Calibration.load(tmp_path)


def small(seed: int = 0) -> AutoGaze:
    model = AutoGaze(small_config()).eval()
    model.gazing_model.init_weights(torch.Generator().manual_seed(seed))
    return model


def fitted(model: AutoGaze, *pairs: tuple[float, float]) -> Calibration:
    return calibration(*pairs, weights=weights_fingerprint(model), positions=model.config.positions)


def levels_of(model: AutoGaze) -> tuple[float, float]:
    """A strict and a lax level that this random stop head tells apart."""
    said = model.gaze(clip(), ratio=1.0).predicted_loss
    assert said is not None
    low, high = np.nanquantile(said, [0.2, 0.8]).tolist()
    return low, high


def clip(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A calibrated checkpoint: threshold 0.1 stops at the strict level, 0.2 at the lax one."""
    model = small()
    low, high = levels_of(model)
    model.calibration = fitted(model, (low, 0.1), (high, 0.2))
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


class TestModel:
    def test_a_threshold_goes_through_the_calibration(self, folder: Path) -> None:
        model, bare = AutoGaze.from_pretrained(folder), AutoGaze.from_pretrained(folder, calibrated=False)
        assert bare.calibration is None
        low, high = levels_of(bare)
        assert model.gaze(clip(), threshold=0.1).equals(bare.gaze(clip(), threshold=low))
        assert model.calibration is not None
        half = model.calibration.level(0.15)
        assert low < half < high
        assert model.gaze(clip(), threshold=0.15).equals(bare.gaze(clip(), threshold=half))
        assert model.gaze(clip(), threshold=0.2, ratio=0.5).equals(bare.gaze(clip(), threshold=high, ratio=0.5))
        assert model.gaze(clip(), threshold=0.2).num_gazes < model.gaze(clip(), threshold=0.1).num_gazes

    def test_none_switches_it_off(self, folder: Path) -> None:
        model = AutoGaze.from_pretrained(folder)
        low, _ = levels_of(model)
        calibrated = model.gaze(clip(), threshold=0.1)
        model.calibration = None
        assert model.gaze(clip(), threshold=low).equals(calibrated)

    def test_ratios_and_predictions_are_as_they_were(self, folder: Path) -> None:
        model, bare = AutoGaze.from_pretrained(folder), AutoGaze.from_pretrained(folder, calibrated=False)
        assert model.gaze(clip(), ratio=0.5).equals(bare.gaze(clip(), ratio=0.5))

    def test_what_cannot_be_promised_is_refused(self, folder: Path) -> None:
        with pytest.raises(BudgetError, match="the least that at most"):
            AutoGaze.from_pretrained(folder).gaze(clip(), threshold=0.09)

    def test_the_published_call_keeps_its_meaning(self, folder: Path) -> None:
        model, bare = AutoGaze.from_pretrained(folder), AutoGaze.from_pretrained(folder, calibrated=False)
        low, _ = levels_of(bare)
        video = model.preprocess(clip())[None]
        for threshold in (low, 0.01, 0.1, 0.2):  # 0.01 is below what the calibration promises
            results = [m({"video": video}, task_loss_requirement=threshold, generate_only=True) for m in (model, bare)]
            assert torch.equal(results[0]["gazing_pos"], results[1]["gazing_pos"])
            assert torch.equal(results[0]["if_padded_gazing"], results[1]["if_padded_gazing"])
            assert float(results[0]["task_loss_requirement"][0, 0]) == pytest.approx(threshold)

    def test_a_selector_does_the_same_whole_and_step_by_step(self, folder: Path) -> None:
        selector, bare = (AutoGazeSelector(AutoGaze.from_pretrained(folder, calibrated=c)) for c in (True, False))
        assert selector.model.calibration is not None
        half = selector.model.calibration.level(0.15)
        frames = Frames.from_rgb(clip())
        layout = FrameLayout.resized(selector.grid, height_px=64, width_px=64)
        whole = selector.open(layout, Budget(threshold=0.15)).step(frames)
        assert whole.equals(bare.open(layout, Budget(threshold=half)).step(frames))
        session = selector.open(layout, Budget(threshold=0.15))
        assert [session.step(frames[t : t + 1]).index.tolist() for t in range(5)] == [g.index.tolist() for g in whole]
        with pytest.raises(BudgetError, match="the least that at most"):
            selector.open(layout, Budget(threshold=0.05))

    def test_a_default_is_called_what_it_is_worth(self, folder: Path) -> None:
        table = Calibration.load(folder)
        assert table is not None
        # The published default is 0.7.
        assert load_selector(str(folder)).default_budget == Budget(ratio=0.75, threshold=table.default_threshold(0.7))
        assert 0.1 <= table.default_threshold(0.7) <= 0.2


class TestWarnings:
    WIDE = FrameLayout.tiled(AutoGaze(small_config()).grid, height_px=64, width_px=200)

    def told(self, selector: AutoGazeSelector, layout: FrameLayout, threshold: float | None) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            selector.open(layout, Budget(ratio=0.5, threshold=threshold))
        assert all(one.category is CalibrationWarning for one in caught)
        return [str(one.message) for one in caught]

    def selector(self, folder: Path, **changes: object) -> AutoGazeSelector:
        model = AutoGaze.from_pretrained(folder)
        assert model.calibration is not None
        model.calibration = dataclasses.replace(model.calibration, **changes)  # type: ignore[arg-type]
        return AutoGazeSelector(model)

    def test_tiles_by_a_calibration_for_whole_frames_and_the_reverse(self, folder: Path) -> None:
        resized = FrameLayout.resized(self.WIDE.grid, height_px=64, width_px=200)
        whole, tiles = self.selector(folder), self.selector(folder, mode="tiles")
        (told,) = self.told(whole, self.WIDE, 0.15)
        assert "calibrated for whole frames brought to one tile and used for tiles" in told
        assert "more than 0.1 of the frames" in told
        assert "`autogaze calibrate --tiles`" in told
        (told,) = self.told(tiles, resized, 0.15)
        assert "calibrated for tiles and used for whole frames" in told
        assert "`autogaze calibrate --resize`" in told
        assert self.told(whole, resized, 0.15) == self.told(tiles, self.WIDE, 0.15) == []

    def test_one_tile_is_both(self, folder: Path) -> None:
        square = FrameLayout.tiled(self.WIDE.grid, height_px=64, width_px=64)
        for mode in ("tiles", "resize"):
            assert self.told(self.selector(folder, mode=mode), square, 0.15) == []

    def test_what_has_no_threshold_or_no_calibration_promises_nothing(self, folder: Path) -> None:
        assert self.told(self.selector(folder), self.WIDE, None) == []
        bare = AutoGazeSelector(AutoGaze.from_pretrained(folder, calibrated=False))
        assert self.told(bare, self.WIDE, 99.0) == []

    def test_thresholds_above_all_that_was_tried(self, folder: Path) -> None:
        resized = FrameLayout.resized(self.WIDE.grid, height_px=64, width_px=200)
        selector = self.selector(folder)
        (told,) = self.told(selector, resized, 0.7)
        assert told == (
            "threshold 0.7 is more than this model was calibrated for: frames end as at 0.2, with 0.1 of the patches; "
            "losses here are the mean absolute error (canvas)"
        )
        assert self.told(selector, resized, 0.2) == []
        # What is read and typed in four digits is no larger than what was meant.
        (promise,) = self.selector(folder).model.calibration.promises[1:]  # type: ignore[union-attr]
        odd = self.selector(folder, promises=(dataclasses.replace(promise, threshold=0.123456),))
        assert self.told(odd, resized, 0.1235) == []
        assert len(self.told(odd, self.WIDE, 0.1236)) == 2

    def test_a_batch_of_clips_is_gazed_at_as_a_whole(self, folder: Path) -> None:
        wide = np.zeros((2, 64, 100, 3), np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.selector(folder).model.gaze(wide, threshold=0.15)
        with pytest.warns(CalibrationWarning, match="calibrated for tiles and used for whole frames") as caught:
            self.selector(folder, mode="tiles").model.gaze_batch(wide[None], threshold=0.15)
        assert caught[0].filename == __file__

    def test_what_is_refused_says_what_a_loss_is(self, folder: Path) -> None:
        with pytest.raises(BudgetError, match="mean absolute error"):
            self.selector(folder).model.gaze(clip(), threshold=0.001)

    def test_are_of_a_class_of_their_own(self) -> None:
        assert issubclass(CalibrationWarning, AutoGazeWarning)
        assert issubclass(AutoGazeWarning, UserWarning)


class TestForeignWeights:
    def test_are_refused(self, folder: Path) -> None:
        small(seed=1).save_pretrained(folder.parent / "other")
        shutil.copy(folder / CALIBRATION_NAME, folder.parent / "other")
        with pytest.raises(CheckpointError, match=r"fitted for other weights .*; calibrate it again, delete the file"):
            AutoGaze.from_pretrained(folder.parent / "other")
        assert AutoGaze.from_pretrained(folder.parent / "other", calibrated=False).calibration is None

    def test_so_is_another_position_mode(self, folder: Path) -> None:
        with pytest.raises(CheckpointError, match='fitted with positions "true", not "reference"'):
            AutoGaze.from_pretrained(folder, positions="reference")

    def test_every_weight_counts(self) -> None:
        model = small()
        before = weights_fingerprint(model)
        assert weights_fingerprint(small()) == before
        with torch.no_grad():
            model.gazing_model.gaze_decoder.task_loss_prediction_head.weight[0, 0] += 1e-6
        assert weights_fingerprint(model) != before

    def test_precision_of_the_file_does_not(self, folder: Path) -> None:
        model = AutoGaze.from_pretrained(folder, dtype=torch.bfloat16)
        assert model.calibration is not None
        rounded = model.to(torch.float32)
        assert weights_fingerprint(rounded) == weights_fingerprint(rounded.to(torch.bfloat16))

    def test_saving_other_weights_leaves_no_calibration_behind(self, folder: Path) -> None:
        model = AutoGaze.from_pretrained(folder)
        model.save_pretrained(folder)
        assert AutoGaze.from_pretrained(folder).calibration == model.calibration
        with torch.no_grad():
            model.gazing_model.connector.pos_embed += 1
        model.save_pretrained(folder)
        assert not (folder / CALIBRATION_NAME).exists()
        assert AutoGaze.from_pretrained(folder).calibration is None


class TestInfo:
    def test_tells_what_is_promised(self, folder: Path) -> None:
        info = describe(str(folder))
        assert isinstance(info, ModelInfo)
        assert info.calibration == {
            "alpha": 0.1,
            "reconstructor": "canvas",
            "lowest_threshold": 0.1,
            "highest_threshold": 0.2,
            "ratio": 0.75,
            "mode": "resize",
            "clips": 20,
        }

    def test_others_have_none(self) -> None:
        info = describe("replenish")
        assert isinstance(info, ModelInfo)
        assert info.calibration is None
