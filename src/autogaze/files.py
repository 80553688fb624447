"""The files of a result: data, pictures and summary of one source or of many."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
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

if sys.platform != "win32":
    import fcntl

_WAYS_OUT = "--overwrite replaces what is there, another --out keeps it"
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
    if name is not None and (name in ("", ".", "..") or re.search(r"[/\\\0]", name)):
        raise OutputError(f"name must be a plain file name, got {name!r}; folders are what out is for")
    job = _Job(
        source=source,
        out=Path(out),
        name=result_name(source) if name is None else name,
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
        TypeError: one source was given, not a list of them.
        OSError: there is no room to write, so that the other sources would fail too.
        AutoGazeError: the options are not legal; see :func:`~autogaze.pipeline.make_recipe`.
    """
    if isinstance(sources, (str, os.PathLike)):
        raise TypeError(f"gaze_many takes a list of sources, got one: use [{sources!r}], or gaze_to_files")
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
            OutputError: the files would take the places of others that are no result of this source.
        """
        for file in self.files():
            if (self.out / file).is_dir():
                raise OutputError(f"{self.out / file} is a folder, and a file goes there; choose another --out")
        if self.overwrite:
            return None
        try:
            summary = Summary.load(self.summary_path)
        except ForeignFileError as error:
            raise OutputError(f"{error}; {_WAYS_OUT}") from error
        except FileNotFoundError:
            self._check_free(self.files())
            return None
        except SummaryFileError:
            return None
        if not self._is_of_this_source(summary):
            raise OutputError(f"{self.summary_path} is the result of {summary.source}; {_WAYS_OUT}")
        self._check_free(set(self.files()) - set(summary.files))
        if not isinstance(self.source, (str, os.PathLike)):
            return None
        same = (
            summary.settings == self.recipe.settings
            and summary.source_fingerprint == self.fingerprint()
            and all((self.out / file).is_file() for file in self.files())
        )
        return summary if same else None

    def _is_of_this_source(self, summary: Summary) -> bool:
        if summary.source == self.source_name:
            return True
        if summary.source_fingerprint is not None and summary.source_fingerprint == self.fingerprint():
            return True  # the same file after it was moved, or by another path
        named = isinstance(self.source, (str, os.PathLike))
        return named and os.path.realpath(summary.source) == os.path.realpath(self.source_name)

    def _check_free(self, files: Iterable[str]) -> None:
        taken = [self.out / file for file in sorted(files) if os.path.lexists(self.out / file)]
        if taken:
            raise OutputError(f"{', '.join(map(str, taken))}: there already and no result of autogaze; {_WAYS_OUT}")

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
        with _alone_in(self.out):
            stale = self._stale()
            self.summary_path.unlink(missing_ok=True)
            for file in stale:
                (self.out / file).unlink(missing_ok=True)
            for file in self.files():
                (folder / file).replace(self.out / file)

    def _stale(self) -> list[str]:
        """Pictures of the result that is replaced which the new one does not have."""
        try:
            earlier = Summary.load(self.summary_path).files
        except (OSError, SummaryFileError):
            return []
        pictures = (f"{self.name}{ending}" for ending in (OVERLAY, SHEET))
        return [file for file in pictures if file in earlier and file not in self.files()]


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


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """While files are moved into a folder no other run does so, lest a result be of two runs."""
    if sys.platform == "win32":  # has no such locks
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
