"""Families of vision transformers that can be made sparse."""

from __future__ import annotations

from torch import nn

from autogaze.vision_encoders.towers.base import TokenPositions, Tower
from autogaze.vision_encoders.towers.dinov3 import DINOv3Tower
from autogaze.vision_encoders.towers.siglip import Siglip2Tower, SiglipTower
from autogaze.vision_encoders.towers.vit import CLIPTower, DeiTTower, Dinov2Tower, ViTMAETower, ViTTower
from autogaze.vision_encoders.towers.vjepa2 import VJEPA2Tower

__all__ = ["TOWERS", "TokenPositions", "Tower", "tower_of"]

TOWERS: dict[str, type[Tower]] = {
    "SiglipVisionModel": SiglipTower,
    "Siglip2VisionModel": Siglip2Tower,
    "CLIPVisionModel": CLIPTower,
    "Dinov2Model": Dinov2Tower,
    "Dinov2WithRegistersModel": Dinov2Tower,
    "DINOv3ViTModel": DINOv3Tower,
    "ViTModel": ViTTower,
    "DeiTModel": DeiTTower,
    "ViTMAEModel": ViTMAETower,
    "VJEPA2Model": VJEPA2Tower,
}
"""Classes of transformers, by name, and how each is taken apart."""


def tower_of(model: nn.Module) -> Tower:
    """The model taken apart.

    Raises:
        TypeError: it is no module.
        ValueError: its class is none of :data:`TOWERS`, nor made from one.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a Hugging Face vision model, got {model!r}; load it first, with its class's from_pretrained"
        )
    tower = _known(model)
    if tower is not None:
        return tower(model)
    inside = next((f"model.{name}" for name, part in model.named_modules() if _known(part) is not None), None)
    hint = f"; pass {inside} of it" if inside else ", or pass a Tower of your own: sparsify(model, tower=…)"
    raise ValueError(f"{type(model).__name__} is not supported; supported are {', '.join(TOWERS)}{hint}")


def _known(model: nn.Module) -> type[Tower] | None:
    return next((TOWERS[cls.__name__] for cls in type(model).__mro__ if cls.__name__ in TOWERS), None)
