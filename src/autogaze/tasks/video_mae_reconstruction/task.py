"""Rebuilding a video from its gazes as a task: how a masked autoencoder judges a selection, and learns.

Shape letters: B clips, T frames, F frames that are judged, N gaze slots of all frames, S pixels a side of a frame.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from autogaze.algorithms.stop_head import LossTargets
from autogaze.grid import PatchGrid
from autogaze.losses.pixel import PUBLISHED, Loss, PixelSpace
from autogaze.losses.weighted import VisionModel, make_loss
from autogaze.models.autogaze.checkpoint import HubOptions
from autogaze.models.autogaze.processing_autogaze import AutoGazeImageProcessor
from autogaze.tasks.base import Task, TaskOutput
from autogaze.tasks.judged import Selection, kept_at, last_gaze_targets
from autogaze.tasks.video_mae_reconstruction.checkpoint_video_mae import read_checkpoint
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE

_FROZEN = ("dinov2_reg", "siglip2")
# What a published configuration says of the network, and of its loss.
_NETWORK = ("scale_embed", "max_num_frames", "time_embed", "causal")
_LOSS = ("loss_type", "loss_weights", "l1_loss_config", *(f"{name}_loss_config" for name in _FROZEN))


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoMAEReconstructionOutput(TaskOutput):
    """Rebuilt frames and their losses, under the published names."""

    reconstruction: Tensor
    """(B, F, 3, S, S) frames as the video has them: normalised."""
    image_mean: tuple[float, ...]
    """With the two below what undoes the normalisation, see :class:`autogaze.utils.UnNormalize`."""
    image_std: tuple[float, ...]
    """See ``image_mean``."""
    rescale_factor: float
    """See ``image_mean``."""
    scales: tuple[int, ...]
    """Sides of a frame at each scale, in pixels."""

    @property
    def frame_idx_to_reconstruct(self) -> Tensor:
        """(F,) int64 frames that were rebuilt."""
        return self.frame_idx

    @property
    def reconstruction_loss(self) -> Tensor:
        """(B,) mean over these frames."""
        return self.loss

    @property
    def reconstruction_loss_each_reconstruction_frame(self) -> Tensor:
        """(B, F) loss of each of these frames."""
        return self.loss_each_frame

    @property
    def reconstruction_loss_each_gazing_token(self) -> Tensor:
        """(B, N) see :class:`~autogaze.algorithms.stop_head.LossTargets`."""
        return self._targets.loss_BN

    @property
    def reconstruction_loss_each_gazing_token_mask(self) -> Tensor:
        """(B, N) bool, see :class:`~autogaze.algorithms.stop_head.LossTargets`."""
        return self._targets.mask_BN

    @property
    def num_gazing_before_each_reconstruction_frame(self) -> Tensor:
        """(F,) int64 gaze slots, padding included, up to the end of each of these frames."""
        return self.gaze.num_gazing_each_frame.cumsum(0)[self.frame_idx]

    @property
    def num_non_padded_gazing_at_each_reconstruction_frame(self) -> Tensor:
        """(B, F) int64 gazes of each of these frames."""
        return kept_at(self.gaze, self.frame_idx)

    @cached_property
    def _targets(self) -> LossTargets:
        return last_gaze_targets(self.gaze, frame_idx=self.frame_idx, loss_BF=self.loss_each_frame)


class VideoMAEReconstruction(Task):
    """What a masked autoencoder cannot rebuild of a video from a selection, frame by frame.

    The weights are those of :attr:`mae` alone, under the published names (``mae.vit.…``, ``mae.decoder.…``); vision
    models behind the loss move with the task and are no part of its state dict, and where a published one has them
    they are left aside. ``task.loss(outputs).mean().backward()`` trains the autoencoder itself.
    """

    loss_name: ClassVar[str] = "reconstruction_loss"

    def __init__(
        self,
        recon_model: VideoMAE | str | os.PathLike[str],
        recon_model_config: Mapping[str, Any] | None = None,
        scales: str | int | None = None,
        recon_sample_rate: float = 1.0,
        attn_mode: str = "sdpa",
        *,
        loss: Loss | None = None,
        transform: AutoGazeImageProcessor | None = None,
    ) -> None:
        """A task around an autoencoder, or, called as the published class is, around one made from a ``vit_mae``.

        Args:
            recon_model: the autoencoder; or folder or hub id of a ``vit_mae`` checkpoint to start one from, and then
                the next two say the rest.
            recon_model_config: the published configuration: ``scale_embed``, ``max_num_frames``, ``time_embed``,
                ``causal``, ``loss_type``, ``loss_weights``, and the models behind the loss as
                ``dinov2_reg_loss_config.model`` and ``siglip2_loss_config.model``.
            scales: sides of a frame in pixels, joined by ``+``.
            recon_sample_rate: share of the frames that is judged where nobody says which, above 0 and at most 1.
            attn_mode: attention of the models behind the loss, as transformers names it.
            loss: of frames in the space of ``transform``; None: that of the autoencoder, or of the configuration.
            transform: what turns frames into what the autoencoder sees, whose pixel space becomes the autoencoder's;
                None: into the space of the autoencoder, or into the published one for an autoencoder made here,
                stretched to the finest scale.

        Raises:
            CheckpointError: a checkpoint cannot be read.
            ValueError: a setting is not legal, or a configuration is given to an autoencoder that has one.
        """
        super().__init__()
        if isinstance(recon_model, VideoMAE):
            if recon_model_config is not None or scales is not None:
                raise ValueError("recon_model_config and scales are for making a VideoMAE, and this one is made")
            mae = recon_model
        else:
            mae = _from_vit_mae(recon_model, recon_model_config or {}, scales)
            mae.space = PUBLISHED  # which is what published weights for it expect
        if not 0 < recon_sample_rate <= 1:
            raise ValueError(f"recon_sample_rate must be above 0 and at most 1, got {recon_sample_rate}")
        self.mae = mae
        self.scales = list(mae.grid.scales_px)
        self.recon_sample_rate = recon_sample_rate
        if transform is not None:
            mae.space = PixelSpace.of_processor(transform)
        self.transform = transform or mae.space.processor(side_px=mae.grid.scales_px[-1])
        if loss is None and mae is not recon_model:
            loss = _published_loss(recon_model_config or {}, space=mae.space, attn_implementation=attn_mode)
        if loss is not None:
            mae.loss = loss
        # The autoencoder does not move its loss along; here .to() finds it.
        self.frame_loss: Loss = mae.loss
        self.register_load_state_dict_pre_hook(_leave_frozen_aside)  # type: ignore[no-untyped-call]

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        recon_sample_rate: float = 1.0,
        loss: Loss | None = None,
        models: Mapping[str, VisionModel] | None = None,
        transform: AutoGazeImageProcessor | None = None,
        device: str | torch.device | None = None,
        **options: Any,
    ) -> Self:
        """A task around the autoencoder of a checkpoint, ready to judge.

        Args:
            source: folder, file or hub id, see :meth:`VideoMAE.from_pretrained`.
            recon_sample_rate: see the class.
            loss: see the class; None: what the checkpoint's configuration names.
            models: folder or hub id of each vision model behind that loss, such as ``{"siglip2": folder}``.
            transform: see the class.
            device: where the task goes; None: the CPU.
            options: further arguments of :meth:`VideoMAE.from_pretrained`.

        Raises:
            CheckpointError: a checkpoint cannot be read.
            ValueError: a setting is not legal, or a model behind the loss is not named.
        """
        mae = VideoMAE.from_pretrained(source, **options)
        if loss is None:
            space = mae.space if transform is None else PixelSpace.of_processor(transform)
            loss = make_loss(mae.config.loss_type, mae.config.loss_weights, models=models, space=space)
        return cls(mae, recon_sample_rate=recon_sample_rate, loss=loss, transform=transform).to(device).eval()

    @property
    def grid(self) -> PatchGrid:
        """See :attr:`Task.grid`."""
        return self.mae.grid

    def forward_output(
        self,
        inputs: Mapping[str, Any],
        gaze_outputs: Selection,
        frame_idx_to_reconstruct: Tensor | Sequence[int] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> VideoMAEReconstructionOutput:
        """Rebuild frames; see :meth:`Task.forward_output`."""
        batch = self.batch(inputs, gaze_outputs, frame_idx_to_reconstruct, generator=generator)
        rebuilt = self.mae(batch.video_BT3HW, batch.gaze, batch.frame_idx)
        return VideoMAEReconstructionOutput(
            loss_each_frame=rebuilt.loss_each_reconstruction_frame,
            frame_idx=batch.frame_idx,
            gaze=batch.gaze,
            reconstruction=rebuilt.reconstruction,
            image_mean=self.transform.image_mean,
            image_std=self.transform.image_std,
            rescale_factor=self.transform.rescale_factor,
            scales=tuple(self.scales),
        )


def _from_vit_mae(source: str | os.PathLike[str], settings: Mapping[str, Any], scales: str | int | None) -> VideoMAE:
    """The autoencoder that a published configuration names, started from an image autoencoder."""
    unknown = [name for name in settings if name not in (*_NETWORK, *_LOSS)]
    if unknown:
        raise ValueError(
            f"recon_model_config cannot have {', '.join(unknown)}; legal are {', '.join((*_NETWORK, *_LOSS))}"
        )
    config = read_checkpoint(source, hub=HubOptions()).config
    given: dict[str, Any] = {name: settings[name] for name in _NETWORK if name in settings}
    given |= {"loss_type": "+".join(_names(settings)), "loss_weights": _weights(settings)}
    if scales is not None:
        finest_px = max(int(scale) for scale in str(scales).split("+"))
        given |= {"scales": str(scales), "image_size": finest_px}
    return VideoMAE.from_pretrained(source, config=replace(config, **given))


def _published_loss(config: Mapping[str, Any], *, space: PixelSpace, attn_implementation: str) -> Loss:
    models: dict[str, VisionModel] = {}
    for name in _FROZEN:
        given = dict(config.get(f"{name}_loss_config") or {})
        if name in _names(config) and "model" in given:
            models[name] = given.pop("model")
            if given:
                raise ValueError(
                    f"{name}_loss_config may name a model alone, got {', '.join(given)} too; a certain revision can "
                    "be downloaded beforehand, and its folder named"
                )
    names = "+".join(_names(config))
    return make_loss(names, _weights(config), models=models, space=space, attn_implementation=attn_implementation)


def _weights(config: Mapping[str, Any]) -> str:
    return str(config.get("loss_weights", "1"))  # a lone weight is a number in YAML


def _names(config: Mapping[str, Any]) -> list[str]:
    return [name.strip() for name in str(config.get("loss_type", "l1")).split("+")]


def _leave_frozen_aside(_task: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Published checkpoints carry the vision models behind their loss."""
    for name in [name for name in weights if name.startswith(tuple(f"{prefix}mae.{frozen}." for frozen in _FROZEN))]:
        del weights[name]
