"""All pictures of an evaluation's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autogaze.evaluation.frame_plots import write_gaze_heatmap, write_per_frame_curves
from autogaze.evaluation.rows import ClipRow, FrameRow, SummaryRow
from autogaze.evaluation.time_plot import timed, write_time
from autogaze.evaluation.tradeoff import write_tradeoff_curves

TRADEOFF, PER_FRAME, HEATMAP, TIME = (
    "tradeoff_curves.png",
    "per_frame_curves.png",
    "gaze_heatmap.png",
    "time.png",
)


def write_plots(
    folder: Path, *, frames: Sequence[FrameRow], clips: Sequence[ClipRow], summary: Sequence[SummaryRow]
) -> list[Path]:
    """Write the pictures into a folder, which is made if need be; their paths.

    ``tradeoff_curves.png``, ``per_frame_curves.png``, ``gaze_heatmap.png``, and ``time.png`` where the rows have
    timings (an old one is removed where they have none). Equal rows give equal bytes; each file appears whole or not
    at all. Nothing is written where there are no rows.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    if not (frames and clips and summary):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    tradeoff, per_frame, heatmap, time = (folder / name for name in (TRADEOFF, PER_FRAME, HEATMAP, TIME))
    write_tradeoff_curves(tradeoff, clips=clips, summary=summary)
    write_per_frame_curves(per_frame, frames=frames, clips=clips, summary=summary)
    write_gaze_heatmap(heatmap, frames=frames, clips=clips, summary=summary)
    if not timed(summary):
        time.unlink(missing_ok=True)
        return [tradeoff, per_frame, heatmap]
    write_time(time, summary=summary)
    return [tradeoff, per_frame, heatmap, time]
