"""Small gaze models with random weights, and clips for them."""

from __future__ import annotations

import torch

from autogaze.models.autogaze.configuration_autogaze import (
    AutoGazeConfig,
    ConnectorConfig,
    GazeDecoderConfig,
    GazeModelConfig,
    VisionModelConfig,
)
from autogaze.models.autogaze.modeling_autogaze import GazeModel


def small_config(group_size: int = 4, key_value_heads: int = 2, head_dim: int | None = None) -> AutoGazeConfig:
    """Two scales of 4 + 16 patches on frames of 64 px."""
    return AutoGazeConfig(
        scales="32+64",
        max_num_frames=8,
        gaze_model_config=GazeModelConfig(
            input_img_size=64,
            vision_model_config=VisionModelConfig(hidden_dim=32, out_dim=32, depth=2),
            connector_config=ConnectorConfig(hidden_dim=32, num_tokens=16),
            gaze_decoder_config=GazeDecoderConfig(
                vocab_size=21,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=key_value_heads,
                head_dim=head_dim,
                num_multi_token_pred=group_size,
                initializer_range=0.3,  # large enough that random weights disagree about patches
            ),
        ),
    )


def small_model(seed: int = 0, **options: int | None) -> GazeModel:
    model = GazeModel(small_config(**options).gaze_model_config).eval()
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def clips(count: int, frames: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, frames, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
