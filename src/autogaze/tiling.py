"""Between a video of any size and the square tiles a model sees: cut frames up, put gazes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid

# Shape letters: T frames, H × W pixels of the video, K tiles, S side of a tile as the model sees it, C = 3 colours.


def tile_layout(grid: PatchGrid) -> FrameLayout:
    """Layout of one tile as the model sees it: a frame of the grid's finest scale."""
    side_px = grid.scales_px[-1]
    return FrameLayout.resized(grid, height_px=side_px, width_px=side_px)


def split(rgb_THWC: NDArray[np.uint8], layout: FrameLayout) -> NDArray[np.uint8]:
    """The tiles of frames, (K, T, S, S, 3) uint8 with K row by row and S the grid's finest scale.

    What reaches past the frame is zero. Tiles that do not already cover S × S video pixels are resized by PIL's
    antialiased bilinear filter. The result may share memory with ``rgb_THWC``.

    Raises:
        ValueError: the frames are not (T, H, W, 3) uint8 of the layout's height and width.
    """
    _check(rgb_THWC, layout)
    T = len(rgb_THWC)
    rows, columns = layout.tile_rows, layout.tile_columns
    tile_height_px, tile_width_px = layout.tile_height_px, layout.tile_width_px
    padding_height_px = rows * tile_height_px - layout.height_px
    padding_width_px = columns * tile_width_px - layout.width_px
    if padding_height_px or padding_width_px:
        rgb_THWC = np.pad(rgb_THWC, ((0, 0), (0, padding_height_px), (0, padding_width_px), (0, 0)))
    cut = rgb_THWC.reshape(T, rows, tile_height_px, columns, tile_width_px, 3).transpose(1, 3, 0, 2, 4, 5)
    tiles_KTHWC = cut.reshape(layout.num_tiles, T, tile_height_px, tile_width_px, 3)
    return _resized(tiles_KTHWC, side_px=layout.grid.scales_px[-1])


def split_on(device: torch.device, rgb_THWC: NDArray[np.uint8], layout: FrameLayout) -> Tensor:
    """What :func:`split` gives, as a tensor on a device, cut there where no tile has to be resized.

    Raises:
        ValueError: the frames are not (T, H, W, 3) uint8 of the layout's height and width.
    """
    side_px = layout.grid.scales_px[-1]
    if device.type == "cpu" or (layout.tile_height_px, layout.tile_width_px) != (side_px, side_px):
        return _as_tensor(split(rgb_THWC, layout)).to(device)
    _check(rgb_THWC, layout)
    return cut(_as_tensor(rgb_THWC).to(device, non_blocking=True), layout)


def cut(rgb_THWC: Tensor, layout: FrameLayout) -> Tensor:
    """(K, T, h, w, 3) tiles of frames on any device, each of the pixels it covers; zero past the frame's edge."""
    rows, columns = layout.tile_rows, layout.tile_columns
    height_px, width_px = layout.tile_height_px, layout.tile_width_px
    below_px, right_px = rows * height_px - layout.height_px, columns * width_px - layout.width_px
    padded_THWC = F.pad(rgb_THWC, (0, 0, 0, right_px, 0, below_px))
    tiles = padded_THWC.view(-1, rows, height_px, columns, width_px, 3).permute(1, 3, 0, 2, 4, 5)
    return tiles.reshape(layout.num_tiles, -1, height_px, width_px, 3)


def merge(gazes: Sequence[Gaze], layout: FrameLayout) -> Gaze:
    """One gaze in video coordinates of one gaze for each tile, in :func:`split`'s order.

    Inside a frame the tiles follow each other row by row, each in its own order. Patches that show nothing of
    the video are dropped. A number that some tiles lack (probability, predicted loss, time) is dropped; times
    are the first tile's.

    Raises:
        ValueError: there is not one gaze for each tile, one is not of a single tile of this grid, or they are
            not of equally many frames; or one of several has shifts, which move pictures across the borders of tiles.
    """
    if len(gazes) != layout.num_tiles:
        raise ValueError(f"merge needs one gaze for each of {layout.num_tiles} tiles, got {len(gazes)}")
    expected = tile_layout(layout.grid)
    for number, gaze in enumerate(gazes):
        if gaze.layout != expected:
            raise ValueError(f"the gaze of tile {number} must have the layout {expected}, got {gaze.layout}")
        if gaze.num_frames != gazes[0].num_frames:
            raise ValueError(f"tiles must be of {gazes[0].num_frames} frames, tile {number} has {gaze.num_frames}")
        if gaze.shift_px is not None and layout.num_tiles > 1:
            raise ValueError(f"the gaze of tile {number} has shifts, with which no frame is made; gaze without motion")
    index = np.concatenate([gaze.index + number * layout.grid.num_patches for number, gaze in enumerate(gazes)])
    frame = np.concatenate([gaze.frame for gaze in gazes])
    order = np.argsort(frame, kind="stable")  # tiles are already in order, and so is each tile's choice
    order = order[layout.inside[index[order]]]

    def joined(name: str) -> Any:
        parts = [getattr(gaze, name) for gaze in gazes]
        return None if any(part is None for part in parts) else np.concatenate(parts)[order]

    return Gaze(
        index=index[order],
        count=np.bincount(frame[order], minlength=gazes[0].num_frames),
        layout=layout,
        probability=joined("probability"),
        predicted_loss=joined("predicted_loss"),
        time_seconds=None if any(gaze.time_seconds is None for gaze in gazes) else gazes[0].time_seconds,
        shift_px=gazes[0].shift_px,
    )


def tile(gaze: Gaze, tile_number: int) -> Gaze:
    """The gaze of one tile as the model would have returned it (less what was dropped as padding).

    Raises:
        IndexError: the layout has no such tile.
        ValueError: the gaze has shifts, which move pictures across the borders of tiles.
    """
    if gaze.shift_px is not None and gaze.layout.num_tiles > 1:
        raise ValueError("a gaze with shifts cannot be cut into tiles; gaze again without motion")
    if not 0 <= tile_number < gaze.layout.num_tiles:
        raise IndexError(f"tile {tile_number} is outside 0..{gaze.layout.num_tiles - 1}")
    grid = gaze.layout.grid
    of_tile = gaze.index // grid.num_patches == tile_number
    return replace(
        gaze,
        index=gaze.index[of_tile] % grid.num_patches,
        count=np.bincount(gaze.frame[of_tile], minlength=gaze.num_frames),
        layout=tile_layout(grid),
        probability=None if gaze.probability is None else gaze.probability[of_tile],
        predicted_loss=None if gaze.predicted_loss is None else gaze.predicted_loss[of_tile],
    )


def _as_tensor(array: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _check(rgb_THWC: NDArray[np.uint8], layout: FrameLayout) -> None:
    expected = (layout.height_px, layout.width_px, 3)
    if rgb_THWC.ndim != 4 or rgb_THWC.shape[1:] != expected or rgb_THWC.dtype != np.uint8:
        raise ValueError(f"frames must be (T, {', '.join(map(str, expected))}) uint8, got {_describe(rgb_THWC)}")


def _resized(tiles_KTHWC: NDArray[np.uint8], *, side_px: int) -> NDArray[np.uint8]:
    K, T, height_px, width_px, _ = tiles_KTHWC.shape
    if height_px == width_px == side_px:
        return tiles_KTHWC
    resized = np.empty((K, T, side_px, side_px, 3), np.uint8)
    for k in range(K):
        for t in range(T):
            image = Image.fromarray(tiles_KTHWC[k, t])
            resized[k, t] = np.asarray(image.resize((side_px, side_px), Image.Resampling.BILINEAR))
    return resized


def _describe(array: NDArray[Any]) -> str:
    return f"{array.shape} {array.dtype}"
