"""The files of a result: data, pictures and summary of one source or of many."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, Unpack

from autogaze.errors import AutoGazeError
from autogaze.gaze import Gaze
from autogaze.names import result_name, result_names
from autogaze.pipeline import GazeStream, OnProgress, Options, Recipe, make_recipe
from autogaze.summary import (
    DATA,
    OVERLAY,
    SHEET,
    SUMMARY,
    ForeignFileError,
    StageSeconds,
    Summary,
    SummaryFileError,
    fingerprint,
)
from autogaze.video import VideoSource
from autogaze.visualize import ContactSheet, OverlayWriter

_STOPS_EVERYTHING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class OutputError(AutoGazeError):
    """The results cannot be put where they were asked for."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one source among many: exactly one of ``summary`` and ``error`` is there."""

    source: str
    """The source as it was named."""
    name: str
    """What its files are called before their endings."""
    summary: Summary | None = None
    """What came out."""
    error: Exception | None = None
    """Why nothing came out."""
    skipped: bool = False
    """Whether the result was there already, complete and with the same settings."""


OnOutcome: TypeAlias = Callable[[Outcome], None]


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
        name: what the files are called; None takes the source's own name without its ending.
        overlay: whether to write the overlay.
        sheet: whether to write the contact sheet.
        overwrite: whether to do again what is complete, and to replace a ``<name>.json`` of another program.
        on_progress: called after each window of frames.
        options: the options of :func:`~autogaze.pipeline.gaze`.

    Raises:
        OutputError: ``out`` is not a folder, or holds a ``<name>.json`` of another program.
        OSError: a file cannot be written.
        AutoGazeError: as :func:`~autogaze.pipeline.gaze`.
    """
    job = _Job(
        source=source,
        out=Path(out),
        name=name or result_name(source),
        overlay=overlay,
        sheet=sheet,
        overwrite=overwrite,
        recipe=make_recipe(**options),
    )
    check_out(out)
    return job.finished() or job.run(on_progress)


def gaze_many(
    sources: Sequence[VideoSource],
    out: str | os.PathLike[str],
    *,
    overlay: bool = True,
    sheet: bool = True,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome | None = None,
    **options: Unpack[Options],
) -> list[Outcome]:
    """:func:`gaze_to_files` for many sources with one selector, going on after one that fails.

    Sources whose files would be called the same get distinct names, see :func:`~autogaze.names.result_names`.
    ``on_outcome`` is called after each source. The outcomes are in the order of the sources.

    Raises:
        OutputError: ``out`` is not a folder.
        OSError: there is no room to write, so that the other sources would fail too.
        AutoGazeError: the options are not legal; see :func:`~autogaze.pipeline.make_recipe`.
    """
    recipe = make_recipe(**options)
    check_out(out)
    outcomes = []
    for source, name in zip(sources, result_names(sources), strict=True):
        job = _Job(
            source=source,
            out=Path(out),
            name=name,
            overlay=overlay,
            sheet=sheet,
            overwrite=overwrite,
            recipe=recipe,
        )
        outcome = _outcome(job, on_progress)
        outcomes.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome)
    return outcomes


def check_out(out: str | os.PathLike[str]) -> None:
    """Find out before hours of work whether results could be put into ``out``.

    Raises:
        OutputError: it is not a folder, or files cannot be made in it.
    """
    path = Path(out)
    existing = next((parent for parent in (path, *path.absolute().parents) if parent.exists()), Path("/"))
    if not existing.is_dir():
        raise OutputError(f"{existing} is a file; results need a folder, choose another --out")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"no permission to write into {existing}; choose another --out")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """One source to be turned into files."""

    source: VideoSource
    out: Path
    name: str
    overlay: bool
    sheet: bool
    overwrite: bool
    recipe: Recipe

    @property
    def source_name(self) -> str:
        return os.fspath(self.source) if isinstance(self.source, (str, os.PathLike)) else "array"

    @property
    def summary_path(self) -> Path:
        return self.out / f"{self.name}{SUMMARY}"

    def fingerprint(self) -> str | None:
        return fingerprint(self.source) if isinstance(self.source, (str, os.PathLike)) else None

    def files(self) -> tuple[str, ...]:
        endings = (DATA, *((OVERLAY,) if self.overlay else ()), *((SHEET,) if self.sheet else ()), SUMMARY)
        return tuple(f"{self.name}{ending}" for ending in endings)

    def finished(self) -> Summary | None:
        """The summary of an earlier run that this one would only repeat.

        Raises:
            OutputError: there is a file of another program where the summary goes.
        """
        if self.overwrite or not isinstance(self.source, (str, os.PathLike)):
            return None
        try:
            summary = Summary.load(self.summary_path)
        except ForeignFileError as error:
            raise OutputError(f"{error}; --overwrite replaces it, another --out keeps it") from error
        except (FileNotFoundError, SummaryFileError):
            return None
        same = (
            summary.settings == self.recipe.settings
            and summary.source_fingerprint == self.fingerprint()
            and (summary.source_fingerprint is not None or summary.source == self.source_name)
            and all((self.out / file).is_file() for file in self.files())
        )
        return summary if same else None

    def run(self, on_progress: OnProgress | None) -> Summary:
        fingerprint_before = self.fingerprint()
        with (
            GazeStream(self.source, recipe=self.recipe, on_progress=on_progress) as stream,
            _staging(self.out, self.name) as folder,
        ):
            gaze, write_seconds = self._write(stream, folder)
            summary = Summary.of(
                gaze,
                source=self.source_name,
                source_fingerprint=fingerprint_before,
                name=self.name,
                files=self.files(),
                fps=stream.reader.fps,
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
            self._publish(folder)
        return summary

    def _write(self, stream: GazeStream, folder: Path) -> tuple[Gaze, float]:
        """Everything but the summary, in one pass; returns the whole gaze and the seconds spent writing."""
        seconds = 0.0
        parts: list[Gaze] = []
        sheet = ContactSheet(layout=stream.layout, title=self.name) if self.sheet else None
        with ExitStack() as stack:
            overlay: OverlayWriter | None = None
            for frames, gaze in stream:
                before = time.perf_counter()
                if self.overlay and overlay is None:
                    path, fps = folder / f"{self.name}{OVERLAY}", stream.reader.fps
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

    def _publish(self, folder: Path) -> None:
        """Move the finished files to their places; the summary goes first and comes last, so it never lies."""
        self.summary_path.unlink(missing_ok=True)
        for file in self.files():
            (folder / file).replace(self.out / file)


def _outcome(job: _Job, on_progress: OnProgress | None) -> Outcome:
    try:
        finished = job.finished()
        summary = finished or job.run(on_progress)
        return Outcome(source=job.source_name, name=job.name, summary=summary, skipped=finished is not None)
    except Exception as error:  # whatever is wrong with one source, the others are worth doing
        if isinstance(error, OSError) and error.errno in _STOPS_EVERYTHING:
            raise
        return Outcome(source=job.source_name, name=job.name, error=error)


@contextmanager
def _staging(out: Path, name: str) -> Iterator[Path]:
    """A temporary folder in ``out`` that vanishes with all that is left in it, as does ``out`` if made in vain."""
    made = [parent for parent in (out, *out.absolute().parents) if not parent.exists()]
    folder: Path | None = None
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=out))
        yield folder
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
