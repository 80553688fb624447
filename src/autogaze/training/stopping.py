"""How a run is asked to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


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
