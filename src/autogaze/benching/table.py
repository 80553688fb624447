"""A benchmark as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from autogaze.benching.report import BenchReport, count_frames
from autogaze.benching.rows import REAL_TIME_FPS, STAGES, three_digits
from autogaze.captions import percent

NONE = "–"


def time_table(report: BenchReport) -> Table:
    """What is kept and how long that takes, a line for each selector; 80 letters wide with names of usual length."""
    length = count_frames(report.clip_frames)
    table = _table("kept", length, "quartiles", "fastest", "frames/s", f"× {REAL_TIME_FPS:g} fps")
    for row in report.rows:
        clip = row.clip_ms
        table.add_row(
            Text(row.name),
            percent(row.kept_share),
            f"{three_digits(clip.median)} ms",
            f"{three_digits(clip.quartile_low)}–{three_digits(clip.quartile_high)}",
            three_digits(clip.least),
            three_digits(row.fps.median),
            three_digits(row.real_time),
        )
    return table


def stage_table(report: BenchReport) -> Table:
    """Within which limit, where the time goes, and memory, a line for each selector; likewise."""
    table = _table("limit", "a tile", *STAGES, "memory")
    for row in report.rows:
        shares = row.stage_shares()
        table.add_row(
            Text(row.name),
            limit(threshold=row.settings.threshold, ratio=row.settings.ratio),
            f"{three_digits(row.tile_clip_ms)} ms",
            *(f"{shares[stage]:.0%}" if shares[stage] else NONE for stage in STAGES),
            NONE if row.memory is None else f"+{row.memory.over_base_mb:.0f} MB",
        )
    return table


def limit(*, threshold: float | None, ratio: float | Sequence[float] | None) -> str:
    """Where frames end, in a word: at a loss or, without one, at a share of the patches (the most of several)."""
    if threshold is not None:
        return f"≤ {threshold:.3g}"
    shares = ratio if isinstance(ratio, Sequence) else [1.0 if ratio is None else ratio]
    return percent(max(shares))


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


def _table(*titles: str) -> Table:
    """A table of numbers; where it is too wide, the names give way."""
    table = Table(box=None, pad_edge=False)
    table.add_column("selector", overflow="fold")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table
