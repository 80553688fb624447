"""Look at a video before the vision transformer does, and keep only the patches that matter."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Importing a submodule binds its name in the package, once. ``autogaze.gaze`` is the function, so the module of the
# same name is imported here, before anyone else can, and its name is given back; ``from autogaze.gaze import Gaze``
# finds the module all the same.
from autogaze import errors
from autogaze.gaze import Gaze

globals().pop("gaze")

if TYPE_CHECKING:
    from autogaze.encode import EncodeOptions, encode_many, encode_to_files
    from autogaze.files import gaze_many, gaze_to_files
    from autogaze.frames import Frames
    from autogaze.grid import FrameLayout, PatchGrid
    from autogaze.loading import load_selector
    from autogaze.models.autogaze import AutoGaze
    from autogaze.pipeline import gaze, iter_gaze, stream
    from autogaze.reconstruct import reconstruct_many, reconstruct_to_files
    from autogaze.sampling import Sampling
    from autogaze.selectors.base import Budget
    from autogaze.streaming import GazeSession
    from autogaze.summary import Summary
    from autogaze.video import open_video

_HOMES = {
    "AutoGaze": "autogaze.models.autogaze",
    "Budget": "autogaze.selectors.base",
    "EncodeOptions": "autogaze.encode",
    "FrameLayout": "autogaze.grid",
    "Frames": "autogaze.frames",
    "GazeSession": "autogaze.streaming",
    "PatchGrid": "autogaze.grid",
    "Sampling": "autogaze.sampling",
    "Summary": "autogaze.summary",
    "encode_many": "autogaze.encode",
    "encode_to_files": "autogaze.encode",
    "gaze": "autogaze.pipeline",
    "gaze_many": "autogaze.files",
    "gaze_to_files": "autogaze.files",
    "iter_gaze": "autogaze.pipeline",
    "load_selector": "autogaze.loading",
    "open_video": "autogaze.video",
    "reconstruct_many": "autogaze.reconstruct",
    "reconstruct_to_files": "autogaze.reconstruct",
    "stream": "autogaze.pipeline",
}
"""Where each public name is defined; it is imported when it is first used."""

__all__ = [
    "AutoGaze",
    "Budget",
    "EncodeOptions",
    "FrameLayout",
    "Frames",
    "Gaze",
    "GazeSession",
    "PatchGrid",
    "Sampling",
    "Summary",
    "__version__",
    "encode_many",
    "encode_to_files",
    "errors",
    "gaze",
    "gaze_many",
    "gaze_to_files",
    "iter_gaze",
    "load_selector",
    "open_video",
    "reconstruct_many",
    "reconstruct_to_files",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autogaze' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
