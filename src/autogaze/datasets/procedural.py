"""Clips drawn from a seed alone: sprites, text, a camera over surfaces, and cuts between them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from autogaze.datasets.pages import draw_caption, draw_pages
from autogaze.datasets.recipes import ClipRecipe, Kind
from autogaze.datasets.sprites import draw_sprites, make_sprite
from autogaze.datasets.textures import draw_texture
from autogaze.selectors.cells import Pixels

# Shape letters: T frames, S pixels a side of a frame.

SIMPLE: tuple[Kind, ...] = ("sprites", "text", "pan")
"""What a clip with a cut is made of."""
NOISY = 0.3
"""Share of clips with film noise."""


def draw_clip(recipe: ClipRecipe, *, frames: int = 16, side_px: int = 224) -> Pixels:
    """The (T, S, S, 3) clip of a recipe, by its kind, seed and number alone.

    Raises:
        ValueError: the kind is made of a file.
    """
    rng = recipe.rng(1)
    clip = _scenes(rng, frames, side_px) if recipe.kind == "scenes" else _scene(recipe.kind, rng, frames, side_px)
    if rng.random() < NOISY:
        clip = film_noise(rng, clip)
    return np.ascontiguousarray(clip)


def pan(rng: np.random.Generator, *, frames: int, side_px: int) -> Pixels:
    """(T, S, S, 3) a camera that moves, turns, shakes and comes closer over a surface, or any part of that."""
    quarter = _surface(rng, 2 * side_px)
    half = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    surface, surface_px = Image.fromarray(np.concatenate([half, half[::-1]])), 4 * side_px
    time = np.arange(frames, dtype=np.float64)
    speed, direction = side_px * float(np.exp(rng.uniform(np.log(0.002), np.log(0.06)))), rng.uniform(0, 2 * np.pi)
    shake = rng.normal(0, side_px * 0.004, (2, frames)) * (rng.random() < 0.25)
    first, last = np.sort(rng.integers(-frames, 2 * frames, 2))
    way = speed * time.clip(first, last)
    way = way - way.mean()
    # Around the middle of the first quarter, so that where it is mirrored is seldom seen.
    middle_x, middle_y = (
        side_px * rng.uniform(0.8, 1.2) + way * along + shaken
        for along, shaken in zip((np.cos(direction), np.sin(direction)), shake, strict=True)
    )
    angle = rng.uniform(0, 2 * np.pi) * (rng.random() < 0.3) + rng.normal(0, 0.02) * (rng.random() < 0.3) * time
    zoom = rng.uniform(0.5, 1.1) * np.exp(rng.normal(0, 0.02) * (rng.random() < 0.5) * (time - frames / 2))
    # From the middle to a corner of the window, and a pixel more: never past the surface's edge.
    reach = np.minimum(zoom * side_px * np.sqrt(0.5) + 1, surface_px / 2)
    middle_x, middle_y = middle_x.clip(reach, surface_px - reach), middle_y.clip(reach, surface_px - reach)
    shown = []
    for t in range(frames):
        cos, sin = np.cos(angle[t]) * zoom[t], np.sin(angle[t]) * zoom[t]
        matrix = (
            *(cos, -sin, middle_x[t] - (cos - sin) * side_px / 2),
            *(sin, cos, middle_y[t] - (sin + cos) * side_px / 2),
        )
        frame = surface.transform(
            (side_px, side_px), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR
        )
        shown.append(np.asarray(frame))
    return np.stack(shown)


def _surface(rng: np.random.Generator, side_px: int) -> Pixels:
    """(S, S, 3) a texture, most of the time with pictures stuck on it."""
    surface = Image.fromarray(draw_texture(rng, height_px=side_px, width_px=side_px))
    if rng.random() < 0.7:
        for _ in range(int(rng.integers(2, 13))):
            make_sprite(rng, frames=1, side_px=side_px).paste(surface, 0)
    return np.asarray(surface)


def film_noise(rng: np.random.Generator, clip: Pixels) -> Pixels:
    """(T, S, S, 3) the frames with noise that is another one on each."""
    _, height_px, width_px, _ = clip.shape
    field = rng.normal(0, np.exp(rng.uniform(np.log(0.7), np.log(8))), (2 * height_px, 2 * width_px, 1))
    grain = np.repeat(field.round().astype(np.int16), 3, axis=2)
    noisy = np.empty_like(clip)
    for t, frame in enumerate(clip):
        top, left = rng.integers(0, height_px), rng.integers(0, width_px)
        noisy[t] = (frame + grain[top : top + height_px, left : left + width_px]).clip(0, 255)
    return noisy


def _scene(kind: Kind, rng: np.random.Generator, frames: int, side_px: int) -> Pixels:
    if kind == "pan":
        return pan(rng, frames=frames, side_px=side_px)
    if kind == "sprites":
        return draw_sprites(rng, _background(rng, frames, side_px))
    if kind == "text":
        if rng.random() < 0.25:
            return draw_caption(rng, _background(rng, frames, side_px))
        return draw_pages(rng, frames=frames, side_px=side_px)
    raise ValueError(f"a clip of kind {kind} is not drawn; drawn are {', '.join(SIMPLE)} and scenes")


def _scenes(rng: np.random.Generator, frames: int, side_px: int) -> Pixels:
    """Two scenes, joined by a cut or a dissolve of a few frames."""
    before, after = (_scene(SIMPLE[int(rng.integers(len(SIMPLE)))], rng, frames, side_px) for _ in range(2))
    place = int(rng.integers(2, frames - 1)) if frames > 3 else 1
    length = int(rng.integers(2, 6)) if rng.random() < 0.2 else 0
    clip = np.concatenate([before[:place], after[place:]])
    for step, t in enumerate(range(place, min(frames, place + length))):
        share = round(256 * (step + 1) / (length + 1))
        clip[t] = (before[t].astype(np.uint32) * (256 - share) + after[t].astype(np.uint32) * share) >> 8
    return clip


def _background(rng: np.random.Generator, frames: int, side_px: int) -> Pixels:
    """What sprites move over: a surface that stands still as often as not."""
    if rng.random() < 0.5:
        return pan(rng, frames=frames, side_px=side_px)
    return draw_texture(rng, height_px=side_px, width_px=side_px)[None].repeat(frames, axis=0)
