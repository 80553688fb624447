"""The plots of the behaviour analyses: a picture for each analysis, all selectors together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autogaze.evaluation.behaviour_rows import FrameShareRow, ScaleShareRow, SelectorBehaviour
from autogaze.evaluation.style import (
    INK,
    QUIET,
    SelectorStyle,
    new_figure,
    plain,
    save_figure,
    selector_styles,
    shortened,
    tidy,
)
from autogaze.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Shape letters: K places along the x axis.

FEW, FEW_CLIPS = 30, 3
"""A mean of fewer samples, or of fewer clips where there are as many, is drawn faint."""
_FADED = 0.25
_DODGE = 0.5
_LONGEST_NAME = 40


@dataclass(frozen=True, kw_only=True)
class _Series:
    """Points of one selector with their whiskers; NaN where there is none."""

    style: SelectorStyle
    offset: float
    middle_K: NDArray[np.float64]
    low_K: NDArray[np.float64]
    high_K: NDArray[np.float64]
    few_K: NDArray[np.bool_]

    def draw(self, axes: Axes, *, joined: bool = True) -> None:
        x_K = np.arange(len(self.middle_K)) + self.offset
        if joined:
            axes.plot(x_K, self.middle_K, color=self.style.color, linewidth=1.0, alpha=0.45, zorder=2)
        for few, alpha in ((True, _FADED), (False, 1.0)):
            here_K = (self.few_K == few) & np.isfinite(self.middle_K)
            if not here_K.any():
                continue
            middle_K = self.middle_K[here_K]
            below_K = np.nan_to_num(middle_K - self.low_K[here_K]).clip(min=0)
            above_K = np.nan_to_num(self.high_K[here_K] - middle_K).clip(min=0)
            axes.errorbar(
                x_K[here_K],
                middle_K,
                yerr=[below_K, above_K],
                fmt=self.style.marker,
                color=self.style.color,
                markersize=5,
                linewidth=1.0,
                alpha=alpha,
                zorder=3,
            )


def save_plot(name: str, selectors: Sequence[SelectorBehaviour], path: str | os.PathLike[str]) -> None:
    """Draw one of :data:`PLOTS` as a PNG; equal figures give equal bytes.

    Raises:
        KeyError: there is no such plot.
        ValueError: there is no selector to draw.
        ImportError: matplotlib is not installed (extra ``evaluate``).
        OSError: the file cannot be written.
    """
    if not selectors:
        raise ValueError("a plot needs at least one selector, got none")
    save_figure(PLOTS[name](selectors), path)


def draw_flow(selectors: Sequence[SelectorBehaviour]) -> Figure:
    """Gaze rate against motion, a panel for each scale over the number of patches behind each point."""
    scales_px = sorted({row.scale_px for found in selectors for row in found.flow})
    over_clips = max(found.clips for found in selectors) > 1
    sheet = _Sheet.new(
        selectors,
        title="How often a patch is gazed at, against how fast it moves",
        width_in=max(8.0, 3.5 * len(scales_px)),
        height_in=4.6 + 0.17 * len(selectors),
        foot=(
            f"Whiskers: 95 % interval, {'whole clips drawn anew' if over_clips else 'if patches were independent'}. "
            "AUC: probability that a gazed patch moves faster than one passed over; 0.5 if motion plays no part.\n"
            "First frames of clips have no motion and are left out."
        ),
    )
    panels = sheet.panels(width_ratios=[1] * len(scales_px))
    for column, scale_px in enumerate(scales_px):
        top, below = panels[:, column]
        rows_of = [[row for row in found.flow if row.scale_px == scale_px] for found in selectors]
        for (style, offset, found), rows in zip(sheet.styled, rows_of, strict=True):
            if not rows:  # a grid without this scale
                continue
            _Series(
                style=style,
                offset=offset,
                middle_K=100 * _floats([row.gaze_rate for row in rows]),
                low_K=100 * _floats([row.clips_low if over_clips else row.wilson_low for row in rows]),
                high_K=100 * _floats([row.clips_high if over_clips else row.wilson_high for row in rows]),
                few_K=_few([row.patches for row in rows], [row.clips for row in rows], found.clips),
            ).draw(top)
        sheet.count(below, [[row.patches for row in rows] for rows in rows_of])
        told = [_trend(found, scale_px) for found in selectors]
        top.set_title("\n".join([f"{scale_px} px scale", *told]), fontsize=9, color=INK)
        top.set_ylabel("gaze rate (% of such patches)" if column == 0 else "", fontsize=9)
        below.set_ylabel("patches" if column == 0 else "", fontsize=9)
        _from_zero(top)
        starts = next([row.flow_from_px for row in rows] for rows in rows_of if rows)
        _name_bins(below, starts, "fastest motion in the patch (px a frame)")
    return sheet.figure


def draw_detail(selectors: Sequence[SelectorBehaviour]) -> Figure:
    """Mean detail of gazed patches by scale, and mean scale by detail, over the number of gazes behind each point."""
    sheet = _Sheet.new(
        selectors,
        title="At which scale gazes are, against the detail they find there",
        lines=[_correlation(found) for found in selectors],
        foot="Whiskers: standard error of the mean if gazes were independent.",
    )
    panels = sheet.panels(width_ratios=[2, 3])
    for column, group in enumerate(("scale", "detail")):
        top, below = panels[:, column]
        rows_of = [[row for row in found.detail if row.group == group] for found in selectors]
        for (style, offset, found), rows in zip(sheet.styled, rows_of, strict=True):
            mean_K, sem_K = _floats([row.mean for row in rows]), _floats([row.sem for row in rows])
            _Series(
                style=style,
                offset=offset,
                middle_K=mean_K,
                low_K=mean_K - sem_K,
                high_K=mean_K + sem_K,
                few_K=_few([row.gazes for row in rows], [row.clips for row in rows], found.clips),
            ).draw(top)
        sheet.count(below, [[row.gazes for row in rows] for rows in rows_of])
        below.set_ylabel("gazes", fontsize=9)
    by_scale, by_detail = panels[0]
    longest = max(selectors, key=lambda found: len(found.scale_shares))
    scales_px = [shares.scale_px for shares in longest.scale_shares]
    _draw_all_patches(by_scale, longest)
    by_scale.set_ylabel("mean detail (variance of the Laplacian, grey 0…1)", fontsize=9)
    _from_zero(by_scale)
    _name_places(panels[1, 0], [str(scale_px) for scale_px in scales_px], "scale of the gazed patch (px)")
    by_detail.set_yticks(scales_px)
    by_detail.set_ylim(0, scales_px[-1] * 1.06)
    by_detail.set_ylabel("mean scale of the gazed patches (px)", fontsize=9)
    starts = [row.detail_from or 0.0 for row in longest.detail if row.group == "detail"]
    _name_bins(panels[1, 1], starts, "detail of the gazed patch (variance of the Laplacian, grey 0…1)")
    return sheet.figure


def draw_frames(selectors: Sequence[SelectorBehaviour]) -> Figure:
    """Share of gazes and gaze rate at each frame position."""
    rows = [found.frame_shares for found in selectors]
    return _draw_shares(
        selectors,
        rows,
        title="Where in a clip the gazes are",
        places=[str(row.frame_idx) for row in max(rows, key=len)],
        axis="frame of the clip",
        rate="gaze rate (% of the frame's patches)",
    )


def draw_scales(selectors: Sequence[SelectorBehaviour]) -> Figure:
    """Share of gazes and gaze rate at each scale."""
    rows = [found.scale_shares for found in selectors]
    return _draw_shares(
        selectors,
        rows,
        title="At which scale the gazes are",
        places=[str(row.scale_px) for row in max(rows, key=len)],
        axis="scale (px)",
        rate="gaze rate (% of the scale's patches)",
    )


PLOTS: dict[str, Callable[[Sequence[SelectorBehaviour]], Figure]] = {
    "behaviour_flow": draw_flow,
    "behaviour_detail": draw_detail,
    "behaviour_frames": draw_frames,
    "behaviour_scales": draw_scales,
}
"""What :func:`save_plot` draws, by the file's name without its ending."""


def _draw_shares(
    selectors: Sequence[SelectorBehaviour],
    rows_of: Sequence[Sequence[FrameShareRow] | Sequence[ScaleShareRow]],
    *,
    title: str,
    places: Sequence[str],
    axis: str,
    rate: str,
) -> Figure:
    foot = "Points: mean over clips. Whiskers: standard deviation over clips, cut off at 0 and 100 %."
    sheet = _Sheet.new(selectors, title=title, foot=foot)
    panels = sheet.panels(width_ratios=[1, 1])
    for column, (quantity, label) in enumerate((("share", "share of a clip's gazes (%)"), ("rate", rate))):
        top, below = panels[:, column]
        for (style, offset, found), rows in zip(sheet.styled, rows_of, strict=True):
            mean_K = 100 * _floats([getattr(row, f"{quantity}_mean") for row in rows])
            sd_K = 100 * np.nan_to_num(_floats([getattr(row, f"{quantity}_sd") for row in rows]))
            _Series(
                style=style,
                offset=offset,
                middle_K=mean_K,
                low_K=(mean_K - sd_K).clip(min=0),
                high_K=(mean_K + sd_K).clip(max=100),
                few_K=_few([row.patches for row in rows], [row.clips for row in rows], found.clips),
            ).draw(top)
        sheet.count(below, [[row.gazes if quantity == "share" else row.patches for row in rows] for rows in rows_of])
        top.set_ylabel(label, fontsize=9)
        below.set_ylabel("gazes" if quantity == "share" else "patches", fontsize=9)
        _from_zero(top)
        _name_places(below, places, axis)
    return sheet.figure


@dataclass(frozen=True, kw_only=True)
class _Sheet:
    """A figure with a title and a legend above its panels and a remark below them."""

    figure: Figure
    body: SubFigure
    styled: Sequence[tuple[SelectorStyle, float, SelectorBehaviour]]
    """Each selector with its style and how far beside a place its points stand."""

    @classmethod
    def new(
        cls,
        selectors: Sequence[SelectorBehaviour],
        *,
        title: str,
        foot: str,
        lines: Sequence[str] = (),
        width_in: float = 12.0,
        height_in: float = 5.0,
    ) -> _Sheet:
        step = _DODGE / len(selectors)
        styles = selector_styles(found.selector for found in selectors)
        styled = [
            (styles[found.selector], step * (k - (len(selectors) - 1) / 2), found) for k, found in enumerate(selectors)
        ]
        columns = min(len(selectors), max(1, int(width_in // 3.4)))
        head_in = 0.4 + 0.2 * len(lines) + 0.24 * -(-len(selectors) // columns)
        figure = new_figure(width_in=width_in, height_in=head_in + height_in)
        head, body = figure.subfigures(2, 1, squeeze=False, height_ratios=[head_in, height_in])[:, 0]
        for number, line in enumerate([title, *lines]):
            below_in = 0.1 + (0.1 + 0.2 * number if number else 0)
            size = 9 if number else 11
            head.text(0.5, 1 - below_in / head_in, plain(line), ha="center", va="top", fontsize=size, color=INK)
        handles: list[Any] = [_legend_entry(style, found) for style, _, found in styled]
        head.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=9)
        faint = f"Faint: fewer than {FEW} samples or {FEW_CLIPS} clips."
        body.supxlabel(f"{foot} {faint}", fontsize=8, color=QUIET)
        return cls(figure=figure, body=body, styled=styled)

    def panels(self, *, width_ratios: Sequence[int]) -> NDArray[Any]:
        """(2, columns) axes: what is shown, and below it the counts behind it."""
        panels: NDArray[Any] = self.body.subplots(
            2, len(width_ratios), height_ratios=[4, 1], width_ratios=width_ratios, squeeze=False, sharex="col"
        )
        for axes in panels.flat:
            tidy(axes)
        return panels

    def count(self, axes: Axes, counts_of: Sequence[Sequence[int]]) -> None:
        """Draw how many there are of each, one grey bar where they are the same for all selectors."""
        if all(list(counts) == list(counts_of[0]) for counts in counts_of):
            axes.bar(np.arange(len(counts_of[0])), counts_of[0], width=0.6, color="#9aa1ab")
        else:
            for (style, offset, _), counts in zip(self.styled, counts_of, strict=True):
                axes.bar(np.arange(len(counts)) + offset, counts, width=_DODGE / len(counts_of), color=style.color)
        highest = max((count for counts in counts_of for count in counts), default=0)
        if highest == 0:
            axes.set_ylim(0, 1)
            return
        ticker = require("matplotlib.ticker", extra="evaluate")
        axes.set_yscale("log")
        axes.set_ylim(0.8, max(10, 2 * highest))
        axes.yaxis.set_major_locator(ticker.LogLocator(numticks=4))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda count, _: f"{count:,.0f}"))
        axes.yaxis.set_minor_locator(ticker.NullLocator())


def _legend_entry(style: SelectorStyle, found: SelectorBehaviour) -> Any:
    clips = f"{found.clips} {'clip' if found.clips == 1 else 'clips'}"
    label = f"{shortened(found.selector, most=_LONGEST_NAME)}: {found.gazes:,} gazes, {clips}"
    line = require("matplotlib.lines", extra="evaluate").Line2D
    return line([], [], color=style.color, marker=style.marker, markersize=5, linewidth=1, label=plain(label))


def _from_zero(axes: Axes) -> None:
    """Begin the y axis at 0, with room for a whole marker there."""
    highest = axes.get_ylim()[1]
    axes.set_ylim(-0.03 * highest, highest)


def _name_places(axes: Axes, names: Sequence[str], label: str) -> None:
    axes.set_xticks(np.arange(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xlabel(label, fontsize=9)


def _name_bins(axes: Axes, starts: Sequence[float], label: str) -> None:
    """Bins stand between the values at which they begin; the last one has no end."""
    axes.set_xticks(np.arange(len(starts)) - 0.5, [_short(start) for start in starts])
    axes.set_xlim(-0.6, len(starts) - 0.4)
    axes.set_xlabel(label, fontsize=9)


def _short(number: float) -> str:
    return f"{number:g}" if number >= 1e-3 or number == 0 else f"{number:.0e}".replace("e-0", "e-")


def _draw_all_patches(axes: Axes, found: SelectorBehaviour) -> None:
    """What gazing at random would find."""
    mean_K = _floats([row.mean_of_all_patches for row in found.detail if row.group == "scale"])
    line = axes.plot(np.arange(len(mean_K)), mean_K, color=QUIET, linestyle=":", label="all patches, gazed at or not")
    axes.legend(handles=line, loc="upper left", fontsize=8, frameon=False)


def _trend(found: SelectorBehaviour, scale_px: int) -> str:
    name = plain(shortened(found.selector, most=16))
    trend = next((trend for trend in found.flow_trends if trend.scale_px == scale_px), None)
    if trend is None:
        return f"{name}: no such scale"
    if trend.gazed_moves_faster is None:
        gazed = any(row.gazed for row in found.flow if row.scale_px == scale_px)
        return f"{name}: {'all' if gazed else 'none'} gazed at"
    interval = f" ({trend.over_clips.low:.2f}–{trend.over_clips.high:.2f})" if trend.over_clips else ""
    return f"{name}: AUC {trend.gazed_moves_faster:.2f}{interval}"


def _correlation(found: SelectorBehaviour) -> str:
    told, name = found.scale_and_detail, shortened(found.selector, most=_LONGEST_NAME)
    if told.rho is None or told.p is None:
        return f"{name}: no ρ, as scale or detail never changes"
    text = f"{name}: Spearman's ρ = {told.rho:.2f}, {_p(told.p)} if gazes were independent"
    if told.over_clips is not None and told.p_over_clips is not None:
        text += f"; {told.over_clips.low:.2f} to {told.over_clips.high:.2f}, {_p(told.p_over_clips)} over clips"
    if told.mean_within_clips is not None:
        text += f"; {told.mean_within_clips:.2f} within a clip on average"
    return text


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _few(samples: Sequence[int], clips: Sequence[int], of_clips: int) -> NDArray[np.bool_]:
    return (np.array(samples) < FEW) | (np.array(clips) < min(FEW_CLIPS, of_clips))


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)
