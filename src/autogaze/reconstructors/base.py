"""What every reconstructor is: something that rebuilds a video from its gazes alone, frame after frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout

# Shape letters: T frames of H × W pixels.


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """Frames rebuilt from gazes, and how far from the true ones they are.

    Raises:
        ValueError: the arrays are of another shape or dtype than stated below.
    """

    rgb: NDArray[np.uint8]
    """(T, H, W, 3) colours, of the height and width of the video."""
    loss: NDArray[np.float64]
    """(T,) loss of each frame in the reconstructor's own unit, see :attr:`Reconstructor.loss_unit`."""

    def __post_init__(self) -> None:
        if self.rgb.ndim != 4 or self.rgb.shape[-1] != 3 or self.rgb.dtype != np.uint8:
            raise ValueError(f"rgb must be (T, H, W, 3) uint8, got {self.rgb.shape} {self.rgb.dtype}")
        if self.loss.shape != (len(self.rgb),) or self.loss.dtype != np.float64:
            raise ValueError(f"loss must be ({len(self.rgb)},) float64, got {self.loss.shape} {self.loss.dtype}")

    def __len__(self) -> int:
        return len(self.rgb)


class ReconstructorSession(Protocol):
    """One video on its way through a reconstructor."""

    layout: FrameLayout
    """Layout of the frames and gazes that :meth:`step` takes."""

    def step(self, frames: Frames, gaze: Gaze) -> Reconstruction:
        """Rebuild the next frames of the video (any number of them, at least 1) from the gazes so far.

        The frames are read where they were gazed at, and to measure the loss; nothing else of them reaches the
        reconstruction. How a video is cut into steps changes nothing.

        Raises:
            ValueError: frames or gaze are not of the session's layout, or not equally long.
        """
        ...


class Reconstructor(Protocol):
    """Anything that rebuilds a video from a :class:`~autogaze.gaze.Gaze`, learned or not. It is causal: a frame is
    rebuilt from its own gazes and those of earlier frames.
    """

    @property
    def name(self) -> str:
        """Short name, as the command line takes it."""
        ...

    @property
    def loss_unit(self) -> str:
        """What a loss of 1 is, in a few words."""
        ...

    def open(self, layout: FrameLayout) -> ReconstructorSession:
        """Start on a video whose frames and gazes have this layout.

        Raises:
            ValueError: the layout's grid does not suit the reconstructor.
        """
        ...


def check_step(layout: FrameLayout, frames: Frames, gaze: Gaze) -> None:
    """Refuse frames and gazes that a session of this layout cannot step on.

    Raises:
        ValueError: they are of another size or layout, or not equally long.
    """
    if (frames.height_px, frames.width_px) != (layout.height_px, layout.width_px):
        raise ValueError(
            f"the gaze is of frames of {layout.width_px}×{layout.height_px} px, these have "
            f"{frames.width_px}×{frames.height_px}; is the gaze of another video?"
        )
    if gaze.layout != layout:
        raise ValueError(f"the reconstruction has layout {layout}, the gaze {gaze.layout}; use the same layout")
    if len(frames) != len(gaze):
        raise ValueError(f"frames and gaze must be equally long, got {len(frames)} frames and gazes of {len(gaze)}")
