"""What is in a gaze file, and what a model is, in a few plain values."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autogaze.errors import GazeFileError
from autogaze.gaze import Gaze
from autogaze.grid import PatchGrid
from autogaze.loading import load_selector
from autogaze.reconstructors.loading import is_reconstructor, load_reconstructor

if TYPE_CHECKING:
    from torch.nn import Module

    from autogaze.models.autogaze.calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class GazeInfo:
    """What a gaze file holds."""

    path: str
    """The file."""
    frames: int
    """Frames that were gazed at."""
    width_px: int
    """Width of a frame."""
    height_px: int
    """Height of a frame."""
    first_seconds: float | None
    """When the first frame is shown."""
    last_seconds: float | None
    """When the last frame is shown."""
    patches_total: int
    """Patches there were to choose from."""
    patches_kept: int
    """Patches that were chosen."""
    kept_share: float
    """``patches_kept / patches_total``."""
    kept_per_scale: dict[str, int]
    """Patches chosen at each scale, by its side in pixels."""
    most_in_a_frame: int
    """Patches of the fullest frame."""
    patch_px: int
    """Side of a patch in pixels of its scale."""
    tiles: str
    """Rows × columns of tiles."""
    numbers: tuple[str, ...]
    """What the file holds beside the patches."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a selector is."""

    model: str
    """As it was asked for."""
    kind: str
    """First line of the selector's own description."""
    scales_px: tuple[int, ...]
    """Scales of its patch grid."""
    patch_px: int
    """Side of a patch in pixels of its scale."""
    patches_per_tile: int
    """Patches of one tile over all scales."""
    default_budget: dict[str, Any]
    """The limits it uses when none are given."""
    parameters: int
    """Learned weights; 0 for a selector without any."""
    needs_motion_vectors: bool
    """Whether it reads the codec's motion vectors, which only some codecs have."""
    calibration: dict[str, Any] | None
    """What its thresholds promise, if it was calibrated: the share of frames that may end above them, under which
    reconstructor, from which threshold on, and which clips it was fitted on."""


@dataclass(frozen=True, kw_only=True)
class ReconstructorInfo:
    """What a reconstructor is."""

    model: str
    """As it was asked for."""
    kind: str
    """First line of the reconstructor's own description."""
    scales_px: tuple[int, ...] | None
    """Scales of its patch grid; None: it takes any."""
    patch_px: int | None
    """Side of a patch in pixels of its scale."""
    patches_per_tile: int | None
    """Patches of one tile over all scales."""
    loss_unit: str
    """What a loss of 1 is."""
    parameters: int
    """Learned weights."""


def describe(target: str, *, device: str | None = None) -> GazeInfo | ModelInfo | ReconstructorInfo:
    """What a gaze file holds, or what a model or a reconstructor is.

    Raises:
        GazeFileError: the file is damaged, or is neither a gaze file nor a checkpoint.
        CheckpointError: there is no such model, or it cannot be loaded.
    """
    path = Path(target)
    if is_reconstructor(target):
        return _describe_reconstructor(target, device=device)
    if path.is_file() and path.suffix != ".safetensors":
        return _describe_gaze(path)
    if path.suffix == ".gaze":
        raise GazeFileError(f"there is no file {target}; `autogaze gaze` writes such files")
    return _describe_model(target, device=device)


def _describe_gaze(path: Path) -> GazeInfo:
    gaze = Gaze.load(path)
    times = [] if gaze.time_seconds is None else gaze.time_seconds.tolist()
    scales_px = gaze.layout.grid.scales_px
    return GazeInfo(
        path=str(path),
        frames=gaze.num_frames,
        width_px=gaze.layout.width_px,
        height_px=gaze.layout.height_px,
        first_seconds=times[0] if times else None,
        last_seconds=times[-1] if times else None,
        patches_total=gaze.num_patches,
        patches_kept=gaze.num_gazes,
        kept_share=gaze.ratio,
        kept_per_scale={str(scale_px): int((gaze.scale_px == scale_px).sum()) for scale_px in scales_px},
        most_in_a_frame=int(gaze.count.max(initial=0)),
        patch_px=gaze.layout.grid.patch_px,
        tiles=f"{gaze.layout.tile_rows} × {gaze.layout.tile_columns}",
        numbers=tuple(
            name
            for name in ("probability", "predicted_loss", "time_seconds", "shift_px")
            if getattr(gaze, name) is not None
        ),
    )


def _describe_model(model: str, *, device: str | None) -> ModelInfo:
    selector = load_selector(model, device=device)
    network: Module | None = getattr(selector, "model", None)
    limits = asdict(selector.default_budget)
    return ModelInfo(
        model=model,
        kind=_first_line(selector),
        scales_px=selector.grid.scales_px,
        patch_px=selector.grid.patch_px,
        patches_per_tile=selector.grid.num_patches,
        default_budget={name: value for name, value in limits.items() if value is not None},
        parameters=_parameters(network),
        needs_motion_vectors=selector.needs_motion_vectors,
        calibration=_describe_calibration(getattr(network, "calibration", None)),
    )


def _describe_reconstructor(name: str, *, device: str | None) -> ReconstructorInfo:
    reconstructor = load_reconstructor(name, device=device)
    network: Module | None = getattr(reconstructor, "model", None) or getattr(reconstructor, "refiner", None)
    grid: PatchGrid | None = getattr(getattr(network, "config", None), "grid", None)
    return ReconstructorInfo(
        model=name,
        kind=_first_line(reconstructor),
        scales_px=grid.scales_px if grid else None,
        patch_px=grid.patch_px if grid else None,
        patches_per_tile=grid.num_patches if grid else None,
        loss_unit=reconstructor.loss_unit,
        parameters=_parameters(network),
    )


def _first_line(described: object) -> str:
    """The first line of a class's description, without the marks of its references."""
    line = (type(described).__doc__ or type(described).__name__).strip().splitlines()[0]
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", line)


def _parameters(network: Module | None) -> int:
    return 0 if network is None else sum(weight.numel() for weight in network.parameters())


def _describe_calibration(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    from autogaze.models.autogaze.calibration import rounded_up  # it imports torch, as only networks need

    return {
        "alpha": calibration.alpha,
        "reconstructor": calibration.reconstructor,
        "lowest_threshold": rounded_up(calibration.lowest_threshold),
        "highest_threshold": rounded_up(calibration.highest_threshold),
        "ratio": calibration.ratio,
        "mode": calibration.mode,
        "clips": calibration.clips,
    }
