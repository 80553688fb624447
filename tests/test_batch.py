"""Clips as tensors of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autogaze.datasets.labels import label_clip
from autogaze.training.batch import Batch, collate, is_mirrored, mirror, mirrored, stack
from clip_samples import SHAPE, small_clips


def batch_of(count: int) -> Batch:
    clips = small_clips(count)
    return collate(stack(clips, device="cpu"), [clip.label for clip in clips])


def test_a_batch_holds_the_labels() -> None:
    clips, batch = small_clips(5), batch_of(5)
    frame_N = np.repeat(np.arange(SHAPE.frames), batch.count_T)
    assert batch.rgb_BTSSC.shape == (5, *SHAPE.shape) and batch.rgb_BTSSC.dtype == torch.uint8
    for b, clip in enumerate(clips):
        kept = batch.kept_BN[b].numpy()
        assert np.array_equal(batch.rgb_BTSSC[b].numpy(), clip.rgb)
        assert np.array_equal(batch.index_BN[b].numpy()[kept], clip.label.gaze.index)
        assert np.array_equal(frame_N[kept], clip.label.gaze.frame)
        assert np.array_equal(batch.loss_BN[b].numpy()[kept], clip.label.gaze.predicted_loss)
        assert not (batch.best_BN[b].numpy() & ~kept).any()
        assert np.array_equal(batch.best_BN[b].numpy()[kept], clip.label.best)


def test_mirroring_twice_changes_nothing_and_moves_columns() -> None:
    grid = SHAPE.grid
    once = mirrored(grid)
    assert np.array_equal(once[once], np.arange(grid.num_patches))
    scale, row, column = grid.locate(np.arange(grid.num_patches))
    other_scale, other_row, other_column = grid.locate(once)
    assert np.array_equal(scale, other_scale) and np.array_equal(row, other_row)
    assert np.array_equal(column + other_column, np.asarray(grid.sides)[scale] - 1)
    batch = batch_of(3)
    twice = mirror(mirror(batch, grid=grid), grid=grid)
    assert torch.equal(twice.rgb_BTSSC, batch.rgb_BTSSC) and torch.equal(twice.index_BN, batch.index_BN)


def test_mirrored_batches_are_labelled_as_mirrored_clips_are() -> None:
    (clip,) = small_clips(1)
    turned = mirror(batch_of(1), grid=SHAPE.grid)
    expected = label_clip(np.ascontiguousarray(clip.rgb[:, :, ::-1]), rule=clip.recipe.rule, grid=SHAPE.grid)
    assert np.array_equal(turned.rgb_BTSSC[0].numpy(), clip.rgb[:, :, ::-1])
    assert np.array_equal(turned.index_BN[0].numpy(), expected.gaze.index)
    np.testing.assert_allclose(turned.loss_BN[0].numpy(), expected.gaze.predicted_loss, atol=2e-4)


def test_half_of_the_steps_are_mirrored_by_their_numbers() -> None:
    mirrored_steps = [is_mirrored(seed=0, step=step) for step in range(1000)]
    assert 430 < sum(mirrored_steps) < 570
    assert mirrored_steps == [is_mirrored(seed=0, step=step) for step in range(1000)]
    assert mirrored_steps != [is_mirrored(seed=1, step=step) for step in range(1000)]


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        stack([], device="cpu")
