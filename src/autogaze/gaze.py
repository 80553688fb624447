"""The result: which patches of a video were chosen, in which order."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autogaze import archive
from autogaze.errors import GazeFileError
from autogaze.extras import require
from autogaze.grid import FrameLayout, Indices

if TYPE_CHECKING:
    import os

# Shape letters: T frames, N gazes over all frames.

FORMAT = "autogaze-gaze"
FORMAT_VERSION = 1
SHIFTED_VERSION = 2
"""Version of gazes with shifts: who cannot follow them must not read them as if there were none."""
_OPTIONAL = ("probability", "predicted_loss", "time_seconds", "shift_px")


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaze:
    """The ordered, ragged, multi-scale selection of patches of one video, in video coordinates.

    Gazes are stored one frame after the other and, inside a frame, in the order in which they were chosen
    (tile by tile where the frame has several). Arrays are kept as they are given, without a copy where the dtype
    allows, and never written to. No patch should appear twice in a frame; that is not checked.

    Raises:
        ValueError: an array has the wrong shape, counts do not fit, or an index is outside the layout.
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
    shift_px: Indices | None = None
    """(T, 2) int64 how far down and to the right the canvas moves before the gazes of each frame are pasted, in pixels
    of the finest scale (of the video, where tiles cover it pixel for pixel); None, also if zeros were given, where it
    never moves."""

    def __post_init__(self) -> None:
        index, count = _whole_numbers("index", self.index), _whole_numbers("count", self.count)
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "count", count)
        if index.ndim != 1 or count.ndim != 1:
            raise ValueError(f"index and count must be one-dimensional, got {index.shape} and {count.shape}")
        if (count < 0).any() or count.sum() != len(index):
            raise ValueError(
                f"count must be non-negative and sum to the {len(index)} gazes of index, "
                f"got {len(count)} frames that sum to {count.sum()}"
            )
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
        if self.shift_px is not None:
            shift_px = _whole_numbers("shift_px", self.shift_px)
            if shift_px.shape != (len(count), 2):
                raise ValueError(f"shift_px must be ({len(count)}, 2), got {shift_px.shape}")
            # One way to say that nothing moves, so that equal gazes are equal however they were made.
            object.__setattr__(self, "shift_px", shift_px if shift_px.any() else None)

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
    def order(self) -> Indices:
        """(N,) place of each gaze inside its frame; 0 is the first."""
        return np.arange(self.num_gazes) - self._end[self.frame]

    @cached_property
    def boxes_px(self) -> Indices:
        """(N, 4) left, top, right, bottom of each gaze in video pixels, right and bottom exclusive."""
        return self.layout.patch_boxes_px[self.index]

    @cached_property
    def scale_px(self) -> Indices:
        """(N,) scale at which each patch is seen: side of its (tile's) frame in pixels."""
        return np.asarray(self.layout.grid.scales_px)[self.layout.locate(self.index)[0]]

    @cached_property
    def _end(self) -> Indices:
        """(T + 1,) where the gazes of each frame end; the first entry is 0."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.count)])

    def __getitem__(self, frames: int | slice) -> Gaze:
        """The gazes of one frame (a negative number counts from the end) or of a slice of frames.

        Where a slice leaves out frames in between, their shifts are added to that of the next frame.

        The result shares memory with the whole where the frames are consecutive.

        Raises:
            IndexError: there is no such frame.
        """
        if not isinstance(frames, slice):
            frame = operator.index(frames)
            if not -self.num_frames <= frame < self.num_frames:
                raise IndexError(f"frame {frame} of a gaze of {self.num_frames} frames")
            frames = slice(frame % self.num_frames, frame % self.num_frames + 1)
        start, stop, step = frames.indices(self.num_frames)
        if step == 1:
            return self._take(slice(self._end[start], self._end[stop]), count=slice(start, stop))
        chosen = np.arange(start, stop, step)
        count = self.count[chosen]
        # Runs of consecutive numbers, one run for each frame.
        skip = self._end[chosen] - (np.cumsum(count) - count)
        taken = self._take(np.arange(count.sum()) + np.repeat(skip, count), count=chosen)
        if self.shift_px is None or not len(chosen):
            return taken
        way_px = np.cumsum(self.shift_px, axis=0)[chosen]
        return replace(taken, shift_px=np.concatenate([self.shift_px[chosen[:1]], np.diff(way_px, axis=0)]))

    def _take(self, gazes: slice | Indices, *, count: slice | Indices | None = None) -> Gaze:
        """The gazes at these places; of the frames ``count``, or of all frames if only the order changes."""
        taken = slice(None) if count is None else count
        return Gaze(
            index=self.index[gazes],
            count=self.count[taken],
            layout=self.layout,
            probability=None if self.probability is None else self.probability[gazes],
            predicted_loss=None if self.predicted_loss is None else self.predicted_loss[gazes],
            time_seconds=None if self.time_seconds is None else self.time_seconds[taken],
            shift_px=None if self.shift_px is None else self.shift_px[taken],
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
        """(H, W) finest scale that shows each pixel of a frame: 0 none, 1 the coarsest scale, 2 the next, …

        Raises:
            IndexError: there is no such frame.
        """
        gaze = self[frame]
        scale = gaze.layout.locate(gaze.index)[0]
        boxes = gaze.boxes_px.tolist()
        image = np.zeros((self.layout.height_px, self.layout.width_px), np.uint8)
        for gazed in np.argsort(scale, kind="stable"):
            left, top, right, bottom = boxes[gazed]
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
            ValueError: the mask is not boolean, or does not have one column for every index of the layout.
        """
        if mask.dtype != np.bool_:
            raise ValueError(f"mask must be boolean, got {mask.dtype}; compare it with a number first")
        if mask.ndim != 2 or mask.shape[1] != layout.num_indices:
            raise ValueError(f"mask must be (T, {layout.num_indices}), got {mask.shape}")
        return cls(index=np.nonzero(mask)[1], count=mask.sum(1), layout=layout, time_seconds=time_seconds)

    @classmethod
    def concatenate(cls, gazes: Sequence[Gaze]) -> Gaze:
        """One gaze of all frames, one after the other.

        Numbers that some part lacks for its gazes (or frames) are dropped from the whole. Parts without shifts do not
        move.

        Raises:
            ValueError: there is nothing to join, or the parts are of different layouts.
        """
        if not gazes:
            raise ValueError("concatenate needs at least one gaze, got none")
        layout = gazes[0].layout
        for gaze in gazes:
            if gaze.layout is not layout and gaze.layout != layout:
                raise ValueError(f"cannot join gazes of different layouts: {layout} and {gaze.layout}")

        def joined(name: str) -> Any:
            per_frame = name in ("count", "time_seconds", "shift_px")
            parts = [(getattr(gaze, name), gaze.num_frames if per_frame else gaze.num_gazes) for gaze in gazes]
            if name == "shift_px" and any(part is not None for part, _ in parts):
                parts = [(np.zeros((n, 2), np.int64) if part is None else part, n) for part, n in parts]
            if any(part is None and length for part, length in parts):
                return None
            known = [part for part, _ in parts if part is not None]
            return np.concatenate(known) if known else None

        return cls(layout=layout, **{name: joined(name) for name in ("index", "count", *_OPTIONAL)})

    def in_order(self) -> Gaze:
        """The same patches in ascending order inside each frame."""
        return self._take(np.argsort(self.frame * self.layout.num_indices + self.index, kind="stable"))

    # Files

    @property
    def _version(self) -> int:
        return FORMAT_VERSION if self.shift_px is None else SHIFTED_VERSION

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one compressed file that :meth:`load` reads back without loss; it appears whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in ("index", "count", *_OPTIONAL)}
        for name, largest in (("index", self.layout.num_indices), ("count", self.count.max(initial=0))):
            arrays[name] = arrays[name].astype(np.min_scalar_type(largest))  # a quarter of the bytes, and of the time
        archive.save(
            path,
            {name: array for name, array in arrays.items() if array is not None},
            header={"format": FORMAT, "version": self._version, "layout": self.layout.to_json()},
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Gaze:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            GazeFileError: it is not a gaze file, is damaged, or comes from a newer version.
        """
        arrays, header = archive.load(path)
        _check_version(header, path)
        try:
            return cls(layout=FrameLayout.from_json(header["layout"]), **arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise GazeFileError(f"{path} is damaged: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """The whole gaze as plain lists and numbers; :meth:`from_json` reads it back.

        NaN and infinity, which JSON has no word for, become None, and come back as NaN; all else comes back as it
        was.
        """

        def plain(values: NDArray[Any] | None) -> list[Any] | None:
            if values is None:
                return None
            if values.ndim > 1 or values.dtype.kind != "f":
                return list(values.tolist())
            return [value if math.isfinite(value) else None for value in values.tolist()]

        return {
            "format": FORMAT,
            "version": self._version,
            "layout": self.layout.to_json(),
            **{name: plain(getattr(self, name)) for name in ("index", "count", *_OPTIONAL)},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gaze:
        """The gaze of a :meth:`to_json` value, also after it has been text.

        Raises:
            GazeFileError: it is not such a value.
        """
        _check_version(data, "the JSON value")

        def array(name: str) -> NDArray[np.float64] | None:
            values = data.get(name)
            return None if values is None else np.asarray([np.nan if v is None else v for v in values], float)

        try:
            return cls(
                index=data["index"],
                count=data["count"],
                layout=FrameLayout.from_json(data["layout"]),
                probability=array("probability"),  # type: ignore[arg-type]
                predicted_loss=array("predicted_loss"),  # type: ignore[arg-type]
                time_seconds=array("time_seconds"),
                shift_px=None if data.get("shift_px") is None else np.reshape(data["shift_px"], (-1, 2)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GazeFileError(f"the JSON gaze is damaged: {error}") from error

    def to_arrow(self) -> Any:
        """A ``pyarrow.Table`` with one row per gaze (extra ``table``).

        Columns: frame, time_seconds, order (0 is the first gaze of its frame), scale_px, row, column (counted
        over the whole frame), left_px, top_px, right_px, bottom_px, probability, predicted_loss. What the gaze does
        not have is null; a loss that was not asked is NaN.

        Raises:
            ImportError: pyarrow is not installed.
        """
        pyarrow = require("pyarrow", extra="table")
        _, row, column = self.layout.locate(self.index)
        left, top, right, bottom = self.boxes_px.T

        def known(values: NDArray[Any] | None, dtype: Any) -> Any:
            return pyarrow.nulls(self.num_gazes, dtype) if values is None else values

        return pyarrow.table(
            {
                "frame": self.frame,
                "time_seconds": known(
                    None if self.time_seconds is None else self.time_seconds[self.frame], pyarrow.float64()
                ),
                "order": self.order,
                "scale_px": self.scale_px,
                "row": row,
                "column": column,
                "left_px": left,
                "top_px": top,
                "right_px": right,
                "bottom_px": bottom,
                "probability": known(self.probability, pyarrow.float32()),
                "predicted_loss": known(self.predicted_loss, pyarrow.float32()),
            }
        )

    def to_pandas(self) -> Any:
        """The table of :meth:`to_arrow` as a ``pandas.DataFrame`` (extra ``table``).

        Raises:
            ImportError: pyarrow or pandas is not installed.
        """
        require("pandas", extra="table")
        return self.to_arrow().to_pandas()


def load(path: str | os.PathLike[str]) -> Gaze:
    """:meth:`Gaze.load` as a function."""
    return Gaze.load(path)


def _same(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b, equal_nan=True)


def _whole_numbers(name: str, values: Any) -> Indices:
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must hold whole numbers, got {array.dtype}")
    return array.astype(np.int64, copy=False)


def _check_version(data: Any, source: object) -> None:
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise GazeFileError(f"{source} is not a gaze; `autogaze gaze`, Gaze.save() and Gaze.to_json() write them")
    if data.get("version") not in (FORMAT_VERSION, SHIFTED_VERSION):
        raise GazeFileError(
            f"{source} has gaze format version {data.get('version')!r}, "
            f"this autogaze reads versions {FORMAT_VERSION} and {SHIFTED_VERSION}; update autogaze"
        )
