"""Calibrating a checkpoint on disk: videos in, ``calibration.json`` beside the weights out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autogaze.archive import atomic_path
from autogaze.evaluation.calibrate import OnRun, calibrate
from autogaze.evaluation.calibration_clips import Mode, OnError, read_clips
from autogaze.evaluation.conformal import CalibrationError, check_alpha, fewest_clips
from autogaze.loading import BUNDLED, check_device, checkpoint_path
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.calibration import CALIBRATION_NAME, Calibration
from autogaze.models.autogaze.checkpoint import CONFIG_NAME, WEIGHTS_NAME, HubOptions, find_files
from autogaze.reconstructors import load_reconstructor
from autogaze.results import check_out
from autogaze.selectors import SELECTORS


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a checkpoint comes from and where its calibrated self goes."""

    config: Path
    """Its configuration."""
    weights: Path
    """Its weights."""
    folder: Path
    """Folder of the calibration; with a copy of configuration and weights unless they lie there already."""

    @property
    def in_place(self) -> bool:
        """Whether the calibration goes beside the weights that it is fitted for."""
        return self.folder.resolve() == self.config.parent.resolve()


def find_destination(
    checkpoint: str, *, out: str | os.PathLike[str] | None = None, overwrite: bool = False
) -> Destination:
    """Find out before any work where a checkpoint's calibration goes.

    Args:
        checkpoint: a folder, a ``.safetensors`` file, ``"bundled"`` or a hub id.
        out: folder for a complete copy of the checkpoint; None: beside the weights.
        overwrite: replace what is in the way.

    Raises:
        CalibrationError: it is no checkpoint of a gaze model, is not the user's to write into, or something is in the
            way.
        CheckpointError: there is no such checkpoint.
        OutputError: the folder cannot be written into.
    """
    if checkpoint in SELECTORS:
        raise CalibrationError(f"{checkpoint} is no gaze model: it has no stop head to calibrate; give a checkpoint")
    local = checkpoint_path(checkpoint)
    config, weights = find_files(local if local is not None else checkpoint, HubOptions())
    if out is None and (local is None or checkpoint == BUNDLED):
        raise CalibrationError(f"{checkpoint} belongs to a package or to the hub's store; name a folder with --out")
    found = Destination(config=config, weights=weights, folder=config.parent if out is None else Path(out))
    check_out(found.folder)
    names = (CALIBRATION_NAME,) if found.in_place else (CALIBRATION_NAME, CONFIG_NAME, WEIGHTS_NAME)
    taken = [name for name in names if (found.folder / name).exists()]
    if taken and not overwrite:
        raise CalibrationError(
            f"{found.folder} holds {' and '.join(taken)} already; --overwrite replaces it, --out names another folder"
        )
    return found


def calibrate_checkpoint(
    checkpoint: str,
    videos: Sequence[str],
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    alpha: float = 0.1,
    reconstructor: str = "canvas",
    ratio: float = 0.75,
    levels: int = 10,
    wanted: Sequence[float] = (),
    clips_per_video: int = 1,
    max_clips: int | None = None,
    mode: Mode = "resize",
    seed: int = 0,
    device: str | None = None,
    on_error: OnError | None = None,
    on_run: OnRun | None = None,
) -> tuple[Calibration, Path]:
    """Fit a checkpoint's correction and store it; the calibration and its file.

    Takes the options of :func:`find_destination`, :func:`~autogaze.evaluation.calibration_clips.read_clips` and
    :func:`~autogaze.evaluation.calibrate.calibrate`, and raises their errors. ``device`` is where model and
    reconstructor run, as torch names it.
    """
    if clips_per_video < 1:
        raise CalibrationError(f"clips_per_video must be at least 1, got {clips_per_video}")
    if device is not None:
        check_device(device)
    destination = find_destination(checkpoint, out=out, overwrite=overwrite)
    if len(videos) * clips_per_video < fewest_clips(check_alpha(alpha)):
        raise CalibrationError(
            f"alpha {alpha:g} can be promised from {fewest_clips(alpha)} clips on, got {len(videos)} videos; give "
            f"more of them, several clips of each (--clips-per-video), or a larger alpha"
        )
    model = AutoGaze.from_pretrained(destination.weights, device=device, calibrated=False)
    judge = load_reconstructor(reconstructor, device=model.device)
    clips = read_clips(
        videos,
        grid=model.grid,
        clip_frames=model.config.max_num_frames,
        clips_per_video=clips_per_video,
        max_clips=max_clips,
        mode=mode,
        seed=seed,
        on_error=on_error,
    )
    calibration = calibrate(
        model,
        clips,
        alpha=alpha,
        reconstructor=judge,
        ratio=ratio,
        levels=levels,
        wanted=wanted,
        on_run=on_run,
    )
    destination.folder.mkdir(parents=True, exist_ok=True)
    if not destination.in_place:
        # The old calibration goes first and the new one comes last: a folder that is interrupted says nothing false.
        (destination.folder / CALIBRATION_NAME).unlink(missing_ok=True)
        for source, name in ((destination.weights, WEIGHTS_NAME), (destination.config, CONFIG_NAME)):
            with atomic_path(destination.folder / name) as temporary:
                shutil.copyfile(source, temporary)
    return calibration, calibration.save(destination.folder)
