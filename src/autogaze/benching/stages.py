"""One pass over the beginning of a video, from the file to the gaze file, with the time of each stage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from autogaze.benching.rows import Pass
from autogaze.gaze import Gaze
from autogaze.pipeline import GazeStream, Recipe
from autogaze.selectors.base import CLIP_FRAMES


@dataclass(frozen=True, kw_only=True, eq=False)
class Passed:
    """What came of a pass."""

    times: Pass
    """What it took."""
    gaze: Gaze
    """What was chosen."""
    fps: float
    """Mean rate of the video."""
    warnings: tuple[str, ...]
    """What was wrong with the video without stopping the work."""


def go_through(video: str, *, recipe: Recipe, clips: int, folder: Path) -> Passed:
    """Gaze at the first clips of a video, all of it if it is shorter, and write the gaze into ``folder``.

    Raises:
        VideoError: it cannot be opened, or nothing in it can be decoded.
        OSError: the gaze cannot be written.
    """
    started_seconds = time.perf_counter()
    parts: list[Gaze] = []
    clip_seconds: list[float] = []
    with GazeStream(video, recipe=recipe) as stream:
        gazed_seconds = 0.0
        for frames, gaze in stream:
            if len(frames) == CLIP_FRAMES or not parts:  # a shorter one at the end is no clip to compare with others
                clip_seconds.append(stream.gaze_seconds - gazed_seconds)
            gazed_seconds = stream.gaze_seconds
            parts.append(gaze)
            if len(parts) == clips:
                break
    write_from_seconds = time.perf_counter()
    whole = Gaze.concatenate(parts)
    whole.save(folder / "bench.gaze")
    ended_seconds = time.perf_counter()
    return Passed(
        times=Pass(
            decode_seconds=stream.reader.decode_seconds,
            preprocess_seconds=stream.preprocess_seconds,
            gaze_seconds=stream.gaze_seconds - stream.preprocess_seconds,
            write_seconds=ended_seconds - write_from_seconds,
            total_seconds=ended_seconds - started_seconds,
            clip_seconds=tuple(clip_seconds),
        ),
        gaze=whole,
        fps=stream.fps,
        warnings=tuple(f"{video}: {warning}" for warning in stream.reader.warnings),
    )
