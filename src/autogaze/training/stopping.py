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
def stopping_on_signals(run: Stoppable) -> Iterator[None]:
    """While this is open, SIGTERM and Ctrl-C let the run finish its step and save; a second one ends it at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: object) -> None:
        run.must_stop = True
        signal.signal(number, before[signal.Signals(number)])

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
