"""Cutting frames into tiles and putting gazes together again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.tiling import cut, merge, split, split_on, tile, tile_layout

GRID = PatchGrid()
SMALL = PatchGrid(scales_px=(8, 16, 28), patch_px=4)


def random_frames(seed: int, T: int, height_px: int, width_px: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (T, height_px, width_px, 3), np.uint8)


def random_tile_gaze(rng: np.random.Generator, grid: PatchGrid, T: int, *, extras: bool = True) -> Gaze:
    """Gazes in random order, some frames empty."""
    chosen = [rng.permutation(grid.num_patches)[: rng.integers(0, grid.num_patches + 1)] for _ in range(T)]
    N = sum(map(len, chosen))
    return Gaze(
        index=np.concatenate(chosen),
        count=np.array([len(frame) for frame in chosen]),
        layout=tile_layout(grid),
        probability=rng.random(N) if extras else None,
        predicted_loss=rng.random(N) if extras else None,
        time_seconds=np.arange(T) / 7,
    )


def tiles_of(layout: FrameLayout, seed: int, T: int) -> list[Gaze]:
    rng = np.random.default_rng(seed)
    return [random_tile_gaze(rng, layout.grid, T) for _ in range(layout.num_tiles)]


sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))


@pytest.mark.parametrize("make", [FrameLayout.tiled, FrameLayout.resized])
def test_one_tile_changes_nothing(make):
    layout = make(GRID, height_px=224, width_px=224)
    rgb = random_frames(0, 2, 224, 224)
    assert np.array_equal(split(rgb, layout)[0], rgb)
    gaze = random_tile_gaze(np.random.default_rng(1), GRID, 3)
    assert merge([gaze], layout).equals(gaze)


@settings(max_examples=30, deadline=None)
@given(sizes)
def test_a_device_cuts_the_same_tiles(size):
    height_px, width_px = size
    layout = FrameLayout.tiled(SMALL, height_px=height_px, width_px=width_px)
    rgb = random_frames(0, 3, height_px, width_px)
    assert np.array_equal(cut(torch.from_numpy(rgb), layout).numpy(), split(rgb, layout))


@pytest.mark.parametrize("make", [FrameLayout.tiled, FrameLayout.resized])
def test_tensors_of_tiles_are_the_tiles(make):
    layout, rgb = make(SMALL, height_px=40, width_px=50), random_frames(0, 2, 40, 50)
    rgb.flags.writeable = False
    assert np.array_equal(split_on(torch.device("cpu"), rgb, layout).numpy(), split(rgb, layout))
    assert split_on(torch.device("meta"), rgb, layout).shape == split(rgb, layout).shape
    with pytest.raises(ValueError, match="frames must be"):
        split_on(torch.device("meta"), rgb[:, :39], layout)


@settings(max_examples=30, deadline=None)
@given(sizes)
def test_tiles_hold_every_pixel_once_and_zero_elsewhere(size):
    height_px, width_px = size
    layout = FrameLayout.tiled(SMALL, height_px=height_px, width_px=width_px)
    rgb = random_frames(2, 2, height_px, width_px)
    tiles = split(rgb, layout)
    assert tiles.shape == (layout.num_tiles, 2, 28, 28, 3)
    assert tiles.dtype == np.uint8
    whole = np.zeros((2, layout.tile_rows * 28, layout.tile_columns * 28, 3), np.uint8)
    for number in range(layout.num_tiles):
        i, j = divmod(number, layout.tile_columns)
        whole[:, i * 28 : i * 28 + 28, j * 28 : j * 28 + 28] = tiles[number]
    assert np.array_equal(whole[:, :height_px, :width_px], rgb)
    assert not whole[:, height_px:].any()
    assert not whole[:, :, width_px:].any()


def test_resized_tile_is_the_whole_frame_as_pillow_resizes_it():
    rgb = random_frames(3, 2, 300, 500)
    tiles = split(rgb, FrameLayout.resized(GRID, height_px=300, width_px=500))
    for t in range(2):
        expected = Image.fromarray(rgb[t]).resize((224, 224), Image.Resampling.BILINEAR)
        assert np.array_equal(tiles[0, t], np.asarray(expected))


def test_larger_tiles_are_cut_padded_then_resized():
    layout = FrameLayout(grid=SMALL, height_px=50, width_px=100, tile_height_px=56, tile_width_px=56, tile_columns=2)
    rgb = random_frames(4, 1, 50, 100)
    padded = np.zeros((56, 112, 3), np.uint8)
    padded[:50, :100] = rgb[0]
    expected = Image.fromarray(padded[:, 56:]).resize((28, 28), Image.Resampling.BILINEAR)
    assert np.array_equal(split(rgb, layout)[1, 0], np.asarray(expected))


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(0, 2**31), st.integers(1, 4))
def test_merge_keeps_every_real_patch_in_order(size, seed, T):
    layout = FrameLayout.tiled(SMALL, height_px=size[0], width_px=size[1])
    tiles = tiles_of(layout, seed, T)
    merged = merge(tiles, layout)
    assert layout.inside[merged.index].all()
    n = SMALL.num_patches
    for t in range(T):
        expected = [
            (k * n + i, p, loss)
            for k, gaze in enumerate(tiles)
            for i, p, loss in zip(gaze[t].index, gaze[t].probability, gaze[t].predicted_loss, strict=True)
            if layout.inside[k * n + i]
        ]
        frame = merged[t]
        got = list(zip(frame.index, frame.probability, frame.predicted_loss, strict=True))
        assert got == expected
    assert np.array_equal(merged.time_seconds, tiles[0].time_seconds)


@settings(max_examples=30, deadline=None)
@given(sizes, st.integers(0, 2**31))
def test_tile_undoes_merge(size, seed):
    layout = FrameLayout.tiled(SMALL, height_px=size[0], width_px=size[1])
    merged = merge(tiles_of(layout, seed, 2), layout)
    parts = [tile(merged, number) for number in range(layout.num_tiles)]
    assert merge(parts, layout).equals(merged)


def test_tile_of_a_video_without_padding_is_what_was_merged():
    layout = FrameLayout.tiled(SMALL, height_px=56, width_px=84)
    tiles = tiles_of(layout, 5, 3)
    merged = merge(tiles, layout)
    assert all(tile(merged, number).equals(gaze) for number, gaze in enumerate(tiles))


def test_gazes_of_a_500_by_300_video_lie_inside_it():
    layout = FrameLayout.tiled(GRID, height_px=300, width_px=500)
    everything = Gaze.from_mask(np.ones((2, GRID.num_patches), bool), tile_layout(GRID))
    merged = merge([everything] * layout.num_tiles, layout)
    left, top, right, bottom = merged.boxes_px.T
    assert (left >= 0).all() and (top >= 0).all() and (right <= 500).all() and (bottom <= 300).all()
    assert (right > left).all() and (bottom > top).all()
    assert merged.ratio == 1
    covered = np.zeros((300, 500), bool)
    for box in merged[0].boxes_px:
        covered[box[1] : box[3], box[0] : box[2]] = True
    assert covered.all()


def test_chunks_merged_and_joined_equal_the_whole_merged():
    layout = FrameLayout.tiled(SMALL, height_px=40, width_px=61)
    tiles = tiles_of(layout, 6, 7)
    parts = [merge([gaze[start : start + 3] for gaze in tiles], layout) for start in (0, 3, 6)]
    assert Gaze.concatenate(parts).equals(merge(tiles, layout))


def test_a_number_that_one_tile_lacks_is_dropped():
    layout = FrameLayout.tiled(SMALL, height_px=28, width_px=56)
    first, second = tiles_of(layout, 7, 2)
    merged = merge([first, replace(second, probability=None, time_seconds=None)], layout)
    assert merged.probability is None and merged.time_seconds is None
    assert merged.predicted_loss is not None


def test_what_does_not_fit_is_refused():
    layout = FrameLayout.tiled(SMALL, height_px=28, width_px=56)
    first, second = tiles_of(layout, 8, 2)
    with pytest.raises(ValueError, match="each of 2 tiles, got 1"):
        merge([first], layout)
    with pytest.raises(ValueError, match=r"tiles must be of 2 frames, tile 1 has 1"):
        merge([first, second[:1]], layout)
    with pytest.raises(ValueError, match="tile 0 must have the layout"):
        merge([merge([first, second], layout)] * 2, layout)
    with pytest.raises(IndexError, match=r"tile 2 is outside 0\.\.1"):
        tile(merge([first, second], layout), 2)
    with pytest.raises(ValueError, match=r"\(T, 28, 56, 3\) uint8, got \(1, 28, 57, 3\)"):
        split(random_frames(9, 1, 28, 57), layout)
    with pytest.raises(ValueError, match="float32"):
        split(random_frames(9, 1, 28, 56).astype(np.float32), layout)
