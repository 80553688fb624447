"""Read any video as windows of frames, in memory that does not grow with its length."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from autogaze.errors import VideoError
from autogaze.frames import Frames
from autogaze.sampling import Sampling, pick
from autogaze.video_container import open_camera, open_file
from autogaze.video_images import open_array, open_image, open_images, open_pil, open_tensor
from autogaze.video_pixels import MAX_SIDE_PX, MOTION_VECTOR_DTYPE
from autogaze.video_sources import (
    CAMERA,
    IMAGE_SUFFIXES,
    Source,
    SourceFrame,
    check_named,
    find_sources,
    has_wildcard,
    images_of,
    name_of,
    unreachable,
)

__all__ = ["MAX_SIDE_PX", "MOTION_VECTOR_DTYPE", "VideoReader", "VideoSource", "find_sources", "open_video"]

VideoSource = str | os.PathLike[str] | NDArray[Any] | torch.Tensor | Sequence[Any]
"""What :func:`open_video` takes: a path, pattern, address or camera; an array; a tensor; a list of PIL images."""

EVERY_FRAME = Sampling()


class VideoReader(Iterator[Frames]):
    """Windows of the sampled frames of one video, read forward once. Close it, or use it in a ``with`` block."""

    def __init__(
        self, source: Source, *, sampling: Sampling, window_frames: int, motion_vectors: bool, pinned: bool = False
    ) -> None:
        """Read ``source``; :func:`open_video` is the usual way to get here."""
        self.name = source.name
        """Short name for result files."""
        self.height_px = source.height_px
        """Height of the upright frames."""
        self.width_px = source.width_px
        """Width of the upright frames."""
        self.warnings = source.warnings
        """What was wrong with the video so far; grows while it is read."""
        self.decode_seconds = 0.0
        """Time spent opening, decoding and converting so far."""
        num_frames = source.count_frames() if sampling.count is not None else source.num_frames
        self.fps = sampling.kept_fps(source.fps, num_frames=num_frames)
        """Mean rate of the frames this yields."""
        self.expected_frames = None if num_frames is None else sampling.num_kept(num_frames, source_fps=source.fps)
        """How many frames this will yield, as far as the source says; None if it does not."""
        self._source = source
        self._window_frames = window_frames
        self._motion_vectors = motion_vectors
        self._pinned = pinned
        self._frames = pick(
            source.frames(), sampling=sampling, num_frames=num_frames, tolerance_seconds=source.rounding_seconds
        )

    def __next__(self) -> Frames:
        """The next ``window_frames`` frames, fewer at the end.

        Raises:
            VideoError: an image does not have the size of the first.
        """
        started_seconds = time.perf_counter()
        try:
            window = self._window()
        finally:
            self.decode_seconds += time.perf_counter() - started_seconds
        if window is None:
            self.close()
            raise StopIteration
        return window

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        frames = "frames" if self.expected_frames is None else f"{self.expected_frames} frames"
        return f"VideoReader({self.name}: {frames} of {self.width_px}×{self.height_px} px, {self.fps:.2f} a second)"

    def close(self) -> None:
        """Let go of the file, connection or device; nothing more can be read."""
        self._frames = iter(())
        self._source.close()

    def _window(self) -> Frames | None:
        first = next(self._frames, None)
        if first is None:
            return None
        T = self._window_frames
        rgb = self._room(T)
        time_seconds, number = np.empty(T), np.empty(T, np.int64)
        motion_vectors: list[NDArray[np.void]] = []
        frame: SourceFrame | None = first
        filled = 0
        while frame is not None:
            rgb[filled] = frame.rgb()
            time_seconds[filled], number[filled] = frame.time_seconds, frame.number
            if frame.motion_vectors is not None:
                motion_vectors.append(frame.motion_vectors())
            filled += 1
            frame = next(self._frames, None) if filled < T else None
        if rgb.flags.owndata:
            rgb.resize((filled, *rgb.shape[1:]), refcheck=False)  # gives the rest of a last window back, without a copy
        return Frames(
            rgb=rgb[:filled],
            time_seconds=time_seconds[:filled],
            number=number[:filled],
            motion_vectors=tuple(motion_vectors) if self._motion_vectors else None,
        )

    def _room(self, frames: int) -> NDArray[np.uint8]:
        shape = (frames, self.height_px, self.width_px, 3)
        if self._pinned:
            try:
                return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
            except RuntimeError:  # no more of it is to be had: a device reads other memory too, only slower
                self._pinned = False
        return np.empty(shape, np.uint8)


def open_video(
    source: VideoSource,
    *,
    sampling: Sampling = EVERY_FRAME,
    window_frames: int = 16,
    motion_vectors: bool = False,
    pinned: bool = False,
) -> VideoReader:
    """Open anything that holds frames, ready to be read in windows of ``window_frames``.

    ``source`` is a video file or address, a folder or pattern of images, one image (also animated), ``camera:0``, a
    (T, H, W[, 3 or 4]) uint8 array, a (T, 3, H, W) or (T, H, W, 3) tensor of uint8 or of floats from 0 to 1, or a
    list of PIL images. Frames come out upright, in 8-bit RGB, transparency over black. ``motion_vectors`` asks for
    those between each frame and its neighbours in the file (``MOTION_VECTOR_DTYPE``), also where sampling leaves
    frames out. ``pinned`` puts frames into memory that a CUDA device reads at full speed, as long as there is
    such memory.

    Raises:
        VideoError: the source is missing, holds no frames, has no motion vectors, or nothing can be decoded.
        ValueError: an array, tensor or list is not of a legal form, or ``window_frames`` is below 1.
        TypeError: the source is none of these things.
    """
    if window_frames < 1:
        raise ValueError(f"window_frames must be at least 1, got {window_frames}")
    started_seconds = time.perf_counter()
    opened = _open(source, motion_vectors=motion_vectors)
    try:
        reader = VideoReader(
            opened, sampling=sampling, window_frames=window_frames, motion_vectors=motion_vectors, pinned=pinned
        )
    except BaseException:
        opened.close()
        raise
    reader.decode_seconds = time.perf_counter() - started_seconds
    return reader


def _open(source: VideoSource, *, motion_vectors: bool) -> Source:
    if isinstance(source, str | os.PathLike):
        named = os.fspath(source)
        check_named(named)
        try:
            return _open_named(named, motion_vectors=motion_vectors)
        except OSError as error:
            raise VideoError(unreachable(named, error)) from error
    if motion_vectors:
        raise VideoError("motion vectors are part of coded video; an array, tensor or list of images has none")
    if isinstance(source, np.ndarray):
        return open_array(source)
    if isinstance(source, torch.Tensor):
        return open_tensor(source)
    if isinstance(source, Sequence):
        return open_pil(source)
    raise TypeError(
        f"a video must be a path, a (T, H, W, 3) array, a (T, 3, H, W) tensor or a list of PIL images, "
        f"got {type(source).__name__}"
    )


def _open_named(source: str, *, motion_vectors: bool) -> Source:
    if source.startswith(CAMERA):
        return open_camera(source, motion_vectors=motion_vectors)
    path = Path(source)
    images: Source | None = None
    if path.is_dir() or has_wildcard(source):
        images = open_images(images_of(source), name=name_of(source), what=source)
    elif path.suffix.lower() in IMAGE_SUFFIXES and path.exists():
        images = open_image(path)
    if images is None:
        return open_file(source, motion_vectors=motion_vectors)
    if motion_vectors:
        images.close()
        raise VideoError(f"{source} is made of images, which have no motion vectors; give a coded video")
    return images
