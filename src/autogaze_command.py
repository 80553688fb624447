"""Where the command ``autogaze`` starts: outside the package, so that Ctrl-C finds it ready before that is imported."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

EXIT_INTERRUPTED = 130


def main() -> NoReturn:
    """Import the command line and run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # whoever ignores Ctrl-C, as nohup does, goes on ignoring it
        signal.signal(signal.SIGINT, _leave)
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        # Read once, when torch is imported. By default threads that wait for each other spin for so long that two of
        # them on two busy cores take several times longer than one; this short a spin costs nothing on idle ones.
        os.environ["GOMP_SPINCOUNT"] = "3000"
    from autogaze.cli import main as run

    run()


def _leave(number: int, frame: object) -> NoReturn:
    # An exception could be swallowed by what is being imported; there is nothing to clean up yet.
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
