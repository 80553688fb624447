"""The canvas: what is pasted, what stays, what wins, and how far it is from the frame."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.canvas import Canvas, quality, reconstruct
from autogaze.selectors.cells import Cells, Tiling, resize, scale_image

SMALL = PatchGrid(scales_px=(32, 64))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def gaze_of(layout: FrameLayout, *frames: list[int]) -> Gaze:
    index = np.array([patch for one in frames for patch in one], np.int64)
    return Gaze(index=index, count=np.array([len(one) for one in frames]), layout=layout)


def tiled(height_px: int, width_px: int, grid: PatchGrid = SMALL) -> FrameLayout:
    return FrameLayout.tiled(grid, height_px=height_px, width_px=width_px)


def random_gaze(layout: FrameLayout, *, frames: int, seed: int = 0) -> Gaze:
    return Gaze.from_mask(np.random.default_rng(seed).random((frames, layout.num_indices)) < 0.2, layout)


def test_it_starts_mid_grey():
    layout = tiled(60, 90)
    canvas = Canvas(layout)
    assert canvas.image().shape == (60, 90, 3)
    assert (canvas.image() == 128).all()
    # Half of the range exactly: black and white are equally far.
    for level in (0, 255):
        flat = np.full((60, 90, 3), level, np.uint8)
        assert canvas.quality(flat).loss[0] == 0.5
        assert canvas.quality(flat).psnr_db[0] == pytest.approx(10 * np.log10(4))


def test_all_finest_patches_show_the_frame_itself():
    layout = tiled(70, 130)
    rgb = noise(70, 130)
    finest = np.flatnonzero(layout.locate(np.arange(layout.num_indices))[0] == 1)
    canvas = Canvas(layout)
    np.testing.assert_array_equal(canvas.paste(rgb, gaze_of(layout, finest.tolist())), rgb)
    assert canvas.quality(rgb).loss[0] == 0
    assert canvas.quality(rgb).psnr_db[0] == np.inf


def test_a_coarse_patch_is_shown_as_pillow_would_show_it():
    rgb = noise(64, 64)
    layout = tiled(64, 64)
    small = Image.fromarray(rgb).resize((32, 32), Image.Resampling.BILINEAR)
    shown = small.crop((16, 0, 32, 16)).resize((32, 32), Image.Resampling.BILINEAR)
    image = Canvas(layout).paste(rgb, gaze_of(layout, [1]))
    assert np.abs(image[:32, 32:].astype(int) - np.asarray(shown)).max() <= 1
    assert (image[32:] == 128).all()
    assert (image[:, :32] == 128).all()


def test_a_frame_is_resized_as_pillow_does():
    rgb = noise(90, 161)
    expected = np.asarray(Image.fromarray(rgb).resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize(rgb[None], 64, 64)[0] - expected).max() <= 1


def test_nothing_leaks_in_from_patches_that_are_not_gazed():
    layout = tiled(224, 224, PatchGrid())
    rgb = noise(224, 224)
    other = rgb.copy()
    first = int(PatchGrid().index(1, 1, 1))  # 64 px: rows and columns 56 to 112
    other[:50], other[120:], other[:, :50], other[:, 120:] = 0, 255, 9, 77  # beyond the filter's reach
    images = [Canvas(layout).paste(picture, gaze_of(layout, [first])) for picture in (rgb, other)]
    inside = np.s_[59:109, 59:109]
    np.testing.assert_array_equal(images[0][inside], images[1][inside])


@pytest.mark.parametrize("order", [[0, 4, 9], [9, 0, 4], [4, 9, 0]])
def test_finer_patches_win_whatever_the_order(order):
    layout = tiled(64, 64)
    rgb = noise(64, 64)
    image = Canvas(layout).paste(rgb, gaze_of(layout, order))
    fine = SMALL.offsets[1]
    for patch in (4, 9):
        row, column = divmod(patch - fine, 4)
        box = np.s_[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        np.testing.assert_array_equal(image[box], rgb[box])
    np.testing.assert_array_equal(image, Canvas(layout).paste(rgb, gaze_of(layout, [0, 4, 9])))


def test_a_later_coarse_patch_paints_over_earlier_fine_ones():
    layout = tiled(64, 64)
    first, second = noise(64, 64, seed=1), noise(64, 64, seed=2)
    canvas = Canvas(layout)
    canvas.paste(first, gaze_of(layout, [4]))
    image = canvas.paste(second, gaze_of(layout, [0]))
    alone = Canvas(layout).paste(second, gaze_of(layout, [0]))
    np.testing.assert_array_equal(image, alone)


def test_what_is_not_gazed_stays():
    layout = tiled(70, 130)
    frames = Frames.from_rgb(noise(3, 70, 130))
    gaze = random_gaze(layout, frames=3)
    images = reconstruct(frames, gaze=gaze)
    for t in (1, 2):
        untouched = gaze.coverage(t) == 0
        np.testing.assert_array_equal(images[t][untouched], images[t - 1][untouched])


def test_the_picture_of_all_patches_equals_pasting_them():
    grid = PatchGrid()
    layout = tiled(224, 300, grid)
    rgb, tiling = noise(224, 300), Tiling(layout)
    for scale in range(4):
        every = np.flatnonzero(layout.locate(np.arange(layout.num_indices))[0] == scale)
        tiles = tiling.split(rgb)
        image = tiling.merge(scale_image(tiling.extended(tiles, np.arange(len(tiles))), tiling.cells, scale))
        np.testing.assert_array_equal(image, Canvas(layout).paste(rgb, gaze_of(layout, every.tolist())))


@pytest.mark.parametrize("make", [FrameLayout.tiled, FrameLayout.resized])
@pytest.mark.parametrize("size", [(224, 224), (400, 640), (225, 223), (10, 300), (1, 1)])
def test_nothing_past_the_frame_leaks_into_a_coarse_patch(size, make):
    layout = make(PatchGrid(), height_px=size[0], width_px=size[1])
    rgb = np.broadcast_to(np.array([250, 90, 7], np.uint8), (*size, 3))
    coarsest = np.flatnonzero(layout.locate(np.arange(layout.num_indices))[0] == 0)
    np.testing.assert_array_equal(Canvas(layout).paste(rgb, gaze_of(layout, coarsest.tolist())), rgb)


def test_tiles_go_on_past_the_frame_with_its_edge():
    tiling, rgb = Tiling(tiled(130, 100)), noise(130, 100)
    tiles = tiling.split(rgb)
    before, number = tiles.copy(), np.arange(len(tiles))
    rows, columns = tiling.layout.tile_rows, tiling.layout.tile_columns
    past = ((0, rows * 64 - 130), (0, columns * 64 - 100), (0, 0))
    whole = np.pad(rgb, past, mode="edge").reshape(rows, 64, columns, 64, 3).swapaxes(1, 2).reshape(-1, 64, 64, 3)
    np.testing.assert_array_equal(tiling.extended(tiles, number), whole)
    np.testing.assert_array_equal(tiling.extended(tiles[[5, 0]], np.array([5, 0])), whole[[5, 0]])
    np.testing.assert_array_equal(tiling.extended(tiles[1:2], number[1:2] + 2 * len(tiles)), whole[1:2])
    np.testing.assert_array_equal(tiles, before)


@pytest.mark.parametrize("size", [(64, 64), (63, 65), (1, 200), (130, 1), (128, 192)])
def test_tiles_are_cut_and_joined_without_loss(size):
    rgb, tiling = noise(*size), Tiling(tiled(*size))
    np.testing.assert_array_equal(tiling.merge(tiling.split(rgb)), rgb)


def test_tiles_do_not_see_each_other():
    rgb = noise(64, 128)
    layout, alone = tiled(64, 128), tiled(64, 64)
    both = Canvas(layout).paste(rgb, gaze_of(layout, [0, 7, SMALL.num_patches + 3]))
    np.testing.assert_array_equal(both[:, :64], Canvas(alone).paste(rgb[:, :64], gaze_of(alone, [0, 7])))
    np.testing.assert_array_equal(both[:, 64:], Canvas(alone).paste(rgb[:, 64:], gaze_of(alone, [3])))


def test_loss_and_psnr_are_those_of_the_picture():
    layout = tiled(70, 130)
    frames = Frames.from_rgb(noise(2, 70, 130))
    everything = gaze_of(layout, list(range(layout.num_indices)), list(range(0, layout.num_indices, 3)))
    difference = (reconstruct(frames, gaze=everything).astype(float) - frames.rgb) / 255
    result = quality(frames, gaze=everything)
    np.testing.assert_allclose(result.loss, np.abs(difference).mean((1, 2, 3)), atol=1e-12)
    assert result.psnr_db[0] == np.inf
    assert result.psnr_db[1] == pytest.approx(-10 * np.log10((difference[1] ** 2).mean()))


def test_a_resized_layout_rebuilds_the_whole_frame():
    layout = FrameLayout.resized(SMALL, height_px=90, width_px=161)
    rgb = np.full((90, 161, 3), 40, np.uint8)
    image = Canvas(layout).paste(rgb, gaze_of(layout, [0, 1, 2, 3]))
    np.testing.assert_array_equal(image, rgb)


def test_stretched_tiles_are_cut_from_the_resized_frame():
    layout = FrameLayout(
        grid=SMALL, height_px=100, width_px=250, tile_height_px=128, tile_width_px=128, tile_rows=1, tile_columns=2
    )
    tiling = Tiling(layout)
    assert (tiling.height_px, tiling.width_px) == (50, 125)
    canvas = Canvas(layout)
    flat = np.full((100, 250, 3), 200, np.uint8)
    np.testing.assert_array_equal(canvas.paste(flat, gaze_of(layout, list(range(layout.num_indices)))), flat)
    assert canvas.quality(flat).loss[0] == 0


def test_a_grid_that_leaves_a_margin_works():
    grid = PatchGrid(scales_px=(20, 40))  # 16 px patches: 1 and 2 a side, cells of 32 and 16 px on a 40 px tile
    layout, rgb = tiled(40, 40, grid), noise(40, 40)
    assert Cells(grid).atom_px == 8
    image = Canvas(layout).paste(rgb, gaze_of(layout, [0, 1, 2, 3, 4]))
    np.testing.assert_array_equal(image[:32, :32], rgb[:32, :32])
    assert (image[32:] == 128).all()


def test_atoms_of_the_published_grid_are_8_px():
    cells = Cells(PatchGrid())
    assert cells.cell_px == (112, 56, 32, 16)
    assert (cells.atom_px, cells.num_atoms) == (8, 784)


def test_a_frame_that_may_not_be_written_to_is_read():
    layout = tiled(64, 64)
    rgb = noise(64, 64)
    rgb.flags.writeable = False
    assert Canvas(layout).paste(rgb, gaze_of(layout, [0])).shape == rgb.shape
    assert Canvas(layout).paste(rgb[::-1, ::-1], gaze_of(layout, [0])).shape == rgb.shape


def test_what_does_not_fit_is_refused_in_words():
    layout, canvas = tiled(64, 64), Canvas(tiled(64, 64))
    rgb = noise(64, 64)
    with pytest.raises(ValueError, match="same layout"):
        canvas.paste(rgb, gaze_of(tiled(64, 65), [0]))
    with pytest.raises(ValueError, match="got 2 frames"):
        canvas.paste(rgb, gaze_of(layout, [0], [1]))
    with pytest.raises(ValueError, match=r"got \(60, 64, 3\)"):
        canvas.paste(rgb[:60], gaze_of(layout, [0]))
    with pytest.raises(ValueError, match=r"\(64, 64, 3\) uint8, got .* float64"):
        canvas.quality(rgb.astype(float))
    with pytest.raises(ValueError, match="got 1 frames and gazes of 2"):
        reconstruct(Frames.from_rgb(rgb[None]), gaze=gaze_of(layout, [0], [1]))
    with pytest.raises(ValueError, match="got 1 frames and gazes of 2"):
        quality(Frames.from_rgb(rgb[None]), gaze=gaze_of(layout, [0], [1]))
    with pytest.raises(ValueError, match="scales that fit: 16, 32, 64 px"):
        Canvas(tiled(64, 64, PatchGrid(scales_px=(48, 64))))
