"""Training of a video masked autoencoder: to rebuild frames from the gazed cells of their clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autogaze.datasets.feed import ClipFeed
from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.recipes import ClipRecipe
from autogaze.datasets.stream import ClipShape, LabelledClip
from autogaze.errors import TrainingError
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.labelling.budgets import DrawnBudget
from autogaze.losses.weighted import VisionModel, WeightedLoss, make_loss
from autogaze.picture_error import PictureError
from autogaze.selectors.base import CLIP_FRAMES
from autogaze.selectors.cells import Pixels
from autogaze.tasks.judged import sample_frames
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE
from autogaze.training.batch import stack
from autogaze.training.clip_source import clip_feed, validation_clips
from autogaze.training.run_settings import ClipRunSettings
from autogaze.training.stage import Moment, ParameterGroup, Share, Tell, Terms, Validation
from autogaze.training.strip import canvases, some_of, strip
from autogaze.training.video_mae_networks import video_mae_network

# Shape letters: B clips, T frames, F frames that are rebuilt, S pixels a side of a frame.

JUDGED_FRAMES = 4
"""Frames of a validation clip that are rebuilt, evenly spread from the first to the last."""
_DRAWS = 3  # of a recipe: whose gazes
_FRAMES = 6  # of a step: which frames are rebuilt
_EXACT_DB = 100.0  # stands for a frame without any error in means


@dataclass(frozen=True, kw_only=True)
class VideoMAESettings(ClipRunSettings):
    """A complete run of a video masked autoencoder.

    Raises:
        TrainingError: a value is not legal, or there is nothing to train on.
    """

    shape: str | None = None
    """Network: toy, tiny, base, large, or the path of a config.json; without it that of --init, or tiny. With an
    image autoencoder as --init: scales, frames and sizes of the network that grows out of it."""
    random_gazes: float = 0.5
    """Share of clips gazed at by chance, as many times as the paper's label search is given; the others are gazed at
    greedily. 0: the greedy search alone; 1: chance alone, and nothing is searched."""
    frame_share: float = 0.125
    """Share of the frames that a step rebuilds, drawn for the step; all cells of these are decoded."""
    loss: str = "l1+gradient"
    """Terms of the loss, joined by plus signs: l1, gradient, ssim; dinov2_reg and siglip2 need a model each."""
    loss_weights: str = "1+1"
    """Weight of each term, joined by plus signs."""
    dinov2_reg: str | None = None
    """Folder or hub id of the DINOv2 model behind the term of this name."""
    siglip2: str | None = None
    """Folder or hub id of the SigLIP 2 model behind the term of this name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.random_gazes <= 1:
            raise TrainingError(f"--random-gazes must be a share from 0 to 1, got {self.random_gazes}")
        if not 0 < self.frame_share <= 1:
            raise TrainingError(f"--frame-share must be above 0 and at most 1, got {self.frame_share}")

    @property
    def models(self) -> dict[str, VisionModel]:
        """The vision models behind the loss, by the names of their terms."""
        named = {"dinov2_reg": self.dinov2_reg, "siglip2": self.siglip2}
        return {name: source for name, source in named.items() if source is not None}

    def make_stage(self, *, device: torch.device, tell: Tell) -> VideoMAEStage:
        """See :meth:`RunSettings.make_stage`."""
        return VideoMAEStage(self, device=device, tell=tell)


@dataclass(frozen=True, kw_only=True)
class GazeLabeller:
    """Gazes of a clip: those of the greedy search, or by chance, which the recipe decides."""

    grid: PatchGrid
    """Patches of a frame."""
    random_gazes: float
    """Share of clips gazed at by chance."""

    def __call__(self, rgb: Pixels, recipe: ClipRecipe, /) -> Gaze:
        """The gazes."""
        rng = recipe.rng(_DRAWS)
        if rng.random() >= self.random_gazes:
            return GreedyLabeller(grid=self.grid)(rgb, recipe).gaze
        layout = FrameLayout.tiled(self.grid, height_px=rgb.shape[1], width_px=rgb.shape[2])
        counts = DrawnBudget().limits(rng, frames=len(rgb), num_patches=self.grid.num_patches).counts
        index = [rng.choice(layout.num_indices, count, replace=False) for count in counts]
        return Gaze(index=np.concatenate(index), count=np.array(counts, np.int64), layout=layout)


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoBatch:
    """Clips of a pass, and what was gazed at."""

    rgb_BTSSC: Tensor
    """Frames (uint8)."""
    gazes: tuple[Gaze, ...]
    """B gazes."""
    frame_idx: tuple[int, ...]
    """F frames to rebuild, the same of every clip of the step."""


class VideoMAEStage:
    """Frames of videos rebuilt from gazed cells, judged by a weighted sum of losses."""

    num_units = 1
    """Rebuilt frames."""

    def __init__(self, settings: VideoMAESettings, *, device: torch.device, tell: Tell) -> None:
        """Make or load the network, the models behind the loss, and the validation clips.

        Args:
            settings: of the run.
            device: where the network trains.
            tell: hears path and message of validation videos that cannot be read.

        Raises:
            CheckpointError: a checkpoint or the configuration cannot be loaded, or does not fit.
            TrainingError: there is no such shape, ``init`` has another one, or the loss is not legal.
        """
        self.settings, self.device = settings, device
        self.mae = video_mae_network(
            init=settings.init,
            shape=settings.shape,
            seed=settings.seed,
            loss=settings.loss,
            loss_weights=settings.loss_weights,
        ).to(device)
        self.loss = _loss(settings, self.mae).to(device)
        config = self.mae.config
        frames = min(CLIP_FRAMES, config.max_num_frames) if config.time_embed else CLIP_FRAMES
        self.clip_shape = ClipShape(grid=config.grid, frames=frames)
        self.judged = tuple(dict.fromkeys(np.linspace(0, frames - 1, JUDGED_FRAMES).astype(int).tolist()))
        greedy = GazeLabeller(grid=config.grid, random_gazes=0.0)
        self.validation = validation_clips(settings, self.clip_shape, greedy, tell=tell)

    @property
    def module(self) -> nn.Module:
        """The network, without the models behind the loss."""
        return self.mae

    @property
    def value_names(self) -> tuple[str, ...]:
        """Terms of the loss before they are weighted; means over frames, each in its own unit."""
        return tuple(self.loss.weights)

    def groups(self) -> list[ParameterGroup]:
        """All parameters alike; tables of positions are not trained."""
        return [ParameterGroup(parameters=[weight for weight in self.mae.parameters() if weight.requires_grad])]

    def feed(self, share: Share) -> ClipFeed[Gaze]:
        """Clips with gazes."""
        labeller = GazeLabeller(grid=self.clip_shape.grid, random_gazes=self.settings.random_gazes)
        return clip_feed(self.settings, self.clip_shape, labeller, share)

    def prepare(self, clips: Sequence[LabelledClip[Gaze]], moment: Moment) -> VideoBatch:
        """Clips as tensors, and the frames of the step."""
        rng = np.random.default_rng([self.settings.seed, moment.step, _FRAMES])
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        frames = sample_frames(self.clip_shape.frames, self.settings.frame_share, generator=generator)
        return VideoBatch(
            rgb_BTSSC=stack(clips, device=self.device),
            gazes=tuple(clip.label for clip in clips),
            frame_idx=tuple(frames.tolist()),
        )

    def units(self, batch: VideoBatch) -> Tensor:
        """How many frames are rebuilt."""
        return torch.tensor([float(len(batch.gazes) * len(batch.frame_idx))], device=self.device)

    def terms(self, batch: VideoBatch, units: Tensor) -> Terms:
        """One pass over clips."""
        prediction, target = self._rebuilt(self.mae, batch)
        (frames,) = units.clamp(min=1)
        sums = {
            name: loss_BF.float().sum() / frames for name, loss_BF in self.loss.per_term(prediction, target).items()
        }
        total = torch.stack([self.loss.weights[name] * value for name, value in sums.items()]).sum()
        return Terms(total=total, values=torch.stack(list(sums.values())).detach())

    def validate(self, weights: Mapping[str, Tensor]) -> Validation | None:
        """The loss and its terms, and PSNR beside that of the canvas of the same gazes; means over frames."""
        if not self.validation:
            return None
        mae, losses, decibels = self._with(weights), [], []
        for clip in self.validation:
            rebuilt, loss = self._judge(mae, clip)
            losses.append(loss)
            true = clip.rgb[list(self.judged)]
            for row in zip(true, rebuilt, self._canvases(clip), strict=True):
                errors = [PictureError.between(row[0], picture) for picture in row[1:]]
                decibels.append([min(error.psnr_db, _EXACT_DB) for error in errors])
        terms = {name: float(np.mean([loss[name] for loss in losses])) for name in self.value_names}
        total = sum(self.loss.weights[name] * value for name, value in terms.items())
        psnr, canvas_psnr = np.mean(decibels, axis=0).tolist()
        values = {**terms, "loss": total, "psnr": psnr, "canvas_psnr": canvas_psnr}
        return Validation(values=values, better_below="loss")

    def draw(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """A strip of frames, canvases, rebuilt frames and their errors for each of a few validation clips."""
        if not self.validation:
            return
        mae = self._with(weights)
        for name, clip in some_of(self.validation):
            rows = {"canvas": self._canvases(clip), "rebuilt": self._judge(mae, clip)[0]}
            strip(clip.rgb[list(self.judged)], rows, title=clip.recipe.path, path=folder / f"{name}.png")

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """A checkpoint that :func:`~autogaze.reconstructors.load_reconstructor` reads."""
        self._with(weights).save_pretrained(folder)

    def _with(self, weights: Mapping[str, Tensor]) -> VideoMAE:
        """The network around other weights, which it shares."""
        with torch.device("meta"):
            mae = VideoMAE(self.mae.config, space=self.mae.space)
        mae.load_state_dict(dict(weights), assign=True)
        return mae.eval()

    def _rebuilt(self, mae: VideoMAE, batch: VideoBatch) -> tuple[Tensor, Tensor]:
        """(B, F, 3, S, S) frames as the network rebuilds them, and as they are."""
        video = mae.space.from_unit(batch.rgb_BTSSC.movedim(-1, 2) / 255)
        decoded = mae.decoded(video, batch.gazes, batch.frame_idx)
        return mae.decoder.pixels(decoded).float(), video[:, list(batch.frame_idx)]

    @torch.no_grad()
    def _judge(self, mae: VideoMAE, clip: LabelledClip[Gaze]) -> tuple[Pixels, dict[str, float]]:
        """(F, S, S, 3) uint8 rebuilt frames of a validation clip, and the mean of each term."""
        batch = VideoBatch(rgb_BTSSC=stack([clip], device=self.device), gazes=(clip.label,), frame_idx=self.judged)
        prediction, target = self._rebuilt(mae, batch)
        losses = {name: float(loss.mean()) for name, loss in self.loss.per_term(prediction, target).items()}
        colours = (mae.space.to_unit(prediction[0]).clamp(0, 1) * 255).round().byte()
        rebuilt: Pixels = colours.movedim(1, -1).cpu().numpy()
        return rebuilt, losses

    def _canvases(self, clip: LabelledClip[Gaze]) -> Pixels:
        """(F, S, S, 3) uint8 canvases of the same gazes."""
        return canvases(clip.rgb, clip.label)[list(self.judged)]


def _loss(settings: VideoMAESettings, mae: VideoMAE) -> WeightedLoss:
    try:
        return make_loss(settings.loss, settings.loss_weights, models=settings.models, space=mae.space)
    except ValueError as error:
        hint = "; --dinov2-reg and --siglip2 name the models" if "looks through" in str(error) else ""
        raise TrainingError(f"--loss {settings.loss} --loss-weights {settings.loss_weights}: {error}{hint}") from error
