"""Tiles that share passes get what each by itself would get."""

from __future__ import annotations

import gc
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from autogaze.benching.naive import naively
from autogaze.errors import AutoGazeWarning, BudgetError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.loading import load_selector
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.pool import TilePool
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.selectors.base import Budget
from autogaze.selectors.cascade import Cascade, CascadeSession
from autogaze.selectors.replenish import Replenish
from autogaze.selectors.tiles import TileByTile, open_tiles
from autogaze.video import open_video
from test_streaming import assert_same, state_bytes

TESTS = Path(__file__).parent
CLIP_FRAMES = 8  # what this checkpoint sees at once
SIDE_PX = 64
TILES = 5
BUDGET = Budget(ratio=0.4, threshold=0.4)
# How many frames of each tile a step gives: none, some or all of them; tiles begin their third clip, or their second.
STEPS = [(1, 1, 1, 1, 1), (0, 3, 1, 0, 7), (0, 0, 0, 0, 0), (9, 1, 0, 2, 1), (1, 4, 0, 0, 1), (7, 0, 4, 5, 8), (1,) * 5]


@lru_cache
def small() -> AutoGaze:
    return AutoGaze.from_pretrained(TESTS / "data" / "gaze_small")


@lru_cache
def video() -> Frames:
    """Frames that change: 6 × 10 tiles, of which the last row and column reach past the frame."""
    with open_video(TESTS.parent / "examples" / "sample.mp4", window_frames=32) as reader:
        frames = next(iter(reader))
    return Frames(
        rgb=np.ascontiguousarray(frames.rgb[:, :, :600]), time_seconds=frames.time_seconds, number=frames.number
    )


def selector(**options: int) -> AutoGazeSelector:
    return AutoGazeSelector(small(), **options)


def layout_px(height_px: int, width_px: int) -> FrameLayout:
    return FrameLayout.tiled(small().grid, height_px=height_px, width_px=width_px)


# The last is cut by the frame's edge.
LAYOUTS = [layout_px(SIDE_PX, SIDE_PX)] * (TILES - 1) + [layout_px(30, 50)]


def tile_frames(number: int, first: int, end: int) -> Frames:
    """Frames ``first``, … of one tile of the video."""
    frames, layout = video()[first:end], LAYOUTS[number]
    rgb = frames.rgb[:, 100 : 100 + layout.height_px, 110 * number : 110 * number + layout.width_px]
    return Frames(rgb=np.ascontiguousarray(rgb), time_seconds=frames.time_seconds, number=frames.number)


def pooled(tile_batch: int, budget: Budget) -> list[Gaze]:
    """Of each tile the gaze of all frames that :data:`STEPS` give it, from a pool."""
    session = selector(tile_batch=tile_batch).open_tiles(LAYOUTS, budget)
    assert isinstance(session, TilePool)
    done, parts = [0] * TILES, [[] for _ in range(TILES)]
    for count in STEPS:
        order = [number for number in (3, 0, 4, 1, 2) if count[number]]
        gazes = session.step((k, tile_frames(k, done[k], done[k] + count[k])) for k in order)
        for number, gaze in zip(order, gazes, strict=True):
            assert len(gaze) == count[number]
            parts[number].append(gaze)
            done[number] += count[number]
    return [Gaze.concatenate(of_tile) for of_tile in parts]


@pytest.mark.parametrize("tile_batch", [2, 3, 8])
@pytest.mark.parametrize(
    "budget",
    [BUDGET, Budget(ratio=[0.5, *[0.1] * 6, 0.3]), Budget(threshold=0.4)],
    ids=["both", "a ratio for each frame", "threshold"],
)
def test_a_pool_gives_what_a_session_for_each_tile_gives(tile_batch: int, budget: Budget) -> None:
    frames = np.sum(STEPS, axis=0)
    assert frames.max() > 2 * CLIP_FRAMES > frames.min()
    for number, gaze in enumerate(pooled(tile_batch, budget)):
        alone = selector().open(LAYOUTS[number], budget).step(tile_frames(number, 0, int(frames[number])))
        assert_same(gaze, alone)
        assert len(set(gaze.count.tolist())) > 1


def test_a_pool_of_the_bundled_model() -> None:
    model = load_selector("bundled")
    side_px, frames = model.grid.scales_px[-1], video()[:3]
    layout = FrameLayout.tiled(model.grid, height_px=side_px, width_px=side_px)
    parts = [
        Frames(
            rgb=np.ascontiguousarray(frames.rgb[:, 100 : 100 + side_px, left_px : left_px + side_px]),
            time_seconds=frames.time_seconds,
            number=frames.number,
        )
        for left_px in (0, 200)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutoGazeWarning)
        gazes = open_tiles(model, [layout] * 2, BUDGET).step(enumerate(parts))
        for gaze, part in zip(gazes, parts, strict=True):
            assert_same(gaze, model.open(layout, BUDGET).step(part))


def test_tiles_share_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, rows_of_frames = small().decoder.engine, []
    decode_frame = engine.decode_frame

    def spying(*args, **options):
        rows_of_frames.append(options["rows"])
        return decode_frame(*args, **options)

    monkeypatch.setattr(engine, "decode_frame", spying)
    session = selector(tile_batch=3).open_tiles(LAYOUTS, BUDGET)
    session.step((k, tile_frames(k, 0, k + 1)) for k in range(TILES))  # 1, 2, …, 5 frames
    assert [len(rows) for rows in rows_of_frames] == [3, 3, 3, 2, 2, 1, 1]
    # Rows whose tile is in the middle of a clip are nobody else's; of whole clips only as many are used as a pass has.
    assert {row for rows in rows_of_frames for row in rows} == set(range(TILES))
    rows_of_frames.clear()
    session = selector(tile_batch=3).open_tiles(LAYOUTS, BUDGET)
    session.step((k, tile_frames(k, 0, 2 * CLIP_FRAMES)) for k in range(TILES))
    assert {row for rows in rows_of_frames for row in rows} == {0, 1, 2}
    assert max(map(len, rows_of_frames)) == 3


def test_frames_are_taken_when_a_pass_has_room() -> None:
    taken: list[int] = []

    def opened():
        for k in range(TILES):
            taken.append(k)
            yield k, tile_frames(k, 0, 2)

    pool = selector(tile_batch=2).open_tiles(LAYOUTS, BUDGET)
    make_pass, most = pool._pass, []
    pool._pass = lambda visits: (most.append((len(visits), len(taken))), make_pass(visits))
    pool.step(opened())
    assert most == [(2, 2), (2, 2), (2, 4), (2, 4), (1, 5), (1, 5)]


def test_memory_is_bounded_and_given_back_between_clips() -> None:
    pool = selector(tile_batch=2).open_tiles(LAYOUTS, BUDGET)
    pool.step((k, tile_frames(k, 0, CLIP_FRAMES)) for k in range(TILES))
    gc.collect()
    assert state_bytes(pool) < 5000
    held = []
    for t in range(32):
        pool.step((k, tile_frames(k, t, t + 1)) for k in range(t % 3, TILES))
        held.append(state_bytes(pool))
    # Once every tile has been at the end of a clip nothing grows but by the few bytes of a larger last group.
    assert max(held[2 * CLIP_FRAMES :]) < max(held[: 2 * CLIP_FRAMES]) + 100


def test_a_clip_that_begins_when_no_other_goes_on_has_the_weights_of_that_time() -> None:
    model = AutoGaze.from_pretrained(TESTS / "data" / "gaze_small")
    pool = AutoGazeSelector(model).open_tiles(LAYOUTS[:2], BUDGET)
    pool.step((k, tile_frames(k, 0, CLIP_FRAMES)) for k in range(2))
    with torch.no_grad():
        for weight in model.gazing_model.gaze_decoder.parameters():
            weight.mul_(1.2)
    (gaze,) = pool.step([(1, tile_frames(1, 0, 4))])
    changed = AutoGazeSelector(model).open(LAYOUTS[1], BUDGET).step(tile_frames(1, 0, 4))
    assert_same(gaze, changed)
    old = selector().open(LAYOUTS[1], BUDGET).step(tile_frames(1, 0, 4))
    assert not np.array_equal(changed.index, old.index)


class Apart:
    """A selector that cannot open tiles together."""

    def __init__(self, inner: AutoGazeSelector) -> None:
        self.name, self.grid, self.open = inner.name, inner.grid, inner.open
        self.default_budget, self.needs_motion_vectors = inner.default_budget, inner.needs_motion_vectors


@pytest.mark.parametrize("budget", [BUDGET, Budget(ratio=0.2)])
@pytest.mark.parametrize("change", [1e-9, 0.15])
def test_a_cascade_gives_what_it_gave_tile_by_tile(change: float, budget: Budget) -> None:
    still = np.repeat(np.arange(20), np.where(np.arange(20) % 4 == 3, 3, 1))  # in repeated frames no tile is open
    frames = Frames.from_rgb(np.ascontiguousarray(video().rgb[still, :, :200]))
    layout = layout_px(frames.height_px, frames.width_px)

    def run(inner: AutoGazeSelector | Apart, step: int) -> tuple[Gaze, np.ndarray]:
        session = Cascade(inner, change=change).open(layout, budget)
        assert isinstance(session, CascadeSession)
        gazes, opened = [], []
        for first in range(0, len(frames), step):
            gazes.append(session.step(frames[first : first + step]))
            opened.append(session.opened_TK)
        return Gaze.concatenate(gazes), np.concatenate(opened)

    wanted, opened = run(Apart(selector()), len(frames))
    frames_of_tile = opened.sum(0)
    assert opened[0].all() and not opened[4].any()
    assert frames_of_tile.max() > 2 * CLIP_FRAMES
    assert change < 0.1 or frames_of_tile.min() < CLIP_FRAMES
    for step in (len(frames), 16, 3, 1):
        gaze, opened_now = run(selector(tile_batch=4), step)
        assert np.array_equal(opened_now, opened)
        assert_same(gaze, wanted)


def test_who_opens_tiles_together() -> None:
    assert isinstance(open_tiles(selector(), LAYOUTS, BUDGET), TilePool)
    assert isinstance(open_tiles(selector(tile_batch=1), LAYOUTS, BUDGET), TileByTile)
    assert isinstance(open_tiles(Replenish(small().grid), LAYOUTS, BUDGET), TileByTile)


def test_a_cascade_of_the_naive_loop() -> None:
    frames = Frames.from_rgb(np.ascontiguousarray(video().rgb[:3, :100, :100]))
    layout = layout_px(100, 100)
    gazes = [
        Cascade(inner, change=0.05).open(layout, BUDGET).step(frames) for inner in (selector(), naively(selector()))
    ]
    assert_same(*gazes)


@pytest.mark.parametrize("tile_batch", [1, 4])
def test_errors(tile_batch: int) -> None:
    model = selector(tile_batch=tile_batch)
    with pytest.raises(BudgetError, match="not decibels"):
        model.open_tiles(LAYOUTS, Budget(psnr_db=30))
    with pytest.raises(BudgetError, match="not per clip"):
        model.open_tiles(LAYOUTS, Budget(ratio=0.1, per="clip"))
    with pytest.raises(BudgetError, match="one number or 8"):
        model.open_tiles(LAYOUTS, Budget(ratio=[0.1, 0.2]))
    grid = PatchGrid(scales_px=(32,), patch_px=16)
    with pytest.raises(ValueError, match="the layout is of"):
        model.open_tiles([FrameLayout.resized(grid, height_px=32, width_px=32)], BUDGET)
    session = model.open_tiles(LAYOUTS, BUDGET)
    for number in (-1, TILES):
        with pytest.raises(ValueError, match=f"tiles are numbered 0…4, got {number}"):
            session.step([(number, tile_frames(0, 0, 1))])
    with pytest.raises(ValueError, match="tile 2 is named twice"):
        session.step([(2, tile_frames(2, 0, 1)), (2, tile_frames(2, 1, 2))])
    with pytest.raises(ValueError, match="frames must be"):
        session.step([(0, tile_frames(TILES - 1, 0, 1))])
    assert session.step([]) == []
