"""Time selectors on one video, in turn, then measure the memory of each."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from autogaze.benching.candidates import Candidate, find_candidates
from autogaze.benching.clip import write_clip
from autogaze.benching.memory import Job, MemoryProcessError, measure_memory
from autogaze.benching.report import BenchReport, Machine
from autogaze.benching.rows import Footage, Memory, Row
from autogaze.benching.stages import Passed, go_through
from autogaze.errors import AutoGazeError, CalibrationWarning, VideoError
from autogaze.evaluation.facts import machine
from autogaze.gaze import Gaze
from autogaze.loading import check_device
from autogaze.pipeline import Mode
from autogaze.selectors.base import CLIP_FRAMES
from autogaze.summary import versions
from autogaze.video_sources import CAMERA

PROCEDURAL = "procedural"
"""What the video is called that is drawn on the spot."""
BUSY_SHARE = 0.5
"""A machine of whose CPUs more than this share was wanted before the benchmark began is told to be busy."""

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is done next, how many steps are done, and how many there are."""


def bench(
    video: str | os.PathLike[str] | None = None,
    *,
    models: Sequence[str | os.PathLike[str]] | None = None,
    ratio: float | Sequence[float] | None = None,
    mode: Mode = "tiles",
    naive: bool = True,
    frames: int = 32,
    repeats: int = 5,
    threads: int | None = None,
    device: str | None = None,
    on_progress: OnProgress | None = None,
) -> BenchReport:
    """What gazing costs on this machine.

    Every selector gazes at the first clips of the video from the file to a gaze file: at one clip to warm up, then
    ``repeats`` times at all. The selectors take turns, so that whatever else the machine does meets all of them. Then
    each does it once more in a process of its own, where memory is measured. Selectors without weights that need a
    package that is not here are left out, with a warning, unless ``models`` names them.

    Args:
        video: a video file, an address, an image folder or glob; None: a short clip of 640 × 360 px that is drawn and
            encoded on the spot.
        models: see :func:`~autogaze.loading.load_selector`; None:
            :data:`~autogaze.benching.candidates.DEFAULT_MODELS`.
        ratio: most patches of a frame to keep, for all of them, or one for each frame of a clip; None: each has its
            own limits.
        mode: ``"tiles"`` covers the frame pixel for pixel, ``"resize"`` stretches one tile over it.
        naive: whether gaze models are also decoded by the naive loop, see :mod:`autogaze.benching.naive`.
        frames: how many frames a pass has, rounded up to whole clips of 16; all of the video if it is shorter.
        repeats: timed passes of each selector.
        threads: threads of torch and OpenCV; None: as many as torch has now. They have their own again in the end.
        device: where learned models run, as torch names it; None: the CPU.
        on_progress: called before each pass.

    Raises:
        AutoGazeError: a count is below 1, there is no such device, model or video, or it cannot be read.
        BudgetError: the ratio is not legal.
        ImportError: a model that was named needs a package that is not installed.
        OSError: temporary files cannot be written.
    """
    for name, count in (("repeats", repeats), ("frames", frames), ("threads", threads)):
        if count is not None and count < 1:
            raise AutoGazeError(f"{name} must be at least 1, got {count}")
    if device is not None:
        check_device(device)
    if video is not None and os.fspath(video).startswith(CAMERA):
        raise VideoError(f"{video} never shows the same twice, so nothing can be compared on it; give a video file")
    load_before = _load()
    candidates = find_candidates(models, naive=naive, options={"ratio": ratio, "mode": mode, "device": device})
    clips = -(-frames // CLIP_FRAMES)
    steps = _Steps(len(candidates.all) * (repeats + 2), on_progress)
    with (
        tempfile.TemporaryDirectory(prefix="autogaze-bench-") as folder,
        working_threads(threads),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", CalibrationWarning)  # whether a promise holds is nothing to time
        source = _Source.of(video, Path(folder), clips=clips)
        passed = _in_turn(source, candidates.all, repeats=repeats, steps=steps)
        memory, told = _memory(source, candidates.all, device=device, steps=steps)
        facts = machine(device)
    first = passed[candidates.all[0].name][0]
    return BenchReport(
        machine=Machine(**facts, load_before=load_before, load_after=_load()),
        versions=versions(),
        video=_footage(video, first),
        repeats=repeats,
        rows=_rows(candidates.all, passed, memory),
        warnings=(*candidates.warnings, *first.warnings, *told, *_busy(load_before, cores=facts["cores"])),
    )


@contextmanager
def working_threads(threads: int | None) -> Iterator[None]:
    """Let torch, and OpenCV if a selector has loaded it, work with so many threads inside the block.

    None: as many as torch has.
    """
    opencv = sys.modules.get("cv2")
    before = torch.get_num_threads()
    before_opencv = 0 if opencv is None else opencv.getNumThreads()
    torch.set_num_threads(threads or before)
    if opencv is not None:
        opencv.setNumThreads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if opencv is not None:
            opencv.setNumThreads(before_opencv)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What a pass reads, how much of it, and where it writes."""

    path: str
    clips: int
    folder: Path

    @classmethod
    def of(cls, video: str | os.PathLike[str] | None, folder: Path, *, clips: int) -> _Source:
        """The video that was named, or one that is made in the folder."""
        if video is not None:
            return cls(path=os.fspath(video), clips=clips, folder=folder)
        write_clip(folder / "clip.mp4", frames=clips * CLIP_FRAMES)
        return cls(path=str(folder / "clip.mp4"), clips=clips, folder=folder)


class _Steps:
    """Counts passes for whoever shows progress."""

    def __init__(self, total: int, on_progress: OnProgress | None) -> None:
        self._total, self._on_progress = total, on_progress
        self._done = 0

    def begin(self, words: str) -> None:
        """The next pass begins."""
        if self._on_progress is not None:
            self._on_progress(words, self._done, self._total)
        self._done += 1


def _in_turn(
    source: _Source, candidates: Sequence[Candidate], *, repeats: int, steps: _Steps
) -> dict[str, list[Passed]]:
    """The timed passes of each candidate."""
    for candidate in candidates:
        steps.begin(f"{candidate.name}: warming up")
        go_through(source.path, recipe=candidate.recipe, clips=1, folder=source.folder)
    passed: dict[str, list[Passed]] = {candidate.name: [] for candidate in candidates}
    for number in range(repeats):
        for candidate in candidates:
            steps.begin(f"{candidate.name}: pass {number + 1} of {repeats}")
            passed[candidate.name].append(
                go_through(source.path, recipe=candidate.recipe, clips=source.clips, folder=source.folder)
            )
    return passed


def _memory(
    source: _Source, candidates: Sequence[Candidate], *, device: str | None, steps: _Steps
) -> tuple[dict[str, Memory | None], list[str]]:
    """The memory of each candidate, and what went wrong."""
    memory: dict[str, Memory | None] = {}
    told = []
    for candidate in candidates:
        steps.begin(f"{candidate.name}: memory")
        job = Job(
            video=source.path,
            make=candidate.make,
            clips=source.clips,
            threads=torch.get_num_threads(),
            device=device,
        )
        try:
            memory[candidate.name] = measure_memory(job)
        except MemoryProcessError as error:
            memory[candidate.name] = None
            told.append(f"{candidate.name}: {error}")
    return memory, told


def _rows(
    candidates: Sequence[Candidate], passed: Mapping[str, Sequence[Passed]], memory: Mapping[str, Memory | None]
) -> tuple[Row, ...]:
    rows = []
    engine: Gaze | None = None
    for candidate in candidates:
        gaze = passed[candidate.name][0].gaze
        rows.append(
            Row(
                name=candidate.name,
                naive=candidate.naive,
                settings=candidate.recipe.settings,
                tiles=gaze.layout.num_tiles,
                frames=gaze.num_frames,
                patches_kept=gaze.num_gazes,
                patches_total=gaze.num_patches,
                same_gazes=_same(gaze, engine) if candidate.naive and engine is not None else None,
                passes=tuple(one.times for one in passed[candidate.name]),
                memory=memory[candidate.name],
            )
        )
        engine = gaze  # a naive loop follows its engine
    return tuple(rows)


def _same(gaze: Gaze, other: Gaze) -> bool:
    return np.array_equal(gaze.index, other.index) and np.array_equal(gaze.count, other.count)


def _footage(video: str | os.PathLike[str] | None, passed: Passed) -> Footage:
    return Footage(
        name=PROCEDURAL if video is None else os.fspath(video),
        is_procedural=video is None,
        frames=passed.gaze.num_frames,
        height_px=passed.gaze.layout.height_px,
        width_px=passed.gaze.layout.width_px,
        fps=passed.fps,
    )


def _load() -> float | None:
    """Mean number of processes that wanted a CPU over the last minute; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _busy(load: float | None, *, cores: int | None) -> list[str]:
    if load is None or cores is None or load <= BUSY_SHARE * cores:
        return []
    return [
        f"this machine was busy before the benchmark began ({load:.1f} processes for {cores} CPUs over a minute): "
        "times are longer than they could be; run it again when it is quiet"
    ]
