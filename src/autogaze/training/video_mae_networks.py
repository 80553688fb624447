"""Video masked autoencoders to start from: a checkpoint, an image autoencoder, or fresh weights of a shape."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch

from autogaze.errors import TrainingError
from autogaze.models.autogaze.checkpoint import HubOptions
from autogaze.tasks.video_mae_reconstruction.checkpoint_video_mae import read_checkpoint
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VideoMAEConfig, base, large, tiny
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE

TOY = VideoMAEConfig(
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=128,
    image_size=64,
    decoder_hidden_size=64,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=4,
    decoder_intermediate_size=128,
    scales="32+64",
    max_num_frames=8,
    initializer_range=0.06,  # as small as that of wide networks, it would learn nothing in seconds
)
"""20 patches on 8 frames of 64 px: trains in seconds, to try a run and to test one."""
SHAPES = {"toy": TOY, "tiny": tiny(), "base": base(), "large": large()}
"""Networks by name; from ``tiny`` on they have the published scales."""
DEFAULT_SHAPE = "tiny"
_NO_NETWORK = ("loss_type", "loss_weights", "initializer_range", "extra")


def video_mae_network(*, init: str | None, shape: str | None, seed: int, loss: str, loss_weights: str) -> VideoMAE:
    """An autoencoder to train.

    Args:
        init: checkpoint to start from, as :meth:`VideoMAE.from_pretrained` takes it.
        shape: a name of :data:`SHAPES` or the path of a ``config.json``; None: that of ``init``, or the default.
        seed: of fresh weights.
        loss: what it is trained for, which its configuration will say.
        loss_weights: likewise.

    Raises:
        CheckpointError: ``init`` or the configuration cannot be loaded, or an image autoencoder as ``init`` does not
            fit the shape.
        TrainingError: there is no such shape, ``init`` has another one, or the network cannot be a reconstructor.
    """
    config = None if shape is None else _config(shape)
    torch.manual_seed(seed)
    if init is None:
        mae = VideoMAE(config or SHAPES[DEFAULT_SHAPE])
    else:
        if config is not None:
            _check_fits(init, config, shape=str(shape))
        mae = VideoMAE.from_pretrained(init, config=config)
    if not mae.config.causal:
        raise TrainingError(f"{shape if init is None else init} is not causal, and a reconstructor must be")
    if len(loss.split("+")) == len(loss_weights.split("+")):  # if not, making the loss says so
        mae.config = replace(mae.config, loss_type=loss, loss_weights=loss_weights)
    return mae


def _check_fits(init: str, config: VideoMAEConfig, *, shape: str) -> None:
    """Refuse a shape that is not the checkpoint's; heads and scales leave no trace in weights that loading would see.

    An image autoencoder has neither scales nor times: those are the shape's to say, and loading checks the rest.
    """
    checkpoint = read_checkpoint(init, hub=HubOptions())
    if checkpoint.fresh:
        return
    has, wanted = checkpoint.config, config
    names = [item.name for item in fields(VideoMAEConfig) if item.name not in _NO_NETWORK]
    differing = [name for name in names if getattr(has, name) != getattr(wanted, name)]
    if differing:
        told = ", ".join(f"{name} {getattr(has, name)} and not {getattr(wanted, name)}" for name in differing)
        raise TrainingError(f"--init {init} is not of --shape {shape}: it has {told}; leave --shape out")


def _config(shape: str) -> VideoMAEConfig:
    if shape in SHAPES:
        return SHAPES[shape]
    if not Path(shape).is_file():
        raise TrainingError(f"--shape {shape!r} is neither {', '.join(SHAPES)} nor the path of a config.json")
    return VideoMAEConfig.from_json_file(Path(shape))
