"""A source with its gazes, wherever these come from: made on the way, read from a file, or given."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from autogaze.errors import GazeFileError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.loading import check_device
from autogaze.pipeline import GazeStream, OnProgress, Options, Recipe, make_recipe
from autogaze.replay import GazeReplay
from autogaze.summary import DATA, SUMMARY, Summary, SummaryFileError, fingerprint
from autogaze.video import VideoReader, VideoSource

GazeSource: TypeAlias = "Gaze | str | os.PathLike[str]"
"""A gaze; a file that holds one; or a folder of such files, each named as ``autogaze gaze`` names it."""
Origin: TypeAlias = Gaze | Path | Recipe
"""Where the gaze of one source comes from: it is given, read from a file, or made."""


class Gazed(Protocol):
    """A source on its way, with gazes: a :class:`GazeStream` or a :class:`GazeReplay`."""

    reader: VideoReader
    layout: FrameLayout
    gaze_seconds: float

    @property
    def fps(self) -> float:
        """Mean rate of the gazed frames."""
        ...

    @property
    def seconds(self) -> float:
        """Since the source was opened."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[tuple[Frames, Gaze]]: ...


def open_gazed(source: VideoSource, origin: Origin, *, on_progress: OnProgress | None = None) -> Gazed:
    """A source on its way with its gazes.

    Raises:
        GazeFileError: there is no such file, or it is damaged.
        GazeMismatchError: the gaze is of another video.
        AutoGazeError: as :func:`~autogaze.pipeline.gaze`.
    """
    match origin:
        case Recipe():
            return GazeStream(source, recipe=origin, on_progress=on_progress)
        case Gaze():
            return GazeReplay(source, gaze=origin, on_progress=on_progress)
    try:
        gaze = Gaze.load(origin)
    except FileNotFoundError as error:
        named = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "array"
        raise GazeFileError(
            f"there is no gaze {origin}; `autogaze gaze {named} --out {origin.parent}` makes it"
        ) from error
    return GazeReplay(source, gaze=gaze, gaze_name=str(origin), on_progress=on_progress)


def check_gaze(gaze: GazeSource | None) -> None:
    """Refuse a file or folder that is not there.

    Raises:
        GazeFileError: it is not there.
    """
    if isinstance(gaze, (str, os.PathLike)) and not Path(gaze).exists():
        raise GazeFileError(f"there is no gaze file or folder {os.fspath(gaze)}; `autogaze gaze` writes them")


def made_or_given(gaze: GazeSource | None, options: Options) -> GazeSource | Recipe:
    """The gazes that are given, or, if none are, the recipe that makes them.

    Raises:
        GazeFileError: a file or folder is not there.
        ValueError: there are options beside a gaze other than ``device``, or the device is not legal.
        AutoGazeError: the options are not legal; see :func:`~autogaze.pipeline.make_recipe`.
    """
    check_gaze(gaze)
    unused = [name for name in options if name != "device"]
    if gaze is not None and unused:
        raise ValueError(f"with a gaze nothing is left to choose, got also {', '.join(unused)}; leave one out")
    device = options.get("device")
    if device is not None:
        check_device(device)
    return make_recipe(**options) if gaze is None else gaze


def is_folder(gaze: GazeSource | Recipe) -> bool:
    """Whether these are the gazes of many sources."""
    return isinstance(gaze, (str, os.PathLike)) and Path(gaze).is_dir()


def gaze_of(name: str, gaze: GazeSource | Recipe) -> Origin:
    """Where the gaze of the source whose files are called ``name`` comes from."""
    if not isinstance(gaze, (str, os.PathLike)):
        return gaze
    return Path(gaze) / f"{name}{DATA}" if is_folder(gaze) else Path(gaze)


def identity_of(origin: Origin) -> tuple[str | None, str | None]:
    """(file, fingerprint) that tell a gaze from others; None where a selector makes it."""
    if isinstance(origin, Path):
        return str(origin), fingerprint(origin)
    # Nothing tells two objects apart, so a result of one never counts as a result of another.
    return None, f"an object, {secrets.token_hex(8)}" if isinstance(origin, Gaze) else None


def doubts(origin: Origin, source_fingerprint: str | None) -> tuple[str, ...]:
    """What speaks against a gaze being of this source: the summary beside it is of a file of another size."""
    if not isinstance(origin, Path) or source_fingerprint is None:
        return ()
    try:
        gazed = Summary.load(origin.with_suffix(SUMMARY))
    except (OSError, SummaryFileError):
        return ()
    # When a file was changed says nothing: a copy has another time.
    was, now = (told.partition(", changed ")[0] for told in (gazed.source_fingerprint or "", source_fingerprint))
    if was in ("", now):
        return ()
    return (f"{origin} was made of {gazed.source} ({was}), this source has {now}; is it the same video?",)
