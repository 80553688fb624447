"""A store of labelled clips beside the model, from which batches are drawn."""

from __future__ import annotations

import numpy as np
import torch

from autogaze.datasets.labels import Label
from autogaze.datasets.stream import ClipShape, LabelledClip
from autogaze.training.batch import Batch, collate, mirror, to_device


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
        self._grid = shape.grid

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def oldest_recipe(self) -> int:
        """Number of the oldest recipe in the pool."""
        return min(self._recipes.values())

    def add(self, clip: LabelledClip[Label]) -> None:
        """Put a clip into the pool, in place of the oldest if it is full."""
        slot = self.added % self.size
        self._rgb[slot] = to_device(clip.rgb, self._rgb.device)
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
        rgb_BTSSC = self._rgb[to_device(slots, self._rgb.device)]
        batch = collate(rgb_BTSSC, [self._labels[slot] for slot in slots.tolist()])
        return mirror(batch, grid=self._grid) if rng.random() < 0.5 else batch
