"""Seams between tiles that were rebuilt one by one: taking them out of pictures, and measuring them.

Tiles do not overlap, so there is nothing to cross-fade. What gives a seam away is a jump that goes along the whole
border of two tiles and is not in the picture itself. As the deblocking filters of video codecs do, the jump is
estimated from a few pixels on either side, told from real edges by its size and its steadiness, and half of it is
taken away on either side, less and less with the distance from the border.

1. *Raw jump*, for every pixel along the border and every channel: the two nearest pixels of either side, extended
   to the border in a straight line; the difference of the two there. A picture that is continuous there, however it
   slopes, has none.
2. *Real edges* that lie on the border by chance have jumps above ``max_jump_levels``. These do not count, and others
   count for 1 / (1 + (g / ``BUSY_LEVELS``)²), where g is how much the pixels just inside the two tiles differ.
3. *Smooth jump*: the weighted mean of those that count, also weighted by a triangle of ``REACH_PX`` either way.
4. *Steadiness*: such a mean errs by e² = v · Σw² / (Σw)² if the jumps scatter with variance v; neighbours are alike, so
   ``ALIKE_PX`` times that. A smooth jump s is shrunk to s · max(0, 1 − e² / s²), James and Stein's estimator. Texture,
   whose jumps scatter around zero, is thus left alone.
5. *Ramp*: at distance d (½ px at the border) either side is moved by half the jump, times ½ + ½ · cos(π · d / ramp_px).

Borders between columns of tiles come first, each tile by itself along the border. Borders between rows of tiles come
second and are smoothed from one end of the frame to the other, across the corners where four tiles meet, which by then
agree from left to right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autogaze.grid import FrameLayout

# Shape letters: T frames of H × W pixels, L pixels along a border, R lines of pixels from it inwards.

Levels = NDArray[np.float32]

RAMP_PX = 16
"""How far from a border pixels are moved: one patch; never more than a quarter of a tile."""
MAX_JUMP_LEVELS = 32.0
"""Largest jump, in levels of 255, that may be a seam; what is larger is an edge of the picture."""
BUSY_LEVELS = 8.0
"""Difference of neighbours inside the tiles, in levels of 255, at which a jump counts for half."""
REACH_PX = 24
"""How far along a border jumps are averaged, either way."""
ALIKE_PX = 4
"""Jumps of this many neighbours tell no more than one: pictures are smooth, and so is their noise."""


def blend_seams(
    rgb: NDArray[np.uint8], layout: FrameLayout, *, ramp_px: int = RAMP_PX, max_jump_levels: float = MAX_JUMP_LEVELS
) -> NDArray[np.uint8]:
    """Take the seams between the tiles of a layout out of (T, H, W, 3) pictures; see above for how.

    Each picture is treated by itself. Pixels further than ``ramp_px`` (or a quarter of a tile, if that is less) from
    a border never change, and none changes by more than half of ``max_jump_levels`` for each border that is near. A
    layout of one tile gives back what it was given.

    Raises:
        ValueError: the pictures are not (T, H, W, 3) uint8 of the layout's size, or a number is not above 0.
    """
    expected = (layout.height_px, layout.width_px, 3)
    if rgb.ndim != 4 or rgb.shape[1:] != expected or rgb.dtype != np.uint8:
        raise ValueError(
            f"pictures of this layout are (T, {', '.join(map(str, expected))}) uint8, got {rgb.shape} {rgb.dtype}"
        )
    if ramp_px < 1 or not max_jump_levels > 0:
        raise ValueError(f"ramp_px must be at least 1 and max_jump_levels above 0, got {ramp_px} and {max_jump_levels}")
    if layout.num_tiles == 1:
        return rgb
    blended = rgb.copy()
    for picture in blended:
        columns = picture.swapaxes(0, 1)  # (W, H, 3): borders between columns of tiles run along its rows
        _blend(columns, layout.tile_width_px, piece_px=layout.tile_height_px, ramp_px=ramp_px, limit=max_jump_levels)
        _blend(picture, layout.tile_height_px, piece_px=layout.width_px, ramp_px=ramp_px, limit=max_jump_levels)
    return blended


def _blend(lines: NDArray[np.uint8], tile_px: int, *, piece_px: int, ramp_px: int, limit: float) -> None:
    """Blend, in place, the borders before lines ``tile_px``, ``2·tile_px``, … of a (lines, L, 3) picture.

    Along a border pieces of ``piece_px`` pixels have nothing to do with each other.
    """
    ramp_px = min(ramp_px, max(1, tile_px // 4))
    for border in range(tile_px, len(lines), tile_px):
        before, after = lines[border - tile_px : border][::-1], lines[border : border + tile_px]
        jump, weight = _jump(before[:2], after[:2], limit)
        for start in range(0, lines.shape[1], piece_px):
            piece = slice(start, start + piece_px)
            steady = _steady(jump[piece], weight[piece])
            _move(before[:ramp_px, piece], steady, ramp_px=ramp_px)
            _move(after[:ramp_px, piece], -steady, ramp_px=ramp_px)


def _jump(before: NDArray[np.uint8], after: NDArray[np.uint8], limit: float) -> tuple[Levels, Levels]:
    """(L, 3) raw jumps, and what each counts, of the (1 or 2, L, 3) lines on either side, the nearest first."""
    near_before, near_after = before[0].astype(np.float32), after[0].astype(np.float32)
    # A tile of a single line has no slope.
    slope_before, slope_after = near_before - before[-1], near_after - after[-1]
    jump = near_after + slope_after / 2 - near_before - slope_before / 2
    busy = (np.abs(slope_before) + np.abs(slope_after)) / (2 * BUSY_LEVELS)
    weight: Levels = ((np.abs(jump) <= limit) / (1 + np.square(busy))).astype(np.float32)
    return jump, weight


def _steady(jump_L3: Levels, weight_L3: Levels) -> Levels:
    """(L, 3) what of the raw jumps is smooth along the border."""
    triangle = (1 - np.abs(np.arange(-REACH_PX, REACH_PX + 1)) / (REACH_PX + 1)).astype(np.float32)
    total = np.maximum(_along(weight_L3, triangle), 1e-6)
    smooth = _along(jump_L3 * weight_L3, triangle) / total
    scatter = np.maximum(0, _along(np.square(jump_L3) * weight_L3, triangle) / total - np.square(smooth))
    share = ALIKE_PX * _along(np.square(weight_L3), np.square(triangle)) / np.square(total)
    error = scatter * np.minimum(1, share)
    steady = smooth * np.maximum(0, 1 - error / np.maximum(np.square(smooth), 1e-6))
    return steady.astype(np.float32)


def _along(values_L3: Levels, weights: Levels) -> Levels:
    """Sum of the neighbours along a border with these weights; there are none beyond its ends."""
    reach = len(weights) // 2
    padded = np.pad(values_L3, ((reach, reach), (0, 0)))
    summed: Levels = np.einsum("lck,k->lc", np.lib.stride_tricks.sliding_window_view(padded, len(weights), 0), weights)
    return summed


def _move(lines: NDArray[np.uint8], jump_L3: Levels, *, ramp_px: int) -> None:
    """Move, in place, (R, L, 3) lines that start at a border by half a jump, less and less with the distance."""
    if not jump_L3.any():
        return
    distance_R = (np.arange(len(lines), dtype=np.float32) + 0.5) / ramp_px
    ramp_R = 0.5 + 0.5 * np.cos(np.pi * distance_R)
    moved = lines + ramp_R[:, None, None] * (0.5 * jump_L3)
    lines[...] = np.rint(moved).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class SeamError:
    """How much the error of pictures jumps from one pixel to the next, in levels of 255."""

    at_tile_borders: float
    """Mean over the pixels along borders between tiles; NaN if there is none."""
    at_patch_borders: float
    """Mean over the pixels along all other borders of the finest scale's patches; NaN if there is none."""

    @property
    def ratio(self) -> float:
        """Above 1 seams are worse than what patches leave anyway."""
        return self.at_tile_borders / self.at_patch_borders


def seam_error(rebuilt: NDArray[np.uint8], true: NDArray[np.uint8], layout: FrameLayout) -> SeamError:
    """How much the error of (T, H, W, 3) pictures jumps at tile borders, and where patches meet inside of tiles.

    The jump is |(rebuilt − true) on one side − (rebuilt − true) on the other| of two pixels that touch across the
    border, in each channel: what the picture itself does there does not count.

    Raises:
        ValueError: the pictures are not of one shape, or not of the layout's size.
    """
    if rebuilt.shape != true.shape or rebuilt.shape[1:] != (layout.height_px, layout.width_px, 3):
        raise ValueError(
            f"pictures must be (T, {layout.height_px}, {layout.width_px}, 3), got {rebuilt.shape} and {true.shape}"
        )
    error = rebuilt.astype(np.int16) - true
    sums: dict[bool, list[int]] = {True: [0, 0], False: [0, 0]}
    for axis, tile_px in ((1, layout.tile_height_px), (2, layout.tile_width_px)):
        along = np.moveaxis(error, axis, 0)
        for line in _patch_lines(layout, tile_px, len(along)):
            jump = np.abs(along[line] - along[line - 1])
            of_kind = sums[line % tile_px == 0]
            of_kind[0] += int(jump.sum(dtype=np.int64))
            of_kind[1] += jump.size
    means = {kind: total / count if count else float("nan") for kind, (total, count) in sums.items()}
    return SeamError(at_tile_borders=means[True], at_patch_borders=means[False])


def _patch_lines(layout: FrameLayout, tile_px: int, frame_px: int) -> list[int]:
    """First pixels of the finest patches along one side of the frame, but for the very first."""
    grid = layout.grid
    inside = np.arange(grid.sides[-1]) * grid.patch_px * tile_px // grid.scales_px[-1]
    lines = (np.arange(0, frame_px, tile_px)[:, None] + inside).reshape(-1)
    return [int(line) for line in lines if 0 < line < frame_px]
