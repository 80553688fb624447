"""The pen all shots are drawn with: smooth shapes, text, light, and layers seen through a moving camera."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH_PX, HEIGHT_PX, FPS = 640, 360, 24
SUPERSAMPLE = 3  # everything is drawn this much larger and brought down, which makes edges smooth

Point = tuple[float, float]
Layer = Image.Image


class Pen:
    """Draws in video pixels onto a transparent, supersampled layer."""

    def __init__(self, *, width_px: float, height_px: float) -> None:
        size = (math.ceil(width_px * SUPERSAMPLE), math.ceil(height_px * SUPERSAMPLE))
        self.layer = Image.new("RGBA", size)
        self._draw = ImageDraw.Draw(self.layer)

    def box(self, x: float, y: float, width: float, height: float, fill: str, *, radius: float = 0) -> None:
        """A filled rectangle, with round corners if asked for."""
        corners = [(x * SUPERSAMPLE, y * SUPERSAMPLE)]
        corners.append(((x + width) * SUPERSAMPLE - 1, (y + height) * SUPERSAMPLE - 1))
        self._draw.rounded_rectangle(corners, radius * SUPERSAMPLE, fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: str, *, height: float | None = None) -> None:
        """A filled circle around a point, or an ellipse if its half height differs."""
        tall = radius if height is None else height
        bounds = (x - radius, y - tall, x + radius, y + tall)
        self._draw.ellipse([value * SUPERSAMPLE for value in bounds], fill=fill)

    def shape(self, points: list[Point], fill: str) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * SUPERSAMPLE, y * SUPERSAMPLE) for x, y in points], fill=fill)

    def line(self, points: list[Point], fill: str, *, width: float = 1) -> None:
        """Connected strokes."""
        scaled = [(x * SUPERSAMPLE, y * SUPERSAMPLE) for x, y in points]
        self._draw.line(scaled, fill=fill, width=round(width * SUPERSAMPLE), joint="curve")

    def text(self, x: float, y: float, words: str, fill: str, *, size: float, anchor: str = "mm") -> None:
        """Words in Pillow's own font."""
        font = ImageFont.load_default(size * SUPERSAMPLE)
        self._draw.text((x * SUPERSAMPLE, y * SUPERSAMPLE), words, fill=fill, font=font, anchor=anchor)

    def glow(self, x: float, y: float, radius: float, colour: tuple[int, int, int], *, strength: float) -> None:
        """A soft light, added under what is drawn later."""
        side = math.ceil(2 * radius * SUPERSAMPLE)
        at = (np.arange(side) + 0.5) / side * 2 - 1
        falloff = np.clip(1 - np.hypot(at[:, None], at[None]), 0, 1) ** 2 * strength
        light = np.empty((side, side, 4), np.uint8)
        light[..., :3] = colour
        light[..., 3] = np.round(255 * falloff)
        corner = (round((x - radius) * SUPERSAMPLE), round((y - radius) * SUPERSAMPLE))
        left, top = max(0, -corner[0]), max(0, -corner[1])
        self.layer.alpha_composite(Image.fromarray(light), (corner[0] + left, corner[1] + top), (left, top))


def view(layer: Layer, *, left_px: float) -> Layer:
    """The part of a wide layer that the camera sees, brought down to video pixels."""
    left = left_px * SUPERSAMPLE
    box = (left, 0, left + WIDTH_PX * SUPERSAMPLE, HEIGHT_PX * SUPERSAMPLE)
    return layer.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BOX, box=box)


def place(frame: Layer, sprite: Layer, *, x: float, y: float) -> None:
    """Put a supersampled sprite's top left corner anywhere, between pixels too."""
    left, top = math.floor(x), math.floor(y)
    width, height = math.ceil(sprite.width / SUPERSAMPLE) + 1, math.ceil(sprite.height / SUPERSAMPLE) + 1
    padded = Image.new("RGBA", (width * SUPERSAMPLE, height * SUPERSAMPLE))
    padded.paste(sprite, (round((x - left) * SUPERSAMPLE), round((y - top) * SUPERSAMPLE)))
    small = padded.reduce(SUPERSAMPLE)
    cut_x, cut_y = max(0, -left), max(0, -top)
    if cut_x < width and cut_y < height and left < WIDTH_PX and top < HEIGHT_PX:
        frame.alpha_composite(small, (left + cut_x, top + cut_y), (cut_x, cut_y))


def gradient(stops: list[tuple[float, tuple[int, int, int]]]) -> Layer:
    """A sky: colours at heights (0 top, 1 bottom), smooth between them."""
    heights, colours = [height for height, _ in stops], np.array([colour for _, colour in stops])
    at = np.linspace(0, 1, HEIGHT_PX * SUPERSAMPLE)
    column = np.stack([np.interp(at, heights, colours[:, channel]) for channel in range(3)], -1)
    rows = np.repeat(np.round(column).astype(np.uint8)[:, None], WIDTH_PX * SUPERSAMPLE, axis=1)
    return Image.fromarray(rows).convert("RGBA")


def ridge(pen: Pen, *, seed: int, base_px: float, swing_px: float, fill: str) -> None:
    """Rolling hills from edge to edge: a sum of a few waves."""
    rng = np.random.default_rng(seed)
    width = pen.layer.width / SUPERSAMPLE
    x = np.linspace(0, width, 240)
    y = np.full_like(x, base_px)
    for wave, size in ((520, 1.0), (230, 0.5), (97, 0.18)):
        y -= swing_px * size * np.sin(x / wave * 2 * math.pi + rng.uniform(0, 6.3))
    pen.shape([*zip(x.tolist(), y.tolist(), strict=True), (width, HEIGHT_PX), (0, HEIGHT_PX)], fill)


def smooth(value: float) -> float:
    """0 to 1 with a soft start and end."""
    value = min(1.0, max(0.0, value))
    return value * value * (3 - 2 * value)
