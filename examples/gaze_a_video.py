"""Gaze at a video, write the results as files, and look into them.

Run ``python examples/gaze_a_video.py VIDEO [--out DIR] [--frames COUNT] [--ratio SHARE]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import autogaze


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--out", type=Path, default=Path("gaze-results"))
    parser.add_argument("--frames", type=int, help="look at this many, spread evenly")
    parser.add_argument("--ratio", type=float, help="keep at most this share of the patches of each frame")
    options = parser.parse_args()

    summary = autogaze.gaze_to_files(options.video, options.out, frames=options.frames, ratio=options.ratio)
    print(f"{summary.name}: {summary.frames} frames, {summary.kept_share:.1%} of the patches kept")
    for name in summary.files:
        print(f"  {options.out / name}")

    gaze = autogaze.Gaze.load(options.out / f"{summary.name}.gaze")
    for scale_px in gaze.layout.grid.scales_px:
        print(f"scale {scale_px:3d} px: {(gaze.scale_px == scale_px).sum():6,} patches")
    busiest = int(gaze.count.argmax())
    print(f"most was kept of frame {busiest}: {gaze[busiest]}")


if __name__ == "__main__":
    main()
