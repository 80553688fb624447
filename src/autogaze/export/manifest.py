"""What a host loop must know beside the two programs: the contents of ``gaze.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from autogaze.export.programs import Port, Program
from autogaze.models.autogaze.autogaze import IMAGENET_MEAN, IMAGENET_STD
from autogaze.models.autogaze.calibration import Calibration, weights_fingerprint
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.summary import versions

MANIFEST_NAME = "gaze.json"
FORMAT = "autogaze-export"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ProgramFile:
    """One program."""

    file: str
    """Its file, beside this one."""
    inputs: tuple[Port, ...]
    """In the order in which it takes them."""
    outputs: tuple[Port, ...]
    """In the order in which it returns them."""


@dataclass(frozen=True, kw_only=True)
class StopLevels:
    """At which predicted loss a frame ends, by the loss that is wanted.

    Between two thresholds the level is on a line that is straight in logarithms of both; past the last threshold it is
    the last level; below the first nothing is promised.
    """

    alpha: float
    """At most this share of frames ends above the threshold, on average over clips like those of the calibration."""
    loss_unit: str
    """What a loss of 1 is."""
    mode: str
    """Whether frames were brought to one tile (``resize``) or cut into ``tiles``."""
    thresholds: tuple[float, ...]
    """Ascending, above 0."""
    levels: tuple[float, ...]
    """One for each, ascending, above 0."""

    @classmethod
    def of(cls, calibration: Calibration) -> Self | None:
        """Those of a calibration that can be told in this way; None if none of them can.

        What was promised for a loss or a level that is not above 0 is left out. Others keep their promise.
        """
        rows = [(promise.threshold, promise.level) for promise in calibration.promises]
        # Of several levels that promise the same, the largest keeps fewest patches.
        best = {threshold: level for threshold, level in rows if threshold > 0 and level > 0}
        if not best:
            return None
        return cls(
            alpha=calibration.alpha,
            loss_unit=calibration.loss_unit,
            mode=calibration.mode,
            thresholds=tuple(best),
            levels=tuple(best.values()),
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything in ``gaze.json``."""

    programs: str
    """``onnx`` or ``torch``."""
    model: str
    """What the model was called, without its folder."""
    weights: str
    """:func:`~autogaze.models.autogaze.calibration.weights_fingerprint` of the model."""
    encoder: ProgramFile
    """Frames in, visual tokens out."""
    decoder_step: ProgramFile
    """Tokens in, scores of the next gazes out."""
    frame_px: int
    """Side of the frames that the encoder takes, as uint8 RGB."""
    mean: tuple[float, ...]
    """What the encoder takes off colours of -1 to 1 itself."""
    std: tuple[float, ...]
    """What it divides them by."""
    clip_frames: int
    """Frames after which state and cache start afresh."""
    scales_px: tuple[int, ...]
    """Scales of the patch grid, coarse to fine."""
    patch_px: int
    """Side of a patch in pixels of its scale."""
    patches_per_scale: tuple[int, ...]
    """Patches are counted scale by scale, row by row."""
    num_patches: int
    """Patches of a frame; also the number of the end token, which is never chosen."""
    group_size: int
    """K: gazes that one step proposes."""
    visual_tokens: int
    """P: visual tokens of a frame."""
    first_visual_token: int
    """Number that the step knows the first of them by; smaller ones are gazes."""
    positions: str
    """``true``: tokens are counted one by one. ``reference``: the second and later groups of a frame get the positions
    of the last ``group_size`` tokens of the frame's first step."""
    ratio: float | Sequence[float] | None
    """Most patches of a frame by default, as a share; several: one for each frame of a clip."""
    threshold: float | None
    """Loss at which a frame ends by default."""
    calibration: StopLevels | None
    """What a threshold goes through first; None: it is compared with the predictions as they are."""
    versions: dict[str, str]
    """What this was made with."""

    @classmethod
    def of(cls, selector: AutoGazeSelector, programs: Sequence[Program], *, format: str, suffix: str) -> Self:
        """What is to be said of a gaze model whose two programs are in files of this ending."""
        encoder, step = (
            ProgramFile(file=f"{program.name}{suffix}", inputs=program.inputs, outputs=program.outputs)
            for program in programs
        )
        model, budget = selector.model, selector.default_budget
        config, grid = model.config, model.grid
        return cls(
            programs=format,
            model=selector.name,
            weights=weights_fingerprint(model),
            encoder=encoder,
            decoder_step=step,
            frame_px=model.input_px,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            clip_frames=config.max_num_frames,
            scales_px=grid.scales_px,
            patch_px=grid.patch_px,
            patches_per_scale=grid.patches_per_scale,
            num_patches=grid.num_patches,
            group_size=config.gaze_model_config.gaze_decoder_config.num_multi_token_pred,
            visual_tokens=config.gaze_model_config.connector_config.num_tokens,
            first_visual_token=config.gaze_model_config.gaze_decoder_config.vocab_size,
            positions=config.positions,
            ratio=budget.ratio,
            threshold=budget.threshold,
            calibration=None if model.calibration is None else StopLevels.of(model.calibration),
            versions=versions(),
        )

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {"format": FORMAT, "version": FORMAT_VERSION, **asdict(self)}
