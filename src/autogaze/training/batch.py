"""Labelled clips as the tensors of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autogaze.datasets.labels import Label
from autogaze.datasets.stream import LabelledClip
from autogaze.grid import Indices, PatchGrid

# Shape letters: B clips, T frames, S pixels a side of a frame, N slots over all frames, P patches of a frame.

_MIRROR = 4  # a purpose of its own beside those of recipes, clips, labels and orders


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Labelled clips as tensors. Each frame has as many slots as the clip with most gazes there needs."""

    rgb_BTSSC: Tensor
    """Frames (uint8)."""
    index_BN: Tensor
    """Patch index of each gaze inside its own frame (int64); 0 in padding."""
    kept_BN: Tensor
    """Where a slot holds a gaze (bool)."""
    best_BN: Tensor
    """Where it holds one to be learned: the best there was (bool)."""
    loss_BN: Tensor
    """Loss after each gaze (fp32); 0 in padding."""
    count_T: tuple[int, ...]
    """Slots of each frame; they sum to N."""


def collate(rgb_BTSSC: Tensor, labels: Sequence[Label]) -> Batch:
    """A batch of clips on the device of ``rgb_BTSSC``."""
    count_BT = np.stack([label.gaze.count for label in labels])
    count_T = count_BT.max(axis=0)
    first_T = np.cumsum(count_T) - count_T
    shape = len(labels), int(count_T.sum())
    index, kept, best = np.zeros(shape, np.int64), np.zeros(shape, bool), np.zeros(shape, bool)
    loss = np.zeros(shape, np.float32)
    for b, label in enumerate(labels):
        assert label.gaze.predicted_loss is not None
        slot = first_T[label.gaze.frame] + label.gaze.order
        index[b, slot], kept[b, slot], best[b, slot] = label.gaze.index, True, label.best
        loss[b, slot] = label.gaze.predicted_loss
    index_BN, kept_BN, best_BN, loss_BN = (to_device(a, rgb_BTSSC.device) for a in (index, kept, best, loss))
    return Batch(
        rgb_BTSSC=rgb_BTSSC,
        index_BN=index_BN,
        kept_BN=kept_BN,
        best_BN=best_BN,
        loss_BN=loss_BN,
        count_T=tuple(count_T.tolist()),
    )


def stack(clips: Sequence[LabelledClip[Any]], *, device: torch.device | str) -> Tensor:
    """(B, T, S, S, 3) uint8 frames of clips on a device.

    Raises:
        ValueError: there is no clip.
    """
    if not clips:
        raise ValueError("a batch needs at least one clip, got none")
    return to_device(np.stack([clip.rgb for clip in clips]), torch.device(device))


def is_mirrored(*, seed: int, step: int) -> bool:
    """Whether the batches of a step are mirrored, as those of half of the steps are, for all processes alike."""
    return bool(np.random.default_rng([seed, step, _MIRROR]).random() < 0.5)


def mirror(batch: Batch, *, grid: PatchGrid) -> Batch:
    """The batch with left and right in each other's place; mirrored twice it is itself.

    Exact but for ties: cells, filters and errors have no left and right.
    """
    patch_P = to_device(mirrored(grid), batch.index_BN.device)
    return replace(
        batch,
        rgb_BTSSC=batch.rgb_BTSSC.flip(3),
        index_BN=patch_P[batch.index_BN].masked_fill(~batch.kept_BN, 0),
    )


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device, without waiting for what a GPU still has to do."""
    tensor = torch.from_numpy(np.asarray(array))
    # From ordinary memory a copy would wait for all the work that the GPU still has to do.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def mirrored(grid: PatchGrid) -> Indices:
    """(P,) the patch that each patch becomes when left and right change places."""
    scale, row, column = grid.locate(np.arange(grid.num_patches))
    side = np.asarray(grid.sides)[scale]
    index: Indices = grid.index(scale, row, side - 1 - column)
    return index
