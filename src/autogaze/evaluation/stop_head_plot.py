"""The picture of a stop head: predicted against true loss, the calibration curve, and where thresholds are missed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autogaze.evaluation.intervals import Floats
from autogaze.evaluation.rows import FrameRow
from autogaze.evaluation.stop_head import SettingAudit, predictions
from autogaze.evaluation.style import INK, QUIET, colormap, new_figure, plain, save_figure, share, shortened, tidy
from autogaze.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SETTINGS = 8
"""Curves that one panel shows; of more settings, those spread evenly over their order."""
_LIMITS = (0.002, 0.998)
"""Part of the losses that the first panel shows, so that one frame does not decide its scale."""


def write_picture(path: Path, audits: Sequence[SettingAudit], *, frames: Sequence[FrameRow]) -> None:
    """A row of three panels for each selector and reconstructor.

    Left: all frames, predicted against true loss, with the diagonal and the thresholds. Middle: mean true loss of
    frames of like prediction, with its interval. Right: share of frames above the threshold by position in the clip,
    or the bias where no setting has a threshold.

    Args:
        path: of the PNG.
        audits: what :func:`~autogaze.evaluation.stop_head.audit_rows` made of these frames.
        frames: the rows.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
        ValueError: there is no audit.
    """
    pairs = list(dict.fromkeys((one.selector, one.reconstructor) for one in audits))
    if not pairs:
        raise ValueError("there is no audit to draw; no selector predicts a loss")
    figure = new_figure(width_in=14.0, height_in=4.6 * len(pairs))
    rows = figure.subplots(len(pairs), 3, squeeze=False)
    for (selector, reconstructor), (left, middle, right) in zip(pairs, rows, strict=True):
        of = [one for one in audits if (one.selector, one.reconstructor) == (selector, reconstructor)]
        shown = _some(_with_thresholds(of) or of)
        colors = colormap("viridis")(np.linspace(0.05, 0.85, len(shown)))
        here = [row for row in frames if (row.selector, row.reconstructor) == (selector, reconstructor)]
        _draw_frames(left, predictions(here), np.array([row.reconstruction_loss for row in here]))
        _draw_curves(middle, shown, colors)
        _draw_positions(right, shown, colors)
        for one, color in zip(shown, colors, strict=True):
            if one.audit.violation is not None:
                left.axhline(one.audit.violation.threshold, color=color, linewidth=0.8, linestyle=(0, (4, 3)))
        title = f"{plain(shortened(selector, most=30))}, loss of {plain(shortened(reconstructor, most=30))}"
        left.set_title(f"{title}: every frame", fontsize=10.5, loc="left", color=INK)
    save_figure(figure, path)


def _with_thresholds(audits: Sequence[SettingAudit]) -> list[SettingAudit]:
    return [one for one in audits if one.audit.violation is not None]


def _some(audits: Sequence[SettingAudit]) -> list[SettingAudit]:
    places = np.unique(np.linspace(0, len(audits) - 1, MOST_SETTINGS).round().astype(int))
    return [audits[place] for place in places]


def _draw_frames(axes: Axes, predicted: Floats, loss: Floats) -> None:
    known = ~np.isnan(predicted)
    both = np.concatenate([predicted[known], loss[known]])
    low, high = (float(value) for value in np.quantile(both, _LIMITS))
    high = high if high > low else low + 1e-6
    bins = require("matplotlib.colors", extra="evaluate").LogNorm(vmin=1)
    shown = axes.hexbin(
        *(predicted[known], loss[known]),
        gridsize=36,
        extent=(low, high, low, high),
        mincnt=1,
        cmap="Blues",
        norm=bins,
        linewidths=0.1,
    )
    axes.plot([low, high], [low, high], color=QUIET, linewidth=1.0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    tidy(axes)
    axes.set_xlabel("predicted after the last gaze", fontsize=9.5, color=INK)
    axes.set_ylabel("true loss", fontsize=9.5, color=INK)
    axes.figure.colorbar(shown, ax=axes, pad=0.01).set_label("frames", fontsize=8.5, color=QUIET)


def _draw_curves(axes: Axes, audits: Sequence[SettingAudit], colors: Floats) -> None:
    ends: list[float] = []
    for one, color in zip(audits, colors, strict=True):
        curve = one.audit.curve
        said, true = ([getattr(point, name) for point in curve] for name in ("predicted", "loss"))
        spread = [[abs(point.interval[end] - point.loss) for point in curve] for end in (0, 1)]
        axes.errorbar(said, true, yerr=spread, color=color, marker="o", markersize=3.5, linewidth=1.2, elinewidth=0.7)
        ends += said
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=QUIET, linewidth=1.0)
    tidy(axes)
    axes.set_xlabel("predicted after the last gaze, mean of a tenth", fontsize=9.5, color=INK)
    axes.set_title("true loss, mean  (above the diagonal: optimistic)", fontsize=10.5, loc="left", color=INK)


def _draw_positions(axes: Axes, audits: Sequence[SettingAudit], colors: Floats) -> None:
    limited = any(one.audit.violation is not None for one in audits)
    for one, color in zip(audits, colors, strict=True):
        places = one.audit.positions
        values = [place.violation if limited else place.bias for place in places]
        label = plain(shortened(one.setting, most=22))
        if one.audit.violation is not None:
            label += f": {share(one.audit.violation.share.rate)}"
        axes.plot(
            [place.frame_idx for place in places],
            [np.nan if value is None else value for value in values],
            color=color,
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            label=label,
        )
    tidy(axes)
    axes.set_xlabel("frame of the clip", fontsize=9.5, color=INK)
    title = "frames above the threshold" if limited else "predicted less true loss, mean"
    axes.set_title(title, fontsize=10.5, loc="left", color=INK)
    if limited:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(require("matplotlib.ticker", extra="evaluate").PercentFormatter(xmax=1))
    axes.legend(fontsize=8, frameon=False)
