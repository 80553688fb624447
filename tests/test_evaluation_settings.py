"""Which budgets selectors are measured at, and what these are called."""

import math
import warnings

import pytest

from autogaze.errors import BudgetError
from autogaze.evaluation.settings import OperatingPoint, default_settings, number, playable, settings_of
from autogaze.grid import PatchGrid
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.selectors import make_selector
from autogaze.selectors.base import Budget
from autogaze.selectors.replenish import Replenish
from calibration_samples import calibration
from small_models import small_config

CLIP_RATIOS = ["clip_0.01", "clip_0.02", "clip_0.03", "clip_0.05", "clip_0.10", "clip_0.25"]


def gaze_model() -> AutoGazeSelector:
    return AutoGazeSelector(AutoGaze(small_config()))


@pytest.mark.parametrize(
    ("limit", "told"),
    [(0.7, "0.70"), (1.0, "1.00"), (0.025, "0.025"), (0.1, "0.10"), (1e-5, "0.00001"), (2.0, "2.00"), (0.123, "0.123")],
)
def test_a_limit_is_told_whole(limit: float, told: str) -> None:
    assert number(limit) == told
    assert float(told) == limit


class TestDefaults:
    def test_of_a_gaze_model_are_the_usual_ones_and_clip_ratios(self) -> None:
        assert [point.name for point in default_settings(gaze_model())] == [
            *("ratio_0.10", "ratio_0.25", "ratio_0.50", "ratio_0.75", "ratio_0.75_task_0.70", "task_0.70"),
            *("task_0.525", "task_0.98", "task_1.40", "ratio_1.00", *CLIP_RATIOS),
        ]

    def test_of_a_calibrated_gaze_model_spread_over_what_it_promises(self) -> None:
        model = AutoGaze(small_config())
        pairs = [(0.1 * step, 0.0100004 * step) for step in range(1, 10)]
        model.calibration = calibration(*pairs)
        selector = AutoGazeSelector(model)
        thresholds = [point.budget.threshold for point in default_settings(selector) if point.ratio is None]
        # The first is the default: 0.7, the published threshold, is the seventh level.
        assert thresholds == [0.07001, 0.01001, 0.03001, 0.05001, 0.09001]
        assert [point.name for point in playable(selector, default_settings(selector))[0]].count("task_0.01001") == 1

    @pytest.mark.parametrize("pairs", [[(0.5, 0.2)], [(0.5, 0.2), (0.6, 0.2)], [(0.5, 0.2), (0.6, 0.4)]])
    def test_of_few_promises_are_each_there_once(self, pairs: list[tuple[float, float]]) -> None:
        model = AutoGaze(small_config())
        model.calibration = calibration(*pairs)
        names = [point.name for point in default_settings(AutoGazeSelector(model))]
        assert len(set(names)) == len(names)
        assert {f"task_{number(threshold)}" for _, threshold in pairs} <= set(names)

    def test_speak_of_the_threshold_of_the_selector(self) -> None:
        points = {point.name: point.budget for point in default_settings(Replenish())}
        assert points["task_0.025"] == Budget(threshold=0.025)
        assert points["ratio_0.75_task_0.025"] == Budget(ratio=0.75, threshold=0.025)
        assert points["clip_0.10"] == Budget(ratio=0.1, per="clip")
        assert points["ratio_0.10"] == Budget(ratio=0.1)
        assert sum(name.startswith("task_") for name in points) == 1  # ratios of clips do as well

    def test_have_no_threshold_where_the_selector_has_none(self) -> None:
        names = [point.name for point in default_settings(make_selector("random"))]
        assert names == ["ratio_0.10", "ratio_0.25", "ratio_0.50", "ratio_0.75", "ratio_1.00", *CLIP_RATIOS]


class TestLists:
    def test_ratios_and_thresholds_are_crossed(self) -> None:
        points = settings_of(ratios=(0.1, 0.5), thresholds=(0.7,), clip_ratios=(0.05, 0.05))
        assert [point.name for point in points] == [
            *("ratio_0.10", "ratio_0.50", "task_0.70", "ratio_0.10_task_0.70", "ratio_0.50_task_0.70", "clip_0.05"),
        ]

    @pytest.mark.parametrize("limits", [{"ratios": [0.0]}, {"ratios": [1.5]}, {"clip_ratios": [-0.1]}])
    def test_refuse_a_ratio_out_of_range(self, limits: dict[str, list[float]]) -> None:
        with pytest.raises(BudgetError, match="ratio must be above 0 and at most 1"):
            settings_of(**limits)

    @pytest.mark.parametrize("threshold", [math.nan, math.inf, -0.5])
    def test_refuse_a_threshold_out_of_range(self, threshold: float) -> None:
        with pytest.raises(BudgetError, match="threshold must be"):
            settings_of(thresholds=[threshold])


class TestOperatingPoint:
    def test_is_no_mixture_of_two_ratios(self) -> None:
        with pytest.raises(ValueError, match="not both"):
            OperatingPoint.of(ratio=0.1, clip_ratio=0.1)

    def test_has_a_limit(self) -> None:
        with pytest.raises(ValueError, match="name of a setting"):
            OperatingPoint.of()

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "a,b", "ratio\n"])
    def test_has_a_name_for_files(self, name: str) -> None:
        with pytest.raises(ValueError, match="name of a setting"):
            OperatingPoint(name=name, budget=Budget(ratio=0.5))

    def test_has_one_ratio(self) -> None:
        with pytest.raises(ValueError, match="16 ratios; give one number"):
            OperatingPoint(name="many", budget=Budget(ratio=[0.5] * 16))


class TestPlayable:
    def test_what_a_selector_has_no_means_for_is_left_out(self) -> None:
        fit, refused = playable(gaze_model(), default_settings(gaze_model()))
        assert [point.name for point in fit][-1] == "ratio_1.00"
        assert [one.setting for one in refused] == CLIP_RATIOS
        assert "not per clip" in refused[0].reason
        fit, refused = playable(make_selector("random"), settings_of(ratios=[0.1], thresholds=[0.5]))
        assert [point.name for point in fit] == ["ratio_0.10"]
        assert [one.setting for one in refused] == ["task_0.50", "ratio_0.10_task_0.50"]

    def test_a_number_out_of_the_selectors_range_is_an_error(self) -> None:
        point = OperatingPoint(name="never", budget=Budget(threshold=-0.5))
        with pytest.raises(BudgetError, match=r"no frame reaches a threshold of -0\.5"):
            playable(Replenish(), [point])

    def test_a_threshold_below_what_a_calibration_promises_is_left_out(self) -> None:
        selector = gaze_model()
        selector.model.calibration = calibration((0.1, 0.6), (0.2, 0.8))  # nothing harmless is promised either
        fit, refused = playable(selector, settings_of(ratios=[0.1], thresholds=[0.5, 0.7]))
        assert [point.name for point in fit] == ["ratio_0.10", "task_0.70", "ratio_0.10_task_0.70"]
        assert [one.setting for one in refused] == ["task_0.50", "ratio_0.10_task_0.50"]
        assert "0.5 is less than this model can promise: the least" in refused[0].reason
        assert "is 0.6 (canvas)" in refused[0].reason

    def test_finding_out_warns_of_nothing(self) -> None:
        selector = gaze_model()
        selector.model.calibration = calibration((0.1, 0.6), (0.2, 0.8))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(playable(selector, settings_of(thresholds=[0.9, 5.0]))[0]) == 2

    def test_names_differ(self) -> None:
        points = [OperatingPoint(name="same", budget=Budget(ratio=ratio)) for ratio in (0.1, 0.2)]
        with pytest.raises(ValueError, match="two settings are called same"):
            playable(Replenish(), points)

    def test_every_grid_will_do(self) -> None:
        grid = PatchGrid(scales_px=(32, 64))
        assert playable(Replenish(grid), default_settings(Replenish(grid)))[1] == ()
