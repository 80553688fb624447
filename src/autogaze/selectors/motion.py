"""How far a whole picture moved from one frame to the next: one shift in whole pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from autogaze.selectors.cells import Pixels

# Shape letters: H × W pixels of a frame, h × w pixels of a small picture of it.

SMALL_PX = 256
"""Longest side of the pictures in which a shift is sought."""
SAMPLES_A_SIDE = 128
"""Lines and columns that are compared to find its last pixels, about."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A frame as a shift is sought in it."""

    rgb: Pixels
    """(H, W, 3)."""
    factor: int
    """Pixels a side that one of the small picture stands for."""
    spectrum: NDArray[np.complex128]
    """Of the small picture."""
    small_shape: tuple[int, int]
    """(h, w) of the small picture."""

    @classmethod
    def of(cls, rgb: Pixels) -> Self:
        """What is needed of a (H, W, 3) uint8 frame, which must not change afterwards."""
        factor = -(-max(rgb.shape) // SMALL_PX)
        small_hw = _small(rgb, factor)
        h, w = small_hw.shape
        fade_hw = np.outer(
            np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1]
        )  # else the borders would hold the picture still
        spectrum = np.fft.rfft2((small_hw - small_hw.mean()) * fade_hw)
        return cls(rgb=rgb, factor=factor, spectrum=spectrum, small_shape=(h, w))


def global_shift(before: Picture, after: Picture) -> tuple[int, int]:
    """(down, right) pixels by which most of ``before`` moved to become ``after``.

    Phase correlation of small pictures tells it roughly, comparing pixels tells the rest. It is a guess: the pictures
    may have nothing to do with each other.
    """
    step = after.factor
    down, right = _correlate(before, after)
    best = (down * step, right * step)
    while True:
        around = [(best[0] + step * i, best[1] + step * j) for i, j in product((0, -1, 1), repeat=2)]
        best = min(around, key=lambda shift: _difference(before.rgb, after.rgb, *shift))
        if step == 1:
            return best
        step = -(-step // 2)


def _small(rgb: Pixels, factor: int) -> NDArray[np.float32]:
    """(h, w) means of squares of the green channel, which carries most of the brightness."""
    green = rgb[..., 1]
    h, w = (max(1, side // factor) for side in green.shape)
    step = min(factor, *green.shape)
    # Whole lines first, which lie side by side in memory.
    lines = green[: h * step, : w * step].reshape(h, step, w * step).sum(1, dtype=np.uint32)
    sums = lines.reshape(h, w, step).sum(2, dtype=np.uint32)
    means: NDArray[np.float32] = sums.astype(np.float32) / np.float32(step * step)
    return means


def _correlate(before: Picture, after: Picture) -> tuple[int, int]:
    h, w = after.small_shape
    cross = after.spectrum * before.spectrum.conj()
    correlation = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), s=(h, w))
    down, right = (int(place) for place in np.unravel_index(int(correlation.argmax()), (h, w)))
    return down - h * (down > h // 2), right - w * (right > w // 2)


def _difference(before: Pixels, after: Pixels, down: int, right: int) -> float:
    """Mean difference where both overlap, infinite where they hardly do."""
    height, width = after.shape[:2]
    if abs(down) > height // 2 or abs(right) > width // 2:
        return np.inf
    step = max(1, min(height, width) // SAMPLES_A_SIDE)
    new = after[max(0, down) : height + min(0, down) : step, max(0, right) : width + min(0, right) : step, 1]
    old = before[max(0, -down) : height - max(0, down) : step, max(0, -right) : width - max(0, right) : step, 1]
    return float(np.abs(new.astype(np.int16) - old).mean())
