"""The notice board: text and a drawing, where only a ladybird moves."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from sample_shots.pen import (
    FPS,
    HEIGHT_PX,
    SUPERSAMPLE,
    WIDTH_PX,
    Layer,
    Pen,
    place,
)


@cache
def board_back() -> Layer:
    """Planks."""
    pen = Pen(width_px=WIDTH_PX, height_px=HEIGHT_PX)
    rng = np.random.default_rng(41)
    for plank in range(6):
        pen.box(0, plank * 60, WIDTH_PX, 60, ("#7a5334", "#855c3b", "#704b2e")[plank % 3])
        for y in rng.uniform(plank * 60 + 4, plank * 60 + 56, 9):
            x = rng.uniform(-60, 600)
            pen.line([(x, y), (x + rng.uniform(60, 260), y + rng.uniform(-2, 2))], "#654227", width=0.9)
        pen.box(0, plank * 60, WIDTH_PX, 1.6, "#4a2f1c")
    return pen.layer


def paper(pen: Pen, *, x: float, y: float, width: float, height: float, fill: str, pin: str) -> None:
    """A sheet with its shadow and a pin."""
    pen.box(x + 4, y + 5, width, height, "#3e2817")
    pen.box(x, y, width, height, fill)
    pen.disc(x + width / 2, y + 1, 5, pin)
    pen.disc(x + width / 2 - 1.5, y - 0.5, 1.4, "#ffffff")


@cache
def board() -> Layer:
    """The planks and every sheet on them."""
    pen = Pen(width_px=WIDTH_PX, height_px=HEIGHT_PX)
    pen.layer.alpha_composite(board_back())
    paper(pen, x=36, y=28, width=272, height=304, fill="#f6f0e0", pin="#c8372d")
    pen.text(172, 47, "TIMETABLE", "#7a1f1c", size=30)
    pen.box(54, 66, 236, 2, "#7a1f1c")
    rows = (("06:40", "Harbour", "7"), ("07:15", "Old Town", "3"), ("08:05", "Hill Station", "1"),
            ("09:30", "Lake & Mill", "12"), ("11:50", "Harbour", "7"), ("14:20", "Museum", "5"),
            ("17:45", "Hill Station", "1"), ("22:10", "Night line", "N2"))  # fmt: skip
    for number, (time, place_name, line) in enumerate(rows):
        y = 89 + number * 28
        if number % 2 == 0:
            pen.box(48, y - 14, 248, 28, "#ebe2ca")
        pen.text(58, y, time, "#26221c", size=18, anchor="lm")
        pen.text(128, y, place_name, "#26221c", size=18, anchor="lm")
        pen.box(256, y - 10, 32, 20, ("#d8443c", "#256b86", "#4d7a58", "#b57d1f")[number % 4], radius=5)
        pen.text(272, y, line, "#ffffff", size=14)
    paper(pen, x=344, y=24, width=150, height=196, fill="#fdfdf8", pin="#2a78b8")
    pen.text(419, 45, "LOST CAT", "#26221c", size=23)
    pen.box(358, 62, 122, 100, "#f2b33d")
    cat(pen, x=419, y=116)
    pen.text(419, 178, "answers to MIRO", "#26221c", size=14)
    pen.text(419, 200, "555-0142", "#7a1f1c", size=19)
    paper(pen, x=520, y=48, width=92, height=128, fill="#cfe6df", pin="#f2b33d")
    pen.text(566, 80, "CHOIR", "#1f4a4a", size=20)
    for number, words in enumerate(("every", "Tuesday", "at seven")):
        pen.text(566, 108 + number * 20, words, "#1f4a4a", size=14)
    paper(pen, x=368, y=244, width=226, height=86, fill="#f7d9cf", pin="#4d7a58")
    pen.text(481, 274, "Please look closely:", "#5a2a35", size=17)
    pen.text(481, 302, "almost nothing moves", "#5a2a35", size=17)
    return pen.layer


def cat(pen: Pen, *, x: float, y: float) -> None:
    """A sitting cat, drawn with few shapes."""
    pen.disc(x, y + 26, 30, "#3b3440", height=24)
    pen.disc(x, y - 8, 26, "#3b3440", height=22)
    for side in (-1, 1):
        pen.shape([(x + side * 24, y - 42), (x + side * 7, y - 26), (x + side * 25, y - 12)], "#3b3440")
        pen.shape([(x + side * 21, y - 35), (x + side * 12, y - 26), (x + side * 22, y - 18)], "#d98a8a")
        pen.disc(x + side * 10, y - 10, 6, "#d7ea72", height=7)
        pen.disc(x + side * 10, y - 10, 1.8, "#14121a", height=6)
        for whisker in (-3, 1, 5):
            pen.line([(x + side * 9, y + 2), (x + side * 32, y + whisker)], "#f5efe6", width=0.8)
    pen.shape([(x - 4, y - 2), (x + 4, y - 2), (x, y + 3)], "#d98a8a")


def ladybird(*, stride: float) -> Layer:
    """A ladybird heading right; ``stride`` moves its legs."""
    pen = Pen(width_px=16, height_px=14)
    for number, x in enumerate((5, 8, 11)):
        swing = 1.2 * math.sin(stride + 2 * number)
        pen.line([(x + swing, 1.5), (x, 7), (x - swing, 12.5)], "#14121a", width=0.9)
    pen.disc(12, 7, 2.8, "#14121a")
    pen.disc(7.5, 7, 5.6, "#d42a22", height=4.8)
    pen.line([(2, 7), (13, 7)], "#14121a", width=0.7)
    for x, y in ((5, 4.8), (5, 9.2), (9.4, 4.8), (9.4, 9.2)):
        pen.disc(x, y, 1.1, "#14121a")
    return pen.layer


def notice_board(number: int) -> Layer:
    """Frame of the still shot: only a ladybird walks."""
    frame = board().reduce(SUPERSAMPLE)
    seconds = number / FPS
    place(frame, ladybird(stride=seconds * 20), x=84 + 40 * seconds, y=308)
    return frame
