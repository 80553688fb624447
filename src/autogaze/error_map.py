"""Errors of a picture as colours, on one scale for all pictures."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Shape letters: H × W pixels of a picture, L entries of the colour table.

FULL_LEVELS = 64
"""Mean error over the channels, in grey levels of 255, from which on a place has the lightest colour."""


def error_map(error: NDArray[np.uint8], *, height_px: int, width_px: int) -> Image.Image:
    """RGB picture, of any size, of the mean over the channels of (H, W, 3) absolute errors in grey levels."""
    mean = error.mean(-1, dtype=np.float32)
    if (height_px, width_px) != mean.shape:
        smaller = height_px < mean.shape[0] or width_px < mean.shape[1]
        how = Image.Resampling.BOX if smaller else Image.Resampling.NEAREST
        mean = np.asarray(Image.fromarray(mean).resize((width_px, height_px), how))
    return Image.fromarray(colors_of(mean))


def colors_of(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """(…, 3) uint8 colour of each (…) error in grey levels.

    Colours grow lighter in equal steps with the square root of the error, so that the small errors that most of a
    picture has can be told apart too.
    """
    share = np.sqrt((levels / FULL_LEVELS).clip(0, 1))
    colors: NDArray[np.uint8] = color_table()[np.rint(255 * share).astype(np.uint8)]
    return colors


@cache
def color_table() -> NDArray[np.uint8]:
    """(256, 3) uint8 colours from black over violet and orange to pale yellow.

    Their lightness grows in equal steps (in Björn Ottosson's Oklab), so that the order of errors is seen at once,
    also by the colour-blind and in grey print.
    """
    share_L = np.linspace(0, 1, 256)
    hue_L = np.radians(np.interp(share_L, (0, 0.3, 0.6, 0.8, 1), (285, 320, 375, 425, 468)))
    chroma_L = np.interp(share_L, (0, 0.25, 0.6, 0.8, 1), (0.02, 0.14, 0.19, 0.16, 0.09))
    lightness_L = 0.10 + 0.88 * share_L
    return oklab_to_srgb(np.stack([lightness_L, chroma_L * np.cos(hue_L), chroma_L * np.sin(hue_L)], -1))


def oklab_to_srgb(lab_L3: NDArray[Any]) -> NDArray[np.uint8]:
    """(…, 3) uint8 sRGB colours of Oklab coordinates (Ottosson 2020), clipped to what screens show."""
    to_lms = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.291485548]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = ((lab_L3 @ to_lms.T) ** 3 @ to_rgb.T).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colors: NDArray[np.uint8] = np.round(255 * encoded).astype(np.uint8)
    return colors
