"""When the frames of a coded video are shown, and where such a video is damaged."""

from __future__ import annotations

from fractions import Fraction

JUMP_SECONDS = 1.0
"""Times that fall back by more than this start anew (joined recordings); by less, they are mistakes."""

GAP_SECONDS = 0.25
"""Shortest time without frames, in a video at a steady rate, that counts as damage."""

_STEADY_FRAMES = 8
_MAX_WARNINGS = 3


class Timeline:
    """Turns time stamps into seconds from the start of the video that never stand still or run backwards."""

    def __init__(self, *, time_base: Fraction, start: int | None, interval_seconds: float) -> None:
        """``start`` is the stamp of the start of the video, None for that of the first frame."""
        self._time_base = time_base
        self._start = start
        self._interval_seconds = interval_seconds
        self._offset_seconds = 0.0
        self._last_seconds: float | None = None
        self._last_duration_seconds = interval_seconds

    def duration_seconds(self, duration: int | None) -> float:
        """Seconds of a frame's duration in units of the time base; the nominal interval if it has none."""
        return float(duration * self._time_base) if duration else self._interval_seconds

    def seconds(self, stamp: int | None, *, duration: int | None) -> float:
        """When the next frame is shown, by its stamp or, if it has none, by the frame before it."""
        last_seconds = self._last_seconds
        if stamp is None:
            seconds = 0.0 if last_seconds is None else last_seconds + self._last_duration_seconds
        else:
            if self._start is None:
                self._start = stamp
            seconds = float((stamp - self._start) * self._time_base) + self._offset_seconds
        if last_seconds is not None and seconds <= last_seconds:
            if last_seconds - seconds > JUMP_SECONDS:
                resumed_seconds = last_seconds + self._last_duration_seconds
                self._offset_seconds += resumed_seconds - seconds
                seconds = resumed_seconds
            else:
                seconds = last_seconds + min(self._last_duration_seconds, self._interval_seconds) / 2
        self._last_seconds = seconds
        self._last_duration_seconds = self.duration_seconds(duration)
        return seconds


class Damage:
    """Collects what went wrong while decoding into a short list of warnings."""

    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings
        self._places = 0
        self._last_place = ""
        self._last_number = -1
        self._frames = 0
        self._time_seconds = 0.0
        self._end_seconds = 0.0
        self._intervals: list[float] = []

    def note(self, problem: str) -> None:
        """Something could not be read or decoded after the frames seen so far."""
        self._report(self._frames, self._end_seconds, problem)

    def see(self, number: int, time_seconds: float, duration_seconds: float, *, corrupt: bool, steady: bool) -> None:
        """The next frame, which the decoder may call ``corrupt``; ``steady`` looks for missing frames before it."""
        if number and steady:
            self._look_for_gap(number, time_seconds, duration_seconds)
        self._frames = number + 1
        self._time_seconds = time_seconds
        self._end_seconds = time_seconds + duration_seconds
        if corrupt:
            self._report(number, time_seconds, "the picture is incomplete")

    def finish(self, promised_seconds: float | None, *, interval_seconds: float) -> None:
        """The end of the video, which should last ``promised_seconds``."""
        if self._places > _MAX_WARNINGS:
            more = self._places - _MAX_WARNINGS
            self._warnings.append(
                f"damaged at {more} more place{'s' if more > 1 else ''}, the last at {self._last_place}"
            )
        if promised_seconds is not None:
            missing_seconds = promised_seconds - self._end_seconds
            if missing_seconds > max(GAP_SECONDS, 2 * interval_seconds):
                frames = "1 frame" if self._frames == 1 else f"{self._frames} frames"
                self._warnings.append(
                    f"ends after {frames} ({self._end_seconds:.3f} s) of {promised_seconds:.3f} s; the rest is missing"
                )

    def _look_for_gap(self, number: int, time_seconds: float, duration_seconds: float) -> None:
        interval_seconds = time_seconds - self._time_seconds
        if len(self._intervals) < _STEADY_FRAMES:
            self._intervals.append(interval_seconds)
            return
        shortest_seconds, longest_seconds = min(self._intervals), max(self._intervals)
        if longest_seconds - shortest_seconds > 0.002:
            return  # a variable rate: a pause says nothing
        missing_seconds = time_seconds - self._end_seconds
        if missing_seconds > max(GAP_SECONDS, 4 * longest_seconds):
            self._report(number, self._end_seconds, f"nothing could be read from there to {time_seconds:.3f} s")

    def _report(self, number: int, time_seconds: float, problem: str) -> None:
        if number == self._last_number:
            return  # more of the same damage
        self._last_number = number
        self._places += 1
        self._last_place = f"frame {number} ({time_seconds:.3f} s)"
        if self._places <= _MAX_WARNINGS:
            self._warnings.append(f"damaged at {self._last_place}: {problem}")
