"""Polish the bundled gaze model without a GPU, from its own gazes to files that can be committed.

    python scripts/polish_default.py --videos DIR --images DIR --val DIR [--out runs/polish] [--install]

Stages: its last blocks learn what its own gazes were worth (``polish_gaze.py``), the stop head is fitted to what the
blocks say now, rounding to bf16, calibration. About an hour on two cores. What was gathered for the first stage is kept
in the folder; every stage is printed before it runs. Other words go to the first, such as ``--epochs 3``. ``--install``
puts the files in place of the bundled ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from train_default import autogaze, install, round_weights

from autogaze.models.autogaze.autogaze import AutoGaze

LESSONS, STOP_HEAD_CLIPS, LEVELS = 1000, 400, 14
"""Clips that the model gazes at to learn, and for its stop head; levels of the calibration."""


def main() -> None:
    """Polish, fit, round, calibrate, install."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("videos", "val"):
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/polish"))
    parser.add_argument("--install", action="store_true")
    arguments, more = parser.parse_known_args()
    out: Path = arguments.out
    clips = ["--videos", *arguments.videos, "--images", *arguments.images]
    words = [*clips, "--work", out / "lessons", "--out", out / "polished", "--clips", LESSONS, *more]
    print("$ polish_gaze.py", *words, flush=True)
    subprocess.run([sys.executable, Path(__file__).with_name("polish_gaze.py"), *map(str, words)], check=True)
    settings = ["--out", out / "stop_head", "--clips", STOP_HEAD_CLIPS, "--overwrite"]
    autogaze("train", "stop_head", "--init", out / "polished", *clips, *settings)
    round_weights(out / "stop_head" / "checkpoint", out / "bundle" / "gaze", AutoGaze)
    autogaze("calibrate", *arguments.val, "--model", out / "bundle" / "gaze", "--levels", LEVELS, "--overwrite")
    if arguments.install:
        install(out / "bundle")


if __name__ == "__main__":
    main()
