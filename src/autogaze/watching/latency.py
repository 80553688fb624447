"""How long things took, over hours, in memory that does not grow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_LEAST_SECONDS, _STEP, _BINS = 1e-5, 1.01, 1900
"""Bins of equal ratio from 10 µs to half an hour: a percentile is off by at most half a percent of itself."""


@dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Milliseconds; 0 where nothing was measured."""

    mean: float
    """Mean."""
    p50: float
    """Median."""
    p95: float
    """95 % took at most this long."""
    p99: float
    """99 % took at most this long."""
    max: float
    """The longest."""


class Latencies:
    """Counts durations by size."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._sum_seconds = self._max_seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        place = math.log(max(seconds, _LEAST_SECONDS) / _LEAST_SECONDS) / math.log(_STEP)
        self._counts[min(int(place), _BINS - 1)] += 1
        self._sum_seconds += seconds
        self._max_seconds = max(self._max_seconds, seconds)

    def percentile_seconds(self, percent: float) -> float:
        """The smallest duration that at least so many percent do not pass; 0 without any."""
        count = int(self._counts.sum())
        if not count:
            return 0.0
        rank = max(1, math.ceil(percent / 100 * count))
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(_LEAST_SECONDS * float(_STEP ** (place + 0.5)), self._max_seconds)

    def summary(self) -> LatencySummary:
        """All of it."""
        count = int(self._counts.sum())
        p50, p95, p99 = (1e3 * self.percentile_seconds(percent) for percent in (50, 95, 99))
        mean = 1e3 * self._sum_seconds / max(1, count)
        return LatencySummary(mean=mean, p50=p50, p95=p95, p99=p99, max=1e3 * self._max_seconds)
