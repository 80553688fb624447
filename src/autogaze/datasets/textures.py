"""Surfaces to move a camera over, drawn from random numbers alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autogaze.selectors.cells import Pixels

# Shape letters: H × W pixels of a surface, n colours.


def draw_texture(rng: np.random.Generator, *, height_px: int, width_px: int, detail: float = 1.0) -> Pixels:
    """An (H, W, 3) surface: noise of several octaves, a gradient, a checkerboard, stripes, bricks, or a plain colour.

    Args:
        rng: decides everything.
        height_px: H.
        width_px: W.
        detail: from 0 to 1, how fine noise becomes.
    """
    kind = int(rng.choice(len(_PATTERNS), p=_CHANCES))
    level = _PATTERNS[kind](rng, height_px, width_px, detail)
    return _coloured(level, palette(rng, int(rng.integers(2, 6))))


def palette(rng: np.random.Generator, colours: int) -> NDArray[np.float64]:
    """(n, 3) colours from 0 to 255: shades of one, or one by one."""
    if rng.random() < 0.5:
        dark, light = np.sort(rng.uniform(0, 1, 2))
        shades = np.linspace(dark, max(light, dark + 0.3), colours)
        tinted: NDArray[np.float64] = shades[:, None] * (255 - rng.uniform(0, 120, 3) * rng.integers(0, 2))
        return tinted.clip(0, 255) if rng.random() < 0.5 else tinted[::-1].clip(0, 255)
    return rng.uniform(0, 255, (colours, 3))


def smooth_noise(
    rng: np.random.Generator, height_px: int, width_px: int, *, detail: float = 1.0
) -> NDArray[np.float32]:
    """(H, W) noise from 0 to 1, each octave half as wide and weaker by a random factor."""
    total = np.zeros((height_px, width_px), np.float32)
    strength, fall = 1.0, rng.uniform(0.4, 0.85)
    longest = max(height_px, width_px)
    cells = int(rng.integers(2, 5))
    while cells < longest * detail / 2:
        rows, columns = (max(2, cells * side_px // longest) for side_px in (height_px, width_px))
        grid = rng.random((rows, columns), np.float32)
        octave = Image.fromarray(grid).resize((width_px, height_px), Image.Resampling.BICUBIC)
        total += strength * np.asarray(octave)
        strength, cells = strength * fall, 2 * cells
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def _coloured(level: NDArray[np.float32], colours: NDArray[np.float64]) -> Pixels:
    """Levels from 0 to 1 as colours between those of a palette."""
    stops, levels = np.linspace(0, 255, len(colours)), np.arange(256)
    table = np.stack([np.interp(levels, stops, channel) for channel in colours.T], axis=1).round().astype(np.uint8)
    coloured: Pixels = table[(level * 255).astype(np.uint8)]
    return coloured


def _noise(rng: np.random.Generator, height_px: int, width_px: int, detail: float) -> NDArray[np.float32]:
    return smooth_noise(rng, height_px, width_px, detail=detail * float(rng.choice([0.1, 0.3, 1.0])))


def _gradient(rng: np.random.Generator, height_px: int, width_px: int, detail: float) -> NDArray[np.float32]:
    x, y = _axes(height_px, width_px)
    if rng.random() < 0.3:
        middle_x, middle_y = rng.uniform(0, 1, 2)
        distance = np.hypot(x - middle_x, y - middle_y)
        rings: NDArray[np.float32] = (distance / distance.max()).astype(np.float32)
        return rings
    angle = rng.uniform(0, 2 * np.pi)
    ramp = x * np.cos(angle) + y * np.sin(angle)
    level: NDArray[np.float32] = ((ramp - ramp.min()) / np.ptp(ramp)).astype(np.float32)
    return level


def _checkerboard(rng: np.random.Generator, height_px: int, width_px: int, detail: float) -> NDArray[np.float32]:
    u, v = _turned(rng, height_px, width_px)
    return ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)


def _stripes(rng: np.random.Generator, height_px: int, width_px: int, detail: float) -> NDArray[np.float32]:
    u, _ = _turned(rng, height_px, width_px)
    wave = (np.sin(2 * np.pi * u) + 1) / 2
    return (wave if rng.random() < 0.5 else wave.round()).astype(np.float32)


def _bricks(rng: np.random.Generator, height_px: int, width_px: int, detail: float) -> NDArray[np.float32]:
    u, v = _turned(rng, height_px, width_px)
    row = np.floor(v)
    column = u / 2 + (row % 2) / 2
    joint = ((v - row) < 0.12) | ((column - np.floor(column)) < 0.06)
    shades = rng.uniform(0.3, 1.0, 257).astype(np.float32)
    shade = shades[(np.floor(column) * 31 + row * 17).astype(np.int64) % len(shades)]
    return np.where(joint, np.float32(0), shade)


def _plain(rng: np.random.Generator, height_px: int, width_px: int, detail: float) -> NDArray[np.float32]:
    return np.full((height_px, width_px), rng.random(), np.float32)


def _axes(height_px: int, width_px: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(1, W) and (H, 1) places from 0 to 1 along the longer side."""
    longest = max(height_px, width_px)
    return np.arange(width_px)[None] / longest, np.arange(height_px)[:, None] / longest


def _turned(rng: np.random.Generator, height_px: int, width_px: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(H, W) places along two axes that stand at a right angle, counted in periods of a pattern."""
    x, y = _axes(height_px, width_px)
    angle = 0.0 if rng.random() < 0.5 else rng.uniform(0, np.pi)
    periods = np.exp(rng.uniform(np.log(6), np.log(40)))
    cos, sin = np.cos(angle) * periods, np.sin(angle) * periods
    return x * cos + y * sin, y * cos - x * sin


_Pattern = Callable[[np.random.Generator, int, int, float], NDArray[np.float32]]
_PATTERNS: tuple[_Pattern, ...] = (_noise, _gradient, _checkerboard, _stripes, _bricks, _plain)
_CHANCES = (0.5, 0.13, 0.1, 0.08, 0.09, 0.1)
