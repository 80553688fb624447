"""What a trainer needs to know of the thing it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor, nn

BatchT = TypeVar("BatchT")
ClipT = TypeVar("ClipT")
Tell = Callable[[str, str], None]
"""Hears the path of what cannot be read, and why."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of a run's work one process does."""

    rank: int = 0
    """Number of the process."""
    world: int = 1
    """Processes of the run."""
    first_step: int = 0
    """Step that it begins with."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When something happens in a run."""

    step: int
    """Steps done before."""
    share: float
    """How much of the whole run is done, 0 to 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ParameterGroup:
    """Parameters that are treated alike."""

    parameters: Sequence[nn.Parameter]
    """What is trained."""
    lr_scale: float = 1.0
    """Multiplies the learning rate."""
    clipped_by_themselves: bool = False
    """Their gradient is shortened by its own length, not together with that of the others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Terms:
    """What one pass says. Each number is this pass's part: over all passes and processes they add up to the value."""

    total: Tensor
    """Scalar whose gradient is followed."""
    values: Tensor
    """(V,) numbers for the log, detached, in the order of the stage's ``value_names``."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How well weights do on the validation clips."""

    values: Mapping[str, float]
    """Numbers for the log."""
    better_below: str
    """Name of the value by which the best checkpoint is chosen: the lower the better."""


class Feed(Protocol[ClipT]):
    """This process's clips, step by step."""

    unreadable: dict[str, str]

    def step(self) -> list[ClipT]:
        """Those of the next step."""
        ...


class Stage(Protocol[ClipT, BatchT]):
    """A kind of training: what is learned, from what, and how one sees that it works."""

    @property
    def module(self) -> nn.Module:
        """What has the weights; on its device before a trainer gets the stage."""
        ...

    @property
    def value_names(self) -> tuple[str, ...]:
        """Names of the values of a pass."""
        ...

    @property
    def num_units(self) -> int:
        """U."""
        ...

    def groups(self) -> Iterable[ParameterGroup]:
        """Every parameter that is trained, once."""
        ...

    def feed(self, share: Share) -> AbstractContextManager[Feed[ClipT]]:
        """The clips of one process from a step on."""
        ...

    def prepare(self, clips: Sequence[ClipT], moment: Moment) -> BatchT:
        """What one pass learns from, with the weights as they are; of at least one clip."""
        ...

    def units(self, batch: BatchT) -> Tensor:
        """(U,) counts by which sums become means; they are added over all passes and processes of the step."""
        ...

    def terms(self, batch: BatchT, units: Tensor) -> Terms:
        """One differentiable pass, its sums divided by the units of the whole step."""
        ...

    def validate(self, weights: Mapping[str, Tensor]) -> Validation | None:
        """Measure weights of the module; None where there are no validation clips."""
        ...

    def draw(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write pictures of what weights do on validation clips."""
        ...

    def save(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write a checkpoint that everything else can load."""
        ...
