"""What an evaluation has finished so far, clip by clip, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from autogaze.evaluation.rows import ClipRow, FrameRow
from autogaze.journal import JournalKind, LineJournal

JOURNAL = ".journal.jsonl"
"""Name of the journal in the folder of the results."""

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


class Journal(LineJournal[ClipRecord | VideoRecord]):
    """The journal of an evaluation, in the folder of its results."""

    def __init__(self, folder: Path, request: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Open the journal of a folder, or begin one; with ``overwrite`` what is in it is forgotten.

        Raises:
            OutputError: it is of another request, is damaged, or another run is writing it.
            OSError: it cannot be read or written.
        """
        kind = JournalKind(
            format="autogaze-evaluation-journal",
            version=1,
            work="an evaluation",
            another="another evaluation",
            differs="an evaluation that differs from this one",
            place=str(folder),
        )
        super().__init__(folder / JOURNAL, request, kind=kind, overwrite=overwrite)

    def to_line(self, record: ClipRecord | VideoRecord) -> dict[str, Any]:
        """See :meth:`LineJournal.to_line`."""
        return _plain(record)

    def from_line(self, line: dict[str, Any]) -> ClipRecord | VideoRecord:
        """See :meth:`LineJournal.from_line`."""
        return _record(line)


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
