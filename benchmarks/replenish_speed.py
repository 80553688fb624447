"""Frames a second of replenishment, and of the same without shortcuts; writes ``replenish_speed.json`` beside itself.

    python benchmarks/replenish_speed.py FOLDER [--repeats 5] [--frames 16] [--threads 2]

Every video of the folder is gazed at tiled, and the first one also at 224 × 224 px. *plain* builds every scale of
every tile (``tests/plain_replenish.py``), *replenish* is the selector. Both choose the same patches, which is checked.
Times are of the first ``--frames`` frames at once, the empty canvas included; runs of both alternate. Decoding is timed
by itself, and together with the selector, as ``autogaze.gaze`` does it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.sampling import Sampling
from autogaze.selectors.base import Budget
from autogaze.selectors.cells import resize
from autogaze.selectors.replenish import Replenish
from autogaze.video import open_video
from plain_replenish import PlainReplenish

BUDGETS = (Budget(threshold=0.05), Budget(threshold=0.025), Budget(ratio=0.05), Budget(psnr_db=28.0))
SIDE_PX = 224
VIDEO_SUFFIXES = {".mp4", ".webm", ".mkv", ".mov"}


def decode(path: Path, limit: int) -> Frames:
    """The first frames of a video, as the library reads them."""
    with open_video(path, sampling=Sampling()) as reader:
        parts, count = [], 0
        for frames in reader:
            parts.append(frames.rgb)
            count += len(frames)
            if count >= limit:
                break
    return Frames.from_rgb(np.concatenate(parts)[:limit])


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one run by the clock, and of processor time over all threads."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def rate(seconds: list[tuple[float, float]], frames: int) -> dict[str, float]:
    """Frames a second over the runs, and what a frame takes of the processors, which other work changes less."""
    clock, processor = np.array(seconds).T
    fps = frames / clock
    return {
        "median": round(float(np.median(fps)), 2),
        "least": round(float(fps.min()), 2),
        "most": round(float(fps.max()), 2),
        "processor_ms_a_frame": round(float(np.median(processor)) / frames * 1e3, 2),
    }


def compare(frames: Frames, budget: Budget, *, repeats: int) -> dict[str, object]:
    """Both ways in turn on the same frames."""
    layout = FrameLayout.tiled(PatchGrid(), height_px=frames.height_px, width_px=frames.width_px)
    gazes: dict[str, Gaze] = {}
    seconds: dict[str, list[tuple[float, float]]] = {"plain": [], "replenish": []}

    def run(name: str) -> None:
        session = PlainReplenish(layout, budget) if name == "plain" else Replenish().open(layout, budget)
        seconds[name].append(timed(lambda: gazes.update({name: session.step(frames)})))

    for _ in range(repeats):
        run("plain")
        run("replenish")
    return {
        "threshold": budget.threshold,
        "ratio": budget.ratio,
        "psnr_db": budget.psnr_db,
        "kept": round(gazes["plain"].ratio, 5),
        "equal": gazes["plain"].equals(gazes["replenish"]),
        "plain_frames_a_second": rate(seconds["plain"], len(frames)),
        "frames_a_second": rate(seconds["replenish"], len(frames)),
    }


def from_file(path: Path, limit: int, *, repeats: int) -> dict[str, object]:
    """Decoding alone, and with the selector at its default budget and at 5 %."""

    def both(budget: Budget) -> None:
        with open_video(path, sampling=Sampling()) as reader:
            layout = FrameLayout.tiled(PatchGrid(), height_px=reader.height_px, width_px=reader.width_px)
            session, count = Replenish().open(layout, budget), 0
            for frames in reader:
                session.step(frames)
                count += len(frames)
                if count >= limit:
                    return

    runs: dict[str, list[tuple[float, float]]] = {"decode": [], "threshold 0.025": [], "ratio 0.05": []}
    for _ in range(repeats):
        runs["decode"].append(timed(lambda: decode(path, limit)))
        runs["threshold 0.025"].append(timed(lambda: both(Budget(threshold=0.025))))
        runs["ratio 0.05"].append(timed(lambda: both(Budget(ratio=0.05))))
    return {name: rate(seconds, limit) for name, seconds in runs.items()}


def measure(paths: list[Path], *, limit: int, repeats: int) -> list[dict[str, object]]:
    """One entry a video, and one for the first at the size of a clip."""
    entries: list[dict[str, object]] = []
    for path in paths:
        frames = decode(path, limit)
        sizes = [("tiled", frames)]
        if path == paths[0]:
            sizes.insert(0, ("clip", Frames.from_rgb(resize(frames.rgb, SIDE_PX, SIDE_PX))))
        for name, sized in sizes:
            layout = FrameLayout.tiled(PatchGrid(), height_px=sized.height_px, width_px=sized.width_px)
            entry: dict[str, object] = {
                "video": path.stem,
                "seen": name,
                "size_px": [sized.width_px, sized.height_px],
                "tiles": layout.num_tiles,
                "frames": len(sized),
                "budgets": [compare(sized, budget, repeats=repeats) for budget in BUDGETS],
            }
            if name == "tiled":
                entry["from_file_frames_a_second"] = from_file(path, limit, repeats=repeats)
            print(json.dumps(entry))
            entries.append(entry)
    return entries


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load_before = round(os.getloadavg()[0], 1)
    paths = sorted(path for path in arguments.folder.iterdir() if path.suffix in VIDEO_SUFFIXES)
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
        "repeats": arguments.repeats,
        "videos": measure(paths, limit=arguments.frames, repeats=arguments.repeats),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
