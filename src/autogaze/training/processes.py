"""The processes of a run, through accelerate: one, or as many as ``accelerate launch`` or ``torchrun`` started."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from autogaze.errors import TrainingError
from autogaze.extras import require
from autogaze.training.run_settings import RunSettings

PATIENCE = timedelta(hours=2)
"""How long processes wait for one another: the others wait while the main process validates."""


class Processes:
    """This process among those of the run."""

    def __init__(self, settings: RunSettings) -> None:
        """Join the other processes, if there are any.

        Raises:
            MissingExtraError: accelerate is not installed.
            TrainingError: the device is not there, or a tracker is not known or not installed.
        """
        accelerate = require("accelerate", extra="train")
        wanted = settings.device
        if wanted is not None:
            _device(wanted)
        if torch.distributed.is_available():
            # Its functions take the group that is there at their import for a default. An optimiser imports them, and
            # then the group's threads would outlive close(), and often abort the interpreter at its end.
            importlib.import_module("torch.distributed.nn.functional")
        patience = require("accelerate.utils", extra="train").InitProcessGroupKwargs(timeout=PATIENCE)
        # The default of accelerate's own dispatcher would be to move data; nothing here goes through its loaders.
        self._accelerator = accelerate.Accelerator(
            cpu=wanted == "cpu",
            mixed_precision="no",
            log_with=_trackers(settings),
            project_dir=str(settings.out),
            kwargs_handlers=[patience],
        )
        self.device: torch.device = self._accelerator.device if wanted in (None, "cpu") else _device(str(wanted))
        """Where this process computes."""
        self._bf16 = settings.precision == "bf16" or (settings.precision == "auto" and self.device.type == "cuda")

    @property
    def rank(self) -> int:
        """Number of this process."""
        return int(self._accelerator.process_index)

    @property
    def world(self) -> int:
        """Processes of the run."""
        return int(self._accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes what there is to write."""
        return bool(self._accelerator.is_main_process)

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def wait(self) -> None:
        """Until all processes are here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the other processes, and end the trackers."""
        self._accelerator.end_training()

    # Numbers

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        return values if self.world == 1 else _tensor(self._accelerator.reduce(values, "sum"))

    def from_main(self, value: float) -> float:
        """The main process's value, in all of them."""
        if self.world == 1:
            return value
        return float(self.total(torch.tensor(value if self.is_main else 0.0, dtype=torch.float64).to(self._wide)))

    def any(self, value: bool) -> bool:
        """Whether it is true in one process at least."""
        return value if self.world == 1 else float(self.total(torch.tensor(float(value)).to(self.device))) > 0

    def union(self, values: Mapping[str, str]) -> dict[str, str]:
        """What any process says, in all of them."""
        if self.world == 1:
            return dict(values)
        gather = require("accelerate.utils", extra="train").gather_object
        return {name: value for part in gather([dict(values)]) for name, value in part.items()}

    @property
    def _wide(self) -> torch.device | torch.dtype:
        return self.device if self.device.type != "mps" else torch.float32

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes; one message for all of them.

        Sums, where torch's DistributedDataParallel averages: every pass is divided by the units of the whole step.
        """
        if self.world == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        # A parameter may have no part in one process's passes.
        flat = torch.cat([_gradient(parameter).reshape(-1) for parameter in trained])
        flat = self.total(flat)
        first = 0
        for parameter in trained:
            parameter.grad = flat[first : first + parameter.numel()].view_as(parameter).clone()
            first += parameter.numel()

    def share_weights(self, module: nn.Module) -> None:
        """Give all processes the main process's weights."""
        if self.world == 1:
            return
        with torch.no_grad():
            for value in module.state_dict().values():
                value.copy_(self.total(value if self.is_main else torch.zeros_like(value)))

    # Trackers

    def start_trackers(self, project: str, settings: Mapping[str, Any]) -> None:
        """Begin a run in every tracker."""
        if self._accelerator.log_with:
            self._accelerator.init_trackers(project, config=dict(settings))

    def track(self, values: Mapping[str, float], *, step: int) -> None:
        """Log to every tracker."""
        if self._accelerator.log_with:
            self._accelerator.log(dict(values), step=step)


def _device(name: str) -> torch.device:
    """A device that is there.

    Raises:
        TrainingError: it is not.
    """
    kind, _, number = name.partition(":")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in there or (number and not number.isdigit()):
        raise TrainingError(f"--device {name} is not known; give cpu, cuda, cuda:1 or mps")
    if int(number or 0) >= there[kind]:
        seen = f"torch sees {there[kind] or 'no'} such device{'' if there[kind] == 1 else 's'}"
        raise TrainingError(f"--device {name} is not there: {seen}; leave --device out to use what there is")
    return torch.device(name)


def _trackers(settings: RunSettings) -> list[str] | None:
    if not settings.trackers:
        return None
    tracking = require("accelerate.tracking", extra="train")
    known = sorted(str(name) for name in tracking.LOGGER_TYPE_TO_CLASS)
    there = {str(name) for name in tracking.get_available_trackers()}
    for name in settings.trackers:
        if name not in known:
            raise TrainingError(f"--trackers {name} is not known; known are {', '.join(known)}")
        if name not in there:
            raise TrainingError(f"--trackers {name} needs a package that is not installed; pip install {name}")
    return list(settings.trackers)


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _tensor(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value
