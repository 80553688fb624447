"""Gazing at a stream, one frame at a time, with any selector."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.selectors.base import SelectorSession


class GazeSession:
    """One stream; made by :func:`autogaze.stream`.

    A stream gets exactly the gazes that the same frames get as a file, and memory never grows: a gaze model
    remembers the frames of the current clip, 16 at most, and the frame after them begins a new clip with nothing
    remembered; replenishment remembers its canvas, which is one frame however long the stream is.
    """

    def __init__(self, session: SelectorSession) -> None:
        self._session = session
        self._frames_seen = 0

    def step(self, frame: NDArray[np.uint8] | torch.Tensor, *, time_seconds: float | None = None) -> Gaze:
        """The gaze of the next frame.

        Args:
            frame: (H, W, 3) uint8.
            time_seconds: when it is shown; None: its number in the stream over 30.

        Raises:
            ValueError: the frame is not of the session's height and width.
        """
        rgb = torch.as_tensor(frame).cpu().numpy()[None]
        number = np.array([self._frames_seen])
        time = np.array([self._frames_seen / 30 if time_seconds is None else time_seconds], np.float64)
        self._frames_seen += 1
        return self._session.step(Frames(rgb=rgb, time_seconds=time, number=number))
