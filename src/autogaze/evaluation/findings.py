"""What an evaluation found, in numbers and words: patches at equal PSNR, thresholds against ratios, shared budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autogaze.evaluation.curves import PSNR, Kind, Setting, front_of, ranked, selectors, settings
from autogaze.evaluation.fronts import Front, Point, is_far, kept_at, neighbours, pareto_front, steps
from autogaze.evaluation.rows import ClipRow, SummaryRow
from autogaze.evaluation.style import share

# Shape letters: R resamples, C clips, S settings of one selector.

RESAMPLES = 400
_LEAST_VIDEOS = 5
"""Fewer videos are no sample of anything: no interval is given."""
_MOST_LEVELS = 4
_CHANCE = "random"
_INTERVAL_PERCENT = (2.5, 97.5)

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a selector keeps at some PSNR."""

    selector: str
    """Name of the selector."""
    kept: float | None
    """Share of the patches; None where its Pareto front does not reach the PSNR."""
    times: float | None
    """The same as a multiple of what the best selector keeps; None with ``kept``."""
    is_rough: bool = False
    """Whether it lies between two settings that are far apart."""
    interval: tuple[float, float] | None = None
    """Where ``times`` lies in 95 % of resamples of the videos; None for the best, or where there are too few."""

    @property
    def words(self) -> str:
        """``times`` and its interval: ``6.3× (5.1 to 7.4×)``, ``about 6.3×`` if it is rough; a dash without."""
        if self.times is None:
            return "–"
        interval = (
            "" if self.interval is None else f" ({_multiple(self.interval[0])} to {_multiple(self.interval[1])}×)"
        )
        return f"{'about ' if self.is_rough else ''}{_multiple(self.times)}×{interval}"


def _multiple(times: float) -> str:
    return f"{times:.1f}" if times < 9.95 else f"{times:.0f}"


@dataclass(frozen=True, kw_only=True)
class EqualPsnr:
    """What selectors keep at one PSNR."""

    psnr_db: float
    """The PSNR, between the ends of as many Pareto fronts as possible."""
    best: str
    """The selector that keeps least there."""
    costs: tuple[Cost, ...]
    """One for each selector, in the order of the ranking."""


def at_equal_psnr(
    summary: Sequence[SummaryRow], clips: Sequence[ClipRow], *, reconstructor: str
) -> tuple[EqualPsnr, ...]:
    """What every selector keeps at up to four PSNRs that most of them reach, on their Pareto fronts.

    Empty where no two selectors reach a common one.
    """
    names = ranked(summary, reconstructor=reconstructor)
    rows = [row for row in summary if row.reconstructor == reconstructor]
    fronts = {name: front_of((row for row in rows if row.selector == name), metric=PSNR) for name in names}
    best = fronts[names[0]] if names else ()
    levels = next((found for step in (1.0, 0.1) if (found := steps(list(fronts.values()), step=step, within=best))), [])
    if len(levels) > _MOST_LEVELS:
        chosen = np.linspace(0, len(levels) - 1, _MOST_LEVELS).round().astype(int)
        levels = [levels[number] for number in chosen]
    resampled = _resampled_fronts([row for row in clips if row.reconstructor == reconstructor], names)
    return tuple(_costs(fronts, resampled, psnr_db=level) for level in levels)


def _costs(fronts: Mapping[str, Front], resampled: Sequence[Mapping[str, Front]], *, psnr_db: float) -> EqualPsnr:
    kept = {name: kept_at(front, quality=psnr_db) for name, front in fronts.items()}
    best = min((value, name) for name, value in kept.items() if value is not None)[1]
    samples = [{name: kept_at(front, quality=psnr_db) for name, front in one.items()} for one in resampled]

    def interval(name: str) -> tuple[float, float] | None:
        pairs = [(one[name], one[best]) for one in samples]
        times = [mine / least for mine, least in pairs if mine is not None and least is not None]
        if name == best or not times or len(times) < 0.9 * len(samples):
            return None
        low, high = np.percentile(times, _INTERVAL_PERCENT)
        return float(low), float(high)

    least = kept[best]
    assert least is not None
    costs = tuple(
        Cost(selector=name, kept=None, times=None)
        if value is None
        else Cost(
            selector=name,
            kept=value,
            times=value / least,
            is_rough=any(_is_rough(fronts[one], psnr_db) for one in (name, best)),
            interval=interval(name),
        )
        for name, value in kept.items()
    )
    return EqualPsnr(psnr_db=psnr_db, best=best, costs=costs)


def _is_rough(front: Front, psnr_db: float) -> bool:
    around = neighbours(front, quality=psnr_db)
    return around is not None and is_far(*around)


def _resampled_fronts(clips: Sequence[ClipRow], names: Sequence[str]) -> list[dict[str, Front]]:
    """Fronts of :data:`PSNR` with the videos drawn anew, with replacement: clips of one video come and go together."""
    videos = sorted({row.video for row in clips})
    if len(videos) < _LEAST_VIDEOS:
        return []
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(videos), np.full(len(videos), 1 / len(videos)), RESAMPLES).astype(float)
    means = {name: _means([row for row in clips if row.selector == name], videos, drawn) for name in names}
    return [
        {
            name: pareto_front(
                Point(kept=k, quality=q) for k, q in zip(kept[r], psnr_db[r], strict=True) if PSNR.is_shown(q)
            )
            for name, (kept, psnr_db) in means.items()
        }
        for r in range(RESAMPLES)
    ]


def _means(clips: Sequence[ClipRow], videos: Sequence[str], drawn: Values) -> tuple[Values, Values]:
    """(R, S) mean share kept, and PSNR of the mean squared error; NaN where a resample has no clip of a setting."""
    number = {video: v for v, video in enumerate(videos)}
    by_setting: dict[str, list[ClipRow]] = {}
    for row in clips:
        by_setting.setdefault(row.setting, []).append(row)
    kept_RS, error_RS = np.empty((2, len(drawn), len(by_setting)))
    for s, rows in enumerate(by_setting.values()):
        weight_RC = drawn[:, [number[row.video] for row in rows]]
        with np.errstate(invalid="ignore"):
            weight_RC = weight_RC / weight_RC.sum(1, keepdims=True)
        kept_RS[:, s] = weight_RC @ np.array([row.actual_gaze_ratio for row in rows])
        error_RS[:, s] = weight_RC @ np.array([row.pixel_mse for row in rows])
    with np.errstate(divide="ignore"):
        return kept_RS, -10 * np.log10(error_RS)


@dataclass(frozen=True, kw_only=True)
class Win:
    """Two settings of one selector: one keeps fewer patches than the other and gives a better picture."""

    winner: SummaryRow
    """Means of the better one."""
    loser: SummaryRow
    """Means of the other."""


def best_win(summary: Sequence[SummaryRow], clips: Sequence[ClipRow], *, reconstructor: str, kind: Kind) -> Win | None:
    """Where a setting of this kind beats the same share of every frame by most, in patches and PSNR; None if nowhere.

    Of all wins that with the largest share of patches saved.
    """
    known = settings(clips)
    wins = []
    for name in selectors(summary):
        rows = [row for row in summary if (row.reconstructor, row.selector) == (reconstructor, name)]
        winners = [row for row in rows if _is(known, row, kind)]
        losers = [row for row in rows if _is(known, row, Kind.FRAME) and PSNR.is_shown(PSNR.of(row))]
        wins += [
            Win(winner=winner, loser=loser)
            for winner in winners
            for loser in losers
            if winner.actual_gaze_ratio < loser.actual_gaze_ratio and PSNR.of(winner) > PSNR.of(loser)
        ]
    return min(wins, key=lambda win: win.winner.actual_gaze_ratio / win.loser.actual_gaze_ratio, default=None)


def _is(known: Mapping[tuple[str, str], Setting], row: SummaryRow, kind: Kind) -> bool:
    setting = known.get((row.selector, row.setting))
    return setting is not None and setting.kind is kind


def win_sentence(win: Win, *, known: Mapping[tuple[str, str], Setting]) -> str:
    """A win in one sentence."""
    winner, loser = win.winner, win.loser
    label = known[winner.selector, winner.setting]
    how = {
        Kind.THRESHOLD: f"stopping at a loss ({label.label})",
        Kind.CLIP: f"one budget for the clip ({label.label})",
        Kind.FRAME: label.label,
    }[label.kind]
    better, worse = (f"{share(row.actual_gaze_ratio)} at {PSNR.of(row):.1f} dB" for row in (winner, loser))
    return f"{winner.selector}: {how} keeps {better} and beats a fixed share of every frame, {worse}."


def equal_psnr_sentences(found: Sequence[EqualPsnr], *, reconstructor: str) -> list[str]:
    """The comparison in words, at the PSNR in the middle: a baseline against the best, then the others.

    The baseline is chance, or the most expensive selector where chance was not measured or is the best.
    """
    if not found:
        return []
    middle = found[(len(found) - 1) // 2]
    others = sorted(
        (cost for cost in middle.costs if cost.times is not None and cost.selector != middle.best),
        key=lambda cost: (cost.selector != _CHANCE, -(cost.times or math.inf)),
    )
    if not others:
        return []
    best = next(cost for cost in middle.costs if cost.selector == middle.best)
    sentences = [
        f"At an equal error (PSNR {middle.psnr_db:g} dB), rebuilt by {reconstructor}, {others[0].selector} keeps "
        f"{others[0].words} the patches of {middle.best}: {share(others[0].kept or 0)} against {share(best.kept or 0)}."
    ]
    if others[1:]:
        told = ", ".join(f"{cost.selector} {cost.words}" for cost in others[1:])
        sentences.append(f"Of the others there: {told}.")
    missing = [cost.selector for cost in middle.costs if cost.times is None]
    if missing:
        sentences.append(f"Not compared there, as their settings do not reach that PSNR: {', '.join(missing)}.")
    return sentences
