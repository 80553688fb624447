"""Frames and gazes that the tests of pictures share."""

import numpy as np
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid

GRID = PatchGrid()


def random_gaze(layout: FrameLayout, *, num_frames: int = 1, share: float = 0.08, seed: int = 0) -> Gaze:
    rng = np.random.default_rng(seed)
    mask = (rng.random((num_frames, layout.num_indices)) < share) & layout.inside
    return Gaze.from_mask(mask, layout, time_seconds=np.arange(num_frames) / 10)


def noise(layout: FrameLayout, *, low: int = 0, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(low, 256, (layout.height_px, layout.width_px, 3), dtype=np.uint8)


def video(layout: FrameLayout, *, num_frames: int) -> Frames:
    return Frames.from_rgb(np.stack([noise(layout, seed=t) for t in range(num_frames)]), fps=10)


def is_color(picture: NDArray[np.uint8], color: tuple[int, int, int], *, within: int = 16) -> NDArray[np.bool_]:
    return np.abs(picture.astype(int) - color).max(-1) <= within
