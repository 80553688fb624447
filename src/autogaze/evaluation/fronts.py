"""Pareto fronts: what is worth its patches, and how many patches equal quality costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one setting keeps and what that gives."""

    kept: float
    """Share of the patches, above 0."""
    quality: float
    """The larger the better; a loss comes with its sign turned, or as −log(loss)."""
    setting: str = ""
    """Name of the setting."""


Front = tuple[Point, ...]
"""Points that rise in ``kept`` and in ``quality``, both strictly."""


def pareto_front(points: Iterable[Point]) -> Front:
    """The points that no other point beats: none has at least their quality for fewer patches, nor more for as many.

    Of equal points the first one stands for all. A point without a finite quality, or that keeps nothing, has no
    place on a logarithmic axis and is left out.
    """
    usable = [point for point in points if point.kept > 0 and math.isfinite(point.quality)]
    front: list[Point] = []
    for point in sorted(usable, key=lambda point: (point.kept, -point.quality)):
        if not front or point.quality > front[-1].quality:
            front.append(point)
    return tuple(front)


_SAMPLES = 33
FAR = 5.0
"""Neighbours on a front whose shares differ by more than this factor tell little about what lies between them."""


def kept_at(front: Sequence[Point], *, quality: float) -> float | None:
    """Share of the patches at which a front reaches a quality; None beyond its ends.

    Between two points the logarithm of the share is linear in the quality. So for decibels, and for −log(loss), it
    is exact where the error is a power of the share.
    """
    around = neighbours(front, quality=quality)
    if around is None:
        return None
    below, above = around
    if below.quality == above.quality:
        return below.kept
    along = (quality - below.quality) / (above.quality - below.quality)
    return float(math.exp((1 - along) * math.log(below.kept) + along * math.log(above.kept)))


def neighbours(front: Sequence[Point], *, quality: float) -> tuple[Point, Point] | None:
    """The points of a front between which a quality lies, twice the same where it is that of a point; None beyond."""
    at_least = [point for point in front if point.quality >= quality]
    at_most = [point for point in front if point.quality <= quality]
    return (at_most[-1], at_least[0]) if at_least and at_most else None


def quality_at(front: Sequence[Point], *, kept: float) -> float | None:
    """Quality that a front gives for a share of the patches, the inverse of :func:`kept_at`; None beyond its ends."""
    at_least = [point for point in front if point.kept >= kept]
    at_most = [point for point in front if point.kept <= kept]
    if not at_least or not at_most:
        return None
    below, above = at_most[-1], at_least[0]
    if below.kept == above.kept:
        return below.quality
    along = math.log(kept / below.kept) / math.log(above.kept / below.kept)
    return (1 - along) * below.quality + along * above.quality


def lead(front: Sequence[Point], other: Sequence[Point]) -> float:
    """How much better one front is than another, the mean over the shares that both span; 0 if they share none."""
    if not front or not other:
        return 0.0
    low, high = max(front[0].kept, other[0].kept), min(front[-1].kept, other[-1].kept)
    if low > high:
        return 0.0
    shares = [low * (high / low) ** (number / (_SAMPLES - 1)) for number in range(_SAMPLES)]
    pairs = [(quality_at(front, kept=kept), quality_at(other, kept=kept)) for kept in shares]
    # Rounding may carry the last share past an end.
    leads = [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    return sum(leads) / len(leads) if leads else 0.0


def is_far(below: Point, above: Point) -> bool:
    """Whether two points of a front lie more than a factor of :data:`FAR` apart."""
    return above.kept > FAR * below.kept


def steps(fronts: Sequence[Sequence[Point]], *, step: float, within: Sequence[Point] | None = None) -> list[float]:
    """The qualities, multiples of ``step``, that as many fronts as possible reach; none if no two share one.

    They are in ascending order and, if ``within`` is given, such as that front reaches.
    """
    ranges = [(front[0].quality, front[-1].quality) for front in fronts if front]
    if len(ranges) < 2:
        return []
    outer = within or [Point(kept=1, quality=quality) for quality in (min(ranges)[0], max(high for _, high in ranges))]
    first = math.ceil(outer[0].quality / step - 1e-9)
    last = math.floor(outer[-1].quality / step + 1e-9)
    reached = {
        round(number * step, 9): sum(low <= round(number * step, 9) <= high for low, high in ranges)
        for number in range(first, last + 1)
    }
    most = max(reached.values(), default=0)
    return [quality for quality, count in reached.items() if count == most] if most >= 2 else []
