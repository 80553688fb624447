"""How much memory a training process may fill with clips that come again."""

from __future__ import annotations

import os
from pathlib import Path

from autogaze.extras import require

MOST_BYTES = 2**33
"""Never more; a clip of 16 frames of 224 px takes 2.4 MB, so it holds 3,567 of them."""
SHARE = 4
"""At most one part of so many of the memory is filled."""
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def kept_bytes() -> int:
    """Bytes for the clips that this process keeps until they come again.

    A quarter of what memory the machine has to give, or of what a container may have if that is less, divided by the
    training processes of the machine.

    Raises:
        MissingExtraError: psutil, which comes with accelerate, is not installed.
    """
    there = int(require("psutil", extra="train").virtual_memory().available)
    for limit in _CONTAINER_LIMITS:
        try:
            there = min(there, int(limit.read_text()))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return min(MOST_BYTES, there // SHARE // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
