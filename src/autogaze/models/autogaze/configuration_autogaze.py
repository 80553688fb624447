"""Configuration of a gaze model; reads and writes the published ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from autogaze.configuration import Configuration, read_json_object, write_json_object
from autogaze.errors import CheckpointError
from autogaze.grid import PatchGrid

Positions = Literal["true", "reference"]
"""How generation counts the positions of a frame's second and later groups of gazes.

``true``: kept tokens are counted one by one, as in training. ``reference``: what the published generation loop
does; these groups get the positions of the last tokens of the frame's first feed.
"""


@dataclass(frozen=True, kw_only=True)
class VisionModelConfig(Configuration):
    """The convolutional encoder."""

    hidden_dim: int = 192
    """Channels inside."""
    out_dim: int = 192
    """Channels of the output."""
    depth: int = 1
    """Causal convolution blocks."""
    kernel_size: int = 16
    """Side of one patch, in pixels."""
    temporal_patch_size: int = 1
    """Frames one patch spans."""
    trunk_temporal_kernel_size: int = 3
    """Frames a block sees: its own and the ones before."""
    trunk_spatial_kernel_size: int = 3
    """Patches a block sees along each side."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the file that mean nothing here."""

    def __post_init__(self) -> None:
        if self.temporal_patch_size != 1:
            raise ValueError(f"temporal_patch_size must be 1, got {self.temporal_patch_size}")
        if self.trunk_spatial_kernel_size % 2 == 0:
            raise ValueError(f"trunk_spatial_kernel_size must be odd, got {self.trunk_spatial_kernel_size}")


@dataclass(frozen=True, kw_only=True)
class ConnectorConfig(Configuration):
    """The position table between encoder and decoder."""

    hidden_dim: int = 192
    """Channels."""
    num_tokens: int = 196
    """Visual tokens of a frame."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the file that mean nothing here."""


@dataclass(frozen=True, kw_only=True)
class RopeScaling(Configuration):
    """Llama-3 scaling of the rotary frequencies (Grattafiori et al. 2024, as Llama 3.1 uses it)."""

    factor: float = 8.0
    """How much longer the lowest frequencies' wavelengths become."""
    low_freq_factor: float = 1.0
    """Wavelengths above ``original_max_position_embeddings / low_freq_factor`` are stretched fully."""
    high_freq_factor: float = 4.0
    """Wavelengths below ``original_max_position_embeddings / high_freq_factor`` are left alone."""
    original_max_position_embeddings: int = 8192
    """Length the frequencies were made for."""
    rope_type: str = "llama3"
    """The only kind known here."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the file that mean nothing here."""

    def __post_init__(self) -> None:
        if self.rope_type != "llama3":
            raise ValueError(f'rope_type must be "llama3", got {self.rope_type!r}')


@dataclass(frozen=True, kw_only=True)
class GazeDecoderConfig(Configuration):
    """The transformer decoder that proposes gazes."""

    vocab_size: int = 266
    """Patches of a frame and the end token."""
    hidden_size: int = 192
    """Channels."""
    intermediate_size: int = 384
    """Channels inside the feed-forward layer."""
    num_hidden_layers: int = 4
    """Blocks."""
    num_attention_heads: int = 6
    """Query heads."""
    num_key_value_heads: int = 6
    """Key and value heads; divides the query heads."""
    head_dim: int | None = None
    """Channels of one head; None: ``hidden_size / num_attention_heads``."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square before its root is taken."""
    rope_theta: float = 500_000.0
    """Base of the rotary wavelengths."""
    rope_scaling: RopeScaling | None = field(default_factory=RopeScaling)
    """Scaling of the rotary frequencies; None: none."""
    num_multi_token_pred: int = 10
    """K: gazes one decoder pass proposes."""
    initializer_range: float = 0.02
    """Standard deviation of fresh weights."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the file that mean nothing here."""

    def __post_init__(self) -> None:
        self._nested("rope_scaling", RopeScaling)
        if self.head_dim is None:
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads ({self.num_key_value_heads}) must divide "
                f"num_attention_heads ({self.num_attention_heads})"
            )
        if self.num_multi_token_pred < 1:
            raise ValueError(f"num_multi_token_pred must be at least 1, got {self.num_multi_token_pred}")
        if self.extra.get("attention_bias") or self.extra.get("mlp_bias"):
            raise ValueError("attention_bias and mlp_bias must be false")
        if self.extra.get("hidden_act", "silu") != "silu":
            raise ValueError(f'hidden_act must be "silu", got {self.extra["hidden_act"]!r}')


@dataclass(frozen=True, kw_only=True)
class GazeModelConfig(Configuration):
    """Encoder, connector and decoder together."""

    input_img_size: int = 224
    """Side of the frames the encoder reads, in pixels."""
    vision_model_config: VisionModelConfig = field(default_factory=VisionModelConfig)
    """Encoder."""
    connector_config: ConnectorConfig = field(default_factory=ConnectorConfig)
    """Connector."""
    gaze_decoder_config: GazeDecoderConfig = field(default_factory=GazeDecoderConfig)
    """Decoder."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the file that mean nothing here."""

    def __post_init__(self) -> None:
        self._nested("vision_model_config", VisionModelConfig)
        self._nested("connector_config", ConnectorConfig)
        self._nested("gaze_decoder_config", GazeDecoderConfig)
        tokens = (self.input_img_size // self.vision_model_config.kernel_size) ** 2
        if tokens != self.connector_config.num_tokens:
            raise ValueError(
                f"{self.input_img_size} px frames make {tokens} visual tokens, "
                f"but connector_config.num_tokens is {self.connector_config.num_tokens}"
            )
        widths = (
            self.vision_model_config.out_dim,
            self.connector_config.hidden_dim,
            self.gaze_decoder_config.hidden_size,
        )
        if len(set(widths)) != 1:
            raise ValueError(f"encoder, connector and decoder must be equally wide, got {widths}")


@dataclass(frozen=True, kw_only=True)
class AutoGazeConfig(Configuration):
    """A whole gaze model."""

    scales: str = "32+64+112+224"
    """Scales in pixels, joined by plus signs, as the published file writes them."""
    max_num_frames: int = 16
    """Frames of one clip."""
    gaze_model_config: GazeModelConfig = field(default_factory=GazeModelConfig)
    """The network."""
    positions: Positions = "true"
    """Which positions generation uses; a file that does not say means ``reference``."""
    gazing_ratio_config: Mapping[str, Any] = field(default_factory=dict)
    """How a ratio is drawn when the caller names no limit; see :mod:`autogaze.models.autogaze.budgets`."""
    gazing_ratio_each_frame_config: Mapping[str, Any] = field(default_factory=dict)
    """How that ratio is spread over the frames."""
    has_task_loss_requirement_during_inference: bool = False
    """Whether a threshold is drawn too."""
    task_loss_requirement_config: Mapping[str, Any] = field(default_factory=dict)
    """How the threshold is drawn."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the file that mean nothing here."""

    def __post_init__(self) -> None:
        self._nested("gaze_model_config", GazeModelConfig)
        if self.positions not in ("true", "reference"):
            raise ValueError(f'positions must be "true" or "reference", got {self.positions!r}')
        if self.max_num_frames < 1:
            raise ValueError(f"max_num_frames must be at least 1, got {self.max_num_frames}")
        if self.scales_px[-1] != self.gaze_model_config.input_img_size:
            raise ValueError(
                f"the finest scale ({self.scales_px[-1]} px) must be the side of the frames the encoder reads "
                f"({self.gaze_model_config.input_img_size} px)"
            )
        decoder, tokens = self.gaze_model_config.gaze_decoder_config, self.gaze_model_config.connector_config.num_tokens
        if self.positions == "reference" and tokens < decoder.num_multi_token_pred:
            least = decoder.num_multi_token_pred
            raise ValueError(f'positions "reference" need at least {least} visual tokens a frame, got {tokens}')
        vocabulary = self.gaze_model_config.gaze_decoder_config.vocab_size
        if self.grid.num_patches + 1 != vocabulary:
            raise ValueError(
                f"scales {self.scales} have {self.grid.num_patches} patches a frame, "
                f"so vocab_size must be {self.grid.num_patches + 1}, got {vocabulary}"
            )

    @cached_property
    def scales_px(self) -> tuple[int, ...]:
        """The scales as numbers, ascending."""
        return tuple(sorted(int(part) for part in str(self.scales).split("+")))

    @cached_property
    def grid(self) -> PatchGrid:
        """The patches the model chooses from."""
        return PatchGrid(scales_px=self.scales_px, patch_px=self.gaze_model_config.vision_model_config.kernel_size)

    @property
    def num_vision_tokens_each_frame(self) -> int:
        """Patches of one frame over all scales."""
        return self.grid.num_patches

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The configuration in a mapping; without ``positions`` it is a published one, hence ``reference``.

        Raises:
            CheckpointError: a value is missing or of the wrong kind.
        """
        return super().from_dict({"positions": "reference", **data})

    @classmethod
    def from_json_file(cls, path: Path) -> Self:
        """Read ``config.json``.

        Raises:
            CheckpointError: the file is missing, no JSON object, or no configuration of a gaze model.
        """
        data = read_json_object(path)
        if "gaze_model_config" not in data:
            raise CheckpointError(f"{path} is not the configuration of a gaze model: it has no gaze_model_config")
        return cls.from_dict(data)

    def to_json_file(self, path: Path) -> None:
        """Write ``config.json``.

        Raises:
            OSError: the file cannot be written.
        """
        data = {"model_type": "autogaze", **self.to_dict()}
        data["num_vision_tokens_each_frame"] = self.num_vision_tokens_each_frame
        write_json_object(path, data)
