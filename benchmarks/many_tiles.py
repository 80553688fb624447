"""Time and memory of a gaze model as tiles grow many, and what batches are worth; writes ``many_tiles.json``.

    python benchmarks/many_tiles.py VIDEO [--model bundled] [--tiles 100 1000 10000] [--frames 16] [--ratio 0.05]
        [--threads 2]

``growth``: clips of VIDEO at its own size, cut into tiles, one after the other until so many tiles are done. The time a
tile takes is the median over the clips since the mark before; the processor's time is there too, since it tells less of
what else the machine does. Clips of one frame with few patches (``--frames 1 --ratio 0.02``) get through 10,000 tiles
in less than ten minutes on two cores. ``grown`` compares the last mark with the first; machines change their pace in
minutes, so ``over_fresh`` says how much longer a tile takes this process, after all of them, than processes that are
started then and there, in turn, on the same clips. ``batches``: one clip with ``tile_batch`` tiles at once, in turn.
``occupancy`` is the mean share of a batch's tiles that a pass of the decoder is for; the others have ended their frame
and wait for the slowest. Only what a fuller pass does faster could be won by filling batches from a queue.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autogaze.engine import DecoderState, Engine
from autogaze.frames import Frames
from autogaze.grid import FrameLayout
from autogaze.loading import load_selector
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.selectors.base import Budget

CLIPS_READ = 4


@dataclass(frozen=True, kw_only=True)
class Time:
    """What gazing at one clip took."""

    seconds: float
    cpu_seconds: float


def read_clips(path: Path, frames: int) -> list[Frames]:
    """The first clips of a video."""
    with av.open(str(path)) as container:
        rgb = [
            frame.to_ndarray(format="rgb24")
            for frame, _ in zip(container.decode(video=0), range(CLIPS_READ * frames), strict=False)
        ]
    return [Frames.from_rgb(np.stack(rgb[first : first + frames])) for first in range(0, len(rgb) - frames + 1, frames)]


def gaze(selector: AutoGazeSelector, clip: Frames) -> tuple[Time, NDArray[np.int64]]:
    """What gazing at a clip takes, with the selector's own budget, and the gazes."""
    layout = FrameLayout.tiled(selector.grid, height_px=clip.height_px, width_px=clip.width_px)
    wall, cpu = time.perf_counter(), time.process_time()
    found = selector.open(layout, selector.default_budget).step(clip)
    return Time(seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu), found.index


def memory_mb(name: str) -> float | None:
    """``VmRSS`` or its peak, ``VmHWM``, where the system tells."""
    status = Path("/proc/self/status")
    found = re.search(rf"{name}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else None


def growth(selector: AutoGazeSelector, clips: list[Frames], tiles_of_clip: int, marks: list[int]) -> dict[str, Any]:
    for clip in clips:
        gaze(selector, clip)  # warm-up: every clip once, so that the peak is there from the start
    rows: list[dict[str, Any]] = []
    done, queue = 0, cycle(clips)
    times: list[Time] = []
    for mark in marks:
        while done < mark or len(times) < 2:
            times.append(gaze(selector, next(queue))[0])
            done += tiles_of_clip
        row: dict[str, Any] = {"tiles": done, "clips_timed": len(times)}
        for name in ("seconds", "cpu_seconds"):
            values = np.array([asdict(taken)[name] for taken in times]) / tiles_of_clip * 1e3
            low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
            row |= {f"{name}_per_tile_ms": {"median": middle, "quartile_low": low, "quartile_high": high}}
        rows.append(row | {"memory_mb": memory_mb("VmRSS"), "peak_memory_mb": memory_mb("VmHWM")})
        print(rows[-1], flush=True)
        times = []
    first, last = rows[0], rows[-1]
    grown = {
        name: last[name]["median"] / first[name]["median"] - 1
        for name in ("seconds_per_tile_ms", "cpu_seconds_per_tile_ms")
    }
    if first["peak_memory_mb"] is not None:
        grown["peak_memory_mb"] = last["peak_memory_mb"] / first["peak_memory_mb"] - 1
    return {"rows": rows, "grown": grown}


def round_of(selector: AutoGazeSelector, clips: list[Frames], tiles_of_clip: int) -> float:
    """Milliseconds a tile takes, over all clips."""
    return float(np.mean([gaze(selector, clip)[0].seconds for clip in clips])) / tiles_of_clip * 1e3


def over_fresh(selector: AutoGazeSelector, clips: list[Frames], tiles_of_clip: int, rounds: int = 5) -> dict[str, Any]:
    """What a tile takes this process, and others that have done nothing before but to warm up."""
    ours, fresh = [], []
    for _ in range(rounds):
        ours.append(round_of(selector, clips, tiles_of_clip))
        told = subprocess.run([sys.executable, *sys.argv, "--fresh"], check=True, capture_output=True, text=True)
        fresh.append(float(told.stdout))
    share = float(np.median(ours) / np.median(fresh)) - 1
    return {"this_process_ms": ours, "fresh_processes_ms": fresh, "seconds_per_tile_ms": share}


@contextmanager
def counted_passes() -> Iterator[list[int]]:
    """The tiles each pass of the decoder is for."""
    tiles: list[int] = []
    feed = Engine._feed

    def counting(engine: Engine, state: DecoderState, rows: list[int], *tokens: Any) -> Tensor:
        tiles.append(len(rows))
        return feed(engine, state, rows, *tokens)

    Engine._feed = counting  # type: ignore[method-assign]
    try:
        yield tiles
    finally:
        Engine._feed = feed  # type: ignore[method-assign]


def batches(selector: AutoGazeSelector, clip: Frames, tiles: int, sizes: list[int], repeats: int) -> dict[str, Any]:
    chosen, rows = {}, {}
    times: dict[int, list[Time]] = {size: [] for size in sizes}
    for size in sizes:  # warm-up
        some = AutoGazeSelector(selector.model, tile_batch=size, budget=selector.default_budget)
        with counted_passes() as passes:
            _, chosen[size] = gaze(some, clip)
        rows[size] = {"tile_batch": size, "passes": len(passes), "tiles_a_pass": float(np.mean(passes))}
    for _ in range(repeats):
        for size in sizes:
            some = AutoGazeSelector(selector.model, tile_batch=size, budget=selector.default_budget)
            times[size].append(gaze(some, clip)[0])
    for size in sizes:
        for name in ("seconds", "cpu_seconds"):
            rows[size][f"{name}_per_tile_ms"] = float(np.median([asdict(t)[name] for t in times[size]])) / tiles * 1e3
        rows[size]["occupancy"] = rows[size]["tiles_a_pass"] / (tiles / -(-tiles // size))
        print(rows[size], flush=True)
    same = all(np.array_equal(chosen[size], chosen[sizes[0]]) for size in sizes)
    return {"rows": list(rows.values()), "same_gazes": same, "repeats": repeats}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--tiles", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--ratio", type=float, help="share of the patches a frame may use; else the model's budget")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fresh", action="store_true", help="gaze at the clips twice and print what a tile takes")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    selector = load_selector(options.model, device=options.device)
    assert isinstance(selector, AutoGazeSelector), f"{options.model} is no gaze model"
    if options.ratio is not None:
        selector = AutoGazeSelector(selector.model, tile_batch=selector.tile_batch, budget=Budget(ratio=options.ratio))
    clips = read_clips(options.video, options.frames)
    layout = FrameLayout.tiled(selector.grid, height_px=clips[0].height_px, width_px=clips[0].width_px)
    if options.fresh:
        print([round_of(selector, clips, layout.num_tiles) for _ in range(2)][-1])
        return
    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "device": options.device,
            "load_before": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "video": options.video.stem,
        "model": options.model,
        "tiles_of_a_clip": layout.num_tiles,
        "frames_of_a_clip": options.frames,
        "ratio": options.ratio,
        "tile_batch": selector.tile_batch,
        # First, so that no larger batch has set the peak of memory.
        "growth": growth(selector, clips, layout.num_tiles, options.tiles),
        "over_fresh": over_fresh(selector, clips, layout.num_tiles),
        "batches": batches(selector, clips[0], layout.num_tiles, options.batches, options.repeats),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
