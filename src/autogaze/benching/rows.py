"""What a benchmark measured: every sample, and the numbers that are read off them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from autogaze.summary import Settings

REAL_TIME_FPS = 30.0
"""Frames a second that "real time" stands for."""
STAGES = ("decode", "preprocess", "gaze", "write")
"""What a pass over a video does, in order; the rest of its time is spent between them."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    """Half of them were at most this."""
    quartile_low: float
    """A quarter of them were at most this."""
    quartile_high: float
    """Three quarters of them were at most this."""
    least: float
    """The smallest."""

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one number."""
        samples = np.array(list(values), np.float64)
        low, middle, high = np.percentile(samples, [25, 50, 75]).tolist()
        return cls(median=middle, quartile_low=low, quartile_high=high, least=float(samples.min()))


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass over the video, from opening it to the gaze file. Seconds of wall clock."""

    decode_seconds: float
    """Opening, decoding and converting to RGB."""
    preprocess_seconds: float
    """Tiles, sizes and colours as a network reads them; 0 where a selector reads the frames as they are."""
    gaze_seconds: float
    """Choosing patches, less the preprocessing."""
    write_seconds: float
    """Writing the gaze file and bringing it to the disk."""
    total_seconds: float
    """All of it, with what lies between the stages."""
    clip_seconds: tuple[float, ...]
    """From frames in memory to their gaze, preprocessing included: for each clip of 16 frames, or for the only one."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What one pass over the video needs, in a process of its own. In 10⁶ bytes."""

    base_mb: float
    """Resident once everything is imported, before the selector is loaded."""
    peak_mb: float
    """The most that was resident from then to the end of the pass."""
    accelerator_mb: float | None
    """The most that tensors held on an accelerator; None without one."""

    @property
    def over_base_mb(self) -> float:
        """What the selector, its weights and the pass came to."""
        return self.peak_mb - self.base_mb


@dataclass(frozen=True, kw_only=True)
class Footage:
    """The video."""

    name: str
    """Path or address as it was given, or ``procedural``."""
    is_procedural: bool
    """Whether it was drawn on the spot."""
    frames: int
    """Frames that a pass gazes at, from the first one on."""
    height_px: int
    """Height of a frame."""
    width_px: int
    """Width of a frame."""
    fps: float
    """Mean rate of the frames."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One selector."""

    name: str
    """What it is called in tables; different for each row."""
    naive: bool
    """Whether it is a gaze model decoded by the naive loop instead of the engine."""
    settings: Settings
    """What decided its gazes."""
    tiles: int
    """Tiles of a frame."""
    frames: int
    """Frames of a pass."""
    patches_kept: int
    """Patches chosen in a pass."""
    patches_total: int
    """Patches there were to choose from."""
    same_gazes: bool | None
    """Of a naive loop: whether it chose what the engine chose, in this order. None of others."""
    passes: tuple[Pass, ...]
    """Every pass that was timed, in their order; the rows of a benchmark took turns."""
    memory: Memory | None
    """None where it could not be measured."""

    @property
    def kept_share(self) -> float:
        """Patches kept, of all there were."""
        return self.patches_kept / self.patches_total

    @property
    def clip_ms(self) -> Spread:
        """Milliseconds from the frames of a clip in memory to their gaze, over the clips of all passes."""
        return Spread.of(1e3 * seconds for one in self.passes for seconds in one.clip_seconds)

    @property
    def tile_clip_ms(self) -> float:
        """Median milliseconds of a clip, for each of its tiles."""
        return self.clip_ms.median / self.tiles

    @property
    def fps(self) -> Spread:
        """Frames a second from the file to the gaze file; its ``least`` is of the slowest pass."""
        return Spread.of(self.frames / one.total_seconds for one in self.passes)

    @property
    def real_time(self) -> float:
        """How many times faster than 30 frames a second that is."""
        return self.fps.median / REAL_TIME_FPS

    def stage_seconds(self, stage: str) -> float:
        """Median seconds of a pass in a stage of :data:`STAGES`."""
        return Spread.of(getattr(one, f"{stage}_seconds") for one in self.passes).median

    def stage_shares(self) -> dict[str, float]:
        """What part of its time a pass spends in each stage, mean over the passes; they sum to at most 1."""
        return {
            stage: float(np.mean([getattr(one, f"{stage}_seconds") / one.total_seconds for one in self.passes]))
            for stage in STAGES
        }


def three_digits(value: float) -> str:
    """A number of at least 0 with its first three digits, or all before the point."""
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"
