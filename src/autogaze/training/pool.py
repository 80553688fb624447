"""A store of labelled clips beside the model, from which batches are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autogaze.datasets.labels import Label
from autogaze.datasets.stream import ClipShape, LabelledClip
from autogaze.grid import Indices, PatchGrid

# Shape letters: B clips, T frames, S pixels a side of a frame, N slots over all frames.


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
    index_BN, kept_BN, best_BN, loss_BN = (_to_device(a, rgb_BTSSC.device) for a in (index, kept, best, loss))
    return Batch(
        rgb_BTSSC=rgb_BTSSC,
        index_BN=index_BN,
        kept_BN=kept_BN,
        best_BN=best_BN,
        loss_BN=loss_BN,
        count_T=tuple(count_T.tolist()),
    )


class ClipPool:
    """The last clips that came, on the model's device; each is drawn several times before newer ones replace it."""

    def __init__(self, size: int, shape: ClipShape, *, device: torch.device | str, added: int = 0) -> None:
        """An empty pool with room for ``size`` clips (2.4 MB each in the published shape).

        ``added`` clips came before and are forgotten.

        Raises:
            ValueError: size is below 1.
        """
        if size < 1:
            raise ValueError(f"a pool needs room for at least 1 clip, got {size}")
        self.size = size
        self.added = added
        """Clips that ever came."""
        self._rgb = torch.empty(size, *shape.shape, dtype=torch.uint8, device=device)
        self._labels: dict[int, Label] = {}
        self._recipes: dict[int, int] = {}
        self._mirror = torch.from_numpy(mirrored(shape.grid)).to(device)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def oldest_recipe(self) -> int:
        """Number of the oldest recipe in the pool."""
        return min(self._recipes.values())

    def add(self, clip: LabelledClip[Label]) -> None:
        """Put a clip into the pool, in place of the oldest if it is full."""
        slot = self.added % self.size
        self._rgb[slot] = _to_device(clip.rgb, self._rgb.device)
        self._labels[slot], self._recipes[slot] = clip.label, clip.recipe.number
        self.added += 1

    def draw(self, size: int, rng: np.random.Generator) -> Batch:
        """Different clips at random, if there are enough; half of the batches are mirrored.

        Raises:
            ValueError: the pool is empty.
        """
        if not self._labels:
            raise ValueError("the pool is empty; add clips first")
        slots = rng.choice(len(self), size, replace=size > len(self))
        rgb_BTSSC = self._rgb[_to_device(slots, self._rgb.device)]
        batch = collate(rgb_BTSSC, [self._labels[slot] for slot in slots.tolist()])
        return self._mirrored(batch) if rng.random() < 0.5 else batch

    def _mirrored(self, batch: Batch) -> Batch:
        # Exact but for ties: cells, filters and errors have no left and right.
        return Batch(
            rgb_BTSSC=batch.rgb_BTSSC.flip(3),
            index_BN=self._mirror[batch.index_BN].masked_fill(~batch.kept_BN, 0),
            kept_BN=batch.kept_BN,
            best_BN=batch.best_BN,
            loss_BN=batch.loss_BN,
            count_T=batch.count_T,
        )


def _to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.asarray(array))
    # From ordinary memory a copy would wait for all the work that the GPU still has to do.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def mirrored(grid: PatchGrid) -> Indices:
    """(P,) the patch that each patch becomes when left and right change places."""
    scale, row, column = grid.locate(np.arange(grid.num_patches))
    side = np.asarray(grid.sides)[scale]
    index: Indices = grid.index(scale, row, side - 1 - column)
    return index
