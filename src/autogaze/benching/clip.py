"""A video that is the same on every machine, drawn and encoded on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autogaze.datasets.procedural import film_noise, pan
from autogaze.datasets.sprites import draw_sprites
from autogaze.selectors.cells import Pixels
from autogaze.video_writer import VideoWriter

HEIGHT_PX, WIDTH_PX, FPS = 360, 640, 30.0
DRAWN_FRAMES = 32
"""A longer video plays these forwards and backwards, so that its length needs no memory."""
_SEED = 9


def draw() -> Pixels:
    """(32, 360, 640, 3) shapes that move before a camera's ride over a surface, with a little film noise."""
    rng = np.random.default_rng(_SEED)
    top = (WIDTH_PX - HEIGHT_PX) // 2
    square = draw_sprites(rng, pan(rng, frames=DRAWN_FRAMES, side_px=WIDTH_PX))
    return film_noise(rng, square[:, top : top + HEIGHT_PX])


def write_clip(path: Path, *, frames: int) -> None:
    """Write that video as an mp4 of so many frames.

    Raises:
        OSError: it cannot be written.
    """
    drawn = draw()
    back_and_forth = np.concatenate([drawn, drawn[-2:0:-1]])
    with VideoWriter(path, fps=FPS, height_px=HEIGHT_PX, width_px=WIDTH_PX) as writer:
        for number in range(frames):
            writer.write(back_and_forth[number % len(back_and_forth)][None])
