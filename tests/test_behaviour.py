"""What is measured of a clip, and what many clips say together: against answers known by hand."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from autogaze.evaluation.behaviour_measures import (
    DETAIL_EDGES,
    FLOW_EDGES_PX,
    ClipBehaviour,
    ClipFacts,
    bin_of,
    flow_px,
    laplacian_variance,
    larger_flow,
)
from autogaze.evaluation.behaviour_rows import SelectorBehaviour
from autogaze.evaluation.behaviour_statistics import (
    Interval,
    rank_correlation,
    ratio_over_clips,
    resamples,
)
from autogaze.evaluation.behaviour_summary import faster, summarize
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from gaze_samples import random_gaze

LAYOUT = FrameLayout.resized(PatchGrid(), height_px=224, width_px=224)


def textured(seed: int, *, side_px: int) -> NDArray[np.uint8]:
    """(S, S, 3) smooth grey noise of full contrast: what a flow can be found in."""
    noise = np.random.default_rng(seed).integers(0, 256, (side_px, side_px), np.uint8)
    smooth = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)), float)
    grey = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def moving_square(T: int, *, step_px: int) -> NDArray[np.uint8]:
    """(T, 224, 224, 3) a textured square of 64 px that moves right over a textured background that stands still."""
    rgb = np.repeat(textured(0, side_px=224)[None], T, axis=0)
    for t in range(T):
        rgb[t, 64:128, 64 + step_px * t : 128 + step_px * t] = textured(1, side_px=64)
    return rgb


class TestFlow:
    @pytest.mark.parametrize("step_px", [1, 3, 6, 16])
    def test_a_square_moves_as_fast_as_it_does_and_its_background_not_at_all(self, step_px: int) -> None:
        (flow_HW,) = flow_px(moving_square(2, step_px=step_px))
        inner = flow_HW[72:120, 72 + step_px : 120 + step_px]
        assert np.median(inner) == pytest.approx(step_px, rel=0.05)
        assert flow_HW[:40].max() < 0.05
        assert flow_HW[:, :32].max() < 0.05

    def test_it_is_drawn_on_the_later_frame(self) -> None:
        (flow_HW,) = flow_px(moving_square(2, step_px=16))
        only_then_reached = flow_HW[72:120, 130:142]
        assert np.median(only_then_reached) == pytest.approx(16, rel=0.05)

    def test_the_larger_of_both_ways_is_taken_where_the_first_one_points(self) -> None:
        back = np.zeros((4, 8, 2), np.float32)
        back[..., 0] = -3
        forth = np.zeros((4, 8, 2), np.float32)
        forth[..., 1] = np.arange(8) + 1  # magnitude by column
        # Column x points at x − 3, whose magnitude is x − 2; columns 0, 1 and 2 point outside the picture.
        expected = np.tile([3, 3, 3, 3, 3, 3, 4, 5], (4, 1))
        np.testing.assert_allclose(larger_flow(back, forth), expected, rtol=1e-6)

    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("step_px", [2, -2])
    def test_what_points_outside_counts_as_0(self, axis: int, step_px: int) -> None:
        back = np.zeros((6, 7, 2), np.float32)
        back[..., 1 - axis] = step_px  # right comes first, rows do in the array
        flow_hw = np.moveaxis(larger_flow(back, np.full((6, 7, 2), 30, np.float32)), axis, 0)
        outside = flow_hw[-2:] if step_px > 0 else flow_hw[:2]
        assert (outside == 2).all()
        inside = flow_hw[:-2] if step_px > 0 else flow_hw[2:]
        np.testing.assert_allclose(inside, 30 * np.sqrt(2), rtol=1e-6)

    def test_a_patch_has_the_fastest_pixel_of_its_box(self) -> None:
        rgb = moving_square(3, step_px=4)
        facts = ClipFacts.of(rgb, layout=LAYOUT)
        assert facts.flow_px_TP.shape == (2, 265)
        for t, flow_HW in enumerate(flow_px(rgb)):
            for patch in (0, 3, 5, 25, 70, 264):
                left, top, right, bottom = LAYOUT.patch_boxes_px[patch]
                assert facts.flow_px_TP[t, patch] == flow_HW[top:bottom, left:right].max()

    def test_a_clip_of_one_frame_has_none(self) -> None:
        assert ClipFacts.of(textured(0, side_px=224)[None], layout=LAYOUT).flow_px_TP.shape == (0, 265)

    @pytest.mark.parametrize("shape", [(2, 224, 200, 3), (2, 224, 224), (224, 224, 3)])
    def test_frames_of_another_shape_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="rgb must be"):
            ClipFacts.of(np.zeros(shape, np.uint8), layout=LAYOUT)

    def test_a_layout_that_is_not_pixel_for_pixel_is_refused(self) -> None:
        layout = FrameLayout.resized(PatchGrid(), height_px=448, width_px=448)
        with pytest.raises(ValueError, match="one tile over frames of 224 × 224 px"):
            ClipFacts.of(np.zeros((1, 448, 448, 3), np.uint8), layout=layout)


class TestDetail:
    def test_a_checkerboard_by_hand(self) -> None:
        rows, columns = np.indices((224, 224))
        board = np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
        variance_P = laplacian_variance(board, layout=LAYOUT)
        # Four neighbours of the other colour: the filter says ±4, and a patch has as many of each.
        assert variance_P[69 + 14 + 1] == pytest.approx(16, rel=1e-12)
        # The corner's patch has 1 pixel with two such neighbours, 30 with three, 225 with four; its mean is 0.
        assert variance_P[69] == pytest.approx((1 * 2**2 + 30 * 3**2 + 225 * 4**2) / 256, rel=1e-12)

    def test_every_patch_is_what_its_pixels_give(self) -> None:
        rgb = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
        grey = np.pad(rgb @ [0.299, 0.587, 0.114] / 255, 1, mode="edge")
        answer = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
        expected = [answer[top:bottom, left:right].var() for left, top, right, bottom in LAYOUT.patch_boxes_px]
        np.testing.assert_allclose(laplacian_variance(rgb, layout=LAYOUT), expected, rtol=1e-9)

    def test_what_is_flat_or_a_ramp_has_none_at_all(self) -> None:
        flat = np.full((224, 224, 3), (200, 13, 77), np.uint8)
        assert (laplacian_variance(flat, layout=LAYOUT) == 0).all()
        ramp = np.repeat(np.tile(np.arange(224, dtype=np.uint8), (224, 1))[..., None], 3, axis=2)
        inner = laplacian_variance(ramp, layout=LAYOUT)[69:].reshape(14, 14)[:, 1:-1]
        assert (inner == 0).all()

    def test_equal_patches_have_equal_detail_to_the_last_bit(self) -> None:
        tile = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
        finest = laplacian_variance(np.tile(tile, (14, 14, 1)), layout=LAYOUT)[69:].reshape(14, 14)
        assert len(np.unique(finest[1:-1, 1:-1])) == 1

    def test_colours_count_as_they_are_seen(self) -> None:
        dots = np.zeros((3, 224, 224, 3), np.uint8)
        for channel in range(3):
            dots[channel, 8::16, 8::16, channel] = 255
        red, green, blue = (laplacian_variance(frame, layout=LAYOUT)[100] for frame in dots)
        assert np.sqrt([red, green, blue]) / np.sqrt(red + 0) == pytest.approx(np.array([299, 587, 114]) / 299)


def test_a_value_on_an_edge_is_in_the_bin_that_begins_there() -> None:
    for edges in (FLOW_EDGES_PX, DETAIL_EDGES):
        assert bin_of(np.array(edges), edges).tolist() == list(range(len(edges)))
        assert bin_of(np.nextafter(edges[1:], 0), edges).tolist() == list(range(len(edges) - 1))
        assert bin_of(np.array([1e9]), edges).tolist() == [len(edges) - 1]


class TestCounting:
    def test_what_is_counted_is_what_a_loop_counts(self) -> None:
        facts = ClipFacts.of(moving_square(4, step_px=5), layout=LAYOUT)
        gaze = random_gaze(3, layout=LAYOUT, num_frames=4, most=200)
        found = ClipBehaviour.of(facts, gaze=gaze, clip="a")
        moved_gazed_SB, gazes_TS = np.zeros((4, len(FLOW_EDGES_PX)), int), np.zeros((4, 4), int)
        for frame, patch in zip(gaze.frame, gaze.index, strict=True):
            scale = LAYOUT.grid.locate(int(patch))[0]
            gazes_TS[frame, scale] += 1
            if frame:
                moved_gazed_SB[scale, bin_of(facts.flow_px_TP[frame - 1, patch], FLOW_EDGES_PX)] += 1
        assert np.array_equal(found.gazes_TS, gazes_TS)
        assert np.array_equal(found.moved_gazed_SB, moved_gazed_SB)
        assert found.moved_SB.sum(1).tolist() == [3 * patches for patches in (4, 16, 49, 196)]
        assert found.num_gazes == gaze.num_gazes
        assert sorted(found.detail_N) == sorted(facts.detail_TP[gaze.frame, gaze.index].astype(np.float32))
        np.testing.assert_allclose(found.detail_sum_S.sum(), facts.detail_TP.sum())

    def test_the_order_of_gazes_plays_no_part(self) -> None:
        facts = ClipFacts.of(moving_square(3, step_px=2), layout=LAYOUT)
        gaze = random_gaze(5, layout=LAYOUT, num_frames=3, most=100)
        one, other = (ClipBehaviour.of(facts, gaze=g, clip="a") for g in (gaze, gaze.in_order()))
        for name in ("gazes_TS", "moved_SB", "moved_gazed_SB", "scale_N", "detail_N"):
            assert np.array_equal(getattr(one, name), getattr(other, name))

    def test_a_gaze_of_another_layout_or_length_is_refused(self) -> None:
        facts = ClipFacts.of(moving_square(3, step_px=2), layout=LAYOUT)
        other = FrameLayout.resized(PatchGrid(scales_px=(32, 224)), height_px=224, width_px=224)
        with pytest.raises(ValueError, match="use the same layout"):
            ClipBehaviour.of(facts, gaze=random_gaze(0, layout=other, num_frames=3), clip="a")
        with pytest.raises(ValueError, match="equally long, got 3 and 2 frames"):
            ClipBehaviour.of(facts, gaze=random_gaze(0, layout=LAYOUT, num_frames=2), clip="a")

    def test_a_patch_gazed_at_twice_is_refused(self) -> None:
        facts = ClipFacts.of(moving_square(1, step_px=2), layout=LAYOUT)
        twice = Gaze(index=np.array([7, 7, 8]), count=np.array([3]), layout=LAYOUT)
        with pytest.raises(ValueError, match="a: 1 patches are gazed at twice"):
            ClipBehaviour.of(facts, gaze=twice, clip="a")


class TestStatistics:
    def test_draws_are_as_many_clips_as_there_are(self) -> None:
        draws_RC = resamples(7, count=20, seed=3)
        assert (draws_RC.sum(1) == 7).all()
        assert np.array_equal(draws_RC, resamples(7, count=20, seed=3))
        assert not np.array_equal(draws_RC, resamples(7, count=20, seed=4))
        for num_clips, count in ((0, 5), (5, 0)):
            with pytest.raises(ValueError, match="at least one clip and one draw"):
                resamples(num_clips, count=count, seed=0)

    def test_a_ratio_over_clips_is_that_of_the_clips_drawn(self) -> None:
        part_CK, whole_CK = np.array([[1, 0, 0], [3, 2, 0]]), np.array([[4, 0, 0], [5, 9, 0]])
        first_twice = np.array([[2, 0]])
        assert ratio_over_clips(part_CK, whole_CK, draws_RC=first_twice) == [Interval(low=0.25, high=0.25), None, None]
        both = ratio_over_clips(part_CK, whole_CK, draws_RC=np.array([[1, 1]]))
        assert both[0] == Interval(low=4 / 9, high=4 / 9)

    def test_rho_is_1_where_one_rises_with_the_other(self) -> None:
        scale = np.array([0, 0, 1, 1, 2, 3])
        for sign in (1, -1):
            found = rank_correlation([(scale, sign * np.exp(scale)), (scale[:3], sign * np.exp(scale[:3]))],
                                     draws_RC=resamples(2, count=50, seed=0))  # fmt: skip
            assert found.rho == pytest.approx(sign)
            assert found.mean_within_clips == pytest.approx(sign)
            assert found.over_clips is not None
            assert found.over_clips.low == pytest.approx(sign)
            assert found.p_over_clips == 0.5  # two clips agree as often as not
            assert (found.gazes, found.clips, found.clips_defined) == (9, 2, 2)
            assert found.clips_positive == (2 if sign > 0 else 0)

    def test_rho_of_a_draw_is_that_of_its_gazes_repeated(self) -> None:
        from scipy.stats import spearmanr

        rng = np.random.default_rng(0)
        pairs = [(rng.integers(0, 4, n), rng.integers(0, 9, n).astype(np.float32)) for n in (5, 40, 23)]
        assert rank_correlation(pairs, draws_RC=np.ones((1, 3), int)).rho == pytest.approx(
            spearmanr(*(np.concatenate(side) for side in zip(*pairs, strict=True))).statistic
        )
        for weights in ([3, 0, 0], [1, 2, 0], [0, 1, 2], [1, 1, 1]):
            repeated = [pair for pair, weight in zip(pairs, weights, strict=True) for _ in range(weight)]
            expected = spearmanr(*(np.concatenate(side) for side in zip(*repeated, strict=True))).statistic
            interval = rank_correlation(pairs, draws_RC=np.array([weights])).over_clips
            assert interval is not None
            assert interval.low == interval.high == pytest.approx(expected)

    def test_saying_everything_ten_times_makes_p_small_but_not_the_interval_over_clips(self) -> None:
        rng = np.random.default_rng(1)
        pairs = [(rng.integers(0, 4, 30), rng.random(30)) for _ in range(8)]
        tenfold = [(np.repeat(a, 10), np.repeat(b, 10)) for a, b in pairs]
        draws_RC = resamples(8, count=200, seed=0)
        once, often = (rank_correlation(p, draws_RC=draws_RC) for p in (pairs, tenfold))
        assert once.p is not None
        assert often.p is not None
        assert often.p < once.p / 10
        assert once.over_clips is not None
        assert often.over_clips is not None
        assert often.over_clips.low == pytest.approx(once.over_clips.low)
        assert often.p_over_clips == once.p_over_clips

    def test_p_is_what_draws_and_clips_allow(self) -> None:
        rising = (np.arange(5), np.arange(5))
        for clips, draws, least in ((4, 999, 1 / 8), (30, 999, 2 / 1000)):
            found = rank_correlation([rising] * clips, draws_RC=resamples(clips, count=draws, seed=0))
            assert found.p_over_clips == least

    def test_there_is_no_rho_where_nothing_changes_and_no_warning_either(self) -> None:
        same, other = np.zeros(5, int), np.arange(5.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for pair in ((same, other), (other, same), (same[:0], other[:0]), (other[:1], other[:1])):
                found = rank_correlation([pair, pair], draws_RC=resamples(2, count=9, seed=0))
                assert (found.rho, found.p, found.over_clips, found.p_over_clips) == (None, None, None, None)
                assert (found.mean_within_clips, found.clips_defined) == (None, 0)

    def test_one_clip_says_nothing_of_others(self) -> None:
        found = rank_correlation([(np.arange(9), np.arange(9.0) ** 2)], draws_RC=resamples(1, count=9, seed=0))
        assert found.rho == pytest.approx(1)
        assert (found.over_clips, found.p_over_clips) == (None, None)

    def test_draws_of_other_clips_are_refused(self) -> None:
        with pytest.raises(ValueError, match="the draws are of 3 clips, the pairs of 1"):
            rank_correlation([(np.arange(3), np.arange(3))], draws_RC=resamples(3, count=2, seed=0))

    def test_faster_is_the_share_of_pairs_won(self) -> None:
        rng = np.random.default_rng(0)
        gazed_RB, passed_RB = rng.integers(0, 5, (2, 3, 4))
        for won, gazed_B, passed_B in zip(faster(gazed_RB, passed_RB), gazed_RB, passed_RB, strict=True):
            gazed, passed = (np.repeat(np.arange(4), counts) for counts in (gazed_B, passed_B))
            pairs = (gazed[:, None] > passed) + 0.5 * (gazed[:, None] == passed)
            assert won == pytest.approx(pairs.mean())
        assert faster(np.array([[0, 0]]), np.array([[3, 4]])).shape == (0,)


def clip(seed: int, *, name: str, num_frames: int = 4, most: int = 120, step_px: int = 3) -> ClipBehaviour:
    facts = ClipFacts.of(moving_square(num_frames, step_px=step_px), layout=LAYOUT)
    gaze = random_gaze(seed, layout=LAYOUT, num_frames=num_frames, most=most)
    return ClipBehaviour.of(facts, gaze=gaze, clip=name)


@pytest.fixture(scope="module")
def clips() -> list[ClipBehaviour]:
    return [clip(seed, name=f"clip {seed}", step_px=1 + seed, num_frames=2 + seed) for seed in range(4)]


@pytest.fixture(scope="module")
def found(clips: list[ClipBehaviour]) -> SelectorBehaviour:
    return summarize(clips, selector="some", draws=100)


class TestSummary:
    def test_the_order_of_clips_changes_nothing(self, clips: list[ClipBehaviour], found: SelectorBehaviour) -> None:
        assert summarize(clips[::-1], selector="some", draws=100) == found
        assert summarize(clips[2:] + clips[:2], selector="some", draws=100) == found

    def test_shares_sum_to_1(self, found: SelectorBehaviour) -> None:
        for rows in (found.frame_shares, found.scale_shares):
            for name in ("share", "share_mean"):
                assert sum(getattr(row, name) for row in rows) == pytest.approx(1)
            assert sum(row.gazes for row in rows) == found.gazes
            assert sum(row.patches for row in rows) == found.patches
            assert all(row.rate == row.gazes / row.patches for row in rows)

    def test_a_position_counts_for_the_clips_that_reach_it(self, found: SelectorBehaviour) -> None:
        assert [row.clips for row in found.frame_shares] == [4, 4, 3, 2, 1]
        assert [row.patches for row in found.frame_shares] == [265 * n for n in (4, 4, 3, 2, 1)]
        assert found.frame_shares[-1].rate_sd is None

    def test_means_over_clips_are_of_the_clips_own_shares(
        self, clips: list[ClipBehaviour], found: SelectorBehaviour
    ) -> None:
        own = [c.gazes_TS[:, 3].sum() / c.num_gazes for c in clips]
        rates = [c.gazes_TS[:, 3].sum() / (196 * c.num_frames) for c in clips]
        finest = found.scale_shares[3]
        assert (finest.share_mean, finest.share_sd) == pytest.approx((np.mean(own), np.std(own, ddof=1)))
        assert (finest.rate_mean, finest.rate_sd) == pytest.approx((np.mean(rates), np.std(rates, ddof=1)))

    def test_flow_rows_hold_every_patch_of_every_frame_but_the_first(self, found: SelectorBehaviour) -> None:
        from scipy.stats import binomtest

        later = found.frames - found.clips
        for scale_px, patches in zip(LAYOUT.grid.scales_px, LAYOUT.grid.patches_per_scale, strict=True):
            rows = [row for row in found.flow if row.scale_px == scale_px]
            assert sum(row.patches for row in rows) == later * patches
            assert [row.flow_from_px for row in rows] == list(FLOW_EDGES_PX)
            assert [row.flow_to_px for row in rows] == [*FLOW_EDGES_PX[1:], None]
            for row in rows:
                if row.patches == 0:
                    assert (row.gaze_rate, row.wilson_low, row.clips_high) == (None, None, None)
                    continue
                interval = binomtest(row.gazed, row.patches).proportion_ci(0.95, method="wilson")
                assert (row.wilson_low, row.wilson_high) == pytest.approx((interval.low, interval.high), abs=1e-9)
        assert sum(row.gazed for row in found.flow) == found.gazes - found.frame_shares[0].gazes

    def test_means_of_detail_and_scale_are_those_of_all_gazes(
        self, clips: list[ClipBehaviour], found: SelectorBehaviour
    ) -> None:
        scale, detail = (np.concatenate([getattr(c, name) for c in clips]) for name in ("scale_N", "detail_N"))
        for s, row in enumerate(row for row in found.detail if row.group == "scale"):
            values = detail[scale == s].astype(float)
            assert (row.gazes, row.mean) == (len(values), pytest.approx(values.mean()))
            assert row.sem == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)))
        side = np.array(LAYOUT.grid.scales_px)[scale]
        for b, row in enumerate(row for row in found.detail if row.group == "detail"):
            here = side[bin_of(detail, DETAIL_EDGES) == b]
            assert row.gazes == len(here)
            assert row.mean == (pytest.approx(here.mean()) if len(here) else None)

    def test_gazing_at_random_finds_what_there_is(self) -> None:
        facts = ClipFacts.of(moving_square(3, step_px=4), layout=LAYOUT)
        everything = Gaze.from_mask(np.ones((3, 265), bool), LAYOUT)
        found = summarize([ClipBehaviour.of(facts, gaze=everything, clip="a")], selector="all", draws=10)
        assert found.kept_ratio == 1
        for row in found.detail[:4]:
            assert row.mean == pytest.approx(row.mean_of_all_patches, rel=1e-6)
        assert all(row.gaze_rate in (1, None) for row in found.flow)
        assert all(trend.gazed_moves_faster is None for trend in found.flow_trends)

    def test_who_gazes_at_what_moves_never_gazes_at_what_does_not(self) -> None:
        facts = ClipFacts.of(moving_square(4, step_px=6), layout=LAYOUT)
        moving = np.concatenate([np.zeros((1, 265), bool), facts.flow_px_TP >= 2])
        gaze = Gaze.from_mask(moving, LAYOUT)
        found = summarize([ClipBehaviour.of(facts, gaze=gaze, clip="a")], selector="mover", draws=10)
        for row in found.flow:
            if row.patches:
                assert row.gaze_rate == (1.0 if row.flow_from_px >= 2 else 0.0)
        still = [row for row in found.flow if row.flow_from_px == 0 and row.scale_px == 224]
        assert still[0].patches > 100  # most of the picture stands still
        assert [trend.gazed_moves_faster for trend in found.flow_trends[1:]] == [1.0, 1.0, 1.0]

    def test_nothing_gazed_at_is_a_result_too(self) -> None:
        facts = ClipFacts.of(moving_square(2, step_px=4), layout=LAYOUT)
        nothing = Gaze.from_mask(np.zeros((2, 265), bool), LAYOUT)
        behaviours = [ClipBehaviour.of(facts, gaze=nothing, clip=name) for name in "ab"]
        found = summarize(behaviours, selector="none", draws=10)
        assert found.gazes == 0
        assert found.scale_and_detail.rho is None
        assert {row.share for row in found.frame_shares} == {None}
        assert {row.rate for row in found.scale_shares} == {0.0}
        assert {row.mean for row in found.detail} == {None}

    def test_the_seed_moves_nothing_but_intervals_over_clips(
        self, clips: list[ClipBehaviour], found: SelectorBehaviour
    ) -> None:
        other = summarize(clips, selector="some", draws=100, seed=1)
        assert other != found
        blind = {"clips_low": None, "clips_high": None}
        for rows in ("flow", "detail"):
            pairs = zip(getattr(other, rows), getattr(found, rows), strict=True)
            assert all(replace(a, **blind) == replace(b, **blind) for a, b in pairs)
        assert other.scale_and_detail.rho == found.scale_and_detail.rho
        assert (other.frame_shares, other.scale_shares) == (found.frame_shares, found.scale_shares)

    def test_sets_that_are_no_sets_are_refused(self, clips: list[ClipBehaviour]) -> None:
        with pytest.raises(ValueError, match="at least one clip"):
            summarize([], selector="some")
        with pytest.raises(ValueError, match="two clips are called 'clip 0'"):
            summarize([clips[0], clips[1], clips[0]], selector="some")
        with pytest.raises(ValueError, match="use one grid"):
            summarize([clips[0], replace(clips[1], scales_px=(1, 2, 3, 4))], selector="some")
