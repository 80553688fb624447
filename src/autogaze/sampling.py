"""Which frames of a video are looked at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from autogaze.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How frames are chosen; at most one of the three, none of them means every frame.

    Raises:
        ValueError: a value is not legal, or more than one is given.
    """

    stride: int | None = None
    """Every n-th decoded frame, the first included; at least 1."""
    fps: float | None = None
    """The frame shown at each tick ``k / fps`` seconds. A source slower than this gives each frame once."""
    count: int | None = None
    """This many frames spread evenly, first and last included if at least 2; at least 1."""

    def __post_init__(self) -> None:
        given = [name for name in ("stride", "fps", "count") if getattr(self, name) is not None]
        if len(given) > 1:
            raise OptionError(f"give one of stride, fps and count, or none for every frame; got {' and '.join(given)}")
        for name in ("stride", "count"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise OptionError(f"{name} must be a whole number of at least 1, got {value!r}")
            object.__setattr__(self, name, int(value))
        if self.fps is not None and not (_is_number(self.fps) and 0 < self.fps < math.inf):
            raise OptionError(f"fps must be a finite number above 0 (frames a second), got {self.fps!r}")
        if self.fps is not None:
            object.__setattr__(self, "fps", float(self.fps))

    def num_kept(self, num_frames: int, *, source_fps: float) -> int:
        """Frames kept of a video of ``num_frames`` at a constant ``source_fps``."""
        if self.stride is not None:
            return -(-num_frames // self.stride)
        if self.fps is not None:
            return min(num_frames, max(1, math.ceil(num_frames / source_fps * self.fps - 1e-6)))
        return min(num_frames, self.count) if self.count is not None else num_frames

    def kept_fps(self, source_fps: float, *, num_frames: int | None) -> float:
        """Mean rate of the kept frames of a video at ``source_fps``, in frames a second."""
        if self.stride is not None:
            return source_fps / self.stride
        if self.fps is not None:
            return min(self.fps, source_fps)
        if self.count is not None and num_frames:
            return source_fps * self.num_kept(num_frames, source_fps=source_fps) / num_frames
        return source_fps


class Timed(Protocol):
    """A frame on its way out of a source."""

    @property
    def number(self) -> int:
        """Position among all frames."""
        ...

    @property
    def time_seconds(self) -> float:
        """When it is first shown."""
        ...

    @property
    def duration_seconds(self) -> float:
        """How long it is shown if nothing follows."""
        ...


FrameT = TypeVar("FrameT", bound=Timed)


def even_numbers(num_frames: int, count: int) -> NDArray[np.int64]:
    """``count`` frame numbers spread evenly over ``0 .. num_frames - 1``; all of them if there are fewer."""
    if num_frames <= count:
        return np.arange(num_frames)
    return np.round(np.linspace(0, num_frames - 1, count)).astype(np.int64)


def pick(
    frames: Iterable[FrameT], *, sampling: Sampling, num_frames: int | None, tolerance_seconds: float = 0.0
) -> Iterator[FrameT]:
    """The frames that ``sampling`` keeps, in their order, holding on to one frame at most.

    ``num_frames`` is needed for ``count`` alone; ``tolerance_seconds`` is how far the source may have rounded its
    times, so that a frame due at a tick is not missed for having been rounded to just after it.

    Raises:
        ValueError: ``count`` is asked for and ``num_frames`` is not known.
    """
    if sampling.fps is not None:
        return _at_rate(frames, sampling.fps, tolerance_seconds + 1e-6)
    if sampling.count is not None:
        if num_frames is None:
            raise OptionError("count needs the number of frames of the video; use stride or fps")
        return _numbered(frames, even_numbers(num_frames, sampling.count))
    stride = sampling.stride or 1
    return (frame for frame in frames if frame.number % stride == 0)


def _at_rate(frames: Iterable[FrameT], fps: float, tolerance_seconds: float) -> Iterator[FrameT]:
    start_seconds = 0.0
    shown: FrameT | None = None

    def has_tick(until_seconds: float) -> bool:
        assert shown is not None
        first_tick = math.ceil((shown.time_seconds - start_seconds - tolerance_seconds) * fps)
        return max(0, first_tick) < (until_seconds - start_seconds - tolerance_seconds) * fps

    for frame in frames:
        if shown is None:
            start_seconds = frame.time_seconds
        elif has_tick(frame.time_seconds):
            yield shown
        shown = frame
    if shown is not None and has_tick(shown.time_seconds + max(shown.duration_seconds, 2 * tolerance_seconds)):
        yield shown


def _numbered(frames: Iterable[FrameT], numbers: NDArray[np.int64]) -> Iterator[FrameT]:
    wanted = set(numbers.tolist())
    skipped: FrameT | None = None
    for frame in frames:
        if frame.number in wanted:
            wanted.discard(frame.number)
            skipped = None
            yield frame
            if not wanted:
                return
        else:
            skipped = frame
    # The video ended before the number of frames it promised: its real last frame stands for the missing ones.
    if wanted and skipped is not None:
        yield skipped


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
