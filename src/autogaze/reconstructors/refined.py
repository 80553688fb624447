"""The refined canvas as a reconstructor: paste what was gazed at, then let a small network correct the picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.reconstructors.base import Reconstruction
from autogaze.reconstructors.provenance import CanvasRecorder, CanvasView
from autogaze.reconstructors.refiner import CanvasTensors, Refiner
from autogaze.selectors.cells import Pixels, resize

# Pixels refined at once: a 16-frame clip of one tile. Bounds the network's memory to about half a gigabyte.
_PIXELS_AT_ONCE = 16 * 224 * 224


class RefinedReconstructor:
    """Rebuilds with a :class:`~autogaze.reconstructors.refiner.Refiner` on top of the canvas.

    The network runs over whole frames, not tile by tile, so there are no seams between tiles.
    """

    loss_unit = "mean absolute error of a colour, from 0 to 1"

    def __init__(self, refiner: Refiner, *, name: str = "refined") -> None:
        self.refiner = refiner
        self.name = name

    def open(self, layout: FrameLayout) -> RefinedSession:
        """Start on a video.

        Raises:
            ValueError: the layout's grid is not the refiner's.
        """
        if layout.grid != self.refiner.config.grid:
            raise ValueError(f"the refiner is of {self.refiner.config.grid}, the layout of {layout.grid}")
        return RefinedSession(self.refiner, layout)


class RefinedSession:
    """One video on its way through a refiner."""

    def __init__(self, refiner: Refiner, layout: FrameLayout) -> None:
        self.layout = layout
        self._refiner = refiner
        self._recorder = CanvasRecorder(layout)

    def step(self, frames: Frames, gaze: Gaze) -> Reconstruction:
        """See :meth:`~autogaze.reconstructors.base.ReconstructorSession.step`."""
        view = self._recorder.step(frames, gaze)
        pixels = view.canvas.shape[1] * view.canvas.shape[2]
        at_once = max(1, _PIXELS_AT_ONCE // pixels)
        parts = [_refine(self._refiner, view[first : first + at_once]) for first in range(0, len(view), at_once)]
        return Reconstruction(
            rgb=resize(np.concatenate([rgb for rgb, _ in parts]), self.layout.height_px, self.layout.width_px),
            loss=np.concatenate([loss for _, loss in parts]),
        )


@torch.inference_mode()
def _refine(refiner: Refiner, view: CanvasView) -> tuple[Pixels, NDArray[np.float64]]:
    refined = refiner.refine(CanvasTensors.of(view, device=refiner.device)).clamp(0, 1)
    rgb: Pixels = (refined * 255).round().byte().movedim(1, -1).contiguous().cpu().numpy()
    # Of the picture in 8 bits, which is what a viewer gets.
    error = np.maximum(rgb, view.target) - np.minimum(rgb, view.target)
    return rgb, error.reshape(len(error), -1).mean(axis=1, dtype=np.float64) / 255
