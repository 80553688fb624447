"""The gaze model under its published import path."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autogaze.models.autogaze.autogaze import AutoGaze
    from autogaze.models.autogaze.configuration_autogaze import (
        AutoGazeConfig,
        ConnectorConfig,
        GazeDecoderConfig,
        GazeModelConfig,
        VisionModelConfig,
    )
    from autogaze.models.autogaze.processing_autogaze import AutoGazeImageProcessor

__all__ = [
    "AutoGaze",
    "AutoGazeConfig",
    "AutoGazeImageProcessor",
    "ConnectorConfig",
    "GazeDecoderConfig",
    "GazeModelConfig",
    "VisionModelConfig",
]

_MODULES = {"AutoGaze": "autogaze", "AutoGazeImageProcessor": "processing_autogaze"}


def __getattr__(name: str) -> Any:
    # The engine below needs the configuration beside the model above it: only what is asked for is imported.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'configuration_autogaze')}"), name)
