"""What a run says while it goes: a JSON value a line in ``log.jsonl``, lines in the terminal, trackers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autogaze.training.processes import Processes

LOG = logging.getLogger("autogaze.training")


class RunLog:
    """The log of one sitting; silent in all processes but the main one."""

    def __init__(self, folder: Path, processes: Processes, *, say: Callable[[str], None] = LOG.info) -> None:
        """``say`` shows a line to whoever watches."""
        self._path = folder / "log.jsonl"
        self._processes, self._say = processes, say

    def event(self, name: str, *, step: int, seconds: float, **values: Any) -> None:
        """Add a line."""
        if not self._processes.is_main:
            return
        line = {"event": name, "step": step, "seconds": round(seconds, 2), **values}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: _plain(value) for key, value in line.items()}) + "\n")
        numbers = {key: value for key, value in values.items() if isinstance(value, float)}
        self._processes.track({f"{name}/{key}": value for key, value in numbers.items()}, step=step)
        if name != "start":
            shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in line.items()}
            self._say(" ".join(f"{key}={value}" for key, value in shown.items()))


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
