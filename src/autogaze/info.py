"""What is in a gaze file, and what a model is, in a few plain values."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autogaze.errors import GazeFileError
from autogaze.gaze import Gaze
from autogaze.loading import load_selector

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


def describe(target: str, *, device: str | None = None) -> GazeInfo | ModelInfo:
    """What a gaze file holds, or what a model is.

    Raises:
        GazeFileError: the file is damaged, or is neither a gaze file nor a checkpoint.
        CheckpointError: there is no such model, or it cannot be loaded.
    """
    path = Path(target)
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
            name for name in ("probability", "predicted_loss", "time_seconds") if getattr(gaze, name) is not None
        ),
    )


def _describe_model(model: str, *, device: str | None) -> ModelInfo:
    selector = load_selector(model, device=device)
    described = (type(selector).__doc__ or selector.name).strip().splitlines()[0]
    described = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", described)
    network: Module | None = getattr(selector, "model", None)
    limits = asdict(selector.default_budget)
    return ModelInfo(
        model=model,
        kind=described,
        scales_px=selector.grid.scales_px,
        patch_px=selector.grid.patch_px,
        patches_per_tile=selector.grid.num_patches,
        default_budget={name: value for name, value in limits.items() if value is not None},
        parameters=sum(weight.numel() for weight in network.parameters()) if network is not None else 0,
        needs_motion_vectors=selector.needs_motion_vectors,
        calibration=_describe_calibration(getattr(network, "calibration", None)),
    )


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
