"""Errors and searches by compiled code are those of numpy, number for number."""

from __future__ import annotations

import numpy as np
import pytest

from autogaze.grid import FrameLayout, PatchGrid
from autogaze.native.loading import SWITCH
from autogaze.native.pixels import pixel_library
from autogaze.selectors.cells import Cells, Tiling
from autogaze.selectors.distortion import Errors, Scales, bare_errors, canvas_errors, picture_errors
from autogaze.selectors.greedy import Goal, Search, Taken, greedy
from autogaze.selectors.painting import Painting
from autogaze.selectors.pasting import CompiledTile, NumpyTile, TileMemory, search_tile
from make_video import moving_frames

needs_library = pytest.mark.skipif(pixel_library() is None, reason="no compiled code here")

GRIDS = [
    PatchGrid(),
    PatchGrid(scales_px=(32, 64)),
    PatchGrid(scales_px=(16, 48)),  # cells of 48 px: an atom is as large as a patch
    PatchGrid(scales_px=(30, 60), patch_px=15),  # odd sides, and pixels that no patch of a scale covers
    PatchGrid(scales_px=(400,), patch_px=400),  # sums past 16 bits
]


@pytest.fixture
def numbers() -> np.random.Generator:
    return np.random.default_rng(0)


def same(a: Errors, b: Errors) -> None:
    np.testing.assert_array_equal(a.absolute, b.absolute)
    assert (a.squared is None) == (b.squared is None)
    if a.squared is not None:
        np.testing.assert_array_equal(a.squared, b.squared)


def pictures(cells: Cells, count: int, numbers: np.random.Generator) -> np.ndarray:
    """Every third picture is black and the next one white: the largest errors there are."""
    tiles = numbers.integers(0, 256, (count, cells.tile_px, cells.tile_px, 3), dtype=np.uint8)
    tiles[::3], tiles[1::3] = 0, 255
    return tiles


@needs_library
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("squared", [False, True])
def test_errors_are_numpys(grid, squared, numbers, monkeypatch):
    cells = Cells(grid)
    tiles, shown = pictures(cells, 4, numbers), pictures(cells, 4, numbers)[::-1]
    bare = numbers.random(shown.shape) < 0.3
    painting = Painting(np.minimum(shown, 254), bare)
    number = np.array([0, 2, 3])

    def all_errors() -> list[Errors]:
        return [
            picture_errors(tiles, shown, cells, squared=squared),
            bare_errors(tiles[number], painting, number, cells, squared=squared),
        ]

    compiled = all_errors()
    monkeypatch.setenv(SWITCH, "0")
    for a, b in zip(compiled, all_errors(), strict=True):
        same(a, b)


@needs_library
@pytest.mark.parametrize("some_bare", [False, True])
def test_errors_of_a_canvas_are_numpys(some_bare, numbers, monkeypatch):
    tiling = Tiling(FrameLayout.tiled(PatchGrid(scales_px=(32, 64)), height_px=200, width_px=300))
    tiles = numbers.integers(0, 256, tiling.tiles_shape, dtype=np.uint8)
    canvas = Painting.blank(tiling)
    if not some_bare:
        canvas.paste((tile, (slice(0, 64), slice(0, 64)), tiles[-1 - tile]) for tile in range(0, len(tiles), 2))
    compiled = canvas_errors(tiles, canvas, tiling, squared=True)
    monkeypatch.setenv(SWITCH, "0")
    same(compiled, canvas_errors(tiles, canvas, tiling, squared=True))


@needs_library
@pytest.mark.parametrize("grid", GRIDS[:4])
@pytest.mark.parametrize("squared", [False, True])
def test_searches_are_numpys(grid, squared, monkeypatch):
    frame = moving_frames(1, height_px=152, width_px=240, seed=3)[0]
    tiling = Tiling(FrameLayout.tiled(grid, height_px=152, width_px=240))
    goal = Goal(squared=10**9) if squared else Goal()

    def search() -> tuple[Taken, Search]:
        scales = Scales(tiling.split(frame), tiling, squared=squared)
        errors = canvas_errors(scales.tiles, Painting.blank(tiling), tiling, squared=squared)
        search = Search(errors, scales)
        first = greedy(search.fork(), max_patches=5)  # a fork leaves the other alone
        taken = greedy(search, max_patches=400, goal=goal)
        np.testing.assert_array_equal(first.index, taken.index[:5])
        return taken, search

    (compiled, compiled_search), _ = search(), monkeypatch.setenv(SWITCH, "0")
    plain, plain_search = search()
    for name in ("index", "absolute", "gain", "remaining"):
        np.testing.assert_array_equal(getattr(compiled, name), getattr(plain, name))
    np.testing.assert_array_equal(compiled_search.gains, plain_search.gains)
    assert compiled_search.squared == plain_search.squared


@needs_library
def test_patches_in_any_order_and_again(numbers):
    cells = Cells(PatchGrid(scales_px=(30, 60), patch_px=15))
    K, A, P = cells.grid.num_scales, cells.num_atoms, cells.grid.num_patches

    def memory() -> TileMemory:
        made = np.random.default_rng(1)
        removed, shown, squared = (made.integers(-50, 50, (K, A)).astype(float) for _ in range(3))
        return TileMemory(
            removed=removed,
            shown=shown,
            finest=np.full(A, -1, np.int8),
            gains=np.pad(made.integers(0, 99, P).astype(float), (0, 1)),
            squared=squared[0].copy(),
            shown_squared=squared,
        )

    ours, plain = memory(), memory()
    compiled, numpys = search_tile(ours, cells), NumpyTile(plain, cells)
    assert isinstance(compiled, CompiledTile)
    for patch in numbers.integers(0, P, 3 * P).tolist():
        assert compiled.paste(patch) == numpys.paste(patch)
        for name in ("removed", "finest", "gains", "squared"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(plain, name))


def test_without_compiled_code(monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    assert pixel_library() is None
