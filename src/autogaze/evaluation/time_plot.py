"""The picture of what choosing costs: a selector's seconds a clip against what it keeps, and against quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autogaze.evaluation.curves import PSNR, reconstructors, selectors
from autogaze.evaluation.rows import SummaryRow
from autogaze.evaluation.style import (
    INK,
    MARKER_SIZES,
    SHARE_TICKS,
    margins,
    new_figure,
    plain,
    save_figure,
    selector_styles,
    share,
    shortened,
    tidy,
)
from autogaze.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def timed(summary: Sequence[SummaryRow]) -> list[SummaryRow]:
    """The rows of the first reconstructor whose selector was timed: no time depends on what rebuilds later."""
    if not summary:
        return []
    first = reconstructors(summary)[0]
    return [row for row in summary if row.reconstructor == first and is_time(row.gaze_seconds)]


def is_time(seconds: float | None) -> bool:
    """Whether a time was taken: a number above 0."""
    return seconds is not None and math.isfinite(seconds) and seconds > 0


def write_time(path: Path, *, summary: Sequence[SummaryRow]) -> None:
    """Seconds a clip against the share kept, and PSNR against seconds, for every selector and setting with a time.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
        ValueError: no row has a time.
    """
    rows = timed(summary)
    if not rows:
        raise ValueError("no row says how long its selector took; evaluate with timings")
    names, styles = selectors(rows), selector_styles(selectors(summary))
    size = {"width_in": 12.0, "height_in": 4.9 + 0.25 * -(-len(names) // 6)}
    inner = margins(**size, left_in=0.7, right_in=0.15, top_in=size["height_in"] - 4.3, bottom_in=0.55)
    figure = new_figure(**size, layout=None)
    left, right = figure.subplots(1, 2, gridspec_kw={**inner, "wspace": 0.14})
    for name in names:
        of = sorted((row for row in rows if row.selector == name), key=lambda row: row.actual_gaze_ratio)
        style = styles[name]
        mark = {"marker": style.marker, "markersize": MARKER_SIZES.get(style.marker, 6.0), "color": style.color}
        kept = [row for row in of if row.actual_gaze_ratio > 0]
        left.plot(
            [row.actual_gaze_ratio for row in kept],
            [row.gaze_seconds for row in kept],
            linestyle="none",
            label=plain(shortened(name, most=26)),
            **mark,
        )
        seen = [row for row in of if PSNR.is_shown(PSNR.of(row))]
        right.plot([row.gaze_seconds for row in seen], [PSNR.of(row) for row in seen], linestyle="none", **mark)
    _set_axes(left, right, reconstructor=reconstructors(summary)[0])
    figure.legend(loc="upper left", ncols=6, frameon=False, fontsize=9.5)
    save_figure(figure, path)


def _set_axes(left: Axes, right: Axes, *, reconstructor: str) -> None:
    ticker = require("matplotlib.ticker", extra="evaluate")
    left.set_xscale("log")
    left.set_yscale("log")
    right.set_xscale("log")
    for axes in (left, right):
        tidy(axes)
    left.xaxis.set_major_locator(ticker.FixedLocator(SHARE_TICKS))
    left.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: share(value)))
    for axis in (left.yaxis, right.xaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_minor_locator(ticker.NullLocator())
    left.set_xlabel("kept, share of the patches", fontsize=9.5, color=INK)
    left.set_title("selector seconds a clip  (lower is better)", fontsize=10.5, loc="left", color=INK)
    right.set_xlabel("selector seconds a clip", fontsize=9.5, color=INK)
    title = f"{PSNR.title}  (up and left is better)\nrebuilt by {plain(shortened(reconstructor, most=40))}"
    right.set_title(title, fontsize=10.5, loc="left", color=INK)
