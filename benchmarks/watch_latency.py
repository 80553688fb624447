"""Latency and drops of ``autogaze watch`` at 30 frames a second; writes ``watch_latency.json`` beside itself.

    python benchmarks/watch_latency.py examples/sample.mp4 [--seconds 60] [--repeats 3] [--model replenish bundled ...]

The stream is the video's frames over and over, brought to 224 × 224 px at 30 frames a second. Each run is the command
as a process of its own (``--resize``, two threads), the models by turns. Resident memory is read from outside
after half of the time and at the end. Numbers are medians over the repeats, with the least and the most beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import psutil
import torch

SIDE_PX, FPS, THREADS = 224, 30, 2


def write_stream(source: Path, path: Path, seconds: float) -> None:
    """The source's frames over and over."""
    with av.open(str(source)) as container:
        frames = [frame.reformat(SIDE_PX, SIDE_PX, format="yuv420p") for frame in container.decode(video=0)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = SIDE_PX, SIDE_PX, "yuv420p"
        for number, frame in zip(range(round(seconds * FPS)), cycle(frames), strict=False):
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def one_run(stream: Path, model: str, seconds: float) -> dict[str, Any]:
    """The command's own summary, and what memory it held."""
    out = stream.with_suffix(".json")
    words = ["watch", str(stream), "--resize", "--model", model, "--json", str(out), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
    process = psutil.Popen([sys.executable, "-m", "autogaze_command", *words], env=environment)
    resident, begun = [], time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):  # it may just have ended
            resident.append((time.monotonic() - begun, process.memory_info().rss / 2**20))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed")
    half_way = next(megabytes for at, megabytes in resident if at >= seconds / 2)
    end = max(megabytes for at, megabytes in resident if at >= seconds * 0.9)
    return {**json.loads(out.read_text()), "resident_mb": {"half_way": half_way, "end": end}}


def of_model(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, least and most of each number."""

    def spread(*path: str) -> dict[str, float]:
        values = []
        for run in runs:
            value: Any = run
            for key in path:
                value = value[key]
            values.append(float(value))
        return {"median": statistics.median(values), "least": min(values), "most": max(values)}

    return {
        "frames_captured": spread("frames_captured"),
        "frames_dropped": spread("frames_dropped"),
        "kept_share": spread("kept_share"),
        "latency_ms": {name: spread("latency_ms", name) for name in ("p50", "p95", "p99", "max")},
        "gaze_ms": {name: spread("gaze_ms", name) for name in ("p50", "p95", "p99", "max")},
        "resident_mb": {name: spread("resident_mb", name) for name in ("half_way", "end")},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", nargs="+", default=["replenish", "bundled"])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {model: [] for model in options.model}
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / "stream.mp4"
        write_stream(options.video, stream, options.seconds)
        for _ in range(options.repeats):
            for model in options.model:
                runs[model].append(one_run(stream, model, options.seconds))
                said = runs[model][-1]
                print(
                    model,
                    said["latency_ms"],
                    f"{said['frames_dropped']} of {said['frames_captured']} dropped",
                    flush=True,
                )
    result = {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": THREADS},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "av": av.__version__},
        "stream": {"video": options.video.name, "side_px": SIDE_PX, "fps": FPS, "seconds": options.seconds},
        "repeats": options.repeats,
        "models": {model: of_model(of) for model, of in runs.items()},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
