"""Pictures of what happens along a clip: loss and kept patches by frame position, as curves and as a heat map."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autogaze.evaluation.curves import Kind, Setting, ranked, reconstructors, selectors, settings
from autogaze.evaluation.rows import ClipRow, FrameRow, SummaryRow
from autogaze.evaluation.style import (
    INK,
    KIND_COLORMAPS,
    QUIET,
    colormap,
    margins,
    new_figure,
    plain,
    save_figure,
    share,
    shortened,
    tidy,
)
from autogaze.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Shape letters: S settings of a selector, T frame positions of a clip.

Values = NDArray[np.float64]

_ROW_IN, _WIDTH_IN, _LEGEND_IN = 2.35, 12.0, 0.9
_CELL_IN = (0.34, 0.21)  # width, height
_HEAT_MARGINS_IN = (1.4, 0.6)  # left and right of a panel's cells, for the names of settings and for shares
_COUNT_TICKS = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
_SPAN = 500
"""Largest over smallest loss that is in sight."""
_MOST_NUMBERS = 20
"""Wider heat maps have no numbers in them."""


@dataclass(frozen=True, kw_only=True)
class _Track:
    """Means over clips by frame position, of one selector under one setting."""

    setting: Setting
    kept_T: Values
    """Patches."""
    share: float
    """Mean share of the patches of a clip, 0 to 1; NaN where no clip says so."""
    loss_T: Mapping[str, Values]
    """By reconstructor."""


def write_per_frame_curves(
    path: Path, *, frames: Sequence[FrameRow], clips: Sequence[ClipRow], summary: Sequence[SummaryRow]
) -> None:
    """A row of panels for each selector: mean kept patches, and mean loss under each reconstructor, by frame position.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    tracks, names = _tracks(frames, clips, summary), reconstructors(summary)
    columns = 1 + len(names)
    width_in, panels_in = max(_WIDTH_IN, 4.2 * columns), _ROW_IN * len(tracks) + 0.9
    figure = new_figure(width_in=width_in, height_in=_LEGEND_IN + panels_in, layout=None)
    parts = figure.subfigures(2, 1, height_ratios=[_LEGEND_IN, panels_in], squeeze=False)[:, 0]
    inner = margins(width_in=width_in, height_in=panels_in, left_in=0.85, right_in=0.1, top_in=0.4, bottom_in=0.5)
    gaps = {**inner, "wspace": 0.7 / 4.2, "hspace": 0.14}
    panels = parts[1].subplots(len(tracks), columns, squeeze=False, sharex=True, sharey="col", gridspec_kw=gaps)
    colors = _setting_colors([track.setting for of in tracks.values() for track in of])
    titles = ["kept patches of a frame", *(f"loss, rebuilt by {plain(shortened(name, most=40))}" for name in names)]
    for row, (selector, of) in enumerate(tracks.items()):
        for column, axes in enumerate(panels[row]):
            for track in of:
                values = track.kept_T if column == 0 else track.loss_T.get(names[column - 1], np.empty(0))
                style = "--" if track.setting.kind is Kind.THRESHOLD else "-"
                axes.plot(range(len(values)), values, style, color=colors[track.setting.label], linewidth=1.5)
            tidy(axes)
            if row == 0:
                axes.set_title(titles[column], fontsize=10.5, loc="left", color=INK, pad=8)
        panels[row, 0].set_ylabel(plain(shortened(selector, most=22)), fontsize=10.5, color=INK, weight="bold")
    for column, axes in enumerate(panels[-1]):
        axes.set_xlabel("frame of the clip", fontsize=9.5, color=INK)
        _set_frame_axes(panels[:, column], is_count=column == 0)
    _draw_setting_legend(parts[0], colors, {t.setting.label: t.setting for of in tracks.values() for t in of})
    save_figure(figure, path)


def write_gaze_heatmap(
    path: Path, *, frames: Sequence[FrameRow], clips: Sequence[ClipRow], summary: Sequence[SummaryRow]
) -> None:
    """A panel for each selector: mean kept patches, settings from top to bottom, frame positions from left to right.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    tracks = _tracks(frames, clips, summary)
    length = max((len(track.kept_T) for of in tracks.values() for track in of), default=1)
    most = max((float(np.nanmax(track.kept_T)) for of in tracks.values() for track in of), default=1.0)
    colors = require("matplotlib.colors", extra="evaluate")
    norm = colors.SymLogNorm(linthresh=1.0, vmin=0.0, vmax=max(2.0, most), base=10)
    places = _Places.of(tracks, length=length)
    figure = new_figure(width_in=places.width_in, height_in=places.height_in, layout=None)
    for number, (selector, of) in enumerate(tracks.items()):
        axes = figure.add_axes(places.box(number, settings=len(of)))
        _draw_heat(axes, of, norm, length=length)
        title = plain(shortened(selector, most=40))
        axes.set_title(title, fontsize=10.5, loc="left", color=INK, weight="bold", pad=5)
    bar = figure.colorbar(axes.images[0], cax=figure.add_axes(places.bar()))
    ticks = [tick for tick in _COUNT_TICKS if tick <= norm.vmax]
    bar.set_ticks(ticks, labels=[str(tick) for tick in ticks])
    bar.ax.tick_params(labelsize=8, colors=QUIET)
    bar.outline.set_visible(False)
    head = "kept patches of a frame, mean of the clips, by frame position"
    figure.text(0.1 / places.width_in, 1 - 0.1 / places.height_in, head, fontsize=9.5, color=INK, va="top")
    save_figure(figure, path)


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where the panels of a heat map go, so that all their cells are equally large."""

    columns: int
    cells_in: float
    """Width of a panel's cells."""
    rows: tuple[int, ...]
    """Most settings of the panels of each row."""

    @classmethod
    def of(cls, tracks: Mapping[str, Sequence[_Track]], *, length: int) -> _Places:
        """Places for two panels beside each other."""
        columns, counts = min(2, len(tracks)), [len(of) for of in tracks.values()]
        rows = tuple(max(counts[first : first + columns]) for first in range(0, len(counts), columns))
        return cls(columns=columns, cells_in=_CELL_IN[0] * min(max(length, 6), _MOST_NUMBERS), rows=rows)

    @property
    def width_in(self) -> float:
        return self.columns * (self.cells_in + _HEAT_MARGINS_IN[0] + _HEAT_MARGINS_IN[1]) + 0.8

    @property
    def height_in(self) -> float:
        return self._top_in(len(self.rows)) + 0.15

    def _top_in(self, row: int) -> float:
        """How far below the upper edge the cells of a row begin."""
        return (
            0.75 + sum(_CELL_IN[1] * settings + 0.65 for settings in self.rows[:row]) - 0.65 * (row == len(self.rows))
        )

    def box(self, number: int, *, settings: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel's cells as shares of the figure."""
        row, column = divmod(number, self.columns)
        left_in = _HEAT_MARGINS_IN[0] + column * (self.cells_in + sum(_HEAT_MARGINS_IN))
        high_in = _CELL_IN[1] * settings
        bottom = 1 - (self._top_in(row) + high_in) / self.height_in
        return left_in / self.width_in, bottom, self.cells_in / self.width_in, high_in / self.height_in

    def bar(self) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of the colour bar as shares of the figure."""
        high_in = min(3.0, self.height_in - 0.9)
        bottom = 1 - (self._top_in(0) + high_in) / self.height_in
        return 1 - 0.7 / self.width_in, bottom, 0.16 / self.width_in, high_in / self.height_in


def _tracks(
    frames: Sequence[FrameRow], clips: Sequence[ClipRow], summary: Sequence[SummaryRow]
) -> dict[str, list[_Track]]:
    """Selector → its settings in order; the selectors best first."""
    names = reconstructors(summary)
    order = ranked(summary, reconstructor=names[0])
    order += [name for name in selectors(summary) if name not in order]
    by_key: dict[tuple[str, str], list[FrameRow]] = {}
    for row in frames:
        by_key.setdefault((row.selector, row.setting), []).append(row)
    shares: dict[tuple[str, str], list[float]] = {}
    for clip in clips:
        shares.setdefault((clip.selector, clip.setting), []).append(clip.actual_gaze_ratio)
    found: dict[str, list[_Track]] = {name: [] for name in order}
    for key, setting in settings(clips).items():
        rows = by_key.get(key, [])
        if not rows or key[0] not in found:
            continue
        found[key[0]].append(
            _Track(
                setting=setting,
                kept_T=_by_position([(row.frame_idx, row.non_padded_gazes) for row in rows]),
                share=float(np.mean(shares.get(key, [math.nan]))),
                loss_T={
                    name: _by_position([(r.frame_idx, r.reconstruction_loss) for r in rows if r.reconstructor == name])
                    for name in names
                },
            )
        )
    return {name: of for name, of in found.items() if of}


def _by_position(pairs: Sequence[tuple[int, float]]) -> Values:
    """(T,) mean of the values at each position, NaN where there is none."""
    if not pairs:
        return np.empty(0)
    position, value = np.array([at for at, _ in pairs]), np.array([value for _, value in pairs], float)
    count = np.bincount(position)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(position, weights=value) / count, np.float64)


def _setting_colors(of: Sequence[Setting]) -> dict[str, Any]:
    """Setting's label → colour: a hue for each kind, darker for more patches."""
    colors: dict[str, Any] = {}
    ordered = sorted({setting.label: setting for setting in of}.values(), key=lambda setting: setting.order)
    for kind, members in itertools.groupby(ordered, key=lambda setting: setting.kind):
        labels = [setting.label for setting in members]
        shades = np.linspace(0.4, 0.95, len(labels)) if len(labels) > 1 else [0.75]
        colors |= dict(zip(labels, (colormap(KIND_COLORMAPS[kind])(shade) for shade in shades), strict=True))
    return colors


def _set_frame_axes(column: Sequence[Axes], *, is_count: bool) -> None:
    """Ticks and limits of the panels of a column, which share them."""
    ticker = require("matplotlib.ticker", extra="evaluate")
    axes = column[-1]
    drawn = [np.asarray(line.get_ydata(), float) for panel in column for line in panel.lines]
    values = np.concatenate([*drawn, np.empty(0)])
    positive = values[values > 0]
    highest = float(positive.max(initial=0.0)) or 1.0
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=8))
    if is_count:
        axes.set_yscale("symlog", linthresh=1.0, linscale=0.4)
        axes.set_ylim(0, highest * 1.25)
        axes.yaxis.set_major_locator(ticker.FixedLocator(_COUNT_TICKS))
    elif len(positive):
        axes.set_yscale("log")
        axes.set_ylim(0.8 * max(float(positive.min()), highest / _SPAN), 1.25 * highest)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    else:
        axes.set_ylim(0, highest)
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_setting_legend(part: Any, colors: Mapping[str, Any], known: Mapping[str, Setting]) -> None:
    """One line of the legend for each kind of setting."""
    line = require("matplotlib.lines", extra="evaluate").Line2D
    kinds = [kind for kind in Kind if any(setting.kind is kind for setting in known.values())]
    for number, kind in enumerate(kinds):
        labels = [label for label in colors if known[label].kind is kind]
        style = "--" if kind is Kind.THRESHOLD else "-"
        handles = [line([], [], linestyle="none", label=f"{kind.value}:")]
        handles += [
            line([], [], color=colors[label], linewidth=2, linestyle=style, label=plain(shortened(label, most=18)))
            for label in labels
        ]
        legend = part.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.0, 1.0 - 0.3 * number), ncols=len(handles),
            frameon=False, fontsize=9, handlelength=1.6, columnspacing=1.3, borderaxespad=0.3,
        )  # fmt: skip
        part.add_artist(legend)


def _draw_heat(axes: Axes, tracks: Sequence[_Track], norm: Any, *, length: int) -> None:
    grid_ST = np.full((len(tracks), length), np.nan)
    for row, track in enumerate(tracks):
        grid_ST[row, : len(track.kept_T)] = track.kept_T
    axes.imshow(grid_ST, cmap=colormap("viridis"), norm=norm, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(tracks)), [plain(shortened(track.setting.label, most=18)) for track in tracks])
    axes.tick_params(labelsize=8, length=0, colors=QUIET, labelcolor=INK, pad=3)
    axes.xaxis.tick_top()
    kinds = [track.setting.kind for track in tracks]
    for row in range(1, len(tracks)):
        if kinds[row] is not kinds[row - 1]:
            axes.axhline(row - 0.5, color="white", linewidth=2.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    totals = axes.secondary_yaxis("right")
    totals.set_yticks(range(len(tracks)), ["" if math.isnan(t.share) else share(t.share) for t in tracks])
    totals.tick_params(labelsize=7.5, length=0, colors=QUIET, pad=3)
    totals.spines["right"].set_visible(False)
    if length > _MOST_NUMBERS:
        return
    axes.set_xticks(range(length))
    for (row, column), value in np.ndenumerate(grid_ST):
        if not math.isnan(value):
            color = "white" if norm(value) < 0.6 else INK
            text = f"{value:.0f}" if value >= 9.95 or value == round(value) else f"{value:.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=color).set_in_layout(False)
