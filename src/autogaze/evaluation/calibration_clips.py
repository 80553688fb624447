"""Clips to calibrate on: a few windows of each video, as a gaze model sees them, drawn by a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autogaze.errors import AutoGazeError, VideoError
from autogaze.evaluation.conformal import CalibrationError
from autogaze.frames import Frames
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.tiling import split
from autogaze.video import open_video

MAX_WINDOWS = 128
"""Only so many windows from the start of a video are drawn from, so that a film does not have to be decoded whole."""

Mode = Literal["tiles", "resize"]
"""A clip is one tile cut from its video, pixel for pixel, or the whole frames brought to one tile."""

OnError = Callable[[str, Exception], None]
"""Told of each video that cannot be used."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipSet:
    """Clips of at most one tile, ready to be gazed at any number of times.

    Raises:
        CalibrationError: there is none.
    """

    clips: tuple[Frames, ...]
    """Each (T, H, W, 3) with H and W at most a tile's side."""
    mode: Mode
    """What was made of the videos."""
    seed: int
    """Seed of the draws."""

    def __post_init__(self) -> None:
        if not self.clips:
            raise CalibrationError("there is no clip to calibrate on; give videos that can be decoded")

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def num_frames(self) -> int:
        """Frames of all clips."""
        return sum(len(clip) for clip in self.clips)

    def sha256(self) -> str:
        """SHA-256 of all pixels, clip after clip."""
        digest = hashlib.sha256()
        for clip in self.clips:
            digest.update(repr(clip.rgb.shape).encode())
            digest.update(np.ascontiguousarray(clip.rgb).data)
        return digest.hexdigest()

    def layout(self, clip: Frames, grid: PatchGrid) -> FrameLayout:
        """How the grid's one tile lies on a clip."""
        make = FrameLayout.resized if self.mode == "resize" else FrameLayout.tiled
        return make(grid, height_px=clip.height_px, width_px=clip.width_px)


def read_clips(
    videos: Sequence[str],
    *,
    grid: PatchGrid,
    clip_frames: int = 16,
    clips_per_video: int = 1,
    max_clips: int | None = None,
    mode: Mode = "resize",
    seed: int = 0,
    on_error: OnError | None = None,
) -> ClipSet:
    """Windows of consecutive frames, drawn evenly among the first :data:`MAX_WINDOWS` of each video.

    Several clips of one video speak for that video and its like; for the promise to hold for other videos, give many
    videos and take one clip of each.

    Args:
        videos: what :func:`~autogaze.video.open_video` takes.
        grid: patches of the model; its finest scale is the side of a tile.
        clip_frames: frames of a clip: as many as the model sees at once. A shorter video is one shorter clip.
        clips_per_video: clips drawn from each video, fewer where it has fewer.
        max_clips: clips in all, of videos drawn by lot until there are enough; None: of every video.
        mode: whole frames brought to one tile, or one tile cut from somewhere.
        seed: of all draws; the same videos in the same order give the same clips.
        on_error: told of each video that cannot be read; None: its error is raised.

    Raises:
        CalibrationError: there is no clip, or a number is below 1.
        VideoError: a video cannot be read, and nobody wants to be told.
    """
    for name, number in (("clips_per_video", clips_per_video), ("max_clips", 1 if max_clips is None else max_clips)):
        if number < 1:
            raise CalibrationError(f"{name} must be at least 1, got {number}")
    order = np.arange(len(videos)) if max_clips is None else np.random.default_rng([seed]).permutation(len(videos))
    drawn: list[tuple[int, Frames]] = []
    for number in order.tolist():
        if max_clips is not None and len(drawn) >= max_clips:
            break
        rng = np.random.default_rng([seed, number])
        try:
            windows = _draw_windows(videos[number], rng, clip_frames=clip_frames, count=clips_per_video)
        except (AutoGazeError, OSError, ValueError) as error:
            if on_error is None:
                raise
            on_error(videos[number], error)
            continue
        drawn += [(number, _one_tile(window, grid, mode, rng)) for window in windows]
    clips = [clip for _, clip in sorted(drawn[:max_clips], key=lambda entry: entry[0])]
    return ClipSet(clips=tuple(clips), mode=mode, seed=seed)


def _draw_windows(video: str, rng: np.random.Generator, *, clip_frames: int, count: int) -> list[Frames]:
    """Windows in the order they are shown: a reservoir, since nobody knows beforehand how many there are."""
    kept: list[tuple[int, Frames]] = []
    with open_video(video, window_frames=clip_frames) as reader:
        for number, window in enumerate(reader):
            if number == MAX_WINDOWS:
                break
            if number and len(window) < clip_frames:
                continue
            place = number if number < count else int(rng.integers(number + 1))
            if place < count:
                kept[place : place + 1] = [(number, window)]
    if not kept:
        raise VideoError(f"{video} has no frame that can be decoded; check it with a video player")
    return [window for _, window in sorted(kept, key=lambda entry: entry[0])]


def _one_tile(window: Frames, grid: PatchGrid, mode: Mode, rng: np.random.Generator) -> Frames:
    side_px = grid.scales_px[-1]
    if mode == "resize":
        layout = FrameLayout.resized(grid, height_px=window.height_px, width_px=window.width_px)
        rgb = split(window.rgb, layout)[0]
    else:
        # Tiles of a video lie on a grid that starts at its corner; those at its far edges are cut short.
        top = side_px * int(rng.integers(-(-window.height_px // side_px)))
        left = side_px * int(rng.integers(-(-window.width_px // side_px)))
        rgb = window.rgb[:, top : top + side_px, left : left + side_px].copy()
    return Frames(rgb=rgb, time_seconds=window.time_seconds, number=window.number)
