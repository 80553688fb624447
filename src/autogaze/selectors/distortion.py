"""How far pictures are from a frame, in whole numbers: errors per pixel, their sums per atom, loss and PSNR."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from autogaze.grid import Indices
from autogaze.native.pixels import pixel_library
from autogaze.selectors.cells import Cells, Pixels, Tiling
from autogaze.selectors.painting import Painting

# Shape letters: n tiles, S pixels a side of a tile, K scales, A atoms of a tile.

LEVELS = 510
"""What 1.0 is in half levels of 8 bits, the unit of every error: mid-grey, 0.5, is a whole number of them."""

TILES_AT_ONCE = 8
"""Most tiles that are worked on together: many for few calls, few enough to stay in a processor's cache."""
WORTH_SHARING = 4
"""Fewer tiles than this are done sooner than other threads have begun."""

Magnitudes = NDArray[np.unsignedinteger[Any]]
"""Errors without their sign."""
Sums = NDArray[np.float64]
"""Sums of errors: whole numbers far below 2⁵³, so that adding and subtracting them is exact in any order."""


def loss(absolute: float, num_values: int) -> float:
    """Mean absolute error, colours in 0…1, of a sum of errors over ``num_values`` pixels times channels."""
    return float(absolute) / (LEVELS * num_values)


def psnr_db(squared: float, num_values: int) -> float:
    """Peak signal-to-noise ratio of a sum of squared errors; infinite where nothing differs."""
    return 10 * math.log10(LEVELS**2 * num_values / squared) if squared else math.inf


def picture_error(tiles: Pixels, picture: Pixels) -> Pixels:
    """(n, S, S, 3) |picture − frame| in whole levels, twice a half level."""
    error = np.maximum(tiles, picture)
    error -= np.minimum(tiles, picture)
    return error


def canvas_error(tiles: Pixels, canvas: Painting, number: Indices | None = None) -> Magnitudes:
    """(n, S, S, 3) |canvas − frame| in half levels of 8-bit tiles, those with the (n,) numbers ``number``, or all."""
    levels, bare = canvas.levels, canvas.bare
    if number is not None:
        levels, bare = _at(levels, number), _at(bare, number)
    # A bare value lies half way between two levels, and no value of a frame lies there.
    darker, brighter = picture_error(tiles, levels), picture_error(tiles, levels + bare.view(np.uint8))
    error: Magnitudes = np.add(darker, brighter, dtype=np.uint16)
    return error


def atom_sums(error: Magnitudes, cells: Cells) -> Sums:
    """(n, A) sums of (n, S, S, 3) errors over the pixels and channels of each atom."""
    # Most of the work is here, and 16 bits are twice as fast as 32.
    narrow = error.dtype.itemsize <= 2 and cells.atom_px * LEVELS < 2**16
    blocks = error.reshape(-1, cells.atom_px, cells.tile_px * 3)
    rows = np.add.reduce(blocks, axis=1, dtype=np.uint16 if narrow else np.uint32)
    atoms = rows.reshape(len(error), cells.num_atoms, cells.atom_px * 3)
    sums: Sums = np.einsum("nap->na", atoms, dtype=np.float64)
    return sums


def squared_atom_sums(error: Magnitudes, cells: Cells) -> Sums:
    """(n, A) sums of the squares of (n, S, S, 3) errors over the pixels and channels of each atom."""
    return atom_sums(np.square(error, dtype=np.uint32), cells)


@dataclass(frozen=True, kw_only=True, eq=False)
class Errors:
    """Errors of pictures against a frame, summed per atom."""

    absolute: Sums
    """(…, A) sums of absolute errors in half levels."""
    squared: Sums | None = None
    """(…, A) sums of squared errors in half levels; None where nobody asked for them."""

    @classmethod
    def of(cls, error: Magnitudes, cells: Cells, *, squared: bool, unit: int) -> Self:
        """(m, A) those of m pictures from their (m, S, S, 3) errors, so many half levels each."""
        squares = unit**2 * squared_atom_sums(error, cells) if squared else None
        return cls(absolute=unit * atom_sums(error, cells), squared=squares)

    def set(self, place: Indices | tuple[Indices, int], of_some: Errors) -> None:
        """Set those of some pictures."""
        self.absolute[place] = of_some.absolute
        if self.squared is not None:
            self.squared[place] = of_some.squared


def picture_errors(tiles: Pixels, pictures: Pixels, cells: Cells, *, squared: bool) -> Errors:
    """(m, A) errors of m pictures (m, S, S, 3) against as many tiles."""
    code = pixel_library()
    if code is None:
        return Errors.of(picture_error(tiles, pictures), cells, squared=squared, unit=2)
    absolute, squares = code.errors(tiles, pictures, atom_px=cells.atom_px, squared=squared)
    return Errors(absolute=absolute, squared=squares)


def bare_errors(tiles: Pixels, canvas: Painting, number: Indices, cells: Cells, *, squared: bool) -> Errors:
    """(m, A) errors of the tiles of a canvas with the (m,) ascending numbers ``number`` against (m, S, S, 3) tiles."""
    code = pixel_library()
    if code is None:
        return Errors.of(canvas_error(tiles, canvas, number), cells, squared=squared, unit=1)
    levels, bare = _at(canvas.levels, number), _at(canvas.bare, number)
    absolute, squares = code.errors(tiles, levels, bare=bare, atom_px=cells.atom_px, squared=squared)
    return Errors(absolute=absolute, squared=squares)


def canvas_errors(tiles: Pixels, canvas: Painting, tiling: Tiling, *, squared: bool) -> Errors:
    """(n, A) errors of a canvas against the tiles (n, S, S, 3) of a frame."""
    cells = tiling.cells
    shape = (len(tiles), cells.num_atoms)
    sums = Errors(absolute=np.empty(shape), squared=np.empty(shape) if squared else None)

    def work(number: Indices) -> None:
        bare = canvas.some_bare[number]
        if bare.any():
            some = number[bare]
            sums.set(some, bare_errors(_at(tiles, some), canvas, some, cells, squared=squared))
        if not bare.all():
            some = number[~bare]
            sums.set(some, picture_errors(_at(tiles, some), _at(canvas.levels, some), cells, squared=squared))

    share_out(work, np.arange(len(tiles)))
    return sums


class Scales:
    """A frame as each of its scales shows it, built where it is asked for. n tiles, S pixels a side, K scales, A atoms.

    Nothing here depends on a canvas.
    """

    def __init__(self, tiles: Pixels, tiling: Tiling, *, squared: bool) -> None:
        """Scales of the tiles (n, S, S, 3) of a frame, of which only those are there that cost nothing."""
        cells = tiling.cells
        K = cells.grid.num_scales
        shape = (len(tiles), K, cells.num_atoms)
        self.tiling, self.tiles = tiling, tiles
        self.images: tuple[list[Pixels], ...] = tuple(list(tiles) for _ in range(K))
        """K times n pictures (S, S, 3): a tile with every patch of one scale pasted, 0 in the padding."""
        self.errors = Errors(absolute=np.zeros(shape), squared=np.zeros(shape) if squared else None)
        """(n, K, A) how far each of them is from the tiles; 0, as low as an error can be, where it is not built."""
        self.built = np.zeros(shape[:2], bool)
        """(n, K) whether a tile is there at a scale."""
        self.built[:] = [cells.shows_itself(k) for k in range(K)]

    @classmethod
    def of(cls, tiles: Pixels, tiling: Tiling, *, squared: bool) -> Scales:
        """All scales of the tiles (n, S, S, 3) of a frame, or of several frames one after the other."""
        scales = cls(tiles, tiling, squared=squared)
        scales.build(np.arange(len(tiles)), range(len(scales.images)))
        return scales

    def __getitem__(self, tiles: slice) -> Scales:
        """The scales of some of the tiles, which share all memory."""
        part = copy.copy(self)
        squared = self.errors.squared
        part.tiles, part.images = self.tiles[tiles], tuple(image[tiles] for image in self.images)
        part.errors = Errors(absolute=self.errors.absolute[tiles], squared=None if squared is None else squared[tiles])
        part.built = self.built[tiles]
        return part

    def build(self, number: Indices, scales: Sequence[int]) -> None:
        """Build the tiles with the (m,) ascending numbers ``number`` at these scales, where one is not there yet."""

        def work(number: Indices) -> None:
            extended = self.tiling.extended(_at(self.tiles, number), number)
            for scale in scales:
                if not self.tiling.cells.shows_itself(scale):
                    self._set(number, scale, self.tiling.shown(extended, number, scale))

        built = self.built[number].take(scales, axis=1).all(1)
        share_out(work, number[~built])
        self.built[number[:, None], scales] = True

    def _set(self, number: Indices, scale: int, shown: Pixels) -> None:
        for tile, picture in zip(number.tolist(), shown, strict=True):
            self.images[scale][tile] = picture  # not copied: copying them all would take as long as comparing them
        squared = self.errors.squared is not None
        self.errors.set(
            (number, scale), picture_errors(_at(self.tiles, number), shown, self.tiling.cells, squared=squared)
        )

    def paste(self, index: Indices, canvas: Painting) -> None:
        """Paste built patches (tile · P + patch), in any order, on a canvas."""
        cells = self.tiling.cells
        tile, patch = np.divmod(index, cells.grid.num_patches)
        order = np.argsort(patch, kind="stable")  # coarse to fine: finer patches win
        places = zip(tile[order].tolist(), patch[order].tolist(), strict=True)
        boxes, scales = cells.box_of_patch_px, cells.scale_of_patch
        canvas.paste((t, boxes[p], self.images[scales[p]][t][boxes[p]]) for t, p in places)


def share_out(work: Callable[[Indices], None], number: Indices) -> None:
    """Work on the tiles with these numbers, a few at a time, on as many threads as torch is allowed."""
    threads = torch.get_num_threads()
    if threads > 1 and len(number) >= WORTH_SHARING:
        rounds = -(-len(number) // (threads * TILES_AT_ONCE))  # as many for one thread as for another
        parts = np.array_split(number, threads * rounds)
        list(_threads(threads, os.getpid()).map(work, parts))
        return
    for start in range(0, len(number), TILES_AT_ONCE):
        work(number[start : start + TILES_AT_ONCE])


@lru_cache(maxsize=1)
def _threads(number: int, process: int) -> ThreadPoolExecutor:
    """Threads that are kept, because starting them takes longer than what they do; a forked process has its own."""
    return ThreadPoolExecutor(number, thread_name_prefix=f"autogaze-{process}")


def _at(tiles: NDArray[Any], number: Indices) -> NDArray[Any]:
    """The tiles with these ascending numbers; without a copy where they follow each other."""
    first, last = int(number[0]), int(number[-1])
    return tiles[first : last + 1] if last - first + 1 == len(number) else tiles[number]
