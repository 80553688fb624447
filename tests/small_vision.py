"""Small vision models with random weights, saved as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5, "num_attention_heads": 4}


def save_dinov2(folder: Path, **options: Any) -> Path:
    """DINOv2 with 3 register tokens, trained at 56 px with patches of 14."""
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=32,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
        num_register_tokens=3,
        **options,
    )
    return _save(transformers.Dinov2WithRegistersModel, config, folder)


def save_siglip(folder: Path, **options: Any) -> Path:
    """The vision tower of SigLIP for 32 px with patches of 8."""
    config = transformers.SiglipVisionConfig(**(_TOWER | {"image_size": 32, "patch_size": 8} | options))
    return _save(transformers.SiglipVisionModel, config, folder)


def save_whole_siglip(folder: Path) -> Path:
    """SigLIP with both towers, as most checkpoints are."""
    config = transformers.SiglipConfig(
        vision_config=_TOWER | {"image_size": 32, "patch_size": 8},
        text_config=_TOWER | {"num_hidden_layers": 1, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2},
    )
    return _save(transformers.SiglipModel, config, folder)


def save_any_size_siglip(folder: Path) -> Path:
    """SigLIP 2 for any size, with 4 × 4 positions and patches of 8 px."""
    return _save(
        transformers.Siglip2VisionModel,
        transformers.Siglip2VisionConfig(**_TOWER, num_patches=16, patch_size=8),
        folder,
    )


def write_settings(folder: Path, **settings: Any) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def _save(model_class: Any, config: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    model = model_class(config)
    for weight in model.parameters():  # larger than transformers draws them, so that features differ
        torch.nn.init.normal_(weight, std=0.15)
    model.save_pretrained(folder)
    return folder
