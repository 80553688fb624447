"""The picture of a benchmark: where the time of each selector goes, and how long a clip takes it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from autogaze.benching.report import BenchReport, count_frames
from autogaze.benching.rows import REAL_TIME_FPS, STAGES, Row, three_digits
from autogaze.evaluation.style import (
    INK,
    MARKER_SIZES,
    QUIET,
    SelectorStyle,
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

_BETWEEN = "between"
_COLORS = {
    **dict(zip(STAGES, ("#a9b1bb", "#56B4E9", "#0072B2", "#E69F00"), strict=True)),
    _BETWEEN: "#eceef0",
}
"""One colour for each stage, and one for what lies between them."""
_LEAST_LABEL = 0.075
"""A smaller share of a bar has no room for its number."""
_NAME_LETTERS = 28


def write_plot(path: str | os.PathLike[str], *, report: BenchReport) -> None:
    """Shares of the stages as stacked bars, and the latency of a clip with its quartiles, a line for each row.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    size = {"width_in": 12.0, "height_in": 1.65 + 0.4 * len(report.rows)}
    inner = margins(**size, left_in=2.1, right_in=0.2, top_in=1.0, bottom_in=0.65)
    figure = new_figure(**size, layout=None)
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={**inner, "wspace": 0.2})
    # A gaze model looks the same in both loops; which one it is, its marker's face says.
    styles = selector_styles(row.settings.model for row in report.rows)
    for number, row in enumerate(report.rows):
        _bar(left, row, number)
        _latency(right, row, number, styles[row.settings.model])
    _set_axes(left, right, report)
    top = 1 - 0.12 / size["height_in"]
    figure.text(0.008, top, plain(report.headline()), fontsize=10, color=QUIET, va="top")
    handles = [
        require("matplotlib.patches", extra="evaluate").Patch(color=color, label=stage)
        for stage, color in _COLORS.items()
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.0, 1 - 0.33 / size["height_in"]),
        ncols=len(handles),
        frameon=False,
        fontsize=9.5,
    )
    save_figure(figure, path)


def milliseconds(value: float) -> str:
    """A duration with three digits that say something."""
    number, unit = (value / 1e3, "s") if value >= 999.5 else (value, "ms")
    return f"{three_digits(number)}\N{NO-BREAK SPACE}{unit}"


def _bar(axes: Axes, row: Row, number: int) -> None:
    shares = row.stage_shares()
    left = 0.0
    for stage, value in {**shares, _BETWEEN: max(0.0, 1 - sum(shares.values()))}.items():
        axes.barh(number, value, left=left, height=0.66, color=_COLORS[stage], linewidth=0)
        if value >= _LEAST_LABEL:
            color = "white" if stage == "gaze" else INK
            axes.text(left + value / 2, number, share(value), ha="center", va="center", fontsize=8.5, color=color)
        left += value
    fps = row.fps.median
    axes.text(1.025, number, f"{fps:.{0 if fps >= 9.95 else 1}f}", va="center", fontsize=9, color=INK)


def _latency(axes: Axes, row: Row, number: int, style: SelectorStyle) -> None:
    spread = row.clip_ms
    axes.plot([spread.quartile_low, spread.quartile_high], [number, number], color=style.color, linewidth=2.2)
    axes.plot(
        spread.median,
        number,
        marker=style.marker,
        markersize=MARKER_SIZES.get(style.marker, 6.0) + 1,
        color=style.color,
        markerfacecolor="white" if row.naive else style.color,
        markeredgewidth=1.4,
    )
    axes.annotate(
        milliseconds(spread.median),
        (spread.quartile_high, number),
        (9, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def _set_axes(left: Axes, right: Axes, report: BenchReport) -> None:
    ticker, rows = require("matplotlib.ticker", extra="evaluate"), report.rows
    for axes in (left, right):
        tidy(axes)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_yticks(range(len(rows)), [plain(shortened(row.name, most=_NAME_LETTERS)) for row in rows], fontsize=9.5)
    left.set_xlim(0, 1)
    left.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: share(value)))
    left.set_title("where the time goes", fontsize=10.5, loc="left", color=INK)
    left.text(1.025, -0.62, "frames/s", fontsize=9, color=QUIET, va="bottom")
    left.set_xlabel("share of a pass, from the video file to the gaze file", fontsize=9.5, color=INK)
    right.tick_params(axis="y", labelleft=False)
    real_time_ms = 1e3 * report.clip_frames / REAL_TIME_FPS
    right.axvline(real_time_ms, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    low = min(real_time_ms, *(row.clip_ms.quartile_low for row in rows))
    high = max(real_time_ms, *(row.clip_ms.quartile_high for row in rows))
    right.set_xscale("log")
    right.set_xlim(low / 1.6, high * (high / low) ** 0.16 * 1.6)  # room for the last number
    right.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0,) if high / low > 500 else (1.0, 2.0, 5.0)))
    right.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _round_time(value)))
    right.xaxis.set_minor_locator(ticker.NullLocator())
    length = count_frames(report.clip_frames)
    title = f"choosing the patches of a clip of {length}  (left is better)"
    right.set_title(title, fontsize=10.5, loc="left", color=INK)
    dashed = f"dashed: {length} at {REAL_TIME_FPS:g} a second"
    right.set_xlabel(f"median and quartiles; {dashed}", fontsize=9.5, color=INK)


def _round_time(value_ms: float) -> str:
    return f"{value_ms / 1e3:g} s" if value_ms >= 1e3 else f"{value_ms:g} ms"
