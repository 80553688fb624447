"""Videos as clips of equal length, one in memory at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from autogaze.errors import VideoError
from autogaze.frames import Frames
from autogaze.sampling import Sampling
from autogaze.video import open_video

# Shape letters: T frames.


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How videos are cut into clips.

    Raises:
        ValueError: a number is not legal.
    """

    clip_len: int = 16
    """Frames of a clip."""
    clip_starts: tuple[int, ...] | None = None
    """Numbers of the first frames, counted as decoded; None: one clip after the other from the start."""
    max_clips: int | None = 4
    """Most clips of a video; None: all. Plays no part where ``clip_starts`` names them."""
    stride: int = 1
    """Every n-th frame is looked at."""
    side_px: int | None = None
    """Frames are brought to a square of this side (bilinear, antialiased, by Pillow); None: they keep their size."""
    motion_vectors: bool = False
    """Whether to ask for those of the codec."""

    def __post_init__(self) -> None:
        for name in ("clip_len", "stride", "max_clips"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.clip_starts is not None:
            if not self.clip_starts or min(self.clip_starts) < 0:
                raise ValueError(f"clip_starts must name frames from 0 on, got {list(self.clip_starts)}")
            object.__setattr__(self, "clip_starts", tuple(sorted(set(self.clip_starts))))

    @property
    def span(self) -> int:
        """Decoded frames from the first of a clip to the first of the one after it."""
        return self.clip_len * self.stride

    def starts_at(self, number: int) -> bool:
        """Whether a clip starts with this frame."""
        return number in self.clip_starts if self.clip_starts is not None else number % self.span == 0

    def most(self) -> int | None:
        """Most clips there can be of one video."""
        return self.max_clips if self.clip_starts is None else len(self.clip_starts)

    def expected(self, num_frames: int | None) -> int | None:
        """Clips of a video of so many decoded frames; None if nobody knows."""
        if self.clip_starts is not None:
            whole = sum(start + self.span - self.stride < (num_frames or np.inf) for start in self.clip_starts)
            return max(1, whole)
        if num_frames is None:
            return self.max_clips
        whole = max(1, (num_frames + self.stride - 1) // self.span)
        return whole if self.max_clips is None else min(whole, self.max_clips)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Some frames of a video."""

    name: str
    """The video's result name, ``_start_`` and the number of the first frame."""
    start: int
    """Number of the first frame among all decoded ones."""
    frames: Frames
    """T frames, resized if that was asked for."""
    decode_seconds: float
    """Time spent reading, converting and resizing since the clip before it."""


class ClipReader:
    """The clips of one video, read forward once: iterate it inside a ``with`` block.

    A clip that the video's end cuts short counts only if the video has no whole one.

    Raises:
        VideoError: the video cannot be opened, or nothing in it can be decoded.
    """

    def __init__(self, source: str | os.PathLike[str], *, name: str, cutting: Cutting) -> None:
        """Open ``source``, called ``name`` in results."""
        self.frames_read = 0
        """Frames decoded so far."""
        self.notes: list[str] = []
        """Clips that were asked for and are not there."""
        self._name, self._cutting = name, cutting
        begun_seconds = time.perf_counter()
        every = Sampling(stride=cutting.stride if cutting.clip_starts is None else None)
        self.reader = open_video(source, sampling=every, window_frames=1, motion_vectors=cutting.motion_vectors)
        """The open video."""
        self._seconds = time.perf_counter() - begun_seconds

    def __enter__(self) -> Self:
        self.reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.reader.__exit__(kind, error, traceback)

    def expected_clips(self) -> int | None:
        """How many clips there will probably be, as far as the video says."""
        frames = self.reader.expected_frames
        sampled = self._cutting.stride if self._cutting.clip_starts is None else 1
        return self._cutting.expected(None if frames is None else frames * sampled)

    def __iter__(self) -> Iterator[Clip]:
        """The clips in the order in which they end.

        Raises:
            VideoError: nothing can be decoded, or no clip starts before the end.
        """
        cutting = self._cutting
        begun: dict[int, list[Frames]] = {}
        given = 0
        most = cutting.most()
        for number, frame in self._timed_frames():
            if cutting.starts_at(number):
                begun[number] = []
            for start, frames in begun.items():
                if (number - start) % cutting.stride == 0:
                    frames.append(frame)
            full = [start for start, frames in begun.items() if len(frames) == cutting.clip_len]
            for start in full:
                yield self._clip(start, begun.pop(start))
            given += len(full)
            if most is not None and given >= most:
                return
        self._note_missing(cut_short=sorted(begun), kept=given == 0)
        if given == 0:
            if not begun:
                raise VideoError(self._why_nothing())
            first = min(begun)
            yield self._clip(first, begun[first])

    def _timed_frames(self) -> Iterator[tuple[int, Frames]]:
        while True:
            begun_seconds = time.perf_counter()
            try:
                frame = next(self.reader, None)
                if frame is None:
                    return
                frame = self._resized(frame)
            except OSError as error:  # else it would pass for results that cannot be written
                raise VideoError(f"{self.reader.name} cannot be read: {error}") from error
            finally:
                self._seconds += time.perf_counter() - begun_seconds
            number = int(frame.number[0])
            self.frames_read = number + 1
            yield number, frame

    def _resized(self, frame: Frames) -> Frames:
        side_px = self._cutting.side_px
        if side_px is None:
            return frame
        picture = Image.fromarray(frame.rgb[0]).resize((side_px, side_px), Image.Resampling.BILINEAR)
        return Frames(rgb=np.asarray(picture)[None], time_seconds=frame.time_seconds, number=frame.number)

    def _clip(self, start: int, frames: Sequence[Frames]) -> Clip:
        seconds, self._seconds = self._seconds, 0.0
        vectors = [frame.motion_vectors for frame in frames if frame.motion_vectors is not None]
        return Clip(
            name=clip_name(self._name, start),
            start=start,
            frames=Frames(
                rgb=np.concatenate([frame.rgb for frame in frames]),
                time_seconds=np.concatenate([frame.time_seconds for frame in frames]),
                number=np.concatenate([frame.number for frame in frames]),
                motion_vectors=tuple(v for one in vectors for v in one) if vectors else None,
            ),
            decode_seconds=seconds,
        )

    def _note_missing(self, *, cut_short: Sequence[int], kept: bool) -> None:
        asked = self._cutting.clip_starts or ()
        lost = set(cut_short[1:] if kept else cut_short)
        for start in asked:
            if start >= self.frames_read or start in lost:
                self.notes.append(f"no clip from frame {start} on: the video ends after {self.frames_read} frames")

    def _why_nothing(self) -> str:
        if not self.frames_read:
            return f"{self.reader.name} has no frame that can be decoded; check it with a video player"
        return f"{self.reader.name} has {self.frames_read} frames, and every clip is to start after them; name others"


def clip_name(video: str, start: int) -> str:
    """What a clip is called whose first frame has this number."""
    return f"{video}_start_{start:04d}"
