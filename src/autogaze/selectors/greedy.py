"""Greedy search on a frame's errors per atom: what each patch would gain, and the best one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from autogaze.grid import Indices
from autogaze.selectors.cells import Cells
from autogaze.selectors.distortion import Errors, Sums

# Shape letters: n tiles, K scales, A atoms of a tile, P patches of a tile, N patches taken.


def patch_gains(canvas: Errors, scales: Errors, cells: Cells) -> Sums:
    """(n, P) error in half levels that each patch alone would take off a canvas.

    ``canvas`` holds its errors (n, A), ``scales`` those of each scale (n, K, A).
    """
    return patch_sums(canvas.absolute[:, None] - scales.absolute, cells)


def patch_sums(removed: Sums, cells: Cells) -> Sums:
    """(n, P) sums of (n, K, A) values over the atoms of each patch at its scale."""
    n, side, sums = len(removed), cells.atoms_a_side, []
    for scale, (patches, cell_px) in enumerate(zip(cells.grid.sides, cells.cell_px, strict=True)):
        atoms = cell_px // cells.atom_px
        used = removed[:, scale].reshape(n, side, side)[:, : patches * atoms, : patches * atoms]
        sums.append(used.reshape(n, patches, atoms, patches, atoms).sum((2, 4)).reshape(n, -1))
    return np.concatenate(sums, axis=1)


class Search:
    """A frame while patches are pasted on the canvas, in any order, with what every other patch would still gain.

    The gain of a patch is the error it takes off its cell, counted only where nothing finer was pasted in this
    frame, because finer patches win. Patches of different tiles never touch each other. All numbers are whole
    half levels, so that updating them patch by patch equals computing them anew.
    """

    def __init__(self, canvas: Errors, scales: Errors, cells: Cells) -> None:
        self._cells = cells
        self._scales = scales
        self._removed = canvas.absolute[:, None] - scales.absolute
        self._squared = None if canvas.squared is None else canvas.squared.copy()
        self._finest = np.full(canvas.absolute.shape, -1, np.int8)
        self.gains: Sums = patch_sums(self._removed, cells)
        """(n, P) what each patch would take off the absolute error now; never written to by users."""
        self.absolute = float(canvas.absolute.sum())
        """Absolute error of the frame in half levels."""
        self.squared = 0.0 if self._squared is None else float(self._squared.sum())
        """Squared error of the frame in half levels, if the errors hold it, else 0."""
        self._best_patch = self.gains.argmax(1)
        self._best_gain = self.gains.max(1)

    def fork(self) -> Self:
        """A search that goes on by itself from here; the errors of the scales are shared."""
        fork = copy.copy(self)
        fork._removed, fork._finest, fork.gains = self._removed.copy(), self._finest.copy(), self.gains.copy()
        fork._squared = None if self._squared is None else self._squared.copy()
        fork._best_patch, fork._best_gain = self._best_patch.copy(), self._best_gain.copy()
        return fork

    def best(self) -> tuple[int, float]:
        """(index, gain) of the patch that gains most; the lowest index among equals."""
        tile = int(self._best_gain.argmax())
        return tile * self._cells.grid.num_patches + int(self._best_patch[tile]), float(self._best_gain[tile])

    def take(self, index: int) -> None:
        """Paste the patch ``index`` (tile · P + patch)."""
        cells = self._cells
        tile, patch = divmod(index, cells.grid.num_patches)
        scale, K = cells.scale_of_patch[patch], cells.grid.num_scales
        atoms, slots, touched = cells.atoms_of_patch[patch], cells.slots_of_patch[patch], cells.patches_of_patch[patch]
        finest, removed = self._finest[tile], self._removed[tile].reshape(-1)
        if scale < K - 1:
            open_to_it = finest.take(atoms) <= scale
            if not open_to_it.all():
                atoms, everywhere = atoms[open_to_it], np.tile(open_to_it, K)
                slots, touched = slots[everywhere], touched[everywhere]
        before = removed.take(slots)
        after = np.zeros((K, len(atoms)))
        if scale < K - 1:
            pasted = self._scales.absolute[tile][:, atoms]
            after[scale + 1 :] = pasted[scale] - pasted[scale + 1 :]
        self.absolute -= float(before[scale * len(atoms) : (scale + 1) * len(atoms)].sum())
        if self._squared is not None and self._scales.squared is not None:
            squared = self._scales.squared[tile, scale, atoms]
            self.squared += float((squared - self._squared[tile, atoms]).sum())
            self._squared[tile, atoms] = squared
        removed[slots] = after.reshape(-1)
        finest[atoms] = scale
        gains = self.gains[tile]
        gains += np.bincount(touched, after.reshape(-1) - before, cells.grid.num_patches + 1)[:-1]
        best = gains.argmax()
        self._best_patch[tile], self._best_gain[tile] = best, gains[best]


@dataclass(frozen=True, kw_only=True, eq=False)
class Taken:
    """The patches a greedy search took, first to last. N patches."""

    index: Indices
    """(N,) tile · P + patch."""
    absolute: Sums
    """(N,) absolute error of the frame after each of them, in half levels."""
    gain: Sums
    """(N,) what each of them took off it."""
    remaining: float
    """Absolute error of the frame when the search ended, in half levels."""


def greedy(
    search: Search,
    *,
    max_patches: int,
    good_enough: Callable[[Search], bool],
    least_gain: float = 0.0,
) -> Taken:
    """Take the best patch again and again.

    Ends when ``good_enough`` says so (it is first asked after the first patch), when ``max_patches`` are taken, or
    when the best patch gains nothing or less than ``least_gain`` half levels.
    """
    index: list[int] = []
    absolute: list[float] = []
    gains: list[float] = []
    while len(index) < max_patches and not (index and good_enough(search)):
        patch, gain = search.best()
        if gain <= 0 or gain < least_gain:
            break
        search.take(patch)
        index.append(patch)
        absolute.append(search.absolute)
        gains.append(gain)
    return Taken(
        index=np.array(index, np.int64),
        absolute=np.array(absolute, float),
        gain=np.array(gains, float),
        remaining=search.absolute,
    )
