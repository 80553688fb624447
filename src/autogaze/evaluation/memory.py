"""The most memory that a piece of work held."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

if sys.platform != "win32":
    import resource

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What the kernel takes for "begin anew" (Linux, man proc_pid_clear_refs)."""


class PeakMemory:
    """The most memory since :meth:`reset`: of an accelerator if one is named and held any, else of this process.

    Of the process it is the resident memory. Where the system cannot begin anew (anything but Linux, or a container
    that forbids it) it is the most since the process started.
    """

    def __init__(self, device: str | None = None) -> None:
        """Watch a device, as torch names it; None: this process alone."""
        self._cuda = torch.device(device) if device is not None and torch.device(device).type == "cuda" else None

    def reset(self) -> None:
        """Begin anew."""
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)
        try:
            _RESET.write_text(_RESET_PEAK)
        except OSError:
            return

    def peak_mb(self) -> float | None:
        """In 10⁶ bytes; None where the system does not say."""
        if self._cuda is not None and (held := torch.cuda.max_memory_allocated(self._cuda)):
            return held / 1e6
        try:
            line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024 / 1e6
        except (OSError, StopIteration):
            return _since_start_mb()


def _since_start_mb() -> float | None:
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
