"""What half precision does to a gaze model's decisions and to its speed; writes ``half_precision.json`` (or ``--out``).

    python benchmarks/half_precision.py FOLDER [--model bundled] [--precisions bf16] [--every 3] [--device cpu]

A clip is the first 16 frames of a video, every second one where it has at least 32, resized to 224 × 224. Each is gazed
at in fp32 and in half precision, in turn. ``same``: share of the frames that get the same patches in the same order;
``same_set``: the same patches in any order; ``overlap``: patches in both over patches in either. A frame that differs
makes the rest of its clip differ, so ``same_until`` says how many frames of a clip there are before the first that
does. ``kept`` and ``loss`` tell whether that matters: the share of patches, and the mean error of the canvas.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limits import device_name, synchronize
from replenish_table import VIDEO_SUFFIXES, read_clip

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.loading import load_selector
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.reconstructors import load_reconstructor, rebuild
from autogaze.selectors.base import Budget

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LIMITS = {"default": None, "ratio 0.05": Budget(ratio=0.05), "ratio 0.25": Budget(ratio=0.25)}


def gaze(selector: AutoGazeSelector, frames: Frames, budget: Budget | None) -> tuple[Gaze, float]:
    """A clip's gaze, and the seconds it took."""
    layout = FrameLayout.resized(selector.grid, height_px=frames.height_px, width_px=frames.width_px)
    synchronize(selector.device)
    start = time.perf_counter()
    found = selector.open(layout, budget or selector.default_budget).step(frames)
    synchronize(selector.device)
    return found, time.perf_counter() - start


def compare(exact: Gaze, half: Gaze) -> dict[str, Any]:
    """How alike two gazes of a clip are."""
    pairs = [
        (exact.index[exact.frame == t].tolist(), half.index[half.frame == t].tolist()) for t in range(exact.num_frames)
    ]
    same = [a == b for a, b in pairs]
    return {
        "same": same,
        "same_set": [set(a) == set(b) for a, b in pairs],
        "overlap": [len(set(a) & set(b)) / len(set(a) | set(b)) for a, b in pairs],
        "same_until": same.index(False) if False in same else len(same),
    }


def row(name: str, clips: list[Frames], selectors: dict[str, AutoGazeSelector], repeats: int) -> list[dict[str, Any]]:
    """One row for each half precision at one limit."""
    canvas = load_reconstructor("canvas")
    gazes: dict[str, list[Gaze]] = {precision: [] for precision in selectors}
    seconds: dict[str, list[float]] = {precision: [] for precision in selectors}
    losses: dict[str, list[float]] = {precision: [] for precision in selectors}
    for frames in clips:
        for repeat in range(repeats):
            for precision, selector in selectors.items():
                found, took = gaze(selector, frames, LIMITS[name])
                seconds[precision].append(took)
                if repeat == 0:
                    gazes[precision].append(found)
                    losses[precision].append(float(rebuild(frames, gaze=found, reconstructor=canvas).loss.mean()))
    rows = []
    for precision in selectors:
        alike = [compare(a, b) for a, b in zip(gazes["fp32"], gazes[precision], strict=True)]
        rows.append(
            {
                "limit": name,
                "precision": precision,
                "same": float(np.mean([one["same"] for one in alike])),
                "same_set": float(np.mean([one["same_set"] for one in alike])),
                "overlap": float(np.mean([one["overlap"] for one in alike])),
                "same_until": float(np.mean([one["same_until"] for one in alike])),
                "kept": float(np.mean([g.num_gazes / (g.num_frames * g.layout.num_patches) for g in gazes[precision]])),
                "loss": float(np.mean(losses[precision])),
                "clip_ms": float(np.median(seconds[precision])) * 1e3,
                "fp32_over_this": float(np.median(np.array(seconds["fp32"]) / np.array(seconds[precision]))),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--precisions", nargs="+", choices=["bf16", "fp16"], default=["bf16"])
    parser.add_argument("--every", type=int, default=3, help="use every n-th clip")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    videos = sorted(path for path in options.folder.rglob("*") if path.suffix in VIDEO_SUFFIXES)[:: options.every]
    clips = [read_clip(path) for path in videos]
    loaded = load_selector(options.model, device=options.device)
    assert isinstance(loaded, AutoGazeSelector), f"{options.model} is no gaze model"
    selectors = {"fp32": loaded}
    for precision in options.precisions:
        model = AutoGaze(loaded.model.config)
        model.load_state_dict(loaded.model.state_dict())
        # A calibration of the same weights before they were rounded; its levels are compared with predictions in fp32.
        model.calibration = loaded.model.calibration
        model = model.to(device=options.device, dtype=PRECISIONS[precision]).eval()
        selectors[precision] = AutoGazeSelector(model, name=precision, budget=loaded.default_budget)
    for selector in selectors.values():
        gaze(selector, clips[0], LIMITS["ratio 0.05"])  # warm-up
    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "device": device_name(torch.device(options.device)),
            "load_before": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "model": options.model,
        "clips": len(clips),
        "repeats": options.repeats,
        "rows": [one for name in LIMITS for one in row(name, clips, selectors, options.repeats)],
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
