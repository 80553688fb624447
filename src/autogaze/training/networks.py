"""Gaze models to start from: a checkpoint, or fresh weights of a shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from autogaze.errors import TrainingError
from autogaze.loading import checkpoint_path
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.configuration_autogaze import (
    AutoGazeConfig,
    ConnectorConfig,
    GazeDecoderConfig,
    GazeModelConfig,
    VisionModelConfig,
)

PUBLISHED = AutoGazeConfig(
    gazing_ratio_config={"sample_strategy_during_inference": "fixed", "fixed": {"gazing_ratio": 0.75}},
    has_task_loss_requirement_during_inference=True,
    task_loss_requirement_config={
        "sample_strategy_during_inference": "fixed",
        "fixed": {"task_loss_requirement": 0.025},
    },
)
"""The published shape, and limits in the unit of the labels for callers who name none."""
TINY = replace(
    PUBLISHED,
    scales="32+64",
    max_num_frames=8,
    gaze_model_config=GazeModelConfig(
        input_img_size=64,
        vision_model_config=VisionModelConfig(hidden_dim=32, out_dim=32),
        connector_config=ConnectorConfig(hidden_dim=32, num_tokens=16),
        gaze_decoder_config=GazeDecoderConfig(
            vocab_size=21,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            num_multi_token_pred=4,
        ),
    ),
)
"""20 patches on 8 frames of 64 px: trains in seconds, to try a run and to test one."""
SHAPES = {"published": PUBLISHED, "tiny": TINY}


def gaze_model(*, init: str | None, shape: str, seed: int) -> AutoGaze:
    """A model to train.

    Args:
        init: checkpoint to start from, as ``AutoGaze.from_pretrained`` takes it, or ``"bundled"``.
        shape: a name of :data:`SHAPES` or the path of a ``config.json``, for fresh weights where ``init`` is None.
        seed: of fresh weights.

    Raises:
        CheckpointError: ``init`` or the configuration cannot be loaded.
        TrainingError: there is no such shape.
    """
    if init is not None:
        # The stop head is to learn a unit; what was measured of the old one means nothing then.
        return AutoGaze.from_pretrained(checkpoint_path(init) or init, calibrated=False)
    config = SHAPES.get(shape)
    if config is None:
        if not Path(shape).is_file():
            raise TrainingError(f"--shape {shape!r} is neither {', '.join(SHAPES)} nor the path of a config.json")
        config = AutoGazeConfig.from_json_file(Path(shape))
    model = AutoGaze(config)
    model.gazing_model.init_weights(torch.Generator().manual_seed(seed))
    # Losses are a few hundredths: a head that starts at random would drown the gazes for the first steps.
    nn.init.zeros_(model.gazing_model.gaze_decoder.task_loss_prediction_head.weight)
    return model
