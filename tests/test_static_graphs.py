"""Recording steps: what a recorder does to the rest of the process, and when it records. Without a device."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Hashable
from contextlib import contextmanager

import pytest
import torch

from autogaze.errors import FallbackWarning
from autogaze.static.graphs import CudaGraphs


def test_a_step_that_cannot_be_recorded_is_run_and_the_reason_told_once():
    if torch.cuda.is_available():
        pytest.skip("recording works here")
    graphs, done = CudaGraphs(), []
    graphs.begin_clip()
    for _ in range(3):
        graphs.run("key", lambda: done.append(1))
    assert graphs.reason is None and len(done) == 3, "a first clip is not recorded"
    graphs.begin_clip()
    graphs.run("other", lambda: done.append(1))
    assert graphs.reason is None and len(done) == 4, "a first run is not recorded"
    with pytest.warns(FallbackWarning, match="without CUDA graphs") as told:
        for _ in range(3):
            graphs.run("key", lambda: done.append(1))
    assert len(told) == 1 and graphs.reason and len(done) == 7


class Cuda:
    """What torch's recording does to a process, without a device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, works: bool = True) -> None:
        self.current, self.made, self.works, self.replays = "caller's", 0, works, 0
        self.recorded_on: list[object] = []
        monkeypatch.setattr(torch.cuda, "Stream", self.stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(self, "current", stream))
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: object())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", self.graph)

    def stream(self) -> str:
        self.made += 1
        return f"stream {self.made}"

    @contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        assert pool is not None and not torch.is_inference_mode_enabled()
        before, self.current = self.current, stream
        self.recorded_on.append(stream)
        yield
        if not self.works:
            raise RuntimeError("operation not permitted when stream is capturing")  # and the stream stays
        self.current = before

    def replay(self) -> None:
        self.replays += 1


def recorded(graphs: CudaGraphs, key: Hashable, step: Callable[[], None]) -> None:
    """Run a step of a second clip again."""
    for _ in range(2):
        graphs.begin_clip()
        graphs.run(key, step)


def test_recordings_of_a_recorder_share_a_stream_of_their_own_and_no_garbage_is_collected_in_them(monkeypatch):
    cuda, collecting = Cuda(monkeypatch), []
    first, second = CudaGraphs(), CudaGraphs()
    for graphs, key in ((first, 1), (second, 1), (first, 2)):
        recorded(graphs, key, lambda: collecting.append(gc.isenabled() and not torch.is_inference_mode_enabled()))
    assert cuda.recorded_on == ["stream 1", "stream 2", "stream 1"] and cuda.replays == 3
    assert collecting == [True, False] * 3 and gc.isenabled()
    assert cuda.current == "caller's"


def test_after_a_recording_that_failed_the_stream_is_the_callers(monkeypatch):
    cuda, graphs = Cuda(monkeypatch, works=False), CudaGraphs()
    streams = []
    with pytest.warns(FallbackWarning, match="not permitted"):
        recorded(graphs, "key", lambda: streams.append(cuda.current))
    assert streams == ["caller's", "stream 1", "caller's"] and gc.isenabled()


def test_after_a_recording_that_failed_nothing_is_replayed(monkeypatch):
    cuda, graphs, done = Cuda(monkeypatch), CudaGraphs(), []
    recorded(graphs, "key", lambda: done.append(1))
    assert cuda.replays == 1
    cuda.works = False
    with pytest.warns(FallbackWarning):
        recorded(graphs, "other", lambda: done.append(2))
    graphs.run("key", lambda: done.append(3))
    assert cuda.replays == 1 and done[-1] == 3


def test_the_first_run_of_a_thread_is_not_recorded(monkeypatch):
    cuda, graphs, done = Cuda(monkeypatch), CudaGraphs(), []
    for _ in range(2):
        graphs.begin_clip()
    graphs.run("key", lambda: done.append(1))
    thread = threading.Thread(target=graphs.run, args=("key", lambda: done.append(1)))
    thread.start()
    thread.join()
    assert len(done) == 2 and not cuda.recorded_on
    graphs.run("key", lambda: done.append(1))
    assert cuda.recorded_on and cuda.replays == 1
