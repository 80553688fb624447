"""Rows of evaluations that never were: selectors whose error is a power of what they keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from autogaze.evaluation.rows import PSNR_CEILING_DB, ClipRow, FrameRow, SummaryRow

PATCHES, FINEST = 265, 196


@dataclass(frozen=True, kw_only=True)
class Point:
    """An operating point and what it keeps."""

    name: str
    kept: float
    ratio: float | None = None
    threshold: float | None = None
    per: str = "frame"


RATIOS = tuple(Point(name=f"ratio_{r:.2f}", kept=r, ratio=r) for r in (0.1, 0.25, 0.5, 0.75))
CLIPS = tuple(Point(name=f"clip_{r:.2f}", kept=r, ratio=r, per="clip") for r in (0.02, 0.05))
THRESHOLD = Point(name="task_0.025", kept=0.03, threshold=0.025)
POINTS = (*RATIOS, *CLIPS, THRESHOLD)


@dataclass(frozen=True, kw_only=True)
class Rows:
    frames: list[FrameRow]
    clips: list[ClipRow]
    summary: list[SummaryRow]


def make_rows(
    wastes: Mapping[str, float],
    *,
    points: Sequence[Point] = POINTS,
    reconstructors: Sequence[str] = ("canvas",),
    videos: int = 3,
    num_frames: int = 4,
    seconds: float | None = 0.1,
    gains: Mapping[str, float] | None = None,
) -> Rows:
    """A selector of waste w keeps w times what another needs for the same mean squared error, 0.001 / kept.

    ``gains`` has dB by which a setting is better than that.
    """
    frames, clips = [], []
    for video in range(videos):
        for selector, waste in wastes.items():
            for point in points:
                for reconstructor in reconstructors:
                    kept = round(point.kept * PATCHES)
                    mse = 0.001 / (kept / PATCHES / waste) * (1 + 0.1 * video)
                    mse /= 10 ** ((gains or {}).get(point.name, 0.0) / 10)
                    clip = _clip(f"v{video}", selector, reconstructor, point, kept, mse, num_frames, seconds)
                    clips.append(clip)
                    frames += [_frame(clip, t) for t in range(num_frames)]
    return Rows(frames=frames, clips=clips, summary=summarised(clips))


def summarised(clips: Sequence[ClipRow]) -> list[SummaryRow]:
    by_key: dict[tuple[str, str, str], list[ClipRow]] = {}
    for row in clips:
        by_key.setdefault((row.reconstructor, row.selector, row.setting), []).append(row)
    numbers = (
        *("actual_gaze_ratio", "non_padded_gazes", "reconstruction_loss", "pixel_mae", "pixel_mse", "psnr", "ssim"),
        *("gaze_seconds", "reconstruction_seconds", "gaze_ratio_of_finest", "decode_seconds", "peak_memory_mb"),
    )

    def mean(rows: Sequence[ClipRow], name: str) -> float | None:
        known = [getattr(row, name) for row in rows if getattr(row, name) is not None]
        return fmean(known) if known else None

    return [
        SummaryRow(
            setting=setting,
            selector=selector,
            reconstructor=reconstructor,
            clips=len(rows),
            **{name: mean(rows, name) for name in numbers},
        )
        for (reconstructor, selector, setting), rows in by_key.items()
    ]


def with_error(rows: Rows, error: float) -> Rows:
    """The same with this error everywhere: 0 for rebuilt exactly, NaN for not known."""
    exact = {
        "psnr": math.nan if math.isnan(error) else PSNR_CEILING_DB,
        **dict.fromkeys(("pixel_mae", "pixel_mse", "reconstruction_loss"), error),
        "ssim": 1 - error,
    }
    clips = [replace(row, **exact) for row in rows.clips]
    frames = [replace(row, **{**exact, "psnr": math.nan if math.isnan(error) else math.inf}) for row in rows.frames]
    return Rows(frames=frames, clips=clips, summary=summarised(clips))


def _clip(
    name: str,
    selector: str,
    reconstructor: str,
    point: Point,
    kept: int,
    mse: float,
    num_frames: int,
    seconds: float | None,
) -> ClipRow:
    return ClipRow(
        clip_name=name,
        clip_start=0,
        setting=point.name,
        gazing_ratio_arg=point.ratio,
        task_loss_requirement_arg=point.threshold,
        non_padded_gazes=kept * num_frames,
        actual_gaze_ratio=kept / PATCHES,
        reconstruction_loss=math.sqrt(mse),
        pixel_mae=math.sqrt(mse),
        pixel_mse=mse,
        psnr=min(PSNR_CEILING_DB, -10 * math.log10(mse)),
        ssim=1 / (1 + mse),
        gaze_seconds=seconds,
        reconstruction_seconds=seconds,
        non_padded_gazes_by_frame=(kept,) * num_frames,
        num_gazing_each_frame=(kept,) * num_frames,
        selector=selector,
        reconstructor=reconstructor,
        budget_per=point.per,
        video=f"{name}.mp4",
        frames=num_frames,
        gaze_ratio_of_finest=kept / FINEST,
        decode_seconds=seconds,
        peak_memory_mb=None if seconds is None else 100.0,
    )


def _frame(clip: ClipRow, t: int) -> FrameRow:
    return FrameRow(
        clip_name=clip.clip_name,
        clip_start=0,
        setting=clip.setting,
        frame_idx=t,
        reconstruction_loss=clip.reconstruction_loss,
        non_padded_gazes=clip.non_padded_gazes_by_frame[t],
        pixel_mae=clip.pixel_mae,
        pixel_mse=clip.pixel_mse,
        psnr=clip.psnr,
        ssim=clip.ssim,
        selector=clip.selector,
        reconstructor=clip.reconstructor,
        predicted_loss=None,
    )
