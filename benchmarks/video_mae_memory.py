"""Peak memory of the masked autoencoder over the length of a clip, and the speed of trying gazes; writes
``video_mae_memory.json`` beside itself.

    python benchmarks/video_mae_memory.py [--frames 16 32 64 128] [--ratio 0.25] [--threads 2]

Each length is a process of its own: the published sizes with random weights in float32, a quarter of the cells of
every frame gazed at, every frame rebuilt. ``model_mb`` is the peak once the model is built. Before that, a session of
the small preset tries gazes for the next frame of a clip, as the search for labels does. Where others use the
processor too, ``cpu_seconds`` (of all threads together) tell more than ``seconds``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from autogaze.gaze import Gaze
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VideoMAEConfig, large, tiny
from autogaze.tasks.video_mae_reconstruction.incremental import VideoMAESession
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE
from autogaze.tiling import tile_layout

CANDIDATES = 265
REPEATS = 3


def peak_mb() -> float:
    """Peak resident size of this process so far, in 10⁶ bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, this forgets what the parent process needed
        return float(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def random_gaze(config: VideoMAEConfig, frames: int, ratio: float) -> Gaze:
    """The same number of cells in every frame, any of them."""
    rng, P = np.random.default_rng(0), config.grid.num_patches
    kept = round(ratio * P)
    index = np.concatenate([rng.permutation(P)[:kept] for _ in range(frames)])
    return Gaze(index=index, count=np.full(frames, kept), layout=tile_layout(config.grid))


def one_clip(frames: int, ratio: float) -> dict[str, float]:
    """Rebuild one clip."""
    config = large()
    model = VideoMAE(config).eval()
    built = peak_mb()
    start, start_cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        output = model(torch.randn(1, frames, 3, 224, 224), random_gaze(config, frames, ratio))
    assert output.loss_mean.isfinite().all()
    return {
        "frames": frames,
        "peak_mb": round(peak_mb()),
        "model_mb": round(built),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - start_cpu, 1),
    }


def trying(past_frames: int, gazes: int) -> dict[str, float]:
    """How many sets of gazes a session tries in a second."""
    model, frame = VideoMAE(tiny()).eval(), torch.randn(1, 3, 224, 224)
    session, rng = VideoMAESession(model), np.random.default_rng(0)
    for _ in range(past_frames):
        session.add_frame(frame, [rng.permutation(CANDIDATES)[:gazes]])
    picks = torch.from_numpy(rng.permutation(CANDIDATES)[: gazes // 2])
    tried = torch.cat([picks.expand(CANDIDATES, -1), torch.arange(CANDIDATES)[:, None]], dim=1)
    seconds, cpu_seconds = [], []
    for _ in range(1 + REPEATS):  # the first one warms up
        start, start_cpu = time.perf_counter(), time.process_time()
        session.losses(frame, tried)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - start_cpu)
    return {
        "past_frames": past_frames,
        "gazes_a_frame": gazes,
        "candidates_a_second": round(CANDIDATES / statistics.median(seconds[1:]), 1),
        "fastest": round(CANDIDATES / min(seconds[1:]), 1),
        "slowest": round(CANDIDATES / max(seconds[1:]), 1),
        "candidates_a_cpu_second": round(CANDIDATES / statistics.median(cpu_seconds[1:]), 1),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--ratio", type=float, default=0.25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.run:
        kind, *numbers = options.run
        run = one_clip(int(numbers[0]), options.ratio) if kind == "clip" else trying(*map(int, numbers))
        print(json.dumps(run))
        return

    def measured(*run: str) -> dict[str, float]:
        command = [sys.executable, __file__, "--ratio", str(options.ratio), "--threads", str(options.threads)]
        out = subprocess.run([*command, "--run", *run], check=True, capture_output=True, text=True).stdout
        print(out.strip(), flush=True)
        return json.loads(out)

    candidates = [measured("try", str(past), "26") for past in (0, 8, 15)]
    clips = [measured("clip", str(frames)) for frames in options.frames]
    growth = np.diff([clip["peak_mb"] for clip in clips]) / np.diff([clip["frames"] for clip in clips])
    result = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": options.threads},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "clips": {"sizes": "large", "ratio": options.ratio, "rebuilt": "all frames", "dtype": "float32", "rows": clips},
        "mb_a_frame": [round(float(one), 1) for one in growth],
        "candidates": {"sizes": "tiny", "candidates": CANDIDATES, "repeats": REPEATS, "rows": candidates},
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
