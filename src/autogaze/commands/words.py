"""What the verbs of the command line share: how arguments are shown and read, and how a batch ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import tyro

from autogaze.errors import AutoGazeError, BudgetError

if TYPE_CHECKING:
    from autogaze.results import Outcome
    from autogaze.summary import ResultSummary

EXIT_FAILED = 2


def argument(metavar: str | None) -> Any:
    """How help shows an argument; that the default is nothing need not be said."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def ratios(text: str | None) -> tuple[float, ...] | None:
    """The numbers of ``--ratio``.

    Raises:
        BudgetError: they are no numbers.
    """
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise BudgetError(
            f"--ratio must be a number above 0 and at most 1, or several with commas between them, got {text!r}"
        ) from error


def listed(option: str, text: str) -> tuple[str, ...]:
    """The names that an option lists.

    Raises:
        AutoGazeError: there is a comma with no name before or after it.
    """
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise AutoGazeError(f"{option} must be names with one comma between two of them, got {text!r}")
    return words


@contextlib.contextmanager
def keeping_what_is_done(outcomes: Sequence[Outcome[ResultSummary]], num_sources: int) -> Iterator[None]:
    """Say when a batch ends early that its first part need not be done again."""
    try:
        yield
    except (KeyboardInterrupt, OSError):
        done = sum(outcome.summary is not None for outcome in outcomes)
        if done and len(outcomes) < num_sources:
            from autogaze import terminal

            terminal.complain(f"{done} of {num_sources} sources are done; the same command does the rest")
        raise


def about(source: str, message: str) -> str:
    """A message that names its source."""
    return message if source in message else f"{source}: {message}"
