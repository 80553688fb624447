"""What a stopped run needs to go on: a folder of safetensors files that appears whole or not at all."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from autogaze.archive import atomic_path, commit, sync, sync_names
from autogaze.errors import CheckpointError, TrainingError
from autogaze.models.autogaze.checkpoint import fitted, write_tensors
from autogaze.results import check_out

if sys.platform != "win32":
    import fcntl

PROGRESS_NAME = "progress.json"
PICTURES_KEPT = 10
"""Sets of pictures of a run that are kept, beside that of the best validation."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Time spent training, over all sittings."""
    best: float = math.inf
    """Value of the best validation."""
    best_step: int = 0
    """Step of that."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the run was told, as JSON has it."""
    data: dict[str, str] = field(default_factory=dict)
    """What it learned from, see :meth:`RunSettings.data`."""


class Averaged:
    """Exponential moving average of a model's weights, with a warm-up."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Take the weights after ``step`` steps into account."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = model.state_dict()
        torch._foreach_lerp_(list(self.weights.values()), [now[name] for name in self.weights], 1 - decay)


def has_state(out: Path) -> bool:
    """Whether there is a complete state in a run's folder."""
    return bool(_complete(out / "state"))


def check_place(out: Path, *, resume: bool) -> None:
    """Refuse a folder that cannot be written, or whose ``state`` a new run would replace.

    Raises:
        OutputError: it is no folder, or files cannot be made in it.
        TrainingError: there is a complete state in it, and the run is not to go on from it.
    """
    check_out(out)
    if not resume and has_state(out):
        raise TrainingError(f"{out} holds the state of a run; --resume goes on, another --out starts anew")


@contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """While a run writes into a folder no other may, such as one that was started again before this one had ended.

    Raises:
        TrainingError: another does.
    """
    if sys.platform == "win32":  # has no such locks
        yield
        return
    descriptor = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TrainingError(
                    f"another run is writing into {out}; wait for it, or choose another --out"
                ) from error
        yield
    finally:
        os.close(descriptor)


def save_state(
    folder: Path,
    *,
    model: nn.Module,
    averaged: Averaged,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    keep: int,
) -> None:
    """Write everything into a new folder below ``folder`` and remove all but the ``keep`` newest.

    Four files of the size of the weights, and a small one that is written last and makes the folder count. A complete
    state of the same step is the one that the run went on from, and stays: it may be the only one there is.

    Raises:
        OSError: a file cannot be written.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moments: dict[str, dict[str, Tensor]] = {kind: {} for kind in _MOMENTS}
    for parameter, values in optimizer.state.items():
        for kind in _MOMENTS:
            moments[kind][names[id(parameter)]] = values[kind]
    new = _place(folder, progress.step)
    if new not in _complete(folder):
        _write(new, model=model, averaged=averaged, moments=moments, progress=progress)
    _remove_others(folder, _complete(folder)[-keep:])


def prune_pictures(folder: Path, *, best_step: int) -> None:
    """Remove all sets of pictures but the :data:`PICTURES_KEPT` newest and that of the best validation."""
    found = _folders(folder)
    _remove_others(folder, [*found[-PICTURES_KEPT:], _place(folder, best_step)])


def _remove_others(folder: Path, kept: Sequence[Path]) -> None:
    for old in _folders(folder):
        if old not in kept:
            shutil.rmtree(old)


def _place(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _write(
    new: Path, *, model: nn.Module, averaged: Averaged, moments: Mapping[str, dict[str, Tensor]], progress: Progress
) -> None:
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(parents=True)
    for name, tensors in {"weights": model.state_dict(), "averaged": averaged.weights, **moments}.items():
        write_tensors({key: value.contiguous() for key, value in tensors.items()}, new / f"{name}.safetensors")
    sync(new)  # all of it before the file that makes it count
    with atomic_path(new / PROGRESS_NAME) as path:
        values = {name: value for name, value in asdict(progress).items() if value != math.inf}
        path.write_text(json.dumps(values) + "\n", encoding="utf-8")
    sync_names(new.parent)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path``, which takes its place if the block succeeds and else vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new, old = (path.with_name(f".{path.name}.{kind}.{secrets.token_hex(6)}") for kind in ("new", "old"))
    new.mkdir()
    try:
        yield new
        if path.exists():
            path.replace(old)
        commit(new, path)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def tidy_folder(path: Path) -> None:
    """Finish what :func:`replace_folder` could not, because the process was killed: the folder that was there before
    is put back where there is none, and what else was left is removed."""
    for old in path.parent.glob(f".{path.name}.old.*"):
        if not path.exists():
            old.replace(path)
    for kind in ("new", "old"):
        for left in path.parent.glob(f".{path.name}.{kind}.*"):
            shutil.rmtree(left)


def load_state(
    folder: str | os.PathLike[str], *, model: nn.Module, averaged: Averaged, optimizer: torch.optim.Optimizer
) -> Progress | None:
    """Read the newest complete state below ``folder`` into the objects given; None where there is none.

    Raises:
        CheckpointError: the state is damaged or of another model.
    """
    found = _complete(Path(folder))
    if not found:
        return None
    newest = found[-1]
    try:
        weights = newest / "weights.safetensors"
        model.load_state_dict(fitted(load_file(weights), wanted=model.state_dict(), path=weights.name))
        for name, value in load_file(newest / "averaged.safetensors").items():
            averaged.weights[name].copy_(value)
        moments = {kind: load_file(newest / f"{kind}.safetensors") for kind in _MOMENTS}
        progress = Progress(**json.loads((newest / PROGRESS_NAME).read_text(encoding="utf-8")))
        _load_moments(optimizer, model, moments, step=progress.step)
    except (CheckpointError, OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        instead = f"go on from {found[-2].name}" if len(found) > 1 else "start anew"
        raise CheckpointError(f"{newest} is damaged or of another model: {error}; remove it to {instead}") from error
    return progress


def _load_moments(
    optimizer: torch.optim.Optimizer, model: nn.Module, moments: dict[str, dict[str, Tensor]], *, step: int
) -> None:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state: dict[str, Any] = optimizer.state_dict()
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state["state"] = {
        place: {
            "step": torch.tensor(float(step)),
            **{kind: moments[kind][names[id(parameter)]] for kind in _MOMENTS},
        }
        for place, parameter in enumerate(ordered)
        if step
    }
    optimizer.load_state_dict(state)


def _complete(folder: Path) -> list[Path]:
    return [path for path in _folders(folder) if (path / PROGRESS_NAME).is_file()]


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))
