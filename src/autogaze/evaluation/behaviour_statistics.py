"""How sure a figure is when gazes of one clip depend on each other: whole clips are drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autogaze.evaluation.intervals import CONFIDENCE
from autogaze.extras import require

# Shape letters: C clips, R resamples of them, N gazes of all clips, K figures.


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A range that holds the true value with :data:`~autogaze.evaluation.intervals.CONFIDENCE`."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """Spearman's ρ of two numbers over gazes, its p twice, and what single clips say."""

    gazes: int
    """Pairs of numbers."""
    rho: float | None
    """ρ, ties sharing their mean rank; None where one of the numbers never changes."""
    p: float | None
    """Two-sided p of no correlation if every gaze were independent. They are not: gazes of a frame share its
    content, so this is far too small. It is what is usually reported."""
    clips: int
    """Clips with gazes."""
    over_clips: Interval | None
    """ρ when whole clips are drawn anew (percentiles); None for a single clip. Narrow for less than ten."""
    p_over_clips: float | None
    """Two-sided p from the same draws: twice the share on the other side of 0, at least 2 / (draws + 1), and at least
    2 / 2 ** clips, what the signs of so many clips could say at most."""
    mean_within_clips: float | None
    """Mean ρ of single clips, which differences between clips cannot move."""
    clips_positive: int
    """Clips whose own ρ is above 0."""
    clips_defined: int
    """Clips that have a ρ of their own."""


def resamples(num_clips: int, *, count: int, seed: int) -> NDArray[np.int64]:
    """(R, C) how often each clip is drawn when as many clips as there are are drawn with replacement.

    Raises:
        ValueError: there are no clips, or ``count`` is below 1.
    """
    if num_clips < 1 or count < 1:
        raise ValueError(f"resampling needs at least one clip and one draw, got {num_clips} and {count}")
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_clips, np.full(num_clips, 1 / num_clips), size=count)


def ratio_over_clips(
    part_CK: NDArray[Any], whole_CK: NDArray[Any], *, draws_RC: NDArray[np.int64]
) -> list[Interval | None]:
    """K intervals of Σ part / Σ whole when whole clips are drawn anew (percentile bootstrap).

    None where fewer than two clips have a whole above 0. Draws without any are left out.
    """
    parts_RK, wholes_RK = draws_RC @ part_CK, draws_RC @ whole_CK
    intervals: list[Interval | None] = []
    for k in range(part_CK.shape[1]):
        there_R = wholes_RK[:, k] > 0
        enough = (whole_CK[:, k] > 0).sum() > 1
        intervals.append(percentiles(parts_RK[there_R, k] / wholes_RK[there_R, k]) if enough else None)
    return intervals


def percentiles(values_R: NDArray[np.float64]) -> Interval:
    """The middle :data:`~autogaze.evaluation.intervals.CONFIDENCE` of some draws."""
    low, high = np.quantile(values_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(low=float(low), high=float(high))


def rank_correlation(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], *, draws_RC: NDArray[np.int64]
) -> RankCorrelation:
    """Spearman's ρ of two numbers of each gaze, given for each clip as two (n,) arrays (extra ``evaluate``).

    Raises:
        ValueError: the draws are not of as many clips.
        ImportError: scipy is not installed.
    """
    if draws_RC.shape[1] != len(pairs):
        raise ValueError(f"the draws are of {draws_RC.shape[1]} clips, the pairs of {len(pairs)}")
    spearmanr = require("scipy.stats", extra="evaluate").spearmanr
    a_N, b_N = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    clip_N = np.repeat(np.arange(len(pairs)), [len(a) for a, _ in pairs])
    own = [float(spearmanr(a, b).statistic) for a, b in pairs if _varies(a) and _varies(b)]
    filled = len(np.unique(clip_N))
    told = spearmanr(a_N, b_N) if _varies(a_N) and _varies(b_N) else None
    drawn_R = _drawn_rho(a_N, b_N, clip_N, draws_RC) if told is not None and filled > 1 else np.empty(0)
    return RankCorrelation(
        gazes=len(a_N),
        rho=None if told is None else float(told.statistic),
        p=None if told is None else float(told.pvalue),
        clips=filled,
        over_clips=percentiles(drawn_R) if len(drawn_R) else None,
        p_over_clips=_p_of_draws(drawn_R, clips=filled) if len(drawn_R) else None,
        mean_within_clips=float(np.mean(own)) if own else None,
        clips_positive=sum(rho > 0 for rho in own),
        clips_defined=len(own),
    )


def _drawn_rho(
    a_N: NDArray[Any], b_N: NDArray[Any], clip_N: NDArray[np.int64], draws_RC: NDArray[np.int64]
) -> NDArray[np.float64]:
    """ρ of each draw that has one: the weighted correlation of weighted mid-ranks, without repeating any gaze."""
    ties = [np.unique(values_N, return_inverse=True)[1] for values_N in (a_N, b_N)]
    found = []
    for weight_C in draws_RC:
        weight_N = weight_C[clip_N].astype(np.float64)
        total = weight_N.sum()
        centred = []
        for tie_N in ties:
            held = np.bincount(tie_N, weight_N)
            rank_N = (held.cumsum() - held / 2)[tie_N]  # less ½, which a correlation does not see
            centred.append(rank_N - total / 2)  # their weighted mean
        (a, b), w = centred, weight_N
        spread = sqrt(float((w * a * a).sum()) * float((w * b * b).sum()))
        if spread > 0:
            found.append(float((w * a * b).sum()) / spread)
    return np.array(found)


def _p_of_draws(drawn_R: NDArray[np.float64], *, clips: int) -> float:
    beyond = int(min((drawn_R <= 0).sum(), (drawn_R >= 0).sum()))
    return min(1.0, max(2 * (beyond + 1) / (len(drawn_R) + 1), 2.0 ** (1 - clips)))


def _varies(values: NDArray[Any]) -> bool:
    return len(values) > 1 and bool((values != values[0]).any())
