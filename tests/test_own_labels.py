"""Labels of a model's own gazes: the search goes on from where they led."""

from __future__ import annotations

import numpy as np
import pytest

from autogaze.datasets.labels import LabelRule, label_clip
from autogaze.datasets.own_labels import own_labels
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.canvas import Canvas
from autogaze.selectors.painting import Painting

GRID = PatchGrid(scales_px=(32, 64))
LAYOUT = FrameLayout.tiled(GRID, height_px=64, width_px=64)


def clip(seed: int = 0, frames: int = 5) -> np.ndarray:
    """Coarse noise that drifts."""
    rng = np.random.default_rng(seed)
    large = rng.integers(0, 256, (20, 20, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack([large[3 * t : 3 * t + 64, 5 * t : 5 * t + 64] for t in range(frames)])


def random_gaze(seed: int, frames: int = 5, most: int = 12) -> Gaze:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most + 1, frames)
    index = np.concatenate([rng.permutation(GRID.num_patches)[:count] for count in counts])
    return Gaze(index=index, count=counts, layout=LAYOUT)


@pytest.mark.parametrize("group", [1, 4, 10])
def test_the_teachers_own_gazes_have_themselves_as_targets(group: int) -> None:
    label = label_clip(clip(), rule=LabelRule(threshold=0.02), grid=GRID)
    own = own_labels(clip(), label.gaze, group=group)
    assert np.array_equal(own.target, label.gaze.index)
    assert own.known.all()
    assert (own.gain_share == 1).all()
    assert own.gaze.equals(label.gaze)


@pytest.mark.parametrize("seed", range(4))
def test_losses_are_those_of_a_canvas_under_the_own_gazes(seed: int) -> None:
    gaze = random_gaze(seed)
    own = own_labels(clip(), gaze, group=4)
    assert np.array_equal(own.gaze.index, gaze.index)
    canvas = Canvas(LAYOUT)
    for frame, one, labelled in zip(clip(), gaze, own.gaze, strict=True):
        losses = []
        start = canvas.painting.copy()
        for upto in range(1, one.num_gazes + 1):
            canvas.painting = start.copy()
            canvas.paste(frame, Gaze(index=one.index[:upto], count=np.array([upto]), layout=LAYOUT))
            losses.append(canvas.quality(frame).loss[0])
        np.testing.assert_allclose(labelled.predicted_loss, losses, atol=1e-7)


@pytest.mark.parametrize("group", [1, 3, 5])
def test_targets_are_the_best_patches_by_trying_them_all(group: int) -> None:
    rgb, gaze = clip(seed=3, frames=3), random_gaze(7, frames=3)
    own = own_labels(rgb, gaze, group=group)
    canvas = Canvas(LAYOUT)

    def loss_with(frame: np.ndarray, start: Painting, patches: list[int]) -> float:
        canvas.painting = start.copy()
        canvas.paste(frame, Gaze(index=np.array(patches), count=np.array([len(patches)]), layout=LAYOUT))
        return float(canvas.quality(frame).loss[0])

    target, known = iter(own.target.tolist()), iter(own.known.tolist())
    for frame, one in zip(rgb, gaze, strict=True):
        start, index = canvas.painting.copy(), one.index.tolist()
        for first in range(0, len(index), group):
            so_far = index[:first]
            for _ in index[first : first + group]:
                best = min(loss_with(frame, start, [*so_far, patch]) for patch in range(GRID.num_patches))
                chosen, found = next(target), next(known)
                if not found:
                    assert best >= loss_with(frame, start, so_far) - 1e-12 if so_far else True
                    continue
                assert loss_with(frame, start, [*so_far, chosen]) == pytest.approx(best, abs=1e-12)
                so_far.append(chosen)
        loss_with(frame, start, index)


def test_the_search_goes_on_from_the_gazes_and_not_from_its_own_targets() -> None:
    """A group that gazed badly is followed by targets that the first group should have had."""
    rgb = clip(frames=1)
    best = label_clip(rgb, rule=LabelRule(threshold=0.0), grid=GRID).gaze.index[:2]
    worst = [patch for patch in range(4, 20) if patch not in best][:2]
    gaze = Gaze(index=np.array([*worst, *worst[::-1]])[:2], count=np.array([2]), layout=LAYOUT)
    longer = Gaze(index=np.concatenate([worst, best]), count=np.array([4]), layout=LAYOUT)
    assert own_labels(rgb, gaze, group=2).target.tolist() == best.tolist()
    assert set(own_labels(rgb, longer, group=2).target[2:].tolist()).isdisjoint(worst)


def test_where_nothing_is_to_gain_there_is_no_target() -> None:
    grey = np.full((2, 64, 64, 3), 90, np.uint8)
    # All fine patches of the first frame make it perfect; the second frame is the same.
    count = np.array([17, 3])
    gaze = Gaze(index=np.concatenate([np.arange(4, 20), [0], [5, 6, 7]]), count=count, layout=LAYOUT)
    own = own_labels(grey, gaze, group=4)
    assert not own.known[16:].any() and (own.target[16:] == 0).all() and (own.gain_share[16:] == 0).all()
    # One coarse patch would do for four fine ones, so that a group of four often finds nothing more after one.
    assert own.known[:9].all()
    assert own.gaze.predicted_loss is not None and (own.gaze.predicted_loss[15:] == 0).all()


def test_a_gaze_that_does_harm_has_a_share_below_zero() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (1, 64, 64, 3), np.uint8).repeat(2, 0)
    gaze = Gaze(index=np.array([*range(4, 20), 0]), count=np.array([16, 1]), layout=LAYOUT)
    own = own_labels(frame, gaze, group=4)
    assert own.gain_share[-1] == 0  # nothing was to gain, so there is no share
    assert own.gaze.predicted_loss is not None and own.gaze.predicted_loss[-1] > 0
    half = Gaze(index=np.array([*range(4, 19), 0]), count=np.array([15, 1]), layout=LAYOUT)
    assert own_labels(frame, half, group=4).gain_share[-1] < 0


def test_the_gaze_of_resized_frames_is_replayed_where_it_was_gazed() -> None:
    layout = FrameLayout.resized(GRID, height_px=48, width_px=96)
    rgb = clip()[:, :48, :].repeat(2, axis=2)[:, :, :96]
    gaze = Gaze(index=np.array([0, 5, 6] * 5), count=np.full(5, 3), layout=layout)
    own = own_labels(np.ascontiguousarray(rgb), gaze, group=2)
    canvas = Canvas(layout)
    for frame, one, labelled in zip(np.ascontiguousarray(rgb), gaze, own.gaze, strict=True):
        canvas.paste(frame, one)
        assert labelled.predicted_loss[-1] == pytest.approx(canvas.quality(frame).loss[0], abs=1e-7)


def test_what_does_not_fit_is_refused() -> None:
    gaze = random_gaze(0)
    with pytest.raises(ValueError, match="group must be at least 1, got 0"):
        own_labels(clip(), gaze, group=0)
    with pytest.raises(ValueError, match="one for each of 5 frames"):
        own_labels(clip(frames=4), gaze, group=4)
    with pytest.raises(ValueError, match="a frame of this layout is"):
        own_labels(clip()[:, :32], gaze, group=4)
    tiled = FrameLayout.tiled(GRID, height_px=64, width_px=128)
    with pytest.raises(ValueError, match="the gaze has 2; label the tiles one by one"):
        own_labels(clip(frames=1), Gaze(index=np.array([0]), count=np.array([1]), layout=tiled), group=4)
