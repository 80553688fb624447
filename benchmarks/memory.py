"""Peak memory of gazing at long 1080p videos; writes ``memory.json`` beside itself.

    python benchmarks/memory.py VIDEO [--seconds 20 60 180] [--model replenish ...]

Each video is VIDEO's frames over and over, brought to 1920 × 1080 at 30 frames a second. Each run is a process of
its own; its peak resident size is compared with the same process's after loading everything and gazing at one
second. ``bounded`` is true where the longest video needs at most 5 % more than the shortest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import av
import torch

import autogaze
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.selectors.base import Budget

SIZE = (1920, 1080)
FPS = 30


def write_video(source: Path, path: Path, seconds: int) -> None:
    """A video of that length with the source's frames over and over."""
    with av.open(str(source)) as container:
        frames = [
            frame.reformat(*SIZE, format="yuv420p")
            for frame, _ in zip(container.decode(video=0), range(60), strict=False)
        ]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number, frame in zip(range(seconds * FPS), cycle(frames), strict=False):
            frame.pts = number
            frame.time_base = Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def peak_mb() -> float:
    """Peak resident size of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, this forgets what the parent process needed
        return float(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def one_run(video: str, model: str, mode: str) -> None:
    """Gaze at a video and print the peak after a short one and after all of it, in MB."""
    torch.set_num_threads(2)
    imports = peak_mb()
    selector = AutoGazeSelector(AutoGaze().eval(), budget=Budget(ratio=0.05)) if model == "autogaze" else model
    short = video.replace(Path(video).name, "1.mp4")
    autogaze.gaze(short, model=selector, mode=mode)
    before = peak_mb()
    gaze = autogaze.gaze(video, model=selector, mode=mode)
    print(json.dumps({"frames": len(gaze), "peak_mb": peak_mb(), "after_one_second_mb": before, "imports_mb": imports}))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--seconds", type=int, nargs="+", default=[20, 60, 180])
    parser.add_argument("--model", nargs="+", default=["replenish", "autogaze"])
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        one_run(str(options.video), *options.run)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in [1, *options.seconds]:
            write_video(options.video, Path(folder) / f"{seconds}.mp4", seconds)
        for model in options.model:
            for seconds in options.seconds:
                command = [sys.executable, __file__, f"{folder}/{seconds}.mp4", "--run", model, "resize"]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                rows.append({"model": model, "mode": "resize", "seconds": seconds, **json.loads(out)})
                print(rows[-1], flush=True)
    result = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "av": av.__version__},
        "rows": rows,
        "bounded": {
            model: rows_of[-1]["peak_mb"] <= 1.05 * rows_of[0]["peak_mb"]
            for model in options.model
            for rows_of in [[row for row in rows if row["model"] == model]]
        },
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
