"""What a refiner adds to the canvas on a folder of clips; writes JSON.

    python benchmarks/refiner_on_val.py FOLDER --refiner DIR [--every 3] [--out FILE]

A clip is the first 16 frames of a video, every second one where it has at least 32, resized to 224 × 224 with
Pillow's bilinear filter. The same gaze is rebuilt by the canvas and by the refiner: loss = mean absolute error over
the clip's frames (colours in 0…1), PSNR = mean over its frames (frames without any error count as 100 dB) and of the
mean squared error of all frames of all clips. "random" keeps as many patches in every frame as replenish did.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from replenish_table import VIDEO_SUFFIXES, processor, random_like, read_clip

from autogaze.evaluation.metrics import picture_metrics
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.reconstructors import Reconstructor, load_reconstructor, rebuild
from autogaze.selectors import make_selector
from autogaze.selectors.base import Budget

LAYOUT = FrameLayout.resized(PatchGrid(), height_px=224, width_px=224)
THRESHOLDS = (0.050, 0.035, 0.025, 0.018, 0.012)


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """One clip, one gaze, one reconstructor."""

    loss: float
    psnr_db: float
    mse: float
    ssim: float
    seconds: float

    @classmethod
    def of(cls, frames: Frames, gaze: Gaze, reconstructor: Reconstructor) -> Rebuilt:
        before = time.perf_counter()
        rebuilt = rebuild(frames, gaze=gaze, reconstructor=reconstructor)
        seconds = time.perf_counter() - before
        metrics = picture_metrics(rebuilt.rgb, frames.rgb)
        means = (float(values.mean()) for values in (rebuilt.loss, metrics.capped_psnr_db, metrics.mse, metrics.ssim))
        loss, psnr_db, mse, ssim = means
        return cls(loss=loss, psnr_db=psnr_db, mse=mse, ssim=ssim, seconds=seconds)


def row(selection: str, kept: list[float], canvas: list[Rebuilt], refined: list[Rebuilt]) -> dict[str, object]:
    """Means over clips, before and after."""
    told: dict[str, object] = {"selection": selection, "kept": float(np.mean(kept))}
    for name, found in (("canvas", canvas), ("refined", refined)):
        told[name] = {
            "loss": float(np.mean([one.loss for one in found])),
            "psnr_db": float(np.mean([one.psnr_db for one in found])),
            "pooled_psnr_db": float(-10 * np.log10(np.mean([one.mse for one in found]))),
            "ssim": float(np.mean([one.ssim for one in found])),
            "seconds_median": float(np.median([one.seconds for one in found])),
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--refiner", required=True)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.folder.iterdir() if path.suffix in VIDEO_SUFFIXES)[:: arguments.every]
    clips = [read_clip(path) for path in paths]
    reconstructors = [load_reconstructor("canvas"), load_reconstructor(arguments.refiner)]
    replenish, rows = make_selector("replenish"), []
    for threshold in THRESHOLDS:
        gazes = [replenish.open(LAYOUT, Budget(threshold=threshold)).step(clip) for clip in clips]
        selections = {f"replenish {threshold:.3f}": gazes}
        if threshold == 0.025:
            rng = np.random.default_rng(0)
            selections["random, as many as replenish 0.025"] = [random_like(gaze, rng) for gaze in gazes]
        for name, chosen in selections.items():
            canvas, refined = (
                [Rebuilt.of(clip, gaze, one) for clip, gaze in zip(clips, chosen, strict=True)]
                for one in reconstructors
            )
            rows.append(row(name, [gaze.ratio for gaze in chosen], canvas, refined))
    result = {
        "machine": {"processor": processor(), "threads": torch.get_num_threads()},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "clips": len(clips),
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
