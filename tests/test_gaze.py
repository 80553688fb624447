"""The result type: views, slices, joins, and every way in and out that is not a file."""

import json
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autogaze.errors import GazeFileError
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from gaze_samples import LAYOUTS, RESIZED, SMALL, TILED, random_gaze


@st.composite
def gazes(draw: st.DrawFn) -> Gaze:
    return random_gaze(
        draw(st.integers(0, 2**32 - 1)),
        layout=draw(st.sampled_from(LAYOUTS)),
        num_frames=draw(st.integers(0, 6)),
        numbers=draw(st.booleans()),
    )


def frames_of(gaze: Gaze) -> list[dict[str, list]]:
    """The gaze frame by frame, by plain counting."""
    frames, at = [], 0
    for t, n in enumerate(gaze.count.tolist()):
        here = slice(at, at + n)
        frames.append(
            {
                "index": gaze.index[here].tolist(),
                "probability": None if gaze.probability is None else gaze.probability[here].tolist(),
                "predicted_loss": None if gaze.predicted_loss is None else repr(gaze.predicted_loss[here].tolist()),
                "time_seconds": None if gaze.time_seconds is None else [float(gaze.time_seconds[t])],
            }
        )
        at += n
    return frames


@given(gazes(), st.slices(6))
@settings(max_examples=80, deadline=None)
def test_slices_are_the_frames_a_list_would_give(gaze: Gaze, frames: slice):
    part = gaze[frames]
    assert frames_of(part) == frames_of(gaze)[frames]
    assert part.layout == gaze.layout and len(part) == part.num_frames == len(part.count)


@given(gazes())
@settings(max_examples=30, deadline=None)
def test_frames_one_by_one(gaze: Gaze):
    expected = frames_of(gaze)
    assert [frames_of(frame)[0] for frame in gaze] == expected
    for t in range(-len(gaze), len(gaze)):
        assert frames_of(gaze[t]) == [expected[t]]
    assert gaze.frame.tolist() == [t for t, n in enumerate(gaze.count) for _ in range(n)]
    assert gaze.order.tolist() == [i for n in gaze.count for i in range(n)]
    for t in (len(gaze), -len(gaze) - 1):
        with pytest.raises(IndexError, match=f"frame {t} of a gaze of {len(gaze)} frames"):
            gaze[t]


def test_frames_are_chosen_by_whole_numbers_only():
    gaze = random_gaze(0)
    assert gaze[np.int64(1)].equals(gaze[1])
    with pytest.raises(TypeError):
        gaze[1.0]  # type: ignore[index]


@given(gazes(), st.lists(st.integers(0, 6), max_size=4))
@settings(max_examples=60, deadline=None)
def test_cut_and_joined_is_the_whole(gaze: Gaze, cuts: list[int]):
    edges = [0, *sorted(min(cut, len(gaze)) for cut in cuts), len(gaze)]
    parts = [gaze[a:b] for a, b in pairwise(edges)]
    assert Gaze.concatenate(parts).equals(gaze)


def test_join_drops_what_a_part_lacks_unless_it_lacks_nothing():
    full, bare = random_gaze(1), random_gaze(2, numbers=False)
    joined = Gaze.concatenate([full, bare])
    assert (joined.probability, joined.predicted_loss, joined.time_seconds) == (None, None, None)
    assert joined.index.tolist() == full.index.tolist() + bare.index.tolist()
    nothing = Gaze(index=np.empty(0, int), count=np.empty(0, int), layout=SMALL)
    assert Gaze.concatenate([nothing, full, nothing]).equals(full)
    no_gaze = replace(nothing, count=np.zeros(2, int), time_seconds=np.array([8.0, 9.0]))
    assert Gaze.concatenate([full, no_gaze]).probability is not None


def test_join_errors():
    with pytest.raises(ValueError, match="at least one gaze"):
        Gaze.concatenate([])
    with pytest.raises(ValueError, match="different layouts"):
        Gaze.concatenate([random_gaze(0, layout=SMALL), random_gaze(0, layout=TILED)])


@given(gazes())
@settings(max_examples=40, deadline=None)
def test_mask_is_the_set_of_gazes(gaze: Gaze):
    mask = gaze.mask()
    assert mask.shape == (len(gaze), gaze.layout.num_indices) and mask.dtype == bool
    assert [np.flatnonzero(row).tolist() for row in mask] == [sorted(frame["index"]) for frame in frames_of(gaze)]
    again = Gaze.from_mask(mask, gaze.layout, time_seconds=gaze.time_seconds)
    assert again.equals(replace(gaze.in_order(), probability=None, predicted_loss=None))
    np.testing.assert_array_equal(again.mask(), mask)


@pytest.mark.parametrize("keep", [0.0, 0.05, 0.5, 1.0])
def test_mask_survives(keep: float):
    mask = np.random.default_rng(0).random((3, TILED.num_indices)) < keep
    np.testing.assert_array_equal(Gaze.from_mask(mask, TILED).mask(), mask)


def test_mask_errors():
    with pytest.raises(ValueError, match=r"mask must be \(T, 265\), got \(2, 264\)"):
        Gaze.from_mask(np.zeros((2, 264), bool), RESIZED)
    with pytest.raises(ValueError, match=r"got \(265,\)"):
        Gaze.from_mask(np.zeros(265, bool), RESIZED)
    with pytest.raises(ValueError, match="must be boolean, got float64"):
        Gaze.from_mask(np.zeros((2, 265)), RESIZED)


@given(gazes())
@settings(max_examples=40, deadline=None)
def test_scale_masks_hold_every_gaze_at_its_place(gaze: Gaze):
    masks = gaze.scale_masks()
    layout, sides = gaze.layout, gaze.layout.grid.sides
    assert [mask.shape for mask in masks] == [
        (len(gaze), layout.tile_rows * side, layout.tile_columns * side) for side in sides
    ]
    found = set()
    for scale, mask in enumerate(masks):
        for t, row, column in np.argwhere(mask):
            found.add((int(t), int(layout.index(np.array(scale), row, column))))
    assert found == set(zip(gaze.frame.tolist(), gaze.index.tolist(), strict=True))


@given(gazes())
@settings(max_examples=40, deadline=None)
def test_boxes_and_scales_belong_to_the_gazes(gaze: Gaze):
    scale, _, _ = gaze.layout.locate(gaze.index)
    assert gaze.scale_px.tolist() == [gaze.layout.grid.scales_px[s] for s in scale]
    np.testing.assert_array_equal(gaze.boxes_px, gaze.layout.patch_boxes_px[gaze.index])


@given(gazes())
@settings(max_examples=20, deadline=None)
def test_coverage_is_the_finest_scale_of_each_pixel(gaze: Gaze):
    for t, frame in enumerate(gaze):
        expected = np.zeros((gaze.layout.height_px, gaze.layout.width_px), int)
        scale = gaze.layout.locate(frame.index)[0]
        for (left, top, right, bottom), s in zip(frame.boxes_px, scale, strict=True):
            box = expected[top:bottom, left:right]
            box[:] = np.maximum(box, s + 1)
        np.testing.assert_array_equal(gaze.coverage(t), expected)


@given(gazes())
@settings(max_examples=30, deadline=None)
def test_in_order_moves_the_numbers_along(gaze: Gaze):
    ordered = gaze.in_order()
    for before, after in zip(gaze, ordered, strict=True):
        order = np.argsort(before.index)
        assert after.index.tolist() == before.index[order].tolist()
        for name in ("probability", "predicted_loss"):
            if getattr(before, name) is not None:
                np.testing.assert_array_equal(getattr(after, name), getattr(before, name)[order])
    assert (ordered.time_seconds is None) == (gaze.time_seconds is None)


def test_shares_are_of_the_patches_that_show_something():
    gaze = Gaze.from_mask(np.broadcast_to(TILED.inside, (3, TILED.num_indices)), TILED)
    assert gaze.num_patches == 3 * TILED.num_patches < 3 * TILED.num_indices
    assert gaze.ratio == 1.0
    nothing = gaze[:0]
    assert (nothing.num_frames, nothing.num_gazes, nothing.num_patches, nothing.ratio) == (0, 0, 0, 0.0)
    assert "3 frames of 500×300 px" in repr(gaze) and "100.0%" in repr(gaze)


def test_equals_sees_every_difference():
    gaze = random_gaze(5)
    assert gaze.equals(replace(gaze))
    different = {
        "index": gaze.index[::-1],
        "count": gaze.count[::-1],
        "layout": replace(SMALL, width_px=18),
        "probability": gaze.probability + 1,
        "predicted_loss": None,
        "time_seconds": gaze.time_seconds + 1,
    }
    for name, value in different.items():
        assert not gaze.equals(replace(gaze, **{name: value})), name


def test_json_round_trip_is_exact():
    for seed in range(5):
        for numbers in (True, False):
            gaze = random_gaze(seed, layout=TILED, numbers=numbers)
            assert Gaze.from_json(json.loads(json.dumps(gaze.to_json(), allow_nan=False))).equals(gaze)
    assert Gaze.from_json(gaze[:0].to_json()).equals(gaze[:0])


def test_json_has_no_word_for_infinity():
    gaze = replace(random_gaze(3), predicted_loss=None)
    infinite = replace(gaze, probability=np.full(gaze.num_gazes, np.inf))
    back = Gaze.from_json(json.loads(json.dumps(infinite.to_json(), allow_nan=False)))
    assert np.isnan(back.probability).all()


@pytest.mark.parametrize(
    "change",
    [
        {"index": None},
        {"index": "abc"},
        {"index": [0.5] * 20},
        {"index": [10**30]},
        {"index": [[0], [1, 2]]},
        {"count": [1]},
        {"count": []},
        {"probability": [0.5]},
        {"time_seconds": "soon"},
        {"layout": None},
        {"layout": {"scales_px": [32]}},
        {"layout": {**SMALL.to_json(), "height_px": 11.5}},
        {"layout": {**SMALL.to_json(), "height_px": 0}},
        {"layout": {**SMALL.to_json(), "scales_px": "58"}},
    ],
)
def test_damaged_json(change: dict):
    data = random_gaze(0).to_json()
    assert Gaze.from_json(data).num_frames == 5
    with pytest.raises(GazeFileError, match="damaged"):
        Gaze.from_json(data | change)


def test_foreign_and_newer_json():
    data = random_gaze(0).to_json()
    for foreign in ({}, {"format": "other"}, [1, 2], "text", None):
        with pytest.raises(GazeFileError, match="is not a gaze"):
            Gaze.from_json(foreign)  # type: ignore[arg-type]
    with pytest.raises(GazeFileError, match="version 3, this autogaze reads versions 1 and 2; update autogaze"):
        Gaze.from_json(data | {"version": 3})
    with pytest.raises(GazeFileError, match="damaged: 'count'"):
        Gaze.from_json({name: value for name, value in data.items() if name != "count"})


def test_table_has_one_row_per_gaze():
    gaze = random_gaze(7, layout=TILED)
    table = gaze.to_arrow()
    assert table.column_names == [
        *("frame", "time_seconds", "order", "scale_px", "row", "column"),
        *("left_px", "top_px", "right_px", "bottom_px", "probability", "predicted_loss"),
    ]
    frame = gaze.to_pandas()
    assert len(frame) == table.num_rows == gaze.num_gazes
    assert frame["order"].tolist() == gaze.order.tolist()
    np.testing.assert_array_equal(frame["time_seconds"], gaze.time_seconds[gaze.frame])
    np.testing.assert_array_equal(frame[["left_px", "top_px", "right_px", "bottom_px"]], gaze.boxes_px)
    np.testing.assert_array_equal(frame["probability"], gaze.probability)
    scale = np.searchsorted(TILED.grid.scales_px, frame["scale_px"])
    index = TILED.index(scale, frame["row"].to_numpy(), frame["column"].to_numpy())
    np.testing.assert_array_equal(index, gaze.index)


def test_table_has_the_same_columns_whatever_is_known():
    full, bare = random_gaze(7), random_gaze(7, numbers=False)
    assert bare.to_arrow().schema == full.to_arrow().schema
    for name in ("time_seconds", "probability", "predicted_loss"):
        assert bare.to_arrow()[name].null_count == bare.num_gazes > 0
    assert full[:0].to_arrow().num_rows == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": np.zeros((2, 1), int)}, "must be one-dimensional"),
        ({"count": np.array([3])}, "sum to the 2 gazes of index, got 1 frames that sum to 3"),
        ({"count": np.array([3, -1])}, "non-negative"),
        ({"index": np.array([0, 265])}, r"must be in 0\.\.264, got 0\.\.265"),
        ({"index": np.array([-1, 0])}, r"must be in 0\.\.264, got -1\.\.0"),
        ({"index": np.array([0.0, 1.5])}, "index must hold whole numbers, got float64"),
        ({"count": np.array([True, True])}, "count must hold whole numbers, got bool"),
        ({"probability": np.ones(3)}, r"probability must be \(2,\), got \(3,\)"),
        ({"predicted_loss": np.ones((2, 1))}, r"predicted_loss must be \(2,\)"),
        ({"time_seconds": np.ones(2)}, r"time_seconds must be \(1,\)"),
    ],
)
def test_impossible_gazes(change: dict, message: str):
    legal = {"index": np.array([4, 2]), "count": np.array([2]), "layout": RESIZED}
    assert Gaze(**legal).index.dtype == np.int64
    with pytest.raises(ValueError, match=message):
        Gaze(**(legal | change))


def test_long_videos_take_milliseconds():
    layout = FrameLayout.tiled(PatchGrid(), height_px=2160, width_px=3840)
    index = np.random.default_rng(0).permutation(layout.num_indices)[:2000]
    part = Gaze(index=index, count=np.array([2000]), layout=layout)

    def seconds(work) -> float:
        best = np.inf
        for _ in range(3):
            start = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - start)
        return best

    parts = [part] * 1000
    whole = Gaze.concatenate(parts)
    assert seconds(lambda: Gaze.concatenate(parts)) < 0.2  # about 0.007
    assert seconds(lambda: list(whole)) < 0.3  # about 0.01; seconds if a frame cost as much as the video
    assert seconds(lambda: whole[::2]) < 0.2
