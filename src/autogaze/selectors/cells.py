"""Pixels of a frame as tiles, cells and atoms, and each tile as its scales show it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from autogaze.grid import FrameLayout, Indices, PatchGrid

# Shape letters: n tiles, S pixels a side of a tile, K scales, A atoms of a tile, P patches of a tile,
# s patches a side of a scale, p pixels a side of a patch, c pixels a side of a cell, H × W pixels of a frame.

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Cells:
    """Where the patches of a grid lie in a tile, in whole pixels of its finest scale.

    A *cell* is the square of the tile that a patch shows. An *atom* is the largest square that cuts every cell
    (and the tile) into whole pieces: whatever is summed per atom can be summed per cell without the pixels.

    Raises:
        ValueError: the cells of some scale are not whole pixels.
    """

    grid: PatchGrid

    def __post_init__(self) -> None:
        tile_px, patch_px = self.grid.scales_px[-1], self.grid.patch_px
        unfit = [scale for scale in self.grid.scales_px if tile_px * patch_px % scale]
        if unfit:
            fit = [s for s in range(patch_px, tile_px + 1, patch_px) if tile_px * patch_px % s == 0]
            raise ValueError(
                f"scales {unfit} px do not cut a tile of {tile_px} px into cells of whole pixels; "
                f"scales that fit: {', '.join(map(str, fit))} px"
            )

    @cached_property
    def tile_px(self) -> int:
        """Side of a tile: the finest scale."""
        return self.grid.scales_px[-1]

    @cached_property
    def cell_px(self) -> tuple[int, ...]:
        """Side of a cell, per scale."""
        return tuple(self.tile_px * self.grid.patch_px // scale for scale in self.grid.scales_px)

    @cached_property
    def atom_px(self) -> int:
        """Side of an atom."""
        return gcd(self.tile_px, *self.cell_px)

    @cached_property
    def atoms_a_side(self) -> int:
        """Atoms along one side of a tile."""
        return self.tile_px // self.atom_px

    @cached_property
    def num_atoms(self) -> int:
        """Atoms of a tile."""
        return self.atoms_a_side**2

    @cached_property
    def scale_of_patch(self) -> tuple[int, ...]:
        """(P,) scale number of each patch."""
        return tuple(np.repeat(np.arange(self.grid.num_scales), self.grid.patches_per_scale).tolist())

    @cached_property
    def patch_of_atom(self) -> Indices:
        """(K, A) the patch of each scale that covers each atom; P where the scale has none there."""
        position = np.arange(self.atoms_a_side)
        rows = []
        for scale, (side, cell_px) in enumerate(zip(self.grid.sides, self.cell_px, strict=True)):
            place = position * self.atom_px // cell_px
            patch = self.grid.offsets[scale] + place[:, None] * side + place
            patch[(place >= side)[:, None] | (place >= side)] = self.grid.num_patches
            rows.append(patch.reshape(-1))
        return np.stack(rows)

    @cached_property
    def atoms_of_patch(self) -> tuple[Indices, ...]:
        """P arrays: the atoms of each patch in ascending order."""
        return tuple(np.flatnonzero(self.patch_of_atom[s] == p) for p, s in enumerate(self.scale_of_patch))

    @cached_property
    def slots_of_patch(self) -> tuple[Indices, ...]:
        """P arrays: the atoms of each patch once per scale, as positions in a flat (K, A) array."""
        starts = np.arange(self.grid.num_scales)[:, None] * self.num_atoms
        return tuple((starts + atoms).reshape(-1) for atoms in self.atoms_of_patch)

    @cached_property
    def patches_of_patch(self) -> tuple[Indices, ...]:
        """P arrays: the patch that each of :attr:`slots_of_patch` belongs to."""
        return tuple(self.patch_of_atom.reshape(-1)[slots] for slots in self.slots_of_patch)

    @cached_property
    def square_of_patch(self) -> tuple[tuple[int, int, int], ...]:
        """P triples: scale number of each patch, its first atom, and its atoms along one side."""
        return tuple(
            (scale, int(atoms[0]), self.cell_px[scale] // self.atom_px)
            for scale, atoms in zip(self.scale_of_patch, self.atoms_of_patch, strict=True)
        )

    @cached_property
    def runs(self) -> tuple[Indices, Indices, Indices]:
        """:attr:`atoms_of_patch` one after the other, (P,) where each patch's begin, and (P,) how many it has."""
        sizes = np.array([len(atoms) for atoms in self.atoms_of_patch])
        return np.concatenate(self.atoms_of_patch), np.cumsum(sizes) - sizes, sizes

    def shows_itself(self, scale: int) -> bool:
        """Whether a scale's patches show the tile pixel for pixel, all of it."""
        return self.grid.sides[scale] * self.grid.patch_px == self.tile_px

    @cached_property
    def box_of_patch_px(self) -> tuple[tuple[slice, slice], ...]:
        """P pairs: the pixel rows and columns of each patch's cell in its tile."""
        boxes = []
        for side, cell_px in zip(self.grid.sides, self.cell_px, strict=True):
            edges = [slice(place * cell_px, (place + 1) * cell_px) for place in range(side)]
            boxes += [(rows, columns) for rows in edges for columns in edges]
        return tuple(boxes)


@lru_cache(maxsize=16)
def cells_of(grid: PatchGrid) -> Cells:
    """The cells of a grid, with what was worked out about them before.

    Raises:
        ValueError: the cells of some scale are not whole pixels.
    """
    return Cells(grid)


@dataclass(frozen=True)
class Tiling:
    """Frames of a layout as tiles in which one pixel is one pixel of the finest scale.

    A layout whose tiles are not of that size has the whole frame resized first, see :attr:`height_px`.
    """

    layout: FrameLayout

    @cached_property
    def cells(self) -> Cells:
        """The cells of one tile."""
        return cells_of(self.layout.grid)

    @cached_property
    def height_px(self) -> int:
        """Height of the frame in tile pixels, padding left out."""
        return -(-self.layout.height_px * self.cells.tile_px // self.layout.tile_height_px)

    @cached_property
    def width_px(self) -> int:
        """Width of the frame in tile pixels, padding left out."""
        return -(-self.layout.width_px * self.cells.tile_px // self.layout.tile_width_px)

    @property
    def num_values(self) -> int:
        """Pixels times channels of a frame, padding left out."""
        return self.height_px * self.width_px * 3

    @property
    def tiles_shape(self) -> tuple[int, int, int, int]:
        """(n, S, S, 3)."""
        return self.layout.num_tiles, self.cells.tile_px, self.cells.tile_px, 3

    def split(self, rgb: Pixels) -> Pixels:
        """(n, S, S, 3) tiles of an (H, W, 3) frame, 0 where they reach past it; may share its memory.

        Raises:
            ValueError: the frame is not of the layout's size.
        """
        expected = (self.layout.height_px, self.layout.width_px, 3)
        if rgb.shape != expected or rgb.dtype != np.uint8:
            raise ValueError(f"a frame of this layout is {expected} uint8, got {rgb.shape} {rgb.dtype}")
        rgb = resize(rgb[None], self.height_px, self.width_px)[0]
        return self.cut(rgb)

    def cut(self, frame: NDArray[Any]) -> NDArray[Any]:
        """(n, S, S, …) tiles of a (height_px, width_px, …) frame in tile pixels, 0 where they reach past it.

        May share its memory. :meth:`join` brings it back.
        """
        rows, columns, S = self.layout.tile_rows, self.layout.tile_columns, self.cells.tile_px
        inner = frame.shape[2:]
        if frame.shape[:2] == (S, S) and rows == columns == 1:
            return frame[None]
        tiles = np.empty((rows, columns, S, S, *inner), frame.dtype)
        for row in range(rows):
            part = frame[row * S : (row + 1) * S]
            whole = len(part), columns - 1, S, *inner
            tiles[row, :-1, : len(part)] = part[:, : (columns - 1) * S].reshape(whole).swapaxes(0, 1)
            tiles[row, -1, : len(part), : self.width_px - (columns - 1) * S] = part[:, (columns - 1) * S :]
        tiles = tiles.reshape(-1, S, S, *inner)
        self.clear_padding(tiles)
        return tiles

    def shifted(self, tiles: NDArray[Any], down_px: int, right_px: int) -> NDArray[Any]:
        """(n, S, S, …) tiles whose frame has moved, across the borders of tiles; its edges stay where they were too."""
        rows = (np.arange(self.height_px) - down_px).clip(0, self.height_px - 1)
        columns = (np.arange(self.width_px) - right_px).clip(0, self.width_px - 1)
        return self.cut(self.join(tiles)[rows][:, columns])

    def join(self, tiles: NDArray[Any]) -> NDArray[Any]:
        """(height_px, width_px, …) frame in tile pixels of (n, S, S, …) tiles; what lies past the frame is dropped."""
        rows, columns, S = self.layout.tile_rows, self.layout.tile_columns, self.cells.tile_px
        inner = tiles.shape[3:]
        joined = np.moveaxis(tiles.reshape(rows, columns, S, S, *inner), 1, 2).reshape(rows * S, columns * S, *inner)
        return np.ascontiguousarray(joined[: self.height_px, : self.width_px])

    def merge(self, tiles: Pixels) -> Pixels:
        """(H, W, 3) frame of (n, S, S, 3) tiles; what lies past the frame is dropped."""
        merged: Pixels = resize(self.join(tiles)[None], self.layout.height_px, self.layout.width_px)[0]
        return merged

    def extended(self, tiles: Pixels, number: Indices) -> Pixels:
        """(m, S, S, 3) tiles, those with the (m,) numbers ``number``, with the frame's edge repeated past the frame.

        What is brought down to a scale mixes pixels with their neighbours, which past the frame must not be black.
        Numbers go on from frame to frame. The argument is left alone.
        """
        right, columns_px, bottom, rows_px = self._past(number)
        if not (right | bottom).any():
            return tiles
        tiles = tiles.copy()
        pixels = tiles.view("V3")[..., 0]  # pixels in one piece are copied more than twice as fast
        pixels[right, :, columns_px:] = pixels[right, :, columns_px - 1 : columns_px]
        pixels[bottom, rows_px:] = pixels[bottom, rows_px - 1 : rows_px]
        return tiles

    def scaled(self, tiles: Pixels, number: Indices, scale: int) -> Pixels:
        """(m, S, S, 3) tiles, those with the (m,) numbers ``number``, as a scale shows them, and 0 past the frame.

        At the finest scale this is the tiles themselves.
        """
        if self.cells.shows_itself(scale):
            return tiles
        return self.shown(self.extended(tiles, number), number, scale)

    def shown(self, extended: Pixels, number: Indices, scale: int) -> Pixels:
        """:meth:`scaled` of tiles that are :meth:`extended`, for a scale that does not show the tiles themselves."""
        shown = scale_image(extended, self.cells, scale)
        self.clear_padding(shown, number)
        return shown

    def clear_padding(self, tiles: NDArray[Any], number: Indices | None = None) -> None:
        """Set to 0 what (m, S, S, 3) tiles hold past the frame: those with the (m,) numbers ``number``, or all.

        Numbers go on from frame to frame.
        """
        right, columns_px, bottom, rows_px = self._past(np.arange(len(tiles)) if number is None else number)
        tiles[right, :, columns_px:] = 0
        tiles[bottom, rows_px:] = 0

    def _past(self, number: Indices) -> tuple[NDArray[np.bool_], int, NDArray[np.bool_], int]:
        """Which tiles reach past the right edge, and from which column on; which past the lower one, and which row."""
        tile, (right, columns_px, bottom, rows_px) = number % self.layout.num_tiles, self._edges
        return right[tile], columns_px, bottom[tile], rows_px

    @cached_property
    def _edges(self) -> tuple[NDArray[np.bool_], int, NDArray[np.bool_], int]:
        """:meth:`_past` of all tiles."""
        row, column = np.divmod(np.arange(self.layout.num_tiles), self.layout.tile_columns)
        last_row, last_column, S = self.layout.tile_rows - 1, self.layout.tile_columns - 1, self.cells.tile_px
        rows_px, columns_px = self.height_px - last_row * S, self.width_px - last_column * S
        return (column == last_column) & (columns_px < S), columns_px, (row == last_row) & (rows_px < S), rows_px


def resize(rgb: Pixels, height_px: int, width_px: int) -> Pixels:
    """Bring (n, H, W, 3) pictures to another size: bilinear, antialiased, 8 bits, edges clamped, as Pillow does."""
    if rgb.shape[1:3] == (height_px, width_px):
        return rgb
    if not rgb.flags.writeable:  # torch refuses to look at memory it may not write to
        rgb = rgb.copy()
    images = torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2)
    resized = functional.interpolate(images, size=(height_px, width_px), mode="bilinear", antialias=True)
    pixels: Pixels = np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())
    return pixels


def scale_patches(tiles: Pixels, cells: Cells, scale: int) -> Pixels:
    """(n, s, s, p, p, 3) patches of (n, S, S, 3) tiles at one scale."""
    side, p, scale_px = cells.grid.sides[scale], cells.grid.patch_px, cells.grid.scales_px[scale]
    used: Pixels = resize(tiles, scale_px, scale_px)[:, : side * p, : side * p]
    patches: Pixels = used.reshape(len(tiles), side, p, side, p, 3).transpose(0, 1, 3, 2, 4, 5)
    return patches


def scale_image(tiles: Pixels, cells: Cells, scale: int) -> Pixels:
    """(n, S, S, 3) tiles as one scale shows them: every patch brought up to its cell by itself.

    What no patch covers is 0. At the finest scale this is the tiles themselves.
    """
    if cells.shows_itself(scale):
        return tiles
    side, p, c = cells.grid.sides[scale], cells.grid.patch_px, cells.cell_px[scale]
    small = resize(tiles, cells.grid.scales_px[scale], cells.grid.scales_px[scale])[:, : side * p, : side * p]
    shown = _enlarge(np.ascontiguousarray(small), p, c)
    if side * c == cells.tile_px:
        return shown
    image = np.zeros_like(tiles)
    image[:, : side * c, : side * c] = shown
    return image


def _enlarge(images: Pixels, from_px: int, to_px: int) -> Pixels:
    """(n, h, w, 3) pictures with every square of ``from_px`` pixels brought up to ``to_px`` pixels by itself.

    Equals :func:`resize` of every square, and is several times faster: no square has to be cut out. For the way along
    rows each stretch of a row is a row of one tall picture, for the way along columns each row of squares is a picture.
    """
    n, h, w, _ = images.shape
    stretches = images.reshape(1, -1, from_px, 3)
    wide = resize(stretches, stretches.shape[1], to_px).reshape(-1, from_px, w // from_px * to_px, 3)
    return resize(wide, to_px, wide.shape[2]).reshape(n, h // from_px * to_px, -1, 3)
