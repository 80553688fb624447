"""The clips of each step of a run, for each of its processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from autogaze.datasets.labellers import Labeller
from autogaze.datasets.order import SampleOrder
from autogaze.datasets.recipes import ClipRecipe
from autogaze.datasets.stream import ClipShape, ClipStream, LabelledClip, Unreadable
from autogaze.errors import TrainingError

T = TypeVar("T")

MAX_MISSES = 100
"""So many samples in a row without a clip end a run."""


class Recipes(Protocol):
    """What clips are made by, as :class:`~autogaze.datasets.clips.ClipMix`."""

    def recipe(self, number: int) -> ClipRecipe:
        """Recipe ``number``, by the number alone."""
        ...


class ClipFeed(Generic[T]):
    """Hands out the clips of one step after the other; use it in a ``with`` block.

    What a step holds depends on its number alone: not on the step that the feed began with, nor on the number of
    worker processes; and the steps of all ``world`` processes together hold what a single process would get.
    """

    def __init__(
        self,
        mix: Recipes,
        shape: ClipShape,
        *,
        batch: int,
        order: SampleOrder,
        labeller: Labeller[T],
        rank: int = 0,
        world: int = 1,
        first_step: int = 0,
        workers: int = 0,
        ahead: int = 256,
        cache_bytes: int = 2**31,
        cache_folder: str | os.PathLike[str] | None = None,
        kept_bytes: int = 2**33,
    ) -> None:
        """Start the workers.

        Args:
            mix: what clips are made of.
            shape: of every clip.
            batch: samples of a step over all processes.
            order: which recipe each sample is made by.
            labeller: what is to be learned about a clip.
            rank: number of this process.
            world: processes of the run.
            first_step: the step that comes first.
            workers: processes that make clips for this one; 0 makes them when a step asks for them.
            ahead: clips made in advance, over all workers. From a block's share of this process on, the workers make
                the next block while the present one is gone through again.
            cache_bytes: decoded sources kept in memory, over all workers.
            cache_folder: keep decoded sources on disk too, for any number of processes and runs.
            kept_bytes: pixels of clips kept until they come again; what is too much is made again.

        Raises:
            ValueError: a number is not legal.
            OSError: there is no room for the clips, or the cache folder cannot be made.
        """
        if not 0 <= rank < world <= batch:
            raise ValueError(
                f"a step of {batch} clips cannot be shared by process {rank} of {world}; "
                f"ranks run from 0 to world - 1, and each process needs at least one clip"
            )
        if first_step < 0:
            raise ValueError(f"first_step must be at least 0, got {first_step}")
        self.next_step = first_step
        """The step that :meth:`step` gives next."""
        self.made = 0
        """Clips made so far; the others came again."""
        self.unreadable: dict[str, str] = {}
        """Sources that this process could not read, and why."""
        self._mix, self._order, self._batch, self._rank, self._world = mix, order, batch, rank, world
        # Beside each other lie the recipes of different processes, if passes keep them apart.
        self._stride = world if order.classes % world == 0 else 1
        self._room = kept_bytes // int(np.prod(shape.shape))
        self._kept: dict[int, LabelledClip[T] | Unreadable] = {}
        self._block = -1
        self._misses = 0
        self._stream = ClipStream(
            self._recipes(),
            shape,
            labeller=labeller,
            workers=workers,
            ahead=ahead,
            cache_bytes=cache_bytes,
            cache_folder=cache_folder,
        )

    def step(self) -> list[LabelledClip[T]]:
        """This process's clips of the next step in the order of their samples, without those of unreadable sources.

        The same array comes again when the clip does: write into a copy.

        Raises:
            AutoGazeError: a worker died, or failed at a clip.
            TrainingError: none of :data:`MAX_MISSES` samples in a row could be made.
        """
        clips = []
        last = (self.next_step + 1) * self._batch
        for i in self._samples():
            if i >= last:
                break
            made = self._take(i)
            if isinstance(made, LabelledClip):
                clips.append(made)
                self._misses = 0
            else:
                self._miss(made)
        self.next_step += 1
        return clips

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers."""
        self._stream.close()
        self._kept.clear()

    def _samples(self) -> Iterator[int]:
        """Samples of this process from the next step on."""
        first = self.next_step * self._batch
        return count(first + (self._rank - first) % self._world, self._world)

    def _recipes(self) -> Iterator[ClipRecipe]:
        """What has to be made: the recipes of all samples but those that come again and were kept."""
        block, kept = -1, set[int]()
        for i in self._samples():
            if self._order.block_of(i) != block:
                block, kept = self._order.block_of(i), set()
            number = self._order.number(i)
            if number in kept:
                continue
            if self._is_kept(i, number):
                kept.add(number)
            yield self._mix.recipe(number)

    def _is_kept(self, i: int, number: int) -> bool:
        return not self._order.is_last(i) and number % self._order.block // self._stride < self._room

    def _take(self, i: int) -> LabelledClip[T] | Unreadable:
        if self._order.block_of(i) != self._block:
            self._block = self._order.block_of(i)
            self._kept.clear()
        number = self._order.number(i)
        if number in self._kept:
            return self._kept.pop(number) if self._order.is_last(i) else self._kept[number]
        made = next(self._stream)
        if isinstance(made, LabelledClip):
            self.made += 1
            made = replace(made, rgb=np.array(made.rgb))
        if self._is_kept(i, number):
            self._kept[number] = made
        return made

    def _miss(self, miss: Unreadable) -> None:
        self.unreadable.setdefault(str(miss.recipe.path), miss.message)
        self._misses += 1
        if self._misses >= MAX_MISSES:
            raise TrainingError(
                f"none of {self._misses} clips in a row could be made; the last: {miss.message}; check the folders"
            )
