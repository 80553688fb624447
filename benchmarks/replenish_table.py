"""Kept share, quality and time of replenishment on a folder of clips; writes ``replenish_table.json`` beside itself.

    python benchmarks/replenish_table.py FOLDER [--large VIDEO ...] [--repeats 3] [--every 1]

A clip is the first 16 frames of a video, every second one where it has at least 32, resized to 224 × 224 with
Pillow's bilinear filter. Kept = gazes / (16 · 265). Loss and PSNR are measured by pasting the gazes on a fresh
canvas. PSNR of a row is the mean over clips of the mean over a clip's frames; frames without any error count as
``PERFECT_DB``. Times are of ``session.step`` on the decoded clip, scales and pasting included, decoding and
Pillow not: by the clock, and in processor time over all threads, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
import PIL
import torch
from PIL import Image

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.base import CLIP_FRAMES, Budget
from autogaze.selectors.canvas import quality
from autogaze.selectors.replenish import Replenish

THRESHOLDS = (0.050, 0.035, 0.025, 0.018, 0.012)
SIDE_PX = 224
PERFECT_DB = 100.0
VIDEO_SUFFIXES = {".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Means over clips, under the canvas."""

    selection: str
    kept: float
    loss: float
    psnr_db: float
    psnr_of_clip_db: float
    ms_median: float | None
    ms_quartiles: tuple[float, float] | None
    processor_ms_median: float | None


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """What one run took."""

    clock: float
    processor: float


def read_rgb(path: Path, limit: int) -> np.ndarray:
    """The first ``limit`` frames of a video, (T, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in islice(container.decode(video=0), limit)])


def read_clip(path: Path) -> Frames:
    """The clip that the table is about."""
    rgb = read_rgb(path, 2 * CLIP_FRAMES)
    rgb = (rgb[::2] if len(rgb) >= 2 * CLIP_FRAMES else rgb)[:CLIP_FRAMES]
    small = [np.asarray(Image.fromarray(one).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)) for one in rgb]
    return Frames.from_rgb(np.stack(small))


def timed(frames: Frames, layout: FrameLayout, budget: Budget) -> tuple[Gaze, Seconds]:
    """The gaze of a clip and the seconds it took."""
    session = Replenish(layout.grid).open(layout, budget)
    clock, processor = time.perf_counter(), time.process_time()
    gaze = session.step(frames)
    return gaze, Seconds(clock=time.perf_counter() - clock, processor=time.process_time() - processor)


def random_like(gaze: Gaze, rng: np.random.Generator) -> Gaze:
    """As many gazes in every frame, drawn at random."""
    index = [rng.choice(gaze.layout.num_indices, size, replace=False) for size in gaze.count]
    return Gaze(index=np.concatenate(index), count=gaze.count, layout=gaze.layout)


def row(selection: str, clips: list[Frames], gazes: list[Gaze], seconds: list[Seconds] | None) -> Row:
    """Means over clips of what a canvas shows."""
    qualities = [quality(clip, gaze=gaze) for clip, gaze in zip(clips, gazes, strict=True)]
    # 16 whatever the clip's length, as the table is defined
    kept = [gaze.num_gazes / (CLIP_FRAMES * gaze.layout.num_patches) for gaze in gazes]
    frame_db = [np.minimum(q.psnr_db, PERFECT_DB) for q in qualities]
    clip_db = [-10 * np.log10(np.mean(10 ** (-db / 10))) for db in frame_db]
    ms = None if seconds is None else np.percentile([one.clock * 1e3 for one in seconds], [25, 50, 75])
    return Row(
        selection=selection,
        kept=float(np.mean(kept)),
        loss=float(np.mean([q.loss.mean() for q in qualities])),
        psnr_db=float(np.mean([db.mean() for db in frame_db])),
        psnr_of_clip_db=float(np.mean(clip_db)),
        ms_median=None if ms is None else float(ms[1]),
        ms_quartiles=None if ms is None else (float(ms[0]), float(ms[2])),
        processor_ms_median=None if seconds is None else float(np.median([one.processor * 1e3 for one in seconds])),
    )


def table(clips: list[Frames], layout: FrameLayout, *, repeats: int) -> list[Row]:
    """All rows."""

    def select(selection: str, budget: Budget) -> tuple[Row, list[Gaze]]:
        runs = [[timed(clip, layout, budget) for clip in clips] for _ in range(repeats)]
        gazes = [gaze for gaze, _ in runs[0]]
        return row(selection, clips, gazes, [seconds for run in runs for _, seconds in run]), gazes

    timed(clips[0], layout, Budget(threshold=0.02))  # warm-up
    rows, rng = [], np.random.default_rng(0)
    for threshold in THRESHOLDS:
        result, gazes = select(f"threshold {threshold:.3f}", Budget(threshold=threshold))
        rows.append(result)
        if threshold == 0.025:
            counted = [random_like(gaze, rng) for gaze in gazes]
            rows.append(row("random patches, same number in every frame", clips, counted, None))
    for ratio in (0.033, 0.05):
        rows.append(select(f"ratio {ratio} per frame", Budget(ratio=ratio))[0])
        rows.append(select(f"ratio {ratio} per clip", Budget(ratio=ratio, per="clip"))[0])
    return rows


def large(path: Path, *, repeats: int) -> dict[str, object]:
    """Frames per second of a tiled video at 5 % kept, first frame included."""
    frames = Frames.from_rgb(read_rgb(path, CLIP_FRAMES))
    layout = FrameLayout.tiled(PatchGrid(), height_px=frames.height_px, width_px=frames.width_px)
    runs = [timed(frames, layout, Budget(ratio=0.05)) for _ in range(repeats)]
    fps = sorted(len(frames) / seconds.clock for _, seconds in runs)
    return {
        "video": path.name,
        "frames": len(frames),
        "size_px": [frames.width_px, frames.height_px],
        "tiles": layout.num_tiles,
        "kept": runs[0][0].ratio,
        "frames_per_second": {"median": float(np.median(fps)), "least": fps[0], "most": fps[-1]},
        "processor_ms_per_frame": float(np.median([one.processor for _, one in runs])) / len(frames) * 1e3,
    }


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--large", type=Path, nargs="*", default=[], help="videos to time tiled at 5 %% kept")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="use every n-th clip")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix in VIDEO_SUFFIXES)[:: arguments.every]
    clips = [read_clip(path) for path in paths]
    layout = FrameLayout.tiled(PatchGrid(), height_px=SIDE_PX, width_px=SIDE_PX)
    rows = table(clips, layout, repeats=arguments.repeats)
    result = {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": arguments.threads,
            "load_before": round(os.getloadavg()[0], 1),
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "av": av.__version__,
            "pillow": PIL.__version__,
        },
        "clips": len(clips),
        "repeats": arguments.repeats,
        "rows": [asdict(one) for one in rows],
        "large": [large(path, repeats=arguments.repeats) for path in arguments.large],
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    for one in rows:
        ms = "" if one.ms_median is None else f"{one.ms_median:6.1f} ms ({one.processor_ms_median:.1f} ms processor)"
        print(f"{one.selection:44} {one.kept:6.2%} {one.psnr_db:6.2f} dB  {one.loss:.4f} {ms}")
    print(*result["large"], sep="\n")


def processor() -> str:
    """The processor's name."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
