"""What a refiner is shown of a video: the canvas, the canvas before, and for each pixel which scale painted it when."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.reconstructors.base import check_step
from autogaze.selectors.canvas import Canvas
from autogaze.selectors.cells import Pixels, Tiling, resize

# Shape letters: T frames, n tiles, S pixels a side of a tile, H × W pixels of a frame in tile pixels (one pixel is one
# pixel of the grid's finest scale), K scales.

OLDEST = 255
"""Ages stop counting here."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CanvasView:
    """A canvas after each of T frames, with where its pixels come from. H × W tile pixels."""

    canvas: Pixels
    """(T, H, W, 3) uint8 what the gazes up to this frame have painted."""
    before: Pixels
    """(T, H, W, 3) uint8 the canvas before this frame's gazes, moved if it moves."""
    scale: NDArray[np.uint8]
    """(T, H, W) scale that painted the pixel: 0 none yet, 1 the coarsest, … K the finest."""
    age: NDArray[np.uint8]
    """(T, H, W) frames since it was painted: 0 in this frame; at most :data:`OLDEST`, also where nothing was."""
    target: Pixels
    """(T, H, W, 3) uint8 the true frames, for losses alone."""

    def __len__(self) -> int:
        return len(self.canvas)

    @classmethod
    def stack(cls, views: list[CanvasView]) -> CanvasView:
        """Views of equally large frames as one, whatever videos they are of."""
        names = ("canvas", "before", "scale", "age", "target")
        return cls(**{name: np.concatenate([getattr(view, name) for view in views]) for name in names})

    def __getitem__(self, frames: slice | NDArray[np.int64]) -> CanvasView:
        """The views of some frames."""
        names = ("canvas", "before", "scale", "age", "target")
        return CanvasView(**{name: getattr(self, name)[frames] for name in names})


class CanvasRecorder:
    """Paints a canvas from gazes and remembers which scale painted each pixel, and when.

    Raises:
        ValueError: the cells of some scale of the layout's grid are not whole pixels.
    """

    def __init__(self, layout: FrameLayout) -> None:
        self.layout = layout
        self.tiling = Tiling(layout)
        self._canvas = Canvas(layout)
        self._scale = np.zeros(self.tiling.tiles_shape[:3], np.uint8)
        self._age = np.full(self.tiling.tiles_shape[:3], OLDEST, np.uint8)

    def step(self, frames: Frames, gaze: Gaze) -> CanvasView:
        """The view after each of the next frames.

        Raises:
            ValueError: frames or gaze are not of the layout, or not equally long.
        """
        check_step(self.layout, frames, gaze)
        size = (len(frames), self.tiling.height_px, self.tiling.width_px)
        canvas, before = np.empty((*size, 3), np.uint8), np.empty((*size, 3), np.uint8)
        scale, age = np.empty(size, np.uint8), np.empty(size, np.uint8)
        for t, one in enumerate(gaze):
            one = self._follow(one)
            before[t] = self._picture()
            self._canvas.paste(frames.rgb[t], one)
            self._paste(one)
            canvas[t] = self._picture()
            scale[t], age[t] = self.tiling.join(self._scale), self.tiling.join(self._age)
        target = resize(frames.rgb, self.tiling.height_px, self.tiling.width_px)
        return CanvasView(canvas=canvas, before=before, scale=scale, age=age, target=target)

    def _follow(self, gaze: Gaze) -> Gaze:
        """Move with the gaze of a frame; what is left of it is to be pasted."""
        if gaze.shift_px is None:
            return gaze
        down_px, right_px = gaze.shift_px[0].tolist()
        if down_px or right_px:
            self._canvas.shift(down_px, right_px)
            self._scale = self.tiling.shifted(self._scale, down_px, right_px)
            self._age = self.tiling.shifted(self._age, down_px, right_px)
        return replace(gaze, shift_px=None)

    def _picture(self) -> Pixels:
        picture: Pixels = self.tiling.join(self._canvas.painting.brighter)
        return picture

    def _paste(self, gaze: Gaze) -> None:
        cells = self.tiling.cells
        self._age += self._age < OLDEST
        tile, patch = np.divmod(np.unique(gaze.index), cells.grid.num_patches)  # coarse to fine inside each tile
        scale = cells.grid.locate(patch)[0]
        for t, p, k in zip(tile.tolist(), patch.tolist(), scale.tolist(), strict=True):
            box = (t, *cells.box_of_patch_px[p])
            self._scale[box] = k + 1
            self._age[box] = 0
