"""Next-token training: to say the next gaze of a greedy search, and what the loss is after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autogaze.datasets.feed import ClipFeed
from autogaze.datasets.labels import Label
from autogaze.datasets.stream import LabelledClip
from autogaze.errors import TrainingError
from autogaze.models.autogaze.scoring import Policy
from autogaze.training.batch import Batch, collate, is_mirrored, mirror, stack
from autogaze.training.clip_source import clip_feed
from autogaze.training.gaze_stage import GazeModelSettings, GazeModelStage
from autogaze.training.own_gazes import OwnBatch, own_batch
from autogaze.training.rollouts import member_generator
from autogaze.training.stage import Moment, Share, Tell, Terms

_OWN = 9  # purpose of a draw; 0 to 8 are those of recipes, clips, labels, orders, mirrors, files and roll-outs


@dataclass(frozen=True, kw_only=True)
class NTPSettings(GazeModelSettings):
    """A complete next-token run.

    Raises:
        TrainingError: a value is not legal, or there is nothing to train on.
    """

    own: float = 0.0
    """Share of steps that learn from the model's own gazes, each with what the search would have done from there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.own <= 1:
            raise TrainingError(f"--own must be a share from 0 to 1, got {self.own}")

    def make_stage(self, *, device: torch.device, tell: Tell) -> NTPStage:
        """See :meth:`RunSettings.make_stage`."""
        return NTPStage(self, device=device, tell=tell)


class NTPStage(GazeModelStage):
    """Cross-entropy of label gazes and squared error of predicted losses."""

    value_names = ("gaze", "head", "head_bias")
    """Cross-entropy of a gaze in nats; mean squared error of a predicted loss, relative to that loss plus the floor;
    mean of predicted minus true loss, relative likewise: above 0 the model is pessimistic."""
    num_units = 2
    """Gazes to be learned, and gazes with a loss."""

    def __init__(self, settings: NTPSettings, *, device: torch.device, tell: Tell) -> None:
        super().__init__(settings, device=device, tell=tell)
        self.settings = settings

    def feed(self, share: Share) -> ClipFeed[Label]:
        """Clips with the gazes of the greedy search."""
        return clip_feed(self.settings, self.clip_shape, self.labeller, share, max_gazes=self.settings.max_gazes)

    def prepare(self, clips: Sequence[LabelledClip[Label]], moment: Moment) -> Batch:
        """Clips as tensors."""
        seed, step = self.settings.seed, moment.step
        batch = collate(stack(clips, device=self.device), [clip.label for clip in clips])
        if is_mirrored(seed=seed, step=step):
            batch = mirror(batch, grid=self.model.grid)
        if np.random.default_rng([seed, step, _OWN]).random() >= self.settings.own:
            return batch
        numbers = [clip.recipe.number for clip in clips]
        generators = [member_generator(seed=seed, step=step, number=number, member=0) for number in numbers]
        self.model.eval()
        own = own_batch(self.model, batch, generators=generators)
        self.model.train()
        return own

    def units(self, batch: Batch) -> Tensor:
        """How many gazes there are to learn, and how many losses."""
        return torch.stack([batch.best_BN.sum(), batch.kept_BN.sum()])

    def terms(self, batch: Batch, units: Tensor) -> Terms:
        """One pass over labelled clips."""
        video = self.model.preprocess(batch.rgb_BTSSC)
        if isinstance(batch, OwnBatch):
            scored = self.model.gazing_model(
                video,
                batch.index_BN,
                batch.kept_BN,
                list(batch.count_T),
                target_BN=batch.target_BN,
                known_BN=batch.best_BN,
                policy=Policy(),
            )
        else:
            scored = self.model.gazing_model(video, batch.index_BN, batch.kept_BN, list(batch.count_T))
        gazes, losses = units.clamp(min=1)
        unit_BN = batch.loss_BN + self.settings.loss_floor
        error_BN = (scored.predicted_loss_BN.float() - batch.loss_BN) / unit_BN
        error_BN = error_BN.masked_fill(~batch.kept_BN, 0)
        gaze = -scored.log_probability_BN.masked_fill(~batch.best_BN, 0).sum() / gazes
        head = error_BN.square().sum() / losses
        values = torch.stack([gaze, head, error_BN.sum() / losses]).detach()
        return Terms(total=gaze + self.settings.loss_weight * head, values=values)
