"""How a run is asked to stop, and how it says why it stopped by itself."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from autogaze.errors import AutoGazeError
from autogaze.terminal import complain, error_line

EXIT_FAILED = 2


class Stoppable(Protocol):
    """A run that looks at :attr:`must_stop` after every step."""

    must_stop: bool


@contextmanager
def stopping_on_sigterm(run: Stoppable) -> Iterator[None]:
    """While this is open, SIGTERM lets the run finish its step and save, instead of ending the process."""

    def stop(number: int, frame: object) -> None:
        run.must_stop = True

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def telling_errors() -> Iterator[None]:
    """Around a whole command: an error that people can do something about becomes one line on standard error.

    Raises:
        SystemExit: there was one; the status is :data:`EXIT_FAILED`.
    """
    try:
        yield
    except (AutoGazeError, OSError, ValueError) as error:
        complain(error_line(error))
        sys.exit(EXIT_FAILED)
