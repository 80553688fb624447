"""Labels: the greedy search, its slips, and its limits."""

import numpy as np
import pytest

from autogaze.datasets.labels import LabelRule, label_clip, label_counts
from autogaze.frames import Frames
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.base import Budget
from autogaze.selectors.canvas import Canvas
from autogaze.selectors.replenish import Replenish

GRID = PatchGrid(scales_px=(32, 64))
LAYOUT = FrameLayout.tiled(GRID, height_px=64, width_px=64)


def clip(seed: int = 0, frames: int = 5) -> np.ndarray:
    """Coarse noise that drifts."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (20, 20, 3), np.uint8)
    large = coarse.repeat(8, 0).repeat(8, 1)
    return np.stack([large[3 * t : 3 * t + 64, 5 * t : 5 * t + 64] for t in range(frames)])


@pytest.mark.parametrize("threshold", [0.02, 0.05, 0.15])
@pytest.mark.parametrize("ratio", [0.3, 0.75])
def test_equals_replenishment(threshold: float, ratio: float) -> None:
    session = Replenish(GRID).open(LAYOUT, Budget(threshold=threshold, ratio=ratio))
    expected = session.step(Frames.from_rgb(clip()))
    label = label_clip(clip(), rule=LabelRule(threshold=threshold, max_ratio=ratio), grid=GRID)
    assert np.array_equal(label.gaze.index, expected.index)
    assert np.array_equal(label.gaze.count, expected.count)
    assert np.array_equal(label.gaze.predicted_loss, expected.predicted_loss)
    assert label.best.all()
    assert label.threshold == threshold


@pytest.mark.parametrize("seed", range(6))
def test_losses_are_those_of_a_canvas_even_after_slips(seed: int) -> None:
    rgb = clip()[[0, 0, 1, 1]]  # what a frame got wrong shows in the next one
    rule = LabelRule(threshold=0.06, slip=0.9)
    label = label_clip(rgb, rule=rule, grid=GRID, rng=np.random.default_rng(seed))
    canvas = Canvas(LAYOUT)
    for frame, gaze in zip(rgb, label.gaze, strict=True):
        canvas.paste(frame, gaze)
        assert canvas.quality(frame).loss[0] == pytest.approx(gaze.predicted_loss[-1], abs=1e-7)


def test_slips_are_marked_and_come_at_their_rate() -> None:
    rgb, rule = clip(frames=16), LabelRule(threshold=0.01, slip=0.3)
    best = np.concatenate(
        [label_clip(rgb, rule=rule, grid=GRID, rng=np.random.default_rng(seed)).best for seed in range(8)]
    )
    # A slip may hit the best patch by chance.
    assert 0.7 < best.mean() < 0.85
    again = [label_clip(rgb, rule=rule, grid=GRID, rng=np.random.default_rng(3)).gaze for _ in range(2)]
    assert again[0].equals(again[1])


def test_every_frame_has_a_gaze_and_none_twice_the_same_patch() -> None:
    label = label_clip(clip(), rule=LabelRule(threshold=1.0), grid=GRID)
    assert label.gaze.count.tolist() == [1] * 5
    for gaze in label_clip(clip(), rule=LabelRule(threshold=0.0), grid=GRID).gaze:
        assert len(set(gaze.index.tolist())) == len(gaze.index) <= 0.75 * GRID.num_patches


def test_a_clip_with_too_many_gazes_gets_a_higher_threshold() -> None:
    rule = LabelRule(threshold=0.0, max_gazes=30)
    label = label_clip(clip(), rule=rule, grid=GRID)
    assert 5 <= label.gaze.num_gazes <= 30
    assert label.threshold > 0
    exact = label_clip(clip(), rule=LabelRule(threshold=label.threshold), grid=GRID)
    assert label.gaze.equals(exact.gaze)
    # One gaze a frame is the least there is.
    assert label_clip(clip(), rule=LabelRule(threshold=0.0, max_gazes=1), grid=GRID).gaze.num_gazes == 5


def test_wrong_clips_and_slips_without_draws_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(T, 64, 64, 3\)"):
        label_clip(clip()[0], rule=LabelRule(threshold=0.1), grid=GRID)
    with pytest.raises(ValueError, match=r"\(64, 64, 3\) uint8, got \(63, 64, 3\)"):
        label_clip(clip()[:, 1:], rule=LabelRule(threshold=0.1), grid=GRID)
    with pytest.raises(ValueError, match="needs rng"):
        label_clip(clip(), rule=LabelRule(threshold=0.1, slip=0.1), grid=GRID)


@pytest.mark.parametrize("threshold", [0.0, 0.05])
def test_counts_are_those_of_replenishment_with_a_ratio_for_each_frame(threshold: float) -> None:
    counts = (9, 1, 20, 4, 2)
    label = label_counts(clip(), counts=counts, threshold=threshold, grid=GRID)
    ratios = tuple(count / GRID.num_patches for count in counts) + (1.0,) * 11
    session = Replenish(GRID).open(LAYOUT, Budget(ratio=ratios, threshold=threshold))
    expected = session.step(Frames.from_rgb(clip()))
    assert label.gaze.index.tolist() == expected.index.tolist()
    assert label.gaze.count.tolist() == expected.count.tolist()
    assert np.array_equal(label.gaze.predicted_loss, expected.predicted_loss)
    assert label.best.all()


def test_a_frame_without_anything_to_gain_gets_the_one_gaze_that_harms_least() -> None:
    still = clip()[[0, 0, 0]]
    label = label_counts(still, counts=(20, 5, 5), grid=GRID)
    assert label.gaze.count[1:].tolist() == [1, 1]
    assert label.gaze.predicted_loss is not None
    assert label.gaze.predicted_loss[-2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("counts", [(), (1, 2), (1, 2, 3, 4, 0)])
def test_counts_that_do_not_fit_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 1 for each of 5 frames"):
        label_counts(clip(), counts=counts, grid=GRID)
