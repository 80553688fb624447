"""Small runs that train reconstructors, and footage from which they learn something soon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autogaze.training.refiner import RefinerSettings
from autogaze.training.video_mae import VideoMAESettings
from make_video import moving_frames, write_video


def waves(frames: int, *, seed: int = 0) -> np.ndarray:
    """Smooth waves that drift: what a canvas shows as blocks and a network soon learns to smooth."""
    time, row, column = np.meshgrid(np.arange(frames), np.arange(72), np.arange(96), indexing="ij")
    phase = np.stack([row / 9 + time / 3, column / 11 - time / 4, (row + column) / 13], axis=-1)
    return ((np.sin(phase + seed) + 1) * 127).astype(np.uint8)


def make_waves(folder: Path) -> Path:
    """Videos of waves in train/ and val/, one file in each that is none, and an image."""
    for split, seeds in (("train", (0, 1)), ("val", (2, 3))):
        (folder / "videos" / split).mkdir(parents=True)
        for seed in seeds:
            write_video(folder / "videos" / split / f"{seed}.mp4", waves(24, seed=seed))
        (folder / "videos" / split / f"broken-{split}.mp4").write_bytes(b"no video")
    (folder / "images").mkdir()
    Image.fromarray(moving_frames(1, height_px=160, width_px=200)[0]).save(folder / "images" / "a.png")
    return folder


def _plain(footage: Path, out: Path) -> dict[str, Any]:
    return {
        "out": out,
        "videos": (footage / "videos",),
        "images": (footage / "images",),
        "steps": 4,
        "batch": 4,
        "block": 16,
        "warmup_steps": 2,
        "peak_lr": 3e-3,
        "average": 0.5,
        "log_every": 1,
        "workers": 0,
        "device": "cpu",
    }


def refiner_settings(footage: Path, out: Path, **changes: Any) -> RefinerSettings:
    return RefinerSettings(**{**_plain(footage, out), "shape": "tiny", "frames": 2, "random_gazes": 0.5, **changes})


def video_mae_settings(footage: Path, out: Path, **changes: Any) -> VideoMAESettings:
    return VideoMAESettings(**{**_plain(footage, out), "shape": "toy", "frame_share": 0.25, **changes})


def make_colours(folder: Path) -> Path:
    """Videos of one colour each in train/ and val/: whoever gazes at any of it can tell the rest."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            colour = rng.integers(0, 256, 3, dtype=np.uint8)
            write_video(folder / split / f"{number}.mp4", np.tile(colour, (16, 32, 48, 1)))
    return folder
