"""Measuring what a selection is worth: videos × selectors × operating points under a reconstructor."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autogaze.evaluation.outputs import Evaluation
    from autogaze.evaluation.rows import ClipRow, FrameRow, SummaryRow
    from autogaze.evaluation.runner import evaluate
    from autogaze.evaluation.settings import OperatingPoint, default_settings, settings_of
    from autogaze.evaluation.tables import read_rows

_HOMES = {
    "ClipRow": "rows",
    "Evaluation": "outputs",
    "FrameRow": "rows",
    "OperatingPoint": "settings",
    "SummaryRow": "rows",
    "default_settings": "settings",
    "evaluate": "runner",
    "read_rows": "tables",
    "settings_of": "settings",
}
"""Where each public name is defined; it is imported when it is first used."""

__all__ = [
    "ClipRow",
    "Evaluation",
    "FrameRow",
    "OperatingPoint",
    "SummaryRow",
    "default_settings",
    "evaluate",
    "read_rows",
    "settings_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
