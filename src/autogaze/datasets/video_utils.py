"""The published helpers that read a clip and turn it into what the published model call takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from av.container import InputContainer
from numpy.typing import ArrayLike, NDArray

from autogaze.errors import VideoError


class PixelValues(Protocol):
    """What an image processor returns."""

    pixel_values: Any
    """Per video a list of (3, H, W) arrays or tensors, one a frame; or that list itself; or one (T, 3, H, W) array."""


def read_video_pyav(container: InputContainer, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """The frames of an opened container with these numbers, as (T, H, W, 3) RGB.

    Frames come in the order of ``indices``, as often as they are named, and as they are stored: rotation metadata is
    not applied (:func:`autogaze.video.open_video` does). Numbers past the end of the video are left out.

    Raises:
        ValueError: no number is given, or one is negative.
        VideoError: the container has no video, or none of these frames.
    """
    wanted = [int(index) for index in indices]
    if not wanted or min(wanted) < 0:
        raise ValueError(f"indices must be frame numbers of at least 0, got {wanted or 'none'}")
    if not container.streams.video:
        raise VideoError(f"{container.name} holds no video")
    container.seek(0)
    needed, last = set(wanted), max(wanted)
    found: dict[int, NDArray[np.uint8]] = {}
    for number, frame in enumerate(container.decode(container.streams.video[0])):
        if number in needed:
            found[number] = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        if number >= last:
            break
    if not found:
        raise VideoError(f"{container.name} ends before frame {min(wanted)}; ask for earlier frames")
    return np.stack([found[number] for number in wanted if number in found])


def transform_video_for_pytorch(
    video: ArrayLike | Sequence[Any], transform: Callable[[list[Any]], PixelValues] | None = None
) -> torch.Tensor:
    """A (T, H, W, 3) uint8 clip, or a list of its frames, as a (T, 3, H, W) tensor.

    ``transform`` is an image processor such as ``AutoGazeImageProcessor``: it is called with the list of frames and
    decides size, type and range. Without one the values stay as they are (uint8 from 0 to 255 for a decoded clip).

    Raises:
        ValueError: the clip or what the transform returns has another shape.
    """
    if transform is None:
        frames = torch.from_numpy(np.stack([np.asarray(frame) for frame in _frames(video)]))
        if frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(f"a clip must be (T, H, W, 3), got {tuple(frames.shape)}")
        return frames.movedim(-1, 1).contiguous()
    pixels = transform(_frames(video)).pixel_values
    if isinstance(pixels, list | tuple) and len(pixels) and isinstance(pixels[0], list | tuple):
        pixels = pixels[0]
    clip = torch.stack([torch.as_tensor(frame) for frame in pixels])
    if clip.ndim == 5 and len(clip) == 1:
        clip = clip[0]
    if clip.ndim == 4 and clip.shape[1] != 3 and clip.shape[-1] == 3:
        clip = clip.movedim(-1, 1).contiguous()
    if clip.ndim != 4 or clip.shape[1] != 3:
        raise ValueError(f"the transform must give (T, 3, H, W) pixel values, got {tuple(clip.shape)}")
    return clip


def _frames(video: Any) -> list[Any]:
    frames = list(video)
    if not frames:
        raise ValueError("the clip holds no frame; it must be (T, H, W, 3) with T of at least 1")
    return frames
