"""Patches that selectors need for the same loss on a folder of clips; writes JSON.

    python benchmarks/selectors_on_val.py FOLDER [--checkpoint DIR ...] [--device cuda] [--every 1] [--out FILE]

A clip is the first 16 frames of a video, every second one where it has at least 32, resized to 224 × 224 with
Pillow's bilinear filter, and is looked at as one tile. Every gaze is pasted on a fresh canvas: kept = gazes /
(16 · 265), loss = mean absolute error over the clip's frames (colours in 0…1), PSNR = mean over its frames (frames
without any error count as 100 dB). Learned and training-free selectors run at several limits: "threshold" ends each
frame at a loss (the bare prediction of a model, exact for replenish), "ratio" gives every frame the same ceiling,
"counts of replenish" gives every frame as many patches as replenish took at a threshold.

Equal loss: for each clip and target loss the share of patches is interpolated between a selector's limits (log kept
over log loss); a clip that never gets there counts as keeping everything. Then means over clips.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from replenish_table import PERFECT_DB, VIDEO_SUFFIXES, processor, random_like, read_clip

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.selectors import make_selector
from autogaze.selectors.base import CLIP_FRAMES, Budget
from autogaze.selectors.canvas import quality

LAYOUT = FrameLayout.tiled(PatchGrid(), height_px=224, width_px=224)
THRESHOLDS = (0.070, 0.050, 0.035, 0.025, 0.018, 0.012, 0.008)
RATIOS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.75)
TARGETS = (0.050, 0.035, 0.025, 0.018, 0.012)
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Point:
    """One clip under one limit."""

    kept: float
    loss: float
    psnr_db: float
    over: float
    """Share of frames whose loss is above the threshold asked for; NaN without one."""
    predicted: float
    """Mean over frames of the loss stated after the last gaze; NaN where none is."""


Curves = dict[str, dict[str, list[Point]]]
"""Selector and mode → limit → one point for each clip."""


def measure(frames: Frames, gaze: Gaze, threshold: float | None = None) -> Point:
    """Paste and compare."""
    result = quality(frames, gaze=gaze)
    last = np.cumsum(gaze.count)[gaze.count > 0] - 1
    stated = gaze.predicted_loss
    return Point(
        kept=gaze.num_gazes / (CLIP_FRAMES * gaze.layout.num_patches),
        loss=float(result.loss.mean()),
        psnr_db=float(np.minimum(result.psnr_db, PERFECT_DB).mean()),
        over=float("nan") if threshold is None else float((result.loss > threshold + 1e-9).mean()),
        predicted=float("nan") if stated is None or not len(last) else float(stated[last].mean()),
    )


def without_weights(path: Path) -> tuple[Frames, dict[tuple[str, str], Point]]:
    """One clip under the selectors that need no weights."""
    torch.set_num_threads(1)
    frames = read_clip(path)
    points: dict[tuple[str, str], Point] = {}
    for threshold in THRESHOLDS:
        gaze = make_selector("replenish").open(LAYOUT, Budget(threshold=threshold)).step(frames)
        points["replenish, threshold", str(threshold)] = measure(frames, gaze, threshold)
        counted = random_like(gaze, np.random.default_rng(0))
        points["random, counts of replenish", str(threshold)] = measure(frames, counted)
    for name in ("replenish", "random", "uniform", "difference", "detail"):
        for ratio in RATIOS:
            gaze = make_selector(name).open(LAYOUT, Budget(ratio=ratio)).step(frames)
            points[f"{name}, ratio", str(ratio)] = measure(frames, gaze)
    return frames, points


def with_weights(model: AutoGaze, clips: list[Frames], name: str, jobs: ProcessPoolExecutor) -> Curves:
    """All clips under a checkpoint."""
    limits = [(f"{name}, threshold", None, t) for t in THRESHOLDS] + [(f"{name}, ratio", r, None) for r in RATIOS]
    curves: Curves = {}
    for label, ratio, threshold in limits:
        gazes: list[Gaze] = []
        started = time.perf_counter()
        for first in range(0, len(clips), BATCH):
            videos = np.stack([clip.rgb for clip in clips[first : first + BATCH]])
            gazes += model.gaze_batch(videos, ratio=ratio or 0.75, threshold=threshold)
        print(f"{label} {ratio or threshold}: {time.perf_counter() - started:.1f} s", flush=True)
        points = jobs.map(partial(measure, threshold=threshold), clips, gazes)
        curves.setdefault(label, {})[str(ratio or threshold)] = list(points)
    return curves


def kept_at(points: list[Point], target: float) -> tuple[float, bool]:
    """Share of patches at which one clip reaches a loss, and whether it does at all."""
    ordered = sorted(points, key=lambda point: point.kept)
    kept = np.log([point.kept for point in ordered])
    loss = np.log(np.maximum(np.minimum.accumulate([point.loss for point in ordered]), 1e-6))
    if loss[-1] > np.log(target):
        return 1.0, False
    first = int(np.argmax(loss <= np.log(target)))
    if first == 0:
        return float(np.exp(kept[0])), True
    share = (loss[first - 1] - np.log(target)) / (loss[first - 1] - loss[first])
    return float(np.exp(kept[first - 1] + share * (kept[first] - kept[first - 1]))), True


def equal_loss(curves: Curves) -> list[dict[str, object]]:
    """Patches needed at each target loss, beside replenish and random."""
    rows = []
    for target in TARGETS:
        needed, missed = {}, {}
        for label, limits in curves.items():
            per_clip = [kept_at(list(points), target) for points in zip(*limits.values(), strict=True)]
            needed[label] = float(np.mean([kept for kept, _ in per_clip]))
            missed[label] = sum(not reached for _, reached in per_clip)
        for label, kept in needed.items():
            rows.append(
                {
                    "loss": target,
                    "selector": label,
                    "kept": kept,
                    "clips_that_miss": missed[label],
                    "times_replenish": kept / needed["replenish, threshold"],
                    "random_needs_times": needed["random, ratio"] / kept,
                    "random_at_replenish_counts_needs_times": needed["random, counts of replenish"] / kept,
                }
            )
    return rows


def means(curves: Curves) -> list[dict[str, object]]:
    """One row for each selector and limit."""
    rows = []
    for label, limits in curves.items():
        for limit, points in limits.items():
            columns = {name: _mean([getattr(point, name) for point in points]) for name in asdict(points[0])}
            rows.append({"selector": label, "limit": float(limit), **columns})
    return rows


def _mean(values: list[float]) -> float | None:
    """The mean; None where it is not known for every clip, since JSON has no NaN."""
    return None if np.isnan(values).any() else float(np.mean(values))


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", type=Path, nargs="*", default=[])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--every", type=int, default=1, help="use every n-th clip")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix in VIDEO_SUFFIXES)[:: arguments.every]
    curves: Curves = {}
    clips: list[Frames] = []
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as jobs:
        for frames, points in jobs.map(without_weights, paths):
            clips.append(frames)
            for (label, limit), point in points.items():
                curves.setdefault(label, {}).setdefault(limit, []).append(point)
        for folder in arguments.checkpoint:
            model = AutoGaze.from_pretrained(folder, device=arguments.device, calibrated=False)
            curves |= with_weights(model, clips, folder.name, jobs)
    result = {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "device": arguments.device},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "clips": len(clips),
        "equal_loss": equal_loss(curves),
        "limits": means(curves),
    }
    arguments.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    for row in result["limits"]:
        over = "" if row["over"] is None else f"  over {row['over']:.2f}"
        print("{selector:32} {limit:<6} {kept:7.2%} {loss:.4f} {psnr_db:6.2f} dB".format(**row) + over)
    for row in result["equal_loss"]:
        print(
            "loss {loss:.3f}  {selector:32} {kept:7.2%} ({clips_that_miss} miss)  {times_replenish:5.2f} × replenish  "
            "random needs {random_needs_times:5.2f} ×".format(**row)
        )


if __name__ == "__main__":
    main()
