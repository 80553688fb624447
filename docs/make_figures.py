"""Fill the tables of README.md, docs and model cards with the figures that ``benchmarks/`` wrote.

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

import bench_figures
import encoder_figures
import gaze_model_figures

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "src" / "autogaze" / "checkpoints"
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "command-line.md",
    ROOT / "docs" / "concepts.md",
    ROOT / "docs" / "training.md",
    ROOT / "docs" / "encoders.md",
    ROOT / "docs" / "departures.md",
    CARDS / "gaze" / "README.md",
    CARDS / "refiner" / "README.md",
)
SHOWN = (
    *("threshold 0.050", "threshold 0.025", "random patches, same number in every frame", "threshold 0.012"),
    *("ratio 0.05 per frame", "ratio 0.05 per clip"),
)
"""Rows of the benchmark that the first screen has room for."""
BY_THRESHOLD = "checkpoint, threshold"
"""The bundled checkpoint in ``selectors_on_val.json``."""
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
        f"{Path(video['video']).stem} ({video['size_px'][0]}×{video['size_px'][1]}, {video['tiles']} tiles) "
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
    """Time of one clip through the gaze model beside the published loop, and what arithmetic alone would take."""
    columns = ("this engine", "16 clips at once, each", "without a compiler", "multiplications alone")
    lines = [f"| gazes of a clip | published loop | {' | '.join(columns)} |", "|:--|--:|" + "--:|" * len(columns)]
    for row in data["rows"]:
        slow_ms = row["published_loop"]["median_ms"]
        faster_ms = (
            row["engine"]["median_ms"],
            row["batch_of_16"]["per_clip_ms"],
            row["engine_by_torch"]["median_ms"],
            row["limit"]["ms"],
        )
        times = [f"{slow_ms:.0f} ms", *(f"{ms:.0f} ms ({slow_ms / ms:.1f}×)" for ms in faster_ms)]
        lines.append(f"| {row['gazes']:,} ({row['pattern']}) | {' | '.join(times)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"One 16-frame clip, {data['weights']} weights, on {machine(data)}; the same gazes everywhere. The last "
            "column divides a clip's multiplications by the rate at which torch multiplies large matrices on the same "
            "threads.",
        ]
    )


def gaze_speed_gpu(data: dict[str, Any]) -> str:
    """Time a clip takes on a GPU, alone and in batches."""
    sizes = [size for size in (16, 64, 256) if f"batch_of_{size}" in data["rows"][0]]
    heads = " | ".join(f"in batches of {size}" for size in sizes)
    lines = [f"| gazes of a clip | one clip | {heads} |", "|:--|--:|" + "--:|" * len(sizes)]
    for row in data["rows"]:
        times = [row["engine"]["median_ms"], *(row[f"batch_of_{size}"]["per_clip_ms"] for size in sizes)]
        lines.append(f"| {row['gazes']:,} ({row['pattern']}) | {' | '.join(f'{time:.1f} ms' for time in times)} |")
    where = f"{data['machine']['device']} (torch {data['versions']['torch']})"
    return "\n".join([*lines, "", f"Medians for a 16-frame clip on {where}; weights: {data['weights']}."])


def bundled(data: dict[str, Any]) -> str:
    """One sentence that ranks the bundled checkpoint between replenishment and chance."""
    needed = _needed(data)
    parts = [
        f"{needed[BY_THRESHOLD, loss]['times_replenish']:.1f} times at a mean error of {loss:g} "
        f"(random patches: {needed['random, ratio', loss]['times_replenish']:.0f} times)"
        for loss in (0.05, 0.035, 0.025)
    ]
    return (
        f"For the same error on {data['clips']} validation clips, the bundled gaze model needs more patches than "
        f"`replenish`: {', '.join(parts)}."
    )


def equal_loss(data: dict[str, Any]) -> str:
    """Patches each selector needs for the same loss."""
    needed = _needed(data)
    columns = {
        "`replenish`": "replenish, threshold",
        "this model, threshold": BY_THRESHOLD,
        "this model, ratio": "checkpoint, ratio",
        "difference": "difference, ratio",
        "detail": "detail, ratio",
        "random": "random, ratio",
    }
    lines = [f"| mean error | {' | '.join(columns)} |", "|:--|" + "--:|" * len(columns)]
    for loss in sorted({row["loss"] for row in data["equal_loss"]}, reverse=True):
        cells = []
        for name in columns.values():
            row = needed[name, loss]
            never = f", {row['clips_that_miss']} never" if row["clips_that_miss"] else ""
            cells.append(f"{row['kept']:.1%} ({row['times_replenish']:.1f}×{never})")
        lines.append(f"| {loss:g} | {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Share of the patches needed, mean over {data['clips']} clips, and how many times those of `replenish`; "
            '"never": clips that do not get there at any limit tried, counted as needing every patch.',
        ]
    )


def limits(data: dict[str, Any]) -> str:
    """What the checkpoint does with each threshold, beside what replenishment does."""
    rows = {(row["selector"], row["limit"]): row for row in data["limits"]}
    lines = [
        "| threshold asked for | kept | mean error reached | PSNR | frames above | PSNR of `replenish` |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    for selector, limit in rows:
        if selector == BY_THRESHOLD:
            row, exact = rows[selector, limit], rows["replenish, threshold", limit]
            lines.append(
                f"| {limit:g} | {row['kept']:.1%} | {row['loss']:.4f} | {row['psnr_db']:.1f} dB | {row['over']:.0%} "
                f"| {exact['psnr_db']:.1f} dB |"
            )
    return "\n".join(lines)


def _needed(data: dict[str, Any]) -> dict[tuple[str, float], dict[str, Any]]:
    return {(row["selector"], row["loss"]): row for row in data["equal_loss"]}


def machine(data: dict[str, Any]) -> str:
    """What the figures were measured on, in words."""
    where = data["machine"]
    return f"{where['threads']} threads of {where['processor']} (torch {data['versions']['torch']})"


def evaluation(data: dict[str, Any]) -> str:
    """Patches that each selector keeps at equal PSNR, losing rows included."""
    (reconstructor, levels), *_ = data["equal_psnr"].items()
    heads = [f"{level['psnr_db']:g} dB" for level in levels]
    lines = [f"| patches kept at a PSNR of | {' | '.join(heads)} |", "|:--|" + "--:|" * len(levels)]
    for number, cost in enumerate(levels[0]["costs"]):
        cells = []
        for level in levels:
            here = level["costs"][number]
            times = "" if here["times"] is None or here["times"] == 1 else f" ({here['times']:.1f}×)"
            cells.append("–" if here["kept"] is None else f"{here['kept']:.1%}{times}")
        lines.append(f"| `{cost['selector']}` | {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Of {data['clips']} validation clips of 16 frames, rebuilt by the {reconstructor}, each selector at its "
            "best settings; – where it never gets there. From `autogaze evaluate`, whose report has the curves.",
        ]
    )


def refined(data: dict[str, Any]) -> str:
    """What the refiner adds to the canvas, for the same gazes."""
    lines = ["| selection | kept | canvas | refined | mean error | SSIM |", "|:--|--:|--:|--:|--:|--:|"]
    for row in data["rows"]:
        before, after = row["canvas"], row["refined"]
        lines.append(
            f"| {row['selection']} | {row['kept']:.1%} | {before['psnr_db']:.2f} dB | {after['psnr_db']:.2f} dB "
            f"| {before['loss']:.4f} → {after['loss']:.4f} | {before['ssim']:.3f} → {after['ssim']:.3f} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"Means over {data['clips']} validation clips of 16 frames at 224×224, from "
            "`benchmarks/refiner_on_val.py`; PSNR counts a frame without any error as 100 dB.",
        ]
    )


def refined_short(data: dict[str, Any]) -> str:
    """The same in one sentence."""
    (row,) = (row for row in data["rows"] if row["selection"] == "replenish 0.025")
    before, after = row["canvas"]["psnr_db"], row["refined"]["psnr_db"]
    return (
        "`refined`, a small network that comes with the package, makes more of the same patches: "
        f"{after:.1f} dB instead of the canvas's {before:.1f} dB at {row['kept']:.1%} kept "
        "([card](src/autogaze/checkpoints/refiner/README.md))."
    )


def canvas_motion(data: dict[str, Any]) -> str:
    """What a canvas that moves saves and takes, for each kind of clip."""
    named = {"scans": "rides of a window over pictures", "videos": "validation videos in which much moves"}
    lines = [
        "| clips | patches | with motion | saved | clips that need more | time a frame | with motion |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    for kind, total in data["totals"].items():
        before, after = total["patches"]
        spent = " | ".join(f"{ms:.1f} ms" for ms in total["median_processor_ms_a_frame"])
        lines.append(
            f"| {total['clips']} {named[kind]} | {before:,} | {after:,} | {total['saved']:.0%} "
            f"| {total['clips_with_more_patches']} | {spent} |"
        )
    lines += [
        "",
        f"Clips of 16 frames at a mean error of {data['threshold']:g} or less, from `benchmarks/canvas_motion.py`. "
        "Time is what choosing takes of one processor, without decoding: the median over the clips.",
    ]
    return "\n".join(lines)


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "sparse-encoders": ("sparse_encoders.json", encoder_figures.full),
    "sparse-encoders-short": ("sparse_encoders.json", encoder_figures.short),
    "replenish": ("replenish_table.json", replenish),
    "gaze-speed": ("gaze_speed.json", gaze_speed),
    "gaze-speed-gpu": ("gaze_speed_h200.json", gaze_speed_gpu),
    "bundled": ("selectors_on_val.json", bundled),
    "equal-loss": ("selectors_on_val.json", equal_loss),
    "limits": ("selectors_on_val.json", limits),
    "canvas-motion": ("canvas_motion.json", canvas_motion),
    "refined": ("refiner_on_val.json", refined),
    "refined-short": ("refiner_on_val.json", refined_short),
    "evaluation": ("evaluation_on_val.json", evaluation),
    "against-both": ("bundled_on_val.json", gaze_model_figures.against_both),
    "all-selectors": ("bundled_on_val.json", gaze_model_figures.all_selectors),
    "thresholds": ("bundled_on_val.json", gaze_model_figures.thresholds),
    "restart": ("bundled_on_val.json", gaze_model_figures.restart),
    "stages": ("stage_ablation.json", gaze_model_figures.stages),
    "bench": ("bench.json", bench_figures.costs),
    "watch": ("watch_latency.json", bench_figures.watching),
    "cascade": ("cascade.json", bench_figures.cascade),
    "many-tiles": ("many_tiles.json", bench_figures.many_tiles),
    "stream-tiles": ("stream_tiles.json", bench_figures.stream_tiles),
    "half-precision": ("half_precision.json", bench_figures.half_precision),
    "lazy-labels": ("lazy_labels.json", gaze_model_figures.lazy_labels),
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
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        new = filled(page)
        if "--check" not in sys.argv[1:]:
            path.write_text(new, encoding="utf-8")
        elif new != page:
            sys.exit(
                f"the tables of {path.relative_to(ROOT)} are not those of benchmarks/; run: python docs/make_figures.py"
            )
