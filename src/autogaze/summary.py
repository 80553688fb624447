"""What was done to one source and what came out of it: the ``.json`` beside every result."""

from __future__ import annotations

import json
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from autogaze import __version__
from autogaze.archive import atomic_path
from autogaze.errors import AutoGazeError
from autogaze.gaze import Gaze

FORMAT = "autogaze-summary"
REBUILT_FORMAT = "autogaze-reconstruction"
FEATURES_FORMAT = "autogaze-features"
FORMAT_VERSION = 1
DATA, SUMMARY, OVERLAY, SHEET = ".gaze", ".json", ".overlay.mp4", ".sheet.png"
"""Endings of the files of a gaze."""
REBUILT, SIDE_BY_SIDE, REBUILT_SUMMARY = ".reconstruction.mp4", ".side-by-side.mp4", ".reconstruction.json"
"""Endings of the files of a reconstruction."""
FEATURES_SAFETENSORS, FEATURES_PARQUET, FEATURES_SUMMARY = (
    ".features.safetensors",
    ".features.parquet",
    ".features.json",
)
"""Endings of the files of features, of which one of the first two is there."""
_RESULTS = (
    ((DATA, SUMMARY, OVERLAY, SHEET), SUMMARY, FORMAT),
    ((REBUILT, SIDE_BY_SIDE, REBUILT_SUMMARY), REBUILT_SUMMARY, REBUILT_FORMAT),
    ((FEATURES_SAFETENSORS, FEATURES_PARQUET, FEATURES_SUMMARY), FEATURES_SUMMARY, FEATURES_FORMAT),
)


class SummaryFileError(AutoGazeError):
    """A JSON file is not a summary that this version reads."""


class ForeignFileError(SummaryFileError):
    """A file was not written by autogaze at all."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides which patches are kept: two runs with equal settings give equal gazes."""

    model: str
    """Selector name, path or hub id, as it was asked for."""
    model_fingerprint: str | None = None
    """Size and time of change of a checkpoint on this disk; None for what has no file."""
    ratio: float | tuple[float, ...] | None = None
    """See :class:`~autogaze.selectors.base.Budget`."""
    threshold: float | None = None
    """See :class:`~autogaze.selectors.base.Budget`."""
    psnr_db: float | None = None
    """See :class:`~autogaze.selectors.base.Budget`."""
    per: Literal["frame", "clip"] = "frame"
    """See :class:`~autogaze.selectors.base.Budget`."""
    stride: int | None = None
    """See :class:`~autogaze.sampling.Sampling`."""
    fps: float | None = None
    """See :class:`~autogaze.sampling.Sampling`."""
    frames: int | None = None
    """Frames spread evenly over the video; None where another rule samples."""
    mode: Literal["tiles", "resize"] = "tiles"
    """Whether tiles cover the frame pixel for pixel, or one tile is stretched over it."""
    cascade: float | None = None
    """What opens a tile, see :class:`~autogaze.selectors.cascade.Cascade`; None: all are open."""
    motion: Literal["none", "global"] = "none"
    """Whether the canvas moves with the camera, see :class:`~autogaze.selectors.replenish.Replenish`."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of a gaze model's weights and activations; fp32 for what has none."""


@dataclass(frozen=True, kw_only=True)
class StageSeconds:
    """Wall-clock seconds of each stage of one source."""

    decode: float
    """Reading and converting frames."""
    gaze: float
    """Choosing patches."""
    write: float
    """Drawing and writing the files."""
    total: float
    """From opening the source to the last file."""


@dataclass(frozen=True, kw_only=True)
class ResultSummary(ABC):
    """What the summary of every result says: which source it is of, and what was kept of it."""

    FORMAT: ClassVar[str]
    KIND: ClassVar[str]

    source: str
    """The source as it was named."""
    source_fingerprint: str | None
    """Size and time of change of a source on this disk; None for cameras, addresses and arrays."""
    name: str
    """What the files are called before their endings."""
    files: tuple[str, ...]
    """Names of all files of this result, in the folder of the summary."""
    frames: int
    """Frames that were gazed at."""
    height_px: int
    """Height of a frame."""
    width_px: int
    """Width of a frame."""
    fps: float
    """Mean rate of the frames that were gazed at."""
    first_seconds: float | None
    """When the first frame is shown."""
    last_seconds: float | None
    """When the last frame is shown."""
    patches_total: int
    """Patches there were to choose from, over all frames."""
    patches_kept: int
    """Patches that were chosen."""
    kept_share: float
    """``patches_kept / patches_total``."""
    kept_per_frame: tuple[int, ...]
    """Patches chosen in each frame."""
    scales_px: tuple[int, ...]
    """Scales of the patch grid: sides of the (tile's) frame in pixels."""
    patch_px: int
    """Side of a patch in pixels of its scale."""
    tile_rows: int
    """Tiles from top to bottom."""
    tile_columns: int
    """Tiles from left to right."""
    warnings: tuple[str, ...]
    """What was wrong with the source without stopping the work."""
    versions: dict[str, str]
    """Version of each package the result depends on."""
    complete: bool = True
    """Always true: a summary is written last, when every other file is in place."""

    @property
    @abstractmethod
    def total_seconds(self) -> float:
        """Seconds from opening the source to the last file."""

    def headline(self) -> str:
        """What came out, in a few words for people."""
        return (
            f"{self.frames} {'frame' if self.frames == 1 else 'frames'}, "
            f"{self.patches_kept:,} of {self.patches_total:,} patches kept ({self.kept_share:.1%})"
        )

    @classmethod
    def _of_gaze(cls, gaze: Gaze, **others: Any) -> Self:
        """The summary of a gaze; ``others`` are the values that the gaze does not tell."""
        times = gaze.time_seconds
        return cls(
            frames=gaze.num_frames,
            height_px=gaze.layout.height_px,
            width_px=gaze.layout.width_px,
            first_seconds=float(times[0]) if times is not None and len(times) else None,
            last_seconds=float(times[-1]) if times is not None and len(times) else None,
            patches_total=gaze.num_patches,
            patches_kept=gaze.num_gazes,
            kept_share=gaze.ratio,
            kept_per_frame=tuple(gaze.count.tolist()),
            scales_px=gaze.layout.grid.scales_px,
            patch_px=gaze.layout.grid.patch_px,
            tile_rows=gaze.layout.tile_rows,
            tile_columns=gaze.layout.tile_columns,
            versions=versions(),
            **others,
        )

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values; :meth:`from_json` reads it back without loss."""
        # Through text, so that tuples become the lists that every reader of the file sees.
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"format": self.FORMAT, "version": FORMAT_VERSION, **plain}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """The summary of a :meth:`to_json` value.

        Raises:
            ForeignFileError: it is something else.
            SummaryFileError: it is damaged, or comes from another version.
        """
        if not isinstance(data, dict) or data.get("format") != cls.FORMAT:
            raise ForeignFileError(f"not a {cls.KIND} of autogaze")
        if data.get("version") != FORMAT_VERSION:
            raise SummaryFileError(
                f"{cls.KIND} version {data.get('version')}, this autogaze reads version {FORMAT_VERSION}"
            )
        try:
            return cls(**tuples(cls._revived({field.name: data[field.name] for field in fields(cls)})))
        except (KeyError, TypeError, AttributeError) as error:
            raise SummaryFileError(f"the {cls.KIND} is damaged: {error!r}") from error

    @classmethod
    @abstractmethod
    def _revived(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Plain values with the objects that some of them stand for."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the summary as JSON; the file appears whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        with atomic_path(path) as temporary:
            text = json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"
            # A file name that is not text keeps its bytes as the escapes of JSON.
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ForeignFileError: it was not written by autogaze.
            SummaryFileError: it is damaged, or comes from another version.
        """
        text = Path(path).read_bytes()
        try:
            return cls.from_json(json.loads(text))
        except SummaryFileError as error:
            raise type(error)(f"{path}: {error}") from error
        except ValueError as error:  # neither JSON nor text
            raise ForeignFileError(f"{path}: not a {cls.KIND} of autogaze") from error


@dataclass(frozen=True, kw_only=True)
class Summary(ResultSummary):
    """One source, how it was gazed at, and what was kept."""

    FORMAT: ClassVar[str] = FORMAT
    KIND: ClassVar[str] = "summary"

    settings: Settings
    """What was asked for."""
    seconds: StageSeconds
    """Where the time went."""

    @property
    def total_seconds(self) -> float:
        """Seconds from opening the source to the last file."""
        return self.seconds.total

    @classmethod
    def of(
        cls,
        gaze: Gaze,
        *,
        source: str,
        source_fingerprint: str | None,
        name: str,
        files: tuple[str, ...],
        fps: float,
        settings: Settings,
        seconds: StageSeconds,
        warnings: tuple[str, ...] = (),
    ) -> Summary:
        """The summary of a gaze."""
        return cls._of_gaze(
            gaze,
            source=source,
            source_fingerprint=source_fingerprint,
            name=name,
            files=files,
            fps=fps,
            settings=settings,
            seconds=seconds,
            warnings=warnings,
        )

    @classmethod
    def _revived(cls, values: dict[str, Any]) -> dict[str, Any]:
        settings, seconds = Settings(**tuples(values["settings"])), StageSeconds(**values["seconds"])
        return {**values, "settings": settings, "seconds": seconds}


def versions() -> dict[str, str]:
    """Version of autogaze, of Python, and of the packages whose version can change a result."""
    packages = ("torch", "numpy", "av", "pillow")
    return {
        "autogaze": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
    }


def is_result(file: str | os.PathLike[str]) -> bool:
    """Whether a file belongs to a result: it has the ending of one, and the summary of autogaze beside it."""
    path = Path(file)
    return any(
        path.name.endswith(ending) and _has_format(path.with_name(path.name.removesuffix(ending) + summary), written)
        for endings, summary, written in _RESULTS
        for ending in endings
    )


def _has_format(summary: Path, written: str) -> bool:
    try:
        with summary.open("rb") as file:
            return f'"format": "{written}"'.encode() in file.read(100)
    except OSError:
        return False


def fingerprint(path: str | os.PathLike[str], *, beside: Sequence[str] = ()) -> str | None:
    """Size and time of change of a file, or of all files of a folder together; None if there is no such path.

    Files of the names ``beside`` count as parts of a file that they lie next to. Results in a folder do not count:
    writing them does not change a source.
    """
    path = Path(path)
    try:
        files = (
            [path, *(other for name in beside if (other := path.with_name(name)).is_file())]
            if path.is_file()
            else sorted(entry for entry in path.iterdir() if entry.is_file() and not is_result(entry))
        )
        stats = [file.stat() for file in files]
    except (OSError, ValueError):  # ValueError: a null character
        return None
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    return f"{len(stats)} files, {sum(stat.st_size for stat in stats)} bytes, changed {newest}"


def tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Values with the tuples that JSON wrote as lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
