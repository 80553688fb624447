"""Rebuilding a video from its gazes with a masked autoencoder: the published reconstructor and its task."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VideoMAEConfig
    from autogaze.tasks.video_mae_reconstruction.task import (
        VideoMAEReconstruction,
        VideoMAEReconstructionOutput,
    )
    from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE, VideoMAEOutput

__all__ = [
    "VideoMAE",
    "VideoMAEConfig",
    "VideoMAEOutput",
    "VideoMAEReconstruction",
    "VideoMAEReconstructionOutput",
]

_MODULES = {
    "VideoMAE": "video_mae",
    "VideoMAEConfig": "configuration_video_mae",
    "VideoMAEOutput": "video_mae",
    "VideoMAEReconstruction": "task",
    "VideoMAEReconstructionOutput": "task",
}


def __getattr__(name: str) -> Any:
    # The modules here import each other through this package: only what is asked for is imported.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
