"""Gazing at a camera or a file in real time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np

from autogaze.errors import AutoGazeError
from autogaze.loading import DEFAULT_MODEL, Model, Precision
from autogaze.pipeline import Mode, Recipe, make_recipe, open_session
from autogaze.selectors.replenish import Motion
from autogaze.streaming import GazeSession
from autogaze.video import VideoReader, VideoSource, open_video
from autogaze.video_sources import CAMERA, is_url
from autogaze.watching.capture import Capture, Captured, Due, as_they_come, at_rate, by_its_times
from autogaze.watching.tally import Ended, Tally, Watched, WatchSummary

OnFrame: TypeAlias = Callable[[Watched, Tally], bool]
"""Called with each frame that was gazed at and what was seen so far; whether to go on."""

_WARM_UP_FRAMES = 2


class WatchError(AutoGazeError):
    """A source cannot be watched like this."""


def gazed(frames: Iterable[Captured], session: GazeSession) -> Iterator[Watched]:
    """Each frame with its gaze, in memory that does not grow with their number."""
    for captured in frames:
        rgb = captured.frames.rgb[0]
        before_seconds = time.perf_counter()
        gaze = session.step(rgb, time_seconds=float(captured.frames.time_seconds[0]))
        after_seconds = time.perf_counter()
        yield Watched(
            rgb=rgb,
            gaze=gaze,
            latency_seconds=after_seconds - captured.at_seconds,
            gaze_seconds=after_seconds - before_seconds,
        )


def watch(
    source: VideoSource,
    *,
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
    fps: float | None = None,
    seconds: float | None = None,
    on_frame: OnFrame | None = None,
) -> WatchSummary:
    """Gaze at a source while it plays, until it ends, the time is up, ``on_frame`` has enough, or Ctrl-C.

    The source is read in a thread of its own. A frame that is replaced by a newer one before its turn is dropped, so
    what is gazed at is always the newest there is. Memory does not grow: at most one frame waits, and a stream
    remembers what :class:`~autogaze.streaming.GazeSession` says, 16 frames at most. Two blank frames go through the
    model beforehand, so that the first real one does not pay for what is set up once.

    Args:
        source: see :func:`~autogaze.video.open_video`.
        model, ratio, threshold, psnr_db, per, mode, cascade, motion, precision, device: see :func:`autogaze.gaze`.
        fps: play a file at this rate; None: as its times say. Cameras have their own.
        seconds: end after so many; None: go on.
        on_frame: called after each frame; its time counts as time in which frames may be dropped.

    Raises:
        WatchError: fps or seconds is not legal, or the source has a rate of its own.
        VideoError: the source cannot be opened, or nothing in it can be decoded.
        BudgetError: a limit is not legal, or not one that the selector can keep.
        CheckpointError: there is no such model, or it cannot be loaded.
    """
    for name, value in (("fps", fps), ("seconds", seconds)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise WatchError(f"{name} must be a number above 0, got {value}")
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
    reader = open_video(source, window_frames=1)
    try:
        due = _due(source, reader, fps=fps)
        session = _warm_session(recipe, reader)
    except BaseException:
        reader.close()
        raise
    tally = Tally(session.layout)
    ended: Ended
    until_seconds = None if seconds is None else time.perf_counter() + seconds
    with Capture(reader, due=due) as capture:
        try:
            ended = _look(capture, session, tally, until_seconds=until_seconds, on_frame=on_frame)
        except KeyboardInterrupt:
            ended = "interrupted"
    tally.count(captured=capture.num_captured, dropped=capture.num_dropped)
    return tally.summary(
        source=source if isinstance(source, str) else reader.name,
        settings=recipe.settings,
        ended=ended,
        warnings=tuple(reader.warnings),
    )


def _due(source: VideoSource, reader: VideoReader, *, fps: float | None) -> Due:
    """When the frames of a source are to be seen."""
    # What an address leads to has an end if it is a file.
    live = isinstance(source, str) and (
        source.startswith(CAMERA) or (is_url(source) and reader.expected_frames is None)
    )
    if live and fps is not None:
        raise WatchError(f"{source} comes at a rate of its own; leave fps out")
    if live:
        return as_they_come
    return by_its_times if fps is None else at_rate(fps)


def _warm_session(recipe: Recipe, reader: VideoReader) -> GazeSession:
    """A stream for the reader's frames, after another one has been through what is set up once."""
    size = {"height_px": reader.height_px, "width_px": reader.width_px}
    blank = np.zeros((reader.height_px, reader.width_px, 3), np.uint8)
    before = open_session(recipe, **size)
    for _ in range(_WARM_UP_FRAMES):
        before.step(blank)
    return open_session(recipe, **size)


def _look(
    capture: Capture, session: GazeSession, tally: Tally, *, until_seconds: float | None, on_frame: OnFrame | None
) -> Ended:
    for seen in gazed(capture.newest(until_seconds=until_seconds), session):
        tally.add(seen)
        tally.count(captured=capture.num_captured, dropped=capture.num_dropped)
        if on_frame is not None and not on_frame(seen, tally):
            return "asked"
    return "source" if until_seconds is None or time.perf_counter() < until_seconds else "seconds"
