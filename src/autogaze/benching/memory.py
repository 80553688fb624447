"""The memory of one pass, measured in a fresh process: what one selector needs must not hide what another does."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from autogaze.benching.rows import Memory
from autogaze.benching.stages import go_through
from autogaze.errors import AutoGazeError
from autogaze.evaluation.memory import PeakMemory
from autogaze.pipeline import Recipe

# A process of multiprocessing would import the caller's script anew, and run it unless it guards against that.
_CHILD = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from autogaze.benching.memory import answer
answer(sys.stdin.buffer.read())
"""


class MemoryProcessError(AutoGazeError):
    """The process that measures memory did not come to its end."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is measured; picklable."""

    video: str
    """The video."""
    make: Callable[[], Recipe]
    """Makes the selector with its limits."""
    clips: int
    """Clips of the pass."""
    threads: int
    """Threads of torch."""
    device: str | None
    """Where a learned model runs."""


def measure_memory(job: Job) -> Memory | None:
    """What one pass needs; None where the system does not say.

    Raises:
        MemoryProcessError: the process failed, or was ended, as systems do that are short of memory.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], input=pickle.dumps(sys.path) + pickle.dumps(job), capture_output=True
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines and done.returncode > 0 else f"ended with code {done.returncode}; is there enough?"
        raise MemoryProcessError(f"memory could not be measured: {reason}")
    values = json.loads(done.stdout.splitlines()[-1])
    return None if values is None else Memory(**values)


def answer(job: bytes) -> None:
    """Do a pickled job, as the only work of this process, and print what it needed as a line of JSON."""
    memory = _measure(pickle.loads(job))
    sys.stdout.write(json.dumps(None if memory is None else asdict(memory)) + "\n")


def _measure(job: Job) -> Memory | None:
    torch.set_num_threads(job.threads)
    of_process = PeakMemory()
    of_process.reset()
    base_mb = of_process.peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        go_through(job.video, recipe=job.make(), clips=job.clips, folder=Path(folder))
    peak_mb = of_process.peak_mb()
    if base_mb is None or peak_mb is None:
        return None
    on_cuda = job.device is not None and torch.device(job.device).type == "cuda"
    return Memory(
        base_mb=base_mb,
        peak_mb=peak_mb,
        accelerator_mb=torch.cuda.max_memory_allocated(job.device) / 1e6 if on_cuda else None,
    )
