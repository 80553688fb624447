"""Small real videos for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def numbered_frames(T: int, *, height_px: int = 48, width_px: int = 64) -> NDArray[np.uint8]:
    """(T, H, W, 3) flat gray frames whose brightness tells their number: frame t is 4·t, for T up to 64."""
    frames = np.zeros((T, height_px, width_px, 3), np.uint8)
    frames += (4 * np.arange(T, dtype=np.uint8))[:, None, None, None]
    return frames


def numbers_of(rgb: NDArray[np.uint8]) -> list[int]:
    """Which of :func:`numbered_frames` each of these decoded frames is."""
    return [round(float(frame.mean()) / 4) for frame in rgb]


def moving_frames(T: int, *, height_px: int = 48, width_px: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """(T, H, W, 3) smooth noise that moves 2 px right a frame."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height_px // 8, width_px // 8, 3), dtype=np.uint8)
    still = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    return np.stack([np.roll(still, 2 * t, axis=1) for t in range(T)])


def noisy_frames(T: int, *, height_px: int = 48, width_px: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """(T, H, W, 3) noise that moves 1 px right a frame: coded, it is mostly pictures and little header."""
    still = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    return np.stack([np.roll(still, t, axis=1) for t in range(T)])


def quarters(*, height_px: int = 48, width_px: int = 64) -> NDArray[np.uint8]:
    """(H, W, 3) red, green, blue and white quarters: top left, top right, bottom left, bottom right."""
    frame = np.zeros((height_px, width_px, 3), np.uint8)
    top, left = slice(0, height_px // 2), slice(0, width_px // 2)
    bottom, right = slice(height_px // 2, None), slice(width_px // 2, None)
    frame[top, left], frame[top, right] = (255, 0, 0), (0, 255, 0)
    frame[bottom, left], frame[bottom, right] = (0, 0, 255), (255, 255, 255)
    return frame


def write_video(
    path: Path,
    frames: NDArray[np.generic] | Sequence[NDArray[np.generic]],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    source_format: str | None = None,
    fps: int = 30,
    options: Mapping[str, str] | None = None,
    container: str | None = None,
    times_ms: Sequence[int] | None = None,
    rotation: int | None = None,
    keyframe_every: int = 12,
    audio: bool = False,
) -> Path:
    """Encode (T, H, W, …) frames; ``times_ms`` makes the rate variable, ``rotation`` is degrees counterclockwise."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps, options=dict(options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.gop_size = keyframe_every
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        sound = output.add_stream("aac", rate=48_000) if audio else None
        for number, picture in enumerate(frames):
            kinds = {2: "gray", 3: "rgb24", 4: "rgba"}
            kind = source_format or kinds[2 if picture.ndim == 2 else picture.shape[2]]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=kind)
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            write_silence(output, sound)
    return path


def write_silence(output: av.container.OutputContainer, stream: av.AudioStream) -> None:
    """A moment of silence."""
    sound = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), format="fltp", layout="stereo")
    sound.sample_rate = 48_000
    output.mux(stream.encode(sound))
    output.mux(stream.encode(None))
