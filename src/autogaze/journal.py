"""A file of finished pieces of work, one JSON line each, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from autogaze.results import OutputError

if sys.platform != "win32":
    import fcntl

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, kw_only=True)
class JournalKind:
    """What the lines of a journal are about, and how errors speak of it."""

    format: str
    """What its first line says it is."""
    version: int
    """Of what its lines hold."""
    work: str
    """What made it, such as ``an evaluation``."""
    another: str
    """Another run of that, such as ``another evaluation``."""
    differs: str
    """What an earlier run with another request is, such as ``an evaluation that differs from this one``."""
    place: str
    """Where the results go."""
    ways_out: str = "--overwrite starts over, another --out keeps what is there"
    """What to do about a journal that does not fit."""


class LineJournal(ABC, Generic[RecordT]):
    """A file to which every finished piece is added, and which nobody else writes at the same time.

    Its first line is the request: what was asked for, as plain values. A last line that is torn, as after a power cut,
    is forgotten.
    """

    def __init__(self, path: Path, request: Mapping[str, Any], *, kind: JournalKind, overwrite: bool = False) -> None:
        """Open the journal at ``path``, or begin one; with ``overwrite`` what is in it is forgotten.

        Raises:
            OutputError: it is of another request, is damaged, or another run is writing it.
            OSError: it cannot be read or written.
        """
        self.path = path
        self._kind = kind
        self._file = path.open("a+b")
        try:
            self._lock()
            if overwrite:
                self._file.truncate(0)
            self._begin(json.loads(json.dumps(request)))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    @abstractmethod
    def to_line(self, record: RecordT) -> dict[str, Any]:
        """A record as plain values."""

    @abstractmethod
    def from_line(self, line: dict[str, Any]) -> RecordT:
        """The record of plain values; a ``ValueError``, ``KeyError`` or ``TypeError`` means that they are damaged."""

    def add(self, record: RecordT) -> None:
        """Write a record down for good.

        Raises:
            OSError: it cannot be written.
        """
        self._write(self.to_line(record))

    def records(self) -> Iterator[RecordT]:
        """All records, in the order in which they were written.

        Raises:
            OutputError: a line is damaged.
        """
        with self.path.open("rb") as file:
            next(file)
            for number, line in enumerate(file, start=2):
                try:
                    record = self.from_line(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise OutputError(
                        f"line {number} of {self.path} is damaged ({error!r}); {self._kind.ways_out}"
                    ) from error
                yield record

    def _lock(self) -> None:
        if sys.platform == "win32":  # has no such locks
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"{self._kind.another} is writing into {self._kind.place}; wait for it, or choose another --out"
            ) from error
        except OSError:  # some network file systems have no locks
            return

    def _begin(self, request: Mapping[str, Any]) -> None:
        self._file.seek(0)
        first = self._file.readline()
        whole = [len(line) for line in (first, *self._file) if line.endswith(b"\n")]
        self._file.truncate(sum(whole))
        if not whole:
            self._write({"format": self._kind.format, "version": self._kind.version, "request": request})
            return
        try:
            header = json.loads(first)
            found = header["request"] if header["format"] == self._kind.format else None
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, dict):
            raise OutputError(f"{self.path} is no journal of {self._kind.work}; {self._kind.ways_out}")
        if len(whole) == 1 and found != request:  # nothing was done, so that nothing would be lost
            self._file.truncate(0)
            self._begin(request)
            return
        names = (*request, *(found.keys() - request.keys()))
        differ = [name.replace("_", " ") for name in names if found.get(name) != request.get(name)]
        if header.get("version") != self._kind.version:
            differ.append("version of the journal")
        if differ:
            raise OutputError(
                f"{self._kind.place} holds {self._kind.differs} in: {', '.join(differ)}; {self._kind.ways_out}"
            )

    def _write(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(values, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        with suppress(OSError):  # what cannot be synced, such as a pipe, is written all the same
            os.fsync(self._file.fileno())
