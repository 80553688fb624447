"""Train the gaze model and the refiner that come with the package, from nothing to files that can be committed.

    python scripts/train_default.py --videos DIR --images DIR --val DIR [--minutes 25] [--out runs/default] [--install]

Stages: next-token training, training by reward, the refiner, the choice between the first two by the validation
clips, rounding to bf16, calibration. Each is an `autogaze` command that is printed before it runs. Run it again after
it was stopped, and it goes on where it was. Other words go to every stage, such as `--batch 8`. `--install` puts the
files in place of the bundled ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.checkpoint import write_tensors
from autogaze.reconstructors.refiner import Refiner

SHARES = {"ntp": 0.58, "grpo": 0.2, "reconstructor": 0.14}
"""Of the time; the rest is for validations, starts and calibration."""
BUNDLED = Path(__file__).parents[1] / "src" / "autogaze" / "checkpoints"
WEIGHTS = "model.safetensors"


def autogaze(*words: object) -> None:
    """Run a command, and end if it fails."""
    command = [sys.executable, "-m", "autogaze.cli", *map(str, words)]
    print("$ autogaze", *map(str, words), flush=True)
    subprocess.run(command, check=True)


def train(what: str, out: Path, arguments: argparse.Namespace, *more: object) -> Path:
    """Run a stage or its rest; its checkpoint."""
    minutes = round(SHARES[what] * arguments.minutes, 2)
    roots: list[object] = ["--videos", *arguments.videos, "--val", *arguments.val]
    if arguments.images:
        roots += ["--images", *arguments.images]
    chosen = ["--config", "bundled", "--out", out, "--total-minutes", minutes, "--resume"]
    autogaze("train", what, *chosen, *roots, *more, *arguments.more)
    return out / "checkpoint"


def own_loss(out: Path) -> float:
    """What the newest checkpoint of a run reaches on the validation clips."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = [line["own_loss"] for line in lines if line["event"] == "validation" and line["weights"] == "averaged"]
    return float(scores[-1])


def round_weights(source: Path, target: Path, kind: type[AutoGaze] | type[Refiner]) -> None:
    """Copy a checkpoint with its weights in bf16, half the bytes."""
    shutil.rmtree(target, ignore_errors=True)
    model = kind.from_pretrained(source)
    model.save_pretrained(target)
    rounded = {name: value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    write_tensors(rounded, target / WEIGHTS)


def install(bundle: Path) -> None:
    """Put the files of ``bundle/gaze`` and ``bundle/refiner``, where they are there, in place of the bundled ones."""
    for source in sorted(bundle.glob("*/*")):
        shutil.copy2(source, BUNDLED / source.parent.name / source.name)
        print(f"installed {source.parent.name}/{source.name}")


def main() -> None:
    """Train, choose, round, calibrate, install."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("videos", "val"):
        parser.add_argument(f"--{name}", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    parser.add_argument("--minutes", type=float, default=25.0, help="of all stages together")
    parser.add_argument("--out", type=Path, default=Path("runs/default"))
    parser.add_argument("--install", action="store_true")
    arguments, arguments.more = parser.parse_known_args()
    out: Path = arguments.out
    fast = ["--compile"] if torch.cuda.is_available() else []
    ntp = train("ntp", out / "ntp", arguments, *fast)
    grpo = train("grpo", out / "grpo", arguments, "--init", ntp)
    refiner = train("reconstructor", out / "refiner", arguments)
    better = grpo if own_loss(out / "grpo") <= own_loss(out / "ntp") else ntp
    print(f"better on the validation clips: {better}", flush=True)
    pair = out / "bundle"
    round_weights(better, pair / "gaze", AutoGaze)
    round_weights(refiner, pair / "refiner", Refiner)
    autogaze("calibrate", *arguments.val, "--model", pair / "gaze", "--overwrite")
    if arguments.install:
        install(pair)


if __name__ == "__main__":
    main()
