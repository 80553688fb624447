"""Errors of pictures in one pass over memory, where compiled code can be had.

Shape letters: n tiles, S pixels a side of a tile, A atoms of a tile.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autogaze.grid import Indices
from autogaze.native.loading import load

_SOURCE = Path(__file__).with_name("pixels.c")

Pixels = NDArray[np.uint8]
Sums = NDArray[np.float64]


class _Tile(ctypes.Structure):
    """``struct tile``."""

    _fields_ = (
        ("scales", ctypes.c_int64),
        ("side", ctypes.c_int64),
        ("patches", ctypes.c_int64),
        ("patch_of_atom", ctypes.c_void_p),
        ("removed", ctypes.c_void_p),
        ("shown", ctypes.c_void_p),
        ("finest", ctypes.c_void_p),
        ("gains", ctypes.c_void_p),
        ("squared", ctypes.c_void_p),
        ("shown_squared", ctypes.c_void_p),
        ("best_gain", ctypes.c_double),
        ("squared_change", ctypes.c_double),
    )


class Tile:
    """One tile of a greedy search, see :mod:`autogaze.selectors.pasting`."""

    def __init__(self, paste: Callable[..., int], tile: _Tile, arrays: tuple[NDArray[Any] | None, ...]) -> None:
        self._paste, self._tile, self._address = paste, tile, ctypes.addressof(tile)
        self._arrays = arrays  # a pointer keeps nothing

    def paste(self, scale: int, first: int, side: int) -> tuple[int, float, float]:
        """Paste the patch of so many atoms a side from atom ``first`` on.

        Returns:
            The patch that would gain most then, what it would gain, and the change of the squared error.
        """
        best = self._paste(self._address, scale, first, side)
        return best, self._tile.best_gain, self._tile.squared_change


class PixelLibrary:
    """The functions of the shared library."""

    def __init__(self, code: ctypes.CDLL) -> None:
        size, pointer = ctypes.c_int64, ctypes.c_void_p
        # It takes less time than to let other threads go on meanwhile, and to wait for them then.
        self._paste = ctypes.PyDLL(code._name, handle=code._handle).autogaze_paste
        self._paste.restype = size
        self._paste.argtypes = [pointer, size, size, size]
        self._errors = code.autogaze_errors
        self._errors.restype = None
        self._errors.argtypes = [*[pointer] * 3, size, size, size, pointer, pointer]

    def errors(
        self,
        frames: Pixels,
        pictures: Pixels,
        *,
        atom_px: int,
        squared: bool,
        bare: NDArray[np.bool_] | None = None,
    ) -> tuple[Sums, Sums | None]:
        """Sums of absolute errors in half levels over each atom, and those of squared errors where they are asked for.

        Args:
            frames: (n, S, S, 3).
            pictures: (n, S, S, 3) to be compared with them.
            atom_px: side of an atom; S is a multiple of it.
            squared: whether squared errors are asked for.
            bare: (n, S, S, 3) values that are half a level brighter than ``pictures`` says; None: there are none.

        Returns:
            (n, A) and (n, A) or None.
        """
        n, side = frames.shape[:2]
        shape = (n, (side // atom_px) ** 2)
        absolute, squares = np.empty(shape), np.empty(shape) if squared else None
        arrays = [None if array is None else np.ascontiguousarray(array) for array in (frames, pictures, bare)]
        self._errors(*map(_address, arrays), n, side, atom_px, _address(absolute), _address(squares))
        return absolute, squares

    def tile(
        self,
        patch_of_atom_KA: Indices,
        *,
        removed_KA: Sums,
        shown_KA: Sums,
        finest_A: NDArray[np.int8],
        gains: Sums,
        squared_A: Sums | None,
        shown_squared_KA: Sums | None,
    ) -> Tile:
        """A tile whose memory is these contiguous arrays, see :class:`~autogaze.selectors.pasting.TileMemory`."""
        K, A = patch_of_atom_KA.shape
        arrays = (patch_of_atom_KA, removed_KA, shown_KA, finest_A, gains, squared_A, shown_squared_KA)
        tile = _Tile(K, math.isqrt(A), len(gains) - 1, *map(_address, arrays))
        return Tile(self._paste, tile, arrays)


def _address(array: NDArray[Any] | None) -> int | None:
    if array is None:
        return None
    assert array.flags.c_contiguous
    return array.ctypes.data


def pixel_library() -> PixelLibrary | None:
    """The compiled code; None where there is none."""
    code = load(_SOURCE)
    return None if isinstance(code, str) else _library(code)


@cache
def _library(code: ctypes.CDLL) -> PixelLibrary:
    return PixelLibrary(code)
