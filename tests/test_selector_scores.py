"""The numbers behind the yardstick selectors, against definitions that walk over single pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autogaze.frames import Frames
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.base import Budget
from autogaze.selectors.detail import detail_scores
from autogaze.selectors.difference import difference_scores
from autogaze.selectors.flow import Flow
from autogaze.selectors.motion_vectors import NEW_PX, MotionVectors, motion_map
from autogaze.selectors.pyramid import all_scales, by_index, luma, patch_maxima, patch_means

pytestmark = pytest.mark.filterwarnings("error")

PUBLISHED = PatchGrid()
UNEVEN = PatchGrid(scales_px=(9, 16, 30), patch_px=8)  # at 9 and 30 px, a rest belongs to no patch
LAYOUTS = [
    FrameLayout.tiled(UNEVEN, height_px=40, width_px=61),
    FrameLayout.resized(UNEVEN, height_px=40, width_px=61),
    FrameLayout.tiled(PatchGrid(scales_px=(8, 16, 24), patch_px=8), height_px=24, width_px=24),
    FrameLayout(
        grid=UNEVEN, height_px=50, width_px=100, tile_height_px=56, tile_width_px=56, tile_rows=1, tile_columns=2
    ),
]
VECTOR = [
    ("w", "u1"),
    ("h", "u1"),
    ("dst_x", "i2"),
    ("dst_y", "i2"),
    ("motion_x", "i4"),
    ("motion_y", "i4"),
    ("motion_scale", "u2"),
]


def random_frame(seed: int, layout: FrameLayout) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (layout.height_px, layout.width_px, 3), np.uint8)


def cells_of_scale(layout: FrameLayout, scale: int) -> list[tuple[int, int, int]]:
    """(patch index, top, left) of each patch in the image of its scale."""
    found = []
    patch_px, scale_px = layout.grid.patch_px, layout.grid.scales_px[scale]
    for index in range(layout.num_indices):
        tile, patch = divmod(index, layout.grid.num_patches)
        number, row, column = layout.grid.locate(patch)
        if number == scale:
            i, j = divmod(tile, layout.tile_columns)
            found.append((index, i * scale_px + row * patch_px, j * scale_px + column * patch_px))
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scales_are_what_pillow_makes_of_the_frame_extended_to_whole_tiles(layout):
    rgb = random_frame(0, layout)
    height_px, width_px = layout.tile_rows * layout.tile_height_px, layout.tile_columns * layout.tile_width_px
    image = Image.fromarray(rgb)
    extended = np.empty((height_px, width_px, 3), np.uint8)
    for y in range(height_px):
        for x in range(width_px):
            extended[y, x] = rgb[min(y, layout.height_px - 1), min(x, layout.width_px - 1)]
    sizes = [(layout.tile_columns * s, layout.tile_rows * s) for s in layout.grid.scales_px]
    image = Image.fromarray(extended).resize(sizes[-1], Image.Resampling.BILINEAR)
    expected = [np.asarray(image.resize(size, Image.Resampling.BILINEAR)) for size in sizes]
    for got, wanted in zip(all_scales(rgb, layout), expected, strict=True):
        assert got.shape == wanted.shape
        assert np.abs(got.astype(int) - wanted.astype(int)).max() <= 1  # rounded with other weights


@pytest.mark.parametrize("layout", LAYOUTS)
def test_difference_is_the_mean_change_under_each_patch(layout):
    now, before = (all_scales(random_frame(seed, layout), layout) for seed in (1, 2))
    scores, from_black = difference_scores(now, before, layout), difference_scores(now, None, layout)
    p = layout.grid.patch_px
    for scale in range(layout.grid.num_scales):
        change = np.abs(now[scale].astype(int) - before[scale].astype(int))
        for index, y, x in cells_of_scale(layout, scale):
            assert scores[index] == change[y : y + p, x : x + p].mean()
            assert from_black[index] == now[scale][y : y + p, x : x + p].mean()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_detail_is_the_variance_of_the_laplacian(layout):
    rgb = random_frame(3, layout)
    scores = detail_scores(rgb, layout)
    p = layout.grid.patch_px
    for scale, image in enumerate(all_scales(luma(rgb), layout)):
        height_px, width_px, _ = image.shape
        answer = np.empty((height_px, width_px))
        for y in range(height_px):
            for x in range(width_px):
                around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
                clamped = [(min(max(v, 0), height_px - 1), min(max(u, 0), width_px - 1)) for v, u in around]
                answer[y, x] = sum(int(image[v, u, 0]) for v, u in clamped) - 4 * int(image[y, x, 0])
        for index, y, x in cells_of_scale(layout, scale):
            assert scores[index] == pytest.approx(answer[y : y + p, x : x + p].var())


def test_a_flat_frame_has_no_detail_not_even_at_the_padding():
    layout = FrameLayout.tiled(PUBLISHED, height_px=230, width_px=100)
    assert (detail_scores(np.full((230, 100, 3), 200, np.uint8), layout) == 0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_means_and_maxima_of_every_box(layout):
    rng = np.random.default_rng(4)
    p, finest_px = layout.grid.patch_px, layout.grid.scales_px[-1]
    finest = rng.random((layout.tile_rows * finest_px, layout.tile_columns * finest_px))
    for scale, scale_px in enumerate(layout.grid.scales_px):
        image = rng.random((layout.tile_rows * scale_px, layout.tile_columns * scale_px))
        blank = [np.zeros((layout.tile_rows * side, layout.tile_columns * side)) for side in layout.grid.sides]
        means, maxima = list(blank), list(blank)
        means[scale], maxima[scale] = patch_means(image, layout, scale), patch_maxima(finest, layout, scale)
        for index, y, x in cells_of_scale(layout, scale):
            assert by_index(means, layout)[index] == pytest.approx(image[y : y + p, x : x + p].mean())
            # Boxes start anew in each tile.
            (i, top), (j, left) = divmod(y, scale_px), divmod(x, scale_px)
            rows = slice(i * finest_px + top * finest_px // scale_px, i * finest_px + (top + p) * finest_px // scale_px)
            columns = slice(
                j * finest_px + left * finest_px // scale_px, j * finest_px + (left + p) * finest_px // scale_px
            )
            assert by_index(maxima, layout)[index] == finest[rows, columns].max()


def test_flow_is_measured_in_pixels_of_the_video():
    """A texture of 448 × 224 px moves 4 px right; the model's square frame shows it half as wide."""
    rng = np.random.default_rng(5)
    noise = Image.fromarray(rng.integers(0, 256, (32, 64, 3), np.uint8))
    texture = np.asarray(noise.resize((480, 224), Image.Resampling.BICUBIC))
    frames = Frames.from_rgb(np.stack([texture[:, 16:464], texture[:, 12:460]]))
    for layout in (
        FrameLayout.tiled(PUBLISHED, height_px=224, width_px=448),
        FrameLayout.resized(PUBLISHED, height_px=224, width_px=448),
    ):
        scores = Flow().scorer(layout).score(frames, position=0)
        assert scores.apart_T.tolist() == [True, False]
        assert np.median(scores.score_TP[1]) == pytest.approx(4, abs=0.3)


def test_a_coarse_patch_moves_at_least_as_fast_as_any_inside_it():
    layout = FrameLayout.tiled(PUBLISHED, height_px=224, width_px=224)
    frames = Frames.from_rgb(np.random.default_rng(6).integers(0, 256, (2, 224, 224, 3), np.uint8))
    speed = Flow().scorer(layout).score(frames, position=0).score_TP[1]
    boxes = layout.patch_boxes_px
    for coarse in range(PUBLISHED.offsets[-1]):
        within = (boxes[:, :2] >= boxes[coarse, :2]).all(1) & (boxes[:, 2:] <= boxes[coarse, 2:]).all(1)
        assert speed[coarse] == speed[within].max()


blocks = st.lists(
    st.tuples(
        st.sampled_from([4, 8, 16]),
        st.sampled_from([4, 8, 16]),
        st.integers(-1, 6),
        st.integers(-1, 5),
        st.integers(-99, 99),
        st.integers(-99, 99),
        st.sampled_from([1, 2, 4]),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=25, deadline=None)
@given(blocks)
def test_motion_of_a_pixel_is_the_mean_of_the_vectors_over_it(blocks):
    """Blocks may overlap, and reach past the 70 × 90 px of the frame."""
    vectors = np.array(
        [(w, h, 16 * j + w // 2, 16 * i + h // 2, x, y, scale) for w, h, j, i, x, y, scale in blocks], VECTOR
    )
    over: dict[tuple[int, int], list[float]] = {}
    for v in vectors:
        motion = float(np.hypot(v["motion_x"], v["motion_y"])) / int(v["motion_scale"])
        for y in range(int(v["dst_y"]) - int(v["h"]) // 2, int(v["dst_y"]) + int(v["h"]) // 2):
            for x in range(int(v["dst_x"]) - int(v["w"]) // 2, int(v["dst_x"]) + int(v["w"]) // 2):
                over.setdefault((y, x), []).append(motion)
    pixels = np.array([[np.mean(over.get((y, x), [NEW_PX])) for x in range(90)] for y in range(70)])
    cells = motion_map(vectors, height_px=70, width_px=90)
    assert np.kron(cells, np.ones((4, 4)))[:70, :90] == pytest.approx(pixels, abs=1e-3)

    layout = FrameLayout.tiled(PatchGrid(scales_px=(12, 27), patch_px=6), height_px=70, width_px=90)
    frames = Frames(
        rgb=np.zeros((1, 70, 90, 3), np.uint8),
        time_seconds=np.zeros(1),
        number=np.zeros(1, np.int64),
        motion_vectors=(vectors,),
    )
    scores = MotionVectors().scorer(layout).score(frames, position=0).score_TP[0]
    for index in np.flatnonzero(layout.inside):
        left, top, right, bottom = layout.patch_boxes_px[index]
        assert scores[index] == pytest.approx(pixels[top:bottom, left:right].mean(), abs=1e-3)


def test_blocks_at_rest_tie_exactly():
    rng = np.random.default_rng(7)
    middles = [(x, y) for y in range(8, 240, 16) for x in range(8, 240, 16)]
    motions = [rng.integers(-99, 99, 2).tolist() if rng.random() < 0.5 else [0, 0] for _ in middles]
    vectors = np.array([(16, 16, *middle, *motion, 4) for middle, motion in zip(middles, motions, strict=True)], VECTOR)
    cells = motion_map(vectors, height_px=240, width_px=240)
    assert (cells == 0).sum() == 16 * motions.count([0, 0])


def test_every_selector_works_on_a_frame_of_one_pixel():
    layout = FrameLayout.tiled(PUBLISHED, height_px=1, width_px=1)
    frames = Frames.from_rgb(np.zeros((2, 1, 1, 3), np.uint8))
    gaze = Flow().open(layout, Budget(ratio=1.0)).step(frames)
    assert gaze.index.tolist() == [*PUBLISHED.offsets, *PUBLISHED.offsets]
