"""What a cascade saves on large frames and what it loses; writes ``cascade.json`` beside itself.

    python benchmarks/cascade.py FOLDER [--frames 16] [--stride 4] [--repeats 3] [--models replenish,bundled]

Each model gazes at every video of the folder with all tiles of each frame open, and with cascades of several levels.
Level 0 is what ``autogaze gaze`` does without a cascade: ``replenish`` searches all tiles together. The next level
opens every tile too but, as every cascade, each for itself. Seconds are of choosing patches, by the clock and of the
processor, medians of the repeats, which alternate; loss and PSNR are of the canvas against the whole frames.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.loading import load_selector
from autogaze.sampling import Sampling
from autogaze.selectors.base import Budget, Selector
from autogaze.selectors.canvas import quality
from autogaze.selectors.cascade import Cascade, CascadeSession
from autogaze.video import open_video

BUDGETS = {"replenish": (Budget(threshold=0.025), Budget(ratio=0.05))}
"""What is measured of a model, where that is not its own budget alone."""
ALONE = 1e-9
"""A level that any change passes: every tile that is not the same to the last bit is open."""
LEVELS = (0.0, ALONE, 0.05, 0.1, 0.2, 0.4)
VIDEO_SUFFIXES = {".mp4", ".webm", ".mkv", ".mov"}


def decode(path: Path, *, limit: int, stride: int) -> Frames:
    """The first frames of a video."""
    parts: list[Frames] = []
    with open_video(path, sampling=Sampling(stride=stride), window_frames=1) as reader:
        for frames in reader:
            parts.append(frames)
            if len(parts) == limit:
                break
    return Frames.from_rgb(np.concatenate([part.rgb for part in parts]))


def gaze_at(frames: Frames, model: Selector, budget: Budget, level: float) -> tuple[Gaze, float, float, float]:
    """The gaze, the share of tiles that were open, and seconds by the clock and of the processor."""
    selector = Cascade(model, change=level)
    layout = FrameLayout.tiled(selector.grid, height_px=frames.height_px, width_px=frames.width_px)
    clock, processor = time.perf_counter(), time.process_time()
    session = selector.open(layout, budget)
    gazes, opened = [], []
    for first in range(0, len(frames), 16):
        gazes.append(session.step(frames[first : first + 16]))
        opened.append(session.opened_TK if isinstance(session, CascadeSession) else np.ones(1))
    seconds = time.perf_counter() - clock, time.process_time() - processor
    return Gaze.concatenate(gazes), float(np.concatenate(opened).mean()), *seconds


def rows(frames: Frames, model: Selector, budget: Budget, *, repeats: int) -> list[dict[str, object]]:
    """One row for each level."""
    runs: dict[float, list[tuple[Gaze, float, float, float]]] = {level: [] for level in LEVELS}
    for _ in range(repeats):
        for level in LEVELS:
            runs[level].append(gaze_at(frames, model, budget, level))
    entries: list[dict[str, object]] = []
    for level in LEVELS:
        gaze, opened, _, _ = runs[level][0]
        clock, processor = (np.array([run[place] for run in runs[level]]) for place in (2, 3))
        seen = quality(frames, gaze=gaze)
        entries.append(
            {
                "model": model.name,
                "threshold": budget.threshold,
                "ratio": budget.ratio,
                "change": level,
                "opened_share": round(opened, 4),
                "patches": gaze.num_gazes,
                "kept": round(gaze.ratio, 5),
                "seconds": {"median": round(float(np.median(clock)), 3), "all": clock.round(3).tolist()},
                "processor_seconds": {"median": round(float(np.median(processor)), 3)},
                "loss": round(float(seen.loss.mean()), 5),
                "loss_last": round(float(seen.loss[-1]), 5),
                "psnr_db": round(float(seen.psnr_db.mean()), 2),
            }
        )
        print(json.dumps(entries[-1]), flush=True)
    return entries


def measure(
    paths: Sequence[Path], models: Sequence[Selector], *, limit: int, stride: int, repeats: int
) -> list[dict[str, object]]:
    """One entry a video."""
    entries: list[dict[str, object]] = []
    for path in paths:
        print(path.stem, flush=True)
        frames = decode(path, limit=limit, stride=stride)
        layout = FrameLayout.tiled(PatchGrid(), height_px=frames.height_px, width_px=frames.width_px)
        entries.append(
            {
                "video": path.stem,
                "size_px": [frames.width_px, frames.height_px],
                "tiles": layout.num_tiles,
                "frames": len(frames),
                "rows": [
                    row
                    for model in models
                    for budget in BUDGETS.get(model.name, (model.default_budget,))
                    for row in rows(frames, model, budget, repeats=repeats)
                ],
            }
        )
    return entries


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", default="replenish", help="names of models with commas between them")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load_before = round(os.getloadavg()[0], 1)
    paths = sorted(path for path in arguments.folder.iterdir() if path.suffix in VIDEO_SUFFIXES)
    models = [load_selector(name) for name in arguments.models.split(",")]
    videos = measure(paths, models, limit=arguments.frames, stride=arguments.stride, repeats=arguments.repeats)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    result = {
        "machine": {
            "processor": names[0] if names else platform.processor(),
            "cores": os.cpu_count(),
            "threads": arguments.threads,
            "load_before": load_before,
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "av": av.__version__,
        },
        "stride": arguments.stride,
        "repeats": arguments.repeats,
        "videos": videos,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
