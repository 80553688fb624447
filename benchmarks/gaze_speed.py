"""Speed of the gaze model on one 16-frame clip; writes ``gaze_speed.json`` (or ``--out``).

    python benchmarks/gaze_speed.py [CHECKPOINT] [--repeats 15] [--threads 2] [--device cpu]

Patterns are forced by one ratio for each frame, so that random weights do the work of trained ones: ``demo`` is the
published demo clip's 198 gazes on the first frame and 10 on each other; ``full`` is every patch. All rows of one
machine are measured in one run, in turn, on the same weights, and give the same gazes (checked). ``engine`` decodes by
compiled code where that can be had, ``engine_by_torch`` never does. ``cpu_ms`` is the processor's time of all threads:
it tells less of what else the machine does.
``published_over_…`` says how many times longer the published loop takes for a clip, alone or in a batch; the loop takes
one clip at a time. ``limit`` is what a clip's multiplications alone take at the rate of large matrices: the best one
measured beside the patterns.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limits import clip_flops, device_name, matmul_flops_per_second, synchronize

from autogaze.benching.naive import NaiveEngine
from autogaze.engine import Engine
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.decoding import ClipDecoder
from autogaze.native.library import state

FRAMES = 16
PATTERNS = {"demo": [198] + [10] * 15, "ratio_0.05": [13] * 16, "full": [265] * 16}


def gaze(decoder: ClipDecoder, video: torch.Tensor, counts: list[int]) -> list[list[list[int]]]:
    """The patches of each frame of each clip."""
    state = decoder.start(len(video), frames=FRAMES, max_gazes=max(counts))
    clips = decoder.step(state, video, max_gazes_T=counts)
    return [[frame.index_S.tolist() for frame in clip] for clip in clips]


def measure(run: Callable[[], Any], repeats: int, device: torch.device) -> list[tuple[float, float]]:
    """Milliseconds of every repeat: by the clock, and of the processor."""
    times = []
    for _ in range(repeats):
        synchronize(device)
        start, cpu_start = time.perf_counter(), time.process_time()
        run()
        synchronize(device)
        times.append(((time.perf_counter() - start) * 1e3, (time.process_time() - cpu_start) * 1e3))
    return times


def summary(times: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(times, [25, 50, 75])
    return {"median_ms": middle, "quartile_low_ms": low, "quartile_high_ms": high, "fastest_ms": min(times)}


def timed(times: list[tuple[float, float]]) -> dict[str, float]:
    """Summary by the clock, and the median of the processor's time."""
    return summary([ms for ms, _ in times]) | {"cpu_ms": float(np.median([ms for _, ms in times]))}


def compare(model: AutoGaze, name: str, counts: list[int], repeats: int, batches: list[int]) -> dict[str, Any]:
    generator, device = torch.Generator().manual_seed(0), model.device
    clip = torch.randn(1, FRAMES, 3, model.input_px, model.input_px, generator=generator).to(device, model.dtype)
    rows: dict[str, Any] = {"pattern": name, "gazes": sum(counts)}
    runs: dict[str, Callable[[], Any]] = {"engine": lambda: gaze(model.decoder, clip, counts)}
    if device.type == "cpu":
        loop = NaiveEngine(model.gazing_model.gaze_decoder, positions=model.config.positions)
        published = ClipDecoder(model.gazing_model, engine=loop)
        runs["published_loop"] = lambda: gaze(published, clip, counts)
        plain = Engine(model.gazing_model.gaze_decoder, positions=model.config.positions)
        by_torch = ClipDecoder(model.gazing_model, engine=plain)
        runs["engine_by_torch"] = lambda: gaze(by_torch, clip, counts)
        first, *others = [run() for run in runs.values()]
        rows["same_gazes"] = all(other == first for other in others)
    for _ in range(3 if device.type == "cuda" else 1):  # warm-up; there, steps are recorded in the second
        for run in runs.values():
            run()
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(repeats):
        for label, run in runs.items():
            times[label] += measure(run, 1, device)
    rows |= {label: timed(values) for label, values in times.items()}
    for size in batches:
        batch = clip.expand(size, -1, -1, -1, -1)
        times_of_batch = measure(lambda batch=batch: gaze(model.decoder, batch, counts), 5, device)
        together = timed(times_of_batch[2 if device.type == "cuda" else 0 :])
        rows[f"batch_of_{size}"] = together | {"per_clip_ms": together["median_ms"] / size}
    rows["limit"] = {"gflop": clip_flops(model, counts) / 1e9}
    rows["matmul_gflops_per_second"] = matmul_flops_per_second(device, model.dtype) / 1e9
    if "published_loop" in rows:
        published_ms = rows["published_loop"]["median_ms"]
        for name in ("engine", "engine_by_torch"):
            rows[f"published_over_{name}"] = published_ms / rows[name]["median_ms"]
        for size in batches:
            rows[f"published_over_batch_of_{size}"] = published_ms / rows[f"batch_of_{size}"]["per_clip_ms"]
    return rows


def set_limits(rows: list[dict[str, Any]]) -> None:
    """What the multiplications of each row take at the best rate that was measured beside any of them."""
    rate = max(row["matmul_gflops_per_second"] for row in rows)
    for row in rows:
        limit = row["limit"]
        limit["ms"] = limit["gflop"] / rate * 1e3
        limit["share"] = limit["ms"] / row["engine"]["median_ms"]
        if "published_loop" in row:
            limit["published_over_limit"] = row["published_loop"]["median_ms"] / limit["ms"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="default: random weights of the published shape")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batches", type=int, nargs="+", default=[16])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = AutoGaze.from_pretrained(options.checkpoint) if options.checkpoint else AutoGaze()
    model = model.eval().to(device=device, dtype=torch.bfloat16 if options.precision == "bf16" else torch.float32)
    load_before = os.getloadavg()[0]
    rows = [
        compare(model, name, counts, options.repeats if name != "full" else 3, options.batches)
        for name, counts in PATTERNS.items()
    ]
    set_limits(rows)
    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "device": device_name(device),
            "native": state(),
            "load_before": load_before,
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "repeats": options.repeats,
        "precision": options.precision,
        "weights": options.checkpoint or "random, published shape",
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
