"""Video in, gaze out: one pass over a source with one selector."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self, TypeAlias, TypedDict, Unpack

import numpy as np
import torch

from autogaze.ahead import Ahead
from autogaze.errors import OptionError, VideoError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.loading import DEFAULT_MODEL, Model, Precision, checkpoint_fingerprint, checkpoint_path, load_selector
from autogaze.sampling import Sampling
from autogaze.selectors.base import Budget, Selector, as_limit
from autogaze.selectors.cascade import Cascade
from autogaze.selectors.replenish import Motion, Replenish
from autogaze.streaming import GazeSession
from autogaze.summary import Settings
from autogaze.video import VideoReader, VideoSource, open_video

Mode: TypeAlias = Literal["tiles", "resize"]
"""Tiles cover the frame pixel for pixel; resize stretches one tile over it."""


class StreamOptions(TypedDict, total=False):
    """The keyword arguments of :func:`stream` that decide its gazes, for functions that pass them on."""

    model: Model
    ratio: float | Sequence[float] | None
    threshold: float | None
    psnr_db: float | None
    per: Literal["frame", "clip"]
    mode: Mode
    cascade: float | None
    motion: Motion
    precision: Precision
    device: str | None


class Options(StreamOptions, total=False):
    """The keyword arguments of :func:`gaze` that decide its result, for functions that pass them on."""

    stride: int | None
    fps: float | None
    frames: int | None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Checked options with the selector at hand: what can be done to any number of sources."""

    selector: Selector
    """Chooses the patches."""
    budget: Budget
    """How many patches it may use."""
    sampling: Sampling
    """Which frames it sees."""
    mode: Mode
    """How the patch grid lies on the frame."""
    settings: Settings
    """The same as plain values, for comparison and for files."""

    def layout(self, *, height_px: int, width_px: int) -> FrameLayout:
        """How the selector's grid covers frames of this size."""
        make = FrameLayout.tiled if self.mode == "tiles" else FrameLayout.resized
        return make(self.selector.grid, height_px=height_px, width_px=width_px)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the pass over one source is."""

    source: str
    """Name of the source."""
    frames: int
    """Frames done."""
    expected_frames: int | None
    """Frames there will probably be; None where the source does not say."""
    patches_kept: int
    """Patches chosen so far."""
    patches_total: int
    """Patches there were to choose from so far."""
    seconds: float
    """Since the source was opened."""


OnProgress: TypeAlias = Callable[[Progress], None]


def make_recipe(
    *,
    model: Model = DEFAULT_MODEL,
    ratio: float | Sequence[float] | None = None,
    threshold: float | None = None,
    psnr_db: float | None = None,
    per: Literal["frame", "clip"] = "frame",
    stride: int | None = None,
    fps: float | None = None,
    frames: int | None = None,
    mode: Mode = "tiles",
    cascade: float | None = None,
    motion: Motion = "none",
    precision: Precision = "fp32",
    device: str | None = None,
) -> Recipe:
    """Check the options of :func:`gaze` and load the selector, before any video is touched.

    Raises:
        BudgetError: a limit is not legal, or not one that the selector can keep.
        CheckpointError: there is no such model, or it cannot be loaded.
        OptionError: the sampling, the mode, the cascade, the motion or the precision is not legal.
    """
    if mode not in ("tiles", "resize"):
        raise OptionError(f'mode must be "tiles" or "resize", got {mode!r}')
    if cascade is not None and mode == "resize":
        raise OptionError('a cascade opens tiles, and mode="resize" has one; leave one of the two out')
    sampling = _sampling(stride=stride, fps=fps, frames=frames)
    budget = Budget(ratio=as_limit(ratio), threshold=threshold, psnr_db=psnr_db, per=per)
    selector = load_selector(model, device=device, motion=motion, precision=precision)
    if ratio is None and threshold is None and psnr_db is None:
        # "clip" alone is not a limit: it says how the default one is spread.
        budget = replace(selector.default_budget, per="clip") if per == "clip" else selector.default_budget
    # A selector refuses a budget when a video starts; refuse before the first one is decoded.
    side_px = selector.grid.scales_px[-1]
    selector.open(FrameLayout.resized(selector.grid, height_px=side_px, width_px=side_px), budget)
    named, model_fingerprint = _identity(model, selector)
    return Recipe(
        selector=selector if cascade is None else Cascade(selector, change=cascade),
        budget=budget,
        sampling=sampling,
        mode=mode,
        settings=Settings(
            model=named,
            model_fingerprint=model_fingerprint,
            ratio=as_limit(budget.ratio),
            threshold=budget.threshold,
            psnr_db=budget.psnr_db,
            per=budget.per,
            stride=sampling.stride,
            fps=sampling.fps,
            frames=sampling.count,
            mode=mode,
            cascade=None if cascade is None else float(cascade),
            motion=selector.motion if isinstance(selector, Replenish) else "none",
            precision=precision,
        ),
    )


class GazeStream:
    """One source on its way through a selector: iterate (frames, gaze) windows, inside a ``with`` block.

    Memory is bounded by one window, whatever the length of the source; by three where the selector works on an
    accelerator, as the next ones are decoded meanwhile.
    """

    reader: VideoReader
    """The open source."""
    layout: FrameLayout
    """Layout of every gaze."""
    gaze_seconds: float
    """Time spent choosing patches so far."""

    def __init__(self, source: VideoSource, *, recipe: Recipe, on_progress: OnProgress | None = None) -> None:
        """Open the source.

        Raises:
            VideoError: it cannot be opened, or nothing in it can be decoded.
        """
        self.gaze_seconds = 0.0
        self._on_progress = on_progress
        self._start = time.perf_counter()
        self._beside = on_accelerator(recipe.selector)
        self._ahead: Ahead[Frames] | None = None
        self.reader = open_video(
            source,
            sampling=recipe.sampling,
            motion_vectors=recipe.selector.needs_motion_vectors,
            pinned=self._beside and torch.cuda.is_available(),
        )
        try:
            self.layout = recipe.layout(height_px=self.reader.height_px, width_px=self.reader.width_px)
            self._session = recipe.selector.open(self.layout, recipe.budget)
        except BaseException:
            self.reader.close()
            raise

    def __enter__(self) -> Self:
        self.reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ahead is not None:
            self._ahead.close()
        self.reader.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[tuple[Frames, Gaze]]:
        if not self._beside:
            yield from self._gazed(self.reader)
            return
        if self._ahead is None:  # or else who iterates goes on
            # An accelerator leaves the processors free: they decode the next window meanwhile.
            self._ahead = Ahead(self.reader, name="autogaze reader")
        yield from self._gazed(self._ahead)

    def _gazed(self, windows: Iterator[Frames]) -> Iterator[tuple[Frames, Gaze]]:
        frames_done, kept = 0, 0
        for frames in windows:
            before = time.perf_counter()
            gaze = self._session.step(frames)
            self.gaze_seconds += time.perf_counter() - before
            frames_done, kept = frames_done + len(frames), kept + gaze.num_gazes
            yield frames, gaze
            if self._on_progress is not None:
                self._on_progress(
                    Progress(
                        source=self.reader.name,
                        frames=frames_done,
                        expected_frames=self.reader.expected_frames,
                        patches_kept=kept,
                        patches_total=frames_done * self.layout.num_patches,
                        seconds=self.seconds,
                    )
                )
        if not frames_done:
            raise VideoError(f"{self.reader.name} has no frame that can be decoded; check it with a video player")

    @property
    def preprocess_seconds(self) -> float:
        """What of :attr:`gaze_seconds` went into tiles, sizes and colours as a network reads them.

        0 for selectors that read the frames as they are: whatever they bring down to their scales is choosing.
        """
        return float(getattr(self._session, "preprocess_seconds", 0.0))

    @property
    def fps(self) -> float:
        """Mean rate of the frames that are gazed at."""
        return self.reader.fps

    @property
    def seconds(self) -> float:
        """Since the source was opened."""
        return time.perf_counter() - self._start


def iter_gaze(
    source: VideoSource, *, on_progress: OnProgress | None = None, **options: Unpack[Options]
) -> Iterator[tuple[Frames, Gaze]]:
    """The frames of a source and their gaze, a window of at most 16 frames at a time.

    Takes the options of :func:`gaze` and raises the same errors. Memory does not grow with the length of the
    source.
    """
    recipe = make_recipe(**options)

    def windows() -> Iterator[tuple[Frames, Gaze]]:
        with GazeStream(source, recipe=recipe, on_progress=on_progress) as stream:
            yield from stream

    return windows()


def gaze(
    source: VideoSource,
    *,
    model: Model = DEFAULT_MODEL,
    ratio: float | Sequence[float] | None = None,
    threshold: float | None = None,
    psnr_db: float | None = None,
    per: Literal["frame", "clip"] = "frame",
    stride: int | None = None,
    fps: float | None = None,
    frames: int | None = None,
    mode: Mode = "tiles",
    cascade: float | None = None,
    motion: Motion = "none",
    precision: Precision = "fp32",
    device: str | None = None,
    on_progress: OnProgress | None = None,
) -> Gaze:
    """Which patches of a video matter.

    Args:
        source: a video file, an address, an image folder or glob, a camera (``camera:0``), an array, a tensor or a
            list of PIL images, see :func:`~autogaze.video.open_video`.
        model: see :func:`~autogaze.loading.load_selector`.
        ratio: ceiling as a share of the patches of a frame, in (0, 1]; several numbers give each frame of a clip
            of 16 its own. With no ``ratio``, ``threshold`` or ``psnr_db`` the selector's own default applies.
        threshold: a frame ends once its reconstruction loss is at or below this, in the selector's own unit.
        psnr_db: a frame ends once its reconstruction has at least this PSNR.
        per: whether ``ratio`` limits every frame, or a clip of 16 frames that share what it allows.
        stride: look at every n-th frame.
        fps: look at this many frames a second.
        frames: look at this many frames, spread evenly.
        mode: ``"tiles"`` covers the frame pixel for pixel, ``"resize"`` stretches one tile over it (fast, coarse).
        cascade: open only the tiles in which a colour of the small whole frame, in 0…1, changed by more than this
            since they were last open; None, or 0: all. See :class:`~autogaze.selectors.cascade.Cascade`.
        motion: ``"global"`` lets the canvas of ``replenish`` move with the camera, see
            :class:`~autogaze.selectors.replenish.Replenish`.
        precision: of a gaze model: ``"fp32"``, or ``"bf16"`` or ``"fp16"``, which are faster on some devices and
            choose some other patches.
        device: where a learned model runs, as torch names it.
        on_progress: called after each window of frames.

    Raises:
        VideoError: the source cannot be opened, or nothing in it can be decoded.
        BudgetError: a limit is not legal, or not one that the selector can keep.
        CheckpointError: there is no such model, or it cannot be loaded.
        OptionError: the sampling, the mode, the cascade, the motion or the precision is not legal.
    """
    windows = iter_gaze(
        source,
        on_progress=on_progress,
        model=model,
        ratio=ratio,
        threshold=threshold,
        psnr_db=psnr_db,
        per=per,
        stride=stride,
        fps=fps,
        frames=frames,
        mode=mode,
        cascade=cascade,
        motion=motion,
        precision=precision,
        device=device,
    )
    return Gaze.concatenate([gazed for _, gazed in windows])


def stream(
    *,
    height_px: int,
    width_px: int,
    model: Model = DEFAULT_MODEL,
    ratio: float | Sequence[float] | None = None,
    threshold: float | None = None,
    psnr_db: float | None = None,
    per: Literal["frame", "clip"] = "frame",
    mode: Mode = "tiles",
    cascade: float | None = None,
    motion: Motion = "none",
    precision: Precision = "fp32",
    device: str | None = None,
) -> GazeSession:
    """Start gazing at a stream of frames of one size; :meth:`~autogaze.streaming.GazeSession.step` takes each.

    Takes the options of :func:`gaze`, less those that sample frames.

    Raises:
        BudgetError: a limit is not legal, or not one that the selector can keep.
        CheckpointError: there is no such model, or it cannot be loaded.
        OptionError: the size, the mode, the cascade, the motion or the precision is not legal, or the selector reads
            motion vectors, which bare frames lack.
    """
    for name, side_px in (("height_px", height_px), ("width_px", width_px)):
        if isinstance(side_px, bool) or not isinstance(side_px, int | np.integer) or side_px < 1:
            raise OptionError(f"{name} must be a whole number of at least 1, got {side_px!r}")
    recipe = make_recipe(
        model=model,
        ratio=ratio,
        threshold=threshold,
        psnr_db=psnr_db,
        per=per,
        mode=mode,
        cascade=cascade,
        motion=motion,
        precision=precision,
        device=device,
    )
    return open_session(recipe, height_px=int(height_px), width_px=int(width_px))


def open_session(recipe: Recipe, *, height_px: int, width_px: int) -> GazeSession:
    """Start gazing at a stream of frames of one size.

    Raises:
        ValueError: the selector reads motion vectors, which bare frames lack.
    """
    if recipe.selector.needs_motion_vectors:
        raise OptionError(
            f"{recipe.selector.name} reads motion vectors, which a stream of bare frames does not have; "
            "use flow or difference, or gaze at the video file"
        )
    layout = recipe.layout(height_px=height_px, width_px=width_px)
    return GazeSession(recipe.selector.open(layout, recipe.budget))


def _sampling(*, stride: int | None, fps: float | None, frames: int | None) -> Sampling:
    """The sampling, whose errors call its options what :func:`gaze` calls them."""
    try:
        return Sampling(stride=stride, fps=fps, count=frames)
    except OptionError as error:
        raise OptionError(re.sub(r"\bcount\b", "frames", str(error))) from None


def on_accelerator(selector: Selector) -> bool:
    """Whether a selector works elsewhere than on the processors."""
    device = getattr(selector, "device", None)
    return device is not None and torch.device(device).type != "cpu"


def _identity(model: Model, selector: Selector) -> tuple[str, str | None]:
    """What a model is called, and what tells it from others of that name."""
    if not isinstance(model, (str, os.PathLike)):
        # Nothing tells two objects of one name apart, so a result of one never counts as a result of another.
        return selector.name, f"an object, {secrets.token_hex(8)}"
    name = os.fspath(model)
    checkpoint = checkpoint_path(name)
    return name, None if checkpoint is None else checkpoint_fingerprint(checkpoint)
