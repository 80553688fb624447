"""Seams vanish, pictures stay: what is taken out of a tiled reconstruction is what its tiles disagree about."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from autogaze.grid import FrameLayout, PatchGrid
from autogaze.reconstructors.seams import MAX_JUMP_LEVELS, RAMP_PX, blend_seams, seam_error

GRID = PatchGrid(scales_px=(32, 64), patch_px=16)
TILE = 64


def tiled(*, height_px: int = 2 * TILE, width_px: int = 2 * TILE) -> FrameLayout:
    return FrameLayout.tiled(GRID, height_px=height_px, width_px=width_px)


def flat(layout: FrameLayout, *, level: int = 100, num_frames: int = 1) -> NDArray[np.uint8]:
    return np.full((num_frames, layout.height_px, layout.width_px, 3), level, np.uint8)


def smooth(layout: FrameLayout, *, seed: int = 0, cells_px: int = 40) -> NDArray[np.uint8]:
    """A picture that is continuous everywhere: random levels every ``cells_px``, straight lines between them."""
    rng = np.random.default_rng(seed)
    rows, columns = layout.height_px // cells_px + 2, layout.width_px // cells_px + 2
    coarse = rng.uniform(80, 170, (rows, columns, 3))
    y, x = np.arange(layout.height_px) / cells_px, np.arange(layout.width_px) / cells_px
    row, column = y.astype(int), x.astype(int)
    down, right = (y - row)[:, None, None], (x - column)[:, None]
    top = coarse[row][:, column] * (1 - right) + coarse[row][:, column + 1] * right
    bottom = coarse[row + 1][:, column] * (1 - right) + coarse[row + 1][:, column + 1] * right
    return np.rint(top * (1 - down) + bottom * down).astype(np.uint8)[None]


def noise(layout: FrameLayout, *, num_frames: int = 1) -> NDArray[np.uint8]:
    shape = (num_frames, layout.height_px, layout.width_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def with_tile_errors(true: NDArray[np.uint8], layout: FrameLayout, *, size: float = 5.0) -> NDArray[np.uint8]:
    """What a network would make of each tile by itself: another offset and another slope in every tile."""
    rng = np.random.default_rng(1)
    wrong = true.astype(float)
    y, x = np.mgrid[-1 : 1 : TILE * 1j, -1 : 1 : TILE * 1j][..., None]
    for top in range(0, layout.height_px, TILE):
        for left in range(0, layout.width_px, TILE):
            offset, down, right = rng.normal(0, size, (3, 3))
            error = offset + 0.5 * down * y + 0.5 * right * x
            part = wrong[:, top : top + TILE, left : left + TILE]
            part += error[: part.shape[1], : part.shape[2]]
    return np.rint(wrong).clip(0, 255).astype(np.uint8)


def psnr_db(rebuilt: NDArray[np.uint8], true: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.square(rebuilt.astype(float) - true).mean()))


def near_border(layout: FrameLayout, *, ramp_px: int) -> NDArray[np.bool_]:
    """(H, W) whether a pixel is within ``ramp_px`` of a border between tiles."""

    def along(length_px: int) -> NDArray[np.bool_]:
        borders = np.arange(TILE, length_px, TILE)
        distance = np.abs(np.arange(length_px)[:, None] + 0.5 - borders)
        return (distance < ramp_px).any(1)

    return along(layout.height_px)[:, None] | along(layout.width_px)


class TestNothingChanges:
    def test_with_one_tile(self) -> None:
        layout = FrameLayout.resized(GRID, height_px=90, width_px=70)
        assert np.array_equal(blend_seams(noise(layout), layout), noise(layout))

    @pytest.mark.parametrize("slope", [(0, 0), (1, 0), (0, 1), (1, 1)])
    def test_in_a_picture_that_goes_on_across_borders(self, slope: tuple[int, int]) -> None:
        layout = tiled()
        y, x = np.mgrid[: layout.height_px, : layout.width_px]
        picture = flat(layout, level=0) + (slope[0] * y + slope[1] * x)[None, :, :, None].astype(np.uint8)
        np.testing.assert_array_equal(blend_seams(picture, layout), picture)

    @pytest.mark.parametrize("axis", [1, 2])
    def test_in_a_picture_that_is_steep_at_borders(self, axis: int) -> None:
        layout = tiled()
        zigzag = 3 * np.abs((np.arange(2 * TILE) + TILE // 2) % (2 * TILE) - TILE)  # turns in the middle of tiles
        picture = flat(layout, level=0)
        np.moveaxis(picture, axis, -1)[...] = zigzag
        np.testing.assert_array_equal(blend_seams(picture, layout), picture)

    @pytest.mark.parametrize("axis", [1, 2])
    def test_of_an_edge_that_lies_on_a_border(self, axis: int) -> None:
        layout = tiled()
        picture = flat(layout)
        np.moveaxis(picture, axis, 0)[TILE:] += 60
        np.testing.assert_array_equal(blend_seams(picture, layout), picture)

    @pytest.mark.parametrize("ramp_px", [1, 5, RAMP_PX, 1000])
    def test_further_than_the_ramp(self, ramp_px: int) -> None:
        layout = tiled(height_px=2 * TILE + 20, width_px=3 * TILE)
        picture = with_tile_errors(noise(layout), layout, size=8)
        changed = (blend_seams(picture, layout, ramp_px=ramp_px) != picture).any((0, 3))
        assert changed.any()
        assert not (changed & ~near_border(layout, ramp_px=min(ramp_px, TILE // 4))).any()

    def test_of_the_pictures_that_are_given(self) -> None:
        layout = tiled()
        picture = with_tile_errors(flat(layout), layout)
        before = picture.copy()
        assert (blend_seams(picture, layout) != picture).any()
        np.testing.assert_array_equal(picture, before)

    def test_by_much_in_texture(self) -> None:
        layout = tiled()
        texture = (100 + noise(layout) // 8).astype(np.uint8)
        change = np.abs(blend_seams(texture, layout).astype(int) - texture)
        assert change.mean() < 0.05


class TestSeams:
    @pytest.mark.parametrize("axis", [1, 2])
    @pytest.mark.parametrize("offset", [3, 10, 30])
    def test_a_constant_offset_vanishes_at_the_border(self, axis: int, offset: int) -> None:
        layout = tiled()
        true = smooth(layout)
        shifted = true.copy()
        np.moveaxis(shifted, axis, 0)[TILE:] += np.uint8(offset)
        error = np.moveaxis(blend_seams(shifted, layout).astype(int) - true, axis, 0)
        assert np.abs(error[TILE] - error[TILE - 1]).mean() <= 1  # what 8 bits can tell
        assert np.abs(error[TILE - 1] - offset / 2).mean() <= 1
        np.testing.assert_array_equal(error[: TILE - RAMP_PX], 0)
        np.testing.assert_array_equal(error[TILE + RAMP_PX :], offset)
        along = error.mean((1, 2, 3))
        assert (np.diff(along) > -0.5).all(), "from nothing to the offset without turning back"

    @pytest.mark.parametrize("seed", range(3))
    def test_where_four_tiles_meet(self, seed: int) -> None:
        layout = tiled()
        offsets = np.random.default_rng(seed).integers(-10, 11, (2, 2, 3))
        true = smooth(layout, seed=seed)
        shifted = (true + np.kron(offsets, np.ones((TILE, TILE, 1), int))).astype(np.uint8)
        before, after = seam_error(shifted, true, layout), seam_error(blend_seams(shifted, layout), true, layout)
        assert before.at_tile_borders > 3
        assert after.at_tile_borders < 1

    def test_are_no_worse_than_the_error_of_the_model_itself(self) -> None:
        layout = tiled(height_px=200, width_px=230)
        true = smooth(layout)
        # Patches have errors of their own too.
        patches = np.random.default_rng(2).normal(0, 2, (13, 15, 3)).repeat(16, 0).repeat(16, 1)[:200, :230]
        rebuilt = np.rint(with_tile_errors(true, layout) + patches).clip(0, 255).astype(np.uint8)
        blended = blend_seams(rebuilt, layout)
        assert seam_error(rebuilt, true, layout).ratio > 2
        assert seam_error(blended, true, layout).ratio < 1
        assert psnr_db(blended, true) > psnr_db(rebuilt, true)

    def test_an_edge_does_not_hide_a_seam_beside_it(self) -> None:
        layout = tiled()
        shifted = flat(layout)
        shifted[:, :, TILE:] += 8
        shifted[:, 20:40, TILE:] += 100
        blended = blend_seams(shifted, layout).astype(int)
        jump = blended[0, :, TILE, 0] - blended[0, :, TILE - 1, 0]
        assert np.abs(jump[:18]).max() <= 1 and np.abs(jump[42:]).max() <= 1
        assert (jump[20:40] >= 100).all()

    def test_no_change_is_larger_than_half_the_largest_jump(self) -> None:
        layout = tiled(width_px=2 * TILE, height_px=TILE)  # one border
        picture = with_tile_errors(noise(layout), layout, size=20)
        change = np.abs(blend_seams(picture, layout).astype(int) - picture)
        assert 0 < change.max() <= MAX_JUMP_LEVELS / 2
        assert np.abs(blend_seams(picture, layout, max_jump_levels=4).astype(int) - picture).max() <= 2

    def test_every_frame_is_treated_by_itself(self) -> None:
        layout = tiled()
        frames = np.concatenate([with_tile_errors(smooth(layout, seed=seed), layout) for seed in range(3)])
        alone = np.concatenate([blend_seams(frame[None], layout) for frame in frames])
        np.testing.assert_array_equal(blend_seams(frames, layout), alone)

    @pytest.mark.parametrize("rest_px", [1, 2, 3, 17])
    def test_tiles_that_are_nearly_all_padding(self, rest_px: int) -> None:
        layout = tiled(height_px=TILE + rest_px, width_px=TILE + rest_px)
        shifted = flat(layout)
        shifted[:, TILE:] += 8
        shifted[:, :, TILE:] += 8
        blended = blend_seams(shifted, layout).astype(int)
        assert np.abs(blended[:, TILE] - blended[:, TILE - 1]).max() <= 2


class TestSeamError:
    def test_is_the_jump_of_the_error_and_not_of_the_picture(self) -> None:
        layout = tiled(height_px=TILE)
        true = noise(layout) // 2
        rebuilt = true.copy()
        rebuilt[:, :, TILE:] += 10
        rebuilt[:, 16:] += 3
        error = seam_error(rebuilt, true, layout)
        assert error.at_tile_borders == 10
        # Three lines of 128 px across, six of 64 px down; one across has a jump.
        assert error.at_patch_borders == pytest.approx(3 * 128 / (3 * 128 + 6 * 64))

    def test_of_tiles_that_are_stretched(self) -> None:
        layout = FrameLayout(
            grid=GRID, height_px=96, width_px=192, tile_height_px=96, tile_width_px=96, tile_rows=1, tile_columns=2
        )
        rebuilt = flat(layout)
        rebuilt[:, :, 24:] += 1  # a patch is 24 px here
        assert seam_error(rebuilt, flat(layout), layout).at_patch_borders > 0

    def test_without_a_border_is_no_number(self) -> None:
        layout = tiled(height_px=TILE, width_px=TILE)
        assert np.isnan(seam_error(noise(layout), flat(layout), layout).at_tile_borders)

    def test_needs_pictures_of_one_size(self) -> None:
        with pytest.raises(ValueError, match=r"pictures must be \(T, 128, 128, 3\), got \(1, 128, 128, 3\) and \(2, "):
            seam_error(flat(tiled()), flat(tiled(), num_frames=2), tiled())


class TestBadInput:
    @pytest.mark.parametrize(
        "picture", [np.zeros((128, 128, 3), np.uint8), np.zeros((1, 64, 128, 3), np.uint8), np.zeros((1, 128, 128, 3))]
    )
    def test_pictures(self, picture: NDArray[np.uint8]) -> None:
        with pytest.raises(ValueError, match=r"pictures of this layout are \(T, 128, 128, 3\) uint8, got"):
            blend_seams(picture, tiled())

    @pytest.mark.parametrize("numbers", [{"ramp_px": 0}, {"max_jump_levels": 0.0}, {"max_jump_levels": float("nan")}])
    def test_numbers(self, numbers: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="ramp_px must be at least 1 and max_jump_levels above 0"):
            blend_seams(flat(tiled()), tiled(), **numbers)
