"""What replenishment paints on: a canvas, frames as it sees them, and the search of one frame."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Protocol, Self

import numpy as np

from autogaze.grid import FrameLayout
from autogaze.selectors.canvas import Canvas
from autogaze.selectors.cells import Pixels
from autogaze.selectors.distortion import Scales, canvas_errors
from autogaze.selectors.greedy import Goal, Search, Taken, greedy

MANY_OF_A_TILE = 4
"""From so many patches of a tile on, on average over a frame, the next frame is built before its search begins."""


class Easel(Protocol):
    """A canvas with the means to search a frame; what it sees of a frame serves any of its forks."""

    @property
    def canvas(self) -> Canvas:
        """The canvas after the last frame."""
        ...

    def fork(self) -> Self:
        """An easel with the same canvas, which goes on by itself from here."""
        ...

    def see(self, rgb: Pixels) -> Any:
        """What :meth:`advance` needs to know of an (H, W, 3) uint8 frame, whatever the canvas shows.

        Raises:
            ValueError: the frame is not of the layout's size.
        """
        ...

    def see_each(self, rgb: Pixels) -> Iterator[Any]:
        """What :meth:`see` says of each of (T, H, W, 3) frames."""
        ...

    def move(self, seen: Any, shift_px: tuple[int, int]) -> bool:
        """Move the canvas (down, right) if that brings it nearer to a frame; whether it did."""
        ...

    def advance(self, seen: Any, *, max_patches: int, goal: Goal, least_gain: float = 0.0) -> Taken:
        """Search one frame as :func:`~autogaze.selectors.greedy.greedy` does, and paste what was taken."""
        ...


class HostEasel:
    """An easel in the processor's memory: patch by patch, on the tiles and scales that matter."""

    def __init__(self, layout: FrameLayout, *, squared: bool) -> None:
        self._squared = squared
        self._taken_of_a_tile, self._least_gain = 0.0, 0.0
        self._last: Scales | None = None
        self.canvas = Canvas(layout)
        """See :attr:`Easel.canvas`."""

    def fork(self) -> Self:
        """See :meth:`Easel.fork`."""
        fork = copy.copy(self)
        fork.canvas = copy.copy(self.canvas)
        fork.canvas.painting = self.canvas.painting.copy()
        return fork

    def see(self, rgb: Pixels) -> Scales:
        """See :meth:`Easel.see`."""
        tiling = self.canvas.tiling
        return Scales(tiling.split(rgb), tiling, squared=self._squared)

    def see_each(self, rgb: Pixels) -> Iterator[Scales]:
        """See :meth:`Easel.see_each`."""
        tiling = self.canvas.tiling
        if tiling.layout.num_tiles > 1:
            yield from map(self.see, rgb)
            return
        # One tile is too little to share out among threads, and hardly any could be left out.
        frames = Scales.of(np.concatenate([tiling.split(one) for one in rgb]), tiling, squared=self._squared)
        yield from (frames[t : t + 1] for t in range(len(rgb)))

    def move(self, seen: Scales, shift_px: tuple[int, int]) -> bool:
        """See :meth:`Easel.move`."""
        still = self.canvas.painting
        moved = still.shifted(seen.tiling, *shift_px)
        errors = [canvas_errors(seen.tiles, one, seen.tiling, squared=False).absolute.sum() for one in (still, moved)]
        if errors[1] < errors[0]:
            self.canvas.painting = moved
            return True
        return False

    def advance(self, seen: Scales, *, max_patches: int, goal: Goal, least_gain: float = 0.0) -> Taken:
        """See :meth:`Easel.advance`."""
        errors = canvas_errors(seen.tiles, self.canvas.painting, seen.tiling, squared=self._squared)
        search = Search(errors, seen)
        if self._taken_of_a_tile >= MANY_OF_A_TILE:
            # Where many patches are taken most scales are needed, and all at once they are built fastest.
            search.build(at_least=self._least_gain)
        # The last frame goes now, not before: what is freed before more is asked for goes back to the system, from
        # which it comes again page by page, and slowly.
        self._last = seen
        taken = greedy(search, max_patches=max_patches, goal=goal, least_gain=least_gain)
        seen.paste(taken.index, self.canvas.painting)
        self._taken_of_a_tile = len(taken.index) / len(seen.tiles)
        self._least_gain = taken.gain.min(initial=np.inf)
        return taken
