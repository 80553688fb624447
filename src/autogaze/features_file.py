"""Features of kept patches as a file: safetensors, mapped into memory by readers, or Parquet, made row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from autogaze.extras import require
from autogaze.gaze import Gaze

# Shape letters: N patches, C channels.

FEATURE = "feature"
METADATA = "autogaze"
"""Key under which the header stands, as JSON, in the metadata of either format."""


def columns(gaze: Gaze, *, first_frame: int, frames_per_patch: int) -> dict[str, NDArray[Any]]:
    """Where each patch is, (N,) each but ``box_px``.

    Args:
        gaze: the patches.
        first_frame: number of the gaze's first frame in the video.
        frames_per_patch: frames that a patch lasts; the first of them counts.

    Returns:
        frame: int32, counted over the frames that were gazed at.
        time_seconds: float64, not a number where it is not known.
        scale_px: int32, side of the (tile's) frame at the patch's scale.
        index: int32, number of the patch in the layout.
        box_px: (N, 4) int32 left, top, right, bottom in video pixels.
    """
    times = np.full(gaze.num_frames, np.nan) if gaze.time_seconds is None else gaze.time_seconds
    return {
        "frame": (first_frame + gaze.frame * frames_per_patch).astype(np.int32),
        "time_seconds": times[gaze.frame],
        "scale_px": gaze.scale_px.astype(np.int32),
        "index": gaze.index.astype(np.int32),
        "box_px": gaze.boxes_px.astype(np.int32),
    }


class FeatureWriter(Protocol):
    """A file that is written part by part, inside a ``with`` block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def write(self, feature_NC: NDArray[Any], places: Mapping[str, NDArray[Any]]) -> None:
        """Add patches: their features, float32 or float16, and what :func:`columns` says of them."""
        ...


class SafetensorsWriter:
    """All features in memory, and one file of tensors named as :func:`columns` and ``feature`` at the end."""

    def __init__(self, path: Path, *, header: Mapping[str, Any], channels: int, dtype: type[np.floating[Any]]) -> None:
        """See the class; ``header`` is written as JSON into the file's metadata."""
        self._path, self._header = path, header
        self._empty = np.zeros((0, channels), dtype)
        self._parts: list[dict[str, NDArray[Any]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            tensors = {
                name: np.concatenate([part[name] for part in self._parts])
                for name in (self._parts[0] if self._parts else ())
            }
            self._path.touch()  # safetensors makes files that nobody else may read, whatever the umask says
            mode = self._path.stat().st_mode
            save_file(tensors or {FEATURE: self._empty}, self._path, metadata={METADATA: json.dumps(self._header)})
            self._path.chmod(mode)

    def write(self, feature_NC: NDArray[Any], places: Mapping[str, NDArray[Any]]) -> None:
        """See :class:`FeatureWriter`."""
        self._parts.append({FEATURE: feature_NC, **places})


class ParquetWriter:
    """A table with one row for each patch; memory does not grow with the video."""

    def __init__(self, path: Path, *, header: Mapping[str, Any], channels: int, dtype: type[np.floating[Any]]) -> None:
        """See the class; ``header`` is written as JSON into the schema's metadata.

        Raises:
            ImportError: pyarrow is not installed.
        """
        self._arrow = arrow = require("pyarrow", extra="table")
        parquet = require("pyarrow.parquet", extra="table")
        whole = {name: arrow.int32() for name in ("left_px", "top_px", "right_px", "bottom_px")}
        schema = arrow.schema(
            {
                "frame": arrow.int32(),
                "time_seconds": arrow.float64(),
                "scale_px": arrow.int32(),
                "index": arrow.int32(),
                **whole,
                FEATURE: arrow.list_(arrow.from_numpy_dtype(dtype), channels),
            },
            metadata={METADATA: json.dumps(header)},
        )
        self._schema = schema
        self._stack = ExitStack()
        self._file = self._stack.enter_context(parquet.ParquetWriter(path, schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, feature_NC: NDArray[Any], places: Mapping[str, NDArray[Any]]) -> None:
        """See :class:`FeatureWriter`."""
        arrow = self._arrow
        edges = dict(zip(("left_px", "top_px", "right_px", "bottom_px"), places["box_px"].T, strict=True))
        flat = arrow.array(np.ascontiguousarray(feature_NC).ravel())
        lists = arrow.FixedSizeListArray.from_arrays(flat, feature_NC.shape[1])
        known = {name: places[name] for name in ("frame", "time_seconds", "scale_px", "index")} | edges
        self._file.write_table(arrow.table({**known, FEATURE: lists}, schema=self._schema))
