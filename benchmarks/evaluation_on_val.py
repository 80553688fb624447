"""What `autogaze evaluate` finds on a folder of clips, as one small JSON: patches at equal PSNR, and every setting.

    python benchmarks/evaluation_on_val.py FOLDER --evaluation DIR [--out FILE]

Runs (or continues, or only reads, if it is complete) the evaluation of the first 16 frames of every video, resized to
224 × 224, of all selectors without weights and the bundled gaze model at their default settings, into DIR. "kept" at
a PSNR is read off a selector's Pareto front; intervals are over resampled videos. See docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from autogaze.evaluation import evaluate
from autogaze.evaluation.findings import at_equal_psnr

SELECTORS = ("replenish", "difference", "difference-paper", "flow", "detail", "random", "uniform", "bundled")
SHOWN = (
    "setting",
    "selector",
    "reconstructor",
    "actual_gaze_ratio",
    "reconstruction_loss",
    "psnr",
    "ssim",
    "pixel_mse",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--reconstructors", default="canvas")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    reconstructors = arguments.reconstructors.split(",")
    found = evaluate(
        [str(path) for path in sorted(arguments.folder.glob("*.mp4"))],
        out=arguments.evaluation,
        selectors=SELECTORS,
        reconstructors=reconstructors,
        max_clips=1,
    )
    metadata = json.loads((found.folder / "metadata.json").read_text())
    result = {
        "machine": metadata["machine"],
        "versions": metadata["versions"],
        "videos": len(found.videos),
        "clips": len({row.clip_name for row in found.clips}),
        "equal_psnr": {
            name: [asdict(level) for level in at_equal_psnr(found.summary, found.clips, reconstructor=name)]
            for name in reconstructors
        },
        "summary": [{name: getattr(row, name) for name in SHOWN} for row in found.summary],
        "seconds_a_clip": {
            selector: {
                row.setting: {"gaze": row.gaze_seconds, "rebuild": row.reconstruction_seconds}
                for row in found.summary
                if row.selector == selector and row.reconstructor == reconstructors[0]
            }
            for selector in SELECTORS
        },
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
