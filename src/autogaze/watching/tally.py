"""What has been seen of a stream so far, and what is said of it in the end."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.summary import Settings, versions
from autogaze.watching.latency import Latencies, LatencySummary

FORMAT = "autogaze-watch"
FORMAT_VERSION = 1
RECENT_FRAMES = 300
"""Frames that a meter speaks of."""

Ended: TypeAlias = Literal["source", "seconds", "interrupted", "asked"]
"""Why watching ended: the source did, the time was up, Ctrl-C, or whoever was shown the frames had enough."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Watched:
    """One frame that was gazed at."""

    rgb: NDArray[np.uint8]
    """(H, W, 3) the frame."""
    gaze: Gaze
    """Its gaze, with its time."""
    latency_seconds: float
    """From when the frame was there to its gaze."""
    gaze_seconds: float
    """What choosing took of that; the rest is waiting for the frame before."""


@dataclass(frozen=True, kw_only=True)
class Recent:
    """The last frames in a few numbers."""

    fps: float
    """Frames gazed at a second."""
    kept_share: float
    """Patches kept, of all there were."""
    patches_per_frame: float
    """Mean patches kept of a frame."""
    p50_ms: float
    """Median latency."""
    p95_ms: float
    """95 % of the frames took at most this long."""
    p99_ms: float
    """99 % of the frames took at most this long."""


@dataclass(frozen=True, kw_only=True)
class WatchSummary:
    """A whole watch."""

    source: str
    """As it was named."""
    settings: Settings
    """What decided the gazes."""
    height_px: int
    """Height of a frame."""
    width_px: int
    """Width of a frame."""
    tile_rows: int
    """Tiles from top to bottom."""
    tile_columns: int
    """Tiles from left to right."""
    ended: Ended
    """Why it ended."""
    seconds: float
    """From the first frame that was there to the last gaze."""
    frames_captured: int
    """Frames that were there."""
    frames_gazed: int
    """Frames that were gazed at."""
    frames_dropped: int
    """Frames that a newer one replaced before their turn."""
    fps: float
    """Frames gazed at a second."""
    patches_per_frame: float
    """Mean patches kept of a frame."""
    kept_share: float
    """Patches kept, of all there were."""
    latency_ms: LatencySummary
    """From when a frame was there to its gaze."""
    gaze_ms: LatencySummary
    """What choosing took of that."""
    warnings: tuple[str, ...]
    """What was wrong with the source without stopping the work."""

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values."""
        return {"format": FORMAT, "version": FORMAT_VERSION, **asdict(self), "versions": versions()}


class Tally:
    """Counts frames as they are gazed at; its size does not depend on how many."""

    def __init__(self, layout: FrameLayout) -> None:
        self.layout = layout
        """Layout of the gazes."""
        self.frames = 0
        """Frames gazed at."""
        self.patches_kept = 0
        """Patches kept of them."""
        self.frames_captured = 0
        """Frames that were there."""
        self.frames_dropped = 0
        """Frames that a newer one replaced before their turn."""
        self._latency, self._gaze = Latencies(), Latencies()
        self._first_seconds = self._last_seconds = 0.0
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=RECENT_FRAMES)

    @property
    def kept_share(self) -> float:
        """Patches kept, of all there were."""
        return self.patches_kept / max(1, self.frames * self.layout.num_patches)

    @property
    def seconds(self) -> float:
        """From the first frame that was there to the last gaze."""
        return self._last_seconds - self._first_seconds

    def add(self, seen: Watched) -> None:
        """Count a frame that has just been gazed at."""
        now_seconds = time.perf_counter()
        if not self.frames:
            self._first_seconds = now_seconds - seen.latency_seconds
        self._last_seconds = now_seconds
        self.frames += 1
        self.patches_kept += seen.gaze.num_gazes
        self._latency.add(seen.latency_seconds)
        self._gaze.add(seen.gaze_seconds)
        self._recent.append((now_seconds, seen.latency_seconds, seen.gaze.num_gazes))

    def count(self, *, captured: int, dropped: int) -> None:
        """Set how many frames there were, and how many were dropped of them."""
        self.frames_captured, self.frames_dropped = captured, dropped

    def recent(self) -> Recent:
        """Of the last :data:`RECENT_FRAMES` frames."""
        moments, latencies, kept = (np.array(values) for values in zip(*self._recent, strict=True))
        span_seconds = float(moments[-1] - moments[0])
        p50, p95, p99 = (1e3 * np.percentile(latencies, (50, 95, 99))).tolist()
        return Recent(
            fps=(len(moments) - 1) / span_seconds if span_seconds > 0 else 0.0,
            kept_share=float(kept.mean()) / self.layout.num_patches,
            patches_per_frame=float(kept.mean()),
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
        )

    def summary(self, *, source: str, settings: Settings, ended: Ended, warnings: tuple[str, ...]) -> WatchSummary:
        """What is said in the end."""
        layout = self.layout
        return WatchSummary(
            source=source,
            settings=settings,
            height_px=layout.height_px,
            width_px=layout.width_px,
            tile_rows=layout.tile_rows,
            tile_columns=layout.tile_columns,
            ended=ended,
            seconds=self.seconds,
            frames_captured=self.frames_captured,
            frames_gazed=self.frames,
            frames_dropped=self.frames_dropped,
            fps=self.frames / self.seconds if self.seconds > 0 else 0.0,
            patches_per_frame=self.patches_kept / max(1, self.frames),
            kept_share=self.kept_share,
            latency_ms=self._latency.summary(),
            gaze_ms=self._gaze.summary(),
            warnings=warnings,
        )
