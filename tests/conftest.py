"""What every test leaves as it found it: signal handlers and torch's random numbers."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

# Whoever runs the tests in the background may ignore Ctrl-C; the processes that tests start must not inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    random = torch.get_rng_state()
    yield
    torch.set_rng_state(random)
    for number, handler in handlers.items():
        signal.signal(number, handler)
