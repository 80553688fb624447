"""The trade-off picture: what the patches that are kept give, selector by selector, as Pareto fronts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autogaze.evaluation.curves import (
    METRICS,
    Kind,
    Metric,
    Setting,
    front_of,
    patches_a_frame,
    ranked,
    reconstructors,
    selectors,
    settings,
)
from autogaze.evaluation.findings import best_win, win_sentence
from autogaze.evaluation.fronts import is_far
from autogaze.evaluation.labels import Label, place_labels
from autogaze.evaluation.rows import ClipRow, SummaryRow
from autogaze.evaluation.style import (
    INK,
    MARKER_SIZES,
    QUIET,
    SHARE_TICKS,
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
    from matplotlib.figure import SubFigure

_WIDTH_IN, _PANELS_IN, _LINE_IN = 12.0, 9.0, 0.25
_GAPS = {
    **margins(width_in=_WIDTH_IN, height_in=_PANELS_IN, left_in=0.7, right_in=0.15, top_in=0.65, bottom_in=0.55),
    "wspace": 0.16,
    "hspace": 0.24,
}
_LEGEND_COLUMNS = 5
_SPAN = 500
"""Largest over smallest value of a logarithmic axis: what is better than that is out of sight, and near enough."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One selector under one reconstructor."""

    selector: str
    style: SelectorStyle
    rows: Sequence[SummaryRow]
    clips: Sequence[ClipRow]


def write_tradeoff_curves(path: Path, *, clips: Sequence[ClipRow], summary: Sequence[SummaryRow]) -> None:
    """Four panels for each reconstructor: loss, MAE, PSNR and SSIM against the share kept.

    Every setting is a point; a line joins those of a selector that no other of its points beats. Whiskers span the
    middle half of the clips.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    names, known = reconstructors(summary), settings(clips)
    styles = selector_styles(selectors(summary))
    titles = [_title(name, summary, clips, known) for name in names]
    lines_in = _LINE_IN * max(title.count("\n") + 1 for title in titles)
    head_in = lines_in + _LINE_IN * (-(-len(styles) // _LEGEND_COLUMNS) + 1) + 0.2
    figure = new_figure(width_in=_WIDTH_IN, height_in=(head_in + _PANELS_IN) * len(names), layout=None)
    parts = figure.subfigures(2 * len(names), 1, height_ratios=[head_in, _PANELS_IN] * len(names), squeeze=False)[:, 0]
    drawn: list[tuple[Axes, list[Label]]] = []
    for head, body, name, title in zip(parts[::2], parts[1::2], names, titles, strict=True):
        curves = panel_curves(name, styles, clips=clips, summary=summary, known=known)
        _draw_head(head, title, curves, legend_top=1 - lines_in / head_in)
        panels = body.subplots(2, 2, gridspec_kw=_GAPS)
        for axes, metric in zip(panels.flat, METRICS, strict=True):
            drawn.append((axes, draw_panel(axes, curves, metric, known)))
            _set_axes(axes, metric, patches_a_frame(clips), both_shares=axes in panels[0])
    for axes, labels in drawn:
        place_labels(axes, labels)
    save_figure(figure, path)


def panel_curves(
    reconstructor: str,
    styles: Mapping[str, SelectorStyle],
    *,
    clips: Sequence[ClipRow],
    summary: Sequence[SummaryRow],
    known: Mapping[tuple[str, str], Setting],
) -> list[Curve]:
    """The selectors under a reconstructor, best first, the rows of each in the order of its settings."""
    place = {key: number for number, key in enumerate(known)}
    return [
        Curve(
            selector=selector,
            style=styles[selector],
            rows=sorted(
                (row for row in summary if (row.reconstructor, row.selector) == (reconstructor, selector)),
                key=lambda row: place.get((row.selector, row.setting), len(place)),
            ),
            clips=[row for row in clips if (row.reconstructor, row.selector) == (reconstructor, selector)],
        )
        for selector in ranked(summary, reconstructor=reconstructor)
    ]


def _title(
    name: str, summary: Sequence[SummaryRow], clips: Sequence[ClipRow], known: Mapping[tuple[str, str], Setting]
) -> str:
    clip_count = max(row.clips for row in summary if row.reconstructor == name)
    lines = [f"Rebuilt by {shortened(name, most=60)}, mean of {clip_count} {'clip' if clip_count == 1 else 'clips'}"]
    wins = (best_win(summary, clips, reconstructor=name, kind=kind) for kind in (Kind.THRESHOLD, Kind.CLIP))
    lines += [win_sentence(win, known=known) for win in wins if win is not None][:1]
    return "\n".join(plain(shortened(line, most=150)) for line in lines)


def _draw_head(part: SubFigure, title: str, curves: Sequence[Curve], *, legend_top: float) -> None:
    """Title and legends of a reconstructor's panels."""
    line = require("matplotlib.lines", extra="evaluate").Line2D
    title, _, note = title.partition("\n")
    part.text(0.008, 0.98, title, fontsize=12, color=INK, va="top")
    part.text(0.008, legend_top + 0.02, note, fontsize=10, color=QUIET, va="bottom")
    handles = [
        line([], [], linewidth=1.8, label=plain(shortened(curve.selector, most=26)), **_mark(curve.style))
        for curve in curves
    ]
    columns = min(_LEGEND_COLUMNS, len(handles))
    rows = -(-len(handles) // columns)
    by_row = [handles[row * columns + column] for column in range(columns) for row in range(rows)
              if row * columns + column < len(handles)]  # fmt: skip
    part.add_artist(
        part.legend(
            handles=by_row, loc="upper left", bbox_to_anchor=(0.0, legend_top), ncols=columns,
            frameon=False, fontsize=10,
        )
    )  # fmt: skip
    ring = SelectorStyle(color=QUIET, marker="o")
    kinds = [line([], [], linestyle="none", label=kind.value, **{**_mark(ring), **_face(kind)}) for kind in Kind]
    kinds += [
        line([], [], linestyle="none", color=QUIET, marker="o", markersize=4, alpha=0.35, mew=0, label="beaten"),
        line([], [], color=QUIET, alpha=0.4, linewidth=1, label="middle half of the clips"),
    ]
    part.legend(
        handles=kinds, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=5, frameon=False, fontsize=9, labelcolor=QUIET
    )


def _mark(style: SelectorStyle) -> dict[str, Any]:
    return {"color": style.color, "marker": style.marker, "markersize": MARKER_SIZES.get(style.marker, 6.0)}


def _face(kind: Kind) -> dict[str, Any]:
    """Hollow, full, or full with a dark rim."""
    if kind is Kind.FRAME:
        return {"markerfacecolor": "white", "markeredgewidth": 1.4}
    if kind is Kind.CLIP:
        return {"markeredgecolor": "white", "markeredgewidth": 0.6}
    return {"markeredgecolor": INK, "markeredgewidth": 1.3}


def draw_panel(
    axes: Axes, curves: Sequence[Curve], metric: Metric, known: Mapping[tuple[str, str], Setting]
) -> list[Label]:
    """Draw all curves; the labels that it wants."""
    labels: list[Label] = []
    exact: list[tuple[float, str]] = []
    for depth, curve in enumerate(curves):
        labels += _draw_curve(axes, curve, metric, known, zorder=3 + 0.1 * (len(curves) - depth))
        exact += [(row.actual_gaze_ratio, curve.style.color) for row in curve.rows if _is_exact(row, metric)]
    if exact:
        _note_exact(axes, metric, exact)
    return labels


def _is_exact(row: SummaryRow, metric: Metric) -> bool:
    return row.actual_gaze_ratio > 0 and not metric.is_shown(metric.of(row))


def _draw_curve(
    axes: Axes, curve: Curve, metric: Metric, known: Mapping[tuple[str, str], Setting], *, zorder: float
) -> list[Label]:
    def place(rows: Iterable[SummaryRow]) -> tuple[list[float], list[float]]:
        shown = list(rows)
        return [row.actual_gaze_ratio for row in shown], [metric.of(row) for row in shown]

    by_name = {row.setting: row for row in curve.rows}
    points = front_of(curve.rows, metric=metric)
    front = [by_name[point.setting] for point in points]
    usable = [row for row in curve.rows if row.actual_gaze_ratio > 0 and metric.is_shown(metric.of(row))]
    beaten = [row for row in usable if row not in front]
    color, mark = curve.style.color, _mark(curve.style)
    axes.plot(*place(beaten), linestyle="none", alpha=0.35, mew=0, zorder=2, **{**mark, "markersize": 4})
    for pair in itertools.pairwise(points):
        style = ":" if is_far(*pair) else "-"
        xy = place(by_name[point.setting] for point in pair)
        axes.plot(*xy, color=color, linewidth=1.8, linestyle=style, zorder=zorder)
    for kind in Kind:
        of_kind = [row for row in front if _kind(row, known) is kind]
        axes.plot(*place(of_kind), linestyle="none", zorder=zorder + 0.05, **{**mark, **_face(kind)})
    whiskers = [(row.actual_gaze_ratio, _middle_half(curve.clips, row.setting, metric)) for row in front]
    for x, span in whiskers:
        if span is not None:
            axes.plot([x, x], span, color=color, alpha=0.22, linewidth=1, zorder=1.5, scalex=False, scaley=False)
    return [
        Label(
            x=row.actual_gaze_ratio,
            y=metric.of(row),
            text=plain(shortened(known[row.selector, row.setting].label, most=18)),
            color=color,
        )
        for row in usable
        if (row.selector, row.setting) in known and _kind(row, known) is Kind.THRESHOLD
    ]


def _kind(row: SummaryRow, known: Mapping[tuple[str, str], Setting]) -> Kind:
    setting = known.get((row.selector, row.setting))
    return Kind.FRAME if setting is None else setting.kind


def _middle_half(clips: Sequence[ClipRow], setting: str, metric: Metric) -> tuple[float, float] | None:
    """Quartiles of the clips; None for fewer than four, or where they are not all on the axis."""
    values = [metric.of(row) for row in clips if row.setting == setting]
    if len(values) < 4 or not np.isfinite(values).all():
        return None
    low, high = (float(value) for value in np.percentile(values, [25, 75]))
    return (low, high) if metric.is_shown(low) and metric.is_shown(high) else None


def _set_axes(axes: Axes, metric: Metric, patches: tuple[int, int] | None, *, both_shares: bool) -> None:
    ticker = require("matplotlib.ticker", extra="evaluate")
    tidy(axes)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.FixedLocator(SHARE_TICKS))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: share(value)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    of = "the patches" if patches is None else f"{patches[0]} patches a frame"
    axes.set_xlabel(f"kept, of {of}", fontsize=9.5, color=INK)
    if metric.logarithmic:
        axes.set_yscale("log")
        lowest, highest = axes.get_ylim()
        axes.set_ylim(max(lowest, highest / _SPAN), highest)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
    better = "higher" if metric.higher_is_better else "lower"
    axes.set_title(f"{metric.title}  ({better} is better)", fontsize=10.5, color=INK, loc="left", pad=6)
    if patches is not None and both_shares:
        ratio = patches[0] / patches[1]
        top = axes.secondary_xaxis("top", functions=(_times(ratio), _times(1 / ratio)))
        top.xaxis.set_major_locator(ticker.FixedLocator(SHARE_TICKS))
        top.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: share(value)))
        top.xaxis.set_minor_locator(ticker.NullLocator())
        top.tick_params(labelsize=7, colors=QUIET, length=2, width=0.5, pad=1)
        top.set_xlabel(f"of the {patches[1]} of the finest scale", fontsize=7.5, color=QUIET, labelpad=2)
        top.spines["top"].set_visible(False)


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda values: values * factor


def _note_exact(axes: Axes, metric: Metric, exact: Sequence[tuple[float, str]]) -> None:
    """Marks at the edge for settings that rebuild (nearly) all exactly, which no axis has room for."""
    edge, marker = (1.0, "^") if metric.higher_is_better else (0.0, "v")
    transform = axes.get_xaxis_transform()
    for x, color in exact:
        axes.plot(x, edge, marker=marker, markersize=5, color=color, alpha=0.5, mew=0, transform=transform,
                  clip_on=False, zorder=4)  # fmt: skip
    offset = (0, -11) if metric.higher_is_better else (0, 6)
    stroke = require("matplotlib.patheffects", extra="evaluate").withStroke(linewidth=2.5, foreground="white")
    axes.annotate(
        f"{len(exact)} rebuilt exactly, or nearly", (max(x for x, _ in exact), edge), xycoords=transform,
        xytext=offset, textcoords="offset points", ha="right", fontsize=7.5, color=QUIET,
        path_effects=[stroke], zorder=6,
    )  # fmt: skip
