"""The audit of stop heads as files: one table, one picture."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autogaze.archive import atomic_path
from autogaze.evaluation.rows import ClipRow, FrameRow
from autogaze.evaluation.stop_head import SettingAudit, StopHeadAudit, audit_rows
from autogaze.evaluation.stop_head_plot import write_picture

TABLE = "stop_head.csv"
PICTURE = Path("plots") / "stop_head.png"


def write_stop_head(
    folder: str | os.PathLike[str], frames: Sequence[FrameRow], *, clips: Sequence[ClipRow], picture: bool = True
) -> list[SettingAudit]:
    """Audit every selector that predicts and write :data:`TABLE` and :data:`PICTURE`; nothing if none does.

    Args:
        folder: of the evaluation.
        frames: all rows of frames.
        clips: all rows of clips, which say what was asked for.
        picture: whether to draw, which needs matplotlib.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    audits = audit_rows(frames, clips=clips)
    if audits:
        write_table(folder, audits)
        if picture:
            path = Path(folder) / PICTURE
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, audits, frames=frames)
    return audits


def write_table(folder: str | os.PathLike[str], audits: Sequence[SettingAudit]) -> Path:
    """Write :data:`TABLE`: for each audit a row over all frames, one for each position and one for each range.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(folder) / TABLE
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for one in audits:
            named = {"selector": one.selector, "reconstructor": one.reconstructor, "setting": one.setting}
            writer.writerows({**named, **row} for row in _table(one.audit))
    return path


_COLUMNS = (
    *("selector", "reconstructor", "setting", "threshold", "part", "frame_idx", "predicted_from", "predicted_to"),
    *("frames", "clips", "predicted", "loss", "loss_low", "loss_high", "bias", "rmse", "correlation"),
    *("above_threshold", "wilson_low", "wilson_high", "clustered_low", "clustered_high", "mean_excess"),
)


def _table(one: StopHeadAudit) -> list[dict[str, Any]]:
    whole = {name: getattr(one, name) for name in ("frames", "clips", "predicted", "loss", "bias", "rmse")}
    whole |= {"part": "all", "correlation": _blank(one.correlation)}
    if one.violation is not None:
        share = one.violation.share
        whole |= {"threshold": one.violation.threshold, "above_threshold": share.rate}
        whole |= {"wilson_low": share.wilson[0], "wilson_high": share.wilson[1]}
        whole |= {"clustered_low": share.clustered[0], "clustered_high": share.clustered[1]}
        whole |= {"mean_excess": one.violation.mean_excess}
    positions = [
        {
            "part": "position",
            "frame_idx": place.frame_idx,
            "frames": place.frames,
            "bias": _blank(place.bias),
            "above_threshold": _blank(place.violation),
        }
        for place in one.positions
    ]
    curve = [
        {
            "part": "range",
            "predicted_from": point.low,
            "predicted_to": point.high,
            "frames": point.frames,
            "predicted": point.predicted,
            "loss": point.loss,
            "loss_low": point.interval[0],
            "loss_high": point.interval[1],
            "bias": point.predicted - point.loss,
        }
        for point in one.curve
    ]
    return [whole, *positions, *curve]


def _blank(value: float | None) -> float | str:
    return "" if value is None else value
