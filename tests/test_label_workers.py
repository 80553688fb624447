"""Processes that do tasks: what fails fails alone."""

import os
import signal
import time
from functools import partial

import pytest

from autogaze.errors import AutoGazeError, CheckpointError
from autogaze.labelling.workers import Done, Workers


class Stubborn(Exception):
    """Cannot be copied from one process to another."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


def doubler(marker: str) -> object:
    """Work for processes: doubles numbers, stumbles over 3 and 4, dies of 5, sleeps over 7."""

    def work(number: int) -> str:
        if number == 7:
            time.sleep(60)
        if number == 3:
            raise ValueError("three")
        if number == 4:
            raise Stubborn(code=4)
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{marker}{2 * number}"

    return work


def unready() -> object:
    raise CheckpointError("no weights")


class TestWorkers:
    def test_a_process_that_dies_fails_its_task_alone(self) -> None:
        with Workers[int, str](partial(doubler, "x"), count=2) as workers:  # type: ignore[arg-type]
            done = {one.task: one for one in workers.each((0, 1, 2, 3, 4, 5, 6, 8))}
        assert {task: one.result for task, one in done.items()} == {
            n: None if n in (3, 4, 5) else f"x{2 * n}" for n in (0, 1, 2, 3, 4, 5, 6, 8)
        }
        assert str(done[3].error) == "three"
        assert isinstance(done[4].error, AutoGazeError) and str(done[4].error) == "Stubborn: code 4"
        assert "ended with code -9" in str(done[5].error)

    def test_what_cannot_be_made_ready_ends_the_work(self) -> None:
        with (
            pytest.raises(CheckpointError, match="no weights"),
            Workers[int, str](unready, count=2) as workers,  # type: ignore[arg-type]
        ):
            list(workers.each(range(3)))

    def test_leaving_early_ends_the_processes(self) -> None:
        with Workers[int, str](partial(doubler, ""), count=2) as workers:  # type: ignore[arg-type]
            done: Done[int, str] = next(workers.each([0, 7, 7]))
            processes = [process for process, _ in workers._running.values()]
        assert done.error is None
        assert len(processes) == 2
        assert not any(process.is_alive() for process in processes)
        with pytest.raises(ValueError, match="at least 1 process"):
            Workers(partial(doubler, ""), count=0)  # type: ignore[arg-type]
