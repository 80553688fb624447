"""Which recipe each sample of a run is made by: a pure function of the sample's number."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np

from autogaze.grid import Indices

CLASSES = 8
"""Passes keep the remainder of a sample's number by this, so that up to so many processes (if they divide it) meet
again what they made."""
_PURPOSE = 3  # 0 to 2 draw recipes, clips and labels


@dataclass(frozen=True, kw_only=True)
class SampleOrder:
    """Recipes in blocks, each gone through several times: first in order, then shuffled.

    Sample ``i`` is the one at place ``i % batch`` of step ``i // batch``; with several processes, process ``rank`` of
    ``world`` has those with ``i % world == rank``. A data set of n recipes is one block of n gone through without end.

    Raises:
        ValueError: a number is below 1.
    """

    block: int
    """Recipes of a block."""
    reuse: int | None = 1
    """Times that a block is gone through before the next one; None: without end."""
    seed: int = 0
    """Seed of the shuffles."""

    def __post_init__(self) -> None:
        for name in ("block", "reuse"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def classes(self) -> int:
        """Every pass keeps ``i % classes``; a block that is a multiple of 8 has :data:`CLASSES`."""
        return gcd(self.block, CLASSES)

    def number(self, i: int) -> int:
        """Recipe number of sample ``i``."""
        turn, place = divmod(i, self.block)
        block, time = self._block_and_time(turn)
        if time:
            place = int(_shuffled(self.seed, self.block, self.classes, turn)[place])
        return block * self.block + place

    def block_of(self, i: int) -> int:
        """Number of the block that sample ``i`` belongs to."""
        return self._block_and_time(i // self.block)[0]

    def is_last(self, i: int) -> bool:
        """Whether the recipe of sample ``i`` never comes again."""
        return self.reuse is not None and self._block_and_time(i // self.block)[1] == self.reuse - 1

    def _block_and_time(self, turn: int) -> tuple[int, int]:
        return (0, turn) if self.reuse is None else divmod(turn, self.reuse)


@lru_cache(maxsize=4)
def _shuffled(seed: int, block: int, classes: int, turn: int) -> Indices:
    """(block,) a permutation that keeps every place's remainder by ``classes``."""
    rng = np.random.default_rng([seed, turn, _PURPOSE])
    order: Indices = rng.permuted(np.arange(block).reshape(-1, classes), axis=0).reshape(block)
    return order
