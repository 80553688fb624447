"""The result: which patches of a video were chosen, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autogaze import archive
from autogaze.errors import GazeFileError
from autogaze.extras import require
from autogaze.grid import FrameLayout, Indices, PatchGrid

if TYPE_CHECKING:
    import os

# Shape letters: T frames, N gazes over all frames.

FORMAT = "autogaze-gaze"
FORMAT_VERSION = 1
_OPTIONAL = ("probability", "predicted_loss", "time_seconds")


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaze:
    """The ordered, ragged, multi-scale selection of patches of one video, in video coordinates.

    Gazes are stored one frame after the other and, inside a frame, in the order in which they were chosen
    (tile by tile where the frame has several). Arrays are never written to after construction.
    """

    index: Indices
    """(N,) int64 patch index inside its own frame, see :class:`~autogaze.grid.FrameLayout`."""
    count: Indices
    """(T,) int64 gazes of each frame; they sum to N."""
    layout: FrameLayout
    """Where each index sits in the video's frames."""
    probability: NDArray[np.float32] | None = None
    """(N,) probability the selector gave to this choice when it made it; None where it has none."""
    predicted_loss: NDArray[np.float32] | None = None
    """(N,) reconstruction loss of the frame (of its tile, for tiled models) after this gaze, as the selector
    states it: predicted by a model, exact for replenishment; NaN where it was not asked; None where it has none."""
    time_seconds: NDArray[np.float64] | None = None
    """(T,) when each frame is shown, from the start of the video; None where it is not known."""

    def __post_init__(self) -> None:
        index, count = np.asarray(self.index, np.int64), np.asarray(self.count, np.int64)
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "count", count)
        if index.ndim != 1 or count.ndim != 1:
            raise ValueError(f"index and count must be one-dimensional, got {index.shape} and {count.shape}")
        if (count < 0).any() or count.sum() != len(index):
            raise ValueError(f"count must be non-negative and sum to {len(index)}, got {count.tolist()}")
        if len(index) and not 0 <= index.min() <= index.max() < self.layout.num_indices:
            raise ValueError(
                f"patch indices must be in 0..{self.layout.num_indices - 1}, got {index.min()}..{index.max()}"
            )
        for name, dtype, length in (
            ("probability", np.float32, len(index)),
            ("predicted_loss", np.float32, len(index)),
            ("time_seconds", np.float64, len(count)),
        ):
            value = getattr(self, name)
            if value is None:
                continue
            value = np.asarray(value, dtype)
            if value.shape != (length,):
                raise ValueError(f"{name} must be ({length},), got {value.shape}")
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return (
            f"Gaze({self.num_frames} frames of {self.layout.width_px}×{self.layout.height_px} px, "
            f"{self.num_gazes} of {self.num_patches} patches kept ({self.ratio:.1%}))"
        )

    def __len__(self) -> int:
        return self.num_frames

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.count)

    @property
    def num_gazes(self) -> int:
        """N."""
        return len(self.index)

    @property
    def num_patches(self) -> int:
        """Patches there were to choose from, over all frames."""
        return self.num_frames * self.layout.num_patches

    @property
    def ratio(self) -> float:
        """Share of all patches that was kept; 0 for a video without frames."""
        return self.num_gazes / self.num_patches if self.num_patches else 0.0

    @cached_property
    def frame(self) -> Indices:
        """(N,) frame of each gaze."""
        return np.repeat(np.arange(self.num_frames), self.count)

    @cached_property
    def boxes_px(self) -> Indices:
        """(N, 4) left, top, right, bottom of each gaze in video pixels, right and bottom exclusive."""
        return self.layout.patch_boxes_px[self.index]

    @cached_property
    def scale_px(self) -> Indices:
        """(N,) scale at which each patch is seen: side of its (tile's) frame in pixels."""
        return np.asarray(self.layout.grid.scales_px)[self.layout.locate(self.index)[0]]

    def __getitem__(self, frames: int | slice) -> Gaze:
        """The gazes of one frame (a negative number counts from the end) or of a slice of frames."""
        if isinstance(frames, int):
            if not -self.num_frames <= frames < self.num_frames:
                raise IndexError(f"frame {frames} of a gaze of {self.num_frames} frames")
            frames = slice(frames % self.num_frames, frames % self.num_frames + 1)
        chosen = np.arange(self.num_frames)[frames]
        end = np.cumsum(self.count)
        gazes = np.concatenate([np.arange(end[t] - self.count[t], end[t]) for t in chosen] or [np.empty(0, int)])
        return replace(
            self,
            index=self.index[gazes],
            count=self.count[chosen],
            probability=None if self.probability is None else self.probability[gazes],
            predicted_loss=None if self.predicted_loss is None else self.predicted_loss[gazes],
            time_seconds=None if self.time_seconds is None else self.time_seconds[chosen],
        )

    def __iter__(self) -> Iterator[Gaze]:
        return (self[t] for t in range(self.num_frames))

    def equals(self, other: Gaze) -> bool:
        """Whether both hold the same gazes in the same order with the same numbers beside them."""
        return (
            self.layout == other.layout
            and np.array_equal(self.index, other.index)
            and np.array_equal(self.count, other.count)
            and all(_same(getattr(self, name), getattr(other, name)) for name in _OPTIONAL)
        )

    # Views of the selection

    def mask(self) -> NDArray[np.bool_]:
        """(T, num_indices) true where a patch was chosen."""
        mask = np.zeros((self.num_frames, self.layout.num_indices), bool)
        mask[self.frame, self.index] = True
        return mask

    def scale_masks(self) -> tuple[NDArray[np.bool_], ...]:
        """Per scale (T, rows, columns) over the whole frame, true where a patch was chosen."""
        rows, columns, sides = self.layout.tile_rows, self.layout.tile_columns, self.layout.grid.sides
        scale, row, column = self.layout.locate(self.index)
        masks = []
        for number, side in enumerate(sides):
            mask = np.zeros((self.num_frames, rows * side, columns * side), bool)
            of_scale = scale == number
            mask[self.frame[of_scale], row[of_scale], column[of_scale]] = True
            masks.append(mask)
        return tuple(masks)

    def coverage(self, frame: int) -> NDArray[np.uint8]:
        """(H, W) finest scale that shows each pixel of a frame: 0 none, 1 the coarsest scale, 2 the next, …"""
        gaze = self[frame]
        scale = gaze.layout.locate(gaze.index)[0]
        image = np.zeros((self.layout.height_px, self.layout.width_px), np.uint8)
        for gazed in np.argsort(scale, kind="stable"):
            left, top, right, bottom = gaze.boxes_px[gazed]
            image[top:bottom, left:right] = scale[gazed] + 1
        return image

    # Making and joining

    @classmethod
    def from_mask(
        cls,
        mask: NDArray[np.bool_],
        layout: FrameLayout,
        *,
        time_seconds: NDArray[np.float64] | None = None,
    ) -> Gaze:
        """The patches of a (T, num_indices) mask, in ascending order.

        Raises:
            ValueError: the mask does not have one column for every index of the layout.
        """
        if mask.ndim != 2 or mask.shape[1] != layout.num_indices:
            raise ValueError(f"mask must be (T, {layout.num_indices}), got {mask.shape}")
        return cls(index=np.nonzero(mask)[1], count=mask.sum(1), layout=layout, time_seconds=time_seconds)

    @classmethod
    def concatenate(cls, gazes: Sequence[Gaze]) -> Gaze:
        """One gaze of all frames, one after the other.

        A number that some parts lack (probability, predicted loss, time) is dropped from the whole.

        Raises:
            ValueError: there is nothing to join, or the parts are of different layouts.
        """
        if not gazes:
            raise ValueError("concatenate needs at least one gaze, got none")
        layout = gazes[0].layout
        for gaze in gazes:
            if gaze.layout != layout:
                raise ValueError(f"cannot join gazes of different layouts: {layout} and {gaze.layout}")

        def joined(name: str) -> Any:
            parts = [getattr(gaze, name) for gaze in gazes]
            return None if any(part is None for part in parts) else np.concatenate(parts)

        return cls(layout=layout, **{name: joined(name) for name in ("index", "count", *_OPTIONAL)})

    def in_order(self) -> Gaze:
        """The same patches in ascending order inside each frame."""
        order = np.lexsort((self.index, self.frame))
        return replace(
            self,
            index=self.index[order],
            probability=None if self.probability is None else self.probability[order],
            predicted_loss=None if self.predicted_loss is None else self.predicted_loss[order],
        )

    # Files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one compressed file that :meth:`load` reads back without loss; it appears whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in ("index", "count", *_OPTIONAL)}
        archive.save(
            path,
            {name: array for name, array in arrays.items() if array is not None},
            header={"format": FORMAT, "version": FORMAT_VERSION, "layout": _layout_to_json(self.layout)},
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Gaze:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            GazeFileError: it is not a gaze file, is damaged, or comes from a newer version.
        """
        arrays, header = archive.load(path)
        if header.get("format") != FORMAT:
            raise GazeFileError(f"{path} is not a gaze file; `autogaze gaze` and Gaze.save() write such files")
        if header.get("version") != FORMAT_VERSION:
            raise GazeFileError(
                f"{path} has gaze format version {header.get('version')}, "
                f"this autogaze reads version {FORMAT_VERSION}; update autogaze"
            )
        try:
            return cls(layout=_layout_from_json(header["layout"]), **arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise GazeFileError(f"{path} is damaged: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """The whole gaze as plain lists and numbers; :meth:`from_json` reads it back without loss.

        NaN and infinity, which JSON has no word for, become None.
        """

        def plain(values: NDArray[Any] | None) -> list[Any] | None:
            if values is None:
                return None
            return [None if value != value or value in (np.inf, -np.inf) else value for value in values.tolist()]

        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "layout": _layout_to_json(self.layout),
            **{name: plain(getattr(self, name)) for name in ("index", "count", *_OPTIONAL)},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Gaze:
        """The gaze of a :meth:`to_json` value.

        Raises:
            GazeFileError: it is not such a value.
        """
        if data.get("format") != FORMAT or data.get("version") != FORMAT_VERSION:
            raise GazeFileError(
                f"not a gaze of format {FORMAT} version {FORMAT_VERSION}: "
                f"{data.get('format')} version {data.get('version')}"
            )

        def array(name: str) -> NDArray[np.float64] | None:
            values = data.get(name)
            return None if values is None else np.asarray([np.nan if v is None else v for v in values], float)

        try:
            return cls(
                index=np.asarray(data["index"], np.int64),
                count=np.asarray(data["count"], np.int64),
                layout=_layout_from_json(data["layout"]),
                **{name: array(name) for name in _OPTIONAL},  # type: ignore[arg-type]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GazeFileError(f"the JSON gaze is damaged: {error}") from error

    def to_arrow(self) -> Any:
        """A ``pyarrow.Table`` with one row per gaze (extra ``table``).

        Columns: frame, time_seconds, order (0 is the first gaze of its frame), scale_px, row, column (counted
        over the whole frame), left_px, top_px, right_px, bottom_px, probability, predicted_loss.

        Raises:
            ImportError: pyarrow is not installed.
        """
        pyarrow = require("pyarrow", extra="table")
        first = np.cumsum(self.count) - self.count
        _, row, column = self.layout.locate(self.index)
        left, top, right, bottom = self.boxes_px.T
        return pyarrow.table(
            {
                "frame": self.frame,
                "time_seconds": None if self.time_seconds is None else self.time_seconds[self.frame],
                "order": np.arange(self.num_gazes) - first[self.frame],
                "scale_px": self.scale_px,
                "row": row,
                "column": column,
                "left_px": left,
                "top_px": top,
                "right_px": right,
                "bottom_px": bottom,
                "probability": self.probability,
                "predicted_loss": self.predicted_loss,
            }
            | {
                name: pyarrow.nulls(self.num_gazes, pyarrow.float64())
                for name, missing in (
                    ("time_seconds", self.time_seconds is None),
                    ("probability", self.probability is None),
                    ("predicted_loss", self.predicted_loss is None),
                )
                if missing
            }
        )

    def to_pandas(self) -> Any:
        """The table of :meth:`to_arrow` as a ``pandas.DataFrame`` (extra ``table``).

        Raises:
            ImportError: pyarrow or pandas is not installed.
        """
        require("pandas", extra="table")
        return self.to_arrow().to_pandas()


def load(path: str | Path) -> Gaze:
    """:meth:`Gaze.load` as a function."""
    return Gaze.load(path)


def _same(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b, equal_nan=True)


def _layout_to_json(layout: FrameLayout) -> dict[str, Any]:
    return {
        "scales_px": list(layout.grid.scales_px),
        "patch_px": layout.grid.patch_px,
        "height_px": layout.height_px,
        "width_px": layout.width_px,
        "tile_height_px": layout.tile_height_px,
        "tile_width_px": layout.tile_width_px,
        "tile_rows": layout.tile_rows,
        "tile_columns": layout.tile_columns,
    }


def _layout_from_json(data: dict[str, Any]) -> FrameLayout:
    numbers = {name: int(value) for name, value in data.items() if name != "scales_px"}
    patch_px = numbers.pop("patch_px")
    return FrameLayout(grid=PatchGrid(scales_px=tuple(data["scales_px"]), patch_px=patch_px), **numbers)
