"""What all trainings of a gaze model share: the model, its parameters, its validation, its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.stream import ClipShape
from autogaze.errors import TrainingError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.selectors.canvas import quality
from autogaze.sheet import sheet
from autogaze.training.clip_source import validation_clips
from autogaze.training.networks import gaze_model
from autogaze.training.run_settings import ClipRunSettings
from autogaze.training.stage import ParameterGroup, Tell, Validation
from autogaze.training.strip import canvases, strip

PICTURES = 4
"""Validation clips that are drawn."""
PICTURE_COLUMNS = 8
VALIDATION_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class GazeModelSettings(ClipRunSettings):
    """What every training of a gaze model has.

    Raises:
        TrainingError: a value is not legal.
    """

    shape: str = "published"
    """Network of fresh weights, where there is no --init: published, tiny, or the path of a config.json."""
    loss_head_lr: float = 0.03
    """Learning rate of the stop head, as a share: it speaks of hundredths, and each of its weights of all of them."""
    loss_weight: float = 1.0
    """Weight of the predicted losses against the gazes."""
    loss_floor: float = 0.01
    """Errors of predicted losses are counted relative to loss plus this. Mean absolute errors are a few hundredths;
    in that unit their squares would vanish beside the cross-entropy."""
    max_gazes: int = 1024
    """Most gazes of a labelled clip."""
    compile: bool = False
    """Compile the decoder's layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("loss_head_lr", "loss_floor", "max_gazes"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"--{name.replace('_', '-')} must be above 0 and finite, got {getattr(self, name)}")
        if not 0 <= self.loss_weight < math.inf:
            raise TrainingError(f"--loss-weight must be at least 0 and finite, got {self.loss_weight}")


class GazeModelStage:
    """The half of a stage that does not depend on what is learned."""

    def __init__(self, settings: GazeModelSettings, *, device: torch.device, tell: Tell) -> None:
        """Load the model, and the validation clips.

        Args:
            settings: of the run.
            device: where the model trains.
            tell: hears path and message of validation videos that cannot be read.

        Raises:
            CheckpointError: ``init`` cannot be loaded.
            TrainingError: there is no such shape.
        """
        self.model = gaze_model(init=settings.init, shape=settings.shape, seed=settings.seed).to(device)
        if settings.compile:
            for layer in self.model.gazing_model.gaze_decoder.model.blocks:
                layer.compile(dynamic=True)
        self.device = device
        self.head_lr = settings.loss_head_lr
        self.clip_shape = ClipShape(grid=self.model.grid, frames=self.model.config.max_num_frames)
        self.labeller = GreedyLabeller(grid=self.model.grid)
        self.validation = validation_clips(settings, self.clip_shape, self.labeller, tell=tell)

    @property
    def module(self) -> nn.Module:
        """The model."""
        return self.model

    def groups(self) -> list[ParameterGroup]:
        """The stop head apart: its gradient is hundreds of times larger, since losses are small."""
        head = list(self.model.gazing_model.gaze_decoder.task_loss_prediction_head.parameters())
        others = [parameter for parameter in self.model.parameters() if parameter is not head[0]]
        return [
            ParameterGroup(parameters=others),
            ParameterGroup(parameters=head, lr_scale=self.head_lr, clipped_by_themselves=True),
        ]

    def _with(self, weights: Mapping[str, Tensor]) -> AutoGaze:
        """A copy of the model with other weights."""
        model = AutoGaze(self.model.config).to(self.device).eval()
        model.load_state_dict(dict(weights))
        return model

    def own_gazes(self, weights: Mapping[str, Tensor]) -> list[Gaze]:
        """What weights gaze at on the validation clips, with as many gazes in each frame as the label has."""
        model, gazes = self._with(weights), []
        for clip in self.validation:
            gazes.append(gaze_as_often(model, clip.rgb, clip.label.gaze.count))
        return gazes

    def validate(self, weights: Mapping[str, Tensor]) -> Validation | None:
        """The exact loss of the model's own gazes on the validation clips, beside that of the labels."""
        if not self.validation:
            return None
        own, label, bias = [], [], []
        for clip, gaze in zip(self.validation, self.own_gazes(weights), strict=True):
            frames = Frames.from_rgb(np.array(clip.rgb))
            mine = quality(frames, gaze=gaze).loss
            own.append(float(mine.mean()))
            label.append(float(quality(frames, gaze=clip.label.gaze).loss.mean()))
            bias.append(_stop_bias(gaze, mine))
        values = {"own_loss": _mean(own), "label_loss": _mean(label), "stop_bias": _mean(bias)}
        return Validation(values=values, better_below="own_loss")

    def draw(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """The model's own gazes at each of a few validation clips, and what they paint beside what the search's do."""
        if not self.validation:
            return
        folder.mkdir(parents=True, exist_ok=True)
        model = self._with(weights)
        for clip in self.validation[:: max(1, len(self.validation) // PICTURES)][:PICTURES]:
            gaze = gaze_as_often(model, clip.rgb, clip.label.gaze.count)
            assert clip.recipe.path is not None  # validation clips are videos
            frames, name = Frames.from_rgb(np.array(clip.rgb)), clip.recipe.path.stem
            own, search = (float(quality(frames, gaze=one).loss.mean()) for one in (gaze, clip.label.gaze))
            title = f"{name}: mean error {own:.4f}, by the search's gazes {search:.4f}"
            picture = sheet(frames, gaze, columns=PICTURE_COLUMNS, title=title)
            # Clips of different folders may have the same name.
            picture.save(folder / f"{clip.recipe.number:03d}-{name}.png")
            shown = np.linspace(0, len(clip.rgb) - 1, min(PICTURE_COLUMNS, len(clip.rgb))).round().astype(int)
            painted = {"search": clip.label.gaze, "model": gaze}
            rows = {who: canvases(clip.rgb, one)[shown] for who, one in painted.items()}
            path = folder / f"{clip.recipe.number:03d}-{name}.canvas.png"
            strip(np.array(clip.rgb[shown]), rows, title=title, path=path)

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """A checkpoint in the published layout."""
        self._with(weights).save_pretrained(folder)


def gaze_as_often(model: AutoGaze, rgb: np.ndarray, count: np.ndarray) -> Gaze:
    """The model's likeliest gazes of a clip, as many in each frame as ``count`` says, at least one."""
    # Half a patch more, so that rounding down gives the count.
    patches = model.grid.num_patches
    return model.gaze(rgb, ratio=[min(1.0, (max(int(n), 1) + 0.5) / patches) for n in count])


def _stop_bias(gaze: Gaze, loss: np.ndarray) -> float:
    """Mean of predicted minus true loss after the last gaze of each frame."""
    assert gaze.predicted_loss is not None
    last = np.cumsum(gaze.count) - 1
    return float(np.nanmean(gaze.predicted_loss[last] - loss))


def _mean(values: list[float]) -> float:
    return float(np.mean(values))
