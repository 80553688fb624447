"""The hills by day: a train behind trees, two balloons and clouds; the camera rests."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from sample_shots.pen import (
    FPS,
    HEIGHT_PX,
    SUPERSAMPLE,
    WIDTH_PX,
    Layer,
    Pen,
    Point,
    gradient,
    place,
    ridge,
)


@cache
def hills_back() -> Layer:
    """Sky, sun and mountains."""
    sky = gradient([(0, (86, 164, 220)), (0.45, (176, 218, 236)), (0.7, (250, 238, 210))])
    pen = Pen(width_px=WIDTH_PX, height_px=HEIGHT_PX)
    pen.glow(118, 84, 130, (255, 246, 200), strength=0.9)
    pen.disc(118, 84, 27, "#fff6d2")
    peaks: list[Point] = [(-20, 230), (70, 128), (130, 186), (214, 96), (300, 190), (372, 138), (470, 212),
                          (560, 118), (670, 226)]  # fmt: skip
    pen.shape([*peaks, (670, 260), (-20, 260)], "#8aa6c6")
    for (x, y), spread in (((70, 128), 22), ((214, 96), 30), ((372, 138), 20), ((560, 118), 26)):
        low = y + spread * 1.05
        pen.shape([(x, y), (x + spread, low), (x + 1.9 * spread, 236), (x + 0.5 * spread, 236),
                   (x + 0.3 * spread, low - 7)], "#7791b3")  # fmt: skip
        pen.shape([(x, y), (x + spread, low), (x + spread * 0.3, low - 7), (x - spread * 0.1, low + 5),
                   (x - spread * 0.5, low - 6), (x - spread * 0.95, low)], "#f4f7fa")  # fmt: skip
    ridge(pen, seed=8, base_px=226, swing_px=15, fill="#7fae8c")
    return Image.alpha_composite(sky, pen.layer)


@cache
def hills_middle() -> Layer:
    """Striped fields, a village and the viaduct that the train crosses."""
    pen = Pen(width_px=WIDTH_PX, height_px=HEIGHT_PX)
    ridge(pen, seed=14, base_px=262, swing_px=10, fill="#94bd6a")
    for number, left in enumerate(range(-60, 700, 58)):
        for row in range(7):
            x = left + row * 8
            pen.line([(x, 330), (x + 46, 268)], ("#c9cf6c", "#7fa653", "#dcbf5d")[number % 3], width=2.6)
    for number, (x, y) in enumerate(((392, 234), (420, 228), (447, 236), (474, 231))):
        pen.box(x, y, 19, 17, ("#f3e7d3", "#f8d9b8", "#efe3ea", "#f3e7d3")[number])
        pen.shape([(x - 3, y), (x + 9.5, y - 11), (x + 22, y)], "#b4533f")
        pen.box(x + 3, y + 5, 4, 5, "#5b6b7d")
        pen.box(x + 12, y + 5, 4, 5, "#5b6b7d")
    pen.box(430, 196, 9, 34, "#f3e7d3")
    pen.shape([(427, 197), (434.5, 178), (442, 197)], "#7a4a5a")
    pen.box(0, 262, WIDTH_PX, 9, "#b99f86")
    pen.box(0, 260, WIDTH_PX, 2.4, "#8a735f")
    for x in range(-14, WIDTH_PX, 62):
        pen.box(x, 270, 15, 66, "#b99f86")
        for side, edge in ((1, x + 15), (-1, x + 62)):
            curve = [
                (edge + side * 23.5 * (1 - math.cos(t)), 290 - 20 * math.sin(t)) for t in np.linspace(0, math.pi / 2, 9)
            ]
            pen.shape([(edge, 270), *curve], "#b99f86")
        for course in range(276, 334, 8):
            pen.box(x, course, 15, 0.8, "#a0876f")
    return pen.layer


@cache
def hills_front() -> Layer:
    """Meadow, flowers and poplars before the train."""
    pen = Pen(width_px=WIDTH_PX, height_px=HEIGHT_PX)
    rng = np.random.default_rng(31)
    ridge(pen, seed=21, base_px=330, swing_px=6, fill="#4f8a4b")
    for x, y, tone in zip(rng.uniform(0, 640, 500), rng.uniform(326, 360, 500), rng.integers(4, size=500), strict=True):
        blade = ("#3f763f", "#66a357", "#f2d95c", "#e8735a")[tone]
        if tone < 2:
            pen.line([(x, y), (x + rng.uniform(-2, 2), y - rng.uniform(4, 9))], blade, width=1)
        else:
            pen.disc(x, y, 1.4, blade)
    for x, tall in ((58, 128), (92, 104), (300, 140), (526, 112), (560, 136), (596, 108)):
        pen.box(x - 2, 330, 4, 16, "#5d4636")
        pen.disc(x, 340 - tall / 2, 12, "#35683f", height=tall / 2)
        for dx, dy in rng.uniform((-8, -0.8), (8, 0.8), (26, 2)):
            pen.disc(x + dx * (1 - dy * dy), 340 - tall / 2 + dy * tall / 2, 2, ("#4a8350", "#2b5935")[int(dx > 0)])
    return pen.layer


@cache
def train() -> Layer:
    """A locomotive and its wagons, heading right."""
    pen = Pen(width_px=330, height_px=34)
    for number, colour in enumerate(("#2f6f73", "#d9913d", "#8c3f5d", "#3f5f9c")):
        x = 2 + number * 76
        pen.box(x, 5, 72, 22, colour, radius=3)
        pen.box(x, 3, 72, 4, "#3a3a46", radius=2)
        for window in range(5):
            pen.box(x + 5 + window * 13, 10, 9, 8, "#eaf4f4", radius=1)
        pen.box(x, 21, 72, 2, "#f5efe2")
        for axle in (10, 22, 50, 62):
            pen.disc(x + axle, 28, 3.6, "#22222c")
        pen.box(x + 71, 20, 6, 2, "#22222c")
    pen.shape([(306, 27), (306, 6), (316, 6), (328, 18), (328, 27)], "#3f5f9c")
    return pen.layer


@cache
def balloon(colours: tuple[str, str, str], radius: float) -> Layer:
    """A striped balloon and its basket."""
    pen = Pen(width_px=2.2 * radius, height_px=3.4 * radius)
    x, y = 1.1 * radius, 1.1 * radius
    for side in (-0.55, 0.55):
        pen.line(
            [(x + side * radius, y + 0.8 * radius), (x + side * 0.3 * radius, y + 1.75 * radius)], "#6b4b3a", width=0.8
        )
    for number, reach in enumerate((1.0, 0.8, 0.55, 0.25)):
        wide = reach * radius
        pen.disc(x, y, wide, colours[number % 3], height=radius)
        base = [(x - wide * 0.82, y + 0.55 * radius), (x + wide * 0.82, y + 0.55 * radius)]
        pen.shape(
            [*base, (x + 0.2 * wide, y + 1.45 * radius), (x - 0.2 * wide, y + 1.45 * radius)], colours[number % 3]
        )
    pen.box(x - 0.24 * radius, y + 1.7 * radius, 0.48 * radius, 0.38 * radius, "#8a5a36", radius=1.2)
    return pen.layer


@cache
def cloud(seed: int) -> Layer:
    """A soft white cloud."""
    pen = Pen(width_px=130, height_px=48)
    pen.layer.paste("#ffffff00", (0, 0, *pen.layer.size))  # a blur of transparent black would leave grey rims
    rng = np.random.default_rng(seed)
    for x in np.linspace(24, 106, 7):
        radius = 9 + 11 * math.sin((x - 10) / 110 * math.pi) * rng.uniform(0.8, 1.1)
        pen.disc(x, 34 - radius * 0.6, radius, "#ffffff")
    pen.box(14, 26, 102, 12, "#ffffff", radius=6)
    return pen.layer.filter(ImageFilter.GaussianBlur(1.2 * SUPERSAMPLE))


def hills(number: int) -> Layer:
    """Frame of the hills shot: the camera rests; a train, balloons and clouds move."""
    seconds = number / FPS
    frame = hills_back().reduce(SUPERSAMPLE)
    for seed, (x, y) in enumerate(((30, 26), (260, 46), (470, 18))):
        place(frame, cloud(seed), x=x + 9 * seconds, y=y)
    frame.alpha_composite(hills_middle().reduce(SUPERSAMPLE))
    red, teal = ("#d9483b", "#f6e3b4", "#f0a13a"), ("#1f7a8c", "#f2f0e6", "#7cc6c3")
    place(frame, balloon(teal, 24), x=372 - 12 * seconds, y=58 - 5 * seconds)
    place(frame, balloon(red, 34), x=300 + 15 * seconds, y=86 - 11 * seconds)
    place(frame, train(), x=-250 + 205 * seconds, y=230)
    frame.alpha_composite(hills_front().reduce(SUPERSAMPLE))
    return frame
