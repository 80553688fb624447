"""Where a patch sits: index ↔ scale, row, column ↔ pixel box, in integer arithmetic only."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

IntOrArray = TypeVar("IntOrArray", int, NDArray[np.int64])
Array = TypeVar("Array", bound=NDArray[Any])
Indices = NDArray[np.int64]

PUBLISHED_SCALES_PX = (32, 64, 112, 224)


@dataclass(frozen=True, kw_only=True)
class PatchGrid:
    """The patches of one square frame (or tile) seen at several resolutions.

    Indices run from the coarsest scale to the finest and row by row inside a scale. A scale of ``s`` pixels
    has ``s // patch_px`` patches a side; what does not fill a whole patch belongs to no patch.
    """

    scales_px: tuple[int, ...] = PUBLISHED_SCALES_PX
    """Side of the square frame at each scale, in pixels, strictly increasing."""
    patch_px: int = 16
    """Side of one square patch, in pixels of its scale."""

    def __post_init__(self) -> None:
        if self.patch_px < 1:
            raise ValueError(f"patch_px must be at least 1, got {self.patch_px}")
        if not self.scales_px:
            raise ValueError("scales_px must name at least one scale, got none")
        if list(self.scales_px) != sorted(set(self.scales_px)):
            raise ValueError(f"scales_px must be strictly increasing, got {self.scales_px}")
        if self.scales_px[0] < self.patch_px:
            raise ValueError(
                f"scale {self.scales_px[0]} px is smaller than one patch of {self.patch_px} px; "
                f"use scales of at least {self.patch_px} px"
            )

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Patches along one side, per scale."""
        return tuple(scale // self.patch_px for scale in self.scales_px)

    @cached_property
    def patches_per_scale(self) -> tuple[int, ...]:
        """Patches of one frame, per scale."""
        return tuple(side * side for side in self.sides)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Index of the first patch of each scale."""
        return tuple(sum(self.patches_per_scale[:i]) for i in range(len(self.scales_px)))

    @property
    def num_scales(self) -> int:
        """How many scales there are."""
        return len(self.scales_px)

    @cached_property
    def num_patches(self) -> int:
        """Patches of one frame over all scales."""
        return sum(self.patches_per_scale)

    def index(self, scale: IntOrArray, row: IntOrArray, column: IntOrArray) -> IntOrArray:
        """Index of the patch at ``row``, ``column`` of scale number ``scale`` (0 is the coarsest).

        Raises:
            IndexError: scale, row or column is outside the grid.
        """
        scales, rows, columns = np.asarray(scale), np.asarray(row), np.asarray(column)
        if ((scales < 0) | (scales >= self.num_scales)).any():
            raise IndexError(f"scale {scale} is outside 0..{self.num_scales - 1}")
        side = np.asarray(self.sides)[scales]
        if ((rows < 0) | (rows >= side) | (columns < 0) | (columns >= side)).any():
            raise IndexError(f"row {row}, column {column} is outside the {side} patches a side of scale {scale}")
        result: Indices = np.asarray(self.offsets)[scales] + rows * side + columns
        return int(result) if isinstance(scale, int) else result

    def locate(self, index: IntOrArray) -> tuple[IntOrArray, IntOrArray, IntOrArray]:
        """(scale, row, column) of each index; the inverse of :meth:`index`.

        Raises:
            IndexError: an index is outside ``0 .. num_patches - 1``.
        """
        indices = np.asarray(index)
        if ((indices < 0) | (indices >= self.num_patches)).any():
            raise IndexError(f"patch index {index} is outside 0..{self.num_patches - 1}")
        scale = np.searchsorted(np.asarray(self.offsets), indices, side="right") - 1
        side = np.asarray(self.sides)[scale]
        inside = indices - np.asarray(self.offsets)[scale]
        row, column = inside // side, inside % side
        if isinstance(index, int):
            return int(scale), int(row), int(column)
        return scale, row, column


@dataclass(frozen=True, kw_only=True)
class FrameLayout:
    """How the tiles of a :class:`PatchGrid` cover the frames of a video.

    Tile ``(i, j)`` covers ``tile_height_px × tile_width_px`` video pixels from ``(i·tile_height_px,
    j·tile_width_px)``; what reaches past the frame is padding. A patch index counts tiles row by row and the
    patches of ``grid`` inside each: ``(i·tile_columns + j)·grid.num_patches + patch``.
    """

    grid: PatchGrid
    """Patches of one tile."""
    height_px: int
    """Height of the video's frames."""
    width_px: int
    """Width of the video's frames."""
    tile_height_px: int
    """Video pixels one tile covers from top to bottom."""
    tile_width_px: int
    """Video pixels one tile covers from left to right."""
    tile_rows: int = 1
    """Tiles from top to bottom."""
    tile_columns: int = 1
    """Tiles from left to right."""

    def __post_init__(self) -> None:
        if self.height_px < 1 or self.width_px < 1:
            raise ValueError(f"a frame needs at least 1 × 1 px, got {self.height_px} × {self.width_px}")
        for name, tiles, tile_px, frame_px in (
            ("rows", self.tile_rows, self.tile_height_px, self.height_px),
            ("columns", self.tile_columns, self.tile_width_px, self.width_px),
        ):
            if tiles < 1 or tile_px < 1 or tiles * tile_px < frame_px or (tiles - 1) * tile_px >= frame_px:
                raise ValueError(
                    f"{tiles} tile {name} of {tile_px} px do not cover {frame_px} px, or more than cover them; "
                    f"FrameLayout.tiled and FrameLayout.resized choose numbers that fit"
                )

    @classmethod
    def resized(cls, grid: PatchGrid, *, height_px: int, width_px: int) -> FrameLayout:
        """One tile stretched over the whole frame."""
        return cls(
            grid=grid,
            height_px=height_px,
            width_px=width_px,
            tile_height_px=height_px,
            tile_width_px=width_px,
        )

    @classmethod
    def tiled(cls, grid: PatchGrid, *, height_px: int, width_px: int) -> FrameLayout:
        """As many tiles of the grid's finest scale as cover the frame pixel for pixel."""
        tile_px = grid.scales_px[-1]
        return cls(
            grid=grid,
            height_px=height_px,
            width_px=width_px,
            tile_height_px=tile_px,
            tile_width_px=tile_px,
            tile_rows=max(1, -(-height_px // tile_px)),
            tile_columns=max(1, -(-width_px // tile_px)),
        )

    @property
    def num_tiles(self) -> int:
        """Tiles of one frame."""
        return self.tile_rows * self.tile_columns

    @property
    def num_indices(self) -> int:
        """One more than the largest patch index; counts padding patches too."""
        return self.num_tiles * self.grid.num_patches

    @cached_property
    def patch_boxes_px(self) -> Indices:
        """(num_indices, 4) left, top, right, bottom in video pixels, right and bottom exclusive.

        Clipped to the frame: a patch that lies in the padding has an empty box. Read-only.
        """
        tile, patch = np.divmod(np.arange(self.num_indices), self.grid.num_patches)
        tile_row, tile_column = np.divmod(tile, self.tile_columns)
        scale, row, column = self.grid.locate(patch)
        step, scale_px = self.grid.patch_px, np.asarray(self.grid.scales_px)[scale]

        def edge(tile_position: Indices, position: Indices, tile_px: int, frame_px: int) -> Indices:
            inside = position * step * tile_px // scale_px
            clipped: Indices = (tile_position * tile_px + inside).clip(max=frame_px)
            return clipped

        boxes = np.stack(
            [
                edge(tile_column, column, self.tile_width_px, self.width_px),
                edge(tile_row, row, self.tile_height_px, self.height_px),
                edge(tile_column, column + 1, self.tile_width_px, self.width_px),
                edge(tile_row, row + 1, self.tile_height_px, self.height_px),
            ],
            axis=-1,
        )
        return _read_only(boxes)

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """(num_indices,) true where a patch shows at least one pixel of the video. Read-only."""
        left, top, right, bottom = self.patch_boxes_px.T
        shown: NDArray[np.bool_] = (right > left) & (bottom > top)
        return _read_only(shown)

    @cached_property
    def num_patches(self) -> int:
        """Patches of one frame that show at least one pixel of the video: what shares are shares of."""
        return int(self.inside.sum())

    @cached_property
    def _places(self) -> tuple[Indices, Indices, Indices]:
        """Scale, row and column of every index; each (num_indices,)."""
        tile, patch = np.divmod(np.arange(self.num_indices), self.grid.num_patches)
        tile_row, tile_column = np.divmod(tile, self.tile_columns)
        scale, row, column = self.grid.locate(patch)
        side = np.asarray(self.grid.sides)[scale]
        return _read_only(scale), _read_only(tile_row * side + row), _read_only(tile_column * side + column)

    def locate(self, index: Indices) -> tuple[Indices, Indices, Indices]:
        """(scale, row, column) of each index, rows and columns counted over the whole frame.

        Raises:
            IndexError: an index is outside ``0 .. num_indices - 1``.
        """
        index = np.asarray(index)
        if index.size and not 0 <= index.min() <= index.max() < self.num_indices:
            raise IndexError(f"patch index outside 0..{self.num_indices - 1}: {index}")
        scale, row, column = self._places
        return scale[index], row[index], column[index]

    def index(self, scale: Indices, row: Indices, column: Indices) -> Indices:
        """Index of the patch at ``row``, ``column`` of a scale over the whole frame; inverse of :meth:`locate`.

        Raises:
            IndexError: scale, row or column is outside the layout.
        """
        scale, row, column = np.asarray(scale), np.asarray(row), np.asarray(column)
        if ((scale < 0) | (scale >= self.grid.num_scales)).any():
            raise IndexError(f"scale {scale} is outside 0..{self.grid.num_scales - 1}")
        side = np.asarray(self.grid.sides)[scale]
        tile_row, tile_column = row // side, column // side
        if ((row < 0) | (tile_row >= self.tile_rows) | (column < 0) | (tile_column >= self.tile_columns)).any():
            raise IndexError(f"row {row}, column {column} is outside {self.tile_rows} × {self.tile_columns} tiles")
        tile = tile_row * self.tile_columns + tile_column
        index: Indices = tile * self.grid.num_patches + self.grid.index(scale, row % side, column % side)
        return index

    def to_json(self) -> dict[str, Any]:
        """The layout as plain numbers; :meth:`from_json` reads it back."""
        return {
            "scales_px": list(self.grid.scales_px),
            "patch_px": self.grid.patch_px,
            **{name: getattr(self, name) for name in _LAYOUT_NUMBERS},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FrameLayout:
        """The layout of a :meth:`to_json` value.

        Raises:
            KeyError: a number is missing.
            TypeError: something is not a whole number.
            ValueError: the numbers do not make a layout.
        """
        scales_px = tuple(operator.index(scale) for scale in data["scales_px"])
        grid = PatchGrid(scales_px=scales_px, patch_px=operator.index(data["patch_px"]))
        return cls(grid=grid, **{name: operator.index(data[name]) for name in _LAYOUT_NUMBERS})


_LAYOUT_NUMBERS = ("height_px", "width_px", "tile_height_px", "tile_width_px", "tile_rows", "tile_columns")


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array
