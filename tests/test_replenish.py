"""Replenishment: the fast search equals its definition gaze for gaze, and keeps every promise of its budget."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from autogaze.errors import BudgetError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors import spending
from autogaze.selectors.base import CLIP_FRAMES, Budget, max_patches
from autogaze.selectors.canvas import quality, reconstruct
from autogaze.selectors.cells import Cells, Tiling, scale_image
from autogaze.selectors.distortion import Scales, canvas_errors, loss, psnr_db
from autogaze.selectors.greedy import Goal, Search, greedy, patch_gains
from autogaze.selectors.painting import Painting
from autogaze.selectors.replenish import Replenish
from plain_replenish import PlainReplenish, plain_scale_image

SMALL = PatchGrid(scales_px=(32, 64))
ODD = PatchGrid(scales_px=(8, 16, 28, 56), patch_px=4)  # the published grid at a quarter of its size


def moving_clip(height_px: int, width_px: int, *, frames: int, seed: int = 0) -> Frames:
    """A smooth random background, a block that wanders over it, and noise."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 5, 5)))
    background = functional.interpolate(coarse, size=(height_px, width_px), mode="bicubic")[0].permute(1, 2, 0).numpy()
    clip = np.repeat(background[None], frames, 0)
    block = rng.uniform(0, 255, (height_px // 3, width_px // 3, 3))
    for t in range(frames):
        top, left = t * 2 % (height_px // 2), t * 3 % (width_px // 2)
        clip[t, top : top + len(block), left : left + block.shape[1]] = block
    return Frames.from_rgb((clip + rng.normal(0, 4, clip.shape)).clip(0, 255).astype(np.uint8))


def bilinear(pixels: np.ndarray, side_px: int) -> np.ndarray:
    """One square 8-bit picture (a, a, 3) at another size."""
    image = torch.tensor(pixels).permute(2, 0, 1)[None]
    return functional.interpolate(image, size=side_px, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def definition(frames: Frames, layout: FrameLayout, *, threshold: float, limit: int = 10**9) -> list[list[int]]:
    """Greedy replenishment with nothing but pixels: every candidate's gain anew from the whole tile, every time."""
    S, p, grid, (height, width) = layout.grid.scales_px[-1], layout.grid.patch_px, layout.grid, frames.rgb.shape[1:3]
    real = np.zeros((layout.tile_rows * S, layout.tile_columns * S), bool)
    real[:height, :width] = True
    canvas, chosen = np.full((*real.shape, 3), 127.5), []
    for rgb in frames.rgb:
        past = ((0, len(real) - height), (0, real.shape[1] - width), (0, 0))
        frame, owner, gazes = np.pad(rgb, past, mode="edge"), np.full(real.shape, -1), []
        candidates = []
        for index in range(layout.num_indices):
            tile, patch = divmod(index, grid.num_patches)
            scale, row, column = grid.locate(patch)
            y, x = tile // layout.tile_columns * S, tile % layout.tile_columns * S
            small = bilinear(frame[y : y + S, x : x + S], grid.scales_px[scale])
            side = S * p // grid.scales_px[scale]
            shown = bilinear(small[row * p : (row + 1) * p, column * p : (column + 1) * p], side)
            box = slice(y + row * side, y + (row + 1) * side), slice(x + column * side, x + (column + 1) * side)
            candidates.append((scale, box, shown.astype(float)))
        while not gazes or (np.abs(canvas - frame)[real].mean() / 255 > threshold and len(gazes) < limit):
            gains = []
            for scale, box, shown in candidates:
                counts = (real[box] & (owner[box] <= scale))[..., None]
                error = np.abs(canvas[box] - frame[box]) - np.abs(shown - frame[box])
                gains.append((error * counts).sum())
            if max(gains) <= 0:
                break
            best = int(np.argmax(gains))
            scale, box, shown = candidates[best]
            wins = owner[box] <= scale
            canvas[box][wins], owner[box][wins] = shown[wins], scale
            gazes.append(best)
        chosen.append(gazes)
    return chosen


def gazed(frames: Frames, layout: FrameLayout, **budget: object) -> Gaze:
    return Replenish(layout.grid).open(layout, Budget(**budget)).step(frames)  # type: ignore[arg-type]


def per_frame(gaze: Gaze) -> list[list[int]]:
    return [one.index.tolist() for one in gaze]


@pytest.mark.parametrize("threshold", [0.08, 0.03])
@pytest.mark.parametrize(
    ("grid", "height_px", "width_px"),
    [(SMALL, 64, 64), (SMALL, 100, 150), (ODD, 56, 56), (ODD, 60, 58), (PatchGrid(scales_px=(16, 32)), 32, 33)],
)
def test_equals_the_definition_gaze_for_gaze(grid, height_px, width_px, threshold):
    layout = FrameLayout.tiled(grid, height_px=height_px, width_px=width_px)
    frames = moving_clip(height_px, width_px, frames=3)
    gaze = gazed(frames, layout, threshold=threshold)
    assert per_frame(gaze) == definition(frames, layout, threshold=threshold)
    assert gaze.num_gazes >= 3


def test_equals_the_definition_on_the_published_grid():
    layout = FrameLayout.tiled(PatchGrid(), height_px=224, width_px=224)
    frames = moving_clip(224, 224, frames=2, seed=3)
    gaze = gazed(frames, layout, threshold=0.05, ratio=20 / 265)
    assert per_frame(gaze) == definition(frames, layout, threshold=0.05, limit=20)


@pytest.mark.parametrize("columns", [7, 14])
def test_equals_the_definition_where_many_patches_gain_the_same(columns):
    # Flat pictures in few colours: only whole-number arithmetic and a fixed rule can break these ties alike.
    rng = np.random.default_rng(1)
    blocks = rng.choice([0, 90, 255], (2, 7, columns, 3)).repeat(8, 1).repeat(8, 2)
    blocks[:, :, 56:] = blocks[:, :, : 8 * columns - 56]  # the second tile is the first one again
    frames = Frames.from_rgb(blocks.astype(np.uint8))
    layout = FrameLayout.tiled(ODD, height_px=56, width_px=8 * columns)
    assert per_frame(gazed(frames, layout, threshold=0.06)) == definition(frames, layout, threshold=0.06)


@pytest.mark.parametrize(("height_px", "width_px"), [(64, 64), (70, 150)])
@pytest.mark.parametrize("resize", [False, True])
def test_stated_loss_and_canvas_are_those_of_a_fresh_canvas(height_px, width_px, resize):
    make = FrameLayout.resized if resize else FrameLayout.tiled
    layout = make(SMALL, height_px=height_px, width_px=width_px)
    frames = moving_clip(height_px, width_px, frames=5)
    session = Replenish(SMALL).open(layout, Budget(threshold=0.02))
    gaze = session.step(frames)
    last = np.cumsum(gaze.count) - 1
    np.testing.assert_allclose(gaze.predicted_loss[last], quality(frames, gaze=gaze).loss, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(session.canvas.image(), reconstruct(frames, gaze=gaze)[-1])
    assert gaze.probability is None
    np.testing.assert_array_equal(gaze.time_seconds, frames.time_seconds)


def test_loss_after_every_single_gaze_is_exact():
    layout = FrameLayout.tiled(ODD, height_px=60, width_px=80)
    frames = moving_clip(60, 80, frames=1)
    gaze = gazed(frames, layout, threshold=0.02)
    for n in range(1, gaze.num_gazes + 1):
        first = Gaze(index=gaze.index[:n], count=np.array([n]), layout=layout)
        assert quality(frames, gaze=first).loss[0] == pytest.approx(gaze.predicted_loss[n - 1], abs=1e-7)


def test_frames_end_as_soon_as_the_threshold_is_met_and_not_before():
    layout = FrameLayout.tiled(ODD, height_px=60, width_px=80)
    gaze = gazed(moving_clip(60, 80, frames=4), layout, threshold=0.03)
    for one in gaze:
        assert one.predicted_loss[-1] <= 0.03
        assert (one.predicted_loss[:-1] > 0.03).all()


def test_frames_end_as_soon_as_the_psnr_is_met_and_not_before():
    layout = FrameLayout.tiled(ODD, height_px=60, width_px=80)
    frames = moving_clip(60, 80, frames=3)
    gaze = gazed(frames, layout, psnr_db=26.0)
    assert (quality(frames, gaze=gaze).psnr_db >= 26).all()
    for t in range(3):
        shorter = gaze.mask()
        shorter[t, gaze[t].index[-1]] = False
        assert quality(frames, gaze=Gaze.from_mask(shorter, layout)).psnr_db[t] < 26 or gaze.count[t] == 1


def test_one_frame_at_a_time_equals_all_at_once():
    layout = FrameLayout.tiled(SMALL, height_px=70, width_px=150)
    frames = moving_clip(70, 150, frames=20)
    for budget in (Budget(threshold=0.03), Budget(ratio=(0.5,) + (0.1,) * 15)):
        whole = Replenish(SMALL).open(layout, budget).step(frames)
        for size in (1, 7):
            session = Replenish(SMALL).open(layout, budget)
            parts = [session.step(frames[t : t + size]) for t in range(0, 20, size)]
            assert Gaze.concatenate(parts).equals(whole)


def test_a_frame_of_the_grids_size_is_the_same_tiled_and_resized():
    frames = moving_clip(64, 64, frames=3)
    tiled, resized = (
        gazed(frames, make(SMALL, height_px=64, width_px=64), threshold=0.02)
        for make in (FrameLayout.tiled, FrameLayout.resized)
    )
    assert tiled.equals(resized)


def test_padding_is_never_gazed_and_never_counts():
    layout = FrameLayout.tiled(SMALL, height_px=65, width_px=90)
    frames = moving_clip(65, 90, frames=2)
    gaze = gazed(frames, layout)  # no limit: until nothing gains anything
    assert layout.inside[gaze.index].all()
    assert (quality(frames, gaze=gaze).loss == 0).all()  # the finest patches show every pixel
    assert len(set(gaze[0].index.tolist())) == gaze.count[0]


def test_a_still_video_costs_nothing_once_it_is_painted():
    frames = Frames.from_rgb(np.repeat(moving_clip(64, 64, frames=1).rgb, 4, 0))
    gaze = gazed(frames, FrameLayout.tiled(SMALL, height_px=64, width_px=64))
    assert gaze.count[0] > 0
    assert gaze.count[1:].tolist() == [0, 0, 0]


def test_a_frame_that_is_good_enough_still_gets_its_best_patch():
    layout = FrameLayout.tiled(SMALL, height_px=64, width_px=64)
    assert gazed(moving_clip(64, 64, frames=3), layout, threshold=1.0).count.tolist() == [1, 1, 1]


def test_ratio_is_a_ceiling_per_frame():
    layout = FrameLayout.tiled(SMALL, height_px=100, width_px=150)
    gaze = gazed(moving_clip(100, 150, frames=4), layout, ratio=0.1)
    assert gaze.count.tolist() == [max_patches(0.1, layout.num_patches)] * 4


@pytest.mark.parametrize("size", [1, 3, 16, 40])
def test_a_clip_budget_is_never_exceeded_and_is_used(size):
    layout = FrameLayout.tiled(SMALL, height_px=100, width_px=150)
    frames = moving_clip(100, 150, frames=40)
    session = Replenish(SMALL).open(layout, Budget(ratio=0.05, per="clip"))
    gaze = Gaze.concatenate([session.step(frames[t : t + size]) for t in range(0, 40, size)])
    pool = max_patches(0.05, CLIP_FRAMES * layout.num_patches)
    for start in (0, 16, 32):
        assert gaze.count[start : start + 16].sum() <= pool
    assert gaze.count[:16].sum() >= 0.95 * pool
    assert gaze.count[16:32].sum() >= 0.95 * pool


def test_a_clip_budget_beats_the_same_budget_per_frame():
    layout = FrameLayout.tiled(ODD, height_px=112, width_px=112)
    frames = moving_clip(112, 112, frames=16)
    loss_of = {}
    for size, per in ((16, "frame"), (1, "clip"), (16, "clip")):
        session = Replenish(ODD).open(layout, Budget(ratio=0.06, per=per))
        gaze = Gaze.concatenate([session.step(frames[t : t + size]) for t in range(0, 16, size)])
        loss_of[size, per] = quality(frames, gaze=gaze).loss.mean()
    assert loss_of[16, "clip"] < min(loss_of[1, "clip"], loss_of[16, "frame"])


@pytest.fixture(scope="module")
def still_then_busy() -> Frames:
    """40 small frames, some of them still, so that there is something to save and to spend."""
    rgb = moving_clip(32, 32, frames=40, seed=5).rgb.copy()
    rgb[3:9], rgb[20:27] = rgb[3], rgb[20]
    return Frames.from_rgb(rgb)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 20), min_size=1, max_size=20).filter(lambda cuts: sum(cuts) <= 40),
    ratio=st.sampled_from([0.01, 0.07, 0.1, 0.33, 0.9]),
)
def test_a_ratio_is_a_ceiling_on_a_clip_that_ends_early(still_then_busy: Frames, cuts: list[int], ratio: float):
    layout = FrameLayout.tiled(PatchGrid(scales_px=(16, 32)), height_px=32, width_px=32)
    session = Replenish(layout.grid).open(layout, Budget(ratio=ratio, per="clip"))
    done, counts = 0, []
    for cut in cuts:
        counts += session.step(still_then_busy[done : done + cut]).count.tolist()
        done += cut
        in_clip = (done - 1) % CLIP_FRAMES + 1
        ceiling = Fraction(str(ratio)) * in_clip * layout.num_patches
        assert sum(counts[-in_clip:]) <= max(in_clip, math.floor(ceiling)), counts
        for start in range(0, done - in_clip, CLIP_FRAMES):
            ceiling = Fraction(str(ratio)) * CLIP_FRAMES * layout.num_patches
            assert sum(counts[start : start + CLIP_FRAMES]) <= max(CLIP_FRAMES, math.floor(ceiling)), counts


def test_what_a_still_frame_leaves_is_there_for_later_ones():
    layout = FrameLayout.tiled(SMALL, height_px=64, width_px=64)
    flat, busy = np.full((64, 64, 3), 60, np.uint8), moving_clip(64, 64, frames=1).rgb[0]
    session = Replenish(SMALL).open(layout, Budget(ratio=0.2, per="clip"))
    counts = [session.step(Frames.from_rgb(rgb[None])).num_gazes for rgb in [flat] * 4 + [busy] * 2]
    assert counts[:4] == [4, 0, 0, 0]
    assert min(counts[4:]) > max_patches(0.2, layout.num_patches)


def test_looking_ahead_waits_for_the_cut():
    layout = FrameLayout.tiled(SMALL, height_px=64, width_px=64)
    flat, busy = np.full((64, 64, 3), 60, np.uint8), moving_clip(64, 64, frames=1).rgb[0]
    frames = Frames.from_rgb(np.stack([flat] * 9 + [busy] * 7))
    gaze = gazed(frames, layout, ratio=0.08, per="clip")
    assert gaze.count[0] == 4  # four coarse patches paint a flat picture
    assert gaze.count[1:9].sum() == 0
    assert gaze.count[9] > 0.5 * max_patches(0.08, CLIP_FRAMES * layout.num_patches)


def test_a_clip_budget_still_stops_at_the_threshold():
    layout = FrameLayout.tiled(SMALL, height_px=64, width_px=64)
    frames = moving_clip(64, 64, frames=16)
    generous = gazed(frames, layout, ratio=1.0, per="clip", threshold=0.03)
    assert generous.equals(gazed(frames, layout, threshold=0.03))


def test_looking_ahead_does_not_depend_on_what_is_kept_in_memory(monkeypatch):
    layout = FrameLayout.tiled(SMALL, height_px=64, width_px=64)
    frames = moving_clip(64, 64, frames=16)
    kept = gazed(frames, layout, ratio=0.1, per="clip")
    monkeypatch.setattr("autogaze.selectors.replenish.LOOK_AHEAD_BYTES", 0)
    assert gazed(frames, layout, ratio=0.1, per="clip").equals(kept)


def test_a_plan_uses_the_pool_and_no_more():
    gains = np.sort(np.random.default_rng(0).exponential(1000, (16, 200)))[:, ::-1]
    plan = spending.plan(lambda least: (gains >= least).sum(1).tolist(), pool=500)
    assert 490 <= sum(plan.counts) <= 500
    assert (gains >= plan.least_worth).sum() >= sum(plan.counts)


def test_gains_after_every_step_equal_those_computed_anew():
    layout = FrameLayout.tiled(ODD, height_px=60, width_px=80)
    tiling, rng = Tiling(layout), np.random.default_rng(0)
    tiles = tiling.split(moving_clip(60, 80, frames=1).rgb[0])
    painting = Painting(rng.integers(0, 255, tiles.shape, np.uint8), rng.random(tiles.shape) < 0.3)
    tiling.clear_padding(painting.levels)
    tiling.clear_padding(painting.bare)
    scales = Scales.of(tiles, tiling, squared=True)
    canvas = canvas_errors(tiles, painting, tiling, squared=True)
    search = Search(canvas, scales)
    np.testing.assert_array_equal(search.gains, patch_gains(canvas, scales.errors, tiling.cells))
    owner = np.full((len(tiles), tiling.cells.num_atoms), -1)
    current, squared = canvas.absolute.copy(), canvas.squared.copy()
    for index in rng.permutation(layout.num_indices)[:150].tolist():
        tile, patch = divmod(index, ODD.num_patches)
        scale = tiling.cells.scale_of_patch[patch]
        before = search.absolute - search.gains[tile, patch]
        search.take(index)
        atoms = tiling.cells.atoms_of_patch[patch]
        atoms = atoms[owner[tile, atoms] <= scale]
        owner[tile, atoms] = scale
        current[tile, atoms] = scales.errors.absolute[tile, scale, atoms]
        squared[tile, atoms] = scales.errors.squared[tile, scale, atoms]
        assert search.absolute == before == current.sum()
        assert search.squared == squared.sum()
    open_to = owner[:, None] <= np.arange(ODD.num_scales)[:, None]
    removed = (current[:, None] - scales.errors.absolute) * open_to
    expected = [
        [removed[t, s, a].sum() for a, s in zip(tiling.cells.atoms_of_patch, tiling.cells.scale_of_patch, strict=True)]
        for t in range(len(tiles))
    ]
    np.testing.assert_array_equal(search.gains, expected)


SAMPLE = Path(__file__).parents[1] / "examples" / "sample.mp4"


@pytest.fixture(scope="module")
def real_frames() -> Frames:
    """Four frames of a real video with its own noise, 450×310 px."""
    with av.open(str(SAMPLE)) as container:
        rgb = [frame.to_ndarray(format="rgb24")[:310, :450] for frame in islice(container.decode(video=0), 40, 44)]
    return Frames.from_rgb(np.stack(rgb))


@pytest.mark.parametrize(
    "budget",
    [Budget(ratio=0.05), Budget(threshold=0.05), Budget(threshold=0.02), Budget(psnr_db=27.0), Budget()],
    ids=str,
)
def test_building_only_what_is_needed_changes_nothing(real_frames: Frames, budget: Budget):
    layout = FrameLayout.tiled(PatchGrid(), height_px=310, width_px=450)
    plain = PlainReplenish(layout, budget).step(real_frames)
    assert Replenish().open(layout, budget).step(real_frames).equals(plain)
    assert plain.num_gazes > 4


def test_a_good_frame_needs_few_tiles(real_frames: Frames):
    layout = FrameLayout.tiled(PatchGrid(), height_px=310, width_px=450)
    tiling = Tiling(layout)
    tiles = tiling.split(real_frames.rgb[0])
    painting = Painting(tiles.copy())
    painting.levels[1, :40, :60] = 127
    scales = Scales(tiles, tiling, squared=False)
    errors = canvas_errors(tiles, painting, tiling, squared=False)
    taken = greedy(Search(errors, scales), max_patches=1)
    assert (
        taken.index.tolist()
        == greedy(Search(errors, Scales.of(tiles, tiling, squared=False)), max_patches=1).index.tolist()
    )
    assert np.flatnonzero(scales.built[:, :-1].any(1)).tolist() == [1]


def test_a_scale_built_late_knows_what_was_pasted(real_frames: Frames):
    layout = FrameLayout.tiled(ODD, height_px=60, width_px=80)
    tiling, rng = Tiling(layout), np.random.default_rng(0)
    tiles = tiling.split(np.ascontiguousarray(real_frames.rgb[0, :60, :80]))
    painting = Painting(tiling.split(np.ascontiguousarray(real_frames.rgb[3, :60, :80])))
    errors = canvas_errors(tiles, painting, tiling, squared=False)
    scales = Scales(tiles, tiling, squared=False)
    late, early = Search(errors, scales), Search(errors, Scales.of(tiles, tiling, squared=False))
    # Finest patches first, so that every other scale is built on a tile of which much is covered.
    drawn = {*rng.permutation(layout.num_indices)[:200].tolist(), *range(0, layout.num_indices, ODD.num_patches)}
    fine_first = sorted(drawn, key=lambda index: -(index % ODD.num_patches))
    for index in fine_first:
        late.take(index)
        early.take(index)
        assert late.absolute == early.absolute
    assert scales.built.all()
    np.testing.assert_array_equal(late.gains, early.gains)


def test_frames_smaller_than_a_tile_are_seen_together(real_frames: Frames):
    small = Frames.from_rgb(np.ascontiguousarray(real_frames.rgb[:, :100, :150]))
    layout = FrameLayout.tiled(PatchGrid(), height_px=100, width_px=150)
    budget = Budget(threshold=0.02)
    assert Replenish().open(layout, budget).step(small).equals(PlainReplenish(layout, budget).step(small))


def test_searches_that_share_scales_build_for_themselves(real_frames: Frames):
    layout = FrameLayout.tiled(PatchGrid(), height_px=310, width_px=450)
    tiling = Tiling(layout)
    tiles = tiling.split(real_frames.rgb[0])
    painting = Painting(tiling.split(real_frames.rgb[3]))
    painting.levels[0] = 127
    errors = canvas_errors(tiles, painting, tiling, squared=True)
    expected = greedy(Search(errors, Scales.of(tiles, tiling, squared=True)), max_patches=60).index.tolist()
    search = Search(errors, Scales(tiles, tiling, squared=True))
    fork = search.fork()
    assert greedy(search, max_patches=60).index.tolist() == expected
    assert greedy(fork, max_patches=60).index.tolist() == expected


@pytest.mark.parametrize(
    "grid",
    [PatchGrid(), ODD, SMALL, PatchGrid(scales_px=(14, 28, 70, 210), patch_px=14), PatchGrid(scales_px=(24, 48, 72))],
)
def test_scales_are_enlarged_patch_by_patch(grid: PatchGrid):
    cells, rng = Cells(grid), np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, cells.tile_px, cells.tile_px, 3)).astype(np.uint8)
    for tiles in (noise, (noise > 250).astype(np.uint8) * 255, np.sort(noise, axis=2)):
        for scale in range(grid.num_scales):
            expected = tiles if cells.shows_itself(scale) else plain_scale_image(tiles, cells, scale)
            np.testing.assert_array_equal(scale_image(tiles, cells, scale), expected)


@settings(max_examples=200, deadline=None)
@given(limit=st.floats(0, 1, exclude_max=True), decibels=st.floats(1e-9, 90), num_values=st.integers(1, 10**8))
def test_a_goal_is_the_last_whole_error_that_keeps_the_promise(limit: float, decibels: float, num_values: int):
    goal = Goal.of(threshold=limit, psnr_db=decibels, num_values=num_values)
    assert loss(goal.absolute, num_values) <= limit < loss(goal.absolute + 1, num_values)
    assert psnr_db(goal.squared, num_values) >= decibels > psnr_db(goal.squared + 1, num_values)
    assert not Goal.of(threshold=None, psnr_db=None, num_values=num_values).is_met(0.0, 0.0)
    for reached in ({"threshold": 1e308, "psnr_db": None}, {"threshold": None, "psnr_db": -1e308}):
        assert Goal.of(**reached, num_values=9).is_met(510 * 9, 510**2 * 9)
    assert not Goal.of(threshold=None, psnr_db=1e308, num_values=9).is_met(1, 1)


def test_threads_change_nothing():
    layout = FrameLayout.tiled(SMALL, height_px=300, width_px=130)
    frames = moving_clip(300, 130, frames=3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = gazed(frames, layout, threshold=0.02)
        torch.set_num_threads(3)
        together = gazed(frames, layout, threshold=0.02)
    finally:
        torch.set_num_threads(before)
    assert alone.equals(together)


def test_what_cannot_be_done_is_refused_in_words():
    with pytest.raises(ValueError, match=r"scales \[48\] px .* scales that fit: 16, 32, 64 px"):
        Replenish(PatchGrid(scales_px=(32, 48, 64)))
    layout = FrameLayout.tiled(SMALL, height_px=64, width_px=64)
    with pytest.raises(BudgetError, match=r"threshold of -0\.1"):
        Replenish(SMALL).open(layout, Budget(threshold=-0.1))
    with pytest.raises(ValueError, match=r"\(64, 64, 3\) uint8, got \(60, 64, 3\)"):
        Replenish(SMALL).open(layout, Budget()).step(moving_clip(60, 64, frames=1))
    for too_many_or_few in (2, 15, 17):
        with pytest.raises(BudgetError, match=f"one number or 16, one for each frame of a clip, got {too_many_or_few}"):
            Replenish(SMALL).open(layout, Budget(ratio=[0.1] * too_many_or_few))


CLIPS = Path(__file__).parents[2] / "shared" / "videos" / "val"


@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs the validation clips")
def test_equals_the_definition_on_real_frames():
    path = sorted(CLIPS.glob("*.mp4"))[5]
    with av.open(str(path)) as container:
        pictures = [next(container.decode(video=0)).to_image() for _ in range(2)]
    rgb = np.stack([np.asarray(picture.resize((224, 224))) for picture in pictures])
    layout = FrameLayout.tiled(PatchGrid(), height_px=224, width_px=224)
    frames = Frames.from_rgb(rgb)
    expected = definition(frames, layout, threshold=0.0, limit=25)
    assert per_frame(gazed(frames, layout, ratio=25 / 265)) == expected
