"""Fill the tables of README.md with the figures that ``benchmarks/`` wrote.

Run ``python docs/make_figures.py`` after a benchmark; ``--check`` only says whether the tables are up to date. A
table stands between ``<!-- figures NAME -->`` and ``<!-- end -->``; each has a function here that turns one JSON file
into Markdown. No figure is typed by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "README.md"
SHOWN = (
    *("threshold 0.050", "threshold 0.025", "random patches, same number in every frame", "threshold 0.012"),
    *("ratio 0.05 per frame", "ratio 0.05 per clip"),
)
"""Rows of the benchmark that the first screen has room for."""
_TABLE = re.compile(r"(<!-- figures ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


def replenish(data: dict[str, Any]) -> str:
    """Quality, kept share and time of replenishment, losing rows included."""
    lines = [
        "| selection | kept | PSNR | mean error | time a clip |",
        "|:--|--:|--:|--:|--:|",
    ]
    rows = {row["selection"]: row for row in data["rows"]}
    for row in [rows[selection] for selection in SHOWN if selection in rows]:
        name = re.sub(
            r"^(threshold|ratio) ([\d.]+)", lambda found: f"`{found[1]}={float(found[2]):g}`", row["selection"]
        )
        spent = "–" if row["ms_median"] is None else f"{row['ms_median']:.0f} ms"
        lines.append(f"| {name} | {row['kept']:.1%} | {row['psnr_db']:.1f} dB | {row['loss']:.4f} | {spent} |")
    large = [
        f"{video['size_px'][0]}×{video['size_px'][1]} in {video['tiles']} tiles: "
        f"{video['frames_per_second']['median']:.1f} frames a second"
        for video in data["large"]
    ]
    lines += [
        "",
        f"Means over {data['clips']} clips of 16 frames at 224×224; frames without any error count as 100 dB. Time is "
        f"the median of choosing the patches, without decoding, on {machine(data)}. Whole frames at 5 % kept: "
        f"{', '.join(large)}.",
    ]
    return "\n".join(lines)


def gaze_speed(data: dict[str, Any]) -> str:
    """Time of one clip through the gaze model beside the published loop."""
    lines = ["| gazes of a clip | this engine | its kernels alone | published loop |", "|:--|--:|--:|--:|"]
    for row in data["rows"]:
        times = [
            f"{row[name]['median_ms']:.0f} ms" if name in row else "–"
            for name in ("engine", "kernels", "published_loop")
        ]
        lines.append(f"| {row['gazes']:,} ({row['pattern']}) | {' | '.join(times)} |")
    return "\n".join([*lines, "", f"One 16-frame clip, {data['weights']} weights, on {machine(data)}."])


def _option(found: re.Match[str]) -> str:
    return f"`{found[1]}={float(found[2]):g}`"


def machine(data: dict[str, Any]) -> str:
    """What the figures were measured on, in words."""
    where = data["machine"]
    return f"{where['threads']} threads of {where['processor']} (torch {data['versions']['torch']})"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "replenish": ("replenish_table.json", replenish),
    "gaze-speed": ("gaze_speed.json", gaze_speed),
}


def filled(page: str) -> str:
    """The page with every table made anew."""

    def table(found: re.Match[str]) -> str:
        file, make = TABLES[found[2]]
        path = ROOT / "benchmarks" / file
        content = make(json.loads(path.read_text())) if path.exists() else "Not measured yet."
        return f"{found[1]}{content}\n{found[3]}"

    return _TABLE.sub(table, page)


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    new = filled(page)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(new, encoding="utf-8")
    elif new != page:
        sys.exit("the tables of README.md are not those of benchmarks/; run: python docs/make_figures.py")
