"""Draw what ``bundled_on_val.py`` found: loss against patches kept, a panel for each reconstructor.

    python benchmarks/bundled_plot.py [benchmarks/bundled_on_val.json] [--out docs/images/bundled_tradeoff]

Writes PNG and SVG. Both axes are logarithmic; points are the limits, means over the short clips.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autogaze.archive import atomic_path
from autogaze.evaluation.style import (
    INK,
    QUIET,
    SHARE_TICKS,
    SelectorStyle,
    new_figure,
    plain,
    save_figure,
    selector_styles,
    share,
    tidy,
)
from autogaze.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[1]
LOSS_TICKS = (0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)
_OWN = {
    "replenish, threshold": ("replenish", SelectorStyle(color="#0072B2", marker="o")),
    "random at counts of replenish": ("random, counts of replenish", SelectorStyle(color="#8A8F98", marker="x")),
}
_MODES = {
    "threshold": ("{}, threshold", SelectorStyle(color="#111111", marker="*")),
    "calibrated": ("{}, calibrated", SelectorStyle(color="#CC3311", marker="D")),
    "ratio": ("{}, ratio", SelectorStyle(color="#882255", marker="h")),
}
"""How the curves of a checkpoint are called and look."""
_LABEL_PT, _LINE_PT = 8.5, 10.0


def styles_of(labels: list[str], checkpoints: list[str]) -> dict[str, tuple[str, SelectorStyle]]:
    """What each curve is called and how it looks."""
    styles = dict(_OWN)
    for label in labels:
        name, _, mode = label.rpartition(", ")
        if name in checkpoints:
            called, style = _MODES[mode]
            styles[label] = called.format(name), style
        elif label not in styles:
            styles[label] = name, selector_styles([name])[name]
    return styles


def draw(found: dict[str, Any], path: Path) -> None:
    """Write ``path`` with the endings ``.png`` and ``.svg``."""
    told = found["short"]["reconstructors"]
    labels = list(dict.fromkeys(row["selector"] for one in told.values() for row in one["limits"]))
    styles = styles_of(labels, found["checkpoints"])
    figure = new_figure(width_in=6.6 * len(told), height_in=5.4)
    panels = figure.subplots(1, len(told), sharey=True, squeeze=False)[0]
    ends = []
    for axes, (name, one) in zip(panels, told.items(), strict=True):
        points = {
            label: [(row["kept"], row["loss"]) for row in one["limits"] if row["selector"] == label and row["loss"]]
            for label in labels
        }
        ends.append((axes, _draw_panel(axes, points, styles)))
        axes.set_title(f"rebuilt by {name}", fontsize=11, color=INK, loc="left")
    panels[0].set_ylabel("mean absolute error (lower is better)", fontsize=9.5, color=INK)
    limits = [loss for _, points in ends for curve in points.values() for _, loss in curve]
    for axes, _ in ends:
        _set_axes(axes, low=min(limits), high=max(limits))
    figure.suptitle(
        plain(f"Patches kept and what they give, mean of {found['short']['clips']} clips of 16 frames"),
        fontsize=12, color=INK, x=0.01, ha="left",
    )  # fmt: skip
    figure.draw_without_rendering()
    for axes, points in ends:
        _name_curves(axes, points, styles)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path.with_suffix(".png"))
    matplotlib = require("matplotlib", extra="evaluate")
    # Else the names of paths would differ from run to run.
    with matplotlib.rc_context({"svg.hashsalt": "autogaze"}), atomic_path(path.with_suffix(".svg")) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def _draw_panel(
    axes: Axes, points: dict[str, list[tuple[float, float]]], styles: dict[str, tuple[str, SelectorStyle]]
) -> dict[str, list[tuple[float, float]]]:
    drawn = {}
    for label, found in points.items():
        if not found:
            continue
        drawn[label] = sorted(found)
        _, style = styles[label]
        strong = label not in styles or style.color in ("#0072B2", "#111111", "#CC3311", "#882255")
        axes.plot(
            *zip(*drawn[label], strict=True),
            color=style.color, marker=style.marker, markersize=8 if style.marker == "*" else 5,
            linewidth=2 if strong else 1.2, alpha=1 if strong else 0.85, zorder=4 if strong else 3,
        )  # fmt: skip
    return drawn


def _set_axes(axes: Axes, *, low: float, high: float) -> None:
    ticker = require("matplotlib.ticker", extra="evaluate")
    tidy(axes)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(max(low, 0.0025) / 1.1, high * 1.1)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right * 5.5)  # room for the names
    for axis, ticks in ((axes.xaxis, SHARE_TICKS), (axes.yaxis, LOSS_TICKS)):
        axis.set_major_locator(ticker.FixedLocator(ticks))
        axis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: share(value)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("patches kept, of 265 a frame", fontsize=9.5, color=INK)


def _name_curves(
    axes: Axes, points: dict[str, list[tuple[float, float]]], styles: dict[str, tuple[str, SelectorStyle]]
) -> None:
    """Write each name right of its curve's last point inside the panel, pushed apart where they would collide."""
    low, _ = axes.get_ylim()
    last = {label: [one for one in found if one[1] >= low][-1] for label, found in points.items()}
    figure = axes.get_figure(root=True)
    assert figure is not None
    at_px = {label: axes.transData.transform(place) for label, place in last.items()}
    column_px = axes.transData.transform((1.05, low))[0]
    order = sorted(at_px, key=lambda label: at_px[label][1])
    step_px = _LINE_PT * figure.dpi / 72
    bottom_px = axes.transData.transform((1, low))[1] + step_px / 2
    wanted = np.array([at_px[label][1] for label in order])
    placed = _apart(wanted, step_px, bottom_px)
    for label, y_px in zip(order, placed, strict=True):
        name, style = styles[label]
        x, y = axes.transData.inverted().transform((column_px, y_px))
        axes.annotate(
            plain(name), last[label], xytext=(x, y), textcoords="data", fontsize=_LABEL_PT, color=style.color,
            va="center", zorder=6, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.4, "alpha": 0.5, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip


def _apart(wanted: np.ndarray, step: float, least: float) -> np.ndarray:
    """Ascending places at least a step apart and as near to the wanted ones as pushing up and down once gets."""
    up = wanted.copy()
    up[0] = max(up[0], least)
    for k in range(1, len(up)):
        up[k] = max(up[k], up[k - 1] + step)
    down = wanted.copy()
    for k in range(len(down) - 2, -1, -1):
        down[k] = min(down[k], down[k + 1] - step)
    middle = (up + down) / 2
    middle[0] = max(middle[0], least)
    for k in range(1, len(middle)):
        middle[k] = max(middle[k], middle[k - 1] + step)
    return middle


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("found", type=Path, nargs="?", default=Path(__file__).with_name("bundled_on_val.json"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "bundled_tradeoff")
    arguments = parser.parse_args()
    draw(json.loads(arguments.found.read_text()), arguments.out)


if __name__ == "__main__":
    main()
