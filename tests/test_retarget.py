"""Gazes on other grids, against brute force over pixels and masks."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.retarget import retarget
from gaze_samples import random_gaze

NATIVE = PatchGrid()


def single(scale_px: int, patch_px: int) -> PatchGrid:
    return PatchGrid(scales_px=(scale_px,), patch_px=patch_px)


@st.composite
def grids(draw: st.DrawFn, most_scales: int = 3) -> PatchGrid:
    patch_px = draw(st.integers(1, 5))
    scales_px = draw(st.sets(st.integers(patch_px, 24), min_size=1, max_size=most_scales))
    return PatchGrid(scales_px=tuple(sorted(scales_px)), patch_px=patch_px)


@st.composite
def layouts(draw: st.DrawFn) -> FrameLayout:
    make = draw(st.sampled_from([FrameLayout.tiled, FrameLayout.resized]))
    return make(draw(grids()), height_px=draw(st.integers(1, 60)), width_px=draw(st.integers(1, 60)))


def edges(layout: FrameLayout, index: int) -> tuple[Fraction, Fraction, Fraction, Fraction]:
    """Exact left, top, right, bottom of one patch, clipped to the frame."""
    scale, row, column = (int(number) for number in layout.locate(np.array(index)))
    side, scale_px, patch_px = layout.grid.sides[scale], layout.grid.scales_px[scale], layout.grid.patch_px

    def edge(place: int, step: int, tile_px: int, frame_px: int) -> Fraction:
        position = place // side * tile_px + Fraction((place % side + step) * patch_px * tile_px, scale_px)
        return min(position, Fraction(frame_px))

    return (
        edge(column, 0, layout.tile_width_px, layout.width_px),
        edge(row, 0, layout.tile_height_px, layout.height_px),
        edge(column, 1, layout.tile_width_px, layout.width_px),
        edge(row, 1, layout.tile_height_px, layout.height_px),
    )


def by_fractions(gaze: Gaze, grid: PatchGrid, coarse: str) -> list[list[tuple[int, int]]]:
    """Per frame the (cell, gaze that brings it in), by comparing every gaze with every cell."""
    layout = gaze.layout
    target = FrameLayout.resized(grid, height_px=layout.height_px, width_px=layout.width_px)
    cells = [edges(target, cell) for cell in range(grid.num_patches)]
    result: list[list[tuple[int, int]]] = [[] for _ in range(len(gaze))]
    for number, (frame, index) in enumerate(zip(gaze.frame.tolist(), gaze.index.tolist(), strict=True)):
        if coarse == "drop" and int(layout.locate(np.array(index))[0]) < layout.grid.num_scales - 1:
            continue
        left, top, right, bottom = edges(layout, index)
        for cell, (cell_left, cell_top, cell_right, cell_bottom) in enumerate(cells):
            wide = min(right, cell_right) > max(left, cell_left)
            high = min(bottom, cell_bottom) > max(top, cell_top)
            if wide and high and cell not in [known for known, _ in result[frame]]:
                result[frame].append((cell, number))
    return result


@given(layouts(), grids(most_scales=1), st.integers(0, 2**32 - 1), st.sampled_from(["cover", "drop"]))
@settings(max_examples=80, deadline=None)
def test_one_scale_is_what_fractions_say(layout: FrameLayout, grid: PatchGrid, seed: int, coarse):
    gaze = random_gaze(seed, layout=layout, num_frames=3, most=min(5, layout.num_indices))
    if grid == layout.grid and layout.num_tiles == 1:
        assert retarget(gaze, grid, coarse=coarse) is gaze
        return
    result = retarget(gaze, grid, coarse=coarse)
    expected = by_fractions(gaze, grid, coarse)
    assert [frame.index.tolist() for frame in result] == [[cell for cell, _ in frame] for frame in expected]
    bringer = np.array([number for frame in expected for _, number in frame], int)
    np.testing.assert_array_equal(result.probability, gaze.probability[bringer])
    np.testing.assert_array_equal(result.predicted_loss, gaze.predicted_loss[bringer])
    np.testing.assert_array_equal(result.time_seconds, gaze.time_seconds)
    assert result.layout == FrameLayout.resized(grid, height_px=layout.height_px, width_px=layout.width_px)


@pytest.mark.parametrize("grid", [single(392, 14), single(384, 16), single(224, 16), single(224, 14), single(30, 1)])
@pytest.mark.parametrize("make", [FrameLayout.tiled, FrameLayout.resized])
def test_with_cover_no_gazed_pixel_is_lost(grid: PatchGrid, make):
    layout = make(NATIVE, height_px=300, width_px=500)
    gaze = random_gaze(3, layout=layout, num_frames=3, most=12)
    result = retarget(gaze, grid)
    finest = retarget(gaze, grid, coarse="drop")
    for t in range(3):
        assert not ((gaze.coverage(t) > 0) & (result.coverage(t) == 0)).any()
        assert not ((gaze.coverage(t) == 4) & (finest.coverage(t) == 0)).any()
        assert set(finest[t].index.tolist()) <= set(result[t].index.tolist())


def test_28_cells_split_and_24_cells_overlap():
    layout = FrameLayout.resized(NATIVE, height_px=224, width_px=224)
    fine = Gaze(index=np.array([69 + 14 + 1]), count=np.array([1]), layout=layout)  # finest, row 1, column 1
    assert retarget(fine, single(392, 14)).index.tolist() == [2 * 28 + 2, 2 * 28 + 3, 3 * 28 + 2, 3 * 28 + 3]
    # 1/14 .. 2/14 of the frame is 1.71 .. 3.43 of 24 cells
    assert retarget(fine, single(384, 16)).index.tolist() == [r * 24 + c for r in (1, 2, 3) for c in (1, 2, 3)]
    coarse = replace(fine, index=np.array([3]))  # the lower right quarter
    assert retarget(coarse, single(224, 16)).index.tolist() == [r * 14 + c for r in range(7, 14) for c in range(7, 14)]
    assert retarget(coarse, single(224, 16), coarse="drop").num_gazes == 0


def test_the_first_gaze_that_brings_a_cell_in_names_it():
    layout = FrameLayout.resized(NATIVE, height_px=224, width_px=224)
    gaze = Gaze(
        index=np.array([264, 3]),
        count=np.array([2]),
        layout=layout,
        probability=np.array([0.5, 0.25]),
        predicted_loss=np.array([0.9, 0.8]),
    )
    result = retarget(gaze, single(224, 16))
    assert result.num_gazes == 49 and result.index[0] == 195 and 195 not in result.index[1:]
    assert result.probability.tolist() == [0.5] + [0.25] * 48
    np.testing.assert_array_equal(result.predicted_loss, np.float32([0.9] + [0.8] * 48))


def test_padding_brings_nothing_in():
    layout = FrameLayout.tiled(NATIVE, height_px=300, width_px=500)
    padding = Gaze(index=np.flatnonzero(~layout.inside), count=np.array([(~layout.inside).sum()]), layout=layout)
    assert retarget(padding, single(392, 14)).num_gazes == 0


def test_a_long_video_is_done_in_parts():
    gaze = random_gaze(0, layout=FrameLayout.resized(NATIVE, height_px=90, width_px=160), num_frames=2500, most=20)
    whole = retarget(gaze, single(392, 14))
    assert len(whole) == 2500
    for t in (0, 1023, 1024, 2499):
        assert retarget(gaze[t], single(392, 14)).equals(whole[t])


def tiles_of(grid: PatchGrid, *, source: PatchGrid = NATIVE) -> FrameLayout:
    """How a square frame of the grid's finest scale is gazed at in tiles of the source grid."""
    n = -(-grid.sides[-1] // source.sides[-1])
    return FrameLayout(
        grid=source,
        height_px=grid.scales_px[-1],
        width_px=grid.scales_px[-1],
        tile_height_px=source.sides[-1] * grid.patch_px,
        tile_width_px=source.sides[-1] * grid.patch_px,
        tile_rows=n,
        tile_columns=n,
    )


FOUR_SCALES = [
    (PatchGrid(scales_px=(56, 112, 196, 392), patch_px=14), (4, 8, 14, 28)),
    (PatchGrid(scales_px=(56, 112, 224, 448), patch_px=16), (3, 7, 14, 28)),
    (PatchGrid(scales_px=(28, 56, 98, 196), patch_px=14), (2, 4, 7, 14)),
    (PatchGrid(scales_px=(48, 96, 192, 384), patch_px=14), (3, 6, 13, 27)),
]


@pytest.mark.parametrize(("grid", "sides"), FOUR_SCALES)
def test_several_scales_are_masks_put_side_by_side_and_cropped(grid: PatchGrid, sides: tuple[int, ...]):
    assert grid.sides == sides
    layout = tiles_of(grid)
    gaze = random_gaze(0, layout=layout, num_frames=4, most=300)
    result = retarget(gaze, grid)
    for before, after, side in zip(gaze.scale_masks(), result.scale_masks(), sides, strict=True):
        np.testing.assert_array_equal(after, before[:, :side, :side])
    assert result.layout == FrameLayout.resized(grid, height_px=layout.height_px, width_px=layout.width_px)
    # Order and numbers: what is left of the gaze, in its order.
    scale, row, column = layout.locate(gaze.index)
    kept = (row < np.array(sides)[scale]) & (column < np.array(sides)[scale])
    assert 0 < kept.sum() <= gaze.num_gazes
    np.testing.assert_array_equal(result.probability, gaze.probability[kept])
    np.testing.assert_array_equal(result.predicted_loss, gaze.predicted_loss[kept])
    np.testing.assert_array_equal(result.time_seconds, gaze.time_seconds)
    np.testing.assert_array_equal(result.frame, gaze.frame[kept])


def test_fitting_scales_keep_their_boxes():
    grid = FOUR_SCALES[0][0]
    gaze = random_gaze(0, layout=tiles_of(grid), num_frames=4, most=300)
    np.testing.assert_array_equal(retarget(gaze, grid).boxes_px, gaze.boxes_px)


def test_frames_smaller_than_the_tiles_keep_their_boxes():
    grid = PatchGrid(scales_px=(64, 128, 224, 448), patch_px=16)
    layout = FrameLayout.tiled(NATIVE, height_px=300, width_px=440)
    gaze = random_gaze(0, layout=layout, num_frames=4, most=300)
    result = retarget(gaze, grid)
    assert (result.layout.height_px, result.layout.width_px) == (300, 440)
    np.testing.assert_array_equal(result.boxes_px, gaze.boxes_px)


def test_everything_cropped_leaves_empty_frames():
    grid = FOUR_SCALES[1][0]
    layout = tiles_of(grid)
    last_row = layout.index(np.zeros(4, int), np.full(4, 3), np.arange(4))  # row 3 of 4, of which 3 stay
    gaze = Gaze(index=last_row, count=np.array([0, 4]), layout=layout)
    result = retarget(gaze, grid)
    assert result.num_gazes == 0 and result.count.tolist() == [0, 0]
    assert len(retarget(gaze[:0], grid)) == 0 and len(retarget(gaze[:0], single(392, 14))) == 0


@given(layouts(), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_own_grid_changes_nothing(layout: FrameLayout, seed: int):
    if layout.num_tiles == 1:
        gaze = random_gaze(seed, layout=layout, most=min(9, layout.num_indices))
        for coarse in ("cover", "drop"):
            assert retarget(gaze, layout.grid, coarse=coarse).equals(gaze)


@pytest.mark.parametrize(
    ("layout", "grid"),
    [
        (FrameLayout.tiled(NATIVE, height_px=300, width_px=500), FOUR_SCALES[0][0]),  # 2 × 3 tiles
        (FrameLayout.resized(NATIVE, height_px=392, width_px=392), FOUR_SCALES[0][0]),  # 1 × 1 where 2 × 2 are needed
        (tiles_of(FOUR_SCALES[0][0]), PatchGrid(scales_px=(196, 392), patch_px=14)),  # two scales
        (tiles_of(FOUR_SCALES[0][0]), NATIVE),  # its own grid, but four tiles
        (tiles_of(FOUR_SCALES[0][0]), PatchGrid(scales_px=(84, 112, 196, 392), patch_px=14)),  # 6 > 2 · 2
    ],
)
def test_what_cannot_be_retargeted(layout: FrameLayout, grid: PatchGrid):
    gaze = random_gaze(0, layout=layout)
    with pytest.raises(ValueError, match=r"cannot retarget .* px at patch \d+; possible are any grid of one scale"):
        retarget(gaze, grid)


def test_unknown_rule_for_coarse_gazes():
    gaze = random_gaze(0, layout=FrameLayout.resized(NATIVE, height_px=9, width_px=9))
    with pytest.raises(ValueError, match='must be "cover" or "drop", got \'keep\''):
        retarget(gaze, single(392, 14), coarse="keep")  # type: ignore[arg-type]


def test_a_number_is_no_grid() -> None:
    layout = FrameLayout.resized(PatchGrid(), height_px=224, width_px=224)
    gaze = Gaze(index=np.array([0]), count=np.array([1]), layout=layout)
    with pytest.raises(TypeError, match="grid must be a PatchGrid, got 24"):
        retarget(gaze, 24)  # type: ignore[arg-type]
