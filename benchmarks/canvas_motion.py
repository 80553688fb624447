"""Patches that a canvas saves by moving with the camera; writes ``canvas_motion.json`` beside itself.

    python benchmarks/canvas_motion.py --images FOLDER --videos FOLDER [--threshold 0.025] [--scans 2] [--repeats 5]

*Scans* are rides of a camera over images, 16 frames of 224 × 224 px, as training sees them, some with zoom.
*Videos* are the first 16 frames, every second one where there are 32, at their own size in tiles.
Both selections stop at the same mean error, so what differs is the number of patches. Times are the processor's for a
frame, on one thread, which other work on the machine changes less than the clock's: the median of repeats in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch

from autogaze.datasets.footage import is_image, read_image
from autogaze.datasets.motion import scan
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.sampling import Sampling
from autogaze.selectors.base import CLIP_FRAMES, Budget
from autogaze.selectors.canvas import quality
from autogaze.selectors.replenish import Motion, Replenish
from autogaze.video import open_video

SIDE_PX = 224
MOTIONS: tuple[Motion, ...] = ("none", "global")


def scans(folder: Path, *, each: int) -> Iterator[tuple[str, Frames]]:
    """Rides over every image of a folder."""
    for number, path in enumerate(sorted(path for path in folder.iterdir() if is_image(path))):
        for ride in range(each):
            rng = np.random.default_rng((number, ride))
            clip = scan(read_image(path).rgb[0], rng, frames=CLIP_FRAMES, side_px=SIDE_PX)
            yield f"{path.stem} {ride}", Frames.from_rgb(clip)


def videos(paths: list[Path]) -> Iterator[tuple[str, Frames]]:
    """The beginning of every video."""
    for path in paths:
        with open_video(path, sampling=Sampling(), window_frames=2 * CLIP_FRAMES) as reader:
            rgb = next(iter(reader)).rgb
        yield path.stem, Frames.from_rgb((rgb[::2] if len(rgb) >= 2 * CLIP_FRAMES else rgb)[:CLIP_FRAMES])


def selected(frames: Frames, motion: Motion, budget: Budget) -> tuple[Gaze, float]:
    """The gaze and the milliseconds of the processor that a frame took."""
    layout = FrameLayout.tiled(PatchGrid(), height_px=frames.height_px, width_px=frames.width_px)
    session = Replenish(motion=motion).open(layout, budget)
    start = time.process_time()
    gaze = session.step(frames)
    return gaze, (time.process_time() - start) / len(frames) * 1e3


def compare(name: str, frames: Frames, budget: Budget, *, repeats: int) -> dict[str, object]:
    """One clip, with and without motion."""
    runs = [[selected(frames, motion, budget) for motion in MOTIONS] for _ in range(repeats)]
    still, moving = (gaze for gaze, _ in runs[0])
    ms = np.array([[spent for _, spent in run] for run in runs])
    return {
        "name": name,
        "size_px": [frames.width_px, frames.height_px],
        "patches": [still.num_gazes, moving.num_gazes],
        "patches_after_first_frame": [still.num_gazes - int(still.count[0]), moving.num_gazes - int(moving.count[0])],
        "loss": [round(float(quality(frames, gaze=gaze).loss.mean()), 5) for gaze in (still, moving)],
        "frames_moved": 0 if moving.shift_px is None else int(moving.shift_px.any(1).sum()),
        "processor_ms_a_frame": np.median(ms, axis=0).round(2).tolist(),
        "least_and_most_ms": np.stack([ms.min(0), ms.max(0)], axis=1).round(2).tolist(),
    }


def totals(clips: list[dict[str, object]]) -> dict[str, object]:
    """What all clips of a kind need together, and the median of what each saves after its first frame."""
    later = np.array([clip["patches_after_first_frame"] for clip in clips], float)
    patches = np.array([clip["patches"] for clip in clips]).sum(0)
    return {
        "clips": len(clips),
        "patches": patches.tolist(),
        "saved": round(1 - patches[1] / patches[0], 4),
        "median_saved_after_first_frame": round(float(np.median(1 - later[:, 1] / later[:, 0].clip(min=1))), 4),
        "clips_with_more_patches": int((later[:, 1] > later[:, 0]).sum()),
        "loss": np.mean([clip["loss"] for clip in clips], axis=0).round(5).tolist(),
        "median_processor_ms_a_frame": np.median([clip["processor_ms_a_frame"] for clip in clips], axis=0)
        .round(2)
        .tolist(),
    }


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="videos, or folders of them")
    parser.add_argument("--threshold", type=float, default=0.025)
    parser.add_argument("--scans", type=int, default=2, help="rides over each image")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each clip with each motion")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    budget, repeats = Budget(threshold=arguments.threshold), arguments.repeats
    paths = [one for path in arguments.videos for one in (sorted(path.glob("*.mp4")) if path.is_dir() else [path])]
    kinds = {
        "scans": [
            compare(name, frames, budget, repeats=repeats)
            for name, frames in scans(arguments.images, each=arguments.scans)
        ],
        "videos": [compare(name, frames, budget, repeats=repeats) for name, frames in videos(paths)],
    }
    result = {
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1)},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "av": av.__version__,
        },
        "threshold": arguments.threshold,
        "repeats": repeats,
        "order": list(MOTIONS),
        "totals": {kind: totals(clips) for kind, clips in kinds.items()},
        "clips": kinds,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["totals"], indent=1))


if __name__ == "__main__":
    main()
