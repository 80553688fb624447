"""Errors of pictures in one pass over memory, where compiled code can be had.

Shape letters: n tiles, S pixels a side of a tile, A atoms of a tile.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autogaze.native.compiler import NativeError, compiled
from autogaze.native.library import is_switched_off

_SOURCE = Path(__file__).with_name("pixels.c")

Pixels = NDArray[np.uint8]
Sums = NDArray[np.float64]


class PixelLibrary:
    """The functions of the shared library."""

    def __init__(self, path: Path) -> None:
        size, pointer = ctypes.c_int64, ctypes.c_void_p
        self._errors = ctypes.CDLL(str(path)).autogaze_errors
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
        # Kept until the call is over: a pointer keeps nothing.
        frames, pictures = np.ascontiguousarray(frames), np.ascontiguousarray(pictures)
        bare = None if bare is None else np.ascontiguousarray(bare)
        self._errors(
            frames.ctypes.data,
            pictures.ctypes.data,
            None if bare is None else bare.ctypes.data,
            n,
            side,
            atom_px,
            absolute.ctypes.data,
            None if squares is None else squares.ctypes.data,
        )
        return absolute, squares


def pixel_library() -> PixelLibrary | None:
    """The compiled code; None where there is none."""
    return None if is_switched_off() else _outcome()


@cache
def _outcome() -> PixelLibrary | None:
    try:
        return PixelLibrary(compiled(_SOURCE))
    except (NativeError, OSError):  # of which the decoder warns
        return None
