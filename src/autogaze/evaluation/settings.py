"""Operating points: which budgets a selector is measured at, and what they are called."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from autogaze.errors import AutoGazeWarning, BudgetError, PromiseError
from autogaze.grid import FrameLayout
from autogaze.selectors.base import Budget, Selector

if TYPE_CHECKING:
    from autogaze.models.autogaze.calibration import Calibration

DEFAULT_RATIOS = (0.10, 0.25, 0.50, 0.75, 1.00)
"""Shares of every frame's patches."""
DEFAULT_CAP = 0.75
"""Share of every frame's patches that the default threshold is also tried with."""
DEFAULT_CLIP_RATIOS = (0.01, 0.02, 0.03, 0.05, 0.10, 0.25)
"""Shares of a clip's patches that its frames divide among themselves."""
DEFAULT_THRESHOLD_STEPS = (0.75, 1.4, 2.0)
"""Multiples of the default threshold that are also tried where thresholds stand in for ratios of a clip."""
_PROMISES = 5
"""Promised thresholds that are tried instead of such multiples."""
_PLAIN = re.compile(r"[\w.+=@-]+")
_HARMLESS = 0.5
"""A ratio and a threshold that whoever takes such limits at all does not refuse."""


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A budget and what it is called in tables and file names.

    Raises:
        ValueError: the name is no plain word, or the budget has a ratio for each frame, which tables cannot tell.
    """

    name: str
    """Such as ``ratio_0.10``; letters, digits and ``. _ + = @ -``."""
    budget: Budget
    """The limits."""

    def __post_init__(self) -> None:
        if not _PLAIN.fullmatch(self.name):
            raise ValueError(f"the name of a setting must be of letters, digits and . _ + = @ -, got {self.name!r}")
        if len(self.budget.ratios()) > 1:
            raise ValueError(f"setting {self.name} has {len(self.budget.ratios())} ratios; give one number")

    @property
    def ratio(self) -> float | None:
        """Its ratio, if it has one."""
        ratios = self.budget.ratios()
        return ratios[0] if ratios else None

    @classmethod
    def of(
        cls, *, ratio: float | None = None, threshold: float | None = None, clip_ratio: float | None = None
    ) -> OperatingPoint:
        """The point of these limits under its usual name: ``ratio_0.75_task_0.70``, ``task_0.025``, ``clip_0.05``.

        Raises:
            BudgetError: a limit is not legal: a ratio not above 0 or above 1, a threshold below 0.
            ValueError: there is no limit, or there are two ratios.
        """
        if ratio is not None and clip_ratio is not None:
            raise ValueError("a setting has the ratio of a frame or that of a clip, not both")
        if threshold is not None and threshold < 0:
            raise BudgetError(f"threshold must be at least 0, got {threshold}; a reconstruction loss is never negative")
        words = (("ratio", ratio), ("clip", clip_ratio), ("task", threshold))
        name = "_".join(f"{word}_{number(limit)}" for word, limit in words if limit is not None)
        if clip_ratio is not None:
            return cls(name=name, budget=Budget(ratio=clip_ratio, threshold=threshold, per="clip"))
        return cls(name=name, budget=Budget(ratio=ratio, threshold=threshold))


def number(limit: float) -> str:
    """A limit with as many decimals as it has, two at least: ``0.70``, ``0.025``."""
    return np.format_float_positional(limit, min_digits=2)


def default_settings(selector: Selector) -> tuple[OperatingPoint, ...]:
    """Ratios of frames; the selector's own threshold, alone and under a ratio, if it has one; ratios of clips.

    A selector that stops at thresholds but cannot share a budget over a clip has further thresholds: only along these
    do its frames differ in what they keep, as they do along the ratios of clips. With a calibration they are the first
    and the last it promises and the quartiles between, otherwise multiples of the default.
    """
    threshold = selector.default_budget.threshold
    of_threshold = (
        ()
        if threshold is None
        else (
            OperatingPoint.of(ratio=DEFAULT_CAP, threshold=threshold),
            OperatingPoint.of(threshold=threshold),
            *(OperatingPoint.of(threshold=further) for further in _further_thresholds(selector, threshold)),
        )
    )
    *capped, all_patches = (OperatingPoint.of(ratio=ratio) for ratio in DEFAULT_RATIOS)
    return (
        *capped,
        *of_threshold,
        all_patches,
        *(OperatingPoint.of(clip_ratio=ratio) for ratio in DEFAULT_CLIP_RATIOS),
    )


def _further_thresholds(selector: Selector, default: float) -> list[float]:
    """Thresholds to try beside the default one, ascending; none where ratios of a clip do as well."""
    if _refusal(selector, Budget(ratio=_HARMLESS, per="clip")) is None:
        return []
    calibration: Calibration | None = getattr(getattr(selector, "model", None), "calibration", None)
    if calibration is None:
        found = {float(f"{default * step:.3g}") for step in DEFAULT_THRESHOLD_STEPS}
    else:
        places = np.linspace(0, len(calibration.promises) - 1, _PROMISES).round().astype(int)
        found = {calibration.default_threshold(calibration.promises[place].level) for place in places}
    return sorted(found - {default})


def settings_of(
    *, ratios: Sequence[float] = (), thresholds: Sequence[float] = (), clip_ratios: Sequence[float] = ()
) -> tuple[OperatingPoint, ...]:
    """Each ratio, each threshold, each ratio with each threshold, and each ratio of a clip; each once.

    Raises:
        BudgetError: a limit is not legal.
    """
    points = (
        *(OperatingPoint.of(ratio=ratio) for ratio in ratios),
        *(OperatingPoint.of(threshold=threshold) for threshold in thresholds),
        *(OperatingPoint.of(ratio=ratio, threshold=threshold) for ratio in ratios for threshold in thresholds),
        *(OperatingPoint.of(clip_ratio=ratio) for ratio in clip_ratios),
    )
    return tuple({point.name: point for point in points}.values())


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A setting that a selector cannot keep."""

    setting: str
    """Name of the setting."""
    reason: str
    """What the selector says."""


def playable(
    selector: Selector, settings: Sequence[OperatingPoint]
) -> tuple[tuple[OperatingPoint, ...], tuple[Refusal, ...]]:
    """The settings that a selector can be measured at, and those it cannot keep.

    A gaze model knows no budget per clip, most selectors know no threshold, and a calibrated one promises none below
    its own least: such a setting is left out. But any other number that a selector would take if only it were another
    one is the caller's mistake.

    Raises:
        BudgetError: a number is out of the selector's range.
        ValueError: two settings have one name.
    """
    names = [point.name for point in settings]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two settings are called {twice}; give them different names")
    fit, refused = [], []
    for point in settings:
        error = _refusal(selector, point.budget)
        if error is None:
            fit.append(point)
        elif not isinstance(error, PromiseError) and _refusal(selector, _harmless(point.budget)) is None:
            raise error
        else:
            refused.append(Refusal(setting=point.name, reason=str(error)))
    return tuple(fit), tuple(refused)


def _refusal(selector: Selector, budget: Budget) -> BudgetError | None:
    side_px = selector.grid.scales_px[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutoGazeWarning)  # nothing is gazed at
        try:
            selector.open(FrameLayout.resized(selector.grid, height_px=side_px, width_px=side_px), budget)
        except BudgetError as error:
            return error
    return None


def _harmless(budget: Budget) -> Budget:
    return replace(
        budget,
        ratio=None if budget.ratio is None else _HARMLESS,
        threshold=None if budget.threshold is None else _HARMLESS,
    )
