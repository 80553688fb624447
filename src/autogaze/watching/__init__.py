"""Gazing at cameras and files while they play."""

from __future__ import annotations

from autogaze.watching.tally import Tally, Watched, WatchSummary
from autogaze.watching.watch import WatchError, watch

__all__ = ["Tally", "WatchError", "WatchSummary", "Watched", "watch"]
