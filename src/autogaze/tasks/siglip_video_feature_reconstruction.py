"""Predicting what a frozen vision model sees where nothing was gazed at, from the gazes alone.

Shape letters: B clips, T frames, F frames that are judged, n × n places of the finest grid, P cells of a frame over all
scales, C channels of the vision model.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autogaze.grid import PatchGrid
from autogaze.losses.frozen import FrozenVisionModel
from autogaze.losses.pixel import PixelSpace
from autogaze.models.autogaze.processing_autogaze import AutoGazeImageProcessor
from autogaze.tasks.base import Task, TaskOutput
from autogaze.tasks.judged import Selection, TaskBatch
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VideoMAEConfig
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE

Distance = Literal["mse", "cosine"]
Places = Literal["ungazed", "all"]


def squared_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """(…) mean squared difference over the last dimension."""
    return (prediction - target).square().mean(-1)


def cosine_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """(…) ``1 − cosine`` of the angle between the vectors of the last dimension, from 0 to 2."""
    return 1 - F.cosine_similarity(prediction, target, dim=-1)


DISTANCES: dict[Distance, Callable[[Tensor, Tensor], Tensor]] = {"mse": squared_distance, "cosine": cosine_distance}
"""How far a predicted feature is from the true one, by name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureReconstructionOutput(TaskOutput):
    """Losses, and the features they are of; places lie row by row."""

    prediction: Tensor
    """(B, F, n·n, C) features as they were predicted."""
    target: Tensor
    """(B, F, n·n, C) features of the whole frames, without a graph."""
    judged_places: Tensor
    """(B, F, n·n) bool, where the loss is taken."""


class SigLIPVideoFeatureReconstruction(Task):
    """How well what SigLIP sees in whole frames can be told from a selection, frame by frame.

    A network shaped like :class:`VideoMAE` sees the gazed patches alone; its last layer makes features where it made
    pixels, one for each place of the finest grid. The targets are the last hidden state of a frozen vision model
    (SigLIP, SigLIP 2 or DINOv2) that sees the whole frame, resized so that its patches are these places. The loss of
    a frame is the mean distance over the places whose finest patch was not gazed at in that frame, 0 where there is
    none; its unit is the distance's, under that model. A frame's loss depends on that frame and earlier ones.

    The state dict is that of :attr:`network`; the frozen model moves with the task and is no part of it.
    """

    loss_name: ClassVar[str] = "feature_loss"

    def __init__(
        self,
        network: VideoMAE | VideoMAEConfig,
        vision_model: FrozenVisionModel | str | os.PathLike[str],
        *,
        distance: Distance = "mse",
        places: Places = "ungazed",
        normalise_features: bool = True,
        recon_sample_rate: float = 1.0,
        frame_batch: int = 64,
        transform: AutoGazeImageProcessor | None = None,
    ) -> None:
        """See the class.

        Args:
            network: an autoencoder to start from, of which a copy is made and all but the last layer kept, or the
                sizes of a new one.
            vision_model: what sees the whole frames, or its folder or hub id.
            distance: ``mse`` or ``cosine``, see :data:`DISTANCES`.
            places: ``ungazed``, or ``all`` of them.
            normalise_features: whether each target is brought to mean 0 and variance 1 over its channels.
            recon_sample_rate: share of the frames that is judged where nobody says which, above 0 and at most 1.
            frame_batch: frames the vision model sees at once, which bounds the memory.
            transform: what turns frames into what the task sees, whose pixel space becomes the network's; None: into
                the space of the network, stretched to the finest scale.

        Raises:
            CheckpointError: the vision model cannot be read.
            ImportError: transformers is not installed.
            ValueError: a setting is not legal.
        """
        super().__init__()
        for name, value, legal in (("distance", distance, Distance), ("places", places, Places)):
            if value not in get_args(legal):
                raise ValueError(f"{name} must be {' or '.join(get_args(legal))}, got {value!r}")
        if not 0 < recon_sample_rate <= 1:
            raise ValueError(f"recon_sample_rate must be above 0 and at most 1, got {recon_sample_rate}")
        if frame_batch < 1:
            raise ValueError(f"frame_batch must be at least 1, got {frame_batch}")
        if not isinstance(vision_model, FrozenVisionModel):
            vision_model = FrozenVisionModel.from_pretrained(vision_model)
        self.network = copy.deepcopy(network) if isinstance(network, VideoMAE) else VideoMAE(network)
        _replace_last_layer(self.network, channels=vision_model.hidden_size)
        grid = self.network.grid
        self.vision_model = FrozenVisionModel(
            vision_model.model, space=vision_model.space, image_px=grid.sides[-1] * vision_model.patch_px
        )
        self.distance, self.places, self.normalise_features = distance, places, normalise_features
        self.recon_sample_rate, self.frame_batch = recon_sample_rate, frame_batch
        if transform is not None:
            self.network.space = PixelSpace.of_processor(transform)
        self.transform = transform or self.network.space.processor(side_px=grid.scales_px[-1])

    @property
    def grid(self) -> PatchGrid:
        """See :attr:`Task.grid`."""
        return self.network.grid

    def forward_output(
        self,
        inputs: Mapping[str, Any],
        gaze_outputs: Selection,
        frame_idx_to_reconstruct: Tensor | Sequence[int] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> FeatureReconstructionOutput:
        """Predict features; see :meth:`Task.forward_output`."""
        batch = self.batch(inputs, gaze_outputs, frame_idx_to_reconstruct, generator=generator)
        prediction, target = self.predict(batch), self.features(batch.video_BT3HW[:, batch.frame_idx])
        judged = torch.ones(target.shape[:3], dtype=torch.bool, device=target.device)
        if self.places == "ungazed":
            judged = ~batch.gaze.masks(self.network.grid)[-1][:, batch.frame_idx]
        away = DISTANCES[self.distance](prediction.float(), target.float()).masked_fill(~judged, 0)
        return FeatureReconstructionOutput(
            loss_each_frame=away.sum(-1) / judged.sum(-1).clamp(min=1),
            frame_idx=batch.frame_idx,
            gaze=batch.gaze,
            prediction=prediction,
            target=target,
            judged_places=judged,
        )

    def predict(self, batch: TaskBatch) -> Tensor:
        """(B, F, n·n, C) features of each place of the judged frames, from the gazes so far."""
        decoder = self.network.decoder
        decoded_BFPC = self.network.decoded(batch.video_BT3HW, batch.gaze, batch.frame_idx)
        finest = decoded_BFPC[:, :, self.network.grid.offsets[-1] :]
        features: Tensor = decoder.decoder_pred(decoder.decoder_norm(finest))
        return features

    @torch.no_grad()
    def features(self, frames_BF3HW: Tensor) -> Tensor:
        """(B, F, n·n, C) what the vision model says of each place of whole frames."""
        turns = torch.split(frames_BF3HW.flatten(0, 1), self.frame_batch)
        seen = torch.cat([self.vision_model.last_hidden_state(frames, space=self.network.space) for frames in turns])
        if self.normalise_features:
            seen = F.layer_norm(seen, seen.shape[-1:])
        return seen.view(*frames_BF3HW.shape[:2], *seen.shape[1:])


def _replace_last_layer(network: VideoMAE, *, channels: int) -> None:
    """Let a network make features where it made pixels."""
    head = nn.Linear(network.config.decoder_hidden_size, channels)
    nn.init.normal_(head.weight, std=network.config.initializer_range)
    nn.init.zeros_(head.bias)
    old = network.decoder.decoder_pred.weight
    network.decoder.decoder_pred = head.to(old.device, old.dtype)
