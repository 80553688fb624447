"""The memory of one pass, measured in a fresh process: what one selector needs must not hide what another does."""

from __future__ import annotations

import multiprocessing
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from autogaze.benching.rows import Memory
from autogaze.benching.stages import go_through
from autogaze.errors import CalibrationWarning
from autogaze.evaluation.memory import PeakMemory
from autogaze.pipeline import Recipe


def measure_memory(
    video: str, *, make: Callable[[], Recipe], clips: int, threads: int, device: str | None
) -> Memory | None:
    """What one pass needs; None where the system does not say.

    Args:
        video: the video.
        make: makes the recipe, in the process that is measured; picklable.
        clips: clips of a pass.
        threads: threads of torch.
        device: where a learned model runs.

    Raises:
        BrokenProcessPool: the process was ended from outside, as systems do that are short of memory.
        Exception: what ``make`` and the pass raise.
    """
    context = multiprocessing.get_context("spawn")  # a forked process would begin with all that this one holds
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        work = partial(_measure, video, make=make, clips=clips, threads=threads, device=device)
        return process.submit(work).result()


def _measure(video: str, *, make: Callable[[], Recipe], clips: int, threads: int, device: str | None) -> Memory | None:
    torch.set_num_threads(threads)
    of_process = PeakMemory()
    of_process.reset()
    base_mb = of_process.peak_mb()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore", CalibrationWarning)
        go_through(video, recipe=make(), clips=clips, folder=Path(folder))
    peak_mb = of_process.peak_mb()
    if base_mb is None or peak_mb is None:
        return None
    on_cuda = device is not None and torch.device(device).type == "cuda"
    return Memory(
        base_mb=base_mb,
        peak_mb=peak_mb,
        accelerator_mb=torch.cuda.max_memory_allocated(device) / 1e6 if on_cuda else None,
    )
