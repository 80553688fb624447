"""Layouts and random gazes that several tests use."""

import numpy as np

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid

TILED = FrameLayout.tiled(PatchGrid(), height_px=300, width_px=500)
RESIZED = FrameLayout.resized(PatchGrid(), height_px=300, width_px=500)
SMALL = FrameLayout.tiled(PatchGrid(scales_px=(5, 8), patch_px=2), height_px=11, width_px=17)
LAYOUTS = (TILED, RESIZED, SMALL)


def random_gaze(
    seed: int, *, layout: FrameLayout = SMALL, num_frames: int = 5, most: int = 9, numbers: bool = True
) -> Gaze:
    """A gaze of distinct patches in random order; frames may be empty."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, most + 1, num_frames)
    index = [rng.permutation(layout.num_indices)[:n] for n in count]
    loss = rng.normal(size=count.sum()).astype(np.float32)
    loss[rng.random(len(loss)) < 0.3] = np.nan
    return Gaze(
        index=np.concatenate([*index, np.empty(0, np.int64)]),
        count=count,
        layout=layout,
        probability=rng.random(count.sum(), np.float32) if numbers else None,
        predicted_loss=loss if numbers else None,
        time_seconds=np.cumsum(rng.random(num_frames)) if numbers else None,
    )
