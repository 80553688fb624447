"""Results as files: whole or not at all, done once, and never over what is somebody else's."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from autogaze.archive import sync_names
from autogaze.errors import AutoGazeError
from autogaze.pipeline import OnProgress
from autogaze.summary import ForeignFileError, ResultSummary, SummaryFileError, fingerprint
from autogaze.video import VideoSource

if sys.platform != "win32":
    import fcntl

SummaryT = TypeVar("SummaryT", bound=ResultSummary)
SummaryT_co = TypeVar("SummaryT_co", bound=ResultSummary, covariant=True)

_WAYS_OUT = "--overwrite replaces what is there, another --out keeps it"
_STOPS_EVERYTHING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class OutputError(AutoGazeError):
    """The results cannot be put where they were asked for."""


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[SummaryT_co]):
    """What became of one source among many: exactly one of ``summary`` and ``error`` is there."""

    source: str
    """The source as it was named."""
    name: str
    """What its files are called before their endings."""
    summary: SummaryT_co | None = None
    """What came out."""
    error: Exception | None = None
    """Why nothing came out."""
    skipped: bool = False
    """Whether the result was there already, complete and with the same settings."""


OnOutcome: TypeAlias = Callable[[Outcome[SummaryT]], None]


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


def check_name(name: str) -> str:
    """The name of a result, if it can be one.

    Raises:
        OutputError: it is not a plain file name.
    """
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise OutputError(f"name must be a plain file name, got {name!r}; folders are what out is for")
    return name


@dataclass(frozen=True, kw_only=True, eq=False)
class Job(ABC, Generic[SummaryT]):
    """One source to be turned into the files of a result."""

    source: VideoSource
    """The source."""
    out: Path
    """Folder for the files."""
    name: str
    """What the files are called before their endings."""
    overwrite: bool
    """Whether to do again what is complete, and to replace files that are no result of the source."""

    @abstractmethod
    def endings(self) -> tuple[str, ...]:
        """Endings of the files that are asked for; that of the summary is the last."""

    @abstractmethod
    def optional_endings(self) -> tuple[str, ...]:
        """Endings of the files that such a result may lack."""

    @abstractmethod
    def load_summary(self) -> SummaryT:
        """What an earlier run wrote as its summary.

        Raises:
            FileNotFoundError: there is none.
            SummaryFileError: it is damaged, or comes from another version or program.
        """

    @abstractmethod
    def has_settings_of(self, summary: SummaryT) -> bool:
        """Whether an earlier run was asked for the same."""

    @abstractmethod
    def run(self, on_progress: OnProgress | None) -> SummaryT:
        """Do the work."""

    @property
    def source_name(self) -> str:
        """The source as it was named."""
        return os.fspath(self.source) if isinstance(self.source, (str, os.PathLike)) else "array"

    @property
    def summary_path(self) -> Path:
        """Where the summary goes."""
        return self.out / f"{self.name}{self.endings()[-1]}"

    def fingerprint(self) -> str | None:
        """What tells the source from others of its name."""
        return fingerprint(self.source) if isinstance(self.source, (str, os.PathLike)) else None

    def files(self) -> tuple[str, ...]:
        """Names of the files that are asked for."""
        return tuple(f"{self.name}{ending}" for ending in self.endings())

    def do(self, on_progress: OnProgress | None) -> SummaryT:
        """The summary of the result, which is made unless it is there already.

        Raises:
            Exception: what :meth:`finished` and :meth:`run` raise.
        """
        return self.finished() or self.run(on_progress)

    def finished(self) -> SummaryT | None:
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
            summary = self.load_summary()
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
            self.has_settings_of(summary)
            and summary.source_fingerprint == self.fingerprint()
            and all((self.out / file).is_file() for file in self.files())
        )
        return summary if same else None

    def _is_of_this_source(self, summary: SummaryT) -> bool:
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

    def publish(self, folder: Path) -> None:
        """Move the finished files to their places; the summary goes first and comes last, so it never lies.

        Raises:
            OSError: a file cannot be moved.
        """
        with alone_in(self.out):
            stale = self._stale()
            self.summary_path.unlink(missing_ok=True)
            for file in stale:
                (self.out / file).unlink(missing_ok=True)
            for file in self.files():
                (folder / file).replace(self.out / file)
            sync_names(self.out)

    def _stale(self) -> list[str]:
        """Files of the result that is replaced which the new one does not have."""
        try:
            earlier = self.load_summary().files
        except (OSError, SummaryFileError):
            return []
        optional = (f"{self.name}{ending}" for ending in self.optional_endings())
        return [file for file in optional if file in earlier and file not in self.files()]


def do_all(
    jobs: Iterable[Job[SummaryT]], *, on_progress: OnProgress | None, on_outcome: OnOutcome[SummaryT] | None
) -> list[Outcome[SummaryT]]:
    """Do one job after the other, going on after one that fails.

    Raises:
        OSError: there is no room to write, so that the other jobs would fail too.
    """
    outcomes = []
    for job in jobs:
        outcome = _outcome(job, on_progress)
        outcomes.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome)
    return outcomes


def _outcome(job: Job[SummaryT], on_progress: OnProgress | None) -> Outcome[SummaryT]:
    try:
        finished = job.finished()
        summary = finished or job.run(on_progress)
        return Outcome(source=job.source_name, name=job.name, summary=summary, skipped=finished is not None)
    except Exception as error:  # whatever is wrong with one source, the others are worth doing
        if isinstance(error, OSError) and error.errno in _STOPS_EVERYTHING:
            raise
        return Outcome(source=job.source_name, name=job.name, error=error)


def check_many(sources: Sequence[VideoSource], *, many: str, one: str) -> None:
    """Refuse one source where a list of them belongs; ``many`` and ``one`` are the functions for either.

    Raises:
        TypeError: it is one source.
    """
    if isinstance(sources, (str, os.PathLike)):
        raise TypeError(f"{many} takes a list of sources, got one: use [{sources!r}], or {one}")


@contextmanager
def staging(out: Path, name: str) -> Iterator[Path]:
    """A temporary folder in ``out`` that vanishes with all that is left in it, as does ``out`` if made in vain.

    Raises:
        OSError: it cannot be made.
    """
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
def alone_in(folder: Path) -> Iterator[None]:
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
