"""Work on many things in several processes, each of which is made ready once."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

from autogaze.errors import AutoGazeError

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

Work: TypeAlias = Callable[[TaskT], ResultT]
"""Does one task; what it raises becomes the task's error."""


@dataclass(frozen=True, kw_only=True)
class Done(Generic[TaskT, ResultT]):
    """What became of a task: exactly one of ``result`` and ``error`` is there."""

    task: TaskT
    """The task."""
    result: ResultT | None = None
    """What came out."""
    error: Exception | None = None
    """Why nothing came out."""


class Workers(Generic[TaskT, ResultT]):
    """Processes that do tasks; use it in a ``with`` block, which ends them.

    Args:
        make: makes the function that does a task; called once in each process, and picklable.
        count: processes; 1 works in this process.

    Raises:
        ValueError: ``count`` is below 1.
    """

    def __init__(self, make: Callable[[], Work[TaskT, ResultT]], *, count: int) -> None:
        if count < 1:
            raise ValueError(f"there must be at least 1 process, got {count}")
        self._make, self._count = make, count
        self._running: dict[Connection, tuple[BaseProcess, TaskT]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection, (process, _) in self._running.items():
            process.terminate()
            connection.close()
        for process, _ in self._running.values():
            process.join()
        self._running.clear()

    def each(self, tasks: Iterable[TaskT]) -> Iterator[Done[TaskT, ResultT]]:
        """Do all tasks, as they get done; an error of one does not touch the others.

        Raises:
            Exception: the first process cannot be made ready.
        """
        if self._count == 1:
            work = self._make()
            for task in tasks:
                yield _attempt(work, task)
            return
        left = deque(tasks)
        while left and len(self._running) < self._count:
            self._start(left.popleft())
        while self._running:
            for ready in wait(list(self._running)):
                assert isinstance(ready, Connection)
                process, task = self._running.pop(ready)
                done = self._received(ready, process, task)
                if done.error is None or process.is_alive():
                    if left:
                        self._give(ready, process, left.popleft())
                    else:
                        _dismiss(ready, process)
                elif left:
                    self._start(left.popleft())
                yield done

    def _start(self, task: TaskT) -> None:
        # Not forked: a forked process must not inherit CUDA or threads.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._make), daemon=True)
        process.start()
        theirs.close()
        self._give(ours, process, task)

    def _give(self, connection: Connection, process: BaseProcess, task: TaskT) -> None:
        self._running[connection] = (process, task)
        with suppress(OSError):  # it has died, which is noticed where its answer is waited for
            connection.send(task)

    def _received(self, connection: Connection, process: BaseProcess, task: TaskT) -> Done[TaskT, ResultT]:
        try:
            answer = connection.recv()
        except (EOFError, OSError):
            process.join()
            connection.close()
            error = AutoGazeError(
                f"its process ended with code {process.exitcode}; if memory ran out (-9), use fewer processes"
            )
            return Done(task=task, error=error)
        if isinstance(answer, _NotReady):
            raise answer.error
        done: Done[TaskT, ResultT] = answer
        return done


@dataclass(frozen=True, kw_only=True)
class _NotReady:
    error: Exception


def _attempt(work: Work[TaskT, ResultT], task: TaskT) -> Done[TaskT, ResultT]:
    try:
        return Done(task=task, result=work(task))
    except Exception as error:  # whatever is wrong with one task, the others are worth doing
        return Done(task=task, error=error)


def _dismiss(connection: Connection, process: BaseProcess) -> None:
    connection.close()
    process.join()


def _serve(connection: Connection, make: Callable[[], Work[TaskT, ResultT]]) -> None:
    """A process: answers tasks until nobody sends any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started it ends it
    work: Work[TaskT, ResultT] | None = None
    while True:
        try:
            task: TaskT = connection.recv()
        except (EOFError, OSError):
            return
        if work is None:
            try:
                work = make()
            except Exception as error:
                connection.send(_NotReady(error=_portable(error)))
                return
        done = _attempt(work, task)
        connection.send(done if done.error is None else Done(task=task, error=_portable(done.error)))


def _portable(error: Exception) -> Exception:
    """An error that can be sent."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does when it is copied
        return AutoGazeError(f"{type(error).__name__}: {error}")
    return error
