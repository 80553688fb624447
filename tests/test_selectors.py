"""What every yardstick selector promises, and what sets each one apart."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from autogaze.errors import BudgetError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors import SELECTORS, make_selector
from autogaze.selectors.base import Budget, Selector
from autogaze.selectors.scored import FrameScores, choose
from autogaze.selectors.uniform_random import Random

pytestmark = pytest.mark.filterwarnings("error")

YARDSTICKS = tuple(name for name in SELECTORS if name != "replenish")
GRID = PatchGrid()
HEIGHT_PX, WIDTH_PX = 300, 500
LAYOUTS = {
    "tiled": FrameLayout.tiled(GRID, height_px=HEIGHT_PX, width_px=WIDTH_PX),
    "resized": FrameLayout.resized(GRID, height_px=HEIGHT_PX, width_px=WIDTH_PX),
}
SQUARE_PX = 64


def square_left_px(t: int) -> int:
    return 20 + 8 * t


def moving_square(T: int) -> np.ndarray:
    """A textured square moves right over a textured background that rests."""
    rng = np.random.default_rng(0)
    background = np.kron(rng.integers(60, 200, (75, 125, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    square = np.kron(rng.integers(0, 256, (16, 16, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    rgb = np.repeat(background[None], T, axis=0)
    for t in range(T):
        left = square_left_px(t)
        rgb[t, 100 : 100 + SQUARE_PX, left : left + SQUARE_PX] = square
    return rgb


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """37 frames of a real H.264 file with the vectors it holds; two groups of pictures."""
    path = tmp_path_factory.mktemp("video") / "square.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "20", "crf": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for rgb in moving_square(37):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        container.mux(stream.encode())
    rgb, vectors = [], []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for frame in container.decode(stream):
            rgb.append(frame.to_ndarray(format="rgb24"))
            exported = frame.side_data.get("MOTION_VECTORS")
            vectors.append(np.empty(0, [("w", "u1")]) if exported is None else exported.to_ndarray())
    assert [t for t in range(37) if len(vectors[t]) == 0] == [0, 20]
    return replace(Frames.from_rgb(np.stack(rgb)), motion_vectors=tuple(vectors))


def gaze_in_steps(selector: Selector, frames: Frames, layout: FrameLayout, budget: Budget, cuts: list[int]) -> Gaze:
    session = selector.open(layout, budget)
    assert session.layout == layout
    ends = [*cuts, len(frames)]
    return Gaze.concatenate([session.step(frames[start:end]) for start, end in zip([0, *cuts], ends, strict=True)])


def gaze_at(selector: Selector, frames: Frames, layout: FrameLayout, budget: Budget) -> Gaze:
    return gaze_in_steps(selector, frames, layout, budget, [])


# What all of them promise


@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("name", YARDSTICKS)
def test_every_frame_spends_its_budget_inside_the_video_and_never_twice(name, shape, frames):
    layout, selector = LAYOUTS[shape], make_selector(name)
    assert selector.name == name
    gaze = gaze_at(selector, frames[:18], layout, Budget(ratio=0.13))
    assert (gaze.count == math.floor(0.13 * layout.num_patches)).all()
    assert layout.inside[gaze.index].all()
    assert all(len(set(frame.index.tolist())) == len(frame.index) for frame in gaze)
    assert gaze.probability is None and gaze.predicted_loss is None
    assert np.array_equal(gaze.time_seconds, frames.time_seconds[:18])


@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("name", YARDSTICKS)
def test_cutting_the_video_into_steps_changes_nothing(name, shape, frames):
    selector, layout, budget = make_selector(name), LAYOUTS[shape], Budget(ratio=0.05)
    whole = gaze_at(selector, frames, layout, budget)
    assert gaze_in_steps(selector, frames, layout, budget, [1, 2, 9, 16, 20, 35]).equals(whole)


@pytest.mark.parametrize("name", YARDSTICKS)
def test_clips_share_their_budget_and_may_be_stepped_one_by_one(name, frames):
    selector, layout, budget = make_selector(name), LAYOUTS["resized"], Budget(ratio=0.07, per="clip")
    whole = gaze_at(selector, frames, layout, budget)
    assert gaze_in_steps(selector, frames, layout, budget, [16, 32]).equals(whole)
    for start, end in ((0, 16), (16, 32), (32, 37)):
        assert whole[start:end].num_gazes == math.floor(Fraction(7, 100) * (end - start) * 265)
    assert whole.count.min() >= 1


@pytest.mark.parametrize("name", YARDSTICKS)
def test_pieces_of_a_clip_spend_what_the_clip_may(name, frames):
    selector, layout, budget = make_selector(name), LAYOUTS["resized"], Budget(ratio=0.07, per="clip")
    gaze = gaze_in_steps(selector, frames, layout, budget, [1, 2, 5, 12, 30])
    assert gaze[:16].num_gazes == gaze[16:32].num_gazes == math.floor(Fraction(7, 100) * 16 * 265)
    assert gaze[:5].num_gazes == math.floor(Fraction(7, 100) * 5 * 265)


@pytest.mark.parametrize("name", YARDSTICKS)
def test_a_larger_budget_adds_to_a_smaller_one(name, frames):
    selector, layout = make_selector(name), LAYOUTS["resized"]
    small = gaze_at(selector, frames[:3], layout, Budget(ratio=0.02))
    large = gaze_at(selector, frames[:3], layout, Budget(ratio=0.3))
    for t in range(3):
        assert np.array_equal(large[t].index[: small.count[t]], small[t].index)


@pytest.mark.parametrize("name", YARDSTICKS)
def test_all_of_the_video_and_the_least_of_it(name, frames):
    selector, layout = make_selector(name), LAYOUTS["tiled"]
    for per in ("frame", "clip"):
        assert gaze_at(selector, frames[:2], layout, Budget(ratio=1.0, per=per)).ratio == 1
        assert gaze_at(selector, frames[:2], layout, Budget(per=per)).ratio == 1
        assert (gaze_at(selector, frames[:2], layout, Budget(ratio=1e-9, per=per)).count == 1).all()


def test_each_frame_of_a_clip_may_have_its_own_ratio(frames):
    ratios = tuple((t + 1) / 20 for t in range(16))
    gaze = gaze_in_steps(make_selector("detail"), frames[:20], LAYOUTS["resized"], Budget(ratio=ratios), [3])
    expected = [math.floor(Fraction(t % 16 + 1, 20) * 265) for t in range(20)]
    assert gaze.count.tolist() == expected
    with pytest.raises(BudgetError, match="one number or 16, one for each frame of a clip, got 2"):
        gaze_at(make_selector("detail"), frames[:3], LAYOUTS["resized"], Budget(ratio=(0.1, 0.2)))


@pytest.mark.parametrize("name", YARDSTICKS)
@pytest.mark.parametrize("budget", [Budget(threshold=0.7), Budget(ratio=0.1, psnr_db=30.0)])
def test_stopping_rules_that_need_a_reconstruction_are_refused(name, budget):
    with pytest.raises(BudgetError, match=f"{name} cannot stop at (threshold=0.7|psnr_db=30.0).*ratio.*replenish"):
        make_selector(name).open(LAYOUTS["tiled"], budget)


@pytest.mark.parametrize("name", YARDSTICKS)
def test_frames_of_another_size_are_refused(name, frames):
    session = make_selector(name).open(LAYOUTS["tiled"], Budget(ratio=0.1))
    with pytest.raises(ValueError, match="must be 500 × 300 px, got 500 × 299"):
        session.step(replace(frames, rgb=frames.rgb[:, :299]))


@pytest.mark.parametrize("name", YARDSTICKS)
def test_memory_of_the_frames_is_the_callers(name, frames):
    """Views, turned or read-only, give the same gazes; a buffer may be filled anew between steps."""
    selector, layout, budget = (
        make_selector(name),
        FrameLayout.tiled(GRID, height_px=224, width_px=224),
        Budget(ratio=0.1),
    )
    part = replace(frames, rgb=frames.rgb[:, 60:284, 10:234])[:4]
    whole = gaze_at(selector, replace(part, rgb=part.rgb.copy()), layout, budget)
    turned = part.rgb[:, ::-1, ::-1].copy()
    turned.flags.writeable = False
    assert gaze_at(selector, replace(part, rgb=turned[:, ::-1, ::-1]), layout, budget).equals(whole)
    assert gaze_at(selector, part, layout, budget).equals(whole)
    session, buffer, gazes = selector.open(layout, budget), np.empty((1, 224, 224, 3), np.uint8), []
    for t in range(4):
        buffer[:] = part.rgb[t]
        gazes.append(session.step(replace(part[t : t + 1], rgb=buffer)))
    assert Gaze.concatenate(gazes).equals(whole)


def test_names():
    assert make_selector("random").default_budget == Budget(ratio=0.1)
    assert [name for name in YARDSTICKS if make_selector(name).needs_motion_vectors] == ["motion-vectors"]
    with pytest.raises(ValueError, match=r"no selector 'optical'; choose from replenish, random, .*detail"):
        make_selector("optical")


def test_replenish_has_its_name():
    pytest.importorskip("autogaze.selectors.replenish")
    assert make_selector("replenish").name == "replenish"


# How scores become gazes


def test_the_best_of_a_clip_win_and_every_frame_has_one():
    layout = FrameLayout.tiled(PatchGrid(scales_px=(8,), patch_px=4), height_px=8, width_px=8)
    scores = FrameScores(score_TP=np.array([[9.0, 8, 7, 6], [1, 1, 2, 1], [5, 9, 6.5, 0]]), apart_T=np.zeros(3, bool))
    chosen = choose(scores, layout, Budget(ratio=0.5, per="clip"), position=0)
    assert [frame.tolist() for frame in chosen] == [[0, 1, 2], [2], [1, 2]]


def test_a_frame_apart_gets_an_even_share_whatever_its_scores():
    layout = FrameLayout.tiled(PatchGrid(scales_px=(8,), patch_px=4), height_px=8, width_px=8)
    rest = np.array([[1.0, 2, 3, 4], [5, 0, 0, 6]])
    for first in (np.zeros((1, 4)), np.full((1, 4), 1e9)):
        scores = FrameScores(score_TP=np.concatenate([first, rest]), apart_T=np.array([True, False, False]))
        chosen = choose(scores, layout, Budget(ratio=0.5, per="clip"), position=0)
        assert [frame.tolist() for frame in chosen] == [[0, 1], [3, 2], [3, 0]]


def test_padding_never_wins_and_ties_go_to_the_lower_index():
    layout = FrameLayout.tiled(PatchGrid(scales_px=(8,), patch_px=4), height_px=4, width_px=8)
    scores = FrameScores(score_TP=np.array([[0.0, 0.0, 5.0, 5.0]]), apart_T=np.zeros(1, bool))
    for per in ("frame", "clip"):
        (chosen,) = choose(scores, layout, Budget(ratio=1.0, per=per), position=0)
        assert chosen.tolist() == [0, 1]


# What sets each one apart


def touches_square(gaze: Gaze, first_px: int, last_px: int) -> np.ndarray:
    left, top, right, bottom = gaze.boxes_px.T
    return (left < last_px) & (right > first_px) & (top < 100 + SQUARE_PX) & (bottom > 100)


@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("name", ["difference", "flow"])
def test_gazes_go_where_something_moves(name, shape):
    layout, frames = LAYOUTS[shape], Frames.from_rgb(moving_square(8))
    gaze = gaze_at(make_selector(name), frames, layout, Budget(ratio=0.02))
    for t in range(1, 8):
        assert touches_square(gaze[t], square_left_px(t - 1), square_left_px(t) + SQUARE_PX).all()


def test_gazes_go_where_the_codec_moved_something(frames):
    gaze = gaze_at(make_selector("motion-vectors"), frames, LAYOUTS["tiled"], Budget(ratio=0.02))
    inter = [t for t in range(2, 37) if t != 20]
    # A vector may reach several frames back, and blocks of 16 px do not end where the square does.
    hits = [touches_square(gaze[t], square_left_px(t) - 40, square_left_px(t) + SQUARE_PX + 40).mean() for t in inter]
    assert np.mean(hits) > 0.9


def test_key_frames_are_scored_by_detail(frames):
    vectors = gaze_at(make_selector("motion-vectors"), frames, LAYOUTS["tiled"], Budget(ratio=0.1))
    detail = gaze_at(make_selector("detail"), frames, LAYOUTS["tiled"], Budget(ratio=0.1))
    assert [t for t in range(37) if vectors[t].equals(detail[t])] == [0, 20]


@pytest.mark.parametrize("name", ["difference", "flow", "motion-vectors"])
def test_the_first_frame_is_scored_by_detail_and_gets_a_fair_share_of_its_clip(name, frames):
    layout = LAYOUTS["tiled"]
    gaze = gaze_at(make_selector(name), frames[:16], layout, Budget(ratio=0.1, per="clip"))
    detail = gaze_at(make_selector("detail"), frames[:16], layout, Budget(ratio=0.1))
    assert gaze[0].equals(detail[0])


def test_the_papers_difference_overspends_on_the_first_frame_of_every_clip():
    frames = Frames.from_rgb(moving_square(32))
    selector = make_selector("difference-paper")
    assert selector.default_budget == Budget(ratio=0.1, per="clip")
    paper = gaze_at(selector, frames, LAYOUTS["resized"], selector.default_budget)
    assert paper.count[0] > 8 * 26 and paper.count[16] > 8 * 26
    black = Frames.from_rgb(np.concatenate([np.zeros_like(frames.rgb[:1]), frames.rgb]))
    budget = Budget(ratio=0.1)
    after_black = gaze_at(make_selector("difference"), black[:17], LAYOUTS["resized"], budget)
    assert np.array_equal(after_black[1:].index, gaze_at(selector, frames[:16], LAYOUTS["resized"], budget).index)


@pytest.mark.parametrize("shape", LAYOUTS)
def test_uniform_is_the_same_evenly_spread_lattice_in_every_frame(shape):
    layout = LAYOUTS[shape]
    frames = Frames.from_rgb(np.zeros((3, HEIGHT_PX, WIDTH_PX, 3), np.uint8))
    finest = layout.inside & (layout.locate(np.arange(layout.num_indices))[0] == 3)
    for ratio in (0.02, 0.1, 0.4, 0.7):
        gaze = gaze_at(make_selector("uniform"), frames, layout, Budget(ratio=ratio))
        assert np.array_equal(gaze[0].index, gaze[1].index)
        assert finest[gaze.index].all()
        # Every rectangle from the corner has its share of the gazes, give or take a few whatever the budget.
        _, row, column = layout.locate(np.flatnonzero(finest))
        _, gazed_row, gazed_column = layout.locate(gaze[0].index)
        worst = max(
            abs(((gazed_row < r) & (gazed_column < c)).mean() - ((row < r) & (column < c)).mean())
            for r in range(0, row.max() + 2, 3)
            for c in range(0, column.max() + 2, 3)
        )
        assert worst * gaze[0].num_gazes < 5
    everything = gaze_at(make_selector("uniform"), frames[:1], layout, Budget(ratio=1.0))
    scale = layout.locate(everything.index)[0]
    assert (np.diff(scale) <= 0).all()


def test_random_is_fair_to_every_patch_and_new_in_every_frame():
    layout = FrameLayout.tiled(PatchGrid(scales_px=(8, 16), patch_px=4), height_px=16, width_px=30)
    frames = Frames.from_rgb(np.zeros((4000, 16, 30, 3), np.uint8))
    gaze = gaze_at(make_selector("random"), frames, layout, Budget(ratio=0.25))
    times = np.bincount(gaze.index, minlength=layout.num_indices)
    assert not times[~layout.inside].any()
    expected = gaze.num_gazes / layout.num_patches
    assert (np.abs(times[layout.inside] - expected) < 5 * math.sqrt(expected)).all()
    assert not np.array_equal(gaze[0].index, gaze[1].index)
    assert gaze_at(Random(seed=0), frames[:5], layout, Budget(ratio=0.25)).equals(gaze[:5])
    assert not gaze_at(Random(seed=1), frames[:5], layout, Budget(ratio=0.25)).equals(gaze[:5])


def test_motion_vectors_are_asked_for_where_there_are_none(frames):
    session = make_selector("motion-vectors").open(LAYOUTS["tiled"], Budget(ratio=0.1))
    with pytest.raises(ValueError, match="these frames have none; open a video file"):
        session.step(replace(frames, motion_vectors=None))


def test_a_codec_without_vectors_warns_once(frames):
    empty = np.empty(0, [("w", "u1")])
    session = make_selector("motion-vectors").open(LAYOUTS["resized"], Budget(ratio=0.1))
    session.step(replace(frames[:15], motion_vectors=(empty,) * 15))
    with pytest.warns(UserWarning, match="16 frames in a row have no motion vectors"):
        session.step(replace(frames[:1], motion_vectors=(empty,)))
    session.step(replace(frames[:20], motion_vectors=(empty,) * 20))


def test_unknown_flow_preset():
    from autogaze.selectors.flow import Flow

    with pytest.raises(ValueError, match="got 'slow'"):
        Flow(preset="slow")
