"""What is captured of a gaze model: two programs, their inputs and outputs by name, and which sizes may vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autogaze.export.networks import DecoderStep, Encoder
from autogaze.models.autogaze.autogaze import AutoGaze

FRAMES, TOKENS, PAST, SEEN = "frames", "tokens", "past", "past + tokens"
"""Sizes that may vary: frames at once; tokens read now, before, and both."""
_LEAST = {FRAMES: 1, TOKENS: 1, PAST: 0}
_EXAMPLE = {FRAMES: 3, TOKENS: 7, PAST: 9}


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output of a program."""

    name: str
    """As a session calls it."""
    dtype: str
    """As numpy and torch call it."""
    shape: tuple[int | str, ...]
    """A word for each size that may vary."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A network that takes and returns flat lists of tensors."""

    name: str
    """Stem of its file."""
    module: nn.Module
    """Takes the inputs in their order, and returns the outputs in theirs."""
    positional: int
    """Inputs before those that the module takes as ``*past``."""
    inputs: tuple[Port, ...]
    """What goes in."""
    outputs: tuple[Port, ...]
    """What comes out."""
    below: Mapping[str, int]
    """Inputs of whole numbers, and what random ones are to be below."""

    def sample(self, *, seed: int, sizes: Mapping[str, int] = _EXAMPLE) -> list[Tensor]:
        """Inputs of these sizes with random values."""
        generator = torch.Generator().manual_seed(seed)
        inputs = []
        for port in self.inputs:
            shape = [size if isinstance(size, int) else sizes[size] for size in port.shape]
            if port.name in self.below:
                whole = torch.randint(self.below[port.name], shape, generator=generator)
                inputs.append(whole.to(getattr(torch, port.dtype)))
            else:
                inputs.append(torch.randn(shape, generator=generator))
        return inputs

    def dynamic_shapes(self) -> tuple[object, ...]:
        """Which sizes of the inputs vary, as torch wants it."""
        sizes = {name: torch.export.Dim(name, min=least) for name, least in _LEAST.items()}
        return self._nested([{axis: sizes[name] for axis, name in _varying(port)} for port in self.inputs])

    def axis_names(self) -> tuple[object, ...]:
        """The same with names alone."""
        return self._nested([dict(_varying(port)) for port in self.inputs])

    def _nested(self, shapes: Sequence[Mapping[int, object]]) -> tuple[object, ...]:
        return (*shapes[: self.positional], tuple(shapes[self.positional :]))


def _varying(port: Port) -> list[tuple[int, str]]:
    return [(axis, size) for axis, size in enumerate(port.shape) if isinstance(size, str)]


def encoder_program(model: AutoGaze) -> Program:
    """:class:`~autogaze.export.networks.Encoder` of a model."""
    side, network = model.input_px, model.config.gaze_model_config
    vision, patches = network.vision_model_config, side // network.vision_model_config.kernel_size
    remembered = (vision.hidden_dim, vision.trunk_temporal_kernel_size - 1, patches, patches)

    def memory(stem: str) -> tuple[Port, ...]:
        names = [f"{stem}_conv_{number}" for number in range(vision.depth)]
        return tuple(Port(name=name, dtype="float32", shape=remembered) for name in names)

    visual = (FRAMES, network.connector_config.num_tokens, network.connector_config.hidden_dim)
    return Program(
        name="encoder",
        module=Encoder(model),
        positional=1,
        inputs=(Port(name="frames", dtype="uint8", shape=(FRAMES, side, side, 3)), *memory("past")),
        outputs=(Port(name="visual", dtype="float32", shape=visual), *memory("next")),
        below={"frames": 256},
    )


def decoder_program(model: AutoGaze) -> Program:
    """:class:`~autogaze.export.networks.DecoderStep` of a model."""
    network = model.config.gaze_model_config
    decoder, visual_tokens = network.gaze_decoder_config, network.connector_config.num_tokens
    head_dim = decoder.head_dim
    assert head_dim is not None

    def cache(stem: str, length: str) -> tuple[Port, ...]:
        shape = (decoder.num_key_value_heads, length, head_dim)
        names = [f"{stem}_{kind}_{n}" for kind in ("key", "value") for n in range(decoder.num_hidden_layers)]
        return tuple(Port(name=name, dtype="float32", shape=shape) for name in names)

    K, V = decoder.num_multi_token_pred, decoder.vocab_size
    return Program(
        name="decoder_step",
        module=DecoderStep(model.gazing_model.gaze_decoder),
        positional=3,
        inputs=(
            Port(name="token", dtype="int64", shape=(TOKENS,)),
            Port(name="visual", dtype="float32", shape=(visual_tokens, decoder.hidden_size)),
            Port(name="position", dtype="int64", shape=(TOKENS,)),
            *cache("past", PAST),
        ),
        outputs=(
            Port(name="logits", dtype="float32", shape=(K, V)),
            Port(name="loss", dtype="float32", shape=(K,)),
            *cache("present", SEEN),
        ),
        below={"token": V + visual_tokens, "position": 4096},
    )
