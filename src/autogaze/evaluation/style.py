"""How pictures of an evaluation look: figures without a display, one colour and marker per selector, plain names."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from autogaze.archive import atomic_path
from autogaze.evaluation.curves import Kind
from autogaze.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
INK, QUIET, FAINT = "#1a1d21", "#666c75", "#dfe2e6"
MARKER_SIZES = {"*": 9.5, "o": 6.0, "s": 5.5, "D": 5.2, "P": 6.8, "X": 6.8}
"""In points: shapes of equal weight have different sizes; 6 for those not named."""
SHARE_TICKS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Where a logarithmic axis of shares has its numbers."""
KIND_COLORMAPS = {Kind.FRAME: "Blues", Kind.CLIP: "Oranges", Kind.THRESHOLD: "Greens"}


@dataclass(frozen=True, kw_only=True)
class SelectorStyle:
    """What tells a selector from the others."""

    color: str
    """As #rrggbb."""
    marker: str
    """As matplotlib names it."""


# From Okabe and Ito's palette and Paul Tol's muted one: neighbours in a picture differ in lightness as well, for
# those who see few hues.
_KNOWN = {
    "replenish": SelectorStyle(color="#0072B2", marker="o"),
    "random": SelectorStyle(color="#8A8F98", marker="s"),
    "uniform": SelectorStyle(color="#56B4E9", marker="v"),
    "difference": SelectorStyle(color="#E69F00", marker="^"),
    "difference-paper": SelectorStyle(color="#999933", marker="<"),
    "flow": SelectorStyle(color="#009E73", marker="D"),
    "motion-vectors": SelectorStyle(color="#CC79A7", marker="p"),
    "detail": SelectorStyle(color="#D55E00", marker="P"),
    "autogaze": SelectorStyle(color="#111111", marker="*"),
}
_FREE = (
    SelectorStyle(color="#882255", marker="h"),
    SelectorStyle(color="#332288", marker=">"),
    SelectorStyle(color="#44AA99", marker="X"),
    SelectorStyle(color="#661100", marker="d"),
    SelectorStyle(color="#AA4499", marker="8"),
)


def selector_styles(names: Iterable[str]) -> dict[str, SelectorStyle]:
    """A style for each name: always the same for the project's own selectors; for others by their letters.

    No two of up to five others have the same one, so a name may look different beside others.
    """
    styles = {}
    taken: set[int] = set()
    for name in sorted(set(names)):
        if name in _KNOWN:
            styles[name] = _KNOWN[name]
            continue
        if len(taken) == len(_FREE):
            taken.clear()
        start = zlib.crc32(name.encode(errors="surrogatepass"))
        slot = next(s % len(_FREE) for s in range(start, start + len(_FREE)) if s % len(_FREE) not in taken)
        taken.add(slot)
        styles[name] = _FREE[slot]
    return styles


def new_figure(*, width_in: float, height_in: float, layout: str | None = "constrained") -> Figure:
    """A figure that belongs to nobody but the caller, of so many inches; None leaves the margins to the caller."""
    figure = require("matplotlib.figure", extra="evaluate").Figure(
        figsize=(width_in, height_in), dpi=DPI, facecolor="white", layout=layout
    )
    require("matplotlib.backends.backend_agg", extra="evaluate").FigureCanvasAgg(figure)
    return cast("Figure", figure)


def margins(
    *, width_in: float, height_in: float, left_in: float, right_in: float, top_in: float, bottom_in: float
) -> dict[str, float]:
    """Margins in inches as shares of a figure's size, which is how matplotlib wants them."""
    return {
        "left": left_in / width_in,
        "right": 1 - right_in / width_in,
        "top": 1 - top_in / height_in,
        "bottom": bottom_in / height_in,
    }


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG that appears whole or not at all; equal figures give equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def plain(words: str) -> str:
    """Words that a figure shows as they are: a dollar starts no formula, letters that the font lacks are ``?``."""
    known = _letters()
    return "".join(letter if ord(letter) in known else "?" for letter in words).replace("$", r"\$")


def shortened(words: str, *, most: int) -> str:
    """At most so many letters of the words; an ellipsis tells where some are gone."""
    if len(words) <= most:
        return words
    return f"{words[: most // 2]}…{words[-(most - most // 2 - 1) :]}"


def share(value: float) -> str:
    """A share in per cent with two digits that say something: ``0.54 %``, ``6.3 %``, ``25 %``."""
    percent = 100 * value
    number = f"{percent:.0f}" if percent == 0 or percent >= 9.95 else f"{percent:.2g}"
    return f"{number}\N{NO-BREAK SPACE}%"


def tidy(axes: Axes) -> None:
    """Thin grey frame and grid, small figures at the ticks."""
    axes.grid(visible=True, which="major", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=QUIET, labelcolor=INK, width=0.6, length=3)
    axes.tick_params(which="minor", width=0.4, length=2, colors=QUIET)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(QUIET)
        spine.set_linewidth(0.6)


def colormap(name: str) -> Any:
    """A colour map of matplotlib."""
    return require("matplotlib", extra="evaluate").colormaps[name]


@cache
def _letters() -> frozenset[int]:
    """Code points that matplotlib's own font can draw."""
    fonts = require("matplotlib.font_manager", extra="evaluate")
    return frozenset(fonts.get_font(fonts.findfont("DejaVu Sans")).get_charmap())
