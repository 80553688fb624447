"""Gazing at a stream, one frame at a time, with any selector."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.selectors.base import SelectorSession

ASSUMED_FPS = 30.0
"""Frames a second of a stream that does not say when its frames are shown."""


class GazeSession:
    """One stream; made by :func:`autogaze.stream`.

    A stream gets the gazes that the same frames get as a file, and memory never grows: a gaze model remembers the
    frames of the current clip, 16 at most, and the frame after them begins a new clip with nothing remembered;
    replenishment remembers its canvas, which is one frame however long the stream is. Only a budget per clip gives
    a stream other gazes than a file: the frames of a clip cannot compete when they come one by one, so each gets
    its share.
    """

    def __init__(self, session: SelectorSession) -> None:
        self._session = session
        self._frames_seen = 0

    @property
    def layout(self) -> FrameLayout:
        """Layout of every gaze."""
        return self._session.layout

    @property
    def frames_seen(self) -> int:
        """Frames gazed at so far."""
        return self._frames_seen

    def step(self, frame: NDArray[np.uint8] | torch.Tensor, *, time_seconds: float | None = None) -> Gaze:
        """The gaze of the next frame.

        Args:
            frame: (H, W, 3) uint8.
            time_seconds: when it is shown; None: its number in the stream over 30.

        Raises:
            ValueError: the frame is not (H, W, 3) uint8 of the session's height and width. The stream can go on with
                the next frame.
        """
        rgb = frame.detach().cpu().numpy() if isinstance(frame, torch.Tensor) else np.asarray(frame)
        expected = (self.layout.height_px, self.layout.width_px, 3)
        if rgb.shape != expected or rgb.dtype != np.uint8:
            raise ValueError(
                f"frames of this stream must be {expected} uint8, got {rgb.shape} {rgb.dtype}; "
                "resize it, or open another stream for another size"
            )
        seconds = self._frames_seen / ASSUMED_FPS if time_seconds is None else time_seconds
        frames = Frames(
            rgb=rgb[None], time_seconds=np.array([seconds], np.float64), number=np.array([self._frames_seen])
        )
        gaze = self._session.step(frames)
        self._frames_seen += 1
        return gaze
