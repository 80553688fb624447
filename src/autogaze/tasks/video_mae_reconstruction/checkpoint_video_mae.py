"""Weights of a video masked autoencoder from our files, the published pickle, or an image autoencoder to start from."""

from __future__ import annotations

import math
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autogaze.configuration import read_json_object
from autogaze.errors import CheckpointError
from autogaze.grid import PUBLISHED_SCALES_PX
from autogaze.losses.pixel import IMAGENET, PUBLISHED, PixelSpace
from autogaze.models.autogaze.checkpoint import WEIGHTS_NAME, HubOptions, find_files, fitted, read_weights
from autogaze.models.autogaze.processing_autogaze import PROCESSOR_NAME
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VideoMAEConfig
from autogaze.tasks.video_mae_reconstruction.modeling_video_mae import resized_in_2d

PUBLISHED_NAME = "videomae.pt"
WEIGHTS_NAMES = (WEIGHTS_NAME, PUBLISHED_NAME, "pytorch_model.bin")
"""What the weights in a folder may be called, the best first."""
IMAGE_MAE_TYPE = "vit_mae"
"""``model_type`` of an image autoencoder of Hugging Face."""

_FROZEN = ("dinov2_reg.", "siglip2.")
# Where trainers and wrappers put a model, in pickles and in names.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "mae")
_ENCODER_LAYER, _DECODER_LAYER = r"vit\.encoder\.layer\.(\d+)\.", r"decoder\.decoder_layers\.(\d+)\."
_TABLES = ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed")
# Heads leave no trace in the shapes. Every ViT-MAE has heads of 64 channels, but for the huge one; and all their
# decoders are 512 channels wide with 16 heads.
_HEADS = {1280: 16}
_DECODER_HEADS = {512: 16}
# What an image autoencoder's configuration means when it does not say.
_IMAGE_MAE_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "image_size": 224,
    "patch_size": 16,
    "decoder_hidden_size": 512,
    "decoder_num_hidden_layers": 8,
    "decoder_num_attention_heads": 16,
    "decoder_intermediate_size": 2048,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
}
_IMAGE_MAE_LEGAL = {"hidden_act": "gelu", "qkv_bias": True, "num_channels": 3}
# Newer names of image autoencoders → the published ones.
_RENAMED = (
    (re.compile(r"^(?!vit\.|decoder\.)"), "vit."),
    (re.compile(r"^vit\.layers\."), "vit.encoder.layer."),
    (re.compile(r"^decoder\.decoder_encoder\.layer\."), "decoder.decoder_layers."),
    (re.compile(r"\.attention\.q_proj\."), ".attention.attention.query."),
    (re.compile(r"\.attention\.k_proj\."), ".attention.attention.key."),
    (re.compile(r"\.attention\.v_proj\."), ".attention.attention.value."),
    (re.compile(r"\.attention\.o_proj\."), ".attention.output.dense."),
    (re.compile(r"\.mlp\.fc1\."), ".intermediate.dense."),
    (re.compile(r"\.mlp\.fc2\."), ".output.dense."),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoMAECheckpoint:
    """What a checkpoint holds, under the names of the model."""

    config: VideoMAEConfig
    """The network."""
    weights: Mapping[str, Tensor]
    """Its weights."""
    space: PixelSpace
    """Of the frames it was trained on."""
    ignored: tuple[str, ...] = ()
    """Names of frozen feature networks that were stored with it."""
    fresh: tuple[str, ...] = ()
    """Names that an image autoencoder does not have; those that are not among ``weights`` must be drawn. An entry
    that ends in a dot stands for all names that start with it."""

    @property
    def needs_fresh_weights(self) -> bool:
        """Whether some weights must be drawn."""
        return any(name not in self.weights for name in self.fresh)

    def fitted(self, module: nn.Module, *, source: str | os.PathLike[str]) -> dict[str, Tensor]:
        """All weights of a module; what must be drawn is as the module has it.

        Raises:
            CheckpointError: names or shapes differ; all of them are named.
        """
        wanted = module.state_dict()
        drawn = tuple(name for name in self.fresh if name not in self.weights)
        kept = {name: weight for name, weight in wanted.items() if drawn and name.startswith(drawn)}
        return fitted({**kept, **self.weights}, wanted=wanted, path=source)


def read_checkpoint(
    source: str | os.PathLike[str], *, hub: HubOptions, config: VideoMAEConfig | None = None
) -> VideoMAECheckpoint:
    """Read a folder, a file or a hub id.

    Args:
        source: where it is.
        hub: how to fetch from the hub.
        config: the network, where the checkpoint says too little; its shapes must be those of the weights.

    Raises:
        CheckpointError: nothing is there, it is damaged, or does not say what network it is.
    """
    config_path, weights_path = find_files(source, hub, weights_names=WEIGHTS_NAMES)
    pickled = weights_path.suffix != ".safetensors"
    stored = read_json_object(config_path) if config_path.exists() or not (pickled or config) else None
    # Scales are what an image autoencoder has not: a video autoencoder may carry the type of the one it started from.
    is_image_mae = stored is not None and stored.get("model_type") == IMAGE_MAE_TYPE and "scales" not in stored
    if stored is not None and not is_image_mae and config is None:
        config = VideoMAEConfig.from_json_file(config_path)
    # An image autoencoder reads colours as image models do.
    space = PixelSpace.from_file(config_path.with_name(PROCESSOR_NAME), default=IMAGENET if is_image_mae else PUBLISHED)
    weights, ignored = _own(_unpickled(weights_path) if pickled else read_weights(weights_path), path=weights_path)
    if stored is not None and is_image_mae:
        return _from_image_mae(stored, weights, config=config, space=space, path=config_path)
    if config is None:
        config = deduced_config(weights, path=weights_path)
    _check_sizes(config, weights, path=weights_path)
    return VideoMAECheckpoint(config=config, weights=weights, space=space, ignored=ignored)


def deduced_config(weights: Mapping[str, Tensor], *, path: Path) -> VideoMAEConfig:
    """The network that weights under our names are of, as far as their shapes tell.

    Four scales are taken for the published ones (frames of 224 px) and one for the frame itself; the encoder for one
    of heads of 64 channels and the decoder for one of 16 heads where it has 512 channels, else of 64 channels each.

    Raises:
        CheckpointError: a weight that tells something is missing, or a guess would be needed.
    """
    try:
        hidden, _, patch_px, _ = weights["vit.embeddings.patch_embeddings.projection.weight"].shape
        side = math.isqrt(weights["vit.embeddings.position_embeddings"].shape[1] - 1)
        decoder_hidden = weights["decoder.decoder_embed.weight"].shape[0]
        image_px, scales = side * patch_px, weights.get("vit.embeddings.scale_embed")
        times = weights.get("vit.embeddings.time_embed")
        return VideoMAEConfig(
            hidden_size=hidden,
            num_hidden_layers=_count(weights, _ENCODER_LAYER),
            num_attention_heads=_HEADS.get(hidden, _heads(hidden)),
            intermediate_size=weights["vit.encoder.layer.0.intermediate.dense.weight"].shape[0],
            image_size=image_px,
            patch_size=patch_px,
            decoder_hidden_size=decoder_hidden,
            decoder_num_hidden_layers=_count(weights, _DECODER_LAYER),
            decoder_num_attention_heads=_DECODER_HEADS.get(decoder_hidden, _heads(decoder_hidden)),
            decoder_intermediate_size=weights["decoder.decoder_layers.0.intermediate.dense.weight"].shape[0],
            scales=_scales(1 if scales is None else len(scales), image_px),
            scale_embed=scales is not None,
            time_embed=times is not None,
            max_num_frames=VideoMAEConfig.max_num_frames if times is None else len(times),
        )
    except KeyError as error:
        raise CheckpointError(f"{path} holds no VideoMAE: it has no weight {error}") from error
    except (ValueError, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not say what network it is ({error}); put a config.json with its sizes beside it"
        ) from error


def _check_sizes(config: VideoMAEConfig, weights: Mapping[str, Tensor], *, path: Path) -> None:
    """Refuse a configuration of a larger network before one is built, which might take all the memory there is.

    A decoder may be missing altogether.

    Raises:
        CheckpointError: there are fewer layers, or tables of positions are of another shape.
    """
    cells = config.grid.sides[-1] ** 2
    problems = [
        f"{name} {tuple(weights[name].shape)} instead of {shape}"
        for name, shape in zip(
            _TABLES, ((1, 1 + cells, config.hidden_size), (1, 1 + cells, config.decoder_hidden_size)), strict=True
        )
        if name in weights and tuple(weights[name].shape) != shape
    ]
    for part, pattern, wanted in (
        ("encoder", _ENCODER_LAYER, config.num_hidden_layers),
        ("decoder", _DECODER_LAYER, config.decoder_num_hidden_layers),
    ):
        if (count := _count(weights, pattern)) < wanted and (count or part == "encoder"):
            problems.append(f"{count} layers of the {part} instead of {wanted}")
    if problems:
        raise CheckpointError(f"{path} does not fit its configuration: {'; '.join(problems)}")


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in weights if (found := re.match(pattern, name))})


def _heads(width: int) -> int:
    if width % 64:
        raise ValueError(f"{width} channels are not cut into heads of 64")
    return width // 64


def _scales(count: int, image_px: int) -> str:
    if count == 1:
        return str(image_px)
    if count != len(PUBLISHED_SCALES_PX) or image_px != PUBLISHED_SCALES_PX[-1]:
        raise ValueError(f"{count} scales of frames of {image_px} px are not the published ones")
    return "+".join(map(str, PUBLISHED_SCALES_PX))


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle, whatever they are wrapped in; no code of it is run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds other things than weights, which are never run; ask for safetensors"
        ) from error
    except Exception as error:  # broken bytes make the unpickler raise just about anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be read, or is damaged: {reason}") from error
    for _ in _WRAPPERS:
        if isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
            content = next((content[name] for name in _WRAPPERS if name in content), None)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds no weights; a checkpoint maps names to tensors")
    weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise CheckpointError(f"{path} holds no weights; a checkpoint maps names to tensors")
    return weights


def _own(weights: Mapping[str, Tensor], *, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The model's weights without prefixes, and the names of the frozen feature networks stored with them."""
    own: dict[str, Tensor] = {}
    ignored = []
    for name, weight in weights.items():
        bare = name
        while bare.startswith(("module.", "mae.")):
            bare = bare.partition(".")[2]
        if bare.startswith(_FROZEN):
            ignored.append(name)
        elif bare in own:
            raise CheckpointError(f"{path} names {bare} twice, under different prefixes")
        else:
            own[bare] = weight
    return own, tuple(ignored)


def _from_image_mae(
    stored: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    config: VideoMAEConfig | None,
    space: PixelSpace,
    path: Path,
) -> VideoMAECheckpoint:
    """An image autoencoder as the start of a video autoencoder."""
    for name, legal in _IMAGE_MAE_LEGAL.items():
        if stored.get(name, legal) != legal:
            raise CheckpointError(f"{path}: {name} must be {legal!r}, got {stored[name]!r}")
    sizes: dict[str, Any] = {name: stored.get(name, default) for name, default in _IMAGE_MAE_DEFAULTS.items()}
    side = sizes["image_size"]
    side = side[0] if isinstance(side, list) and side else side
    scales = "+".join(map(str, PUBLISHED_SCALES_PX)) if side == PUBLISHED_SCALES_PX[-1] else str(side)
    own = VideoMAEConfig.from_dict({**sizes, "scales": scales})
    named = {_renamed(name): weight for name, weight in weights.items()}
    _check_sizes(own, named, path=path)
    if config is None:
        config = own
    else:  # what leaves no trace in the shapes is the checkpoint's to say
        told = {name: sizes[name] for name in sizes if name.endswith("heads") or name == "layer_norm_eps"}
        config = VideoMAEConfig.from_dict({**config.to_dict(), **told})
    for table in _TABLES:
        if table in named:
            named[table] = _table(named[table], side=config.grid.sides[-1])
    fresh = _fresh_entries(config)
    drawn = () if any(name.startswith("decoder.") for name in named) else ("decoder.",)
    named.update({name: weight for name, weight in fresh.items() if not name.startswith(drawn or "-")})
    return VideoMAECheckpoint(config=config, weights=named, space=space, fresh=(*fresh, *drawn))


def _fresh_entries(config: VideoMAEConfig) -> dict[str, Tensor]:
    """Zeros for what an image autoencoder does not know."""
    found = {}
    for width, scale, time in (
        (config.hidden_size, "vit.embeddings.scale_embed", "vit.embeddings.time_embed"),
        (config.decoder_hidden_size, "decoder.decoder_scale_embed", "decoder.time_embed"),
    ):
        if config.scale_embed:
            found[scale] = torch.zeros(config.grid.num_scales, width)
        if config.time_embed:
            found[time] = torch.zeros(config.max_num_frames, width)
    return found


def _renamed(name: str) -> str:
    for pattern, new in _RENAMED:
        name = pattern.sub(new, name)
    return name


def _table(table_1SC: Tensor, *, side: int) -> Tensor:
    """A position table for frames of ``side`` × ``side`` cells; tables of other shapes stay, to be refused by name."""
    cells = table_1SC.shape[1] - 1 if table_1SC.ndim == 3 else 0
    if cells < 1 or math.isqrt(cells) ** 2 != cells or cells == side * side:
        return table_1SC
    return torch.cat([table_1SC[:, :1], resized_in_2d(table_1SC[0, 1:].float(), side)[None]], dim=1)
