"""Pareto fronts and what equal quality costs: their mathematics, and the words made of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autogaze.evaluation.curves import LOSS, PSNR, Kind, front_of, patches_a_frame, psnr_of, ranked, settings
from autogaze.evaluation.findings import at_equal_psnr, best_win, equal_psnr_sentences, win_sentence
from autogaze.evaluation.fronts import Point, is_far, kept_at, lead, neighbours, pareto_front, quality_at, steps
from evaluation_samples import CLIPS, RATIOS, THRESHOLD, make_rows, summarised, with_error
from evaluation_samples import Point as Setting

# Few different values, so that ties are common.
POINTS = st.lists(
    st.builds(
        Point, kept=st.sampled_from([0.01, 0.1, 0.2, 0.5, 1.0]), quality=st.sampled_from([10.0, 20.0, 20.5, 30.0, 40.0])
    ),
    max_size=12,
)


def beats(one: Point, other: Point) -> bool:
    no_worse = one.kept <= other.kept and one.quality >= other.quality
    return no_worse and (one.kept, one.quality) != (other.kept, other.quality)


@given(POINTS)
def test_the_front_is_exactly_what_nothing_beats(points):
    front = pareto_front(points)
    best = {(p.kept, p.quality) for p in points if not any(beats(other, p) for other in points)}
    assert {(p.kept, p.quality) for p in front} == best
    assert len(front) == len(best)


@given(POINTS)
def test_the_front_rises_both_ways_and_is_its_own_front(points):
    front = pareto_front(points)
    for below, above in itertools.pairwise(front):
        assert below.kept < above.kept
        assert below.quality < above.quality
    assert pareto_front(front) == front


@given(POINTS, st.randoms(use_true_random=False))
def test_order_and_beaten_points_play_no_part(points, random):
    front = pareto_front(points)
    shuffled = [*points]
    random.shuffle(shuffled)
    assert [(p.kept, p.quality) for p in pareto_front(shuffled)] == [(p.kept, p.quality) for p in front]
    beaten = [Point(kept=p.kept * 1.5, quality=p.quality - 0.1) for p in front]
    assert pareto_front([*points, *beaten]) == front


def test_of_equal_points_the_first_stands_for_all():
    points = [Point(kept=0.1, quality=1.0, setting=name) for name in ("a", "b")]
    assert [p.setting for p in pareto_front(points)] == ["a"]


@pytest.mark.parametrize("quality", [math.nan, math.inf, -math.inf])
def test_points_without_a_place_are_left_out(quality):
    usable = Point(kept=0.5, quality=1.0)
    assert pareto_front([Point(kept=0.1, quality=quality), usable]) == (usable,)
    assert pareto_front([Point(kept=0.0, quality=1.0), usable]) == (usable,)


@given(st.floats(0.3, 3.0), st.floats(0.01, 0.9))
def test_what_equal_quality_costs_is_exact_on_a_power_law(power, wanted):
    front = pareto_front(Point(kept=k, quality=-math.log(0.05 * k**-power)) for k in (0.01, 0.04, 0.3, 1.0))
    assert kept_at(front, quality=-math.log(0.05 * wanted**-power)) == pytest.approx(wanted, rel=1e-9)
    decibels = pareto_front(Point(kept=k, quality=-10 * math.log10(0.05 * k**-power)) for k in (0.01, 0.3, 1.0))
    assert kept_at(decibels, quality=-10 * math.log10(0.05 * wanted**-power)) == pytest.approx(wanted, rel=1e-9)


def test_what_equal_quality_costs_goes_through_the_points_and_rises():
    front = pareto_front(Point(kept=k, quality=q) for k, q in ((0.01, 15), (0.1, 24), (0.12, 30), (0.9, 31)))
    assert [kept_at(front, quality=p.quality) for p in front] == pytest.approx([p.kept for p in front])
    costs = [kept_at(front, quality=15 + i / 10) for i in range(161)]
    assert None not in costs
    assert all(a < b for a, b in itertools.pairwise(costs))


@given(POINTS, st.floats(0, 1))
def test_quality_and_cost_are_inverses(points, along):
    front = pareto_front(points)
    if front:
        wanted = front[0].quality + along * (front[-1].quality - front[0].quality)
        kept = kept_at(front, quality=wanted)
        assert kept is not None
        quality = quality_at(front, kept=min(max(kept, front[0].kept), front[-1].kept))
        assert quality == pytest.approx(wanted, abs=1e-6)


def test_a_lead_is_the_difference_where_both_keep_as_much():
    front = pareto_front(Point(kept=k, quality=q) for k, q in ((0.01, 10), (0.1, 20), (1.0, 30)))
    better = pareto_front(Point(kept=k, quality=q + 3) for k, q in ((0.1, 20), (1.0, 30)))
    assert lead(better, front) == pytest.approx(3)
    assert lead(front, better) == pytest.approx(-3)
    assert lead(front, front) == 0
    assert lead(front[:1], better) == lead((), front) == 0


def test_beyond_its_ends_a_front_says_nothing():
    front = pareto_front([Point(kept=0.1, quality=20), Point(kept=0.2, quality=30)])
    assert kept_at(front, quality=19.99) is None
    assert kept_at(front, quality=30.01) is None
    assert kept_at((), quality=1) is None
    assert kept_at(front[:1], quality=20) == pytest.approx(0.1)
    assert neighbours(front, quality=31) is None
    assert neighbours(front, quality=20) == (front[0], front[0])


def test_far_means_more_than_five_times_the_patches():
    near, far = (Point(kept=0.1 * times, quality=1) for times in (4.9, 5.1))
    here = Point(kept=0.1, quality=0)
    assert not is_far(here, near)
    assert is_far(here, far)


def test_steps_are_where_most_fronts_reach():
    def front(low: float, high: float) -> tuple[Point, ...]:
        return (Point(kept=0.1, quality=low), Point(kept=0.9, quality=high))

    assert steps([front(10, 30), front(20.5, 40), front(22, 24)], step=1.0) == [22, 23, 24]
    assert steps([front(10, 20), front(30, 40)], step=1.0) == []
    assert steps([front(10, 20)], step=1.0) == []
    assert steps([front(10.05, 10.45), front(10.2, 11)], step=0.1) == pytest.approx([10.2, 10.3, 10.4])


# Rows


def test_a_selector_that_wastes_three_times_as_much_is_found_to():
    rows = make_rows({"replenish": 1.0, "wasteful": 3.0}, videos=7)
    found = at_equal_psnr(rows.summary, rows.clips, reconstructor="canvas")
    assert 1 <= len(found) <= 4
    for one in found:
        assert one.best == "replenish"
        times = {cost.selector: cost.times for cost in one.costs}
        assert times["replenish"] == pytest.approx(1.0)
        assert times["wasteful"] == pytest.approx(3.0, rel=0.05)
        # Every video says the same, so drawing them anew changes nothing.
        (interval,) = [cost.interval for cost in one.costs if cost.selector == "wasteful"]
        assert interval == pytest.approx((3.0, 3.0), rel=0.05)
        assert next(cost for cost in one.costs if cost.selector == "replenish").interval is None
    assert at_equal_psnr(rows.summary, rows.clips, reconstructor="canvas") == found


def test_an_interval_tells_how_much_the_videos_differ():
    rows = make_rows({"good": 1.0, "bad": 3.0}, videos=8)
    clips = [
        replace(row, pixel_mse=row.pixel_mse / (2.0 if row.selector == "bad" and int(row.video[1]) % 2 else 1.0))
        for row in rows.clips
    ]
    found = at_equal_psnr(summarised(clips), clips, reconstructor="canvas")[0]
    bad = next(cost for cost in found.costs if cost.selector == "bad")
    assert bad.interval is not None
    low, high = bad.interval
    assert low < bad.times < high
    assert high / low > 1.1
    assert bad.words.endswith(f"({low:.1f} to {high:.1f}×)")


def test_clips_of_few_videos_give_no_interval():
    rows = make_rows({"good": 1.0, "bad": 3.0}, videos=4)
    clips = [
        replace(row, clip_name=f"{row.clip_name}_{i}", video=row.video) for i in range(3) for row in rows.clips
    ]  # clips of one video are no more videos
    for one in at_equal_psnr(rows.summary, clips, reconstructor="canvas"):
        assert all(cost.interval is None for cost in one.costs)


def test_what_does_not_reach_is_not_compared():
    points = (Setting(name="ratio_0.01", kept=0.01, ratio=0.01), Setting(name="ratio_0.02", kept=0.02, ratio=0.02))
    near = make_rows({"a": 1.0, "b": 1.5})
    far = make_rows({"poor": 50.0}, points=points)
    clips = [*near.clips, *far.clips]
    found = at_equal_psnr(summarised(clips), clips, reconstructor="canvas")
    for one in found:
        (poor,) = [cost for cost in one.costs if cost.selector == "poor"]
        assert poor.kept is None
        assert poor.times is None
        assert poor.words == "–"
    assert "do not reach that PSNR: poor" in equal_psnr_sentences(found, reconstructor="canvas")[-1]


def test_between_settings_far_apart_a_cost_is_rough():
    points = (Setting(name="ratio_0.02", kept=0.02, ratio=0.02), Setting(name="ratio_0.90", kept=0.9, ratio=0.9))
    clips = [*make_rows({"good": 1.0}).clips, *make_rows({"sparse": 2.0}, points=points).clips]
    found = at_equal_psnr(summarised(clips), clips, reconstructor="canvas")[0]
    rough = {cost.selector: cost.is_rough for cost in found.costs}
    assert rough == {"good": False, "sparse": True}
    assert next(cost.words for cost in found.costs if cost.selector == "sparse").startswith("about ")


def test_nothing_is_compared_with_one_selector():
    rows = make_rows({"alone": 1.0})
    assert at_equal_psnr(rows.summary, rows.clips, reconstructor="canvas") == ()
    assert equal_psnr_sentences((), reconstructor="canvas") == []


def test_the_main_sentence_is_about_chance():
    rows = make_rows({"replenish": 1.0, "random": 3.0, "worse": 6.0})
    first, second = equal_psnr_sentences(
        at_equal_psnr(rows.summary, rows.clips, reconstructor="canvas"), reconstructor="canvas"
    )
    assert "random keeps 3.0× the patches of replenish" in first
    assert "worse 6.0×" in second


def test_settings_that_rebuild_exactly_play_no_part():
    rows = make_rows({"a": 1.0, "b": 2.0})
    exact = with_error(make_rows({"a": 1.0}, points=(Setting(name="ratio_1.00", kept=1.0, ratio=1.0),)), 0.0)
    front = front_of([row for row in [*rows.summary, *exact.summary] if row.selector == "a"], metric=PSNR)
    assert "ratio_1.00" not in {point.setting for point in front}
    assert front_of(exact.summary, metric=PSNR) == front_of(exact.summary, metric=LOSS) == ()


def test_a_clip_that_is_rebuilt_exactly_does_not_outweigh_the_others():
    rows = make_rows({"good": 1.0, "bad": 3.0}, videos=4)
    exact = {"psnr": 100.0, "pixel_mse": 0.0}
    # One clip of four is easy for the good one: exact at every setting. Its squared errors fall by a quarter at most.
    clips = [replace(row, **exact) if row.selector == "good" and row.clip_name == "v0" else row for row in rows.clips]
    before = at_equal_psnr(rows.summary, rows.clips, reconstructor="canvas")[0].costs
    after = at_equal_psnr(summarised(clips), clips, reconstructor="canvas")[0].costs
    assert before[1].times < after[1].times < before[1].times * 1.4
    assert psnr_of(0.001) == pytest.approx(30.0)
    assert psnr_of(0.0) == math.inf
    assert math.isnan(psnr_of(math.nan))


def test_only_what_the_best_reaches_is_compared():
    points = tuple(Setting(name=f"clip_{k:.2f}", kept=k, ratio=k, per="clip") for k in (0.01, 0.02, 0.03))
    clips = [
        *make_rows({"best": 1.0}).clips,
        # These two share errors that the best has at none of its settings, too.
        *make_rows({"worse": 9.0, "worst": 12.0}, points=(*points, *RATIOS[:3])).clips,
    ]
    found = at_equal_psnr(summarised(clips), clips, reconstructor="canvas")
    assert found
    assert {one.best for one in found} == {"best"}


def test_selectors_are_ranked_by_what_they_keep():
    rows = make_rows({"worst": 5.0, "best": 1.0, "middle": 2.0})
    assert ranked(rows.summary, reconstructor="canvas") == ["best", "middle", "worst"]
    assert ranked(rows.summary, reconstructor="other") == []


def test_a_threshold_that_beats_a_share_of_every_frame_is_told():
    rows = make_rows({"one": 1.0}, gains={"task_0.025": 8.0, "clip_0.05": 4.0})
    win = best_win(rows.summary, rows.clips, reconstructor="canvas", kind=Kind.THRESHOLD)
    assert (win.winner.setting, win.loser.setting) == ("task_0.025", "ratio_0.10")
    sentence = win_sentence(win, known=settings(rows.clips))
    assert "one" in sentence
    assert "≤ 0.025" in sentence
    win = best_win(rows.summary, rows.clips, reconstructor="canvas", kind=Kind.CLIP)
    assert (win.winner.setting, win.loser.setting) == ("clip_0.05", "ratio_0.10")
    assert "one budget for the clip" in win_sentence(win, known=settings(rows.clips))


def test_there_is_no_win_where_more_patches_are_better():
    rows = make_rows({"one": 1.0})
    for kind in (Kind.THRESHOLD, Kind.CLIP):
        assert best_win(rows.summary, rows.clips, reconstructor="canvas", kind=kind) is None


def test_settings_are_told_by_their_limits_and_in_order():
    points = (
        THRESHOLD,
        Setting(name="capped", kept=0.03, ratio=0.75, threshold=0.025),
        Setting(name="open", kept=0.5),
        *CLIPS,
        *RATIOS[::-1],
    )
    known = settings(make_rows({"s": 1.0}, points=points).clips)
    assert [setting.label for setting in known.values()] == [
        *("10 %", "25 %", "50 %", "75 %", "2 % clip", "5 % clip", "≤ 0.025", "≤ 0.025, 75 %", "open"),
    ]
    assert [setting.kind for setting in known.values()] == [Kind.FRAME] * 4 + [Kind.CLIP] * 2 + [Kind.THRESHOLD] * 3


def test_patches_of_a_frame_are_read_off_the_rows():
    rows = make_rows({"s": 1.0})
    assert patches_a_frame(rows.clips) == (265, 196)
    other = replace(rows.clips[0], actual_gaze_ratio=rows.clips[0].actual_gaze_ratio / 2)
    assert patches_a_frame([*rows.clips, other]) is None
    assert patches_a_frame([]) is None
