"""Words beside points of a panel, as many as fit without hiding each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autogaze.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

_FONT_PT = 7.5
# Where the words may stand, in points from the marker: (right, up, horizontal, vertical alignment), best first.
_PLACES = (
    (8, 0, "left", "center"),
    (-8, 0, "right", "center"),
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (6, 7, "left", "bottom"),
    (-6, 7, "right", "bottom"),
    (6, -7, "left", "top"),
    (-6, -7, "right", "top"),
)


@dataclass(frozen=True, kw_only=True)
class Label:
    """A few words for one point."""

    x: float
    """In the panel's own units."""
    y: float
    """In the panel's own units."""
    text: str
    """The words."""
    color: str
    """Of the words."""


def place_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label beside its point where it hides neither a marker nor an earlier label; drop what does not fit.

    Of several labels of one point the first is written. The panel must have its place and its limits.
    """
    stroke = require("matplotlib.patheffects", extra="evaluate").withStroke(linewidth=2.2, foreground="white")
    bbox = require("matplotlib.transforms", extra="evaluate").Bbox
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    panel = axes.get_window_extent()
    half_px = 4.0 * figure.dpi / 72
    marked = [np.asarray(line.get_xydata()) for line in axes.lines if _has_marker(line)]
    points = [xy for points in marked if len(points) for xy in axes.transData.transform(points)]
    taken: list[Bbox] = [bbox.from_bounds(x - half_px, y - half_px, 2 * half_px, 2 * half_px) for x, y in points]
    first: dict[tuple[float, float], Label] = {}
    for label in labels:
        first.setdefault((label.x, label.y), label)
    for label in first.values():
        for right, up, horizontal, vertical in _PLACES:
            text = axes.annotate(
                label.text,
                (label.x, label.y),
                xytext=(right, up),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=_FONT_PT,
                color=label.color,
                zorder=6,
                path_effects=[stroke],
            )
            text.set_in_layout(False)
            box = text.get_window_extent()
            fits = panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 <= box.y0 and box.y1 <= panel.y1
            if fits and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


def _has_marker(line: object) -> bool:
    return getattr(line, "get_marker", lambda: "None")() not in ("None", None, "")
