"""Training of a refiner: what is left of a canvas's errors once it has been corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autogaze.configuration import read_json_object
from autogaze.datasets.feed import ClipFeed
from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.recipes import ClipRecipe
from autogaze.datasets.stream import ClipShape, LabelledClip
from autogaze.errors import CheckpointError, TrainingError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import PatchGrid
from autogaze.loading import BUNDLED
from autogaze.picture_error import PictureError
from autogaze.reconstructors.loading import REFINED, reconstructor_path
from autogaze.reconstructors.provenance import CanvasRecorder, CanvasView
from autogaze.reconstructors.refiner import CanvasTensors, Refiner, RefinerConfig
from autogaze.selectors.base import CLIP_FRAMES
from autogaze.selectors.cells import Pixels
from autogaze.training.clip_source import clip_feed, validation_clips
from autogaze.training.run_settings import ClipRunSettings
from autogaze.training.stage import Moment, ParameterGroup, Share, Tell, Terms, Validation
from autogaze.training.strip import some_of, strip

# Shape letters: B frames of all clips, T frames of a clip, H × W pixels, C colours.

LEVEL = 1 / 255
"""Smallest difference of two colours in 0…1."""
SHAPES = {"default": RefinerConfig(), "tiny": RefinerConfig(scales_px=(32, 64), widths=(8, 16))}
"""Networks by name: that of the bundled refiner, and one on frames of 64 px that trains in seconds."""
JUDGED_FRAMES = (0, 5, 10, 15)
"""Frames of a validation clip that are looked at."""
_DRAWS = 3  # of a recipe: which frames, and whose gazes


@dataclass(frozen=True, kw_only=True)
class RefinerSettings(ClipRunSettings):
    """A complete run of a refiner.

    Raises:
        TrainingError: a value is not legal, or there is nothing to train on.
    """

    shape: str | None = None
    """Network: default, tiny, or the path of a config.json; without it that of --init, or default."""
    frames: int = 3
    """Frames of each clip that are learned from, drawn at random; a clip that comes again has the same ones."""
    random_gazes: float = 0.15
    """Share of clips gazed at by chance instead of greedily, so that a poor selection is no surprise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.frames <= CLIP_FRAMES:
            raise TrainingError(f"--frames must be from 1 to {CLIP_FRAMES}, the frames of a clip, got {self.frames}")
        if not 0 <= self.random_gazes <= 1:
            raise TrainingError(f"--random-gazes must be a share from 0 to 1, got {self.random_gazes}")

    def make_stage(self, *, device: torch.device, tell: Tell) -> RefinerStage:
        """See :meth:`RunSettings.make_stage`."""
        return RefinerStage(self, device=device, tell=tell)


# Clips


@dataclass(frozen=True, kw_only=True)
class CanvasLabeller:
    """Canvases of a few frames of a clip, which are drawn by the recipe, as is whose gazes have painted them."""

    grid: PatchGrid
    """Patches of a frame."""
    frames: int
    """How many frames."""
    random_gazes: float
    """Share of clips gazed at by chance."""

    def __call__(self, rgb: Pixels, recipe: ClipRecipe, /) -> CanvasView:
        """The canvases, in the order of their frames."""
        rng = recipe.rng(_DRAWS)
        gaze = GreedyLabeller(grid=self.grid)(rgb, recipe).gaze
        if rng.random() < self.random_gazes:
            gaze = as_many_at_random(gaze, rng)
        view = canvas_view(rgb, gaze)
        return view[np.sort(rng.choice(len(view), min(self.frames, len(view)), replace=False))]


@dataclass(frozen=True, kw_only=True)
class JudgedCanvasLabeller:
    """Canvases of the frames that validation looks at, painted by greedy gazes."""

    grid: PatchGrid
    """Patches of a frame."""

    def __call__(self, rgb: Pixels, recipe: ClipRecipe, /) -> CanvasView:
        """The canvases of :data:`JUDGED_FRAMES`."""
        return canvas_view(rgb, GreedyLabeller(grid=self.grid)(rgb, recipe).gaze)[np.array(JUDGED_FRAMES)]


def canvas_view(rgb: Pixels, gaze: Gaze) -> CanvasView:
    """The canvas after each frame of a (T, S, S, 3) clip."""
    return CanvasRecorder(gaze.layout).step(Frames.from_rgb(np.array(rgb)), gaze)


def as_many_at_random(gaze: Gaze, rng: np.random.Generator) -> Gaze:
    """Other patches, as many in each frame, each patch as likely as any other."""
    layout = gaze.layout
    index = [rng.choice(layout.num_indices, count, replace=False) for count in gaze.count]
    return Gaze(index=np.concatenate(index), count=gaze.count, layout=layout)


# The loss


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorsLeft:
    """Errors of refined frames relative to those of their canvases: 1 where nothing is won, 0 for the true frame."""

    squared_B: Tensor
    """(B,) of the squared errors."""
    absolute_B: Tensor
    """(B,) of the absolute ones."""

    @property
    def loss_B(self) -> Tensor:
        """(B,) the squared one and half the absolute one.

        Mostly squared, because absolute errors alone say which way to go, but hardly where it matters.
        """
        return self.squared_B + self.absolute_B / 2


def errors_left(refined_BCHW: Tensor, *, canvas_BHWC: Tensor, target_BHWC: Tensor) -> ErrorsLeft:
    """What is left of the errors of canvases.

    Relative to each frame's own, because otherwise the frames with the poorest canvases teach all there is.

    Args:
        refined_BCHW: float frames, colours about 0…1.
        canvas_BHWC: uint8 frames before they were refined.
        target_BHWC: uint8 true frames.
    """
    canvas, target = (frames.movedim(-1, 1) / 255 for frames in (canvas_BHWC, target_BHWC))
    before, after = ((frames - target).flatten(1) for frames in (canvas, refined_BCHW))
    # An error of a level counts as none, so that exact canvases do not count beyond measure.
    return ErrorsLeft(
        squared_B=after.square().mean(1) / (before.square().mean(1) + LEVEL**2),
        absolute_B=after.abs().mean(1) / (before.abs().mean(1) + LEVEL),
    )


# The stage


@dataclass(frozen=True, kw_only=True, eq=False)
class RefinerBatch:
    """Frames of all clips of a pass."""

    view: CanvasTensors
    """Canvases of B frames."""
    target_BHWC: Tensor
    """(B, H, W, 3) uint8 the true frames."""


class RefinerStage:
    """What a canvas looks like, and what the frame looked like."""

    value_names = ("squared", "absolute")
    """See :class:`ErrorsLeft`; means over frames."""
    num_units = 1
    """Frames."""

    def __init__(self, settings: RefinerSettings, *, device: torch.device, tell: Tell) -> None:
        """Make or load the network, and the validation clips.

        Args:
            settings: of the run.
            device: where the network trains.
            tell: hears path and message of validation videos that cannot be read.

        Raises:
            CheckpointError: ``init`` or the configuration cannot be loaded.
            TrainingError: there is no such shape, or ``init`` has another one.
        """
        self.settings, self.device = settings, device
        self.refiner = refiner_network(init=settings.init, shape=settings.shape, seed=settings.seed).on(device)
        grid = self.refiner.config.grid
        self.clip_shape = ClipShape(grid=grid, frames=CLIP_FRAMES)
        self.validation = validation_clips(settings, self.clip_shape, JudgedCanvasLabeller(grid=grid), tell=tell)

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.refiner

    def groups(self) -> list[ParameterGroup]:
        """All parameters alike."""
        return [ParameterGroup(parameters=list(self.refiner.parameters()))]

    def feed(self, share: Share) -> ClipFeed[CanvasView]:
        """Clips with canvases of some of their frames."""
        settings = self.settings
        labeller = CanvasLabeller(grid=self.clip_shape.grid, frames=settings.frames, random_gazes=settings.random_gazes)
        return clip_feed(settings, self.clip_shape, labeller, share)

    def prepare(self, clips: Sequence[LabelledClip[CanvasView]], moment: Moment) -> RefinerBatch:
        """Canvases as tensors."""
        view = CanvasView.stack([clip.label for clip in clips])
        target = torch.from_numpy(view.target).to(self.device, non_blocking=True)
        return RefinerBatch(view=CanvasTensors.of(view, device=self.device), target_BHWC=target)

    def units(self, batch: RefinerBatch) -> Tensor:
        """How many frames there are."""
        return torch.tensor([float(len(batch.target_BHWC))], device=self.device)

    def terms(self, batch: RefinerBatch, units: Tensor) -> Terms:
        """One pass over the canvases of clips."""
        refined = self.refiner(batch.view)
        left = errors_left(refined, canvas_BHWC=batch.view.canvas_BHWC, target_BHWC=batch.target_BHWC)
        (frames,) = units.clamp(min=1)
        values = torch.stack([left.squared_B.sum(), left.absolute_B.sum()]).detach() / frames
        return Terms(total=left.loss_B.sum() / frames, values=values)

    def validate(self, weights: Mapping[str, Tensor]) -> Validation | None:
        """Mean absolute error, colours in 0…1, and PSNR of canvases and refined frames; means over frames."""
        if not self.validation:
            return None
        refiner, rows = self._with(weights), []
        for clip in self.validation:
            view = clip.label
            for pictures in zip(view.target, view.canvas, self._refined(refiner, view), strict=True):
                canvas, refined = (PictureError.between(pictures[0], picture) for picture in pictures[1:])
                losses = (canvas.mean_levels / 255, refined.mean_levels / 255)
                rows.append((*losses, min(canvas.psnr_db, 100.0), min(refined.psnr_db, 100.0)))
        names = ("canvas_loss", "refined_loss", "canvas_psnr", "refined_psnr")
        means = np.mean(rows, axis=0).tolist()
        return Validation(values=dict(zip(names, means, strict=True)), better_below="refined_loss")

    def draw(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """A strip of frames, canvases, refined frames and their errors for each of a few validation clips."""
        if not self.validation:
            return
        refiner = self._with(weights)
        for name, clip in some_of(self.validation):
            view = clip.label
            rows = {"canvas": view.canvas, "refined": self._refined(refiner, view)}
            strip(view.target, rows, title=clip.recipe.path, path=folder / f"{name}.png")

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """A checkpoint that :func:`~autogaze.reconstructors.load_reconstructor` reads."""
        self._with(weights).save_pretrained(folder)

    def _with(self, weights: Mapping[str, Tensor]) -> Refiner:
        """A copy of the network with other weights."""
        refiner = Refiner(self.refiner.config).on(self.device).eval()
        refiner.load_state_dict(dict(weights))
        return refiner

    @torch.no_grad()
    def _refined(self, refiner: Refiner, view: CanvasView) -> Pixels:
        frames = refiner(CanvasTensors.of(view, device=self.device))
        refined: Pixels = (frames.clamp(0, 1) * 255).round().byte().movedim(1, -1).cpu().numpy()
        return refined


def refiner_network(*, init: str | None, shape: str | None, seed: int) -> Refiner:
    """A refiner to train.

    Args:
        init: checkpoint to start from, as :meth:`Refiner.from_pretrained` takes it; ``"refined"`` or ``"bundled"``.
        shape: a name of :data:`SHAPES` or the path of a ``config.json``; None: that of ``init``, or ``"default"``.
        seed: of fresh weights.

    Raises:
        CheckpointError: ``init`` or the configuration cannot be loaded.
        TrainingError: there is no such shape, or ``init`` has another one.
    """
    config = None if shape is None else _config(shape)
    if init is None:
        torch.manual_seed(seed)
        return Refiner(config or SHAPES["default"])
    name = REFINED if init == BUNDLED else init
    refiner = Refiner.from_pretrained(reconstructor_path(name) or name)
    if config is not None and config != refiner.config:
        differing = [f"{name} {value!r}" for name, value in refiner.config.to_dict().items()]
        raise TrainingError(f"--init {init} is not of --shape {shape}: it has {', '.join(differing[1:])}")
    return refiner


def _config(shape: str) -> RefinerConfig:
    if shape in SHAPES:
        return SHAPES[shape]
    if not Path(shape).is_file():
        raise TrainingError(f"--shape {shape!r} is neither {', '.join(SHAPES)} nor the path of a config.json")
    try:
        return RefinerConfig.from_dict(read_json_object(Path(shape)))
    except CheckpointError as error:
        raise CheckpointError(f"{shape}: {error}") from error
