"""Reconstructors: three ways of rebuilding a video from its gazes, behind one interface."""

from __future__ import annotations

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.reconstructors.base import Reconstruction, Reconstructor, ReconstructorSession
from autogaze.reconstructors.canvas import CanvasReconstructor

__all__ = ["CanvasReconstructor", "Reconstruction", "Reconstructor", "ReconstructorSession", "rebuild"]


def rebuild(frames: Frames, *, gaze: Gaze, reconstructor: Reconstructor | None = None) -> Reconstruction:
    """A whole video rebuilt from its gaze; by the canvas if no reconstructor is named.

    Raises:
        ValueError: frames and gaze are not of one video, or the gaze's grid does not suit the reconstructor.
    """
    return (reconstructor or CanvasReconstructor()).open(gaze.layout).step(frames, gaze)
