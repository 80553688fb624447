"""Decoded videos and images, of which clips are cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from autogaze.datasets.label_clip import read_label_clip
from autogaze.errors import VideoError
from autogaze.selectors.cells import Pixels, resize
from autogaze.video import open_video
from autogaze.video_sources import IMAGE_SUFFIXES

# Shape letters: T frames, H × W pixels of a frame.

SHORTER_SIDE_PX = 320
"""Larger videos are kept no larger than this, so that many fit into memory."""
MAX_FRAMES = 1200
"""Only the first frames of a longer video are used; cut long videos into pieces to use all of them."""
WINDOW_FRAMES = 32
# What Pillow raises on broken images.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


@dataclass(frozen=True, kw_only=True, eq=False)
class Footage:
    """A decoded source."""

    rgb: Pixels
    """(T, H, W, 3)."""
    fps: float
    """Frames a second; 1 where it does not matter."""


class Reading(Protocol):
    """A source and how it is decoded: hashable, and its ``repr`` says everything that decides the footage."""

    @property
    def path(self) -> Path:
        """Video or image."""
        ...

    def read(self) -> Footage:
        """Decode it.

        Raises:
            VideoError: it cannot be read.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class WholeSource:
    """All that clips are cut of."""

    path: Path
    """Video or image."""
    shorter_side_px: int = SHORTER_SIDE_PX
    """Larger videos are brought down to it; images stay as they are."""
    max_frames: int = MAX_FRAMES
    """Most frames."""

    def read(self) -> Footage:
        """The first frames of a video, or an image as its only frame.

        Raises:
            VideoError: it cannot be read.
        """
        return read_image(self.path) if is_image(self.path) else self._read_video()

    def _read_video(self) -> Footage:
        parts, count = [], 0
        with open_video(self.path, window_frames=WINDOW_FRAMES) as reader:
            shrink = max(1.0, min(reader.height_px, reader.width_px) / self.shorter_side_px)
            height_px, width_px = round(reader.height_px / shrink), round(reader.width_px / shrink)
            for frames in reader:
                parts.append(resize(frames.rgb, height_px, width_px))
                count += len(frames)
                if count >= self.max_frames:
                    break
            if not parts:
                raise VideoError(f"{self.path} has no frame that can be decoded; check it with a video player")
            return Footage(rgb=np.concatenate(parts)[: self.max_frames], fps=reader.fps)


@dataclass(frozen=True, kw_only=True)
class ExactFrames:
    """The frames of a video that a label is of, see :func:`~autogaze.datasets.label_clip.read_label_clip`."""

    path: Path
    """The video."""
    start: int
    """Number of the first frame."""
    frames: int
    """T."""
    side_px: int
    """H and W."""

    def read(self) -> Footage:
        """Exactly these frames.

        Raises:
            VideoError: it cannot be read, or ends before the last of them.
        """
        clip = read_label_clip(self.path, start=self.start, frames=self.frames, side_px=self.side_px)
        return Footage(rgb=clip, fps=1.0)


def read_image(path: Path) -> Footage:
    """An image as a video of one frame.

    Raises:
        VideoError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return Footage(rgb=np.asarray(image.convert("RGB"))[None], fps=1.0)
    except _DAMAGE as error:
        raise VideoError(f"{path} cannot be read as an image: {error}") from error


def is_image(path: Path) -> bool:
    """Whether a name is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES
