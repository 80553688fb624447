"""A whole benchmark: the machine, the video, a row for each selector; as JSON and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from autogaze.archive import atomic_path
from autogaze.benching.rows import Footage, Memory, Pass, Row
from autogaze.errors import AutoGazeError
from autogaze.selectors.base import CLIP_FRAMES
from autogaze.summary import Settings, tuples

FORMAT = "autogaze-bench"
FORMAT_VERSION = 1

PartT = TypeVar("PartT", Settings, Pass, Memory, Footage, "Machine")


class BenchFileError(AutoGazeError):
    """A file is not a benchmark that this version reads."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured on."""

    system: str
    """Operating system."""
    processor: str
    """Model of the CPU."""
    cores: int | None
    """CPUs that this process may use; None where the system does not say."""
    torch_threads: int
    """Threads that torch, OpenCV and the selectors without weights work with; a decoder of video has its own."""
    device: str
    """Where learned models ran."""
    accelerator: str | None
    """Model of the accelerator; None without one."""
    native: str = "torch"
    """Whether what ran on the CPU was compiled for it, or why not; see :func:`autogaze.native.library.state`."""
    load_before: float | None
    """Mean number of processes that wanted a CPU, over the minute before; None where the system does not say."""
    load_after: float | None
    """The same over the last minute; the benchmark is part of it."""


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Everything that a benchmark measured."""

    machine: Machine
    """What was measured on."""
    versions: dict[str, str]
    """Version of each package that the figures depend on."""
    video: Footage
    """What was gazed at."""
    repeats: int
    """Timed passes of each row, after one clip to warm up."""
    rows: tuple[Row, ...]
    """A row for each selector; a gaze model is followed by its naive loop."""
    warnings: tuple[str, ...]
    """What was left out, what is wrong with the video, and what makes the figures worth less."""

    @property
    def clip_frames(self) -> int:
        """Frames of each clip whose time was taken: 16, or all that a shorter video has."""
        return min(CLIP_FRAMES, self.video.frames)

    def headline(self) -> str:
        """The video and the machine, in a line for people."""
        video, machine = self.video, self.machine
        name = "a procedural clip" if video.is_procedural else Path(video.name).name or video.name
        threads = f"{machine.torch_threads} {'thread' if machine.torch_threads == 1 else 'threads'}"
        processors = [f"{machine.processor}, {threads}", *([machine.accelerator] if machine.accelerator else [])]
        passes = f"{self.repeats} {'pass' if self.repeats == 1 else 'passes'} each"
        size = f"{video.width_px}×{video.height_px} px, {count_frames(video.frames)}"
        return " · ".join([f"{name}, {size}", *processors, passes])

    def to_json(self) -> dict[str, Any]:
        """The report as plain values; :meth:`from_json` reads it back without loss.

        Each row has its medians and quartiles as ``summary`` beside its samples, for readers that do not use autogaze.
        """
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for values, row in zip(plain["rows"], self.rows, strict=True):
            values["summary"] = _summary(row)
        return {"format": FORMAT, "version": FORMAT_VERSION, **plain}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """The report of a :meth:`to_json` value.

        Raises:
            BenchFileError: it is something else, damaged, or of another version.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise BenchFileError("not a benchmark of autogaze; `autogaze bench` writes one")
        if data.get("version") != FORMAT_VERSION:
            raise BenchFileError(
                f"a benchmark of version {data.get('version')}, this autogaze reads version {FORMAT_VERSION}; "
                "run it again"
            )
        try:
            return cls(
                machine=_part(Machine, data["machine"]),
                versions=dict(data["versions"]),
                video=_part(Footage, data["video"]),
                repeats=int(data["repeats"]),
                rows=tuple(_row(values) for values in data["rows"]),
                warnings=tuple(data["warnings"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BenchFileError(f"the benchmark is damaged: {error!r}; run it again") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON; the file appears whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"
        with atomic_path(path) as temporary:
            # A file name that is not text keeps its bytes as the escapes of JSON.
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def count_frames(number: int) -> str:
    """A number of frames, for people."""
    return f"{number} {'frame' if number == 1 else 'frames'}"


def load_report(path: str | os.PathLike[str]) -> BenchReport:
    """Read what :meth:`BenchReport.save` wrote.

    Raises:
        OSError: there is no such file, or it cannot be read.
        BenchFileError: it is no benchmark, damaged, or of another version.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BenchFileError(f"{path} is not JSON ({error}); `autogaze bench` writes a benchmark") from error
    try:
        return BenchReport.from_json(data)
    except BenchFileError as error:
        raise BenchFileError(f"{path}: {error}") from error


def _summary(row: Row) -> dict[str, Any]:
    return {
        "kept_share": row.kept_share,
        "clip_ms": asdict(row.clip_ms),
        "tile_clip_ms": row.tile_clip_ms,
        "fps": asdict(row.fps),
        "real_time": row.real_time,
        "stage_shares": row.stage_shares(),
        "memory_over_base_mb": None if row.memory is None else row.memory.over_base_mb,
    }


def _part(kind: type[PartT], values: Mapping[str, Any]) -> PartT:
    # What this version knows and the file does not say, such as an option that came later, has its default.
    return kind(**tuples({field.name: values[field.name] for field in fields(kind) if field.name in values}))


def _row(values: Mapping[str, Any]) -> Row:
    parts: dict[str, Any] = {
        "settings": _part(Settings, values["settings"]),
        "passes": tuple(_part(Pass, one) for one in values["passes"]),
        "memory": None if values["memory"] is None else _part(Memory, values["memory"]),
    }
    return Row(**{field.name: values[field.name] for field in fields(Row) if field.name not in parts}, **parts)
