"""Recording steps as CUDA graphs: one launch instead of a hundred."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from autogaze.errors import FallbackWarning

_ONE_AT_A_TIME = threading.Lock()
"""Held while something is recorded: a process can record one graph at a time."""


class Recorder(Protocol):
    """Runs steps, each under a key that stands for exactly its operations and the memory they touch."""

    def begin_clip(self) -> None:
        """Other clips come now."""
        ...

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Do what ``step()`` does."""
        ...


class StepByStep:
    """Records nothing."""

    def begin_clip(self) -> None:
        """See :class:`Recorder`."""

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """See :class:`Recorder`."""
        step()


class CudaGraphs:
    """Records a step that comes again after the first clips, and replays it from then on.

    Recording takes as long as a few clips save, so who gazes at one clip pays nothing for it. A key's first run in a
    thread is never recorded: libraries set themselves up in it. If a step cannot be recorded, a
    :class:`~autogaze.errors.FallbackWarning` says why, once, and all go on being run. One device, current at each run.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why nothing is recorded any more."""
        self._clips = 0
        self._known: set[tuple[int, Hashable]] = set()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None  # torch's handle of the memory that all recordings share
        # Theirs alone: torch's own would be of the device that is recorded first, and its scratch memory everyone's.
        self._stream: torch.cuda.Stream | None = None

    def begin_clip(self) -> None:
        """See :class:`Recorder`."""
        self._clips += 1

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """See :class:`Recorder`."""
        graph, here = self._graphs.get(key), (threading.get_ident(), key)
        if graph is None and here in self._known and self._clips > 1 and self.reason is None:
            graph = self._record(key, step)
        self._known.add(here)
        if graph is None:
            step()
        else:
            graph.replay()

    def _record(self, key: Hashable, step: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """The recorded step, which has not run yet; None where that fails."""
        try:
            if self._stream is None:
                self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Other threads may allocate and copy meanwhile.
            recording = torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local")
            # What torch sets up for random numbers of all graphs must be of use outside inference mode.
            outside, inside = torch.inference_mode(False), torch.inference_mode()
            with _ONE_AT_A_TIME, _no_collection(), _same_stream(), outside, recording, inside:
                step()
        except RuntimeError as error:
            self.reason = str(error).strip().split("\n")[0]
            self._graphs.clear()  # with the one that failed, torch may give back scratch memory of all on its stream
            warnings.warn(FallbackWarning(f"gazing without CUDA graphs, slower: {self.reason}"), stacklevel=2)
            return None
        self._graphs[key] = graph
        return graph


@contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage may hold other graphs, which must not be given back while one is recorded."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _same_stream() -> Iterator[None]:
    """Go on with the stream of before, which torch leaves out after a recording that failed."""
    stream = torch.cuda.current_stream()
    try:
        yield
    finally:
        torch.cuda.set_stream(stream)


def recorder_for(device: torch.device) -> Recorder:
    """The fastest recorder there is for a device."""
    return CudaGraphs() if device.type == "cuda" else StepByStep()
