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
        ValueError: its class is none of :data:`TOWERS`, nor made from one.
    """
    for ancestor in type(model).__mro__:
        if ancestor.__name__ in TOWERS:
            return TOWERS[ancestor.__name__](model)
    inside = [
        f"model.{name}"
        for name, child in model.named_children()
        if any(ancestor.__name__ in TOWERS for ancestor in type(child).__mro__)
    ]
    hint = f"; pass {inside[0]} of it" if inside else ", or pass a Tower of your own: sparsify(model, tower=…)"
    raise ValueError(f"{type(model).__name__} is not supported; supported are {', '.join(TOWERS)}{hint}")
