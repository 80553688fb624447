"""Greedy search on a frame's errors per atom: what each patch would gain, and the best one after the other."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from autogaze.grid import Indices
from autogaze.selectors.cells import Cells
from autogaze.selectors.distortion import LEVELS, Errors, Scales, Sums, loss, psnr_db
from autogaze.selectors.pasting import TileMemory, TileSearch, search_tile

# Shape letters: n tiles, m of them, K scales, A atoms of a tile, P patches of a tile, N patches taken,
# V atoms under m patches.


LIKELY = 0.5
"""Tiles are built together with the one that has to be if they seem to gain this share of what that one seems to."""


def patch_gains(canvas: Errors, scales: Errors, cells: Cells) -> Sums:
    """(n, P) error in half levels that each patch alone would take off a canvas.

    ``canvas`` holds its errors (n, A), ``scales`` those of each scale (n, K, A).
    """
    return patch_sums(canvas.absolute[:, None] - scales.absolute, cells)


def patch_sums(removed: Sums, cells: Cells) -> Sums:
    """(n, P) sums of (n, K, A) values over the atoms of each patch at its scale."""
    return np.concatenate([scale_sums(removed[:, k], cells, k) for k in range(cells.grid.num_scales)], axis=1)


def scale_sums(removed: Sums, cells: Cells, scale: int) -> Sums:
    """(n, patches of the scale) sums of (n, A) values over the atoms of each patch of one scale."""
    n, side, patches = len(removed), cells.atoms_a_side, cells.grid.sides[scale]
    atoms = cells.cell_px[scale] // cells.atom_px
    used = removed.reshape(n, side, side)[:, : patches * atoms, : patches * atoms]
    rows = np.einsum("npax->npx", used.reshape(n, patches, atoms, -1))  # several times faster than ndarray.sum
    sums: Sums = np.einsum("npqa->npq", rows.reshape(n, patches, patches, atoms)).reshape(n, -1)
    return sums


@dataclass(frozen=True, kw_only=True)
class Goal:
    """When a frame is good enough, in whole half levels; −1 where no frame ever is."""

    absolute: int = -1
    """Largest absolute error of a frame that is good enough."""
    squared: int = -1
    """Largest squared error of a frame that is good enough."""

    @classmethod
    def of(cls, *, threshold: float | None, psnr_db: float | None, num_values: int) -> Goal:
        """Frames of so many pixels times channels at a loss at or below the threshold, or with at least this PSNR."""
        return cls(absolute=_most_absolute(threshold, num_values), squared=_most_squared(psnr_db, num_values))

    def is_met(self, absolute: float, squared: float) -> bool:
        """Whether a frame with these errors is good enough."""
        return absolute <= self.absolute or squared <= self.squared


def _most_absolute(threshold: float | None, num_values: int) -> int:
    if threshold is None:
        return -1
    if threshold >= 1:  # no error is larger
        return LEVELS * num_values
    most = math.floor(threshold * LEVELS * num_values)
    while loss(most, num_values) > threshold:
        most -= 1
    while loss(most + 1, num_values) <= threshold:
        most += 1
    return most


def _most_squared(decibels: float | None, num_values: int) -> int:
    if decibels is None:
        return -1
    if decibels <= 0:  # no error is larger
        return LEVELS**2 * num_values
    most = math.floor(LEVELS**2 * num_values * 10 ** (-decibels / 10))
    while psnr_db(most, num_values) < decibels:
        most -= 1
    while psnr_db(most + 1, num_values) >= decibels:
        most += 1
    return most


class Search:
    """A frame while patches are pasted on the canvas, in any order, with what every other patch would still gain.

    The gain of a patch is the error it takes off its cell, counted only where nothing finer was pasted in this
    frame, because finer patches win. Patches of different tiles never touch each other. All numbers are whole
    half levels, so that updating them patch by patch equals computing them anew.

    A tile that is not built at a scale counts as if that scale showed it without error: its patches seem to gain at
    least what they do. It is built before one of them is called the best.
    """

    def __init__(self, canvas: Errors, scales: Scales) -> None:
        self.cells: Cells = scales.tiling.cells
        """How the tiles are cut."""
        self._scales = scales
        self._exact = scales.built.copy()
        self._removed = canvas.absolute[:, None] - scales.errors.absolute
        self._squared = None if canvas.squared is None else canvas.squared.copy()
        self._finest = np.full(canvas.absolute.shape, -1, np.int8)
        self._tiles: dict[int, TileSearch] = {}
        # One patch more takes what no patch of a scale covers.
        self._gains = np.pad(patch_sums(self._removed, self.cells), ((0, 0), (0, 1)))
        self.absolute = float(canvas.absolute.sum())
        """Absolute error of the frame in half levels."""
        self.squared = math.inf if self._squared is None else float(self._squared.sum())
        """Squared error of the frame in half levels, if the errors hold it, else infinity."""
        self._best_patch, self._best_gain = self.gains.argmax(1), self.gains.max(1)
        # The finest scale is needed to tell what the canvas shows, see _build.
        self._build(np.flatnonzero(~self._exact[:, -1]), self.cells.grid.num_scales - 1)

    @property
    def gains(self) -> Sums:
        """(n, P) what each patch would take off the absolute error now, at most; exact where its scale is built."""
        return self._gains[:, :-1]

    def fork(self) -> Self:
        """A search that goes on by itself from here; the scales are shared."""
        fork = copy.copy(self)
        fork._removed, fork._finest, fork._gains = self._removed.copy(), self._finest.copy(), self._gains.copy()
        fork._squared = None if self._squared is None else self._squared.copy()
        fork._best_patch, fork._best_gain = self._best_patch.copy(), self._best_gain.copy()
        fork._exact, fork._tiles = self._exact.copy(), {}
        return fork

    def build(self, *, at_least: float) -> None:
        """Build all scales of the tiles in which a patch may gain so much; the others as soon as they are needed."""
        tiles = np.flatnonzero(self._best_gain >= at_least)
        self._scales.build(tiles, range(self.cells.grid.num_scales))
        for scale in range(self.cells.grid.num_scales):
            self._build(tiles[~self._exact[tiles, scale]], scale)

    def best(self) -> tuple[int, float]:
        """(index, gain) of the patch that gains most; the lowest index among equals."""
        while True:
            tile = int(self._best_gain.argmax())
            patch, gain = int(self._best_patch[tile]), float(self._best_gain[tile])
            if self._exact[tile, self.cells.scale_of_patch[patch]]:
                return tile * self.cells.grid.num_patches + patch, gain
            self._build_likely(gain * LIKELY)

    def take(self, index: int) -> None:
        """Paste the patch ``index`` (tile · P + patch)."""
        tile, patch = divmod(index, self.cells.grid.num_patches)
        scale = self.cells.scale_of_patch[patch]
        if not self._exact[tile, scale]:
            self._build(np.array([tile]), scale)
        searched = self._tiles.get(tile)
        if searched is None:
            searched = self._tiles[tile] = search_tile(self._memory(tile), self.cells)
        self.absolute -= self._gains.item(tile, patch)
        pasted = searched.paste(patch)
        self.squared += pasted.squared_change
        self._best_patch[tile], self._best_gain[tile] = pasted.best_patch, pasted.best_gain

    def _memory(self, tile: int) -> TileMemory:
        squared, shown = self._squared, self._scales.errors
        return TileMemory(
            removed=self._removed[tile],
            shown=shown.absolute[tile],
            finest=self._finest[tile],
            gains=self._gains[tile],
            squared=None if squared is None or shown.squared is None else squared[tile],
            shown_squared=None if shown.squared is None else shown.squared[tile],
        )

    def _build_likely(self, at_least: float) -> None:
        """Build the tiles whose best patch is not known to gain what it seems to, if that is so much."""
        tiles = np.flatnonzero(self._best_gain >= at_least)
        scales = np.asarray(self.cells.scale_of_patch)[self._best_patch[tiles]]
        guessed = ~self._exact[tiles, scales]
        for scale in np.unique(scales[guessed]).tolist():
            self._build(tiles[guessed & (scales == scale)], scale)

    def _build(self, tiles: Indices, scale: int) -> None:
        """Know what patches of a scale gain in these tiles, where that was not known."""
        if not len(tiles):
            return
        self._scales.build(tiles, [scale])
        for tile in tiles.tolist():
            self._tiles.pop(tile, None)  # its scales are not what they seemed
        shown = self._scales.errors.absolute
        # What the canvas shows now: whatever was pasted, the finest scale could still be. Until that one is known,
        # nothing was pasted.
        error = self._removed[tiles, -1] + np.where(self._exact[tiles, -1:], shown[tiles, -1], 0)
        self._removed[tiles, scale] = np.where(self._finest[tiles] <= scale, error - shown[tiles, scale], 0)
        self._exact[tiles, scale] = True
        gains = scale_sums(self._removed[tiles, scale], self.cells, scale)
        start = self.cells.grid.offsets[scale]
        self._gains[tiles, start : start + gains.shape[1]] = gains
        of_tiles = self.gains[tiles]
        self._best_patch[tiles], self._best_gain[tiles] = of_tiles.argmax(1), of_tiles.max(1)


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
    shift_px: tuple[int, int] = (0, 0)
    """How far the canvas moved down and to the right before them."""


def greedy(search: Search, *, max_patches: int, goal: Goal | None = None, least_gain: float = 0.0) -> Taken:
    """Take the best patch again and again.

    Ends when the goal is met (it is first asked after the first patch), when ``max_patches`` are taken, or
    when the best patch gains nothing or less than ``least_gain`` half levels.
    """
    goal = goal or Goal()
    index: list[int] = []
    absolute: list[float] = []
    gains: list[float] = []
    while len(index) < max_patches and not (index and goal.is_met(search.absolute, search.squared)):
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
