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


def is_far(below: Point, above: Point) -> bool:
    """Whether two points of a front lie more than a factor of :data:`FAR` apart."""
    return above.kept > FAR * below.kept


def steps(fronts: Sequence[Sequence[Point]], *, step: float) -> list[float]:
    """The qualities, multiples of ``step``, that as many fronts as possible reach; none if no two share one.

    They are in ascending order.
    """
    ranges = [(front[0].quality, front[-1].quality) for front in fronts if front]
    if len(ranges) < 2:
        return []
    first = math.ceil(min(low for low, _ in ranges) / step - 1e-9)
    last = math.floor(max(high for _, high in ranges) / step + 1e-9)
    reached = {
        round(number * step, 9): sum(low <= round(number * step, 9) <= high for low, high in ranges)
        for number in range(first, last + 1)
    }
    most = max(reached.values(), default=0)
    return [quality for quality, count in reached.items() if count == most] if most >= 2 else []
