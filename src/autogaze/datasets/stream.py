"""Labelled clips in the order of their recipes, made by worker processes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import signal
import tempfile
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np
import torch

from autogaze.datasets.clips import reading_of, render
from autogaze.datasets.footage_cache import FootageCache
from autogaze.datasets.labellers import Labeller
from autogaze.datasets.recipes import ClipRecipe
from autogaze.errors import AutoGazeError, VideoError
from autogaze.grid import PatchGrid
from autogaze.selectors.cells import Pixels

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

# Shape letters: T frames, S pixels a side of a frame.

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long the next clip is waited for before the workers are given up."""
POLL_SECONDS = 2.0
"""How often a worker that has nothing to do looks whether the process it works for is still there."""


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """What every clip of a stream looks like."""

    grid: PatchGrid
    """Patches of a frame; the finest scale is its side."""
    frames: int
    """T."""

    @property
    def side_px(self) -> int:
        """S."""
        return self.grid.scales_px[-1]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, S, S, 3)."""
        return self.frames, self.side_px, self.side_px, 3


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledClip(Generic[T]):
    """A clip and what is to be learned about it."""

    recipe: ClipRecipe
    """How it was made."""
    rgb: Pixels
    """(T, S, S, 3); of a stream with workers only valid until the next clip is asked for."""
    label: T
    """What is to be learned about it."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A recipe whose source cannot be read."""

    recipe: ClipRecipe
    """The recipe."""
    message: str
    """What is wrong."""


class ClipMaker(Generic[T]):
    """Makes labelled clips, one after the other."""

    def __init__(
        self,
        shape: ClipShape,
        *,
        labeller: Labeller[T],
        cache_bytes: int,
        cache_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """See :class:`ClipStream`.

        Raises:
            OSError: the cache folder cannot be made.
        """
        self.shape, self.labeller = shape, labeller
        self._cache = FootageCache(cache_bytes, folder=cache_folder)

    def make(self, recipe: ClipRecipe) -> LabelledClip[T] | Unreadable:
        """The clip of a recipe, or why its source cannot be read."""
        frames, side_px = self.shape.frames, self.shape.side_px
        reading = reading_of(recipe, frames=frames, side_px=side_px)
        try:
            footage = None if reading is None else self._cache.get(reading)
        except (VideoError, OSError, MemoryError) as error:
            return Unreadable(recipe=recipe, message=str(error) or f"{recipe.path} does not fit into memory")
        rgb = render(recipe, footage, frames=frames, side_px=side_px)
        return LabelledClip(recipe=recipe, rgb=rgb, label=self.labeller(rgb, recipe))


class ClipStream(Generic[T]):
    """Iterates over the labelled clips of recipes, in their order; use it in a ``with`` block.

    All clips of one source are made by the same worker, which keeps the decoded source. What comes out depends on
    the recipes alone, not on the number of workers.
    """

    def __init__(
        self,
        recipes: Iterator[ClipRecipe],
        shape: ClipShape,
        *,
        labeller: Labeller[T],
        workers: int = 0,
        ahead: int = 256,
        cache_bytes: int = 2**31,
        cache_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """Start the workers.

        Args:
            recipes: what to make; may be endless.
            shape: of every clip.
            labeller: what is to be learned about a clip.
            workers: processes; 0 makes each clip when it is asked for.
            ahead: clips made in advance, over all workers.
            cache_bytes: decoded sources kept in memory, over all workers.
            cache_folder: keep decoded sources on disk too, for any number of runs at once.

        Raises:
            OSError: there is no room for the clips, or the cache folder cannot be made.
        """
        self._recipes = recipes
        self._pending: dict[int, tuple[int, T | Unreadable | _Failure]] = {}
        self._order: deque[tuple[int, ClipRecipe]] = deque()
        self._ticket = itertools.count()
        self._lent: int | None = None
        self._processes: list[BaseProcess] = []
        self._worker_of: dict[Path, int] = {}
        self._maker = ClipMaker(shape, labeller=labeller, cache_bytes=cache_bytes, cache_folder=cache_folder)
        if not workers:
            return
        context = multiprocessing.get_context("spawn")  # a forked process must not inherit CUDA or threads
        self._folder = tempfile.TemporaryDirectory(prefix="autogaze-clips-")
        path = Path(self._folder.name) / "clips"
        _reserve(path, ahead * int(np.prod(shape.shape)))
        self._staging = np.memmap(path, np.uint8, "r+", shape=(ahead, *shape.shape))
        self._results: Queue[tuple[int, int, T | Unreadable | _Failure]] = context.Queue()
        self._tasks: list[Queue[_Task]] = [context.Queue() for _ in range(workers)]
        work = _Work(
            path=path,
            slots=ahead,
            shape=shape,
            labeller=labeller,
            cache_bytes=cache_bytes // workers,
            cache_folder=cache_folder,
        )
        for tasks in self._tasks:
            process = context.Process(target=_work, args=(tasks, self._results, work), daemon=True)
            process.start()
            self._processes.append(process)
        # Also at the end of a program that forgot to close: the workers do not listen to a polite request.
        self._stop = Finalize(self, _kill, args=(tuple(self._processes),), exitpriority=15)
        for slot in range(ahead):
            self._submit(slot)

    def __iter__(self) -> Iterator[LabelledClip[T] | Unreadable]:
        return self

    def __next__(self) -> LabelledClip[T] | Unreadable:
        """The next clip, or why there is none for the next recipe.

        Raises:
            AutoGazeError: a worker died, or failed at this clip.
        """
        if not self._processes:
            return self._maker.make(next(self._recipes))
        if self._lent is not None:
            self._submit(self._lent)
            self._lent = None
        if not self._order:
            raise StopIteration
        ticket, recipe = self._order.popleft()
        while ticket not in self._pending:
            done, slot, result = self._wait()
            self._pending[done] = (slot, result)
        slot, result = self._pending.pop(ticket)
        self._lent = slot
        if isinstance(result, _Failure):
            raise result.error(recipe)
        if isinstance(result, Unreadable):
            return result
        return LabelledClip(recipe=recipe, rgb=self._staging[slot], label=result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers; nothing more comes."""
        if self._processes:
            self._stop()
            self._results.close()
            for tasks in self._tasks:
                tasks.cancel_join_thread()
                tasks.close()
            del self._staging
            self._folder.cleanup()
        self._processes, self._recipes = [], iter(())
        self._order.clear()

    def _submit(self, slot: int) -> None:
        recipe = next(self._recipes, None)
        if recipe is None:
            return
        ticket = next(self._ticket)
        self._order.append((ticket, recipe))
        worker = ticket % len(self._tasks)
        if recipe.path is not None:
            worker = self._worker_of.setdefault(recipe.path, len(self._worker_of) % len(self._tasks))
        self._tasks[worker].put(_Task(ticket=ticket, slot=slot, recipe=recipe))

    def _wait(self) -> tuple[int, int, T | Unreadable | _Failure]:
        for _ in range(int(PATIENCE_SECONDS)):
            try:
                return self._results.get(timeout=1)
            except queue.Empty:
                dead = [process.exitcode for process in self._processes if not process.is_alive()]
                if dead:
                    raise AutoGazeError(
                        f"a process that makes clips ended with code {dead[0]}; if memory ran out (-9), use fewer "
                        f"workers or a smaller cache"
                    ) from None
        raise AutoGazeError(f"no clip came for {PATIENCE_SECONDS:.0f} s; is the machine overloaded?")


@dataclass(frozen=True, kw_only=True)
class _Task:
    ticket: int
    slot: int
    recipe: ClipRecipe


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """A clip at which a worker failed although its source can be read."""

    summary: str
    trace: str

    def error(self, recipe: ClipRecipe) -> AutoGazeError:
        made = f"clip {recipe.number}" if recipe.path is None else f"clip {recipe.number} of {recipe.path}"
        error = AutoGazeError(f"{made} could not be made: {self.summary}")
        error.add_note(self.trace)
        return error


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a worker has to know."""

    path: Path
    slots: int
    shape: ClipShape
    labeller: Labeller[Any]
    cache_bytes: int
    cache_folder: str | os.PathLike[str] | None


def _work(tasks: Queue[_Task], results: Queue[tuple[int, int, Any]], work: _Work) -> None:
    """A worker: pixels go into the shared file, the label through the queue."""
    # A run that is told to stop, as its whole group often is, finishes its step with these clips.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    staging = np.memmap(work.path, np.uint8, "r+", shape=(work.slots, *work.shape.shape))
    maker = ClipMaker(work.shape, labeller=work.labeller, cache_bytes=work.cache_bytes, cache_folder=work.cache_folder)
    parent = multiprocessing.parent_process()
    assert parent is not None
    while parent.is_alive():
        try:
            task = tasks.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        try:
            made = maker.make(task.recipe)
        except Exception as error:  # whatever it is, the parent knows what to do about it
            summary = f"{type(error).__name__}: {error}"
            results.put((task.ticket, task.slot, _Failure(summary=summary, trace=traceback.format_exc())))
            continue
        if isinstance(made, LabelledClip):
            staging[task.slot] = made.rgb
            results.put((task.ticket, task.slot, made.label))
        else:
            results.put((task.ticket, task.slot, made))


def _reserve(path: Path, size: int) -> None:
    """Make a file whose room is taken: on a full disk a worker would otherwise be killed at its first clip there."""
    with path.open("wb") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"no room for the {size / 1e6:.0f} MB of clips made in advance ({os.strerror(error.errno or 0)}); "
                    f"make fewer, or set TMPDIR to a folder on a larger disk",
                    str(path.parent),
                ) from error


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
