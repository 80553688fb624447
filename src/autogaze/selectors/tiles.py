"""Several tiles of a video, each a video of its own, on their way through one selector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, cast

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.selectors.base import Budget, Selector, SelectorSession


class TilesSession(Protocol):
    """Tiles on their way through a selector. What one of them gets depends on its own frames alone."""

    def step(self, opened: Iterable[tuple[int, Frames]]) -> list[Gaze]:
        """The gazes of the next frames of some tiles, each named by its number and at most once, in their order.

        Tiles are taken from ``opened`` as they are needed, so that not all of their frames have to lie in memory.

        Raises:
            ValueError: there is no such tile, one is named twice, or frames are not of its height and width.
        """
        ...


class TilesSelector(Selector, Protocol):
    """A selector that gazes faster at several tiles than at one after the other."""

    def open_tiles(self, layouts: Sequence[FrameLayout], budget: Budget) -> TilesSession:
        """Start on the tiles of a video; a tile gets what a session of its own layout would give it.

        Raises:
            BudgetError: the budget names a limit that this selector cannot keep.
        """
        ...


class TileByTile:
    """A session for each tile."""

    def __init__(self, sessions: Sequence[SelectorSession]) -> None:
        self._sessions = sessions

    def step(self, opened: Iterable[tuple[int, Frames]]) -> list[Gaze]:
        """See :class:`TilesSession`."""
        return [self._sessions[number].step(frames) for number, frames in once_each(opened, len(self._sessions))]


def open_tiles(selector: Selector, layouts: Sequence[FrameLayout], budget: Budget) -> TilesSession:
    """Tiles of these layouts, together where the selector can do that, one after the other where it cannot.

    Raises:
        BudgetError: the budget names a limit that this selector cannot keep.
    """
    if hasattr(selector, "open_tiles"):
        return cast("TilesSelector", selector).open_tiles(layouts, budget)
    return TileByTile([selector.open(layout, budget) for layout in layouts])


def once_each(opened: Iterable[tuple[int, Frames]], tiles: int) -> Iterable[tuple[int, Frames]]:
    """The same, looked at one by one.

    Raises:
        ValueError: a tile is not one of so many, or named twice.
    """
    named: set[int] = set()
    for number, frames in opened:
        if not 0 <= number < tiles:
            raise ValueError(f"tiles are numbered 0…{tiles - 1}, got {number}")
        if number in named:
            raise ValueError(f"tile {number} is named twice; give all of its frames at once")
        named.add(number)
        yield number, frames
