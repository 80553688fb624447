"""Reconstructors: three ways of rebuilding a video from its gazes, behind one interface."""

from __future__ import annotations

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.reconstructors.base import Reconstruction, Reconstructor, ReconstructorSession
from autogaze.reconstructors.canvas import CanvasReconstructor
from autogaze.reconstructors.loading import ReconstructorLike, load_reconstructor

__all__ = [
    "CanvasReconstructor",
    "Reconstruction",
    "Reconstructor",
    "ReconstructorLike",
    "ReconstructorSession",
    "load_reconstructor",
    "rebuild",
]


def rebuild(frames: Frames, *, gaze: Gaze, reconstructor: ReconstructorLike = "canvas") -> Reconstruction:
    """A whole video rebuilt from its gaze; see :func:`load_reconstructor` for what may be named.

    Raises:
        CheckpointError: there is no such reconstructor, or it cannot be loaded.
        ValueError: frames and gaze are not of one video, or the gaze's grid does not suit the reconstructor.
    """
    return load_reconstructor(reconstructor).open(gaze.layout).step(frames, gaze)
