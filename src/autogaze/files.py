"""The files of a gaze: data, pictures and summary of one source or of many."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from autogaze.gaze import Gaze
from autogaze.names import result_name, result_names
from autogaze.pipeline import GazeStream, OnProgress, Options, Recipe, make_recipe
from autogaze.results import (
    Job,
    OnOutcome,
    Outcome,
    OutputError,
    check_many,
    check_name,
    check_out,
    do_all,
    staging,
)
from autogaze.summary import DATA, OVERLAY, SHEET, SUMMARY, StageSeconds, Summary
from autogaze.video import VideoSource
from autogaze.visualize import ContactSheet, OverlayWriter

__all__ = ["OnOutcome", "Outcome", "OutputError", "check_out", "gaze_many", "gaze_to_files"]


def gaze_to_files(
    source: VideoSource,
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    overlay: bool = True,
    sheet: bool = True,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[Options],
) -> Summary:
    """Gaze at a source in one pass and write the result into the folder ``out``, which is made if need be.

    Writes ``<name>.gaze`` (:meth:`Gaze.load <autogaze.gaze.Gaze.load>` reads it), ``<name>.overlay.mp4``,
    ``<name>.sheet.png`` and last ``<name>.json``, the summary. Each appears whole or not at all. If all of them
    are there already, made from the same source with the same settings, nothing is done.

    Args:
        source: see :func:`~autogaze.pipeline.gaze`.
        out: the folder.
        name: what the files are called, a plain file name; None takes the source's own name without its ending.
        overlay: whether to write the overlay.
        sheet: whether to write the contact sheet.
        overwrite: whether to do again what is complete, and to replace files of those names that are no result of
            this source.
        on_progress: called after each window of frames.
        options: the options of :func:`~autogaze.pipeline.gaze`.

    Raises:
        OutputError: ``out`` is not a folder, or holds files of those names that are no result of this source; or the
            name is not a plain file name.
        OSError: a file cannot be written.
        AutoGazeError: as :func:`~autogaze.pipeline.gaze`.
    """
    job = _Job(
        source=source,
        out=Path(out),
        name=result_name(source) if name is None else check_name(name),
        overlay=overlay,
        sheet=sheet,
        overwrite=overwrite,
        recipe=make_recipe(**options),
    )
    check_out(out)
    return job.do(on_progress)


def gaze_many(
    sources: Sequence[VideoSource],
    out: str | os.PathLike[str],
    *,
    overlay: bool = True,
    sheet: bool = True,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome[Summary] | None = None,
    **options: Unpack[Options],
) -> list[Outcome[Summary]]:
    """:func:`gaze_to_files` for many sources with one selector, going on after one that fails.

    Sources whose files would be called the same get distinct names, see :func:`~autogaze.names.result_names`.
    ``on_outcome`` is called after each source. The outcomes are in the order of the sources.

    Raises:
        OutputError: ``out`` is not a folder.
        TypeError: one source was given, not a list of them.
        OSError: there is no room to write, so that the other sources would fail too.
        AutoGazeError: the options are not legal; see :func:`~autogaze.pipeline.make_recipe`.
    """
    check_many(sources, many="gaze_many", one="gaze_to_files")
    recipe = make_recipe(**options)
    check_out(out)
    jobs = (
        _Job(
            source=source,
            out=Path(out),
            name=name,
            overlay=overlay,
            sheet=sheet,
            overwrite=overwrite,
            recipe=recipe,
        )
        for source, name in zip(sources, result_names(sources), strict=True)
    )
    return do_all(jobs, on_progress=on_progress, on_outcome=on_outcome)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job(Job[Summary]):
    """One source to be gazed at."""

    overlay: bool
    sheet: bool
    recipe: Recipe

    def endings(self) -> tuple[str, ...]:
        return DATA, *((OVERLAY,) if self.overlay else ()), *((SHEET,) if self.sheet else ()), SUMMARY

    def optional_endings(self) -> tuple[str, ...]:
        return OVERLAY, SHEET

    def load_summary(self) -> Summary:
        return Summary.load(self.summary_path)

    def has_settings_of(self, summary: Summary) -> bool:
        return summary.settings == self.recipe.settings

    def run(self, on_progress: OnProgress | None) -> Summary:
        fingerprint_before = self.fingerprint()
        with (
            GazeStream(self.source, recipe=self.recipe, on_progress=on_progress) as stream,
            staging(self.out, self.name) as folder,
        ):
            gaze, write_seconds = self._write(stream, folder)
            summary = Summary.of(
                gaze,
                source=self.source_name,
                source_fingerprint=fingerprint_before,
                name=self.name,
                files=self.files(),
                fps=stream.fps,
                settings=self.recipe.settings,
                seconds=StageSeconds(
                    decode=stream.reader.decode_seconds,
                    gaze=stream.gaze_seconds,
                    write=write_seconds,
                    total=stream.seconds,
                ),
                warnings=tuple(stream.reader.warnings),
            )
            summary.save(folder / f"{self.name}{SUMMARY}")
            self.publish(folder)
        return summary

    def _write(self, stream: GazeStream, folder: Path) -> tuple[Gaze, float]:
        """Everything but the summary, in one pass; returns the whole gaze and the seconds spent writing."""
        seconds = 0.0
        parts: list[Gaze] = []
        sheet = (
            ContactSheet(layout=stream.layout, title=f"{self.name} ({self.recipe.selector.name})")
            if self.sheet
            else None
        )
        with ExitStack() as stack:
            overlay: OverlayWriter | None = None
            for frames, gaze in stream:
                before = time.perf_counter()
                if self.overlay and overlay is None:
                    path, fps = folder / f"{self.name}{OVERLAY}", stream.fps
                    overlay = stack.enter_context(OverlayWriter(path, layout=stream.layout, fps=fps))
                if overlay is not None:
                    overlay.write(frames, gaze)
                if sheet is not None:
                    sheet.add(frames, gaze)
                parts.append(gaze)
                seconds += time.perf_counter() - before
            before = time.perf_counter()
        whole = Gaze.concatenate(parts)
        whole.save(folder / f"{self.name}{DATA}")
        if sheet is not None:
            sheet.save(folder / f"{self.name}{SHEET}")
        return whole, seconds + time.perf_counter() - before
