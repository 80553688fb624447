"""The clip of a video that its label is of: consecutive frames, each squeezed whole into the square of the model."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from autogaze.errors import VideoError
from autogaze.selectors.cells import Pixels
from autogaze.video import open_video

# Shape letters: T frames, S pixels a side of a frame.


def read_label_clip(video: str | os.PathLike[str], *, start: int = 0, frames: int = 16, side_px: int = 224) -> Pixels:
    """(T, S, S, 3) the frames ``start`` to ``start + frames - 1`` of a video (bilinear, antialiased, by Pillow).

    Raises:
        VideoError: the video cannot be read, or ends before.
    """
    clip, count = _frames_from(video, start, frames=frames, side_px=side_px)
    if clip is None:
        raise _too_short(video, count, frames=start + frames)
    return clip


def read_clip_anywhere(
    video: str | os.PathLike[str], *, place: float, frames: int = 16, side_px: int = 224
) -> tuple[Pixels, int]:
    """A clip that starts at a place between the first (0) and the last (1, exclusive) at which one can start.

    Returns:
        The clip, as :func:`read_label_clip` reads it, and the number of its first frame.

    Raises:
        VideoError: the video cannot be read, or is shorter than a clip.
    """
    with open_video(video) as reader:
        promised = reader.expected_frames
    count = promised if promised is not None else _frames_from(video, None, frames=frames, side_px=side_px)[1]
    # A video may have fewer frames than it promises; then where it really ended decides.
    for _ in range(2):
        start = int(place * max(1, count - frames + 1))
        clip, counted = _frames_from(video, start, frames=frames, side_px=side_px)
        if clip is not None:
            return clip, start
        count = counted
    raise _too_short(video, count, frames=frames)


def _frames_from(
    video: str | os.PathLike[str], start: int | None, *, frames: int, side_px: int
) -> tuple[Pixels | None, int]:
    """A clip, or None if it is not all there or none is wanted, and how many frames were read."""
    kept: list[Pixels] = []
    count = 0
    with open_video(video, window_frames=frames) as reader:
        for window in reader:
            for rgb, number in zip(window.rgb, window.number.tolist(), strict=True):
                count = number + 1
                if start is not None and number >= start:
                    small = Image.fromarray(rgb).resize((side_px, side_px), Image.Resampling.BILINEAR)
                    kept.append(np.asarray(small))
                if len(kept) == frames:
                    return np.stack(kept), count
    return None, count


def _too_short(video: str | os.PathLike[str], count: int, *, frames: int) -> VideoError:
    return VideoError(f"{os.fspath(video)} has {count} frames, too few for a clip of {frames}")
