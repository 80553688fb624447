"""What gazing costs on this machine: selectors timed stage by stage, in turn, with memory, as JSON and as a picture."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autogaze.benching.report import BenchReport, load_report
    from autogaze.benching.run import bench

_HOMES = {"BenchReport": "report", "bench": "run", "load_report": "report"}
"""Where each public name is defined; it is imported when it is first used."""

__all__ = ["BenchReport", "bench", "load_report"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
