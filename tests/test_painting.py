"""What is painted: half levels of bare values, exact errors, and paintings that go on by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.cells import Tiling
from autogaze.selectors.distortion import atom_sums, canvas_error, canvas_errors, squared_atom_sums
from autogaze.selectors.painting import Painting

GRID = PatchGrid(scales_px=(32, 64))


def tiling(height_px: int = 150, width_px: int = 200) -> Tiling:
    return Tiling(FrameLayout.tiled(GRID, height_px=height_px, width_px=width_px))


@pytest.fixture
def half_levels() -> np.ndarray:
    """Any half levels, of which two tiles have whole levels only."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 511, tiling().tiles_shape).astype(np.int16)
    values[[2, 7]] &= ~1
    return values


def test_any_half_levels_are_kept(half_levels: np.ndarray):
    painting = Painting.of(half_levels)
    np.testing.assert_array_equal(painting.half_levels, half_levels)
    np.testing.assert_array_equal(painting.brighter, (half_levels + 1) // 2)
    assert np.flatnonzero(~painting.some_bare).tolist() == [2, 7]


@pytest.mark.parametrize("squared", [False, True])
def test_errors_are_those_of_half_levels(half_levels: np.ndarray, squared: bool):
    cells = tiling().cells
    tiles = np.random.default_rng(1).integers(0, 256, half_levels.shape, np.uint8)
    error = np.abs(half_levels - 2 * tiles.astype(np.int16)).astype(np.uint16)
    painting = Painting.of(half_levels)
    np.testing.assert_array_equal(canvas_error(tiles, painting), error)
    some = np.array([0, 2, 5])
    np.testing.assert_array_equal(canvas_error(tiles[some], painting, some), error[some])
    errors = canvas_errors(tiles, painting, tiling(), squared=squared)
    np.testing.assert_array_equal(errors.absolute, atom_sums(error, cells))
    assert (errors.squared is not None) == squared
    if errors.squared is not None:
        np.testing.assert_array_equal(errors.squared, squared_atom_sums(error, cells))


def test_blank_is_mid_grey_within_the_frame():
    painting = Painting.blank(tiling())
    assert (tiling().join(painting.half_levels) == 255).all()
    real = tiling().cut(np.ones((150, 200, 3), bool))
    assert (painting.half_levels[~real] == 0).all()


def test_what_is_pasted_is_not_bare():
    painting = Painting.blank(tiling())
    pixels = np.full((64, 32, 3), 9, np.uint8)
    left, right = (np.s_[:], np.s_[:32]), (np.s_[:], np.s_[32:])
    painting.paste([(0, left, pixels)])
    assert painting.some_bare[0]
    assert (painting.half_levels[0, :, :32] == 18).all()
    assert (painting.half_levels[0, :, 32:] == 255).all()
    painting.paste([(0, right, pixels)])
    assert not painting.some_bare[0]
    assert painting.some_bare[1:].all()


def test_a_copy_goes_on_by_itself(half_levels: np.ndarray):
    painting = Painting.of(half_levels)
    copy = painting.copy()
    copy.paste([(1, (np.s_[:], np.s_[:]), np.zeros((64, 64, 3), np.uint8))])
    np.testing.assert_array_equal(painting.half_levels, half_levels)
    assert painting.some_bare[1]
    assert not copy.some_bare[1]


@pytest.mark.parametrize("shift_px", [(0, 0), (3, -70), (-200, 1)])
def test_it_moves_as_its_half_levels_do(half_levels: np.ndarray, shift_px: tuple[int, int]):
    moved = Painting.of(half_levels).shifted(tiling(), *shift_px)
    np.testing.assert_array_equal(moved.half_levels, tiling().shifted(half_levels, *shift_px))
