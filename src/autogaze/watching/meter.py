"""What a watch shows on a terminal: a line that is written anew, and a table in the end."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autogaze.captions import clock, percent
from autogaze.watching.latency import LatencySummary
from autogaze.watching.tally import Tally, WatchSummary

_INTERVAL_SECONDS = 0.2
_GAUGE_CELLS = 20


class Meter:
    """Kept share, rate, latencies and drops on standard error, a few times a second."""

    def __init__(self, *, visible: bool) -> None:
        self._visible = visible
        self._shown_seconds = 0.0
        self._live = Live(Text(""), console=Console(stderr=True), auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._visible:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._visible:
            self._live.stop()

    def update(self, tally: Tally) -> None:
        """Show how it stands, unless that was shown a moment ago."""
        now_seconds = time.perf_counter()
        if self._visible and now_seconds - self._shown_seconds >= _INTERVAL_SECONDS:
            self._shown_seconds = now_seconds
            self._live.update(_line(tally), refresh=True)


def _line(tally: Tally) -> Text:
    recent = tally.recent()
    full = min(_GAUGE_CELLS, round(_GAUGE_CELLS * recent.kept_share))
    return Text.assemble(
        ("█" * full, "green"),
        ("░" * (_GAUGE_CELLS - full), "dim"),
        f" {percent(recent.kept_share)} kept, {recent.patches_per_frame:.0f} patches · {recent.fps:.1f} fps · ",
        f"{recent.p50_ms:.1f} ms, p95 {recent.p95_ms:.1f}, p99 {recent.p99_ms:.1f} · ",
        (f"{tally.frames_dropped} dropped", "yellow" if tally.frames_dropped else ""),
        f" of {tally.frames_captured} · {clock(tally.seconds)}",
    )


def summary_table(summary: WatchSummary) -> Table:
    """A whole watch, one line a value."""
    table = Table(show_header=False, box=None, pad_edge=False)
    dropped = summary.frames_dropped / max(1, summary.frames_captured)
    rows = {
        "source": f"{summary.source}, {summary.width_px}×{summary.height_px} px, {summary.settings.model}",
        "time": f"{clock(summary.seconds)}, {summary.fps:.1f} frames a second",
        "frames": f"{summary.frames_gazed:,} gazed at, {summary.frames_dropped:,} dropped ({dropped:.1%})",
        "kept": f"{summary.kept_share:.2%}, {summary.patches_per_frame:.1f} patches a frame",
        "latency": _milliseconds(summary.latency_ms),
        "of that, gazing": _milliseconds(summary.gaze_ms),
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _milliseconds(of: LatencySummary) -> str:
    return f"{of.p50:.1f} ms, p95 {of.p95:.1f}, p99 {of.p99:.1f}, at most {of.max:.1f}"
