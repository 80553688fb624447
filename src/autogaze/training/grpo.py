"""Training by reward: groups of gazes that the model draws itself, of which those that rebuild more become likelier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from autogaze.algorithms.grpo import grpo_loss
from autogaze.datasets.feed import ClipFeed
from autogaze.datasets.labellers import GreedyLabeller, Labeller, no_label
from autogaze.datasets.labels import LabelRule
from autogaze.datasets.recipes import ClipRecipe
from autogaze.datasets.stream import LabelledClip
from autogaze.errors import TrainingError
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, Indices, PatchGrid
from autogaze.models.autogaze.scoring import Policy
from autogaze.packing import pack
from autogaze.selectors.cells import Pixels
from autogaze.training.batch import is_mirrored, stack
from autogaze.training.clip_source import clip_feed
from autogaze.training.gaze_stage import GazeModelSettings, GazeModelStage
from autogaze.training.groups import GroupBatch, advantages, relative_errors
from autogaze.training.rewards import Judge, load_judge
from autogaze.training.rollouts import Limits, Rollouts, limited, member_generator
from autogaze.training.stage import Moment, Share, Tell, Terms

# Shape letters: as in autogaze.training.groups.

_THRESHOLD, _FRAMES = 7, 8
"""Purposes of draws beside those of recipes, clips, labels, orders, mirrors, files and roll-outs."""


@dataclass(frozen=True, kw_only=True)
class GRPOSettings(GazeModelSettings):
    """A complete run of training by reward.

    Raises:
        TrainingError: a value is not legal, or there is nothing to train on.
    """

    group: int = 12
    """Gazes drawn of each clip, which are compared with each other."""
    discount: float = 0.995
    """A gaze's part in the reward of a frame shrinks by this with each gaze between it and the frame's end."""
    first_temperature: float = 1.0
    """Temperature of the draws at the beginning."""
    last_temperature: float = 0.1
    """Temperature at the end; on the way it falls by the same factor in the same time."""
    thresholds: tuple[float, float] = (0.012, 0.06)
    """Range of the loss at which frames end, drawn anew for each step, evenly on a log scale."""
    max_ratio: float = 0.75
    """Most gazes of a frame, as a share of its patches."""
    counts: Literal["model", "label"] = "model"
    """What says how many gazes each frame of a group gets: one roll-out that the model's stop head ends, or the
    greedy search, which needs no good stop head."""
    rewarded_frames: int | None = None
    """Frames of a clip that are rewarded, drawn at random; without it all are."""
    reward_unit: float = 0.01
    """Loss that takes 1 off a reward. Against the loss of the stop head a reward of a few hundredths counts nothing."""
    judge: str = "canvas"
    """What rebuilds the frames whose loss is the reward: canvas, refined, or the path of a refiner."""
    scoring: Literal["policy", "published"] = "policy"
    """Whose log-probabilities are followed: those of the distribution that the gazes were drawn from, or, as the
    published code has it, those at temperature 1 with nothing left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group < 2:
            raise TrainingError(f"--group must be at least 2, got {self.group}: rewards are compared within it")
        for name in ("discount", "max_ratio"):
            if not 0 < getattr(self, name) <= 1:
                raise TrainingError(f"--{_option(name)} must be above 0 and at most 1, got {getattr(self, name)}")
        for name in ("first_temperature", "last_temperature", "reward_unit", "rewarded_frames"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"--{_option(name)} must be above 0, got {value}")
        low, high = self.thresholds
        if not 0 < low <= high:
            raise TrainingError(f"--thresholds must be two losses above 0, the lower one first, got {low} {high}")

    def temperature(self, share: float) -> float:
        """Temperature of the draws when that share of the run is done."""
        return float(self.first_temperature * (self.last_temperature / self.first_temperature) ** share)

    def make_stage(self, *, device: torch.device, tell: Tell) -> GRPOStage:
        """See :meth:`RunSettings.make_stage`."""
        return GRPOStage(self, device=device, tell=tell)


@dataclass(frozen=True, kw_only=True)
class CountLabeller:
    """Says how many gazes the greedy search needs in each frame of a clip; see :class:`GRPOSettings`."""

    grid: PatchGrid
    """Patches of a frame."""
    thresholds: tuple[float, float]
    """Range of the threshold, drawn evenly on a log scale."""
    limits: Limits
    """Most gazes; their threshold plays no part."""

    def __call__(self, rgb: Pixels, recipe: ClipRecipe, /) -> Indices:
        """(T,) counts, at least 1; those of the recipe's label where it has one.

        Raises:
            ValueError: that label does not fit the clip.
        """
        rule = LabelRule(
            threshold=_log_uniform(recipe.rng(_THRESHOLD), self.thresholds),
            max_ratio=self.limits.max_ratio,
            max_gazes=self.limits.max_gazes,
        )
        label = GreedyLabeller(grid=self.grid)(rgb, replace(recipe, rule=rule))
        count_T: Indices = limited(label.gaze.count[None], self.limits)[0]
        return count_T


class GRPOStage(GazeModelStage):
    """Group-relative policy optimisation (Shao et al. 2024) without KL term, deviation or length (Liu et al. 2025)."""

    value_names = ("reward", "reward_spread", "kept", "entropy", "head", "head_bias")
    """Mean of minus the loss of a rewarded frame; its standard deviation within a group; share of the patches that are
    gazed at; minus the mean log-probability of a gaze, an estimate of the policy's entropy in nats; mean squared error
    of the loss predicted after a rewarded frame's last gaze, relative to that loss plus the floor; mean of predicted
    minus true loss, relative likewise: above 0 the model is pessimistic."""
    num_units = 3
    """Rows, rewarded frames of all rows, gazes."""

    def __init__(self, settings: GRPOSettings, *, device: torch.device, tell: Tell) -> None:
        """See :class:`GazeModelStage`.

        Raises:
            CheckpointError: the judge cannot be loaded.
            TrainingError: more frames are to be rewarded than clips have, or the judge does not fit the model.
        """
        super().__init__(settings, device=device, tell=tell)
        self.settings = settings
        frames = self.clip_shape.frames
        if settings.rewarded_frames is not None and settings.rewarded_frames > frames:
            raise TrainingError(
                f"--rewarded-frames must be at most {frames}, those of a clip, got {settings.rewarded_frames}"
            )
        self.judge = self._fitting_judge()

    def _fitting_judge(self) -> Judge:
        """The judge, after it has judged a clip."""
        judge = load_judge(self.settings.judge, device=self.device)
        frames, side_px = self.clip_shape.frames, self.clip_shape.side_px
        layout = FrameLayout.resized(self.model.grid, height_px=side_px, width_px=side_px)
        gaze = Gaze(index=np.zeros(frames, np.int64), count=np.ones(frames, np.int64), layout=layout)
        try:
            judge.losses(np.zeros(self.clip_shape.shape, np.uint8), [gaze])
        except ValueError as error:
            raise TrainingError(
                f"--judge {self.settings.judge} cannot judge clips of {frames} frames at scales "
                f"{self.model.grid.scales_px}: {error}"
            ) from error
        return judge

    def feed(self, share: Share) -> ClipFeed[Indices | None]:
        """Clips, with the counts of the greedy search where these are asked for."""
        labeller: Labeller[Indices | None] = no_label
        if self.settings.counts == "label":
            labeller = CountLabeller(
                grid=self.model.grid, thresholds=self.settings.thresholds, limits=self._limits(0.0)
            )
        return clip_feed(self.settings, self.clip_shape, labeller, share, max_gazes=self.settings.max_gazes)

    def prepare(self, clips: Sequence[LabelledClip[Indices | None]], moment: Moment) -> GroupBatch:
        """Draw a group of gazes of each clip, and judge them."""
        settings = self.settings
        rgb_BTSSC = stack(clips, device=self.device)
        if is_mirrored(seed=settings.seed, step=moment.step):
            rgb_BTSSC = rgb_BTSSC.flip(3)
        temperature, members = settings.temperature(moment.share), range(settings.group)
        rollouts = Rollouts(self.model, rgb_BTSSC, temperature=temperature)
        count_BT = self._counts(rollouts, clips, moment.step)
        gazes = rollouts.draw(count_BT, generators=self._generators(clips, moment.step, members))
        packed = pack(gazes, device=self.device)
        frame_N = torch.repeat_interleave(packed.num_gazing_each_frame)
        return GroupBatch(
            rgb_BTSSC=rgb_BTSSC,
            index_RN=packed.gazing_pos - frame_N * packed.num_vision_tokens_each_frame,
            kept_RN=~packed.if_padded_gazing,
            count_T=tuple(packed.num_gazing_each_frame.tolist()),
            temperature=temperature,
            loss_GBT=self._losses(rgb_BTSSC, gazes).to(self.device),
            rewarded_BT=self._rewarded(clips, moment.step).to(self.device),
        )

    def units(self, batch: GroupBatch) -> Tensor:
        """How many rows, rewarded frames and gazes there are."""
        G, B, _ = batch.loss_GBT.shape
        return torch.stack([torch.tensor(G * B, device=self.device), G * batch.rewarded_BT.sum(), batch.kept_RN.sum()])

    def terms(self, batch: GroupBatch, units: Tensor) -> Terms:
        """One pass over all rows; the encoder sees each clip once."""
        settings = self.settings
        policy = Policy(temperature=batch.temperature) if settings.scoring == "policy" else None
        scored = self.model.gazing_model(
            self.model.preprocess(batch.rgb_BTSSC), batch.index_RN, batch.kept_RN, list(batch.count_T), policy=policy
        )
        rows, rewarded, gazes = units.clamp(min=1)
        log_RN = scored.log_probability_BN.float()
        advantage_RN = advantages(batch, discount=settings.discount) / settings.reward_unit
        gain = grpo_loss(log_RN, advantage_BN=advantage_RN, kept_BN=batch.kept_RN).sum() / rows
        error_RN = relative_errors(batch, scored.predicted_loss_BN.float(), floor=settings.loss_floor)
        head = error_RN.square().sum() / rewarded
        entropy = -log_RN.detach().masked_fill(~batch.kept_RN, 0).sum() / gazes
        mask_BT, loss_GBT = batch.rewarded_BT, batch.loss_GBT
        patches = len(batch.count_T) * self.model.grid.num_patches
        values = [
            -(loss_GBT * mask_BT).sum() / rewarded,
            (loss_GBT.std(0, correction=0) * mask_BT).sum() * len(loss_GBT) / rewarded,
            batch.kept_RN.sum() / (rows * patches),
            entropy,
            head.detach(),
            error_RN.detach().sum() / rewarded,
        ]
        return Terms(total=gain + settings.loss_weight * head, values=torch.stack(values))

    def _limits(self, threshold: float) -> Limits:
        settings = self.settings
        return Limits(threshold=threshold, max_ratio=settings.max_ratio, max_gazes=settings.max_gazes)

    def _counts(self, rollouts: Rollouts, clips: Sequence[LabelledClip[Indices | None]], step: int) -> Indices:
        """(B, T) gazes of each frame, for all members of a clip's group."""
        labels = [clip.label for clip in clips if clip.label is not None]
        if labels:
            return np.stack(labels)
        settings = self.settings
        rng = np.random.default_rng([settings.seed, step, _THRESHOLD])
        limits = self._limits(_log_uniform(rng, settings.thresholds))
        # One more than there are members: the counts must not tell what a member drew.
        return rollouts.counts(limits, generators=self._generators(clips, step, [settings.group]))

    def _generators(
        self, clips: Sequence[LabelledClip[Indices | None]], step: int, members: Iterable[int]
    ) -> list[torch.Generator]:
        """For each member of each clip, in the order of the rows."""
        return [
            member_generator(seed=self.settings.seed, step=step, number=clip.recipe.number, member=member)
            for member in members
            for clip in clips
        ]

    def _losses(self, rgb_BTSSC: Tensor, gazes: Sequence[Gaze]) -> Tensor:
        """(G, B, T) loss of each frame after its gazes; ``gazes`` are those of the rows."""
        rgb, B = rgb_BTSSC.cpu().numpy(), len(rgb_BTSSC)
        by_clip = [self.judge.losses(rgb[b], gazes[b::B]) for b in range(B)]
        return torch.from_numpy(np.stack(by_clip, axis=1)).float()

    def _rewarded(self, clips: Sequence[LabelledClip[Indices | None]], step: int) -> Tensor:
        """(B, T) which frames are rewarded."""
        settings, T = self.settings, self.clip_shape.frames
        mask_BT = np.ones((len(clips), T), bool)
        if settings.rewarded_frames is not None:
            for clip, mask_T in zip(clips, mask_BT, strict=True):
                rng = np.random.default_rng([settings.seed, step, clip.recipe.number, _FRAMES])
                mask_T[rng.permutation(T)[settings.rewarded_frames :]] = False
        return torch.from_numpy(mask_BT)


def _log_uniform(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    low, high = np.log(ends)
    return float(np.exp(low + (high - low) * rng.random()))


def _option(name: str) -> str:
    return name.replace("_", "-")
