"""What an evaluation found, as one small JSON: patches at equal PSNR, and the means of every setting.

    autogaze evaluate FOLDER --max-clips 1 --out DIR \\
        --selectors replenish,difference,difference-paper,flow,detail,random,uniform,bundled
    python benchmarks/evaluation_on_val.py DIR [--out FILE]

Clips are the first 16 frames of every video, resized to 224 × 224; settings are the default ones. "kept" at a PSNR is
read off a selector's Pareto front; intervals are over resampled videos. See docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from autogaze.evaluation.findings import at_equal_psnr
from autogaze.evaluation.rows import ClipRow, SummaryRow
from autogaze.evaluation.tables import CLIPS_CSV, SUMMARY_CSV, read_rows

SHOWN = (
    *("reconstructor", "selector", "setting", "clips", "actual_gaze_ratio", "reconstruction_loss", "psnr", "ssim"),
    *("pixel_mse", "gaze_seconds", "reconstruction_seconds"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    metadata = json.loads((arguments.evaluation / "metadata.json").read_text())
    clips = read_rows(arguments.evaluation / CLIPS_CSV, ClipRow)
    summary = read_rows(arguments.evaluation / SUMMARY_CSV, SummaryRow)
    names = list(dict.fromkeys(row.reconstructor for row in summary))
    result = {
        "machine": metadata["machine"],
        "versions": metadata["versions"],
        "videos": len({row.video for row in clips}),
        "clips": len({row.clip_name for row in clips}),
        "equal_psnr": {
            name: [asdict(level) for level in at_equal_psnr(summary, clips, reconstructor=name)] for name in names
        },
        "summary": [{name: getattr(row, name) for name in SHOWN} for row in summary],
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
