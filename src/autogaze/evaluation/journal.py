"""What an evaluation has finished so far, clip by clip, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from autogaze.evaluation.rows import ClipRow, FrameRow
from autogaze.results import OutputError

if sys.platform != "win32":
    import fcntl

JOURNAL = ".journal.jsonl"
"""Name of the journal in the folder of the results."""
FORMAT = "autogaze-evaluation-journal"
FORMAT_VERSION = 1
_WAYS_OUT = "--overwrite starts over, another --out keeps what is there"

RowT = TypeVar("RowT", FrameRow, ClipRow)


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """Everything that was measured of one clip."""

    video: str
    """The video's path as it was given."""
    fingerprint: str | None
    """What the file was when it was measured, see :func:`~autogaze.summary.fingerprint`."""
    clip_name: str
    """Name of the clip."""
    clip_start: int
    """Number of its first frame."""
    clips: tuple[ClipRow, ...]
    """A row for each selector, setting and reconstructor."""
    frames: tuple[FrameRow, ...]
    """A row for each of those and each frame."""


@dataclass(frozen=True, kw_only=True)
class VideoRecord:
    """A video of which every clip is measured."""

    video: str
    """The path as it was given."""
    fingerprint: str | None
    """What the file was."""
    name: str
    """Its result name."""
    clip_starts: tuple[int, ...]
    """First frames of its clips."""
    width_px: int
    """Of its frames."""
    height_px: int
    """Of its frames."""
    fps: float
    """Mean rate of the frames that were looked at."""
    frames_read: int
    """Frames from the first to the last that was looked at."""
    notes: tuple[str, ...]
    """What was wrong with it without stopping the work."""


class Journal:
    """A file to which every finished clip and video is added, and which nobody else writes at the same time.

    Its first line is the request. A last line that is torn, as after a power cut, is forgotten.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        """Open the journal of a folder, or begin one.

        Raises:
            OutputError: it is of another request, is damaged, or another run is writing it.
            OSError: it cannot be read or written.
        """
        self.path = folder / JOURNAL
        self._file = self.path.open("a+b")
        try:
            self._lock()
            self._begin({"format": FORMAT, "version": FORMAT_VERSION, "request": json.loads(json.dumps(request))})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, record: ClipRecord | VideoRecord) -> None:
        """Write a record down for good.

        Raises:
            OSError: it cannot be written.
        """
        self._write(_plain(record))

    def records(self) -> Iterator[ClipRecord | VideoRecord]:
        """All records, in the order in which they were written.

        Raises:
            OutputError: a line is damaged.
        """
        with self.path.open("rb") as file:
            next(file)
            for number, line in enumerate(file, start=2):
                try:
                    yield _record(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise OutputError(f"line {number} of {self.path} is damaged ({error!r}); {_WAYS_OUT}") from error

    def _lock(self) -> None:
        if sys.platform == "win32":  # has no such locks
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another evaluation is writing into {self.path.parent}; wait for it, or choose another --out"
            ) from error
        except OSError:  # some network file systems have no locks
            return

    def _begin(self, header: Mapping[str, Any]) -> None:
        self._file.seek(0)
        first = self._file.readline()
        whole = sum(len(line) for line in (first, *self._file) if line.endswith(b"\n"))
        self._file.truncate(whole)
        if not whole:
            self._write(header)
            return
        try:
            found = json.loads(first)
            request = found["request"] if found["format"] == FORMAT else None
        except (ValueError, KeyError, TypeError):
            request = None
        if not isinstance(request, dict):
            raise OutputError(f"{self.path} is no journal of an evaluation; {_WAYS_OUT}")
        wanted = header["request"]
        differ = [
            name for name in (*wanted, *(request.keys() - wanted.keys())) if request.get(name) != wanted.get(name)
        ]
        if found.get("version") != FORMAT_VERSION:
            differ.append("version of the journal")
        if differ:
            told = ", ".join(name.replace("_", " ") for name in differ)
            raise OutputError(
                f"{self.path.parent} holds an evaluation that differs from this one in: {told}; {_WAYS_OUT}"
            )

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        with suppress(OSError):  # what cannot be synced, such as a pipe, is written all the same
            os.fsync(self._file.fileno())


def _plain(record: ClipRecord | VideoRecord) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    if isinstance(record, VideoRecord):
        return {"kind": "video", **values}
    # Rows without the names of their columns, which would be most of the file.
    return {"kind": "clip", **values, "clips": _values(record.clips), "frames": _values(record.frames)}


def _values(rows: Sequence[ClipRow] | Sequence[FrameRow]) -> list[list[Any]]:
    return [[getattr(row, field.name) for field in fields(row)] for row in rows]


def _record(data: dict[str, Any]) -> ClipRecord | VideoRecord:
    kind = data.pop("kind")
    if kind == "video":
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return VideoRecord(**values)
    clips, frames = data.pop("clips"), data.pop("frames")
    return ClipRecord(
        **data,
        clips=tuple(_row(ClipRow, values) for values in clips),
        frames=tuple(_row(FrameRow, values) for values in frames),
    )


def _row(kind: type[RowT], values: list[Any]) -> RowT:
    # One copy of each name instead of one in every row.
    kept: list[Any] = [sys.intern(v) if isinstance(v, str) else tuple(v) if isinstance(v, list) else v for v in values]
    return kind(**dict(zip((field.name for field in fields(kind)), kept, strict=True)))
