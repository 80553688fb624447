"""Decoded pictures to upright 8-bit RGB."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import SideData, SideDataContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from autogaze.errors import VideoError

MAX_SIDE_PX = 16_384
"""Longest side of a frame that is read."""

MOTION_VECTOR_DTYPE = np.dtype(
    [
        ("source", "int32"),
        ("w", "uint8"),
        ("h", "uint8"),
        ("src_x", "int16"),
        ("src_y", "int16"),
        ("dst_x", "int16"),
        ("dst_y", "int16"),
        ("flags", "uint64"),
        ("motion_x", "int32"),
        ("motion_y", "int32"),
        ("motion_scale", "uint16"),
    ],
    align=True,
)
"""One motion vector as the codec library lays it out; positions are block centres in pixels of the upright frame."""


def check_size(height_px: int, width_px: int, *, what: str) -> None:
    """Refuse frames that are empty or absurdly large.

    Raises:
        VideoError: a side is below 1 or above ``MAX_SIDE_PX``.
    """
    if min(height_px, width_px) < 1 or max(height_px, width_px) > MAX_SIDE_PX:
        raise VideoError(f"{what} has frames of {width_px}×{height_px} px; each side must be 1 to {MAX_SIDE_PX:,} px")


def over_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(…, 4) colours with straight alpha laid over black: (…, 3), rounded to nearest."""
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == 255:
        return rgb
    return ((rgb.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How a stored picture is turned to be upright: rows and columns swapped first, then flipped."""

    transposed: bool = False
    """Rows become columns."""
    flip_rows: bool = False
    """Then top and bottom change places."""
    flip_columns: bool = False
    """And left and right."""

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """The orientation a frame's display matrix asks for, to the nearest right angle."""
        matrix = _side_data(frame, "DISPLAYMATRIX")
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(np.int64)
        # A stored pixel (x, y) is shown at (a·x + c·y, b·x + d·y).
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transposed=True, flip_rows=bool(b < 0), flip_columns=bool(c < 0))
        return cls(flip_rows=bool(d < 0), flip_columns=bool(a < 0))

    def shape_px(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Height and width after turning; turning back is the same."""
        return (width_px, height_px) if self.transposed else (height_px, width_px)

    def turn(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) to upright, as a view."""
        if self.transposed:
            rgb = rgb.swapaxes(0, 1)
        return rgb[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def turn_vectors(self, vectors: NDArray[np.void], *, height_px: int, width_px: int) -> NDArray[np.void]:
        """Motion vectors to upright, for an upright frame of this size; a copy."""
        turned = vectors.copy()
        if self.transposed:
            for x, y in (("w", "h"), ("src_x", "src_y"), ("dst_x", "dst_y"), ("motion_x", "motion_y")):
                turned[x], turned[y] = vectors[y], vectors[x]
        for flip, side_px, axis in ((self.flip_columns, width_px, "x"), (self.flip_rows, height_px, "y")):
            if flip:
                turned[f"src_{axis}"] = side_px - turned[f"src_{axis}"]
                turned[f"dst_{axis}"] = side_px - turned[f"dst_{axis}"]
                turned[f"motion_{axis}"] = -turned[f"motion_{axis}"]
        return turned


class FrameConverter:
    """Turns the decoded frames of one video into upright RGB of one size, that of the first frame."""

    def __init__(self, first: av.VideoFrame) -> None:
        self.height_px, self.width_px = Orientation.of(first).shape_px(first.height, first.width)
        self._reformatter = VideoReformatter()

    def fits(self, frame: av.VideoFrame) -> bool:
        """Whether the frame has the size of the first one."""
        return Orientation.of(frame).shape_px(frame.height, frame.width) == (self.height_px, self.width_px)

    def rgb(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """(height_px, width_px, 3) upright colours, alpha over black; another size is rescaled."""
        orientation = Orientation.of(frame)
        height_px, width_px = orientation.shape_px(self.height_px, self.width_px)
        alpha = frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)
        picture: NDArray[Any] = self._reformatter.reformat(
            frame, width=width_px, height=height_px, format="rgba" if alpha else "rgb24"
        ).to_ndarray()
        return orientation.turn(over_black(picture) if alpha else picture)

    def motion_vectors(self, frame: av.VideoFrame) -> NDArray[np.void]:
        """(V,) of ``MOTION_VECTOR_DTYPE``, empty for a key frame and for a frame of another size."""
        side_data = _side_data(frame, "MOTION_VECTORS")
        if side_data is None or not self.fits(frame):
            return np.empty(0, MOTION_VECTOR_DTYPE)
        vectors = np.frombuffer(bytes(side_data), MOTION_VECTOR_DTYPE)
        return Orientation.of(frame).turn_vectors(vectors, height_px=self.height_px, width_px=self.width_px)


def _side_data(frame: av.VideoFrame, kind: str) -> SideData | None:
    # frame.side_data would tie each frame into a reference cycle, and dead frames would fill memory until they are
    # found by the garbage collector.
    # Its type declaration leaves the argument out.
    container = cast("Callable[[av.VideoFrame], Mapping[str, SideData]]", SideDataContainer)
    return container(frame).get(kind)
