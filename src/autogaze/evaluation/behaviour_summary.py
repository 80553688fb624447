"""Clips pooled into what the behaviour analyses find; the order of the clips changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autogaze.evaluation.behaviour_measures import DETAIL_EDGES, FLOW_EDGES_PX, ClipBehaviour, bin_of
from autogaze.evaluation.behaviour_rows import (
    DetailRow,
    FlowRow,
    FlowTrend,
    FrameShareRow,
    ScaleShareRow,
    SelectorBehaviour,
    Shares,
)
from autogaze.evaluation.behaviour_statistics import (
    percentiles,
    rank_correlation,
    ratio_over_clips,
    resamples,
)
from autogaze.evaluation.intervals import wilson

# Shape letters: C clips, R draws of them, T frame positions, S scales, B bins, K groups.

DRAWS = 1000
"""Draws of clips behind every interval over clips."""

Draws = NDArray[np.int64]


def summarize(clips: Sequence[ClipBehaviour], *, selector: str, seed: int = 0, draws: int = DRAWS) -> SelectorBehaviour:
    """Pool the clips of one selector; ``seed`` is that of the draws behind intervals over clips.

    Raises:
        ValueError: there are no clips, two have one name, or their grids differ.
        ImportError: scipy is not installed (extra ``evaluate``).
    """
    if not clips:
        raise ValueError("summarize needs at least one clip, got none")
    clips = sorted(clips, key=lambda clip: clip.clip)
    for before, after in pairwise(clips):
        if before.clip == after.clip:
            raise ValueError(f"two clips are called {before.clip!r}; give each its own name")
        if before.scales_px != after.scales_px or not np.array_equal(before.patches_S, after.patches_S):
            raise ValueError(f"clips are of scales {before.scales_px} and {after.scales_px} px; use one grid")
    draws_RC = resamples(len(clips), count=draws, seed=seed)
    frames = sum(clip.num_frames for clip in clips)
    return SelectorBehaviour(
        selector=selector,
        clips=len(clips),
        frames=frames,
        gazes=sum(clip.num_gazes for clip in clips),
        patches=frames * int(clips[0].patches_S.sum()),
        flow=_flow_rows(clips, selector, draws_RC),
        flow_trends=_flow_trends(clips, draws_RC),
        detail=(*_detail_by_scale(clips, selector, draws_RC), *_scale_by_detail(clips, selector, draws_RC)),
        scale_and_detail=rank_correlation([(clip.scale_N, clip.detail_N) for clip in clips], draws_RC=draws_RC),
        frame_shares=_frame_shares(clips, selector),
        scale_shares=_scale_shares(clips, selector),
    )


def _flow_rows(clips: Sequence[ClipBehaviour], selector: str, draws_RC: Draws) -> tuple[FlowRow, ...]:
    moved_CSB = np.stack([clip.moved_SB for clip in clips])
    gazed_CSB = np.stack([clip.moved_gazed_SB for clip in clips])
    rows = []
    for s, scale_px in enumerate(clips[0].scales_px):
        over_clips = ratio_over_clips(gazed_CSB[:, s], moved_CSB[:, s], draws_RC=draws_RC)
        for b, drawn in enumerate(over_clips):
            patches, gazed = int(moved_CSB[:, s, b].sum()), int(gazed_CSB[:, s, b].sum())
            independent = wilson(gazed / patches, patches) if patches else (None, None)
            rows.append(
                FlowRow(
                    selector=selector,
                    scale_px=scale_px,
                    flow_from_px=FLOW_EDGES_PX[b],
                    flow_to_px=_next(FLOW_EDGES_PX, b),
                    patches=patches,
                    gazed=gazed,
                    gaze_rate=gazed / patches if patches else None,
                    wilson_low=independent[0],
                    wilson_high=independent[1],
                    clips=int((moved_CSB[:, s, b] > 0).sum()),
                    clips_low=drawn.low if drawn else None,
                    clips_high=drawn.high if drawn else None,
                )
            )
    return tuple(rows)


def _flow_trends(clips: Sequence[ClipBehaviour], draws_RC: Draws) -> tuple[FlowTrend, ...]:
    trends = []
    for s, scale_px in enumerate(clips[0].scales_px):
        gazed_CB = np.stack([clip.moved_gazed_SB[s] for clip in clips])
        passed_CB = np.stack([clip.moved_SB[s] for clip in clips]) - gazed_CB
        whole = faster(gazed_CB.sum(0)[None], passed_CB.sum(0)[None])
        drawn_R = faster(draws_RC @ gazed_CB, draws_RC @ passed_CB) if len(clips) > 1 else np.empty(0)
        trends.append(
            FlowTrend(
                scale_px=scale_px,
                gazed_moves_faster=float(whole[0]) if len(whole) else None,
                over_clips=percentiles(drawn_R) if len(whole) and len(drawn_R) else None,
            )
        )
    return tuple(trends)


def faster(gazed_RB: NDArray[Any], passed_RB: NDArray[Any]) -> NDArray[np.float64]:
    """Probability that one of the gazed is in a later bin than one of the passed over, a tie counting half.

    Takes R histograms of each; those that lack one or the other are left out of the result.
    """
    below_RB = np.cumsum(passed_RB, axis=1) - passed_RB / 2
    pairs_R = gazed_RB.sum(1, dtype=np.float64) * passed_RB.sum(1, dtype=np.float64)
    there_R = pairs_R > 0
    won: NDArray[np.float64] = (gazed_RB * below_RB).sum(1)[there_R] / pairs_R[there_R]
    return won


def _detail_by_scale(clips: Sequence[ClipBehaviour], selector: str, draws_RC: Draws) -> list[DetailRow]:
    groups = [(clip.scale_N.astype(np.int64), clip.detail_N.astype(np.float64)) for clip in clips]
    patches_S = clips[0].patches_S * sum(clip.num_frames for clip in clips)
    all_S = np.sum([clip.detail_sum_S for clip in clips], axis=0) / patches_S
    return [
        DetailRow(
            selector=selector,
            group="scale",
            scale_px=scale_px,
            detail_from=None,
            detail_to=None,
            mean_of="detail",
            mean_of_all_patches=float(all_S[s]),
            **vars(mean),
        )
        for s, (scale_px, mean) in enumerate(
            zip(clips[0].scales_px, _means(groups, len(clips[0].scales_px), draws_RC), strict=True)
        )
    ]


def _scale_by_detail(clips: Sequence[ClipBehaviour], selector: str, draws_RC: Draws) -> list[DetailRow]:
    scales_px = np.array(clips[0].scales_px, np.float64)
    groups = [(bin_of(clip.detail_N, DETAIL_EDGES), scales_px[clip.scale_N]) for clip in clips]
    return [
        DetailRow(
            selector=selector,
            group="detail",
            scale_px=None,
            detail_from=DETAIL_EDGES[b],
            detail_to=_next(DETAIL_EDGES, b),
            mean_of="scale_px",
            mean_of_all_patches=None,
            **vars(mean),
        )
        for b, mean in enumerate(_means(groups, len(DETAIL_EDGES), draws_RC))
    ]


@dataclass(frozen=True, kw_only=True)
class _Mean:
    """What a :class:`DetailRow` tells of a group of gazes."""

    gazes: int
    mean: float | None
    sem: float | None
    clips: int
    clips_low: float | None
    clips_high: float | None


def _means(
    groups: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], num_groups: int, draws_RC: Draws
) -> list[_Mean]:
    """The mean of each group; ``groups`` has (number of the group, value) of each gaze, per clip."""
    count_CK = np.stack([np.bincount(group_N, minlength=num_groups) for group_N, _ in groups])
    sum_CK = np.stack([np.bincount(group_N, value_N, minlength=num_groups) for group_N, value_N in groups])
    over_clips = ratio_over_clips(sum_CK, count_CK, draws_RC=draws_RC)
    group_N, value_N = (np.concatenate(side) for side in zip(*groups, strict=True))
    found = []
    for k, drawn in enumerate(over_clips):
        values = value_N[group_N == k]
        found.append(
            _Mean(
                gazes=len(values),
                mean=float(values.mean()) if len(values) else None,
                sem=float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None,
                clips=int((count_CK[:, k] > 0).sum()),
                clips_low=drawn.low if drawn else None,
                clips_high=drawn.high if drawn else None,
            )
        )
    return found


def _frame_shares(clips: Sequence[ClipBehaviour], selector: str) -> tuple[FrameShareRow, ...]:
    longest = max(clip.num_frames for clip in clips)
    patches = int(clips[0].patches_S.sum())
    gazes_CT, patches_CT = np.zeros((2, len(clips), longest), np.int64)
    for c, clip in enumerate(clips):  # a clip that ends early has no patches at the positions it lacks
        gazes_CT[c, : clip.num_frames] = clip.gazes_TS.sum(1)
        patches_CT[c, : clip.num_frames] = patches
    return tuple(
        FrameShareRow(selector=selector, frame_idx=t, **vars(shares))
        for t, shares in enumerate(_shares(gazes_CT, patches_CT))
    )


def _scale_shares(clips: Sequence[ClipBehaviour], selector: str) -> tuple[ScaleShareRow, ...]:
    gazes_CS = np.stack([clip.gazes_TS.sum(0) for clip in clips])
    patches_CS = np.stack([clip.patches_S * clip.num_frames for clip in clips])
    return tuple(
        ScaleShareRow(selector=selector, scale_px=scale_px, **vars(shares))
        for scale_px, shares in zip(clips[0].scales_px, _shares(gazes_CS, patches_CS), strict=True)
    )


def _shares(gazes_CK: NDArray[np.int64], patches_CK: NDArray[np.int64]) -> list[Shares]:
    of_clip_C, found = gazes_CK.sum(1), []
    gazes = int(gazes_CK.sum())
    for k in range(gazes_CK.shape[1]):
        here_C, there_C = gazes_CK[:, k], patches_CK[:, k]
        share_mean, share_sd = _mean_and_sd(here_C[of_clip_C > 0] / of_clip_C[of_clip_C > 0])
        rate_mean, rate_sd = _mean_and_sd(here_C[there_C > 0] / there_C[there_C > 0])
        found.append(
            Shares(
                gazes=int(here_C.sum()),
                patches=int(there_C.sum()),
                share=int(here_C.sum()) / gazes if gazes else None,
                rate=int(here_C.sum()) / int(there_C.sum()),
                clips=int((there_C > 0).sum()),
                share_mean=share_mean,
                share_sd=share_sd,
                rate_mean=rate_mean,
                rate_sd=rate_sd,
            )
        )
    return found


def _mean_and_sd(values_C: NDArray[np.float64]) -> tuple[float | None, float | None]:
    mean = float(values_C.mean()) if len(values_C) else None
    return mean, float(values_C.std(ddof=1)) if len(values_C) > 1 else None


def _next(edges: tuple[float, ...], number: int) -> float | None:
    return edges[number + 1] if number + 1 < len(edges) else None
