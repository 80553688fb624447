"""What was painted of a video so far: 8-bit values, and which of them nobody has painted yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from autogaze.selectors.cells import Pixels, Tiling

# Shape letters: n tiles, S pixels a side of a tile.

GREY = 127
"""What bare values are: half a level below mid-grey."""

HalfLevels = NDArray[np.int16]
"""Colours in half levels of 8 bits, of which mid-grey is a whole number."""
Patch = tuple[int, tuple[slice, slice], Pixels]
"""Number of a tile, rows and columns in it, and the (rows, columns, 3) uint8 pixels to be shown there."""


class Painting:
    """Tiles of a picture. A bare value, one that nobody has painted, is half a level more than its 8 bits say.

    So mid-grey is 127.5 exactly, as far from black as from white, and painting copies bytes.
    """

    def __init__(self, levels: Pixels, bare: NDArray[np.bool_] | None = None) -> None:
        """Tiles that show ``levels``, (n, S, S, 3) uint8, but for ``bare`` values, of the same shape; None: none is."""
        self.levels = levels
        """(n, S, S, 3) uint8, to be changed by :meth:`paste` alone."""
        self.bare: NDArray[np.bool_] = np.zeros(levels.shape, bool) if bare is None else bare
        """(n, S, S, 3) which of them are bare."""
        self.some_bare: NDArray[np.bool_] = np.logical_or.reduce(self.bare, axis=(1, 2, 3))
        """(n,) whether a tile has bare values."""

    @classmethod
    def blank(cls, tiling: Tiling) -> Self:
        """Nothing but bare values; 0 and not bare in the padding."""
        levels, bare = np.full(tiling.tiles_shape, GREY, np.uint8), np.ones(tiling.tiles_shape, bool)
        for tiles in (levels, bare):
            tiling.clear_padding(tiles)
        return cls(levels, bare)

    @classmethod
    def of(cls, half_levels: NDArray[np.signedinteger[Any]]) -> Self:
        """The painting that has these :attr:`half_levels`."""
        return cls((half_levels >> 1).astype(np.uint8), (half_levels & 1).astype(bool))

    def copy(self) -> Self:
        """A painting that goes on by itself from here."""
        return type(self)(self.levels.copy(), self.bare.copy())

    def shifted(self, tiling: Tiling, down_px: int, right_px: int) -> Self:
        """The whole picture moved by so many pixels, see :meth:`~autogaze.selectors.cells.Tiling.shifted`."""
        return type(self)(*(tiling.shifted(tiles, down_px, right_px) for tiles in (self.levels, self.bare)))

    def paste(self, patches: Iterable[Patch]) -> None:
        """Paint patches, one after the other."""
        painted = set()
        for tile, box, pixels in patches:
            place = (tile, *box)
            self.levels[place] = pixels
            if self.some_bare[tile]:
                self.bare[place] = False
                painted.add(tile)
        for tile in painted:
            self.some_bare[tile] = self.bare[tile].any()

    @property
    def brighter(self) -> Pixels:
        """(n, S, S, 3) uint8 the picture with bare values half a level too bright, as :attr:`levels` are too dark."""
        brighter: Pixels = self.levels + self.bare.view(np.uint8)
        return brighter

    @property
    def half_levels(self) -> HalfLevels:
        """(n, S, S, 3) the picture in half levels."""
        half_levels: HalfLevels = np.add(self.levels, self.brighter, dtype=np.int16)
        return half_levels
