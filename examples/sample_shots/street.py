"""The street at dusk: two cars, a tram and birds; the camera rests, pans and rests."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image

from sample_shots.pen import (
    FPS,
    HEIGHT_PX,
    SUPERSAMPLE,
    WIDTH_PX,
    Layer,
    Pen,
    gradient,
    place,
    ridge,
    smooth,
    view,
)

STREET_PAN_PX = 460
STREET_WIDTH_PX = WIDTH_PX + STREET_PAN_PX
KERB_PX = 282


@cache
def street_sky() -> Layer:
    """Dusk with stars and a moon."""
    sky = gradient([(0, (18, 20, 56)), (0.35, (66, 46, 108)), (0.58, (190, 98, 124)), (0.78, (250, 178, 118))])
    pen = Pen(width_px=WIDTH_PX, height_px=HEIGHT_PX)
    rng = np.random.default_rng(5)
    for x, y, shine in zip(rng.uniform(0, 640, 70), rng.uniform(0, 130, 70), rng.random(70), strict=True):
        pen.disc(x, y, 0.4 + 0.7 * shine, f"#ffffff{int(70 + 150 * shine):02x}")
    pen.glow(500, 74, 120, (255, 226, 180), strength=0.5)
    pen.disc(500, 74, 31, "#fff0cf")
    for x, y, radius in ((489, 66, 7), (511, 84, 9), (508, 60, 4), (494, 88, 4), (484, 80, 3)):
        pen.disc(x, y, radius, "#eed7ab")
    return Image.alpha_composite(sky, pen.layer)


@cache
def street_far() -> Layer:
    """Hills and the far part of the town."""
    pen = Pen(width_px=WIDTH_PX + STREET_PAN_PX * 0.35, height_px=HEIGHT_PX)
    ridge(pen, seed=3, base_px=214, swing_px=16, fill="#6d4673")
    rng = np.random.default_rng(11)
    x = -10.0
    while x < WIDTH_PX + STREET_PAN_PX * 0.35:
        width, height = rng.uniform(22, 46), rng.uniform(50, 128)
        top = 262 - height
        pen.box(x, top, width, height + 40, "#4a3566")
        if rng.random() < 0.35:
            pen.shape([(x, top + 1), (x + width / 2, top - 16), (x + width, top + 1)], "#4a3566")
            pen.line([(x + width / 2, top - 14), (x + width / 2, top - 30)], "#4a3566", width=1.2)
        for wx in np.arange(x + 4, x + width - 4, 6.5):
            for wy in np.arange(top + 6, 256, 8.5):
                if rng.random() < 0.3:
                    pen.box(wx, wy, 2.6, 3.6, "#f0b47a")
        x += width + rng.uniform(0, 7)
    return pen.layer


HOUSES = (
    ("#27304f", 78, 168, "CAFE LUNA", "#ff8f6b"),
    ("#3b2b4d", 92, 128, "BOOKS", "#ffd166"),
    ("#1f3a4a", 66, 206, "HOTEL", "#7be0d6"),
    ("#4a2c3f", 104, 142, "PATCH & CO", "#f4a6c0"),
    ("#2a3358", 84, 186, "RECORDS", "#9fd3ff"),
    ("#233b3d", 98, 120, "BAKERY", "#ffdf9e"),
    ("#40294a", 72, 212, "OPTICS", "#8ff0a4"),
    ("#2c2f55", 108, 150, "TEA HOUSE", "#ffb38a"),
    ("#1e3547", 80, 194, "CINEMA", "#ff7f9f"),
    ("#472f43", 96, 134, "FLOWERS", "#c9f29b"),
    ("#28304c", 88, 172, "TAILOR", "#ffe28a"),
    ("#3a2a4e", 90, 140, "RADIO", "#8fd8ff"),
)


def house(pen: Pen, *, x: float, colour: str, width: float, height: float, sign: str, light: str, seed: int) -> None:
    """One front: roof, lit windows, a shop with its sign and awning."""
    rng = np.random.default_rng(seed)
    top = KERB_PX - height
    pen.box(x, top, width, height, colour)
    pen.box(x - 2, top - 3, width + 4, 4, "#14182e")
    if height > 180:
        pen.box(x + width * 0.6, top - 20, 14, 18, "#1a1f38", radius=2)
        pen.line([(x + width * 0.3, top - 3), (x + width * 0.3, top - 34)], "#1a1f38", width=1.3)
        pen.disc(x + width * 0.3, top - 35, 1.8, "#ff5a5a")
    columns = int((width - 12) // 15)
    step = (width - 12) / columns
    for row_top in np.arange(top + 12, KERB_PX - 66, 20):
        for column in range(columns):
            wx, lit = x + 6 + column * step + (step - 9) / 2, rng.random()
            glass = "#ffd98a" if lit < 0.3 else "#f7a86c" if lit < 0.42 else "#8fb7d8" if lit < 0.5 else "#141a33"
            pen.box(wx, row_top, 9, 12, glass)
            pen.box(wx + 4.1, row_top, 0.8, 12, "#0d1226")
            pen.box(wx - 1, row_top + 12, 11, 1.4, "#10142a")
            if lit < 0.08:
                pen.disc(wx + 3, row_top + 9, 2.4, "#3b2a3a", height=3.4)
    pen.box(x + 5, KERB_PX - 38, width - 10, 38, "#120f20")
    pen.box(x + 8, KERB_PX - 35, width * 0.56, 31, "#f6c27d")
    for shelf in np.arange(x + 11, x + 6 + width * 0.56, 6):
        tall = rng.uniform(6, 16)
        pen.box(shelf, KERB_PX - 6 - tall, 4.2, tall, ("#7c3f4f", "#3f5c7c", "#5d7c3f", "#c96f4a")[rng.integers(4)])
    pen.box(x + width - 24, KERB_PX - 34, 14, 34, "#5b3a33", radius=1)
    pen.disc(x + width - 13, KERB_PX - 17, 1, "#ffd98a")
    for stripe in range(int((width - 6) // 6)):
        sx = x + 3 + stripe * 6
        pen.shape([(sx, KERB_PX - 42), (sx + 6, KERB_PX - 42), (sx + 6, KERB_PX - 34), (sx, KERB_PX - 34)],
                  light if stripe % 2 else "#f5efe6")  # fmt: skip
    pen.box(x + 5, KERB_PX - 60, width - 10, 16, "#0f1226", radius=3)
    pen.text(x + width / 2, KERB_PX - 52, sign, light, size=min(12.0, (width - 14) / (0.68 * len(sign))))


@cache
def street_near() -> Layer:
    """The row of houses, the pavement and the road."""
    pen = Pen(width_px=STREET_WIDTH_PX, height_px=HEIGHT_PX)
    pen.box(0, KERB_PX - 14, STREET_WIDTH_PX, 14, "#2b2240")
    for post in range(3, STREET_WIDTH_PX, 7):
        pen.box(post, KERB_PX - 26, 1.6, 14, "#2b2240")
    x = -14.0
    for number, (colour, width, height, sign, light) in enumerate(HOUSES * 2):
        if x < STREET_WIDTH_PX:
            house(pen, x=x, colour=colour, width=width, height=height, sign=sign, light=light, seed=number)
        x += width + (64 if number % 4 == 2 else 3)
    pen.box(0, KERB_PX, STREET_WIDTH_PX, 14, "#5a4a62")
    for slab in range(0, STREET_WIDTH_PX, 22):
        pen.box(slab, KERB_PX, 0.8, 14, "#45394f")
    pen.box(0, KERB_PX + 14, STREET_WIDTH_PX, 3, "#8a748a")
    pen.box(0, KERB_PX + 17, STREET_WIDTH_PX, 70, "#2a2a40")
    for rail in (KERB_PX + 22, KERB_PX + 30):
        pen.box(0, rail, STREET_WIDTH_PX, 1.2, "#77708e")
    for dash in range(0, STREET_WIDTH_PX, 46):
        pen.box(dash, KERB_PX + 47, 24, 2.4, "#d9c9a5")
    return pen.layer


@cache
def street_front() -> Layer:
    """Lamps and trees: what stands before the traffic."""
    pen = Pen(width_px=STREET_WIDTH_PX * 1.25, height_px=HEIGHT_PX)
    rng = np.random.default_rng(23)
    for number, x in enumerate(np.arange(70, STREET_WIDTH_PX * 1.25, 172)):
        if number % 2:
            pen.line([(x, 352), (x, 268)], "#1b1424", width=7)
            pen.line([(x, 300), (x + 18, 262)], "#1b1424", width=3.5)
            for dx, dy, radius in rng.uniform((-34, -46, 9), (34, 22, 19), (26, 3)):
                pen.disc(x + dx, 240 + dy, radius, ("#1f3b34", "#2a4a3c", "#355a44")[rng.integers(3)])
            for dx, dy in rng.uniform((-36, -48), (36, 24), (60, 2)):
                pen.disc(x + dx, 240 + dy, 1.7, ("#4d7a58", "#68935f", "#c98b5a")[rng.integers(3)])
        else:
            pen.glow(x + 17, 204, 62, (255, 214, 140), strength=0.75)
            pen.line([(x, 356), (x, 200), (x + 6, 193), (x + 17, 193)], "#15131f", width=3)
            pen.shape([(x + 10, 199), (x + 24, 199), (x + 21, 192), (x + 13, 192)], "#15131f")
            pen.disc(x + 17, 200, 5, "#fff3c9", height=3)
            pen.box(x - 4, 346, 8, 12, "#15131f", radius=2)
    return pen.layer


@cache
def tram() -> Layer:
    """A tram with passengers, heading left."""
    pen = Pen(width_px=216, height_px=66)
    pen.line([(96, 2), (108, 12), (124, 2)], "#20202e", width=1.6)
    pen.box(2, 10, 212, 46, "#d8443c", radius=7)
    pen.box(2, 38, 212, 5, "#f7ead2")
    pen.box(8, 56, 200, 4, "#20202e")
    for number, x in enumerate(range(12, 196, 26)):
        pen.box(x, 16, 20, 19, "#ffe9b0" if number % 3 else "#bfe3ee", radius=2)
        if number % 2:
            pen.disc(x + 9, 27, 4, "#5a3c46")
            pen.box(x + 4, 30, 10, 5, "#37506e", radius=2)
    for x in (64, 142):
        pen.box(x - 2, 14, 17, 42, "#a8302c", radius=1)
        pen.box(x, 16, 6, 36, "#ffe9b0")
        pen.box(x + 7.5, 16, 6, 36, "#ffe9b0")
    pen.box(14, 46, 42, 8, "#f7ead2", radius=1)
    pen.text(35, 50, "7 HARBOUR", "#7a1f1c", size=6.6)
    pen.text(110, 50.5, "LINE 7", "#f7ead2", size=7)
    pen.disc(6, 48, 2.4, "#fff6d0")
    return pen.layer


def wheel(pen: Pen, *, x: float, y: float, radius: float, angle: float) -> None:
    """A tyre whose spokes show that it turns."""
    pen.disc(x, y, radius, "#0d0d14")
    pen.disc(x, y, radius * 0.62, "#c7ccd6")
    for spoke in range(3):
        dx, dy = math.cos(angle + spoke * math.pi / 3), math.sin(angle + spoke * math.pi / 3)
        reach = radius * 0.6
        pen.line([(x - dx * reach, y - dy * reach), (x + dx * reach, y + dy * reach)], "#3c4252", width=1.1)


def car(*, rolled_px: float, paint: str, shade: str) -> Layer:
    """A small car heading right, its wheels turned as far as it has rolled."""
    pen = Pen(width_px=150, height_px=46)
    pen.shape([(88, 22), (150, 14), (150, 38), (88, 28)], "#fff0b022")
    pen.shape([(16, 20), (28, 6), (60, 6), (76, 20)], shade)
    pen.shape([(22, 19), (31, 9), (43, 9), (43, 19)], "#cfe8f2")
    pen.shape([(46, 19), (46, 9), (58, 9), (69, 19)], "#cfe8f2")
    pen.box(4, 18, 88, 18, paint, radius=7)
    pen.box(8, 28, 80, 2.5, shade)
    pen.disc(89, 24, 3, "#fff7cf")
    pen.box(4, 21, 4, 6, "#ff4a4a", radius=1)
    pen.box(46, 22, 8, 1.6, shade)
    for x in (24, 72):
        pen.disc(x, 35, 10, shade)
        wheel(pen, x=x, y=36, radius=8, angle=rolled_px / 8)
    return pen.layer


def bird(*, beat: float, size: float) -> Layer:
    """A gull seen from the side; ``beat`` turns its wings."""
    pen = Pen(width_px=4 * size, height_px=3 * size)
    lift = math.sin(beat) * size
    x, y = 2 * size, 1.6 * size
    pen.shape([(x - 0.2 * size, y), (x - 1.0 * size, y - 0.8 * lift), (x - 1.8 * size, y - 0.35 * lift),
               (x - 0.9 * size, y - 0.45 * lift), (x + 0.1 * size, y + 0.25 * size)], "#f6f1ea")  # fmt: skip
    pen.shape([(x + 0.2 * size, y), (x + 0.9 * size, y - lift), (x + 1.8 * size, y - 0.5 * lift),
               (x + 0.9 * size, y - 0.6 * lift), (x - 0.1 * size, y + 0.25 * size)], "#cfc7cf")  # fmt: skip
    pen.disc(x + 0.1 * size, y + 0.1 * size, 0.55 * size, "#f6f1ea", height=0.22 * size)
    pen.disc(x + 0.62 * size, y, 0.18 * size, "#f6f1ea")
    return pen.layer


def street(number: int) -> Layer:
    """Frame of the street shot: two cars, a tram and birds; the camera rests, pans and rests."""
    seconds = number / FPS
    pan = STREET_PAN_PX * smooth((seconds - 0.8) / 2.9)
    frame = street_sky().reduce(SUPERSAMPLE)
    for bird_number, (start_x, start_y, speed) in enumerate(((60, 96, 62), (24, 118, 58), (8, 88, 60))):
        sprite = bird(beat=seconds * 13 + bird_number * 2, size=9 - bird_number)
        place(frame, sprite, x=start_x + speed * seconds, y=start_y - 9 * seconds + 4 * math.sin(seconds * 3))
    frame.alpha_composite(view(street_far(), left_px=pan * 0.35))
    frame.alpha_composite(view(street_near(), left_px=pan))
    place(frame, tram(), x=690 - 74 * seconds - pan * 0.55, y=KERB_PX - 31)
    blue = 330 + 150 * seconds
    place(frame, car(rolled_px=blue, paint="#3fa7c4", shade="#256b86"), x=blue - pan, y=KERB_PX + 3)
    gold = -120 + 232 * seconds
    place(frame, car(rolled_px=gold, paint="#f2b33d", shade="#b57d1f"), x=gold - pan, y=KERB_PX + 27)
    frame.alpha_composite(view(street_front(), left_px=pan * 1.25))
    return frame
