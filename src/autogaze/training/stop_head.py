"""The stop head, fitted in closed form to the losses that a model's own gazes really have.

Shape letters: B clips, T frames, N slots over all frames, C channels, K heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor

from autogaze.datasets.clips import ClipMix, mixed_sources
from autogaze.datasets.feed import ClipFeed
from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.labels import Label
from autogaze.datasets.order import SampleOrder
from autogaze.datasets.own_labels import own_labels
from autogaze.datasets.recipes import ClipRecipe
from autogaze.datasets.stream import ClipShape, LabelledClip
from autogaze.errors import TrainingError
from autogaze.grid import Indices
from autogaze.loading import check_device
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.packing import pack
from autogaze.results import check_out
from autogaze.training.networks import gaze_model
from autogaze.training.rollouts import Rollouts, member_generator
from autogaze.training.run_settings import ClipSettings
from autogaze.training.state import replace_folder

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Pulls towards the weights there were, of which the one that fits the clips kept aside is taken. They are shares of
the mean weighted square of a feature: at 1 a direction in which features vary as on average goes half of its way."""
TEMPERATURE = 0.02
"""Of the roll-outs: the likeliest gazes, but for ties."""
ASIDE = 5
"""Every so many-th source is kept aside to choose the pull."""
STRETCH = 0.5
"""Frames get up to e to this power as many gazes as the search needs, since the model needs more."""


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Normal equations of K heads: all that a least-squares fit needs of the clips seen."""

    xx_KCC: Tensor
    """Weighted products of features with features."""
    xy_KC: Tensor
    """Weighted products of features with losses."""
    yy_K: Tensor
    """Weighted squares of losses."""
    weight_K: Tensor
    """Gazes seen."""

    @classmethod
    def zero(cls, heads: int, channels: int) -> Sums:
        """Of nothing."""
        made = (torch.zeros(heads, *rest, dtype=torch.float64) for rest in ((channels, channels), (channels,), (), ()))
        xx, xy, yy, weight = made
        return cls(xx_KCC=xx, xy_KC=xy, yy_K=yy, weight_K=weight)

    def add(self, head: int, features_NC: Tensor, loss_N: Tensor, *, floor: float) -> None:
        """See the gazes of one head; errors count relative to their loss plus ``floor``."""
        unit_N = loss_N.double() + floor
        x_NC, y_N = features_NC.double() / unit_N[:, None], loss_N.double() / unit_N
        self.xx_KCC[head] += x_NC.T @ x_NC
        self.xy_KC[head] += x_NC.T @ y_N
        self.yy_K[head] += y_N.square().sum()
        self.weight_K[head] += len(y_N)

    def __add__(self, other: Sums) -> Sums:
        """Of what both have seen."""
        return Sums(
            xx_KCC=self.xx_KCC + other.xx_KCC,
            xy_KC=self.xy_KC + other.xy_KC,
            yy_K=self.yy_K + other.yy_K,
            weight_K=self.weight_K + other.weight_K,
        )

    def errors(self, weight_KC: Tensor) -> Tensor:
        """(K,) mean squared relative error of each head."""
        quadratic_K = torch.einsum("kc,kcd,kd->k", weight_KC, self.xx_KCC, weight_KC)
        sum_K = quadratic_K - 2 * (weight_KC * self.xy_KC).sum(1) + self.yy_K
        return sum_K / self.weight_K.clamp(min=1)

    def solve(self, start_KC: Tensor, *, ridge: float) -> Tensor:
        """(K, C) weights of least error plus a pull towards ``start_KC``; ``ridge`` is as in :data:`RIDGES`."""
        mean_K = self.xx_KCC.diagonal(dim1=1, dim2=2).mean(1)
        # A head that saw nothing has no scale; with any pull above 0 it stays as it is.
        pull_K11 = ridge * torch.where(mean_K > 0, mean_K, 1.0)[:, None, None]
        left_KCC = self.xx_KCC + pull_K11 * torch.eye(self.xx_KCC.shape[1], dtype=torch.float64)
        missing_KC = self.xy_KC - torch.einsum("kcd,kd->kc", self.xx_KCC, start_KC)
        change_KC1: Tensor = torch.linalg.solve(left_KCC, missing_KC[..., None])
        return start_KC + change_KC1[..., 0]


@dataclass(frozen=True, kw_only=True)
class StopHeadFit:
    """A fitted head, and what it is worth on the clips kept aside."""

    weight_KC: Tensor
    """fp32 weights, fitted on all clips."""
    error_before: float
    """Root of the mean squared relative error of the weights there were."""
    error_after: float
    """The same of weights fitted without these clips."""
    ridge: float
    """The pull that was taken; infinite where no fit was better than the weights there were, which then stay."""


def fit(seen: Sums, aside: Sums, start_KC: Tensor) -> StopHeadFit:
    """Choose the pull by the clips kept aside, then fit to all.

    Raises:
        TrainingError: there are too few clips.
    """
    if not (seen.weight_K.sum() and aside.weight_K.sum()):
        raise TrainingError(f"a stop head needs at least {ASIDE} clips to be fitted to")
    start_KC = start_KC.double()
    # A head that saw nothing, as the later ones of short groups, stays as it is: its equations are 0 = 0.
    known_K = aside.weight_K
    score = {r: float((aside.errors(seen.solve(start_KC, ridge=r)) * known_K).sum() / known_K.sum()) for r in RIDGES}
    before = float((aside.errors(start_KC) * known_K).sum() / known_K.sum())
    score[math.inf] = before
    ridge = min(score, key=lambda r: score[r])
    better_KC = start_KC if math.isinf(ridge) else (seen + aside).solve(start_KC, ridge=ridge)
    return StopHeadFit(
        weight_KC=better_KC.float(),
        error_before=before**0.5,
        error_after=score[ridge] ** 0.5,
        ridge=ridge,
    )


def kept_aside(recipes: Iterable[ClipRecipe]) -> set[int]:
    """Numbers of the clips that only judge: all of every :data:`ASIDE`-th source.

    Clips of one source say nothing about another: judged by them, hardly any pull looks best. Where there are fewer
    sources than that, every so many-th clip judges.
    """
    recipes = list(recipes)
    names = list(dict.fromkeys(recipe.source for recipe in recipes))
    if len(names) < ASIDE:
        return {recipe.number for recipe in recipes[::ASIDE]}
    judging = set(names[::ASIDE])
    return {recipe.number for recipe in recipes if recipe.source in judging}


@torch.no_grad()
def see(
    model: AutoGaze, clips: list[LabelledClip[Label]], *, seed: int, floor: float, into: Callable[[int], Sums]
) -> None:
    """Let a model gaze at clips, and add what its stop head should have said to the sums for each clip's number.

    Every frame gets as many gazes as the search took, or up to e to the :data:`STRETCH` times as many.
    """
    rgb = np.stack([clip.rgb for clip in clips])
    numbers = [clip.recipe.number for clip in clips]
    stretch = np.array([np.random.default_rng([seed, number, 10]).uniform(0, STRETCH) for number in numbers])
    count_BT = np.stack([clip.label.gaze.count for clip in clips])
    most_BT: Indices = np.ceil(count_BT * np.exp(stretch)[:, None]).astype(np.int64).clip(1, model.grid.num_patches)
    rollouts = Rollouts(model, torch.from_numpy(rgb).to(model.device), temperature=TEMPERATURE)
    generators = [member_generator(seed=seed, step=0, number=number, member=0) for number in numbers]
    gazes = rollouts.draw(most_BT, generators=generators)
    group = model.gazing_model.gaze_decoder.group_size
    labels = [own_labels(one, gaze, group=group) for one, gaze in zip(rgb, gazes, strict=True)]
    packed = pack(gazes, device=model.device)
    kept_BN = ~packed.if_padded_gazing
    frame_N = torch.repeat_interleave(packed.num_gazing_each_frame)
    index_BN = packed.gazing_pos - frame_N * packed.num_vision_tokens_each_frame
    counts = packed.num_gazing_each_frame.tolist()
    features_BNC, head_N = model.gazing_model.stop_features(rollouts.visual_BTPC, index_BN, kept_BN, counts)
    for b, (number, label) in enumerate(zip(numbers, labels, strict=True)):
        assert label.gaze.predicted_loss is not None
        loss_N, features_NC = torch.from_numpy(label.gaze.predicted_loss), features_BNC[b][kept_BN[b]].cpu()
        heads = head_N[kept_BN[b]].cpu()
        for head in range(group):
            into(number).add(head, features_NC[heads == head], loss_N[heads == head], floor=floor)


@dataclass(frozen=True, kw_only=True)
class StopHeadSettings(ClipSettings):
    """A complete fit.

    Raises:
        TrainingError: a value is not legal, or there is nothing to learn from.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("run")
    """Folder for the checkpoint."""
    init: str = "bundled"
    """Checkpoint whose stop head is fitted: a folder, file, hub id or bundled."""
    clips: int = 600
    """Clips to gaze at; those of a fifth of the sources only judge."""
    batch: int = 8
    """Clips gazed at at once."""
    loss_floor: float = 0.005
    """Errors of predicted losses are counted relative to loss plus this."""
    max_gazes: int = 512
    """Most gazes of a labelled clip."""
    seed: int = 0
    """Seed of clips and draws."""
    device: str | None = None
    """cpu, cuda or mps; without it a GPU if there is one."""
    overwrite: bool = False
    """Replace a checkpoint that is there already."""
    quiet: bool = False
    """Print nothing but errors."""
    debug: bool = False
    """Show where an error comes from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch", "loss_floor", "max_gazes"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"--{name.replace('_', '-')} must be above 0, got {getattr(self, name)}")
        if self.clips < 2 * ASIDE:
            raise TrainingError(f"--clips must be at least {2 * ASIDE}, got {self.clips}")


def fit_stop_head(
    settings: StopHeadSettings,
    *,
    on_progress: Callable[[float], None] = lambda share: None,
    say: Callable[[str], None] = lambda text: None,
) -> StopHeadFit:
    """Fit the stop head of a checkpoint and write it to ``settings.out / "checkpoint"``.

    Everything but the head stays bit for bit what it was; gazes stay the same, only where frames end changes.

    Raises:
        CheckpointError: ``init`` cannot be loaded.
        AutoGazeError: there is no such device.
        OutputError: ``out`` is no folder, or files cannot be made in it.
        TrainingError: there is a checkpoint in ``out`` already, or there are too few clips.
    """
    check_out(settings.out)
    folder = settings.out / "checkpoint"
    if folder.exists() and not settings.overwrite:
        raise TrainingError(f"{folder} is there already; --overwrite replaces it")
    if settings.device is not None:
        check_device(settings.device)
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = gaze_model(init=settings.init, shape="", seed=0).to(device).eval()
    head = model.gazing_model.gaze_decoder.task_loss_prediction_head
    seen, aside = (Sums.zero(*head.weight.shape) for _ in range(2))
    mix, order = _mix(settings, model), SampleOrder(block=settings.block, reuse=1, seed=settings.seed)
    steps = -(-settings.clips // settings.batch)
    judging = kept_aside(mix.recipe(order.number(place)) for place in range(steps * settings.batch))
    with _feed(settings, model, mix=mix, order=order) as feed:
        for step in range(steps):
            clips = feed.step()
            if clips:
                see(
                    model,
                    clips,
                    seed=settings.seed,
                    floor=settings.loss_floor,
                    into=lambda number: aside if number in judging else seen,
                )
            on_progress((step + 1) / steps)
        for message in feed.unreadable.values():
            say(f"left out: {message}")
    found = fit(seen, aside, head.weight.detach().cpu())
    with torch.no_grad():
        head.weight.copy_(found.weight_KC)
    with replace_folder(folder) as new:
        model.save_pretrained(new)
    return found


def _mix(settings: StopHeadSettings, model: AutoGaze) -> ClipMix:
    sources = mixed_sources(
        videos=settings.videos,
        images=settings.images,
        labels=settings.labels,
        scans=settings.scans,
        procedural=settings.procedural,
        grid=model.grid,
    )
    return ClipMix(sources=sources, seed=settings.seed, max_gazes=settings.max_gazes)


def _feed(settings: StopHeadSettings, model: AutoGaze, *, mix: ClipMix, order: SampleOrder) -> ClipFeed[Label]:
    return ClipFeed(
        mix,
        ClipShape(grid=model.grid, frames=model.config.max_num_frames),
        batch=settings.batch,
        order=order,
        labeller=GreedyLabeller(grid=model.grid),
        workers=settings.num_workers(),
        ahead=4 * settings.batch,
        cache_bytes=int(settings.cache_gb * 1e9),
        cache_folder=settings.cache_folder,
    )
