"""A thousand frames of 4K at a fixed share kept, decoded frames in memory; writes ``many_frames.json`` (or ``--out``).

    python benchmarks/many_frames.py [CHECKPOINT | replenish] --device cuda [--precision bf16] [--frames 1024]

Goes the whole way of ``autogaze.gaze``: windows of 16 frames are read from one array, tiled, normalised and gazed
at, and the gazes put together. Frames are noise that moves: with a ratio and no threshold every frame of every tile
keeps as many patches, whatever is in it. ``limit`` is what multiplications alone would take: counted in one clip of one
tile, at the rate at which this device multiplies large matrices of this precision.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limits import clip_flops, device_name, matmul_flops_per_second

from autogaze.grid import FrameLayout
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.pipeline import GazeStream, make_recipe
from autogaze.selectors.base import CLIP_FRAMES, Selector
from autogaze.selectors.replenish import Replenish

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def moving_noise(frames: int, height_px: int, width_px: int) -> np.ndarray:
    """(T, H, W, 3) uint8; every frame is the one before, moved by eight pixels."""
    still = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), np.uint8)
    video = np.empty((frames, height_px, width_px, 3), np.uint8)
    for t in range(frames):
        video[t] = np.roll(still, 8 * t, axis=1)
    return video


def go_through(selector: Selector, video: np.ndarray, *, ratio: float, device: torch.device) -> dict[str, float]:
    """Seconds of one pass, and the gazes of it."""
    on_cuda = device.type == "cuda"
    recipe = make_recipe(model=selector, ratio=ratio)
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    started_seconds = time.perf_counter()
    with GazeStream(video, recipe=recipe) as stream:
        gazes = sum(gaze.num_gazes for _, gaze in stream)
    run = {"seconds": time.perf_counter() - started_seconds, "gazes": gazes}
    return run | ({"peak_device_gb": torch.cuda.max_memory_allocated(device) / 1e9} if on_cuda else {})


def limit(model: AutoGaze, *, ratio: float, tile_clips: int) -> dict[str, float]:
    """What the multiplications alone would take."""
    per_frame = max(1, int(ratio * model.grid.num_patches))
    flops = clip_flops(model, [per_frame] * model.config.max_num_frames)
    peak = matmul_flops_per_second(model.device, model.dtype)
    return {
        "gflop_per_tile_clip": flops / 1e9,
        "matmul_gflop_per_second": peak / 1e9,
        "seconds": tile_clips * flops / peak,
    }


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a checkpoint, or replenish; default: random weights, published shape")
    parser.add_argument("--frames", type=int, default=1024)
    parser.add_argument("--size", type=int, nargs=2, default=[2160, 3840], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--ratio", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), default="fp32")
    parser.add_argument("--tile-batch", type=int, nargs="+", default=[64])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def main() -> None:
    """Measure and write."""
    options = parse()
    device = torch.device(options.device)
    torch.manual_seed(0)
    selectors: dict[str, Selector] = {}
    if options.model == "replenish":
        selectors["replenish"] = Replenish(device=options.device)
    else:
        model = AutoGaze.from_pretrained(options.model) if options.model else AutoGaze()
        model = model.to(device=device, dtype=PRECISIONS[options.precision]).eval()
        for size in options.tile_batch:
            selectors[f"{size} tiles at once"] = AutoGazeSelector(model, tile_batch=size)
    height_px, width_px = options.size
    grid = next(iter(selectors.values())).grid
    tiles = FrameLayout.tiled(grid, height_px=height_px, width_px=width_px).num_tiles
    tile_clips = tiles * -(-options.frames // CLIP_FRAMES)
    result: dict[str, Any] = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "device": device_name(device)},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "model": options.model or "random, published shape",
        "precision": options.precision,
        "frames": options.frames,
        "size_px": options.size,
        "ratio": options.ratio,
        "tile_clips": tile_clips,
        "rows": [],
    }
    if options.model != "replenish":
        result["limit"] = limit(model, ratio=options.ratio, tile_clips=tile_clips)
    video = moving_noise(options.frames, height_px, width_px)
    for name, selector in selectors.items():
        go_through(selector, video[: 3 * CLIP_FRAMES], ratio=options.ratio, device=device)  # steps are recorded
        runs = [go_through(selector, video, ratio=options.ratio, device=device) for _ in range(options.repeats)]
        seconds = float(np.median([run["seconds"] for run in runs]))
        row = {"name": name, "runs": runs, "seconds": seconds, "frames_per_second": options.frames / seconds}
        row["ms_per_tile_clip"] = seconds / tile_clips * 1e3
        if "limit" in result:
            row["share_of_limit"] = result["limit"]["seconds"] / seconds
        result["rows"].append(row)
        print(row, flush=True)
    result["peak_resident_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
