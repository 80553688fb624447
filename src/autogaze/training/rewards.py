"""Judges: what becomes of the frames of a clip under each of several selections, as numbers to reward them by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.reconstructors.base import Reconstructor
from autogaze.reconstructors.canvas import CanvasReconstructor
from autogaze.reconstructors.loading import load_reconstructor
from autogaze.selectors.cells import Pixels, Tiling
from autogaze.selectors.distortion import LEVELS, loss
from autogaze.selectors.painting import HalfLevels

# Shape letters: T frames of H × W pixels, G gazes of one clip, n tiles, S pixels a side of a tile.


class Judge(Protocol):
    """Says how much each selection of a clip leaves to be seen."""

    def losses(self, rgb: Pixels, gazes: Sequence[Gaze]) -> NDArray[np.float64]:
        """(G, T) loss of each frame of (T, H, W, 3) uint8 frames after its gazes; less is better.

        Raises:
            ValueError: frames and gazes are not of one length, size and layout.
        """
        ...


@dataclass(frozen=True)
class CanvasJudge:
    """Judges by the exact mean absolute error of a :class:`~autogaze.selectors.canvas.Canvas`, colours in 0…1."""

    def losses(self, rgb: Pixels, gazes: Sequence[Gaze]) -> NDArray[np.float64]:
        """See :meth:`Judge.losses`.

        Raises:
            ValueError: also where the cells of some scale of the grid are not whole pixels.
        """
        _check(rgb, gazes)
        if not gazes:
            return np.empty((0, len(rgb)))
        clip = ClipCanvas(rgb, gazes[0].layout)
        return np.stack([clip.losses(gaze) for gaze in gazes])


@dataclass(frozen=True)
class ReconstructorJudge:
    """Judges by the loss of any reconstructor, in its own unit. A clip goes through it in one step."""

    reconstructor: Reconstructor
    """Rebuilds the frames."""

    def losses(self, rgb: Pixels, gazes: Sequence[Gaze]) -> NDArray[np.float64]:
        """See :meth:`Judge.losses`.

        Raises:
            ValueError: also where the grid does not suit the reconstructor.
        """
        _check(rgb, gazes)
        frames = Frames.from_rgb(rgb)
        losses = [self.reconstructor.open(gaze.layout).step(frames, gaze).loss for gaze in gazes]
        return np.stack(losses) if losses else np.empty((0, len(rgb)))


def load_judge(name: str | os.PathLike[str], *, device: str | torch.device | None = None) -> Judge:
    """The judge of a reconstructor's name: ``"canvas"``, ``"refined"``, or the path of a checkpoint.

    Raises:
        CheckpointError: nothing is called that, or the checkpoint is missing, damaged or does not fit.
    """
    reconstructor = load_reconstructor(name, device=device)
    if isinstance(reconstructor, CanvasReconstructor):
        return CanvasJudge()
    return ReconstructorJudge(reconstructor)


def canvas_losses(rgb: Pixels, gaze: Gaze) -> NDArray[np.float64]:
    """(T,) mean absolute error of each frame once its gazes are pasted: :func:`autogaze.selectors.canvas.quality`
    without the pictures. Several gazes of one clip are faster in one call of :class:`CanvasJudge`.

    Raises:
        ValueError: frames and gaze do not fit together, or the grid does not fit a canvas.
    """
    losses: NDArray[np.float64] = CanvasJudge().losses(rgb, [gaze])[0]
    return losses


class ClipCanvas:
    """The frames of a clip as each scale shows them, ready to be pasted by one gaze after the other."""

    def __init__(self, rgb: Pixels, layout: FrameLayout) -> None:
        """See ``rgb``, (T, H, W, 3) uint8, through the scales of ``layout``.

        Raises:
            ValueError: the frames are not of the layout's size, or its grid does not fit a canvas.
        """
        self._tiling = Tiling(layout)
        cells = self._tiling.cells
        self._shown: list[list[Pixels]] = []
        self._half_levels: list[HalfLevels] = []
        for frame in rgb:
            tiles = self._tiling.split(frame)
            number = np.arange(len(tiles))
            self._shown.append([self._tiling.scaled(tiles, number, scale) for scale in range(cells.grid.num_scales)])
            self._half_levels.append(tiles * np.int16(2))
        # As many rows of pixels as can be added up in 16 bits, which is twice as fast as 32.
        side = cells.tile_px
        self._rows = max(rows for rows in range(1, side + 1) if side % rows == 0 and rows * LEVELS < 2**16)

    def losses(self, gaze: Gaze) -> NDArray[np.float64]:
        """(T,) exact mean absolute error of each frame after its gazes."""
        tiling, cells = self._tiling, self._tiling.cells
        canvas: HalfLevels = np.full(tiling.tiles_shape, LEVELS // 2, np.int16)
        tiling.clear_padding(canvas)
        error: HalfLevels = np.empty_like(canvas)
        losses = np.empty(len(gaze))
        by_frame = np.split(gaze.index, np.cumsum(gaze.count)[:-1])
        for t, (index, images, target) in enumerate(zip(by_frame, self._shown, self._half_levels, strict=True)):
            for gazed in np.unique(index).tolist():  # coarse to fine inside each tile: finer patches win
                tile, patch = divmod(gazed, cells.grid.num_patches)
                place = (tile, *cells.box_of_patch_px[patch])
                np.multiply(images[cells.scale_of_patch[patch]][place], np.int16(2), out=canvas[place])
            np.absolute(np.subtract(canvas, target, out=error), out=error)
            rows = np.add.reduce(error.reshape(-1, self._rows, cells.tile_px * 3), axis=1, dtype=np.uint16)
            losses[t] = loss(rows.sum(dtype=np.int64), tiling.num_values)
        return losses


def _check(rgb: Pixels, gazes: Sequence[Gaze]) -> None:
    for gaze in gazes:
        if rgb.ndim != 4 or len(rgb) != len(gaze):
            raise ValueError(
                f"need frames (T, H, W, 3), one for each of {len(gaze)} frames of the gaze, got {rgb.shape}"
            )
        if gaze.layout != gazes[0].layout:
            raise ValueError(f"gazes of one clip must have one layout, got {gazes[0].layout} and {gaze.layout}")
