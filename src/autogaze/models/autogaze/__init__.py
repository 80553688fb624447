"""The gaze model under its published import path."""

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
