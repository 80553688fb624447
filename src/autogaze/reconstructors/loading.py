"""A reconstructor from what a user calls it: a name, a checkpoint, a hub id, or an object."""

from __future__ import annotations

import json
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from autogaze.errors import CheckpointError
from autogaze.reconstructors.base import Reconstructor
from autogaze.reconstructors.canvas import CanvasReconstructor
from autogaze.reconstructors.refined import RefinedReconstructor
from autogaze.reconstructors.refiner import REFINER_TYPE, Refiner
from autogaze.tasks.video_mae_reconstruction.checkpoint_video_mae import PUBLISHED_NAME
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VIDEO_MAE_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE

ReconstructorLike: TypeAlias = "str | os.PathLike[str] | Reconstructor | VideoMAE | Refiner"
"""What :func:`load_reconstructor` takes."""

DEFAULT_RECONSTRUCTOR = "canvas"
"""What rebuilds a video when nothing else is asked for."""
REFINED = "refined"
"""Name of the refiner that comes with the package."""
BUNDLED_REFINER = Path(__file__).parents[1] / "checkpoints" / "refiner"
"""Where that refiner lies: ``config.json`` and ``model.safetensors``."""
NAMES: Sequence[str] = (DEFAULT_RECONSTRUCTOR, REFINED)
"""Reconstructors that need no path."""
_PICKLES = (".pt", ".bin")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_reconstructor(
    reconstructor: ReconstructorLike = DEFAULT_RECONSTRUCTOR, *, device: str | torch.device | None = None
) -> Reconstructor:
    """The reconstructor of that name.

    Args:
        reconstructor: ``"canvas"``; ``"refined"``, the refiner that comes with the package; a folder or
            ``.safetensors`` file of a refiner or a VideoMAE; a published ``videomae.pt``; a hub id ``owner/name``; a
            reconstructor, which is returned as it is; a :class:`Refiner` or a :class:`VideoMAE`.
        device: where a learned one runs, as torch names it; None: the CPU. Objects stay where they are.

    Raises:
        CheckpointError: nothing is called that, or the checkpoint is missing, damaged or does not fit.
        TypeError: it is none of these things.
    """
    if not isinstance(reconstructor, (str, os.PathLike)):
        return _reconstructor_of(reconstructor)
    name = os.fspath(reconstructor)
    if name == DEFAULT_RECONSTRUCTOR:
        return CanvasReconstructor()
    source = reconstructor_path(name)
    if source is None and not _HUB_ID.fullmatch(name):
        close = get_close_matches(name, NAMES, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise CheckpointError(
            f"{name!r} is no reconstructor{hint}; legal are {', '.join(NAMES)}, the folder or file of a refiner or a "
            f"VideoMAE, or a hub id such as bfshi/VideoMAE_AutoGaze"
        )
    if source is not None and _model_type(source) == REFINER_TYPE:
        return RefinedReconstructor(Refiner.from_pretrained(source, device=device), name=_short_name(name))
    from autogaze.reconstructors.video_mae import VideoMAEReconstructor
    from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE

    model = VideoMAE.from_pretrained(source or name, device=device)
    try:
        return VideoMAEReconstructor(model, name=_short_name(name))
    except ValueError as error:
        raise CheckpointError(f"{name}: {error}") from error


def is_reconstructor(name: str) -> bool:
    """Whether a name is that of a reconstructor that needs no hub, as far as its files say without being loaded."""
    if name in NAMES:
        return True
    path = reconstructor_path(name)
    if path is None:
        return False
    if path.is_file() and path.suffix in _PICKLES:
        return True
    is_checkpoint = path.is_dir() or path.suffix == ".safetensors"
    return is_checkpoint and (_model_type(path) in (REFINER_TYPE, VIDEO_MAE_TYPE) or (path / PUBLISHED_NAME).is_file())


def reconstructor_path(name: str) -> Path | None:
    """The folder or file on this disk that ``name`` means; None for the canvas and hub ids.

    Raises:
        CheckpointError: ``"refined"``, and this version comes without a refiner.
    """
    if name == DEFAULT_RECONSTRUCTOR:
        return None
    if name == REFINED:
        if not BUNDLED_REFINER.is_dir():
            raise CheckpointError(
                f"no refiner is bundled with this version of autogaze; use {DEFAULT_RECONSTRUCTOR}, which needs no "
                "weights, or the path of a refiner or a VideoMAE"
            )
        return BUNDLED_REFINER
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a null character, an unknown ~user
        return None


def _reconstructor_of(reconstructor: Reconstructor | VideoMAE | Refiner) -> Reconstructor:
    if hasattr(reconstructor, "open") and hasattr(reconstructor, "loss_unit"):
        return cast("Reconstructor", reconstructor)
    if isinstance(reconstructor, Refiner):
        return RefinedReconstructor(reconstructor)
    from autogaze.reconstructors.video_mae import VideoMAEReconstructor
    from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE

    if isinstance(reconstructor, VideoMAE):
        return VideoMAEReconstructor(reconstructor)
    raise TypeError(
        f"reconstructor must be a name, a path, a reconstructor, a Refiner or a VideoMAE, "
        f"got {type(reconstructor).__name__}"
    )


def _model_type(path: Path) -> object:
    """What the configuration of a checkpoint says it is; None where there is none, or it is damaged."""
    config = path / "config.json" if path.is_dir() else path.with_name("config.json")
    try:
        data = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # what is wrong with it, the loader of the model says best
    return data.get("model_type") if isinstance(data, dict) else None


def _short_name(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix in (".safetensors", ".pt") else path.name or name
