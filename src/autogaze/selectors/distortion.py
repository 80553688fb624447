"""How far pictures are from a frame, in whole numbers: errors per pixel, their sums per atom, loss and PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autogaze.selectors.cells import Cells, Pixels, Tiling, scale_image

# Shape letters: n tiles, S pixels a side of a tile, K scales, A atoms of a tile.

LEVELS = 510
"""What 1.0 is in half levels of 8 bits, the unit of every error: mid-grey, 0.5, is a whole number of them."""

HalfLevels = NDArray[np.int16]
"""Colours, and what is added to them."""
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


def canvas_error(tiles: Pixels, half_levels: HalfLevels) -> Magnitudes:
    """(n, S, S, 3) |canvas − frame| of 8-bit tiles and a canvas in half levels."""
    error: HalfLevels = tiles * np.int16(2)
    np.subtract(half_levels, error, out=error)
    return np.absolute(error, out=error).view(np.uint16)


def picture_error(tiles: Pixels, picture: Pixels) -> Pixels:
    """(n, S, S, 3) |picture − frame| in whole levels, twice a half level."""
    error = np.maximum(tiles, picture)
    error -= np.minimum(tiles, picture)
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


def canvas_errors(tiles: Pixels, half_levels: HalfLevels, tiling: Tiling, *, squared: bool) -> Errors:
    """(n, A) errors of a canvas, (n, S, S, 3) in half levels, against the tiles (n, S, S, 3) of a frame."""
    cells = tiling.cells
    shape = (len(tiles), cells.num_atoms)
    sums = Errors(absolute=np.empty(shape), squared=np.empty(shape) if squared else None)

    def work(row: slice) -> None:
        error = canvas_error(tiles[row], half_levels[row])
        sums.absolute[row] = atom_sums(error, cells)
        if sums.squared is not None:
            sums.squared[row] = squared_atom_sums(error, cells)

    _each_row(work, tiling)
    return sums


@dataclass(frozen=True, kw_only=True, eq=False)
class Scales:
    """A frame as each of its scales shows it. n tiles, S pixels a side, K scales, A atoms."""

    images: tuple[Pixels, ...]
    """K arrays (n, S, S, 3) uint8: the tiles with every patch of one scale pasted, 0 in the padding."""
    errors: Errors
    """(n, K, A) how far each of them is from the tiles."""

    @classmethod
    def of(cls, tiles: Pixels, tiling: Tiling, *, squared: bool) -> Scales:
        """The scales of the tiles (n, S, S, 3) of a frame; nothing here depends on a canvas."""
        cells = tiling.cells
        shape = (len(tiles), cells.grid.num_scales, cells.num_atoms)
        errors = Errors(absolute=np.empty(shape), squared=np.empty(shape) if squared else None)
        images = tuple(tiles if cells.shows_itself(k) else np.empty_like(tiles) for k in range(shape[1]))

        def work(row: slice) -> None:
            for k, image in enumerate(images):
                if image is not tiles:
                    image[row] = scale_image(tiles[row], cells, k)
                    tiling.clear_padding(image, row)
                error = picture_error(tiles[row], image[row])
                errors.absolute[row, k] = 2 * atom_sums(error, cells)
                if errors.squared is not None:
                    errors.squared[row, k] = 4 * squared_atom_sums(error, cells)

        _each_row(work, tiling)
        return cls(images=images, errors=errors)


def _each_row(work: Callable[[slice], None], tiling: Tiling) -> None:
    """Work on the rows of tiles, on as many threads as torch is allowed."""
    rows = tiling.rows()
    threads = min(torch.get_num_threads(), len(rows))
    if threads == 1:
        for row in rows:
            work(row)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, rows))
