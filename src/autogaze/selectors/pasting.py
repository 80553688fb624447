"""One tile of a greedy search: what pasting a patch changes, by compiled code or by numpy.

Shape letters: K scales, A atoms of a tile, P patches of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autogaze.native.pixels import PixelLibrary, pixel_library
from autogaze.selectors.cells import Cells
from autogaze.selectors.distortion import Sums


@dataclass(frozen=True, kw_only=True, eq=False)
class TileMemory:
    """What a search knows of one tile: contiguous views of its memory, which pasting changes. In whole half levels."""

    removed: Sums
    """(K, A) error that each scale would take off each atom; 0 where something finer was pasted."""
    shown: Sums
    """(K, A) errors of the scales; left alone."""
    finest: NDArray[np.int8]
    """(A,) the finest scale pasted on each atom, −1 where there is none."""
    gains: Sums
    """(P + 1,) what each patch would gain; the last takes what no patch of a scale covers."""
    squared: Sums | None = None
    """(A,) squared errors as they are now; None where nobody asked for them."""
    shown_squared: Sums | None = None
    """(K, A) squared errors of the scales; left alone."""


@dataclass(frozen=True, slots=True)
class Pasted:
    """What a tile is like once a patch was pasted."""

    best_patch: int
    """The patch that would gain most now; the lowest index among equals."""
    best_gain: float
    """What it would gain."""
    squared_change: float
    """What the patch added to the squared error, if that is known, else 0."""


class TileSearch(Protocol):
    """A tile that patches are pasted on."""

    def paste(self, patch: int) -> Pasted:
        """Paste a patch of the tile."""
        ...


def search_tile(memory: TileMemory, cells: Cells) -> TileSearch:
    """The search of a tile, compiled if that can be had."""
    code = pixel_library()
    return NumpyTile(memory, cells) if code is None else CompiledTile(memory, cells, code)


class CompiledTile:
    """A :class:`TileSearch` by compiled code."""

    def __init__(self, memory: TileMemory, cells: Cells, code: PixelLibrary) -> None:
        self._cells = cells
        self._tile = code.tile(
            cells.patch_of_atom,
            removed_KA=memory.removed,
            shown_KA=memory.shown,
            finest_A=memory.finest,
            gains=memory.gains,
            squared_A=memory.squared,
            shown_squared_KA=memory.shown_squared,
        )

    def paste(self, patch: int) -> Pasted:
        """See :class:`TileSearch`."""
        return Pasted(*self._tile.paste(*self._cells.square_of_patch[patch]))


@dataclass
class NumpyTile:
    """A :class:`TileSearch` by numpy: the definition of the other, and what works everywhere."""

    memory: TileMemory
    cells: Cells
    _deepest: int = field(init=False)
    """The finest scale pasted anywhere."""
    _after: dict[int, Sums] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._deepest = int(self.memory.finest.max())
        self._removed = self.memory.removed.reshape(-1)

    def paste(self, patch: int) -> Pasted:
        """See :class:`TileSearch`."""
        cells, memory, removed = self.cells, self.memory, self._removed
        scale, K = cells.scale_of_patch[patch], cells.grid.num_scales
        atoms, slots, touched = cells.atoms_of_patch[patch], cells.slots_of_patch[patch], cells.patches_of_patch[patch]
        if scale < self._deepest:  # else nothing finer was pasted here
            open_to_it = memory.finest.take(atoms) <= scale
            if np.count_nonzero(open_to_it) < len(atoms):
                atoms, everywhere = atoms[open_to_it], np.tile(open_to_it, K)
                slots, touched = slots[everywhere], touched[everywhere]
        change, gains = removed.take(slots), memory.gains
        if scale < K - 1:
            after = self._removed_after(scale).take(slots)
            change -= after
            removed[slots] = after
        else:
            removed[slots] = 0
        squared_change = 0.0
        if memory.squared is not None and memory.shown_squared is not None:
            squared = memory.shown_squared[scale].take(atoms)
            squared_change = float((squared - memory.squared.take(atoms)).sum())
            memory.squared[atoms] = squared
        memory.finest[atoms] = scale
        self._deepest = max(self._deepest, scale)
        gains -= np.bincount(touched, change, len(gains))
        gains[-1] = 0
        best = int(gains[:-1].argmax())
        return Pasted(best, float(gains[best]), squared_change)

    def _removed_after(self, scale: int) -> Sums:
        """(K · A,) what scales would take off where this one was just pasted."""
        after = self._after.get(scale)
        if after is None:
            shown = self.memory.shown
            after = np.zeros_like(shown)
            np.subtract(shown[scale], shown[scale + 1 :], out=after[scale + 1 :])
            after = self._after[scale] = after.reshape(-1)
        return after
