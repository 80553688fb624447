"""How far a whole picture moved from one frame to the next: one shift in whole pixels."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from autogaze.selectors.cells import Pixels

# Shape letters: H × W pixels of a frame, h × w pixels of a small picture of it.

SMALL_PX = 256
"""Longest side of the pictures in which a shift is sought."""
SAMPLES_A_SIDE = 128
"""Lines and columns that are compared to find its last pixels, about."""


def global_shift(before: Pixels, after: Pixels) -> tuple[int, int]:
    """(down, right) pixels by which most of ``before`` moved to become ``after``; both (H, W, 3) uint8.

    Phase correlation of small pictures tells it roughly, comparing pixels tells the rest. It is a guess: the pictures
    may have nothing to do with each other.
    """
    factor = -(-max(after.shape) // SMALL_PX)
    down, right = _correlate(_small(before, factor), _small(after, factor))
    best, step = (down * factor, right * factor), factor
    while True:
        around = [(best[0] + step * i, best[1] + step * j) for i, j in product((0, -1, 1), repeat=2)]
        best = min(around, key=lambda shift: _difference(before, after, *shift))
        if step == 1:
            return best
        step = -(-step // 2)


def _small(rgb: Pixels, factor: int) -> NDArray[np.float32]:
    """(h, w) means of squares of the green channel, which carries most of the brightness."""
    green = rgb[..., 1]
    h, w = (max(1, side // factor) for side in green.shape)
    step = min(factor, *green.shape)
    means: NDArray[np.float32] = green[: h * step, : w * step].reshape(h, step, w, step).mean((1, 3), dtype=np.float32)
    return means


def _correlate(before_hw: NDArray[np.float32], after_hw: NDArray[np.float32]) -> tuple[int, int]:
    h, w = before_hw.shape
    fade_hw = np.outer(
        np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1]
    )  # else the borders would hold the picture still
    spectra = [np.fft.rfft2((image - image.mean()) * fade_hw) for image in (before_hw, after_hw)]
    cross = spectra[1] * spectra[0].conj()
    correlation = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), s=(h, w))
    down, right = np.unravel_index(int(correlation.argmax()), (h, w))
    return int(down) - h * (down > h // 2), int(right) - w * (right > w // 2)


def _difference(before: Pixels, after: Pixels, down: int, right: int) -> float:
    """Mean difference where both overlap, infinite where they hardly do."""
    height, width = after.shape[:2]
    if abs(down) > height // 2 or abs(right) > width // 2:
        return np.inf
    step = max(1, min(height, width) // SAMPLES_A_SIDE)
    new = after[max(0, down) : height + min(0, down) : step, max(0, right) : width + min(0, right) : step, 1]
    old = before[max(0, -down) : height - max(0, down) : step, max(0, -right) : width - max(0, right) : step, 1]
    return float(np.abs(new.astype(np.int16) - old).mean())
