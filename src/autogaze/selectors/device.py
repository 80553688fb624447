"""Replenishment on a GPU: all tiles of a frame at once, every step an array step on the device.

Tiles do not touch each other, so what a tile gives, patch after patch, does not depend on the others; the search of a
whole frame only merges these rows, always taking from the tile whose next patch gains most. A patch that gains more
than the one before it in its tile follows that one at once. So a patch has its place by the least gain of its tile up
to it, its *key*: the order is that of falling keys, among equals that of tiles, in a tile that of its search.

Hence each round takes the best patch of every tile. The host looks at the device once in :data:`ROUNDS` rounds, to
learn whether any patch that is not known yet could come before the last one that is wanted.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from autogaze.grid import FrameLayout
from autogaze.selectors.canvas import Canvas
from autogaze.selectors.cells import Cells, Pixels, Tiling
from autogaze.selectors.greedy import Goal, Taken
from autogaze.selectors.painting import Painting
from autogaze.selectors.taps import Taps

# Shape letters: n tiles, S pixels a side of a tile, K scales, A atoms of a tile, P patches of a tile, R rounds,
# N patches taken.

ROUNDS = 32
"""Patches that every tile takes before the host looks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceScales:
    """A frame as each of its scales shows it."""

    tiles: Tensor
    """(n, S, S, 3) int32."""
    images: list[Tensor]
    """K of (n, S, S, 3) int32, 0 in the padding."""
    absolute_nKA: Tensor
    """How far each of them is from the tiles, summed per atom, in half levels (int64)."""
    squared_nKA: Tensor | None
    """The same squared (int64), if it is needed."""


class DeviceEasel:
    """An easel on a torch device, see :class:`~autogaze.selectors.easel.Easel`. The same gazes as on the host."""

    def __init__(self, layout: FrameLayout, *, squared: bool, device: torch.device) -> None:
        self._tiling, self._squared, self._device = Tiling(layout), squared, device
        cells = self._tiling.cells
        self._tables = _Tables.of(cells, device)
        self._half_levels = torch.from_numpy(Canvas(layout).half_levels).to(device, torch.int32)
        real = np.ones(self._tiling.tiles_shape, np.int32)
        self._tiling.clear_padding(real)
        self._real = torch.from_numpy(real[..., :1].copy()).to(device)
        self._resizing = [_resizing(cells, scale, device) for scale in range(cells.grid.num_scales)]

    @property
    def canvas(self) -> Canvas:
        """See :attr:`~autogaze.selectors.easel.Easel.canvas`; a copy."""
        canvas = Canvas(self._tiling.layout)
        canvas.painting = Painting.of(self._half_levels.cpu().numpy())
        return canvas

    def fork(self) -> Self:
        """See :meth:`~autogaze.selectors.easel.Easel.fork`."""
        return copy.copy(self)  # the canvas is replaced after each frame, never written to

    def see(self, rgb: Pixels) -> DeviceScales:
        """See :meth:`~autogaze.selectors.easel.Easel.see`."""
        split = self._tiling.split(rgb)
        extended = self._tiling.extended(split, np.arange(len(split)))
        tiles = self._tensor(split)
        source = tiles if extended is split else self._tensor(extended)
        images = [tiles if pair is None else self._shown(source, *pair) for pair in self._resizing]
        errors = [2 * (image - tiles).abs_() for image in images]
        return DeviceScales(
            tiles=tiles,
            images=images,
            absolute_nKA=torch.stack([self._atom_sums(error) for error in errors], 1),
            squared_nKA=torch.stack([self._atom_sums(error.long() ** 2) for error in errors], 1)
            if self._squared
            else None,
        )

    def see_each(self, rgb: Pixels) -> Iterator[DeviceScales]:
        """See :meth:`~autogaze.selectors.easel.Easel.see_each`."""
        return map(self.see, rgb)

    def move(self, seen: DeviceScales, shift_px: tuple[int, int]) -> bool:
        """See :meth:`~autogaze.selectors.easel.Easel.move`."""
        half_levels = self.canvas.painting.shifted(self._tiling, *shift_px).half_levels
        moved = torch.from_numpy(half_levels).to(self._device, torch.int32)
        errors = [(one - 2 * seen.tiles).abs_().sum() for one in (self._half_levels, moved)]
        if bool(errors[1] < errors[0]):
            self._half_levels = moved
            return True
        return False

    def advance(self, seen: DeviceScales, *, max_patches: int, goal: Goal, least_gain: float = 0.0) -> Taken:
        """See :meth:`~autogaze.selectors.easel.Easel.advance`."""
        error = (self._half_levels - 2 * seen.tiles).abs_()
        squared_nA = self._atom_sums(error.long() ** 2) if self._squared else None
        search = _Rounds(self._tables, seen, self._atom_sums(error), squared_nA)
        least, before, squared = max(1, math.ceil(least_gain)), search.absolute(), search.squared()
        while True:
            search.go_on(ROUNDS, least)
            order = search.in_order(least)
            absolute = before - order.gain.cumsum(0)
            met = (absolute <= goal.absolute) | (squared + order.squared.cumsum(0) <= goal.squared)
            place = torch.arange(1, len(met) + 1, device=self._device)
            end = torch.where(met, place, max_patches).amin().clamp(max=max_patches)
            wanted, known, certain, left = torch.stack([end, order.known, order.certain, order.left]).tolist()
            if not left or wanted <= certain:
                break
        end = min(wanted, known)
        index = order.index[:end]
        self._paste(index, seen)
        values = torch.stack([index, absolute[:end], order.gain[:end]]).cpu().numpy()
        return Taken(
            index=values[0],
            absolute=values[1].astype(float),
            gain=values[2].astype(float),
            remaining=float(values[1, -1]) if end else float(before),
        )

    def _tensor(self, tiles: Pixels) -> Tensor:
        return torch.from_numpy(np.require(tiles, requirements="W")).to(self._device).to(torch.int32)

    def _shown(self, tiles: Tensor, down: Taps, up: Taps) -> Tensor:
        small = down.along(down.along(tiles, 2), 1)
        used_px = len(up.index_LU)
        shown = up.along(up.along(small, 2), 1)
        image = torch.zeros_like(tiles)
        image[:, :used_px, :used_px] = shown
        return image * self._real

    def _atom_sums(self, error: Tensor) -> Tensor:
        cells = self._tiling.cells
        side, px = cells.atoms_a_side, cells.atom_px
        return error.view(-1, side, px, side, px, 3).sum((2, 4, 5)).flatten(1)

    def _paste(self, index: Tensor, seen: DeviceScales) -> None:
        cells, n = self._tiling.cells, len(seen.tiles)
        grid = cells.grid
        taken = torch.zeros(n * grid.num_patches, dtype=torch.bool, device=self._device)
        taken[index] = True
        canvas = self._half_levels.clone()
        for scale, image in enumerate(seen.images):  # coarse to fine: finer patches win
            side, cell_px, start = grid.sides[scale], cells.cell_px[scale], grid.offsets[scale]
            used_px, shape = side * cell_px, (n, side, cell_px, side, cell_px, 3)
            of_scale = taken.view(n, -1)[:, start : start + side**2].view(n, side, 1, side, 1, 1)
            cell = canvas[:, :used_px, :used_px].view(shape)
            cell.copy_(torch.where(of_scale, 2 * image[:, :used_px, :used_px].view(shape), cell))
        self._half_levels = canvas


def _resizing(cells: Cells, scale: int, device: torch.device) -> tuple[Taps, Taps] | None:
    """How tiles come down to a scale, and its patches up again; None where the scale shows the tiles themselves."""
    if cells.shows_itself(scale):
        return None
    patch_px, side = cells.grid.patch_px, cells.grid.sides[scale]
    return (
        Taps.of(cells.tile_px, cells.grid.scales_px[scale], device=device),
        Taps.of(patch_px, cells.cell_px[scale], pieces=side, device=device),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tables:
    """Where the patches of a tile lie, on the device."""

    cells: Cells
    scale_P: Tensor
    covers_PA: Tensor
    scale_K1: Tensor
    last_first_P: Tensor

    @classmethod
    def of(cls, cells: Cells, device: torch.device) -> _Tables:
        P = cells.grid.num_patches
        scale_P = torch.tensor(cells.scale_of_patch)
        covers_PA = torch.from_numpy(cells.patch_of_atom)[scale_P] == torch.arange(P)[:, None]
        return cls(
            cells=cells,
            scale_P=scale_P.to(device),
            covers_PA=covers_PA.to(device),
            scale_K1=torch.arange(cells.grid.num_scales, device=device)[:, None],
            last_first_P=torch.arange(P - 1, -1, -1, device=device),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Order:
    """The patches that all tiles took, in the order in which they are taken one by one; N of them, then nothing."""

    index: Tensor
    gain: Tensor
    squared: Tensor
    known: Tensor
    """N."""
    certain: Tensor
    """How many of them come before any patch that is not known yet."""
    left: Tensor
    """Whether there may be such patches."""


class _Rounds:
    """A frame while every tile takes its best patch, round by round."""

    def __init__(self, tables: _Tables, seen: DeviceScales, error_nA: Tensor, squared_nA: Tensor | None) -> None:
        self._tables, self._seen = tables, seen
        self._error_nA, self._squared_nA = error_nA, squared_nA
        self._finest_nA = torch.full_like(error_nA, -1)
        self._index: list[Tensor] = []
        self._gain: list[Tensor] = []
        self._squared: list[Tensor] = []

    def absolute(self) -> Tensor:
        """Absolute error of the frame now."""
        return self._error_nA.sum()

    def squared(self) -> Tensor:
        """Squared error of the frame now; 2⁶², more than any, if it is not asked for."""
        return torch.full_like(self.absolute(), 2**62) if self._squared_nA is None else self._squared_nA.sum()

    def go_on(self, number: int, least: int) -> None:
        """Go on for this many rounds with the tiles whose best patch gains at least ``least``."""
        tables, shown_nKA = self._tables, self._seen.absolute_nKA
        tile_n = torch.arange(len(shown_nKA), device=shown_nKA.device)
        for _ in range(number):
            gain_n, patch_n = self._best()
            alive_n = gain_n >= least
            scale_n = tables.scale_P[patch_n]
            open_nA = self._finest_nA <= scale_n[:, None]
            hit_nA = tables.covers_PA[patch_n] & open_nA & alive_n[:, None]
            self._error_nA = torch.where(hit_nA, shown_nKA[tile_n, scale_n], self._error_nA)
            self._finest_nA = torch.where(hit_nA, scale_n[:, None], self._finest_nA)
            self._index.append(tile_n * len(tables.scale_P) + patch_n)
            self._gain.append(gain_n * alive_n)
            if self._squared_nA is not None and self._seen.squared_nKA is not None:
                after_nA = torch.where(hit_nA, self._seen.squared_nKA[tile_n, scale_n], self._squared_nA)
                self._squared.append((after_nA - self._squared_nA).sum(1))
                self._squared_nA = after_nA

    def in_order(self, least: int) -> _Order:
        """What was taken so far."""
        gain_nR = torch.stack(self._gain, 1)
        key_nR = gain_nR.cummin(1).values
        next_n = self._best()[0]
        bound = torch.where(next_n >= least, torch.minimum(key_nR[:, -1], next_n), 0).amax()
        # Tile by tile and stable: equal keys stay in the order of tiles, and a tile's patches in their own.
        order = key_nR.flatten().sort(descending=True, stable=True).indices
        squared_nR = torch.stack(self._squared, 1) if self._squared else torch.zeros_like(gain_nR)
        return _Order(
            index=torch.stack(self._index, 1).flatten()[order],
            gain=gain_nR.flatten()[order],
            squared=squared_nR.flatten()[order],
            known=(key_nR > 0).sum(),
            certain=(key_nR > bound).sum(),
            left=(bound > 0).long(),
        )

    def _best(self) -> tuple[Tensor, Tensor]:
        """(n,) gain and (n,) number of each tile's best patch, the lowest among equals."""
        tables = self._tables
        is_open = self._finest_nA[:, None] <= tables.scale_K1
        removed_nKA = (self._error_nA[:, None] - self._seen.absolute_nKA) * is_open
        gain_nP = _patch_sums(removed_nKA, tables.cells)
        P = gain_nP.shape[1]
        top_n = (gain_nP * P + tables.last_first_P).amax(1)  # no two are equal, so every device picks the same
        return top_n.div(P, rounding_mode="floor"), P - 1 - top_n.remainder(P)


def _patch_sums(removed_nKA: Tensor, cells: Cells) -> Tensor:
    """(n, P) sums over the atoms of each patch at its scale."""
    n, side, sums = len(removed_nKA), cells.atoms_a_side, []
    for scale, (patches, cell_px) in enumerate(zip(cells.grid.sides, cells.cell_px, strict=True)):
        atoms = cell_px // cells.atom_px
        used = removed_nKA[:, scale].view(n, side, side)[:, : patches * atoms, : patches * atoms]
        sums.append(used.reshape(n, patches, atoms, patches, atoms).sum((2, 4)).flatten(1))
    return torch.cat(sums, 1)
