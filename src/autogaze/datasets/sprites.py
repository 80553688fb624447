"""Textured shapes that move, turn, bounce and hide each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from autogaze.datasets.textures import draw_texture, palette, smooth_noise
from autogaze.selectors.cells import Pixels

# Shape letters: T frames, S pixels a side of a frame.

SMOOTHING = 3
"""Outlines are drawn so much larger and then shrunk, so that they are smooth."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sprite:
    """A picture and its way over T frames."""

    image: Image.Image
    """RGBA, the shape in its middle."""
    x_T: NDArray[np.float64]
    """Left to right, the shape's middle in pixels of the frame."""
    y_T: NDArray[np.float64]
    """Top to bottom, likewise."""
    angle_T: NDArray[np.float64]
    """How far it is turned, in radians."""
    zoom_T: NDArray[np.float64]
    """How much larger it is shown."""

    def paste(self, frame: Image.Image, t: int) -> None:
        """Draw it into frame ``t``, at fractions of pixels too."""
        width, height = self.image.size
        reach = int(np.ceil(np.hypot(width, height) * self.zoom_T[t] / 2)) + 1
        left, top = int(self.x_T[t]) - reach, int(self.y_T[t]) - reach
        if left >= frame.width or top >= frame.height or left + 2 * reach <= 0 or top + 2 * reach <= 0:
            return
        cos, sin = np.cos(self.angle_T[t]) / self.zoom_T[t], np.sin(self.angle_T[t]) / self.zoom_T[t]
        middle_x, middle_y = self.x_T[t] - left, self.y_T[t] - top
        # From a pixel of the frame to one of the sprite, which is what Pillow asks for.
        matrix = (
            *(cos, sin, width / 2 - cos * middle_x - sin * middle_y),
            *(-sin, cos, height / 2 + sin * middle_x - cos * middle_y),
        )
        turned = self.image.transform(
            (2 * reach, 2 * reach), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR
        )
        frame.paste(turned, (left, top), turned)


def draw_sprites(rng: np.random.Generator, background: Pixels) -> Pixels:
    """The (T, S, S, 3) frames with one to eight sprites before them; the later ones hide the earlier."""
    frames, side_px = background.shape[:2]
    number = int(rng.integers(1, 9))
    sprites = [make_sprite(rng, frames=frames, side_px=side_px) for _ in range(number)]
    shown = []
    for t in range(frames):
        frame = Image.fromarray(background[t])
        for sprite in sprites:
            sprite.paste(frame, t)
        shown.append(np.asarray(frame))
    return np.stack(shown)


def make_sprite(rng: np.random.Generator, *, frames: int, side_px: int) -> Sprite:
    """A random shape with a random surface on a random way."""
    size_px = max(4, round(side_px * float(np.exp(rng.uniform(np.log(0.06), np.log(0.5))))))
    image = Image.fromarray(draw_texture(rng, height_px=size_px, width_px=size_px, detail=0.5)).convert("RGBA")
    mask = _outline(rng, size_px)
    if rng.random() < 0.3:
        _outlined(image, mask, rng)
    image.putalpha(mask)
    time = np.arange(frames, dtype=np.float64)
    speed = side_px * float(np.exp(rng.uniform(np.log(0.002), np.log(0.08)))) * (rng.random() < 0.85)
    direction = rng.uniform(0, 2 * np.pi)
    # It stands until one frame or from one frame on, or never.
    first, last = np.sort(rng.integers(-frames, 2 * frames, 2))
    way = speed * (time.clip(first, last) - time.clip(first, last)[0])
    start_x, start_y = rng.uniform(0, side_px, 2)
    fall = 0.5 * rng.choice([0, 0, 0, 1]) * side_px * rng.uniform(0.0005, 0.004) * time**2
    inside = rng.random() < 0.6
    x, y = start_x + way * np.cos(direction), start_y + way * np.sin(direction) + fall
    if inside:
        x, y = _bounced(x, side_px), _bounced(y, side_px)
    spin = float(rng.normal(0, 0.12) if rng.random() < 0.5 else 0)
    growth = float(rng.normal(0, 0.015) if rng.random() < 0.3 else 0)
    angle = float(rng.uniform(0, 2 * np.pi) if rng.random() < 0.7 else 0)
    return Sprite(
        image=image,
        x_T=x,
        y_T=y,
        angle_T=angle + spin * time,
        zoom_T=np.exp(growth * time),
    )


def _bounced(way: NDArray[np.float64], side_px: int) -> NDArray[np.float64]:
    """A straight way thrown back by the borders of 0 … side_px."""
    folded: NDArray[np.float64] = side_px - np.abs(way % (2 * side_px) - side_px)
    return folded


def _outline(rng: np.random.Generator, size_px: int) -> Image.Image:
    """A mask (L) of a disc, a box, a star, a polygon, a ring, or a cloud."""
    large = size_px * SMOOTHING
    mask = Image.new("L", (large, large))
    pen = ImageDraw.Draw(mask)
    kind = int(rng.integers(6))
    edge, flat = large * 0.04, rng.uniform(0.4, 1.0)
    box = (edge, large / 2 - flat * (large / 2 - edge), large - edge, large / 2 + flat * (large / 2 - edge))
    if kind == 0:
        pen.ellipse(box, fill=255)
    elif kind == 1:
        pen.rounded_rectangle(box, radius=large * rng.uniform(0, 0.2), fill=255)
    elif kind == 2:
        pen.ellipse(box, outline=255, width=max(1, round(large * rng.uniform(0.05, 0.15))))
    elif kind == 3:
        noise = smooth_noise(rng, size_px, size_px, detail=0.3)
        x = np.linspace(-1, 1, size_px)
        round_off = 1 - np.hypot(x[None], x[:, None])
        cloud = ((noise - 0.5 + round_off) * 6).clip(0, 1) * 255
        return Image.fromarray(cloud.astype(np.uint8))
    else:
        points = int(rng.integers(3, 9))
        around = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False)
        radius = np.full(2 * points, 0.48 * large)
        radius[1::2] *= rng.uniform(0.35, 0.7) if kind == 4 else np.cos(np.pi / (2 * points))
        corners = np.stack([large / 2 + radius * np.cos(around), large / 2 + radius * np.sin(around)], axis=1)
        pen.polygon([tuple(corner) for corner in corners.tolist()], fill=255)
    return mask.resize((size_px, size_px), Image.Resampling.BOX)


def _outlined(image: Image.Image, mask: Image.Image, rng: np.random.Generator) -> None:
    """Paint the rim of a shape in one colour."""
    alpha = np.asarray(mask, np.int16)
    step = max(1, image.width // 20)
    inner = alpha.copy()
    for axis in (0, 1):
        for shift in (-step, step):
            inner = np.minimum(inner, np.roll(alpha, shift, axis))
    colour = tuple(palette(rng, 2)[0].astype(int).tolist())
    image.paste((*colour, 255), (0, 0, *image.size), Image.fromarray((alpha - inner).clip(0, 255).astype(np.uint8)))
