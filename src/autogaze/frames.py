"""Decoded frames: what every selector reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Consecutive sampled frames of one video. T frames of H × W pixels, T ≥ 1.

    Raises:
        ValueError: an array is of another shape or dtype than stated below.
    """

    rgb: NDArray[np.uint8]
    """(T, H, W, 3) colours, upright, 8 bits a channel."""
    time_seconds: NDArray[np.float64]
    """(T,) when each frame is shown, from the start of the video."""
    number: NDArray[np.int64]
    """(T,) position of each frame among all decoded frames of the video."""
    motion_vectors: tuple[NDArray[np.void], ...] | None = None
    """Per frame the codec's motion vectors as PyAV exports them (structured; empty for key frames), if asked for."""

    def __post_init__(self) -> None:
        if self.rgb.ndim != 4 or self.rgb.shape[-1] != 3 or self.rgb.dtype != np.uint8:
            raise ValueError(f"rgb must be (T, H, W, 3) uint8, got {self.rgb.shape} {self.rgb.dtype}")
        if min(self.rgb.shape) < 1:
            raise ValueError(f"rgb must hold at least one frame of 1 × 1 px, got {self.rgb.shape}")
        T = len(self.rgb)
        if self.time_seconds.shape != (T,) or self.number.shape != (T,):
            raise ValueError(
                f"time_seconds and number must be ({T},) like rgb, "
                f"got {self.time_seconds.shape} and {self.number.shape}"
            )
        if self.motion_vectors is not None and len(self.motion_vectors) != T:
            raise ValueError(f"motion_vectors must have {T} entries, got {len(self.motion_vectors)}")

    def __len__(self) -> int:
        return len(self.rgb)

    def __getitem__(self, frames: slice) -> Frames:
        """The frames of a slice, which share the arrays' memory.

        Raises:
            ValueError: the slice holds no frame.
        """
        return Frames(
            rgb=self.rgb[frames],
            time_seconds=self.time_seconds[frames],
            number=self.number[frames],
            motion_vectors=None if self.motion_vectors is None else self.motion_vectors[frames],
        )

    def __repr__(self) -> str:
        T, height, width, _ = self.rgb.shape
        return f"Frames({T} of {width}×{height} px, {self.time_seconds[0]:.3f}–{self.time_seconds[-1]:.3f} s)"

    @property
    def height_px(self) -> int:
        """Height of the frames."""
        return int(self.rgb.shape[1])

    @property
    def width_px(self) -> int:
        """Width of the frames."""
        return int(self.rgb.shape[2])

    @classmethod
    def from_rgb(cls, rgb: NDArray[np.uint8], *, fps: float = 30.0) -> Frames:
        """Frames of a (T, H, W, 3) uint8 array, ``1 / fps`` seconds apart.

        Raises:
            ValueError: the array is of another shape or dtype, or ``fps`` is not a positive number.
        """
        if not 0 < fps < np.inf:
            raise ValueError(f"fps must be a positive number, got {fps}")
        number = np.arange(len(rgb), dtype=np.int64)
        return cls(rgb=rgb, time_seconds=number / fps, number=number)
