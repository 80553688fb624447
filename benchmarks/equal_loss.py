"""Patches that selectors need for the same loss on the same clips, with intervals over clips.

Two ways to say it, as they answer different questions:

* ``"clip"``: for each clip the share of patches is read off between a selector's limits (log kept over log loss); a
  clip that never gets there counts as keeping everything, and one that is there at the sparsest limit already as
  keeping that. Then the mean over clips.
* ``"mean"``: the same, read off the means over clips of what is kept and lost at each limit. There is no value where
  the mean loss of no limit, or of every limit, is as low as that.

Intervals hold 95 % of resamples of the clips, all selectors on the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autogaze.evaluation.findings import RESAMPLES
from autogaze.evaluation.fronts import Point, kept_at, pareto_front

# Shape letters: L limits of one selector, C clips, R resamples.

Floats = NDArray[np.float64]
By = Literal["clip", "mean"]
LEAST_LOSS = 1e-6
"""Losses below this count as this, so that their logarithm exists."""
LEAST_SHARE = 0.9
"""An interval is given where at least this share of the resamples has a value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """One selector on C clips at L limits."""

    kept_LC: Floats
    """Share of the patches kept, above 0."""
    loss_LC: Floats
    """Mean loss of the clip's frames."""

    def __post_init__(self) -> None:
        if self.kept_LC.ndim != 2 or self.kept_LC.shape != self.loss_LC.shape or not self.kept_LC.size:
            raise ValueError(
                f"kept and loss must be (L, C) of one shape, got {self.kept_LC.shape} and {self.loss_LC.shape}"
            )


@dataclass(frozen=True, kw_only=True)
class Times:
    """One selector's patches as a multiple of another's."""

    value: float
    """On the clips as they are."""
    low: float | None
    """Lower end of the interval; None where too few resamples have a value."""
    high: float | None
    """Upper end."""


@dataclass(frozen=True, kw_only=True)
class Needed:
    """What one selector keeps at one loss."""

    loss: float
    """The loss."""
    by: By
    """How it was read off."""
    selector: str
    """Name of the selector."""
    kept: float | None
    """Mean share of the patches; None where it cannot be said."""
    clips_that_miss: int
    """Clips that never get there."""
    clips_at_once: int
    """Clips that are there at the sparsest limit, where the selector might need fewer than that."""
    times: dict[str, Times | None]
    """Baseline → this selector's patches as a multiple of the baseline's."""
    fewer: dict[str, Times | None]
    """Baseline → the baseline's patches as a multiple of this selector's."""


def compare(
    curves: Mapping[str, Curve], *, losses: tuple[float, ...], baselines: tuple[str, ...], seed: int = 0
) -> list[Needed]:
    """A row for each loss, way of saying it and selector, beside the baselines, which are selectors too.

    Raises:
        ValueError: the curves are not of the same clips.
    """
    counts = {curve.kept_LC.shape[1] for curve in curves.values()}
    if len(counts) != 1:
        raise ValueError(f"curves must be of the same clips, got {sorted(counts)} of them")
    clips = counts.pop()
    draws = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), RESAMPLES) / clips
    weight_RC = np.concatenate([np.full((1, clips), 1 / clips), draws])
    rows = []
    by_mean = {name: needed_by_mean(curve, losses, weight_RC=weight_RC) for name, curve in curves.items()}
    for number, loss in enumerate(losses):
        by_clip = {name: needed_by_clip(curve, loss) for name, curve in curves.items()}
        kept: dict[By, dict[str, Floats]] = {
            "clip": {name: weight_RC @ found.kept_C for name, found in by_clip.items()},
            "mean": {name: found[number] for name, found in by_mean.items()},
        }
        for by, kept_R in kept.items():
            for name, found in by_clip.items():
                mine = kept_R[name]
                rows.append(
                    Needed(
                        loss=loss,
                        by=by,
                        selector=name,
                        kept=None if np.isnan(mine[0]) else float(mine[0]),
                        clips_that_miss=int(found.misses_C.sum()),
                        clips_at_once=int(found.at_once_C.sum()),
                        times={one: times(mine, kept_R[one]) for one in baselines if one in curves},
                        fewer={one: times(kept_R[one], mine) for one in baselines if one in curves},
                    )
                )
    return rows


@dataclass(frozen=True, kw_only=True, eq=False)
class ByClip:
    """What each of C clips needs."""

    kept_C: Floats
    """Share of the patches, 1 where the loss is never reached."""
    misses_C: NDArray[np.bool_]
    """Where it is never reached."""
    at_once_C: NDArray[np.bool_]
    """Where it is reached at the sparsest limit."""


def needed_by_clip(curve: Curve, loss: float) -> ByClip:
    """The share of patches at which each clip reaches a loss."""
    kept = np.ones(curve.kept_LC.shape[1])
    misses, at_once = np.zeros((2, len(kept)), bool)
    for c in range(len(kept)):
        front = pareto_front(_points(curve.kept_LC[:, c], curve.loss_LC[:, c]))
        quality = _quality(loss)
        if front[-1].quality < quality:
            misses[c] = True
        elif front[0].quality >= quality:
            kept[c], at_once[c] = front[0].kept, True
        else:
            kept[c] = kept_at(front, quality=quality)
    return ByClip(kept_C=kept, misses_C=misses, at_once_C=at_once)


def needed_by_mean(curve: Curve, losses: tuple[float, ...], *, weight_RC: Floats) -> list[Floats]:
    """For each loss (R,) shares at which the weighted means over clips reach it; NaN beyond the limits."""
    kept_RL, loss_RL = weight_RC @ curve.kept_LC.T, weight_RC @ curve.loss_LC.T
    fronts = [pareto_front(_points(kept, loss)) for kept, loss in zip(kept_RL, loss_RL, strict=True)]
    return [
        np.array([np.nan if (kept := kept_at(front, quality=_quality(loss))) is None else kept for front in fronts])
        for loss in losses
    ]


def times(mine_R: Floats, other_R: Floats) -> Times | None:
    """How many times as many; the first of the R is the value itself, the others are resamples."""
    ratio = mine_R / other_R
    if np.isnan(ratio[0]):
        return None
    known = ratio[1:][~np.isnan(ratio[1:])]
    if len(known) < LEAST_SHARE * (len(ratio) - 1) or not len(known):
        return Times(value=float(ratio[0]), low=None, high=None)
    low, high = np.percentile(known, [2.5, 97.5])
    return Times(value=float(ratio[0]), low=float(low), high=float(high))


def _points(kept: Floats, loss: Floats) -> list[Point]:
    return [Point(kept=float(k), quality=_quality(float(one))) for k, one in zip(kept, loss, strict=True)]


def _quality(loss: float) -> float:
    return -float(np.log(max(loss, LEAST_LOSS)))
