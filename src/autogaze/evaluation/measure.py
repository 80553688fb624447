"""One clip measured: gazed at by every selector at every setting, each gaze rebuilt by every reconstructor."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autogaze.evaluation.clips import Clip
from autogaze.evaluation.memory import PeakMemory
from autogaze.evaluation.metrics import PictureMetrics, picture_metrics
from autogaze.evaluation.rows import ClipRow, FrameRow
from autogaze.evaluation.settings import OperatingPoint
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.reconstructors.base import Reconstruction, Reconstructor
from autogaze.selectors.base import Selector

Mode = Literal["tiles", "resize"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """A reconstructor and what it is called in results."""

    name: str
    """Different for each one."""
    reconstructor: Reconstructor
    """Rebuilds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A selector, what it is called in results, where it is measured, and who judges it."""

    name: str
    """Different for each one."""
    selector: Selector
    """Chooses patches. One with an attribute ``seed`` gets another one for each clip."""
    settings: tuple[OperatingPoint, ...]
    """Budgets that it can keep."""
    judges: tuple[Judge, ...]
    """Reconstructors that its patch grid suits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """What is done to every clip."""

    candidates: tuple[Candidate, ...]
    """All selectors."""
    mode: Mode
    """How a patch grid lies on the frames."""
    seed: int
    """Of whatever is drawn by lot."""
    timings: bool
    """Whether seconds and memory are measured."""
    memory: PeakMemory
    """Measures memory."""

    @property
    def measurements(self) -> int:
        """Measurements of a clip."""
        return sum(len(candidate.settings) * len(candidate.judges) for candidate in self.candidates)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """One clip under one selector, setting and reconstructor."""

    candidate: Candidate
    """The selector."""
    point: OperatingPoint
    """The setting."""
    judge: Judge
    """The reconstructor."""
    gaze: Gaze
    """What was chosen."""
    reconstruction: Reconstruction
    """What came out."""
    clip_row: ClipRow
    """The row of the clip."""
    frame_rows: tuple[FrameRow, ...]
    """A row for each frame."""


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """What a piece of work took; None where nobody measures."""

    seconds: float | None
    memory_mb: float | None


def measure(clip: Clip, bench: Bench, *, video: str) -> Iterator[Measurement]:
    """Every measurement of a clip: selector by selector, setting by setting, reconstructor by reconstructor.

    Selectors and reconstructors start afresh, so nothing but the clip, its name and the seed plays a part.

    Raises:
        ValueError: frames, selector and reconstructor do not fit together.
    """
    for candidate in bench.candidates:
        layout = layout_of(candidate.selector.grid, clip.frames, bench.mode)
        for point in candidate.settings:
            selector = seeded(candidate.selector, seed=bench.seed, clip_name=clip.name)
            with _Watch(bench) as watch:
                gaze = selector.open(layout, point.budget).step(clip.frames)
            gaze_cost = watch.cost
            for judge in candidate.judges:
                with _Watch(bench) as watch:
                    rebuilt = judge.reconstructor.open(layout).step(clip.frames, gaze)
                names = _Names(clip=clip, video=video, point=point, selector=candidate.name, reconstructor=judge.name)
                metrics = picture_metrics(rebuilt.rgb, clip.frames.rgb)
                yield Measurement(
                    candidate=candidate,
                    point=point,
                    judge=judge,
                    gaze=gaze,
                    reconstruction=rebuilt,
                    clip_row=_clip_row(names, gaze, rebuilt, metrics, costs=(gaze_cost, watch.cost)),
                    frame_rows=_frame_rows(names, gaze, rebuilt, metrics),
                )


def warm_up(clip: Clip, bench: Bench) -> None:
    """Let everything do its work once, so that no measurement pays for what happens the first time only."""
    for candidate in bench.candidates:
        layout = layout_of(candidate.selector.grid, clip.frames, bench.mode)
        gaze = candidate.selector.open(layout, candidate.settings[0].budget).step(clip.frames)
        for judge in candidate.judges:
            judge.reconstructor.open(layout).step(clip.frames, gaze)


def layout_of(grid: PatchGrid, frames: Frames, mode: Mode) -> FrameLayout:
    """How a grid lies on frames."""
    make = FrameLayout.tiled if mode == "tiles" else FrameLayout.resized
    return make(grid, height_px=frames.height_px, width_px=frames.width_px)


def seeded(selector: Selector, *, seed: int, clip_name: str) -> Selector:
    """The selector itself, or one whose attribute ``seed`` is drawn from the evaluation's seed and the clip's name.

    So each clip has its own lot, and neither the order of the clips nor an interruption plays a part in it.
    """
    if not hasattr(selector, "seed"):
        return selector
    own = copy.copy(selector)
    lot = hashlib.sha256(f"{seed}:{clip_name}".encode(errors="surrogateescape")).digest()
    own.seed = int.from_bytes(lot[:4])
    return own


class _Watch:
    """Measures the seconds and the memory of a ``with`` block, if the bench wants them."""

    cost: _Cost

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def __enter__(self) -> _Watch:
        if self._bench.timings:
            self._bench.memory.reset()
        self._begun_seconds = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._begun_seconds
        measured = self._bench.timings
        self.cost = _Cost(
            seconds=seconds if measured else None, memory_mb=self._bench.memory.peak_mb() if measured else None
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Names:
    """What a measurement is of."""

    clip: Clip
    video: str
    point: OperatingPoint
    selector: str
    reconstructor: str


def _frame_rows(names: _Names, gaze: Gaze, rebuilt: Reconstruction, metrics: PictureMetrics) -> tuple[FrameRow, ...]:
    return tuple(
        FrameRow(
            clip_name=names.clip.name,
            clip_start=names.clip.start,
            setting=names.point.name,
            frame_idx=t,
            reconstruction_loss=float(rebuilt.loss[t]),
            non_padded_gazes=int(gaze.count[t]),
            pixel_mae=float(metrics.mae[t]),
            pixel_mse=float(metrics.mse[t]),
            psnr=float(metrics.psnr_db[t]),
            ssim=float(metrics.ssim[t]),
            selector=names.selector,
            reconstructor=names.reconstructor,
            predicted_loss=_last_prediction(one),
        )
        for t, one in enumerate(gaze)
    )


def _last_prediction(frame: Gaze) -> float | None:
    """The loss that a selector states after the last gaze of a frame; None if it states none of the whole frame."""
    if frame.predicted_loss is None or not len(frame.predicted_loss) or frame.layout.num_tiles > 1:
        return None
    loss = float(frame.predicted_loss[-1])
    return None if math.isnan(loss) else loss


def _clip_row(
    names: _Names, gaze: Gaze, rebuilt: Reconstruction, metrics: PictureMetrics, *, costs: tuple[_Cost, _Cost]
) -> ClipRow:
    gazing, rebuilding = costs
    counts = tuple(gaze.count.tolist())
    peaks = [cost.memory_mb for cost in costs if cost.memory_mb is not None]
    return ClipRow(
        clip_name=names.clip.name,
        clip_start=names.clip.start,
        setting=names.point.name,
        gazing_ratio_arg=names.point.ratio,
        task_loss_requirement_arg=names.point.budget.threshold,
        non_padded_gazes=gaze.num_gazes,
        actual_gaze_ratio=gaze.ratio,
        reconstruction_loss=_mean(rebuilt.loss),
        pixel_mae=_mean(metrics.mae),
        pixel_mse=_mean(metrics.mse),
        psnr=_mean(metrics.capped_psnr_db),
        ssim=_mean(metrics.ssim),
        gaze_seconds=gazing.seconds,
        reconstruction_seconds=rebuilding.seconds,
        non_padded_gazes_by_frame=counts,
        num_gazing_each_frame=counts,
        selector=names.selector,
        reconstructor=names.reconstructor,
        budget_per=names.point.budget.per,
        video=names.video,
        frames=len(gaze),
        gaze_ratio_of_finest=gaze.num_gazes / (len(gaze) * _finest_patches(gaze.layout)),
        decode_seconds=names.clip.decode_seconds if gazing.seconds is not None else None,
        peak_memory_mb=max(peaks, default=None),
    )


def _mean(values_T: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return math.fsum(values_T.tolist()) / len(values_T)


def _finest_patches(layout: FrameLayout) -> int:
    """Patches of the finest scale that show something of a frame."""
    inside = np.flatnonzero(layout.inside)
    scale, _, _ = layout.locate(inside)
    return int((scale == layout.grid.num_scales - 1).sum())
