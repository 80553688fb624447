"""The stream of clips that worker processes make."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from autogaze.datasets.clips import validation_recipes
from autogaze.datasets.labellers import no_label
from autogaze.datasets.recipes import ClipRecipe
from autogaze.datasets.sources import find_videos
from autogaze.datasets.stream import ClipStream, LabelledClip
from autogaze.errors import AutoGazeError
from autogaze.selectors.cells import Pixels
from clip_samples import LABELLER, SHAPE, recipe, write_sources


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("clips"))


def fails_at_three(rgb: Pixels, recipe: ClipRecipe, /) -> int:
    if recipe.number == 3:
        raise RuntimeError("three is too many")
    return recipe.number


def test_a_stream_ends_with_its_recipes(folder: Path) -> None:
    recipes = validation_recipes(find_videos([folder])[:3])
    for workers in (0, 1):
        with ClipStream(iter(recipes), SHAPE, labeller=LABELLER, workers=workers, ahead=2) as stream:
            made = [clip.recipe for clip in stream]
        assert made == recipes


def test_workers_outlive_a_signal_to_the_group_and_failures_and_death_are_told() -> None:
    recipes = (recipe("sprites", number, None) for number in count())
    with ClipStream(recipes, SHAPE, labeller=fails_at_three, workers=2, ahead=4) as stream:
        assert isinstance(next(stream), LabelledClip)  # both are at work
        assert isinstance(next(stream), LabelledClip)
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGTERM)
            os.kill(worker.pid, signal.SIGINT)
        assert isinstance(next(stream), LabelledClip)
        with pytest.raises(AutoGazeError, match="clip 3 could not be made: RuntimeError: three is too many") as failure:
            next(stream)
        assert "fails_at_three" in failure.value.__notes__[0]
        fifth = next(stream)  # the worker goes on
        assert isinstance(fifth, LabelledClip) and fifth.label == 4
        for worker in workers:
            worker.kill()
        with pytest.raises(AutoGazeError, match="ended with code -9; if memory ran out"):
            for _ in range(6):
                next(stream)
    assert not multiprocessing.active_children()


def test_workers_end_with_the_process_they_work_for() -> None:
    program = """
import multiprocessing, time
from itertools import count
from autogaze.datasets.labellers import no_label
from autogaze.datasets.stream import ClipStream
from clip_samples import SHAPE, recipe
if __name__ == "__main__":
    stream = ClipStream((recipe("pan", n, None) for n in count()), SHAPE, labeller=no_label, workers=1, ahead=2)
    next(stream)
    print(multiprocessing.active_children()[0].pid, flush=True)
    input()
"""
    tests = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program]
    with (
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as left,
    ):
        workers = [int(parent.stdout.readline()) for parent in (killed, left) if parent.stdout is not None]
        killed.kill()
        left.communicate("\n", timeout=60)  # ends without closing the stream
        assert left.returncode == 0
    for _ in range(100):
        if not any(map(is_running, workers)):
            break
        time.sleep(0.1)
    assert not any(map(is_running, workers))


def is_running(process: int) -> bool:
    """Whether it is there, and not merely waiting for someone to ask how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_disk_without_room_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for the 0 MB of clips .*No space left.* TMPDIR"):
        ClipStream(iter([]), SHAPE, labeller=no_label, workers=1, ahead=2)
