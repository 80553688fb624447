"""Clips of decoded videos and images: windows, stills, cuts and rides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autogaze.datasets.footage import Footage
from autogaze.datasets.recipes import ClipRecipe
from autogaze.selectors.cells import Pixels

# Shape letters: T frames, S pixels a side of a clip's frame, H × W pixels of a source's frame.

SLOWEST_FPS = 5.0
"""No frames are left out that would bring a clip below this rate."""


def cut_clip(recipe: ClipRecipe, footage: Footage, *, frames: int = 16, side_px: int = 224) -> Pixels:
    """The (T, S, S, 3) clip that a recipe makes of footage."""
    if recipe.kind == "labelled":
        return footage.rgb
    if recipe.kind == "whole":
        return _whole(footage, frames, side_px)
    rng = recipe.rng(1)
    if recipe.kind == "scan":
        clip = scan(footage.rgb[0], rng, frames=frames, side_px=side_px)
    elif recipe.kind == "still":
        clip = _still(footage, rng, frames, side_px)
    else:
        clip = window(footage, rng, frames=frames, side_px=side_px)
        if recipe.kind == "cut":
            after = int(rng.integers(2, frames - 1)) if frames > 3 else 1
            clip[after:] = window(footage, rng, frames=frames, side_px=side_px)[after:]
    if rng.random() < 0.5:
        clip = clip[:, :, ::-1]
    if rng.random() < 0.5:
        clip = _tone(clip, rng)
    return np.ascontiguousarray(clip)


def window(footage: Footage, rng: np.random.Generator, *, frames: int, side_px: int) -> Pixels:
    """A random window in time, cropped at random: a quarter of the time not at all, else to 0.5–1 of the height."""
    T, H, W, _ = footage.rgb.shape
    strides = [s for s in (1, 2, 3, 4) if footage.fps / s >= SLOWEST_FPS and (frames - 1) * s < T]
    stride = int(rng.choice(strides)) if strides else 1
    last = T - 1 - (frames - 1) * stride
    numbers = _there_and_back(int(rng.integers(0, max(last, 0) + 1)) + stride * np.arange(frames), T)
    left, top, width, height = 0.0, 0.0, float(W), float(H)
    if rng.random() >= 0.25:
        height = min(H, W) * rng.uniform(0.5, 1.0)
        width = min(W, height * np.exp(rng.uniform(np.log(0.75), np.log(1.8))))
        left, top = rng.uniform(0, W - width), rng.uniform(0, H - height)
    box = (left, top, left + width, top + height)
    return np.stack([_crop(footage.rgb[number], box, side_px) for number in numbers])


def scan(rgb: Pixels, rng: np.random.Generator, *, frames: int, side_px: int) -> Pixels:
    """A window that moves over an (H, W, 3) image in a random direction and grows or shrinks a little."""
    H, W, _ = rgb.shape
    zoom = np.geomspace(1, np.exp(rng.uniform(-0.3, 0.3)), frames) if rng.random() < 0.5 else np.ones(frames)
    sides = np.minimum(min(H, W) * rng.uniform(0.2, 0.9) * zoom, min(H, W))
    angle, distance = rng.uniform(0, 2 * np.pi), sides[0] * rng.uniform(0, 0.8)
    # From rest to full speed and back on some rides, at an even speed on others.
    steps = np.linspace(0, 1, frames)
    steps = steps if rng.random() < 0.5 else (1 - np.cos(np.pi * steps)) / 2
    middle_x = rng.uniform(0, W) + np.cos(angle) * distance * steps
    middle_y = rng.uniform(0, H) + np.sin(angle) * distance * steps
    # Back at the borders, so that a ride that starts beside one goes along it.
    left = (middle_x - sides / 2).clip(0, W - sides)
    top = (middle_y - sides / 2).clip(0, H - sides)
    boxes = np.stack([left, top, left + sides, top + sides], axis=1).tolist()
    return np.stack([_crop(rgb, tuple(box), side_px) for box in boxes])


def _still(footage: Footage, rng: np.random.Generator, frames: int, side_px: int) -> Pixels:
    """One frame again and again; half of the time with fresh noise on each."""
    one = replace(footage, rgb=footage.rgb[int(rng.integers(len(footage.rgb)))][None])
    clip = window(one, rng, frames=1, side_px=side_px).repeat(frames, axis=0)
    if rng.random() < 0.5:
        return clip
    noise = rng.normal(0, rng.uniform(0.5, 4), clip.shape).astype(np.float32)
    noisy: Pixels = (clip + noise).round().clip(0, 255).astype(np.uint8)
    return noisy


def _whole(footage: Footage, frames: int, side_px: int) -> Pixels:
    """The first frames, every second one where there are enough, squeezed into the square."""
    T, H, W, _ = footage.rgb.shape
    stride = 2 if 2 * frames <= T else 1
    numbers = _there_and_back(stride * np.arange(frames), T)
    return np.stack([_crop(footage.rgb[number], (0, 0, W, H), side_px) for number in numbers])


def _there_and_back(numbers: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Frame numbers past the end walk back, and forth again."""
    if length == 1:
        return np.zeros_like(numbers)
    inside: NDArray[np.int64] = length - 1 - np.abs(numbers % (2 * length - 2) - (length - 1))
    return inside


def _crop(rgb: Pixels, box: tuple[float, ...], side_px: int) -> Pixels:
    left, top, right, bottom = box
    small = Image.fromarray(rgb).resize((side_px, side_px), Image.Resampling.BILINEAR, (left, top, right, bottom))
    return np.asarray(small)


def _tone(clip: Pixels, rng: np.random.Generator) -> Pixels:
    """Other contrast, brightness and gamma, the same on all frames."""
    contrast, brightness, gamma = rng.uniform(0.6, 1.25), rng.uniform(-0.12, 0.12), np.exp(rng.uniform(-0.3, 0.3))
    level = (np.arange(256) / 255) ** gamma
    table = ((level - 0.5) * contrast + 0.5 + brightness).clip(0, 1) * 255
    toned: Pixels = table.round().astype(np.uint8)[clip]
    return toned
