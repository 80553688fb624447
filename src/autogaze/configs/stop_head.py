"""Fits of stop heads."""

from __future__ import annotations

from pathlib import Path

from autogaze.training.stop_head import StopHeadSettings


def default() -> StopHeadSettings:
    """The bundled checkpoint's stop head, for a folder of videos."""
    return StopHeadSettings(out=Path("runs/stop-head"), videos=(Path("videos"),))


def tiny() -> StopHeadSettings:
    """That of a tiny next-token run, on drawn clips, in seconds."""
    return StopHeadSettings(
        out=Path("runs/stop-head-tiny"),
        init="runs/ntp-tiny/checkpoint",
        procedural=1.0,
        clips=200,
        batch=16,
        block=256,
        workers=0,
    )
