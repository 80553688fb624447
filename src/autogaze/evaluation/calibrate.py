"""Calibrating a stop head: gaze at clips at a ladder of levels, and store which threshold each of them keeps.

A clip is gazed at afresh for every level, on the model's own gazes: where a frame ends changes what the next one sees,
so a run at one level says nothing exact about another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autogaze.evaluation.calibration_clips import ClipSet
from autogaze.evaluation.conformal import (
    CalibrationError,
    Floats,
    check_alpha,
    fewest_clips,
    next_level,
    promised_thresholds,
)
from autogaze.evaluation.stop_head import after_last_gaze
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.calibration import Calibration, Promise, between, weights_fingerprint
from autogaze.models.autogaze.selector import AutoGazeSelector, AutoGazeSession
from autogaze.reconstructors import ReconstructorLike, load_reconstructor
from autogaze.reconstructors.base import Reconstructor
from autogaze.selectors.base import Budget
from autogaze.summary import versions

PILOT_CLIPS = 8
"""Clips that tell which losses the stop head speaks of."""
PILOT_RATIO = 0.25
"""Patches a frame of these may keep at most, as a share: the head hardly says anything new beyond."""
PILOT_SHARES = (0.05, 0.98)
"""Part of the predictions that the first levels span."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelRun:
    """All clips gazed at with one level."""

    level: float
    """λ: frames ended once the predicted loss was at or below this."""
    loss: tuple[Floats, ...]
    """For each clip the (T,) true loss after each frame's last gaze."""
    predicted: tuple[Floats, ...]
    """For each clip the (T,) prediction there; NaN where the stop head did not say."""
    kept: tuple[NDArray[np.int64], ...]
    """For each clip the (T,) patches kept."""
    patches: tuple[int, ...]
    """For each clip the patches there were in a frame."""


OnRun = Callable[[LevelRun, int], None]
"""Told of each level that was run, and of how many there will be at most."""


def run_level(
    model: AutoGaze, clips: ClipSet, *, level: float, reconstructor: ReconstructorLike = "canvas", ratio: float = 0.75
) -> LevelRun:
    """Gaze at all clips, stop at a level of the bare prediction, and measure.

    Args:
        model: its calibration, if it has one, plays no part.
        clips: each is gazed at and rebuilt from nothing.
        level: λ.
        reconstructor: what measures the true loss.
        ratio: most patches of a frame, as a share.

    Raises:
        BudgetError: level or ratio is not legal.
        ValueError: the grid does not suit the reconstructor.
    """
    judge = load_reconstructor(reconstructor)
    gazes = list(_gazes(model, clips.clips, clips, Budget(ratio=ratio, threshold=level)))
    return LevelRun(
        level=level,
        loss=tuple(_true_loss(judge, clip, gaze) for clip, gaze in zip(clips.clips, gazes, strict=True)),
        predicted=tuple(after_last_gaze(gaze) for gaze in gazes),
        kept=tuple(gaze.count for gaze in gazes),
        patches=tuple(gaze.layout.num_patches for gaze in gazes),
    )


def first_levels(model: AutoGaze, clips: ClipSet, *, count: int) -> list[float]:
    """A ladder over the losses that the stop head speaks of, ascending, in even ratios where all are above 0.

    A few clips are gazed at without stopping. Each doubling of a frame's patches counts as much as the one before: the
    first gazes bring the loss down as far as the many after them.

    Raises:
        CalibrationError: the stop head always says the same.
    """
    places = np.unique(np.linspace(0, len(clips) - 1, PILOT_CLIPS).round().astype(int))
    some = [clips.clips[place] for place in places]
    gazes = list(_gazes(model, some, clips, Budget(ratio=PILOT_RATIO)))
    predicted = np.concatenate([gaze.predicted_loss for gaze in gazes if gaze.predicted_loss is not None])
    weight = np.concatenate([1 / (gaze.order + 1) for gaze in gazes])[~np.isnan(predicted)]
    predicted = predicted[~np.isnan(predicted)].astype(np.float64)
    order = np.argsort(predicted)
    upto = np.cumsum(weight[order]) / weight.sum()
    low, high = (float(predicted[order][np.searchsorted(upto, share)]) for share in PILOT_SHARES)
    if not low < high:
        raise CalibrationError(f"the stop head says {low:g} wherever it is asked; there is nothing to calibrate")
    return [between(low, high, share=step / (count - 1)) for step in range(count)]


def calibrate(
    model: AutoGaze,
    clips: ClipSet,
    *,
    alpha: float = 0.1,
    reconstructor: ReconstructorLike = "canvas",
    ratio: float = 0.75,
    levels: int = 10,
    wanted: Sequence[float] = (),
    on_run: OnRun | None = None,
) -> Calibration:
    """Fit the correction of a model's stop head; see :mod:`~autogaze.evaluation.conformal` for what it promises.

    Half of the runs are spread evenly over the losses that the stop head speaks of; each of the others goes where it
    narrows the widest gap between two promises, or, with ``wanted``, comes nearest to those thresholds. A threshold
    between two promises gets a level between theirs, so that more runs make it no laxer, but surer.

    Args:
        model: the model, whose own calibration plays no part.
        clips: what the promise will hold for is clips like these.
        alpha: α: the share of frames that may end above a threshold.
        reconstructor: what measures the true loss; thresholds will be in its unit.
        ratio: most patches of a frame meanwhile, as a share.
        levels: runs at most, at least 2; each gazes at all clips.
        wanted: thresholds that should be met closely; none: all alike.
        on_run: called after each run.

    Raises:
        CalibrationError: alpha, levels or a wanted threshold is not legal, there are too few clips for this alpha, or
            the stop head always says the same.
        CheckpointError: there is no such reconstructor.
    """
    check_alpha(alpha)
    if levels < 2:
        raise CalibrationError(f"levels must be at least 2, got {levels}")
    if not all(threshold > 0 for threshold in wanted):
        raise CalibrationError(f"thresholds must be above 0, got {', '.join(f'{value:g}' for value in wanted)}")
    if len(clips) < fewest_clips(alpha):
        promised_thresholds([np.zeros((1, 1))] * len(clips), alpha=alpha)  # says what is wrong
    judge = load_reconstructor(reconstructor, device=model.device)
    runs: list[LevelRun] = []

    def run(level: float) -> None:
        runs.append(run_level(model, clips, level=level, reconstructor=judge, ratio=ratio))
        runs.sort(key=lambda one: one.level)
        if on_run is not None:
            on_run(next(one for one in runs if one.level == level), levels)

    for level in first_levels(model, clips, count=max(2, (levels + 1) // 2)):
        run(level)
    while len(runs) < levels:
        thresholds = promised_thresholds(_stacked(runs), alpha=alpha).tolist()
        more = next_level([one.level for one in runs], thresholds, wanted=wanted)
        if more is None:
            break
        run(more)
    return Calibration(
        alpha=alpha,
        reconstructor=judge.name,
        loss_unit=judge.loss_unit,
        weights=weights_fingerprint(model),
        positions=model.config.positions,
        ratio=ratio,
        mode=clips.mode,
        clips=len(clips),
        frames=clips.num_frames,
        clips_sha256=clips.sha256(),
        seed=clips.seed,
        promises=promises_of(runs, alpha=alpha),
        versions=versions(),
    )


def promises_of(runs: Sequence[LevelRun], *, alpha: float) -> tuple[Promise, ...]:
    """What each level promises, and what it cost; runs in ascending order of level.

    Raises:
        CalibrationError: there are too few clips for this alpha.
    """
    thresholds = promised_thresholds(_stacked(runs), alpha=alpha)
    promises = []
    for run, threshold in zip(runs, thresholds.tolist(), strict=True):
        loss, predicted = np.concatenate(run.loss), np.concatenate(run.predicted)
        known = ~np.isnan(predicted)
        promises.append(
            Promise(
                threshold=threshold,
                level=run.level,
                kept_share=_kept_share(run),
                predicted=float(predicted[known].mean()) if known.any() else None,
                loss=float(loss.mean()),
                above_level=float((loss > run.level).mean()),
                above_threshold=float((loss > threshold).mean()),
            )
        )
    return tuple(promises)


def _kept_share(run: LevelRun) -> float:
    kept = sum(int(count.sum()) for count in run.kept)
    return kept / sum(patches * len(count) for patches, count in zip(run.patches, run.kept, strict=True))


def _stacked(runs: Sequence[LevelRun]) -> list[Floats]:
    """For each clip the (M, T) losses of all runs."""
    return [np.stack(losses) for losses in zip(*(run.loss for run in runs), strict=True)]


def _gazes(model: AutoGaze, some: Iterable[Frames], clips: ClipSet, budget: Budget) -> Iterable[Gaze]:
    selector = AutoGazeSelector(model)
    # A session is opened directly: here a threshold is the level itself.
    return (AutoGazeSession(selector, clips.layout(clip, model.grid), budget).step(clip) for clip in some)


def _true_loss(judge: Reconstructor, clip: Frames, gaze: Gaze) -> Floats:
    return judge.open(gaze.layout).step(clip, gaze).loss
