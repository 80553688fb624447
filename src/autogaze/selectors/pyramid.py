"""Frames at every scale of a layout, and numbers per patch drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from autogaze.grid import FrameLayout, Indices

Scales = tuple[NDArray[np.uint8], ...]
"""One image for each scale, coarse to fine."""

# Shape letters: H × W pixels of the video; h × w pixels of one scale, all tiles side by side; C channels;
# R × D patches of one scale over all tiles.


def finest_scale(image_HWC: NDArray[np.uint8], layout: FrameLayout) -> NDArray[np.uint8]:
    """One frame at the finest scale, (tile_rows·scale, tile_columns·scale, C) uint8.

    Stretched where tiles do not cover as many pixels as they have. What reaches past the frame repeats its last
    row or column. May share memory with the frame.
    """
    below_px = layout.tile_rows * layout.tile_height_px - layout.height_px
    right_px = layout.tile_columns * layout.tile_width_px - layout.width_px
    if below_px or right_px:
        image_HWC = np.pad(image_HWC, ((0, below_px), (0, right_px), (0, 0)), mode="edge")
    return _resized(image_HWC, layout, layout.grid.scales_px[-1])


def all_scales(image_HWC: NDArray[np.uint8], layout: FrameLayout) -> Scales:
    """One frame at every scale, coarse to fine, each (tile_rows·scale, tile_columns·scale, C) uint8.

    The finest is :func:`finest_scale`, the others are that one brought down, antialiased bilinear.
    """
    finest = finest_scale(image_HWC, layout)
    return (*(_resized(finest, layout, scale_px) for scale_px in layout.grid.scales_px[:-1]), finest)


def luma(rgb_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 1) brightness of a frame (ITU-R 601)."""
    return np.asarray(Image.fromarray(rgb_HWC).convert("L"))[..., None]


def patch_means(values: NDArray[Any], layout: FrameLayout, scale: int) -> NDArray[np.float64]:
    """(R, D) mean of the (h, w) or (h, w, C) values under each patch of one scale; exact for integers."""
    patch_px, side, scale_px = layout.grid.patch_px, layout.grid.sides[scale], layout.grid.scales_px[scale]
    rows, columns, channels = layout.tile_rows, layout.tile_columns, values.shape[2] if values.ndim == 3 else 1
    whole = side * patch_px  # what does not fill a whole patch belongs to no patch
    cells = values.reshape(rows, scale_px, columns, scale_px * channels)[:, :whole, :, : whole * channels]
    # Rows are summed first: that walks through memory in order, and takes most of the time.
    column_sums = cells.reshape(rows, side, patch_px, columns, whole * channels).sum(2, dtype=_wide(values.dtype, 32))
    patches = column_sums.reshape(rows * side, columns * side, patch_px * channels)
    sums: NDArray[np.float64] = patches.sum(-1, dtype=_wide(values.dtype, 64)).astype(np.float64)
    return sums / (patch_px**2 * channels)


def patch_maxima(finest_hw: NDArray[Any], layout: FrameLayout, scale: int) -> NDArray[Any]:
    """(R, D) largest value of the finest scale's image inside the box of each patch of one scale."""
    rows = _edges_px(layout, scale, layout.tile_rows)
    columns = _edges_px(layout, scale, layout.tile_columns)
    # Every second segment is a patch, the others are what no patch of this scale covers.
    by_row = np.maximum.reduceat(_padded_end(finest_hw, axis=0), rows, axis=0)[::2]
    return np.maximum.reduceat(_padded_end(by_row, axis=1), columns, axis=1)[:, ::2]


def by_index(patches_of_scale: Sequence[NDArray[Any]], layout: FrameLayout) -> NDArray[np.float64]:
    """(num_indices,) the values of all scales, coarse to fine, each (R, D), in the order of patch indices."""
    values = np.empty((layout.num_tiles, layout.grid.num_patches))
    for patches_RD, side, offset in zip(patches_of_scale, layout.grid.sides, layout.grid.offsets, strict=True):
        tiles = patches_RD.reshape(layout.tile_rows, side, layout.tile_columns, side).transpose(0, 2, 1, 3)
        values[:, offset : offset + side * side] = tiles.reshape(layout.num_tiles, side * side)
    return values.reshape(-1)


def _resized(image_hwC: NDArray[np.uint8], layout: FrameLayout, scale_px: int) -> NDArray[np.uint8]:
    size = (layout.tile_rows * scale_px, layout.tile_columns * scale_px)
    if image_hwC.shape[:2] == size:
        return image_hwC
    # On uint8 this gives what PIL gives, to one level of brightness, several times faster.
    image = torch.from_numpy(np.require(image_hwC, requirements=("C", "W"))).permute(2, 0, 1)[None]
    resized = functional.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def _wide(dtype: np.dtype[Any], bits: int) -> np.dtype[Any]:
    """The type of this kind with so many bits, for sums; floating point always has 64."""
    return np.dtype(f"{dtype.kind}{8 if dtype.kind == 'f' else bits // 8}")


def _edges_px(layout: FrameLayout, scale: int, tiles: int) -> Indices:
    """Start and end of each patch of one scale along one axis, in pixels of the finest scale, interleaved."""
    finest_px = layout.grid.scales_px[-1]
    steps = np.arange(layout.grid.sides[scale] + 1) * layout.grid.patch_px * finest_px // layout.grid.scales_px[scale]
    of_tile = np.stack([steps[:-1], steps[1:]], -1).reshape(-1)
    return np.asarray(np.arange(tiles)[:, None] * finest_px + of_tile).reshape(-1)


def _padded_end(values: NDArray[Any], *, axis: int) -> NDArray[Any]:
    """One more line at the end, so that the last patch's end is a legal place to cut."""
    widths = [(0, 0), (0, 0)]
    widths[axis] = (0, 1)
    return np.pad(values, widths)
