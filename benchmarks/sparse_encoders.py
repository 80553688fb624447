"""A dense vision transformer against gazing and a sparse one; writes ``sparse_encoders.json`` (or ``--out``).

    python benchmarks/sparse_encoders.py [--quick] [--repeats 5] [--threads 2] [--device cpu] [--out FILE]

Every row is a process of its own: ViT of the named size with random weights, one clip, the same share of patches kept
in every frame. ``dense_ms`` is the model's own forward on all frames in one batch, ``dense_frame_by_frame_ms`` one
frame after the other; the sparse passes are measured in turn with them. ``select_ms`` is what ``replenish`` takes to
choose that share of the same frames (of the sample video), ``total_ms`` is both. ``memory_mb`` is what a pass needs
beyond the model and the frames, in a process of its own. ``crossover``: share kept at which gazing and encoding
together cost what the dense model does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import autogaze
from autogaze.evaluation.memory import PeakMemory
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.base import Budget
from autogaze.selectors.replenish import Replenish
from autogaze.vision_encoders import SparseEncoder, sparsify

HERE = Path(__file__).parent
SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}
SHARES = (0.01, 0.05, 0.10, 0.25, 0.50, 1.0)
BASE: dict[str, Any] = {"size": "B", "frames": 16, "side_px": 224, "scales": 1, "attention": "frame", "share": 0.10}


def rows_to_measure(*, quick: bool) -> list[dict[str, Any]]:
    """Settings that differ from :data:`BASE` in one or two things."""
    shares = [{"share": share, "scales": scales} for scales in (1, 4) for share in SHARES]
    if quick:
        return [BASE | row for row in shares if row["share"] in (0.10, 1.0)]
    others = [
        *({"size": size} for size in ("S", "L")),
        *({"frames": frames} for frames in (1, 32)),
        {"side_px": 448, "frames": 4},
        *({"attention": "block_causal", "scales": 4, "share": share} for share in (0.0625, 0.25, 1.0)),
    ]
    return [BASE | row for row in (*shares, *others)]


def model_of(size: str, side_px: int, device: str) -> Any:
    width, depth, heads = SIZES[size]
    config = transformers.ViTConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=side_px,
    )
    torch.manual_seed(0)
    return transformers.ViTModel(config, add_pooling_layer=False).eval().to(device)


def grid_of(scales: int, side_px: int) -> PatchGrid:
    """The published scales, brought to the frame; or the finest alone."""
    published = tuple(scale * side_px // 224 for scale in (32, 64, 112, 224))
    return PatchGrid(scales_px=published if scales == 4 else (side_px,))


def random_gaze(grid: PatchGrid, *, frames: int, share: float) -> Gaze:
    side_px, P = grid.scales_px[-1], grid.num_patches
    rng, kept = np.random.default_rng(0), max(1, round(share * P))
    index = [rng.permutation(P)[:kept] for _ in range(frames)]
    layout = FrameLayout.resized(grid, height_px=side_px, width_px=side_px)
    return Gaze(index=np.concatenate(index), count=np.full(frames, kept), layout=layout)


def sample_frames(count: int, side_px: int) -> np.ndarray:
    """(T, S, S, 3) uint8 frames of the sample video, over and over if there are too few."""
    from PIL import Image

    with autogaze.open_video(HERE.parent / "examples" / "sample.mp4") as reader:
        frames = [image for part in reader for image in part.rgb][: max(count, 1)]
    resized = [np.asarray(Image.fromarray(frame).resize((side_px, side_px))) for frame in frames]
    return np.stack([resized[t % len(resized)] for t in range(count)])


def chooser(grid: PatchGrid, frames: np.ndarray, share: float) -> Callable[[], Gaze]:
    """Choosing that share of real frames with ``replenish``, which has four scales whatever the encoder reads."""
    side_px = frames.shape[1]
    layout = FrameLayout.tiled(Replenish().grid, height_px=side_px, width_px=side_px)
    part = Frames(rgb=frames, time_seconds=np.arange(len(frames)) / 30, number=np.arange(len(frames)))
    return lambda: Replenish().open(layout, Budget(ratio=share)).step(part)


def timed(work: dict[str, Callable[[], object]], *, repeats: int, device: str) -> dict[str, list[float]]:
    """Milliseconds of each, measured in turn."""
    spent: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats + 1):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat:  # the first one warms up
                spent[name].append((time.perf_counter() - start) * 1e3)
    return spent


def measure(row: dict[str, Any], *, repeats: int, device: str) -> dict[str, Any]:
    """All times of one row."""
    model = model_of(row["size"], row["side_px"], device)
    grid = grid_of(row["scales"], row["side_px"])
    encoder = sparsify(model, attention=row["attention"])
    frames = sample_frames(row["frames"], row["side_px"])
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float().to(device) / 127.5 - 1
    gaze = random_gaze(grid, frames=row["frames"], share=row["share"])
    choose = chooser(grid, frames, row["share"])
    if row["attention"] == "frame":
        dense: dict[str, Callable[[], object]] = {
            "dense": lambda: model(video[0]),
            "dense_frame_by_frame": lambda: [model(frame[None]) for frame in video[0]],
        }
    else:
        everything = random_gaze(grid, frames=row["frames"], share=1.0)
        dense = {"dense": lambda: encoder(video, everything)}
    work = dense | {"sparse": lambda: encoder(video, gaze), "select": choose}
    with torch.inference_mode():
        spent = timed(work, repeats=repeats, device=device)
    found: dict[str, Any] = {f"{name}_ms": round(statistics.median(times), 2) for name, times in spent.items()}
    found["spread_ms"] = {name: [round(min(times), 2), round(max(times), 2)] for name, times in spent.items()}
    found["total_ms"] = round(found["sparse_ms"] + found["select_ms"], 2)
    found["tokens"] = gaze.num_gazes
    against = found.get("dense_frame_by_frame_ms", found["dense_ms"])
    found["faster"] = round(against / found["sparse_ms"], 2)
    found["faster_than_batched"] = round(found["dense_ms"] / found["sparse_ms"], 2)
    found["faster_with_selector"] = round(found["dense_ms"] / found["total_ms"], 2)
    found["frames_per_second"] = round(1e3 * row["frames"] / found["total_ms"], 1)
    return row | found


def memory(row: dict[str, Any], *, device: str, dense: bool) -> float:
    """Megabytes that one pass needs beyond model and frames."""
    model = model_of(row["size"], row["side_px"], device)
    encoder: SparseEncoder = sparsify(model, attention=row["attention"])
    video = torch.randn(1, row["frames"], 3, row["side_px"], row["side_px"], device=device)
    gaze = random_gaze(grid_of(row["scales"], row["side_px"]), frames=row["frames"], share=row["share"])
    small = random_gaze(grid_of(row["scales"], row["side_px"]), frames=1, share=0.01)
    watch = PeakMemory(device)
    with torch.inference_mode():
        encoder(video[:, :1], small)  # what is allocated once
        watch.reset()
        before = watch.peak_mb()
        if dense:
            model(video[0])
        else:
            encoder(video, gaze)
    after = watch.peak_mb()
    return round((after or 0) - (before or 0), 1)


def long_video(*, device: str) -> dict[str, Any]:
    """128 frames of 896 px, 6 % of the patches of four scales: what the whole process needs, and for how long."""
    row = BASE | {"frames": 128, "side_px": 896, "scales": 4, "share": 0.06}
    encoder: SparseEncoder = sparsify(model_of(row["size"], row["side_px"], device), attention=row["attention"])
    video = torch.randn(1, row["frames"], 3, row["side_px"], row["side_px"], device=device)
    gaze = random_gaze(grid_of(row["scales"], row["side_px"]), frames=row["frames"], share=row["share"])
    start = time.perf_counter()
    with torch.inference_mode():
        encoder(video, gaze)
    peak_mb = PeakMemory(device).peak_mb()
    return row | {"tokens": gaze.num_gazes, "seconds": round(time.perf_counter() - start, 1), "peak_mb": peak_mb}


def in_a_process(arguments: list[str]) -> Any:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def crossover(rows: list[dict[str, Any]], scales: int) -> float | None:
    """Share kept at which gazing and encoding cost what the dense model in one batch does; None: always less."""
    chosen = [row for row in rows if row["scales"] == scales and _is_base(row)]
    points = sorted((row["share"], row["total_ms"] / row["dense_ms"]) for row in chosen)
    for (share, cost), (next_share, next_cost) in itertools.pairwise(points):
        if cost < 1 <= next_cost:
            return round(share + (1 - cost) / (next_cost - cost) * (next_share - share), 3)
    return None


def _is_base(row: dict[str, Any]) -> bool:
    return all(row[name] == value for name, value in BASE.items() if name not in ("share", "scales"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="four rows")
    parser.add_argument("--out", type=Path, default=HERE / "sparse_encoders.json")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--long", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", choices=("dense", "sparse"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.long:
        print(json.dumps(long_video(device=options.device)))
        return
    if options.row:
        row = json.loads(options.row)
        if options.memory:
            print(json.dumps(memory(row, device=options.device, dense=options.memory == "dense")))
        else:
            print(json.dumps(measure(row, repeats=options.repeats, device=options.device)))
        return
    shared = ["--threads", str(options.threads), "--device", options.device, "--repeats", str(options.repeats)]
    load_before, rows = round(os.getloadavg()[0], 2), []
    for row in rows_to_measure(quick=options.quick):
        found = in_a_process([*shared, "--row", json.dumps(row)])
        found["memory_mb"] = in_a_process([*shared, "--row", json.dumps(row), "--memory", "sparse"])
        if row["attention"] == "frame":
            found["dense_memory_mb"] = in_a_process([*shared, "--row", json.dumps(row), "--memory", "dense"])
        rows.append(found)
        print(json.dumps({k: v for k, v in found.items() if k != "spread_ms"}), flush=True)
    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "device": torch.cuda.get_device_name() if options.device == "cuda" else options.device,
            "load_before": load_before,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "repeats": options.repeats,
        "crossover": {"one scale": crossover(rows, 1), "four scales": crossover(rows, 4)},
        "long_video": in_a_process([*shared, "--long"]),
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
