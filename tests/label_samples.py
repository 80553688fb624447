"""Labels, and small videos to label."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autogaze.datasets.label_file import LabelOrigin, VideoLabel
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from make_video import moving_frames, write_video

GRID = PatchGrid(scales_px=(32, 64))  # 4 + 16 patches
LAYOUT = FrameLayout.tiled(GRID, height_px=64, width_px=64)
ORIGIN = LabelOrigin(
    scales_px=GRID.scales_px,
    patch_px=GRID.patch_px,
    frames=3,
    start="first",
    reconstructor="canvas",
    reconstructor_fingerprint=None,
    loss_unit="mean absolute error of a colour, from 0 to 1",
    search="exhaustive",
    budget={"kind": "threshold", "threshold": 0.1},
    seed=3,
)


def random_label(key: str, *, seed: int, frames: int = 3, start: int = 0) -> VideoLabel:
    """0 to 20 gazes a frame, and losses of any size."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, GRID.num_patches + 1, frames)
    count[0] = max(1, count[0])
    index = np.concatenate([rng.permutation(GRID.num_patches)[:n] for n in count])
    loss = 10.0 ** rng.uniform(-6, 3, len(index))
    gaze = Gaze(index=index, count=count, layout=LAYOUT, predicted_loss=loss.astype(np.float32))
    return VideoLabel(key=key, gaze=gaze, start=start)


def moving_clip(frames: int = 4, *, side_px: int = 64, seed: int = 0) -> np.ndarray:
    """(T, S, S, 3) blocks of random colours that drift."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (20, 20, 3), np.uint8)
    large = coarse.repeat(side_px // 8, 0).repeat(side_px // 8, 1)
    return np.stack([large[3 * t : 3 * t + side_px, 5 * t : 5 * t + side_px] for t in range(frames)])


def video_folder(folder: Path, *, count: int = 4, frames: int = 18) -> Path:
    """Videos ``set/train/clip-0.mp4`` and so on."""
    train = folder / "set" / "train"
    train.mkdir(parents=True)
    for number in range(count):
        write_video(train / f"clip-{number}.mp4", moving_frames(frames, seed=number))
    return train
