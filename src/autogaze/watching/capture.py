"""Frames of a video in real time: read in a thread of their own, of which only the newest waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

from autogaze.frames import Frames
from autogaze.video import VideoReader

Due: TypeAlias = Callable[[int, float], float]
"""When a frame is to be seen, in seconds after the first, by its number (from 0) and by its time after the first."""

_GIVE_UP_SECONDS = 2.0
"""How long to wait at the end for a device that does not answer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Captured:
    """One frame, and when it was there."""

    frames: Frames
    """The frame alone, with its time in the video."""
    at_seconds: float
    """When it was read and converted, or due if that is later, as ``time.perf_counter`` counts."""


def by_its_times(number: int, time_seconds: float) -> float:
    """The frames of a file as they were taken."""
    return time_seconds


def at_rate(fps: float) -> Due:
    """Frames at even intervals, whatever the file says."""
    return lambda number, time_seconds: number / fps


def as_they_come(number: int, time_seconds: float) -> float:
    """The frames of a camera, which waits by itself."""
    return 0.0


class Capture:
    """A video that plays while others work. Use it in a ``with`` block; it closes the reader.

    Whoever asks gets the newest frame. A frame that a newer one replaces before anyone has asked is dropped and
    counted, so nobody ever waits for frames that are old already, and at most one frame is held.
    """

    def __init__(self, reader: VideoReader, *, due: Due) -> None:
        """Play ``reader``, opened with windows of one frame, from when the block begins."""
        self.num_captured = 0
        """Frames that were there so far."""
        self.num_dropped = 0
        """Frames that were replaced before their turn."""
        self._reader, self._due = reader, due
        self._changed = threading.Condition()
        self._newest: Captured | None = None
        self._ended = False
        self._error: BaseException | None = None
        self._stop = threading.Event()
        # A device may never answer; a daemon does not keep the process from ending then.
        self._thread = threading.Thread(target=self._play, name="autogaze capture", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_GIVE_UP_SECONDS)

    def newest(self, *, until_seconds: float | None = None) -> Iterator[Captured]:
        """Each time the newest frame not seen yet, until the video ends or ``time.perf_counter`` passes a moment.

        Raises:
            VideoError: reading went wrong; frames before that are yielded first.
        """
        while (captured := self._take(until_seconds)) is not None:
            yield captured
        if self._error is not None:
            raise self._error

    def _take(self, until_seconds: float | None) -> Captured | None:
        with self._changed:
            while True:
                left = None if until_seconds is None else until_seconds - time.perf_counter()
                if left is not None and left <= 0:
                    return None
                if self._newest is not None or self._ended:
                    captured, self._newest = self._newest, None
                    return captured
                self._changed.wait(left)

    def _play(self) -> None:
        try:
            start_seconds, first_seconds = 0.0, 0.0
            for number, frames in enumerate(self._reader):
                if number == 0:
                    start_seconds, first_seconds = time.perf_counter(), float(frames.time_seconds[0])
                due_seconds = start_seconds + self._due(number, float(frames.time_seconds[0]) - first_seconds)
                # An event that is waited for no time at all tells whether it is set, too.
                if self._stop.wait(max(0.0, due_seconds - time.perf_counter())):
                    break
                self._put(Captured(frames=frames, at_seconds=time.perf_counter()))
        except Exception as error:
            self._error = error
        finally:
            self._reader.close()
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _put(self, captured: Captured) -> None:
        with self._changed:
            self.num_captured += 1
            self.num_dropped += self._newest is not None
            self._newest = captured
            self._changed.notify()


def every_frame(reader: VideoReader) -> Iterator[Captured]:
    """All frames of a reader of windows of one, each when it is asked for: nothing waits and nothing is dropped."""
    for frames in reader:
        yield Captured(frames=frames, at_seconds=time.perf_counter())
