"""Index ↔ place round trips, and that the patches of a scale tile the frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autogaze.grid import PUBLISHED_SCALES_PX, FrameLayout, PatchGrid

GRIDS = [
    PatchGrid(),
    PatchGrid(scales_px=(56, 112, 196, 392), patch_px=14),
    PatchGrid(scales_px=(56, 112, 224, 448), patch_px=16),
    PatchGrid(scales_px=(384,), patch_px=14),
    PatchGrid(scales_px=(1, 2, 3), patch_px=1),
]


@st.composite
def grids(draw: st.DrawFn) -> PatchGrid:
    patch_px = draw(st.integers(1, 8))
    scales_px = draw(st.sets(st.integers(patch_px, 50), min_size=1, max_size=4))
    return PatchGrid(scales_px=tuple(sorted(scales_px)), patch_px=patch_px)


@st.composite
def layouts(draw: st.DrawFn) -> FrameLayout:
    make = draw(st.sampled_from([FrameLayout.tiled, FrameLayout.resized]))
    return make(draw(grids()), height_px=draw(st.integers(1, 90)), width_px=draw(st.integers(1, 90)))


def test_the_published_grid():
    grid = PatchGrid()
    assert grid.scales_px == PUBLISHED_SCALES_PX == (32, 64, 112, 224)
    assert grid.sides == (2, 4, 7, 14)
    assert grid.patches_per_scale == (4, 16, 49, 196)
    assert grid.offsets == (0, 4, 20, 69)
    assert (grid.num_scales, grid.num_patches) == (4, 265)


def test_sides_are_rounded_down():
    assert PatchGrid(scales_px=(56, 112, 224, 448), patch_px=16).sides == (3, 7, 14, 28)
    assert PatchGrid(scales_px=(56, 112, 196, 392), patch_px=14).sides == (4, 8, 14, 28)


@pytest.mark.parametrize("grid", GRIDS)
def test_every_index_of_a_grid_round_trips(grid: PatchGrid):
    places = []
    for index in range(grid.num_patches):
        scale, row, column = grid.locate(index)
        assert all(type(number) is int for number in (scale, row, column))
        assert grid.index(scale, row, column) == index
        places.append((scale, row, column))
    assert places == sorted(places), "coarse to fine, then row by row"
    assert places == [
        (scale, row, column) for scale, side in enumerate(grid.sides) for row in range(side) for column in range(side)
    ]
    everything = np.arange(grid.num_patches)
    assert np.array_equal(np.stack(grid.locate(everything), axis=1), places)
    np.testing.assert_array_equal(grid.index(*grid.locate(everything)), everything)


@given(layouts())
@settings(max_examples=60, deadline=None)
def test_every_index_of_a_layout_round_trips(layout: FrameLayout):
    everything = np.arange(layout.num_indices)
    scale, row, column = layout.locate(everything)
    np.testing.assert_array_equal(layout.index(scale, row, column), everything)
    places = set(zip(scale.tolist(), row.tolist(), column.tolist(), strict=True))
    assert len(places) == layout.num_indices
    side = np.asarray(layout.grid.sides)[scale]
    assert (row < side * layout.tile_rows).all() and (column < side * layout.tile_columns).all()


def painted(layout: FrameLayout, scale: int) -> np.ndarray:
    """How many patches of a scale show each pixel."""
    image = np.zeros((layout.height_px, layout.width_px), int)
    scales, _, _ = layout.locate(np.arange(layout.num_indices))
    for left, top, right, bottom in layout.patch_boxes_px[scales == scale]:
        image[top:bottom, left:right] += 1
    return image


@pytest.mark.parametrize(
    "layout",
    [
        FrameLayout.tiled(PatchGrid(), height_px=300, width_px=500),
        FrameLayout.resized(PatchGrid(), height_px=300, width_px=500),
        FrameLayout.tiled(PatchGrid(), height_px=224, width_px=224),
        FrameLayout.tiled(PatchGrid(), height_px=1, width_px=225),
        FrameLayout.resized(PatchGrid(), height_px=5, width_px=3),
        FrameLayout.resized(GRIDS[1], height_px=392, width_px=391),
        FrameLayout(
            grid=PatchGrid(),
            height_px=99,
            width_px=70,
            tile_height_px=50,
            tile_width_px=35,
            tile_rows=2,
            tile_columns=2,
        ),
    ],
)
def test_patches_of_a_scale_tile_the_frame_exactly_once(layout: FrameLayout):
    for scale in range(layout.grid.num_scales):
        assert (painted(layout, scale) == 1).all()


@given(layouts())
@settings(max_examples=60, deadline=None)
def test_patches_of_a_scale_never_overlap_and_leave_out_only_the_remainder(layout: FrameLayout):
    for scale, (scale_px, side) in enumerate(zip(layout.grid.scales_px, layout.grid.sides, strict=True)):
        image = painted(layout, scale)
        covered = side * layout.grid.patch_px
        rows = np.arange(layout.height_px) % layout.tile_height_px < covered * layout.tile_height_px // scale_px
        columns = np.arange(layout.width_px) % layout.tile_width_px < covered * layout.tile_width_px // scale_px
        np.testing.assert_array_equal(image, np.outer(rows, columns))


@given(layouts())
@settings(max_examples=40, deadline=None)
def test_a_box_is_where_locate_says(layout: FrameLayout):
    scale, row, column = layout.locate(np.arange(layout.num_indices))
    for number, side in enumerate(layout.grid.sides):
        boxes = layout.patch_boxes_px[scale == number]
        table = np.full((layout.tile_rows * side, layout.tile_columns * side, 4), -1)
        table[row[scale == number], column[scale == number]] = boxes
        assert (table[..., 0] == table[:1, :, 0]).all(), "one left edge for a column"
        assert (table[..., 1] == table[:, :1, 1]).all(), "one top edge for a row"
        assert (np.diff(table[0, :, 0]) >= 0).all() and (np.diff(table[:, 0, 1]) >= 0).all()


def test_padding_is_outside_and_not_counted():
    layout = FrameLayout.tiled(PatchGrid(), height_px=300, width_px=500)
    assert (layout.tile_rows, layout.tile_columns, layout.num_tiles) == (2, 3, 6)
    assert layout.num_indices == 6 * 265
    boxes = layout.patch_boxes_px[layout.inside]
    assert (boxes[:, 2] > boxes[:, 0]).all() and (boxes[:, 3] > boxes[:, 1]).all()
    assert boxes[:, 2].max() == 500 and boxes[:, 3].max() == 300
    finest = layout.locate(np.flatnonzero(layout.inside))[0] == 3
    assert finest.sum() == -(-300 // 16) * -(-500 // 16)
    assert layout.num_patches == layout.inside.sum() < layout.num_indices


def test_one_tile_fits_a_frame_of_its_own_size():
    grid = PatchGrid()
    tiled = FrameLayout.tiled(grid, height_px=224, width_px=224)
    assert tiled == FrameLayout.resized(grid, height_px=224, width_px=224)
    assert hash(tiled) == hash(FrameLayout.resized(grid, height_px=224, width_px=224))
    assert tiled.num_patches == tiled.num_indices == 265


def test_tables_are_made_once_and_cannot_be_written():
    layout = FrameLayout.tiled(PatchGrid(), height_px=300, width_px=500)
    assert layout.patch_boxes_px is layout.patch_boxes_px
    for table in (layout.patch_boxes_px, layout.inside):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1


@given(layouts())
@settings(max_examples=30, deadline=None)
def test_layout_survives_json(layout: FrameLayout):
    assert FrameLayout.from_json(layout.to_json()) == layout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales_px": ()}, "at least one scale"),
        ({"scales_px": (64, 32)}, r"strictly increasing, got \(64, 32\)"),
        ({"scales_px": (32, 32)}, "strictly increasing"),
        ({"scales_px": (8, 32)}, "scale 8 px is smaller than one patch of 16 px; use scales of at least 16 px"),
        ({"patch_px": 0}, "patch_px must be at least 1, got 0"),
    ],
)
def test_impossible_grids(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        PatchGrid(**arguments)


@pytest.mark.parametrize(
    "numbers",
    [
        {"tile_rows": 1},  # 224 px do not reach 300
        {"tile_rows": 3},  # the third row of tiles is empty
        {"tile_rows": 0},
        {"tile_height_px": 0},
    ],
)
def test_tiles_must_cover_the_frame_without_spare(numbers: dict):
    legal = {"height_px": 300, "width_px": 200, "tile_height_px": 224, "tile_width_px": 224, "tile_rows": 2}
    FrameLayout(grid=PatchGrid(), **legal)
    with pytest.raises(ValueError, match="do not cover 300 px"):
        FrameLayout(grid=PatchGrid(), **(legal | numbers))


@pytest.mark.parametrize("make", [FrameLayout.tiled, FrameLayout.resized])
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_a_frame_needs_a_pixel(make, size: tuple[int, int]):
    with pytest.raises(ValueError, match="at least 1 × 1 px"):
        make(PatchGrid(), height_px=size[0], width_px=size[1])


@pytest.mark.parametrize("index", [-1, 265, np.array([0, 265]), np.array([-1])])
def test_locate_outside(index):
    with pytest.raises(IndexError, match=r"outside 0\.\.264"):
        PatchGrid().locate(index)
    with pytest.raises(IndexError, match=r"outside 0\.\.264"):
        FrameLayout.resized(PatchGrid(), height_px=9, width_px=9).locate(np.asarray(index))


@pytest.mark.parametrize("place", [(-1, 0, 0), (4, 0, 0), (0, 2, 0), (0, 0, 2), (3, -1, 0), (3, 0, 14)])
def test_index_outside(place: tuple[int, int, int]):
    with pytest.raises(IndexError, match="outside"):
        PatchGrid().index(*place)
    with pytest.raises(IndexError, match="outside"):
        FrameLayout.resized(PatchGrid(), height_px=9, width_px=9).index(*map(np.asarray, place))


def test_nothing_to_locate():
    scale, row, column = FrameLayout.resized(PatchGrid(), height_px=9, width_px=9).locate(np.empty(0, np.int64))
    assert len(scale) == len(row) == len(column) == 0
