"""Spreading one pool of patches over the 16 frames of a clip.

A clip's frames share ``ratio · 16 · patches`` gazes, and never use more. What makes a pool worth more than the
same number per frame is that frames differ: the first one finds an empty canvas, a still one needs nothing. The
sum of the errors is (nearly) least when every frame stops at the same *gain*, the error that one more patch
would still remove; so that is what is held equal, as a rate–distortion encoder holds its λ.

* When the frames up to the clip's end are handed over together, the gain at which all of them stop is found by
  bisection, so that the whole pool is used (:func:`plan`).
* When they come one by one, nothing is known of those to come. A frame then may use an even share of what is
  left, and up to half of what is left for patches that gain more than the last patches of earlier frames did.
  The first frame of a video counts as eight (:func:`share_alone`). What a frame leaves unused stays in the pool,
  and the clip's last frame may use all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FIRST_FRAME_WEIGHT = 8
"""Even shares that the first frame of a video gets: it has to paint what later frames only repair."""

_HIGHEST_GAIN = float(2**40)
_MAX_TRIALS = 24
_WASTE = 0.02


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one frame may use."""

    free: int
    """Patches it may use whatever they gain."""
    most: int
    """Patches it may use at all."""


def share_alone(pool: int, *, frames_left: int, first_of_video: bool) -> Share:
    """What a frame that is handed over alone may use of a pool for it and the ``frames_left − 1`` after it."""
    weight = FIRST_FRAME_WEIGHT if first_of_video else 1
    free = -(-pool * weight // (frames_left - 1 + weight))
    return Share(free=free, most=max(free, pool // 2))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How frames that are known together share a pool."""

    least_gain: float
    """Every frame takes the patches that gain at least this …"""
    counts: tuple[int, ...]
    """… as long as this many are left for each frame after it."""


def plan(spend: Callable[[float], list[int]], *, pool: int) -> Plan:
    """Find the gain at which all frames stop, so that together they use the pool and no more.

    ``spend(least_gain)`` says how many patches each frame takes; it may stop counting beyond the pool.
    """
    counts = spend(0.0)
    if sum(counts) <= pool:
        return Plan(least_gain=0.0, counts=tuple(counts))
    too_much, enough, best = 1.0, _HIGHEST_GAIN, [0] * len(counts)
    for _ in range(_MAX_TRIALS):
        middle = (too_much * enough) ** 0.5
        counts = spend(middle)
        if sum(counts) > pool:
            too_much = middle
            continue
        enough, best = middle, counts
        if sum(counts) >= (1 - _WASTE) * pool or enough < 1.02 * too_much:
            break
    return Plan(least_gain=too_much, counts=tuple(best))
