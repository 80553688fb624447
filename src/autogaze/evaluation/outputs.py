"""The files of an evaluation: tables, summary, metadata, plots and report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autogaze.archive import atomic_path
from autogaze.evaluation.facts import machine
from autogaze.evaluation.grids import grid_name, write_grid
from autogaze.evaluation.journal import JOURNAL, ClipRecord, VideoRecord
from autogaze.evaluation.measure import Measurement
from autogaze.evaluation.plan import Plan, Skipped
from autogaze.evaluation.plots import write_plots
from autogaze.evaluation.report import write_report
from autogaze.evaluation.rows import ClipRow, FrameRow, SummaryRow
from autogaze.evaluation.stop_head_files import TABLE as STOP_HEAD_CSV
from autogaze.evaluation.stop_head_files import write_stop_head
from autogaze.evaluation.tables import CLIPS_CSV, FRAMES_CSV, SUMMARY_CSV, summarise, summary_text, write_rows
from autogaze.frames import Frames
from autogaze.results import OutputError

METADATA, SUMMARY_TEXT, REPORT = "metadata.json", "summary.txt", "report.html"
PLOTS, GRIDS = "plots", "visualizations"
FORMAT = "autogaze-evaluation"
FORMAT_VERSION = 1
_FILES = (METADATA, SUMMARY_TEXT, REPORT, CLIPS_CSV, FRAMES_CSV, SUMMARY_CSV, STOP_HEAD_CSV)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A video that could not be measured to its end."""

    video: str
    """The video's path as it was given."""
    error: Exception
    """Why."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured, and where it was written."""

    folder: Path
    """Where all files are."""
    clips: tuple[ClipRow, ...]
    """A row for each clip, selector, setting and reconstructor, in this order."""
    frames: tuple[FrameRow, ...]
    """A row for each of these and each frame."""
    summary: tuple[SummaryRow, ...]
    """Means over clips."""
    videos: tuple[VideoRecord, ...]
    """Videos that were measured to their end."""
    failures: tuple[Failure, ...]
    """Videos that were not."""
    skipped: tuple[Skipped, ...]
    """What selectors and reconstructors cannot do."""
    warnings: tuple[str, ...]
    """What could not be written."""


def claim(folder: Path, *, overwrite: bool) -> None:
    """Make the folder, and see to it that nothing in it would be lost unasked.

    Raises:
        OutputError: it holds files of these names that are of no evaluation that could be continued.
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = _names(folder)
    if overwrite:
        if len(names) > len(_FILES) and not (folder / JOURNAL).exists():
            raise OutputError(
                f"{folder / names[-1]} is a picture of no evaluation, and would be lost; choose another --out"
            )
        return
    taken = [str(folder / name) for name in names if os.path.lexists(folder / name)]
    if taken and not (folder / JOURNAL).exists():
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise OutputError(
            f"{taken[0]}{more}: there already and of no evaluation that could be continued; "
            f"--overwrite replaces what is there, another --out keeps it"
        )


def clear(folder: Path) -> None:
    """Remove what an earlier evaluation has written, but for its journal; call it with the journal locked.

    Raises:
        OSError: a file cannot be removed.
    """
    for name in _names(folder):
        (folder / name).unlink(missing_ok=True)


def _names(folder: Path) -> list[str]:
    """What an evaluation writes: the files, then the pictures that are there."""
    pictures = (path for kind in (PLOTS, GRIDS) for path in folder.glob(f"{kind}/*.png"))
    return [*_FILES, *(str(path.relative_to(folder)) for path in pictures)]


def write_tables(folder: Path, records: Sequence[ClipRecord]) -> tuple[tuple[ClipRow, ...], tuple[FrameRow, ...]]:
    """Write the three CSV files; the rows of clips and of frames in the order of the records."""
    clips = tuple(row for record in records for row in record.clips)
    frames = tuple(row for record in records for row in record.frames)
    write_rows(folder / CLIPS_CSV, clips, kind=ClipRow)
    write_rows(folder / FRAMES_CSV, frames, kind=FrameRow)
    write_rows(folder / SUMMARY_CSV, summarise(clips), kind=SummaryRow)
    return clips, frames


def metadata_of(
    plan: Plan,
    *,
    videos: Sequence[VideoRecord],
    failures: Sequence[Failure],
    num_clips: int,
    seconds: float,
    command: str | None,
) -> dict[str, Any]:
    """Everything beside the figures that someone needs who wants to repeat or to judge them."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "command": command,
        "versions": plan.request["versions"],
        "machine": machine(plan.request["device"]),
        "settings": {name: value for name, value in plan.request.items() if name not in (*plan.identities, "versions")},
        **plan.identities,
        "units": {
            "actual_gaze_ratio": "patches kept as a share of those of all scales",
            "gaze_ratio_of_finest": "patches kept as a share of those of the finest scale",
            "pixel_mae, pixel_mse": "colours in 0…1",
            "psnr": "dB; an exactly rebuilt frame is inf in the frame table and counts as 100 in means",
            "ssim": "Gaussian window of 1.5 px, 11 px wide",
            "task_loss_requirement_arg, predicted_loss": "the selector's own unit",
            "reconstruction_loss": "the reconstructor's own unit",
        },
        "videos": [asdict(video) for video in videos],
        "clips": num_clips,
        "skipped": [asdict(one) for one in plan.skipped],
        "failures": [{"video": one.video, "reason": str(one.error)} for one in failures],
        **({"seconds_of_last_run": seconds} if plan.bench.timings else {}),
    }


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write ``metadata.json``."""
    _write_text(folder / METADATA, json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")


def write_summary_text(folder: Path, summary: Sequence[SummaryRow], *, plan: Plan, metadata: Mapping[str, Any]) -> None:
    """Write ``summary.txt``."""
    side_px = plan.cutting.side_px
    size = "at their own size, in tiles" if side_px is None else f"resized to {side_px} × {side_px} px"
    versions = ", ".join(f"{name} {version}" for name, version in metadata["versions"].items())
    heading = [
        f"Means over {_counted(metadata['clips'], 'clip')} of at most {_counted(plan.cutting.clip_len, 'frame')} "
        f"from {_counted(len(metadata['videos']), 'video')}, {size}; seed {plan.bench.seed}",
        f"{_counted(len(metadata['failures']), 'video')} failed; what was skipped is in {METADATA}",
        f"Versions: {versions}",
        "Seconds and gazes are those of a clip; PSNR counts an exactly rebuilt frame as 100 dB",
    ]
    units = {one["name"]: one["loss_unit"] for one in plan.identities["reconstructors"]}
    _write_text(folder / SUMMARY_TEXT, summary_text(summary, heading=heading, loss_units=units))


class Pictures:
    """Grids, plots and the report: what is for the eye, and is left out with one warning where a package is missing."""

    def __init__(self, folder: Path, *, several_reconstructors: bool) -> None:
        self._folder = folder
        self._several = several_reconstructors
        self.warnings: list[str] = []
        """What could not be written, each once."""

    def grid(self, measurement: Measurement, frames: Frames) -> None:
        """Write the grid of one measurement.

        Raises:
            OSError: it cannot be written.
        """
        row = measurement.clip_row
        name = grid_name(row, with_reconstructor=self._several)

        def write() -> None:
            path = self._folder / GRIDS / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            write_grid(
                path,
                frames=frames,
                gaze=measurement.gaze,
                reconstruction=measurement.reconstruction,
                title=f"{row.clip_name} · {row.selector} · {row.setting} · rebuilt by {row.reconstructor}",
            )

        self._unless_missing(write)

    def plots_and_report(
        self,
        *,
        clips: Sequence[ClipRow],
        frames: Sequence[FrameRow],
        summary: Sequence[SummaryRow],
        metadata: Mapping[str, Any],
    ) -> None:
        """Write the plots, the audit of stop heads, and the report that shows them.

        Raises:
            OSError: a file cannot be written.
        """
        self._unless_missing(lambda: write_plots(self._folder / PLOTS, frames=frames, clips=clips, summary=summary))
        self._unless_missing(lambda: write_stop_head(self._folder, frames, clips=clips))
        self._unless_missing(
            lambda: write_report(
                self._folder / REPORT, folder=self._folder, metadata=metadata, summary=summary, clips=clips
            )
        )

    def _unless_missing(self, write: Callable[[], object]) -> None:
        try:
            write()
        except ImportError as error:
            if (told := f"some pictures are left out: {error}") not in self.warnings:
                self.warnings.append(told)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        # A file name that is not text keeps its bytes as the escapes of JSON.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
