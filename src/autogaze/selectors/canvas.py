"""The canvas: a video rebuilt from its gazes alone, by pasting each gazed patch over what was there before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.selectors.cells import Pixels, Tiling, resize, scale_patches
from autogaze.selectors.distortion import canvas_error, loss, psnr_db
from autogaze.selectors.painting import HalfLevels, Painting

# Shape letters: T frames, n tiles, S pixels a side of a tile, A atoms of a tile, H × W pixels of a frame.


class Canvas:
    """The picture that the gazes of a video have painted so far. It starts mid-grey.

    A gazed patch is its pixels of the frame brought down to the patch's scale (bilinear, antialiased), brought
    up to the patch's cell by itself (bilinear, edges clamped, so that nothing leaks in from its neighbours). Where a
    tile reaches past the frame, the frame's edge is repeated on the way down, so that no padding leaks in either. In
    one frame finer patches win over coarser ones, whatever their order; what is not gazed stays as earlier
    frames left it. Frames, patches and canvas have 8 bits a channel, so every error is a sum of whole numbers
    and exact.

    Where a gaze has shifts (:attr:`~autogaze.gaze.Gaze.shift_px`) the whole picture moves before the patches of a frame
    are pasted. What moves in from outside repeats the pixels at that edge.

    Works with the gazes of any selector. Loss and PSNR are measured where the grid's finest scale has its
    pixels: on the frame itself for a tiled layout, on the frame brought to that scale for a resized one; padding
    never counts.

    Raises:
        ValueError: the cells of some scale of the layout's grid are not whole pixels.
    """

    def __init__(self, layout: FrameLayout) -> None:
        self.tiling = Tiling(layout)
        """How frames become tiles."""
        self.painting = Painting.blank(self.tiling)
        """The tiles of the canvas, 0 in the padding."""

    @property
    def half_levels(self) -> HalfLevels:
        """(n, S, S, 3) the tiles of the canvas in half levels, 0 in the padding; a copy."""
        return self.painting.half_levels

    @property
    def layout(self) -> FrameLayout:
        """Layout of the frames and gazes."""
        return self.tiling.layout

    def paste(self, rgb: Pixels, gaze: Gaze) -> Pixels:
        """Paste the gazed patches of the next frame; the (H, W, 3) uint8 picture afterwards.

        ``rgb`` is that frame, (H, W, 3) uint8, and ``gaze`` its gazes alone, such as ``video_gaze[t]``.

        Raises:
            ValueError: frame or gaze are not of the canvas's layout, or the gaze is not of one frame.
        """
        if gaze.layout != self.layout:
            raise ValueError(f"the canvas has layout {self.layout}, the gaze {gaze.layout}; use the same layout")
        if len(gaze) != 1:
            raise ValueError(f"paste needs the gaze of one frame, got {len(gaze)} frames; use gaze[t]")
        tiles = self.tiling.split(rgb)
        if gaze.shift_px is not None:
            self.shift(*gaze.shift_px[0].tolist())
        self._paste_patches(tiles, np.unique(gaze.index))
        return self.image()

    def shift(self, down_px: int, right_px: int) -> None:
        """Move the whole picture by so many pixels of the finest scale."""
        if down_px or right_px:
            self.painting = self.painting.shifted(self.tiling, down_px, right_px)

    def image(self) -> Pixels:
        """(H, W, 3) uint8 what the canvas shows; mid-grey is 128."""
        return self.tiling.merge(self.painting.brighter)

    def quality(self, rgb: Pixels) -> Quality:
        """How close the canvas is to an (H, W, 3) uint8 frame.

        Raises:
            ValueError: the frame is not of the canvas's layout.
        """
        error = canvas_error(self.tiling.split(rgb), self.painting)
        absolute = error.sum(dtype=np.int64)
        squared = np.square(error, dtype=np.uint32).sum(dtype=np.int64)
        count = self.tiling.num_values
        return Quality(loss=np.array([loss(absolute, count)]), psnr_db=np.array([psnr_db(squared, count)]))

    def _paste_patches(self, tiles: Pixels, index: NDArray[np.int64]) -> None:
        cells = self.tiling.cells
        tile, patch = np.divmod(index, cells.grid.num_patches)
        scale, row, column = cells.grid.locate(patch)
        for number, cell_px in enumerate(cells.cell_px):  # coarse to fine: finer patches win
            of_scale = scale == number
            if not of_scale.any():
                continue
            used, position = np.unique(tile[of_scale], return_inverse=True)
            patches = scale_patches(self.tiling.extended(tiles[used], used), cells, number)
            patches = patches[position, row[of_scale], column[of_scale]]
            shown = resize(patches, cell_px, cell_px)
            places = zip(tile[of_scale].tolist(), patch[of_scale].tolist(), shown, strict=True)
            self.painting.paste((t, cells.box_of_patch_px[p], pixels) for t, p, pixels in places)
        self.tiling.clear_padding(self.painting.levels)


def reconstruct(frames: Frames, *, gaze: Gaze) -> Pixels:
    """(T, H, W, 3) uint8 what a canvas shows after each frame of a gaze.

    Raises:
        ValueError: frames and gaze are not of the same length and size, or the grid does not fit a canvas.
    """
    _check_length(frames, gaze)
    canvas = Canvas(gaze.layout)
    return np.stack([canvas.paste(rgb, one) for rgb, one in zip(frames.rgb, gaze, strict=True)])


def quality(frames: Frames, *, gaze: Gaze) -> Quality:
    """How close a canvas is to each frame once that frame's gazes are pasted.

    Raises:
        ValueError: frames and gaze are not of the same length and size, or the grid does not fit a canvas.
    """
    _check_length(frames, gaze)
    canvas = Canvas(gaze.layout)
    parts = []
    for rgb, one in zip(frames.rgb, gaze, strict=True):
        canvas.paste(rgb, one)
        parts.append(canvas.quality(rgb))
    return Quality(
        loss=np.concatenate([part.loss for part in parts]), psnr_db=np.concatenate([part.psnr_db for part in parts])
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Quality:
    """How close pictures are to the frames they stand for. T frames."""

    loss: NDArray[np.float64]
    """(T,) mean absolute error over pixels and channels, colours in 0…1."""
    psnr_db: NDArray[np.float64]
    """(T,) peak signal-to-noise ratio of each frame; infinite where nothing differs."""


def _check_length(frames: Frames, gaze: Gaze) -> None:
    if len(frames) != len(gaze):
        raise ValueError(f"frames and gaze must be equally long, got {len(frames)} frames and gazes of {len(gaze)}")
