"""Shares and means of frames with intervals that know that the frames of one clip go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Shape letters: N frames of all clips.

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
"""Of every interval here."""
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
"""Standard errors from the middle of an interval to its end."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of frames with two intervals of :data:`CONFIDENCE`."""

    rate: float
    """The share."""
    wilson: tuple[float, float]
    """Wilson's interval, as if every frame stood for itself."""
    clustered: tuple[float, float]
    """The same with the number of frames that would tell as much if they did: those of one clip go wrong together."""


def share_of(flags: NDArray[np.bool_], clip: NDArray[np.integer[Any]]) -> Share:
    """The share of (N,) true values, with its intervals; ``clip`` is the clip of each.

    The clustered interval is Wilson's for ``p (1 - p) / se²`` frames, where se is the standard error over clips; for as
    many as there are clips where all frames are alike, or there is one clip. There never count more than N. (Dean and
    Pagano, *Evaluating Confidence Interval Methods for Binomial Proportions in Clustered Surveys*, 2015.)

    Raises:
        ValueError: there is no frame.
    """
    N = len(flags)
    if not N:
        raise ValueError("a share needs at least one frame, got none")
    rate = float(flags.mean())
    clips = len(np.unique(clip))
    error = standard_error(flags.astype(np.float64), clip)
    if clips < 2 or rate in (0.0, 1.0):
        effective = float(clips)
    else:
        effective = min(float(N), rate * (1 - rate) / error**2) if error else float(N)
    return Share(rate=rate, wilson=wilson(rate, N), clustered=wilson(rate, effective))


def wilson(rate: float, count: float) -> tuple[float, float]:
    """Wilson's interval of :data:`CONFIDENCE` for a share seen among ``count`` independent frames (Wilson 1927)."""
    z = Z
    middle = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    # At 0 and 1 an end is exact but for rounding.
    return max(0.0, min(rate, middle - half)), min(1.0, max(rate, middle + half))


def standard_error(values: Floats, clip: NDArray[np.integer[Any]]) -> float:
    """Standard error of the mean of (N,) values of which those of one clip may go together; 0 for a single clip."""
    groups, inverse = np.unique(clip, return_inverse=True)
    if len(groups) < 2:
        return 0.0
    sums = np.bincount(inverse, weights=values - values.mean())
    return float(np.sqrt(len(groups) / (len(groups) - 1) * np.square(sums).sum()) / len(values))
