"""The canvas as a reconstructor: what was gazed at stays where it was until something newer covers it."""

from __future__ import annotations

import numpy as np

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.reconstructors.base import Reconstruction, check_step
from autogaze.selectors.canvas import Canvas


class CanvasReconstructor:
    """Rebuilds by pasting gazed patches, see :class:`~autogaze.selectors.canvas.Canvas`. It has no weights."""

    name = "canvas"
    loss_unit = "mean absolute error of a colour, from 0 to 1"

    def open(self, layout: FrameLayout) -> CanvasSession:
        """Start on a video.

        Raises:
            ValueError: the cells of some scale of the layout's grid are not whole pixels.
        """
        return CanvasSession(layout)


class CanvasSession:
    """One video on its way through the canvas."""

    def __init__(self, layout: FrameLayout) -> None:
        self.layout = layout
        self._canvas = Canvas(layout)

    def step(self, frames: Frames, gaze: Gaze) -> Reconstruction:
        """See :meth:`~autogaze.reconstructors.base.ReconstructorSession.step`."""
        check_step(self.layout, frames, gaze)
        rgb, loss = np.empty_like(frames.rgb), np.empty(len(frames))
        for t, one in enumerate(gaze):
            rgb[t] = self._canvas.paste(frames.rgb[t], one)
            loss[t] = self._canvas.quality(frames.rgb[t]).loss[0]
        return Reconstruction(rgb=rgb, loss=loss)
