"""Configuration of a video masked autoencoder, and the sizes there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from autogaze.configuration import Configuration, read_json_object, write_json_object
from autogaze.errors import CheckpointError
from autogaze.grid import PatchGrid

VIDEO_MAE_TYPE = "autogaze_video_mae"
"""What the configuration file of a video masked autoencoder says its ``model_type`` is."""


@dataclass(frozen=True, kw_only=True)
class VideoMAEConfig(Configuration):
    """A multi-scale masked autoencoder of videos; the names are those of the published ``config.json``.

    Raises:
        ValueError: the sizes do not fit together.
    """

    hidden_size: int = 1024
    """Channels of the encoder."""
    num_hidden_layers: int = 24
    """Blocks of the encoder."""
    num_attention_heads: int = 16
    """Heads of the encoder; divides ``hidden_size``."""
    intermediate_size: int = 4096
    """Channels inside the encoder's feed-forward layers."""
    image_size: int = 224
    """Side of the square frames in pixels: the finest scale."""
    patch_size: int = 16
    """Side of one patch in pixels of its scale; divides ``image_size``."""
    decoder_hidden_size: int = 512
    """Channels of the decoder."""
    decoder_num_hidden_layers: int = 8
    """Blocks of the decoder."""
    decoder_num_attention_heads: int = 16
    """Heads of the decoder; divides ``decoder_hidden_size``."""
    decoder_intermediate_size: int = 2048
    """Channels inside the decoder's feed-forward layers."""
    layer_norm_eps: float = 1e-12
    """Added to the variance before its root is taken."""
    initializer_range: float = 0.02
    """Standard deviation of fresh weights."""
    scales: str = "32+64+112+224"
    """Scales in pixels, joined by plus signs."""
    loss_type: str = "l1"
    """What the loss is the sum of, joined by plus signs, such as ``l1+dinov2_reg+siglip2``."""
    loss_weights: str = "1"
    """Weight of each term of the loss, joined by plus signs."""
    scale_embed: bool = True
    """Whether a token is told its scale."""
    time_embed: bool = True
    """Whether a token is told its frame."""
    max_num_frames: int = 256
    """Frames there are time entries for; without ``time_embed`` a video may have any number of frames."""
    causal: bool = True
    """Whether a frame sees only itself and earlier frames; if not, every token sees every other."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the file that mean nothing here."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.type == "int" and getattr(self, item.name) < 1:
                raise ValueError(f"{item.name} must be above 0, got {getattr(self, item.name)}")
        for width, heads in (
            (self.hidden_size, self.num_attention_heads),
            (self.decoder_hidden_size, self.decoder_num_attention_heads),
        ):
            if width % heads:
                raise ValueError(f"{heads} heads must divide {width} channels")
            if width % 4:
                raise ValueError(f"channels must be a multiple of 4, for the position table's sines, got {width}")
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size ({self.patch_size} px) must divide image_size ({self.image_size} px)")
        if self.scales_px[-1] != self.image_size:
            raise ValueError(f"the finest of scales {self.scales} must be image_size ({self.image_size} px)")
        if self.grid.num_scales < 1 or any(scale % self.patch_size for scale in self.scales_px):
            raise ValueError(f"scales {self.scales} must be multiples of patch_size ({self.patch_size} px)")
        if len(self.loss_names) != len(self.loss_weight_of_each):
            raise ValueError(
                f"loss_weights must have one number for each term of loss_type {self.loss_type!r}, "
                f"got {self.loss_weights!r}"
            )
        for name in ("hidden_act", "qkv_bias", "num_channels"):
            legal = {"hidden_act": "gelu", "qkv_bias": True, "num_channels": 3}[name]
            if self.extra.get(name, legal) != legal:
                raise ValueError(f"{name} must be {legal!r}, got {self.extra[name]!r}")

    @cached_property
    def scales_px(self) -> tuple[int, ...]:
        """The scales as numbers, ascending."""
        return tuple(sorted(int(part) for part in self.scales.split("+")))

    @cached_property
    def grid(self) -> PatchGrid:
        """The patches of one frame."""
        return PatchGrid(scales_px=self.scales_px, patch_px=self.patch_size)

    @cached_property
    def loss_names(self) -> tuple[str, ...]:
        """The terms of the loss."""
        return tuple(part.strip() for part in self.loss_type.split("+"))

    @cached_property
    def loss_weight_of_each(self) -> tuple[float, ...]:
        """Weight of each of :attr:`loss_names`."""
        try:
            weights = tuple(float(part) for part in self.loss_weights.split("+"))
        except ValueError as error:
            raise ValueError(f"loss_weights must be numbers joined by +, got {self.loss_weights!r}") from error
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
            raise ValueError(f"loss_weights must be numbers of at least 0, got {self.loss_weights!r}")
        return weights

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The configuration in a mapping; keys this class does not know are kept in ``extra``.

        What says nothing (null) is left to the default, a lone scale or weight may be a number, and a side may be two
        equal ones.

        Raises:
            CheckpointError: a value is missing or of the wrong kind.
        """
        plain = {name: value for name, value in data.items() if name != "model_type" and value is not None}
        for name in ("scales", "loss_weights"):
            if isinstance(plain.get(name), (int, float)) and not isinstance(plain[name], bool):
                plain[name] = f"{plain[name]:g}"
        for name in ("image_size", "patch_size"):
            side = plain.get(name)
            if isinstance(side, list) and len(side) == 2 and side[0] == side[1]:
                plain[name] = side[0]
        return super().from_dict(plain)

    @classmethod
    def from_json_file(cls, path: Path) -> Self:
        """Read ``config.json``.

        Raises:
            CheckpointError: the file is missing, no JSON object, or no configuration of a video masked autoencoder.
        """
        data = read_json_object(path)
        if not {"hidden_size", "decoder_hidden_size", "scales"} <= data.keys():
            raise CheckpointError(
                f"{path} is not the configuration of a VideoMAE: it needs hidden_size, decoder_hidden_size and scales"
            )
        return cls.from_dict(data)

    def to_json_file(self, path: Path) -> None:
        """Write ``config.json``.

        Raises:
            OSError: the file cannot be written.
        """
        write_json_object(path, {"model_type": VIDEO_MAE_TYPE, **self.to_dict()})


def tiny() -> VideoMAEConfig:
    """6.6 million parameters: a ViT-Ti encoder and a decoder that a processor can run."""
    return VideoMAEConfig(
        hidden_size=192,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=768,
        decoder_hidden_size=128,
        decoder_num_hidden_layers=4,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=512,
    )


def base() -> VideoMAEConfig:
    """112 million parameters: the sizes of ViT-MAE-base."""
    return VideoMAEConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)


def large() -> VideoMAEConfig:
    """330 million parameters: the published reconstructor, with its sizes of ViT-MAE-large and its loss."""
    return VideoMAEConfig(loss_type="l1+dinov2_reg+siglip2", loss_weights="1+0.3+0.3")
