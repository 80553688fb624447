"""Vision models of transformers from a folder or the hub, ready to be made sparse."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autogaze.configuration import read_json_object
from autogaze.errors import CheckpointError
from autogaze.extras import require
from autogaze.losses.pixel import HALF, IMAGENET, PixelSpace
from autogaze.models.autogaze.checkpoint import CONFIG_NAME, HubOptions
from autogaze.models.autogaze.processing_autogaze import PROCESSOR_NAME
from autogaze.vision_checkpoint import VIDEO_PROCESSOR_NAME, load_model, local_folder, quiet

CLIP = PixelSpace(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
"""Normalisation of CLIP's images."""
_FAMILIES: dict[str, tuple[str, PixelSpace]] = {
    "siglip": ("SiglipVisionModel", HALF),
    "siglip_vision_model": ("SiglipVisionModel", HALF),
    "siglip2": ("Siglip2VisionModel", HALF),
    "siglip2_vision_model": ("Siglip2VisionModel", HALF),
    "clip": ("CLIPVisionModel", CLIP),
    "clip_vision_model": ("CLIPVisionModel", CLIP),
    "dinov2": ("Dinov2Model", IMAGENET),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", IMAGENET),
    "dinov3_vit": ("DINOv3ViTModel", IMAGENET),
    "vit": ("ViTModel", HALF),
    "deit": ("DeiTModel", IMAGENET),
    "vit_mae": ("ViTMAEModel", IMAGENET),
    "vjepa2": ("VJEPA2Model", IMAGENET),
}
"""model_type of config.json → the class that reads the checkpoint, and the normalisation it was trained with."""
_OPTIONS: dict[str, dict[str, Any]] = {
    "ViTModel": {"add_pooling_layer": False},  # classifiers have none, and its weights would be random
    "DeiTModel": {"add_pooling_layer": False},
}


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionCheckpoint:
    """A vision model and what its frames have to be."""

    model: nn.Module
    """In evaluation mode."""
    space: PixelSpace
    """Normalisation of its frames."""
    image_px: int
    """Side of the frames it was trained on."""


def load_vision_model(
    source: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    hub: HubOptions | None = None,
) -> VisionCheckpoint:
    """The vision model of a folder or hub id; of a checkpoint with a text tower the vision tower alone.

    Mean and standard deviation are those of its ``preprocessor_config.json`` (for video models
    ``video_preprocessor_config.json``), else those of its family.

    Raises:
        CheckpointError: nothing is there, or it is damaged, incomplete, or of a family that cannot be made sparse.
        ImportError: transformers is not installed.
    """
    transformers = require("transformers", extra="hf")
    folder = local_folder(source, hub or HubOptions())
    kind = read_json_object(folder / CONFIG_NAME).get("model_type")
    if kind not in _FAMILIES:
        raise CheckpointError(
            f"{folder} holds a model of type {kind!r}, which cannot be made sparse; legal are {', '.join(_FAMILIES)}"
        )
    name, space = _FAMILIES[kind]
    with quiet(transformers):
        model: Any = load_model(getattr(transformers, name), folder, dtype=dtype, **_OPTIONS.get(name, {}))
    files = [folder / file for file in (PROCESSOR_NAME, VIDEO_PROCESSOR_NAME) if (folder / file).is_file()]
    return VisionCheckpoint(
        model=model.eval().to(device),
        space=PixelSpace.from_file(files[0], default=space) if files else space,
        image_px=_image_px(model.config),
    )


def _image_px(config: Any) -> int:
    if config.model_type == "siglip2_vision_model":
        return int(config.num_patches**0.5) * int(config.patch_size)
    size = config.crop_size if config.model_type == "vjepa2" else config.image_size
    return int(size if isinstance(size, int) else size[0])
