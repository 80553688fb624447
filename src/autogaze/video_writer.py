"""Write frames as an mp4 that plays everywhere."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from autogaze.archive import atomic_path

_BT709 = 1  # the number of the colour matrix, primaries and transfer curve in the standard's tables


class VideoWriter:
    """An mp4 being written: h264 if this build of FFmpeg has an encoder, else mpeg4.

    Use it in a ``with`` block. The file appears under its name when the block ends well, and not at all otherwise.
    An odd height or width is padded by repeating the last row or column, as 4:2:0 colour wants even ones.
    """

    def __init__(self, path: str | os.PathLike[str], *, fps: float, height_px: int, width_px: int) -> None:
        """Prepare to write frames of one size at a steady rate.

        Raises:
            ValueError: the rate or the size is not legal.
        """
        if not 0 < fps < math.inf:
            raise ValueError(f"fps must be a finite number above 0, got {fps}")
        if height_px < 1 or width_px < 1:
            raise ValueError(f"a frame needs at least 1×1 px, got {width_px}×{height_px}")
        self._path = Path(path)
        self._fps = fps
        self._height_px = height_px
        self._width_px = width_px
        self._stack = ExitStack()
        self._output: tuple[OutputContainer, VideoStream] | None = None
        self._written = 0

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            OSError: it cannot be made.
        """
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            # FFmpeg takes what stands before a colon for a protocol, unless a slash comes first.
            container = av.open(str(temporary.absolute()), "w", format="mp4", options={"movflags": "+faststart"})
            stack.push(lambda kind, *_: _close(container, failed=kind is not None))
            stream = self._add_stream(container)
            container.start_encoding()
            self._output = container, stream
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the file, or remove what was written of it.

        Raises:
            OSError: the rest cannot be written, as on a full disk.
            ValueError: no frame was written.
        """
        output, self._output = self._output, None
        if error is not None:
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:
            if not self._written:
                raise ValueError(f"no frame was written to {self._path}; write at least one")
            if output is not None:
                container, stream = output
                container.mux(stream.encode(None))

    def write(self, rgb: NDArray[np.uint8]) -> None:
        """Append (T, height_px, width_px, 3) uint8 frames.

        Raises:
            OSError: they cannot be written, as on a full disk.
            ValueError: they have another shape or type.
            RuntimeError: the writer is not open.
        """
        if self._output is None:
            raise RuntimeError("the writer is not open; use it as: with VideoWriter(...) as writer")
        expected = (self._height_px, self._width_px, 3)
        if rgb.ndim != 4 or rgb.shape[1:] != expected or rgb.dtype != np.uint8:
            raise ValueError(
                f"frames must be uint8 of (T, {', '.join(map(str, expected))}), got {rgb.dtype} {rgb.shape}"
            )
        container, stream = self._output
        if self._height_px % 2 or self._width_px % 2:
            rgb = np.pad(rgb, ((0, 0), (0, self._height_px % 2), (0, self._width_px % 2), (0, 0)), mode="edge")
        for picture in rgb:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            container.mux(stream.encode(frame))
            self._written += 1

    def _add_stream(self, container: OutputContainer) -> VideoStream:
        height_px, width_px = self._height_px + self._height_px % 2, self._width_px + self._width_px % 2
        if "libx264" in av.codecs_available:
            rate = Fraction(self._fps).limit_denominator(1001)
            stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        else:
            # mpeg4 counts time in 16 bits.
            rate = Fraction(self._fps).limit_denominator(max(1, int(65_535 / max(1.0, self._fps))))
            stream = container.add_stream("mpeg4", rate=rate)
            stream.bit_rate = max(200_000, int(0.15 * height_px * width_px * min(self._fps, 60)))
        stream.height, stream.width = height_px, width_px
        stream.pix_fmt = "yuv420p"
        stream.colorspace = stream.color_primaries = stream.color_trc = _BT709
        stream.color_range = ColorRange.MPEG
        return stream


def _close(container: OutputContainer, *, failed: bool) -> None:
    if not failed:
        container.close()
        return
    with suppress(av.error.FFmpegError, OSError):  # the reason why it failed is the one to tell
        container.close()
