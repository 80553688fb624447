"""Frozen vision models from transformers: frames in, features of their patches out.

Shape letters: n frames, H × W pixels, h × w patches, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autogaze.configuration import read_json_object
from autogaze.errors import CheckpointError
from autogaze.extras import require
from autogaze.losses.pixel import HALF, IMAGENET, PixelSpace
from autogaze.models.autogaze.checkpoint import CONFIG_NAME, HubOptions
from autogaze.models.autogaze.processing_autogaze import PROCESSOR_NAME
from autogaze.vision_checkpoint import load_model, local_folder, quiet

# model_type of config.json → the class that reads the checkpoint, and the space it was trained in.
_FAMILIES: dict[str, tuple[str, PixelSpace]] = {
    "dinov2": ("Dinov2Model", IMAGENET),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", IMAGENET),
    "siglip": ("SiglipVisionModel", HALF),
    "siglip_vision_model": ("SiglipVisionModel", HALF),
    "siglip2": ("Siglip2VisionModel", HALF),
    "siglip2_vision_model": ("Siglip2VisionModel", HALF),
}


class FrozenVisionModel(nn.Module):
    """A Hugging Face vision model that is looked through and never trained.

    Its weights follow ``.to(device)`` of whatever module holds it, but are neither parameters nor part of the state
    dict of that module, stay in evaluation mode, and get no gradient; the frames do.
    """

    def __init__(self, model: nn.Module, *, space: PixelSpace, image_px: int | None = None) -> None:
        """See the class.

        Args:
            model: a DINOv2 model, with or without registers, or the vision tower of SigLIP or SigLIP 2.
            space: of the frames the model was trained on.
            image_px: side to which frames are resized before the model reads them (bilinear, antialiased); None: only
                to the nearest whole number of patches a side. Its position table is interpolated where that differs
                from the size it was trained at.

        Raises:
            ValueError: the model is of another family.
        """
        super().__init__()
        config: Any = model.config
        if config.model_type not in _FAMILIES:
            raise ValueError(f"a model of type {config.model_type!r} cannot be used; legal are {', '.join(_FAMILIES)}")
        # In a tuple, so that it is no submodule: see the class.
        self._held = (model.eval().requires_grad_(False),)
        self.space, self.image_px = space, image_px
        self.patch_px: int = config.patch_size
        """Side of one of the model's patches, in pixels."""
        self.hidden_size: int = config.hidden_size
        """Channels of one hidden state."""
        self.num_hidden_layers: int = config.num_hidden_layers
        """Hidden states after the first."""
        self.num_prefix_tokens = _prefix_tokens(config)
        """Class and register tokens, which stand before the patches."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        image_px: int | None = None,
        attn_implementation: str = "sdpa",
        hub: HubOptions | None = None,
    ) -> Self:
        """The model of a folder or hub id; a checkpoint with a text tower is read for its vision tower alone.

        Mean and standard deviation are those of its ``preprocessor_config.json``, else those of its family.

        Raises:
            CheckpointError: nothing is there, or it is damaged, incomplete, or of another family.
            ImportError: transformers is not installed.
        """
        transformers = require("transformers", extra="hf")
        folder = local_folder(source, hub or HubOptions())
        name, space = _family(folder)
        with quiet(transformers):
            model = load_model(getattr(transformers, name), folder, attn_implementation=attn_implementation)
        return cls(model, space=PixelSpace.from_file(folder / PROCESSOR_NAME, default=space), image_px=image_px)

    @property
    def model(self) -> Any:
        """The model itself, of a class of transformers."""
        return self._held[0]

    def hidden_states(self, frames: Tensor, *, layers: int, space: PixelSpace) -> Tensor:
        """(n, h·w, layers·C) the last hidden states of the patches side by side, row by row.

        The last of them is what leaves the last block, before the model's final normalisation.

        Args:
            frames: (n, 3, H, W) floats.
            layers: how many hidden states, at most one more than there are blocks.
            space: of the frames.
        """
        output = self._look(frames, space, output_hidden_states=True)
        last = output.hidden_states[-layers:]
        return torch.cat([state[:, self.num_prefix_tokens :] for state in last], dim=-1)

    def last_hidden_state(self, frames: Tensor, *, space: PixelSpace) -> Tensor:
        """(n, h·w, C) what the model says of each patch, row by row, after its final normalisation.

        Args:
            frames: (n, 3, H, W) floats.
            space: of the frames.
        """
        state: Tensor = self._look(frames, space).last_hidden_state
        return state[:, self.num_prefix_tokens :]

    def _look(self, frames: Tensor, space: PixelSpace, **options: Any) -> Any:
        frames = space.convert(frames, to=self.space)
        height_px, width_px = (self._side_px(side) for side in frames.shape[-2:])
        if (height_px, width_px) != tuple(frames.shape[-2:]):
            # In float32: antialiased resizing knows no shorter floats on a CPU.
            frames = F.interpolate(
                frames.float(), (height_px, width_px), mode="bilinear", align_corners=False, antialias=True
            )
        frames = frames.to(self.model.dtype)
        if self.model.config.model_type == "siglip2_vision_model":
            patches, mask, shapes = _patches(frames, self.patch_px)
            return self.model(patches, pixel_attention_mask=mask, spatial_shapes=shapes, **options)
        if self.model.config.model_type == "siglip_vision_model":
            return self.model(frames, interpolate_pos_encoding=True, **options)
        return self.model(frames, **options)

    def _side_px(self, side_px: int) -> int:
        if self.image_px is not None:
            return self.image_px
        return max(1, round(side_px / self.patch_px)) * self.patch_px

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.model._apply(fn)
        return self


def _prefix_tokens(config: Any) -> int:
    if not config.model_type.startswith("dinov2"):
        return 0
    return 1 + int(getattr(config, "num_register_tokens", 0))


def _patches(frames: Tensor, patch_px: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames as SigLIP 2 of any size reads them: pixels of each patch, which are real, (h, w) of each frame."""
    n, _, height_px, width_px = frames.shape
    h, w = height_px // patch_px, width_px // patch_px
    patches = frames.reshape(n, 3, h, patch_px, w, patch_px).permute(0, 2, 4, 3, 5, 1).reshape(n, h * w, -1)
    mask = torch.ones(n, h * w, dtype=torch.int32, device=frames.device)
    # Sizes are read on the host: elsewhere each frame would make the device wait.
    return patches, mask, torch.tensor([[h, w]]).expand(n, 2)


def _family(folder: Path) -> tuple[str, PixelSpace]:
    kind = read_json_object(folder / CONFIG_NAME).get("model_type")
    if kind not in _FAMILIES:
        raise CheckpointError(
            f"{folder} holds a model of type {kind!r}, which cannot be used; legal are {', '.join(_FAMILIES)}"
        )
    return _FAMILIES[kind]
