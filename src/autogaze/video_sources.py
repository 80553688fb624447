"""Where frames come from: what a source offers, and how a source is found by its name."""

from __future__ import annotations

import glob
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from autogaze.errors import AutoGazeWarning, VideoError
from autogaze.summary import is_result

ASSUMED_FPS = 30.0
"""Frames a second of sources that do not say: folders of images, arrays, tensors, lists."""

CAMERA = "camera:"
"""What the name of a webcam starts with, as in ``camera:0``."""

IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm"])
LONGEST_SHOWN = 200
"""Letters of a name that an error repeats."""
# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob", ".flv",
    ".wmv", ".3gp", ".ogv", ".y4m", ".h264", ".h265",
})
# fmt: on


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceFrame:
    """One frame on its way out of a source; its pixels are made when asked for."""

    number: int
    """Position among all frames of the source."""
    time_seconds: float
    """When it is first shown, from the start of the video."""
    duration_seconds: float
    """How long it is shown if nothing follows."""
    rgb: Callable[[], NDArray[np.uint8]]
    """Makes the (height_px, width_px, 3) colours; valid until the next frame is taken or kept."""
    motion_vectors: Callable[[], NDArray[np.void]] | None = None
    """Makes the (V,) motion vectors, if the source was opened for them."""


class Source(Protocol):
    """An opened source of frames of one size; reads forward once."""

    name: str
    """Short name that is safe in a file name."""
    height_px: int
    """Height of the upright frames."""
    width_px: int
    """Width of the upright frames."""
    fps: float
    """Mean frames a second."""
    rounding_seconds: float
    """How far times may be rounded by the file format."""
    warnings: list[str]
    """What was wrong so far and could be read all the same."""

    @property
    def num_frames(self) -> int | None:
        """How many frames to expect; None if nothing says so, as for a camera."""
        ...

    def frames(self) -> Iterator[SourceFrame]:
        """All frames in the order they are shown.

        Raises:
            VideoError: a frame does not belong to the rest.
        """
        ...

    def count_frames(self) -> int:
        """How many frames there are, counted if need be.

        Raises:
            VideoError: there is no end to them.
        """
        ...

    def close(self) -> None:
        """Let go of files and devices."""
        ...


def is_url(source: str) -> bool:
    """Whether a source is named by a protocol (two letters at least, so that ``C:`` is a drive) and not a file."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", source) is not None and not Path(source).exists()


def has_wildcard(source: str) -> bool:
    """Whether a source is a pattern of file names and not a file that happens to look like one."""
    return glob.has_magic(source) and not is_url(source) and not Path(source).exists()


def name_of(source: str) -> str:
    """A short name for the results of a source: the stem of a file, folder, pattern or address."""
    if source.startswith(CAMERA):
        return re.sub(r"[^\w.-]+", "_", source.replace(":", ""))
    if is_url(source):
        parts = urlsplit(source)
        return re.sub(r"[^\w.-]+", "_", Path(unquote(parts.path)).stem or parts.netloc).strip("_") or "video"
    path = Path(source)
    if has_wildcard(source):
        return next((part for part in reversed(path.parent.parts) if not glob.has_magic(part)), "images")
    return (path.resolve().name if path.is_dir() else path.stem) or "video"


def natural_key(path: str) -> list[tuple[int, str]]:
    """Sorts ``frame2`` before ``frame10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", path)]


def images_of(source: str) -> list[Path]:
    """The images a folder or a pattern stands for, in natural order.

    Raises:
        VideoError: there is none, or the folder holds videos instead.
    """
    if has_wildcard(source):
        files = _matches(source)
        if not files:
            raise VideoError(
                f"nothing matches {source}; check the folder and the pattern (results of autogaze do not count)"
            )
        where = f"what {source} matches"
    else:
        files = _inside(source)
        where = f"folder {source}"
    images = [Path(file) for file in files if _suffix(file) in IMAGE_SUFFIXES]
    videos = [file for file in files if _suffix(file) in VIDEO_SUFFIXES]
    if videos:
        raise VideoError(
            f"{where} holds {len(videos)} videos, which are not one source; "
            f"give one of them, as {videos[0]}, or list them with find_sources"
        )
    if not images:
        raise VideoError(
            f"{where} holds no video and no image ({', '.join(sorted(IMAGE_SUFFIXES))}); "
            "results of autogaze do not count"
        )
    return images


def find_sources(patterns: Sequence[str]) -> list[str]:
    """Expand what a user named into sources, each once, in the order named.

    A folder gives each video in it, or itself as one source if it holds images alone; folders inside it are
    searched only by a pattern with ``**``. A pattern gives each video it matches, or itself as one source if it
    matches images alone. Files, addresses and cameras stand as they are; so does what leads nowhere, for
    :func:`~autogaze.video.open_video` to report, unless nothing at all leads anywhere. What autogaze wrote itself is
    passed over in folders and patterns, see :func:`~autogaze.summary.is_result`.

    Raises:
        VideoError: nothing was found.
        TypeError: one source was given, not a list of them.
    """
    if isinstance(patterns, (str, os.PathLike)):
        raise TypeError(f"find_sources takes a list of sources, got one: use [{patterns!r}]")
    found: dict[str, None] = {}
    problems: list[str] = []
    for pattern in map(str, patterns):
        try:
            found.update(dict.fromkeys(_expand(pattern)))
        except (VideoError, OSError) as error:
            found[pattern] = None
            problems.append(str(error) if isinstance(error, VideoError) else unreachable(pattern, error))
    if len(problems) == len(patterns):
        raise VideoError(problems[0] if problems else "no source was named; give a file, folder, pattern or address")
    return list(found)


def is_special(path: Path) -> bool:
    """Whether what a search found is a pipe, socket or device, for whose frames one might wait without end.

    A warning tells of one that is called like a video or an image.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # whoever reads it will say so
        return False
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return False
    if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        message = f"{path} is a pipe, socket or device and no file, and passed over; put its content into a file"
        warnings.warn(message, AutoGazeWarning, stacklevel=2)
    return True


def unreachable(source: str, error: OSError) -> str:
    """What to say of a source that the system does not let anyone look for, as for a name that is too long."""
    named = source if len(source) <= LONGEST_SHOWN else f"{source[:LONGEST_SHOWN]}…"
    return f"{named} cannot be reached: {error.strerror or error}; check the path"


def check_named(source: str) -> None:
    """Refuse no name at all, which the system would take for the current folder.

    Raises:
        VideoError: the name is empty.
    """
    if not source:
        raise VideoError('a source has an empty name; give a file, folder, pattern or address ("." is this folder)')


def _expand(pattern: str) -> list[str]:
    check_named(pattern)
    if pattern.startswith(CAMERA) or is_url(pattern):
        return [pattern]
    if has_wildcard(pattern):
        files = _matches(pattern)
        sources = [file for file in files if _suffix(file) in VIDEO_SUFFIXES]
        if "**" not in pattern:
            for folder in files:
                if Path(folder).is_dir():
                    sources += _expand(folder)
        if not sources:
            images_of(pattern)
            return [pattern]
        return sources
    if Path(pattern).is_dir():
        videos = [file for file in _inside(pattern) if _suffix(file) in VIDEO_SUFFIXES]
        if not videos:
            images_of(pattern)
            return [pattern]
        return videos
    if not Path(pattern).exists():
        raise VideoError(f"there is no file or folder {pattern}")
    return [pattern]


def _matches(pattern: str) -> list[str]:
    files = glob.glob(pattern, recursive=True)  # noqa: PTH207 - pathlib refuses absolute patterns
    return sorted((file for file in files if not is_result(file) and not is_special(Path(file))), key=natural_key)


def _inside(folder: str) -> list[str]:
    files = (
        file
        for file in Path(folder).iterdir()
        if not file.name.startswith(".") and not is_result(file) and not is_special(file)
    )
    return sorted(map(str, files), key=natural_key)


def _suffix(file: str) -> str:
    return "" if Path(file).is_dir() else Path(file).suffix.lower()
