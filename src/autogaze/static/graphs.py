"""Recording steps as CUDA graphs: one launch instead of a hundred."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch

from autogaze.errors import FallbackWarning


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

    Recording takes as long as a few clips save, so who gazes at one clip pays nothing for it. A key's first run is
    never recorded: libraries set themselves up in it. If a step cannot be recorded, a
    :class:`~autogaze.errors.FallbackWarning` says why, once, and all go on being run.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why nothing is recorded any more."""
        self._clips = 0
        self._known: set[Hashable] = set()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None  # torch's handle of the memory that all recordings share

    def begin_clip(self) -> None:
        """See :class:`Recorder`."""
        self._clips += 1

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """See :class:`Recorder`."""
        graph = self._graphs.get(key)
        if graph is None and key in self._known and self._clips > 1 and self.reason is None:
            graph = self._record(key, step)
        self._known.add(key)
        if graph is None:
            step()
        else:
            graph.replay()

    def _record(self, key: Hashable, step: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """The recorded step, which has not run yet; None where that fails."""
        try:
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Other threads may allocate and copy meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                step()
        except RuntimeError as error:
            self.reason = str(error).strip().split("\n")[0]
            warnings.warn(FallbackWarning(f"gazing without CUDA graphs, slower: {self.reason}"), stacklevel=2)
            return None
        self._graphs[key] = graph
        return graph


def recorder_for(device: torch.device) -> Recorder:
    """The fastest recorder there is for a device."""
    return CudaGraphs() if device.type == "cuda" else StepByStep()
