"""Large frames that come one by one, against whole clips; writes ``stream_tiles.json`` beside itself.

    python benchmarks/stream_tiles.py VIDEO [--model bundled] [--frames 32] [--repeats 3] [--threads 2]

The first frames of VIDEO at its own size, cut into tiles, go through a gaze model in three ways that give the same
gazes: all at once; one by one, where the tiles keep what the decoder remembers (``kept_tiles``); and one by one, where
none does and every step decodes the clip again. Each time is of a new process, which gazes at the first frame before;
memory is what that process held at most beyond what it held then. The ways take turns; numbers are medians with the
least and most.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from many_tiles import memory_mb

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.loading import load_selector
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.video import open_video

WAYS = ("whole", "kept", "again")


def read(path: Path, frames: int) -> Frames:
    """The first frames of a video."""
    with open_video(path, window_frames=frames) as reader:
        return next(iter(reader))


def measure(way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Gaze in one of the ways."""
    selector = load_selector(options.model)
    assert isinstance(selector, AutoGazeSelector), f"{options.model} is no gaze model"
    frames = read(options.video, options.frames)
    layout = FrameLayout.tiled(selector.grid, height_px=frames.height_px, width_px=frames.width_px)
    selector.open(layout, selector.default_budget).step(frames[:1])  # warm-up
    selector.kept_tiles = 0 if way == "again" else layout.num_tiles
    before_mb = memory_mb("VmRSS")
    session = selector.open(layout, selector.default_budget)
    steps = [frames] if way == "whole" else [frames[t : t + 1] for t in range(len(frames))]
    seconds, gazes = [], []
    for step in steps:
        started = time.perf_counter()
        gazes.append(session.step(step))
        seconds.append(time.perf_counter() - started)
    gaze, peak_mb = Gaze.concatenate(gazes), memory_mb("VmHWM")
    return {
        "tiles": layout.num_tiles,
        "frames": len(frames),
        "size_px": [frames.width_px, frames.height_px],
        "frame_ms": sum(seconds) / len(frames) * 1e3,
        "longest_step_ms": max(seconds) * 1e3,
        "memory_mb": None if peak_mb is None or before_mb is None else peak_mb - before_mb,
        "kept": gaze.num_gazes / gaze.num_patches,
        "gazes": [gaze.count.tolist(), gaze.index.tolist()],
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "least": min(values), "most": max(values)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help="measure this one here and print it")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.way is not None:
        print(json.dumps(measure(options.way, options)))
        return
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    load_before = os.getloadavg()[0]
    for _ in range(options.repeats):
        for way in WAYS:
            command = [sys.executable, *sys.argv, "--way", way]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[way].append(json.loads(told.stdout))
            print(way, {name: value for name, value in found[way][-1].items() if name != "gazes"}, flush=True)
    every = [one for ones in found.values() for one in ones]
    first = every[0]
    assert all(one["gazes"] == first["gazes"] for one in every), "the ways disagree"
    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "load_before": load_before,
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "video": options.video.stem,
        "model": options.model,
        **{name: first[name] for name in ("tiles", "frames", "size_px", "kept")},
        "repeats": options.repeats,
        "ways": {
            way: {
                name: spread([one[name] for one in ones])
                for name in ("frame_ms", "longest_step_ms", "memory_mb")
                if first[name] is not None
            }
            for way, ones in found.items()
        },
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
