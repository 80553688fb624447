"""Text that stands, scrolls, is typed, or lies over something that moves; set in Pillow's own font."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from autogaze.datasets.textures import palette
from autogaze.selectors.cells import Pixels

# Shape letters: T frames, S pixels a side of a frame, H pixels of a page from top to bottom.

Style = Literal["prose", "code", "table"]
STYLES: tuple[Style, ...] = ("prose", "code", "table")
_LETTERS = "eeeeeetttttaaaaooooiiiinnnnsssrrrhhhlldducmfpgwybvk"
_SIGNS = "(){}[]=+-*/<>:;.,_\"'"


def draw_pages(rng: np.random.Generator, *, frames: int, side_px: int) -> Pixels:
    """(T, S, S, 3) a page that stands still, scrolls, or is typed."""
    manner = rng.choice(["stands", "scrolls", "typed"], p=[0.2, 0.5, 0.3])
    if manner == "typed":
        return _typed(rng, frames=frames, side_px=side_px)
    page = draw_page(rng, height_px=(3 if manner == "scrolls" else 1) * side_px, width_px=side_px)
    room = len(page) - side_px
    top = _scrolled(rng, frames, side_px).clip(0, room) if manner == "scrolls" else np.zeros(frames)
    if rng.random() < 0.3:
        top = room - top
    clip = np.stack([_shifted(page, place, side_px) for place in top.tolist()])
    if rng.random() < 0.5:
        _point(rng, clip)
    return clip


def draw_page(rng: np.random.Generator, *, height_px: int, width_px: int) -> Pixels:
    """(H, W, 3) a page full of lines, headings, boxes and rules."""
    paper, ink = _paper_and_ink(rng)
    page = Image.new("RGB", (width_px, height_px), paper)
    pen = ImageDraw.Draw(page)
    style = STYLES[int(rng.integers(len(STYLES)))]
    size_px = _letter_size(rng, width_px)
    accent = _colour(rng)
    y, margin = size_px * rng.uniform(0, 1), width_px * rng.uniform(0.02, 0.1)
    while y < height_px:
        what = rng.random()
        if what < 0.06:  # a picture or a button
            height = size_px * rng.uniform(2, 6)
            pen.rectangle((margin, y, width_px * rng.uniform(0.3, 0.98), y + height), fill=_colour(rng), outline=ink)
            y += height + size_px / 2
        elif what < 0.12:
            heading_px = round(size_px * rng.uniform(1.3, 2.2))
            pen.text((margin, y), _line(rng, "prose", 24), fill=accent, font=_font(heading_px))
            y += heading_px * 1.5
        elif what < 0.2:
            y += size_px * rng.uniform(0.5, 2)
        else:
            indent = size_px * int(rng.integers(0, 4)) if style == "code" else 0
            colour = accent if rng.random() < 0.1 else ink
            _write(rng, pen, (margin + indent, y), style=style, size_px=size_px, width_px=width_px, fill=colour)
            y += size_px * 1.35
            if style == "table" and rng.random() < 0.5:
                pen.line((margin, y, width_px - margin, y), fill=ink)
    return np.asarray(page)


def draw_caption(rng: np.random.Generator, clip: Pixels) -> Pixels:
    """(T, S, S, 3) frames with a line or two of text over them, which stands, comes, goes, or runs through."""
    frames, side_px = clip.shape[:2]
    size_px = max(6, round(side_px * rng.uniform(0.05, 0.12)))
    label = Image.new("RGBA", (2 * side_px, round(2.8 * size_px)), (0, 0, 0, int(rng.choice([0, 0, 160]))))
    pen = ImageDraw.Draw(label)
    outline = {"stroke_width": max(1, size_px // 12), "stroke_fill": (0, 0, 0, 255)}
    for row in range(int(rng.integers(1, 3))):
        text = _line(rng, "prose", int(rng.integers(10, 60)))
        pen.text((size_px, 1.3 * row * size_px), text, fill=(255, 255, 255, 255), font=_font(size_px), **outline)
    left = np.full(frames, -rng.uniform(0, side_px / 4))
    if rng.random() < 0.4:
        left = left - rng.uniform(0.005, 0.04) * side_px * np.arange(frames)
    top = round(rng.uniform(0, max(0, side_px - label.height)))
    first, last = np.sort(rng.integers(-frames, 2 * frames, 2))
    shown = []
    for t in range(frames):
        frame = Image.fromarray(clip[t])
        if first <= t <= max(last, frames // 2):
            frame.paste(label, (round(left[t]), top), label)
        shown.append(np.asarray(frame))
    return np.stack(shown)


def _typed(rng: np.random.Generator, *, frames: int, side_px: int) -> Pixels:
    """A page to which letters are added, with a cursor that blinks."""
    paper, ink = _paper_and_ink(rng)
    size_px = _letter_size(rng, side_px)
    style: Style = "code" if rng.random() < 0.5 else "prose"
    page = Image.fromarray(draw_page(rng, height_px=side_px, width_px=side_px))
    pen, font = ImageDraw.Draw(page), _font(size_px)
    top = rng.uniform(0.2, 0.8) * side_px
    pen.rectangle((0, top, side_px, side_px), fill=paper)
    x, y, margin = float(size_px), float(top + size_px / 2), float(size_px)
    speed, shown = rng.uniform(0.3, 4), []
    text = " ".join(_line(rng, style, 40) for _ in range(4))
    done = 0
    for t in range(frames):
        until = min(len(text), int(speed * (t + 1)))
        for letter in text[done:until]:
            pen.text((x, y), letter, fill=ink, font=font)
            x += font.getlength(letter)
            if x > side_px - 2 * margin:
                x, y = margin, y + 1.35 * size_px
        done = until
        frame = page
        if t // 4 % 2:
            frame = page.copy()
            ImageDraw.Draw(frame).rectangle((x + 1, y, x + 1 + size_px / 8, y + 1.1 * size_px), fill=ink)
        shown.append(np.array(frame))
    return np.stack(shown)


def _scrolled(rng: np.random.Generator, frames: int, side_px: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(T,) how far a page has moved: evenly, by turns of a wheel, or thrown and slowing down."""
    time = np.arange(frames, dtype=np.float64)
    speed = side_px * float(np.exp(rng.uniform(np.log(0.004), np.log(0.12))))
    manner = int(rng.integers(3))
    if manner == 0:
        return (speed * time).round() if rng.random() < 0.5 else speed * time
    if manner == 1:
        return np.cumsum((rng.random(frames) < 0.25) * rng.choice([0.1, 0.2, 0.4]) * side_px)
    slowing = rng.uniform(0.6, 0.95)
    return speed * 3 * (1 - slowing**time) / (1 - slowing)


def _shifted(page: Pixels, top: float, side_px: int) -> Pixels:
    """S rows of a page from a place that may lie between two of them."""
    whole = int(top)
    rest = round((top - whole) * 256)
    rows = page[whole : whole + side_px]
    if not rest or whole + side_px >= len(page):
        return rows
    below = page[whole + 1 : whole + side_px + 1]
    mixed: Pixels = ((rows.astype(np.uint16) * (256 - rest) + below.astype(np.uint16) * rest) >> 8).astype(np.uint8)
    return mixed


def _point(rng: np.random.Generator, clip: Pixels) -> None:
    """A mouse pointer over the frames, in place."""
    frames, side_px = clip.shape[:2]
    x, y = (rng.uniform(0, side_px) + rng.normal(0, 0.02) * side_px * np.arange(frames) for _ in range(2))
    size_px = max(5, side_px // 20)
    for t in range(frames):
        frame = Image.fromarray(clip[t])
        corners = [(0.0, 0.0), (0.0, 1.0), (0.28, 0.75), (0.65, 0.7)]
        shape = [(x[t] + size_px * a, y[t] + size_px * b) for a, b in corners]
        ImageDraw.Draw(frame).polygon(shape, fill=(255, 255, 255), outline=(0, 0, 0))
        clip[t] = np.asarray(frame)


def _write(
    rng: np.random.Generator,
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    *,
    style: Style,
    size_px: int,
    width_px: int,
    fill: tuple[int, int, int],
) -> None:
    """One line, or the cells of one row of a table."""
    font = _font(size_px)
    if style != "table":
        letters = max(4, int(width_px / size_px * 1.8 * rng.uniform(0.3, 1.0)))
        pen.text(place, _line(rng, style, letters), fill=fill, font=font)
        return
    for x in np.arange(place[0], width_px, size_px * 6).tolist():
        cell = f"{rng.uniform(-999, 9999):.2f}" if rng.random() < 0.6 else _word(rng)
        pen.text((x, place[1]), cell[:9], fill=fill, font=font)


def _line(rng: np.random.Generator, style: Style, letters: int) -> str:
    """About so many letters of words that are none."""
    words: list[str] = []
    while sum(map(len, words)) + len(words) < letters:
        words.append(_word(rng))
        if style == "code" and rng.random() < 0.6:
            words.append("".join(rng.choice(list(_SIGNS), int(rng.integers(1, 4)))))
    line = " ".join(words)
    return line[:letters] if style == "code" else line[:letters].capitalize()


def _word(rng: np.random.Generator) -> str:
    return "".join(_LETTERS[i] for i in rng.integers(0, len(_LETTERS), int(rng.integers(1, 10))))


def _paper_and_ink(rng: np.random.Generator) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    light, dark = (230 + 25 * rng.random(3)).astype(int).tolist(), (60 * rng.random(3)).astype(int).tolist()
    paper, ink = (light, dark) if rng.random() < 0.6 else (dark, light)
    return (paper[0], paper[1], paper[2]), (ink[0], ink[1], ink[2])


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = palette(rng, 2)[0].astype(int).tolist()
    return red, green, blue


def _letter_size(rng: np.random.Generator, side_px: int) -> int:
    """From barely readable to six lines a frame."""
    return max(6, round(side_px * float(np.exp(rng.uniform(np.log(0.035), np.log(0.12))))))


@lru_cache(maxsize=64)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImportError("Pillow was built without FreeType, which drawn text needs; install Pillow from PyPI")
    return font
