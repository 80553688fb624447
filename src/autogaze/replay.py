"""A source beside a gaze that was made of it before."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from types import TracebackType
from typing import NoReturn, Self

import numpy as np

from autogaze.errors import AutoGazeError, VideoError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, Indices
from autogaze.pipeline import OnProgress, Progress
from autogaze.video import VideoReader, VideoSource, open_video

TOLERANCE_SECONDS = 0.00075
"""How far the time of a frame may be from the one its gaze notes: some file formats round to whole milliseconds."""


class GazeMismatchError(AutoGazeError):
    """A gaze is not of the video that it is used with."""


class GazeReplay:
    """One source and its gaze: iterate (frames, gaze) windows, inside a ``with`` block.

    Frames that were not gazed at are left out. The others are found by their times; a gaze that notes none is of
    every frame. Memory is bounded by one window, whatever the length of the source.
    """

    reader: VideoReader
    """The open source."""
    layout: FrameLayout
    """Layout of every gaze."""
    gaze_seconds: float
    """Zero: nothing is chosen."""

    def __init__(
        self, source: VideoSource, *, gaze: Gaze, gaze_name: str = "the gaze", on_progress: OnProgress | None = None
    ) -> None:
        """Open the source; ``gaze_name`` is what errors call the gaze.

        Raises:
            VideoError: the source cannot be opened, or nothing in it can be decoded.
            GazeMismatchError: the gaze is of no frame, or of frames of another size.
        """
        self.gaze_seconds = 0.0
        self.layout = gaze.layout
        self._gaze = gaze
        self._gaze_name = gaze_name
        self._on_progress = on_progress
        self._start = time.perf_counter()
        self.reader = open_video(source)
        try:
            self._check_size()
        except BaseException:
            self.reader.close()
            raise

    def __enter__(self) -> Self:
        self.reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.reader.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[tuple[Frames, Gaze]]:
        """Windows of the gazed frames.

        Raises:
            GazeMismatchError: the gaze is of another video: it has a frame that this one lacks, or ends before it.
        """
        match = _Match(self._gaze, gaze_name=self._gaze_name, source_name=self.reader.name)
        for frames in self.reader:
            taken = match.take(frames)
            if len(taken):
                gaze = self._gaze[match.done - len(taken) : match.done]
                yield _only(frames, taken), gaze
                self._report(match.done)
            if match.is_over():
                break
        if not match.seen:
            raise VideoError(f"{self.reader.name} has no frame that can be decoded; check it with a video player")
        match.check_complete()

    @property
    def fps(self) -> float:
        """Mean rate of the gazed frames."""
        times = self._gaze.time_seconds
        span_seconds = 0.0 if times is None else float(times[-1] - times[0])
        mean_fps = (len(self._gaze) - 1) / span_seconds if span_seconds > 0 else self.reader.fps
        # Of times that are rounded no rate is exact.
        return self.reader.fps if math.isclose(mean_fps, self.reader.fps, rel_tol=1e-3) else mean_fps

    @property
    def seconds(self) -> float:
        """Since the source was opened."""
        return time.perf_counter() - self._start

    def _check_size(self) -> None:
        if not len(self._gaze):
            raise GazeMismatchError(f"{self._gaze_name} is of no frame; gaze at the video again")
        layout, reader = self.layout, self.reader
        if (layout.height_px, layout.width_px) != (reader.height_px, reader.width_px):
            raise GazeMismatchError(
                f"{self._gaze_name} is of frames of {layout.width_px}×{layout.height_px} px, {reader.name} has "
                f"{reader.width_px}×{reader.height_px} px; give the gaze of this video"
            )

    def _report(self, frames_done: int) -> None:
        if self._on_progress is None:
            return
        self._on_progress(
            Progress(
                source=self.reader.name,
                frames=frames_done,
                expected_frames=len(self._gaze),
                patches_kept=int(self._gaze.count[:frames_done].sum()),
                patches_total=frames_done * self.layout.num_patches,
                seconds=self.seconds,
            )
        )


class _Match:
    """Which frames of a source are those of a gaze, as they go by."""

    def __init__(self, gaze: Gaze, *, gaze_name: str, source_name: str) -> None:
        self.done = 0
        """Frames of the gaze that were found."""
        self.seen = 0
        """Frames of the source that went by."""
        self._names = gaze_name, source_name
        self._times = gaze.time_seconds
        self._num_frames = len(gaze)
        self._widest_seconds = 0.0 if self._times is None else float(np.diff(self._times).max(initial=0))
        self._last_seconds = 0.0  # of the source so far
        self._since = 0  # frames that went by since the last one found
        self._widest = 0  # most of them between two that were found

    def take(self, frames: Frames) -> Indices:
        """Positions of the frames that were gazed at.

        Raises:
            GazeMismatchError: the gaze has a frame that the source lacks.
        """
        taken = []
        for position, seconds in enumerate(frames.time_seconds.tolist()):
            self.seen += 1
            self._last_seconds = seconds
            self._since += 1
            if self.done == self._num_frames:
                self._check_end(seconds)
            elif self._is_next(seconds):
                if self.done:
                    self._widest = max(self._widest, self._since)
                taken.append(position)
                self.done, self._since = self.done + 1, 0
        return np.asarray(taken, np.int64)

    def is_over(self) -> bool:
        """Whether nothing that may still come matters: only one frame was gazed at, wherever the source ends."""
        return self.done == self._num_frames == 1 and self._times is not None

    def check_complete(self) -> None:
        """Refuse a source that ended too early.

        Raises:
            GazeMismatchError: it did.
        """
        if self.done < self._num_frames:
            gaze, source = self._names
            raise GazeMismatchError(
                f"{gaze} has {self._num_frames} frames, {source} ends after {self.done} of them at "
                f"{self._last_seconds:.3f} s; give the gaze of this video"
            )

    def _is_next(self, seconds: float) -> bool:
        if self._times is None:
            return True
        wanted = float(self._times[self.done])
        if seconds > wanted + TOLERANCE_SECONDS:
            gaze, source = self._names
            raise GazeMismatchError(
                f"{gaze} has a frame at {wanted:.3f} s, where {source} has none; give the gaze of this video"
            )
        return seconds >= wanted - TOLERANCE_SECONDS

    def _check_end(self, seconds: float) -> None:
        """Whatever rule chose the frames of the gaze would have chosen one more by now, unless they end here."""
        if self._times is None:
            self._refuse_rest(seconds)
        if self._num_frames == 1:  # says nothing of where the next one would have been
            return
        expected = seconds >= float(self._times[-1]) + self._widest_seconds - TOLERANCE_SECONDS
        if expected and self._since >= self._widest:
            self._refuse_rest(seconds)

    def _refuse_rest(self, seconds: float) -> NoReturn:
        gaze, source = self._names
        frames = "1 frame" if self._num_frames == 1 else f"{self._num_frames} frames"
        raise GazeMismatchError(
            f"{gaze} ends after {frames}, {source} goes on at {seconds:.3f} s; give the gaze of this video"
        )


def _only(frames: Frames, taken: Indices) -> Frames:
    if len(taken) == len(frames):
        return frames
    return Frames(rgb=frames.rgb[taken], time_seconds=frames.time_seconds[taken], number=frames.number[taken])
