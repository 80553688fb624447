"""A selector from what a user calls it: a name, the bundled checkpoint, a path, or a hub id."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from autogaze.errors import AutoGazeError, CheckpointError, OptionError
from autogaze.selectors import SELECTORS, check_still, make_selector
from autogaze.selectors.base import Selector
from autogaze.summary import fingerprint

if TYPE_CHECKING:
    from autogaze.models.autogaze import AutoGaze
    from autogaze.selectors.replenish import Motion

Model: TypeAlias = "str | os.PathLike[str] | Selector | AutoGaze"
"""What :func:`load_selector` takes."""

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
"""Of the weights and activations of a gaze model; its heads are read out in fp32 whatever it is."""

DEFAULT_MODEL = "replenish"
"""What looks at a video when nothing else is asked for."""
BUNDLED = "bundled"
"""Name of the checkpoint that comes with the package."""
BUNDLED_FOLDER = Path(__file__).parent / "checkpoints" / "gaze"
"""Where that checkpoint lies: ``config.json`` and ``model.safetensors``."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_selector(
    model: Model = DEFAULT_MODEL,
    *,
    device: str | None = None,
    motion: Motion = "none",
    precision: Precision = "fp32",
) -> Selector:
    """The selector that ``model`` names.

    Args:
        model: a selector without weights (``autogaze.selectors.SELECTORS``), ``"bundled"``, a checkpoint folder,
            a ``.safetensors`` file, a hub id ``owner/name``; a selector, which is returned as it is; or an
            :class:`~autogaze.models.autogaze.AutoGaze`, which gazes where it is.
        device: where a learned model runs, as torch names it; None: the CPU. Of the selectors without weights
            ``replenish`` runs on ``cuda`` too, all others on the CPU; it plays no part for objects.
        motion: ``"global"``: the canvas of ``replenish`` moves with the camera, see
            :class:`~autogaze.selectors.replenish.Replenish`; nothing else has one that could.
        precision: of a gaze model. With ``"bf16"`` or ``"fp16"`` it is faster where the device multiplies them faster,
            and some of its patches are others.

    Raises:
        CheckpointError: nothing is called that, or the checkpoint is missing, damaged or does not fit.
        AutoGazeError: there is no such device.
        TypeError: ``model`` is none of these things.
        OptionError: there is no such motion or precision, or not for this model.
    """
    if precision not in get_args(Precision):
        raise OptionError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    if not isinstance(model, (str, os.PathLike)):
        if precision != "fp32":
            raise OptionError(
                f"a model that is an object is as precise as it was made, got also precision={precision!r}; leave it "
                f"out and give AutoGaze.from_pretrained(…, dtype=…)"
            )
        if motion != "none":
            raise OptionError(
                f"a model that is an object moves as it was made, got also motion={motion!r}; leave it out and give "
                f"Replenish(motion={motion!r})"
            )
        return _selector_of(model)
    model = os.fspath(model)
    if device is not None:
        check_device(device)
    if model in SELECTORS:
        if precision != "fp32":
            raise OptionError(f"{model} has no network that precision={precision!r} could be of; leave it out")
        return make_selector(model, device=device, motion=motion)
    source = checkpoint_path(model)
    if source is None and not _HUB_ID.fullmatch(model):
        raise CheckpointError(
            f"{model!r} is no model{_nearest(model)}; legal are {', '.join(SELECTORS)}, {BUNDLED}, "
            f"a checkpoint folder, a .safetensors file, or a hub id such as nvidia/AutoGaze"
        )
    check_still(model, motion=motion)
    # torch and the network are imported only by those who load one.
    import torch

    from autogaze.models.autogaze.selector import AutoGazeSelector

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    name = BUNDLED if model == BUNDLED else None
    return AutoGazeSelector.from_pretrained(str(source or model), device=device, dtype=dtype, name=name)


def _selector_of(model: Selector | AutoGaze) -> Selector:
    if hasattr(model, "open"):
        return cast("Selector", model)
    from autogaze.models.autogaze import AutoGaze
    from autogaze.models.autogaze.selector import AutoGazeSelector

    if isinstance(model, AutoGaze):
        return AutoGazeSelector(model)
    raise TypeError(f"model must be a name, a path, a selector or an AutoGaze, got {type(model).__name__}")


def checkpoint_path(model: str) -> Path | None:
    """The folder or file on this disk that ``model`` names; None for selectors without weights and hub ids.

    Raises:
        CheckpointError: ``"bundled"``, and this version comes without a checkpoint; or a file that cannot be one.
    """
    if model in SELECTORS:
        return None
    if model == BUNDLED:
        if not BUNDLED_FOLDER.is_dir():
            raise CheckpointError(
                f"no checkpoint is bundled with this version of autogaze; use {DEFAULT_MODEL}, which needs none, "
                f"or the path or hub id of a checkpoint"
            )
        return BUNDLED_FOLDER
    try:
        path = Path(model).expanduser()
        if path.is_file() and path.suffix != ".safetensors":
            raise CheckpointError(f"{model} is no checkpoint; legal is a folder or a .safetensors file")
        return path if model and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a null character, an unknown ~user
        return None


def checkpoint_fingerprint(path: Path) -> str | None:
    """What tells a checkpoint from what lay there before: weights, and the configuration and calibration beside them.

    None if it is gone.
    """
    from autogaze.models.autogaze.calibration import CALIBRATION_NAME
    from autogaze.models.autogaze.checkpoint import CONFIG_NAME

    return fingerprint(path, beside=(CONFIG_NAME, CALIBRATION_NAME))


def _nearest(model: str) -> str:
    """A hint at what was meant, or nothing."""
    if os.sep in model:
        return " and no such file or folder exists"
    close = get_close_matches(model, [*SELECTORS, BUNDLED], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def check_device(device: str) -> None:
    """Refuse a device that does not exist here.

    Raises:
        AutoGazeError: there is no such device.
    """
    import torch

    try:
        wanted = torch.device(device)
        torch.empty(0, device=device)
        if wanted.type == "cpu" and wanted.index:
            raise RuntimeError("there is one cpu, whatever its number")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise AutoGazeError(
            f"device {device!r} cannot be used on this machine; cpu always can, and `autogaze checks` lists the others"
        ) from error
    if wanted.type == "meta":
        raise AutoGazeError("device 'meta' holds no values; use cpu, cuda or mps")
