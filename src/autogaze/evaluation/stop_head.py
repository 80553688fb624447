"""Audit of a stop head: what it predicted after each frame's last gaze, against the loss that was really reached.

A frame ends when the prediction reaches a threshold, so a prediction that is too low, an optimistic one, ends it above
the loss that was asked for. All losses are in the unit of the reconstructor that measured the true one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autogaze.evaluation.intervals import Floats, Share, Z, share_of, standard_error
from autogaze.evaluation.rows import ClipRow, FrameRow
from autogaze.gaze import Gaze

# Shape letters: N frames of all clips, T frames of one.


@dataclass(frozen=True, kw_only=True)
class Violation:
    """How a threshold was kept."""

    threshold: float
    """The loss that was asked for."""
    share: Share
    """Frames whose true loss is above it."""
    mean_excess: float
    """How far above it they are, on average; 0 if there are none."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The frames whose prediction is in one range; the ranges hold equally many frames, as far as ties allow."""

    low: float
    """Smallest prediction."""
    high: float
    """Largest prediction."""
    predicted: float
    """Mean prediction."""
    loss: float
    """Mean true loss."""
    interval: tuple[float, float]
    """Of the mean true loss, by its standard error over clips; the mean itself where all are of one clip."""
    frames: int
    """Frames."""


@dataclass(frozen=True, kw_only=True)
class PositionAudit:
    """The frames at one position of their clips."""

    frame_idx: int
    """The position."""
    frames: int
    """Frames whose prediction is known."""
    bias: float | None
    """Mean of predicted less true loss; None if no prediction is known."""
    violation: float | None
    """Share of frames above the threshold; None without one."""


@dataclass(frozen=True, kw_only=True)
class StopHeadAudit:
    """What a stop head is worth. Predictions that are not known count in nothing but ``frames`` and ``violation``."""

    frames: int
    """Frames."""
    clips: int
    """Clips they are of."""
    known: int
    """Frames whose prediction is known."""
    predicted: float
    """Mean prediction."""
    loss: float
    """Mean true loss of the frames whose prediction is known."""
    bias: float
    """Mean of predicted less true loss: below 0 the head is optimistic."""
    rmse: float
    """Root of the mean squared difference."""
    correlation: float | None
    """Pearson's, of predicted and true loss; None where one of them does not vary."""
    violation: Violation | None
    """How the threshold was kept; None without one."""
    curve: tuple[CurvePoint, ...]
    """Mean true loss against prediction."""
    positions: tuple[PositionAudit, ...]
    """By position of the frame in its clip."""

    def to_json(self) -> dict[str, Any]:
        """The audit as plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SettingAudit:
    """The audit of one selector at one setting under one reconstructor."""

    selector: str
    """Name of the selector."""
    reconstructor: str
    """Name of the reconstructor."""
    setting: str
    """Name of the operating point."""
    audit: StopHeadAudit
    """The audit."""


def after_last_gaze(gaze: Gaze) -> Floats:
    """(T,) what was said of each frame's loss after its last gaze; NaN where nothing was, or there is no gaze.

    Raises:
        ValueError: the gaze is of several tiles, each of which has a last gaze of its own.
    """
    if gaze.layout.num_tiles != 1:
        raise ValueError(f"one tile has one last gaze in each frame, this gaze is of {gaze.layout.num_tiles} tiles")
    last = np.full(len(gaze), np.nan)
    if gaze.predicted_loss is not None:
        gazed = gaze.count > 0
        last[gazed] = gaze.predicted_loss[np.cumsum(gaze.count)[gazed] - 1]
    return last


def audit(
    predicted: ArrayLike,
    loss: ArrayLike,
    *,
    clip: ArrayLike,
    position: ArrayLike,
    threshold: float | None = None,
    bins: int = 10,
) -> StopHeadAudit:
    """Compare predicted and true loss after the last gaze of N frames.

    Args:
        predicted: (N,) predictions; NaN where the head did not say.
        loss: (N,) true losses.
        clip: (N,) clip of each frame, as any kind of name.
        position: (N,) position of each frame in its clip, from 0.
        threshold: the loss that was asked for; None: none was.
        bins: ranges of the calibration curve, at most.

    Raises:
        ValueError: lengths differ, there is no prediction at all, a loss is not finite, or bins is below 1.
    """
    predicted, loss = np.asarray(predicted, np.float64), np.asarray(loss, np.float64)
    clip, position = np.asarray(clip), np.asarray(position, np.int64)
    if predicted.ndim != 1 or not predicted.shape == loss.shape == clip.shape == position.shape:
        shapes = ", ".join(str(array.shape) for array in (predicted, loss, clip, position))
        raise ValueError(f"predicted, loss, clip and position must be (N,) each, got {shapes}")
    known = ~np.isnan(predicted)
    if not known.any() or not np.isfinite(loss).all() or bins < 1:
        raise ValueError(
            f"need predictions, finite losses and at least 1 bin, got {int(known.sum())} predictions, "
            f"{int(np.isfinite(loss).sum())} finite of {len(loss)} losses, {bins} bins"
        )
    clip = np.unique(clip, return_inverse=True)[1]
    said, true = predicted[known], loss[known]
    difference = said - true
    varies = bool(np.ptp(said) > 0 and np.ptp(true) > 0)
    return StopHeadAudit(
        frames=len(loss),
        clips=int(clip.max()) + 1,
        known=int(known.sum()),
        predicted=float(said.mean()),
        loss=float(true.mean()),
        bias=float(difference.mean()),
        rmse=float(np.sqrt(np.square(difference).mean())),
        correlation=float(np.corrcoef(said, true)[0, 1]) if varies else None,
        violation=None if threshold is None else _violation(loss, clip, threshold),
        curve=_curve(said, true, clip[known], bins),
        positions=tuple(
            _at_position(int(place), predicted[position == place], loss[position == place], threshold)
            for place in np.unique(position)
        ),
    )


def audit_rows(frames: Sequence[FrameRow], *, clips: Sequence[ClipRow]) -> list[SettingAudit]:
    """An audit for each selector that predicts, reconstructor and setting, in the order they first appear.

    The threshold of a setting is what its clips' rows say was asked for. It is compared with the loss under every
    reconstructor, and tells something where the unit is the same.
    """
    thresholds = {(row.selector, row.setting): row.task_loss_requirement_arg for row in clips}
    groups: dict[tuple[str, str, str], list[FrameRow]] = {}
    for row in frames:
        groups.setdefault((row.selector, row.reconstructor, row.setting), []).append(row)
    return [
        SettingAudit(
            selector=selector,
            reconstructor=reconstructor,
            setting=setting,
            audit=audit(
                predictions(rows),
                [row.reconstruction_loss for row in rows],
                clip=[row.clip_name for row in rows],
                position=[row.frame_idx for row in rows],
                threshold=thresholds.get((selector, setting)),
            ),
        )
        for (selector, reconstructor, setting), rows in groups.items()
        if not np.isnan(predictions(rows)).all()
    ]


def predictions(rows: Sequence[FrameRow]) -> Floats:
    """(N,) the rows' predictions; NaN where there is none."""
    return np.array([np.nan if row.predicted_loss is None else row.predicted_loss for row in rows], np.float64)


def _violation(loss: Floats, clip: NDArray[np.integer[Any]], threshold: float) -> Violation:
    above = loss > threshold
    excess = float((loss[above] - threshold).mean()) if above.any() else 0.0
    return Violation(threshold=threshold, share=share_of(above, clip), mean_excess=excess)


def _curve(said: Floats, true: Floats, clip: NDArray[np.integer[Any]], bins: int) -> tuple[CurvePoint, ...]:
    edges = np.quantile(said, np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(edges, said, side="right")
    points = []
    for number in np.unique(place):
        inside = place == number
        mean = float(true[inside].mean())
        half = Z * standard_error(true[inside], clip[inside])
        points.append(
            CurvePoint(
                low=float(said[inside].min()),
                high=float(said[inside].max()),
                predicted=float(said[inside].mean()),
                loss=mean,
                interval=(mean - half, mean + half),
                frames=int(inside.sum()),
            )
        )
    return tuple(points)


def _at_position(place: int, predicted: Floats, loss: Floats, threshold: float | None) -> PositionAudit:
    known = ~np.isnan(predicted)
    return PositionAudit(
        frame_idx=place,
        frames=int(known.sum()),
        bias=float((predicted[known] - loss[known]).mean()) if known.any() else None,
        violation=None if threshold is None else float((loss > threshold).mean()),
    )
