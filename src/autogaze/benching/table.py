"""A benchmark as a terminal shows it."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from autogaze.benching.report import BenchReport
from autogaze.benching.rows import REAL_TIME_FPS, STAGES, Row
from autogaze.captions import percent
from autogaze.selectors.base import CLIP_FRAMES

NONE = "–"


def report_table(report: BenchReport) -> Table:
    """A line for each selector."""
    table = Table(box=None, pad_edge=False)
    table.add_column("selector")
    for title in (
        "kept",
        f"{CLIP_FRAMES} frames",
        "quartiles",
        "fastest",
        "a tile",
        "frames/s",
        f"× {REAL_TIME_FPS:g} fps",
        *STAGES,
        "memory",
    ):
        table.add_column(title, justify="right")
    for row in report.rows:
        table.add_row(Text(row.name), *_cells(row))
    return table


def comparisons(report: BenchReport) -> list[str]:
    """What the naive loop of each gaze model takes beside the engine, a line each."""
    lines = []
    for engine, naive in zip(report.rows, report.rows[1:], strict=False):
        if not naive.naive:
            continue
        times = naive.clip_ms.median / engine.clip_ms.median
        gazes = "the same gazes" if naive.same_gazes else "other gazes: rounding tips near ties"
        lines.append(f"{engine.name}: the naive loop takes {times:.2f} times as long for a clip, {gazes}")
    return lines


def _cells(row: Row) -> list[str]:
    clip, shares = row.clip_ms, row.stage_shares()
    return [
        percent(row.kept_share),
        f"{_number(clip.median)} ms",
        f"{_number(clip.quartile_low)}–{_number(clip.quartile_high)}",
        _number(clip.least),
        f"{_number(row.tile_clip_ms)} ms",
        _number(row.fps.median),
        f"{row.real_time:.2f}" if row.real_time < 10 else f"{row.real_time:.0f}",
        *(f"{shares[stage]:.0%}" if shares[stage] else NONE for stage in STAGES),
        NONE if row.memory is None else f"+{row.memory.over_base_mb:.0f} MB",
    ]


def _number(value: float) -> str:
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"
