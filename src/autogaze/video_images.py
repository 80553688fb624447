"""Images, arrays and tensors as sources of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from autogaze.errors import VideoError
from autogaze.video_pixels import check_size, over_black
from autogaze.video_sources import ASSUMED_FPS, SourceFrame

ANIMATED_FORMATS = frozenset({"WEBP", "PNG", "TIFF", "AVIF"})
"""Image formats whose further images are further frames (not so in MPO, whose second image is a depth map)."""
DAMAGED = (OSError, SyntaxError, ValueError, EOFError)
"""What reading a damaged image raises."""


class IndexedSource:
    """Frames that are fetched by number and shown at a steady rate."""

    fps = ASSUMED_FPS
    rounding_seconds = 0.0

    def __init__(
        self, load: Callable[[int], NDArray[np.uint8]], *, name: str, what: str, labels: Sequence[object]
    ) -> None:
        """``load(number)`` gives upright (H, W, 3) colours; ``labels`` name each frame, ``what`` all of them.

        Raises:
            VideoError: no frame can be loaded, or the frames are absurdly large.
        """
        self.name = name
        self.num_frames = len(labels)
        self.warnings: list[str] = []
        self._load = load
        self._labels = labels
        self._what = what
        first = self._first()
        check_size(*first.shape[:2], what=what)
        self.height_px, self.width_px = first.shape[:2]

    def frames(self) -> Iterator[SourceFrame]:
        """All frames; one that cannot be loaded is left out with a warning.

        Raises:
            VideoError: an image has another size than the first.
        """
        for number in range(self.num_frames):
            try:
                rgb = self._load(number)
            except OSError as error:
                self.warnings.append(f"{self._labels[number]} cannot be read and is left out: {_one_line(error)}")
                continue
            if rgb.shape[:2] != (self.height_px, self.width_px):
                raise VideoError(
                    f"{self._labels[number]} is {rgb.shape[1]}×{rgb.shape[0]} px, but {self._what} starts with "
                    f"{self.width_px}×{self.height_px} px; the images of one source must have one size"
                )
            yield SourceFrame(
                number=number,
                time_seconds=number / self.fps,
                duration_seconds=1 / self.fps,
                rgb=partial(np.asarray, rgb),
            )

    def count_frames(self) -> int:
        """How many frames there are."""
        return self.num_frames

    def close(self) -> None:
        """Nothing is held open."""

    def _first(self) -> NDArray[np.uint8]:
        problem: Exception | None = None
        for number in range(self.num_frames):
            try:
                return self._load(number)
            except OSError as error:
                problem = problem or error
        reason = f"; the first says: {_one_line(problem)}" if problem else ""
        raise VideoError(f"no image of {self._what} can be read{reason}")


class AnimatedImageSource:
    """The frames of one animated image, with their own durations."""

    rounding_seconds = 0.0

    def __init__(self, path: Path) -> None:
        """Open the image.

        Raises:
            OSError: it cannot be read.
            VideoError: it is absurdly large.
        """
        self._image = Image.open(path)
        check_size(self._image.height, self._image.width, what=str(path))
        self.name = path.stem
        self.num_frames: int = getattr(self._image, "n_frames", 1)
        self.warnings: list[str] = []
        self.height_px, self.width_px, _ = image_rgb(self._image).shape
        self._seconds: float = self._duration_seconds()
        self.fps = 1 / self._seconds

    def frames(self) -> Iterator[SourceFrame]:
        """All frames, each composed as it is shown."""
        time_seconds = 0.0
        for number in range(self.num_frames):
            try:
                self._image.seek(number)
                rgb = image_rgb(self._image)
            except DAMAGED as error:
                self.warnings.append(f"damaged at frame {number} ({time_seconds:.3f} s): {_one_line(error)}")
                return
            if rgb.shape[:2] != (self.height_px, self.width_px):
                raise VideoError(f"image {number} of {self.name} has another size than the first")
            seconds = self._duration_seconds()
            yield SourceFrame(
                number=number, time_seconds=time_seconds, duration_seconds=seconds, rgb=partial(np.asarray, rgb)
            )
            time_seconds += seconds

    def count_frames(self) -> int:
        """How many frames there are."""
        return self.num_frames

    def close(self) -> None:
        """Close the file."""
        self._image.close()

    def _duration_seconds(self) -> float:
        milliseconds = float(self._image.info.get("duration", 0) or 0)
        return milliseconds / 1000 if milliseconds > 0 else 1 / ASSUMED_FPS


def open_images(paths: Sequence[Path], *, name: str, what: str) -> IndexedSource:
    """Image files as the frames of one video.

    Raises:
        VideoError: none can be read, or they are absurdly large.
    """
    return IndexedSource(lambda number: _file_rgb(paths[number]), name=name, what=what, labels=paths)


def open_image(path: Path) -> IndexedSource | AnimatedImageSource:
    """One image as a video of one frame, or an animated one as a video of its frames.

    Raises:
        VideoError: it cannot be read, or it is absurdly large.
    """
    try:
        with Image.open(path) as image:
            check_size(image.height, image.width, what=str(path))
            animated = image.format in ANIMATED_FORMATS and getattr(image, "n_frames", 1) > 1
        return AnimatedImageSource(path) if animated else open_images([path], name=path.stem, what=str(path))
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise VideoError(f"{path} cannot be read as an image: {_one_line(error)}") from error


def open_pil(images: Sequence[Any]) -> IndexedSource:
    """A list of PIL images as the frames of one video.

    Raises:
        ValueError: something in the list is no PIL image, or has another size than the first.
        VideoError: the list is empty.
    """
    if not images:
        raise VideoError("the list of images is empty; it must hold at least one PIL image")
    for position, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise ValueError(
                f"item {position} of the list is a {type(image).__name__}; a list must hold PIL images "
                "(stack arrays to one (T, H, W, 3) uint8 array)"
            )
        if image.size != images[0].size:
            raise ValueError(f"image {position} is {image.size} px, image 0 {images[0].size}; all must be one size")
    return IndexedSource(
        lambda number: image_rgb(images[number]),
        name="images",
        what="the list of images",
        labels=[f"image {position}" for position in range(len(images))],
    )


def open_array(array: NDArray[Any]) -> IndexedSource:
    """A (T, H, W, 3) colour, (T, H, W, 4) alpha or (T, H, W) gray uint8 array.

    Raises:
        ValueError: it is none of these.
        VideoError: it holds no pixel, or is absurdly large.
    """
    legal = "an array must be uint8 of (T, H, W, 3), (T, H, W, 4) with alpha, or (T, H, W) gray"
    got = f"{array.dtype} {array.shape}"
    if array.dtype != np.uint8:
        raise ValueError(f"{legal}, got {got}; scale floats to 0..255 and use .astype(np.uint8)")
    if array.ndim == 3 and array.shape[-1] in (3, 4):
        raise ValueError(f"{legal}, got {got}, which looks like one picture; use array[None]")
    if array.ndim == 4 and array.shape[-1] not in (3, 4) and array.shape[1] in (3, 4):
        raise ValueError(f"{legal}, got {got}; use np.moveaxis(array, 1, -1)")
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in (3, 4)):
        raise ValueError(f"{legal}, got {got}")
    return _indexed(array, name="array", frame=_array_rgb)


def open_tensor(tensor: torch.Tensor) -> IndexedSource:
    """A (T, 3, H, W) or (T, H, W, 3) tensor of uint8, or of floats from 0 to 1.

    Raises:
        ValueError: it is none of these, could be both, or a float lies outside 0..1.
        VideoError: it holds no pixel, or is absurdly large.
    """
    legal = "a tensor must be (T, 3, H, W) or (T, H, W, 3) of uint8, or of floats from 0 to 1"
    got = f"{tensor.dtype} {tuple(tensor.shape)}"
    if tensor.ndim != 4 or 3 not in (tensor.shape[1], tensor.shape[3]):
        raise ValueError(f"{legal}, got {got}")
    if tensor.shape[1] == 3 == tensor.shape[3]:
        raise ValueError(f"{legal}, got {got}, which could be either; give a (T, H, W, 3) numpy array")
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ValueError(f"{legal}, got {got}")
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.numel():
        low, high = float(tensor.min()), float(tensor.max())
        if not (low >= 0 and high <= 1):  # also false for NaN
            raise ValueError(f"{legal}, got floats from {low:.3g} to {high:.3g}")
    if tensor.shape[1] == 3:
        tensor = tensor.movedim(1, -1)
    return _indexed(tensor, name="tensor", frame=_tensor_rgb)


def image_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) colours of an image: upright, alpha over black, 16-bit gray scaled to 8 bits.

    Raises:
        OSError: the image is damaged.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        gray = np.asarray(image).astype(np.int64).clip(0, 65_535)
        return np.repeat(((gray * 255 + 32_767) // 65_535).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise OSError("images of floats have no known range; save them with 8 or 16 bits")
    if image.has_transparency_data:
        return over_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _indexed(video: Any, *, name: str, frame: Callable[[Any], NDArray[np.uint8]]) -> IndexedSource:
    if 0 in video.shape:
        raise VideoError(
            f"the {name} of shape {tuple(video.shape)} is empty; it must hold at least one frame of 1×1 px"
        )
    return IndexedSource(
        lambda number: frame(video[number]), name=name, what=f"the {name}", labels=range(video.shape[0])
    )


def _array_rgb(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if frame.ndim == 2:
        return np.broadcast_to(frame[..., None], (*frame.shape, 3))
    return over_black(frame) if frame.shape[-1] == 4 else frame


def _tensor_rgb(frame: torch.Tensor) -> NDArray[np.uint8]:
    if frame.is_floating_point():
        frame = (frame.float() * 255).round().to(torch.uint8)
    return frame.cpu().numpy()


def _file_rgb(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return image_rgb(image)
    except (Image.DecompressionBombError, *DAMAGED) as error:
        raise OSError(str(error)) from error


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split()) or type(error).__name__
