"""How far rebuilt frames are from the true ones, judged by their pixels: no weights, pure functions.

Shape letters: B clips, F frames of each, H × W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from autogaze.configuration import read_json_object
from autogaze.errors import CheckpointError
from autogaze.models.autogaze.processing_autogaze import IMAGE_MEAN, IMAGE_STD, AutoGazeImageProcessor

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``(prediction, target) → loss``: two (B, F, 3, H, W) float tensors in, (B, F) out, 0 where they are equal."""

SSIM_SIGMA_PX = 1.5
SSIM_WINDOW_PX = 11
_K1, _K2 = 0.01, 0.03
# Image processors that bring colours to −1…1 before they normalise them; all others bring them to 0…1.
_HALVING = ("AutoGazeImageProcessor", "VivitImageProcessor")


@dataclass(frozen=True, kw_only=True)
class PixelSpace:
    """What normalised pixels mean: ``value = (colour − mean) / std`` for each channel, colours in 0…1."""

    mean: tuple[float, float, float]
    """Colour that becomes 0: red, green, blue."""
    std: tuple[float, float, float]
    """Difference of colours that becomes 1."""

    def __post_init__(self) -> None:
        legal = all(map(math.isfinite, self.mean)) and all(0 < number < math.inf for number in self.std)
        if len(self.mean) != 3 or len(self.std) != 3 or not legal:
            raise ValueError(
                f"mean and std must be three numbers each, std above 0, got mean {self.mean} and std {self.std}"
            )

    @classmethod
    def from_settings(
        cls,
        *,
        image_mean: Any = (0.0, 0.0, 0.0),
        image_std: Any = (1.0, 1.0, 1.0),
        rescale_factor: float = 1 / 255,
        offset: bool = False,
    ) -> PixelSpace:
        """The space of an image processor's settings, as ``preprocessor_config.json`` and its attributes name them.

        ``offset`` is the subtraction of 1 between rescaling and normalising.

        Raises:
            ValueError: the numbers do not make a space.
        """
        of_white = 255 * rescale_factor  # what the colour 1 is before it is normalised
        if not of_white > 0:
            raise ValueError(f"rescale_factor must be above 0, got {rescale_factor}")
        return cls(
            mean=tuple((float(mean) + offset) / of_white for mean in image_mean),  # type: ignore[arg-type]
            std=tuple(float(std) / of_white for std in image_std),  # type: ignore[arg-type]
        )

    @classmethod
    def of_processor(cls, processor: AutoGazeImageProcessor) -> PixelSpace:
        """The space of the frames that a processor makes."""
        normalises, rescales = processor.do_normalize, processor.do_rescale
        return cls.from_settings(
            image_mean=processor.image_mean if normalises else UNIT.mean,
            image_std=processor.image_std if normalises else UNIT.std,
            rescale_factor=processor.rescale_factor if rescales else 1.0,
            offset=processor.offset and rescales,
        )

    @classmethod
    def from_file(cls, path: Path, *, default: PixelSpace) -> PixelSpace:
        """The space that a checkpoint's ``preprocessor_config.json`` says its frames are in.

        Args:
            path: the file.
            default: the space where there is no such file, or it does not say mean and standard deviation. A file
                that does not say how colours are rescaled means what the processor it names does, and if it names
                none, what those of the published checkpoints do if ``default`` is theirs, else 0…1.

        Raises:
            CheckpointError: the file holds no legal settings.
        """
        if not path.is_file():
            return default
        settings = read_json_object(path)
        processor = settings.get("image_processor_type", settings.get("feature_extractor_type"))
        halving = default == PUBLISHED if processor is None else processor in _HALVING
        given = {"rescale_factor": 1 / 127.5 if halving else 1 / 255, "offset": halving} | {
            name: settings[name] for name in ("image_mean", "image_std", "rescale_factor", "offset") if name in settings
        }
        if settings.get("do_rescale") is False:
            given |= {"rescale_factor": 1.0, "offset": False}
        if settings.get("do_normalize") is False:
            given |= {"image_mean": UNIT.mean, "image_std": UNIT.std}
        if not {"image_mean", "image_std"} <= given.keys():
            return default
        try:
            return cls.from_settings(**given)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path} does not hold legal settings: {error}") from error

    def processor(self, *, side_px: int) -> AutoGazeImageProcessor:
        """What turns frames of any size into (side, side) ones in this space, stretched; see :meth:`of_processor`."""
        size = {"height": side_px, "width": side_px}
        if self == PUBLISHED:
            return AutoGazeImageProcessor(size=size)
        return AutoGazeImageProcessor(
            size=size, rescale_factor=1 / 255, offset=False, image_mean=self.mean, image_std=self.std
        )

    @property
    def unit(self) -> str:
        """What a difference of 1 is, in a few words."""
        of_channels = ", ".join(f"{number:.3g}" for number in self.std)
        return _UNITS.get(self, f"units of {of_channels} of red, green and blue from 0 to 1")

    def to_unit(self, frames: Tensor) -> Tensor:
        """(…, 3, H, W) floats of this space as colours in 0…1, not clamped."""
        return frames * _channels(self.std, frames) + _channels(self.mean, frames)

    def from_unit(self, colours: Tensor) -> Tensor:
        """(…, 3, H, W) colours in 0…1 as floats of this space; inverse of :meth:`to_unit`."""
        return (colours - _channels(self.mean, colours)) / _channels(self.std, colours)

    def convert(self, frames: Tensor, *, to: PixelSpace) -> Tensor:
        """(…, 3, H, W) floats of this space as floats of another."""
        return frames if to == self else to.from_unit(self.to_unit(frames))

    def on_colours(self, loss: Loss) -> Loss:
        """A loss of colours in 0…1 as a loss of frames in this space."""
        return partial(_on_colours, self, loss)


UNIT = PixelSpace(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Colours in 0…1 themselves."""
HALF = PixelSpace(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""−1…1, as SigLIP reads it."""
IMAGENET = PixelSpace(mean=IMAGE_MEAN, std=IMAGE_STD)
"""Colours in 0…1 minus ImageNet's mean, over its standard deviation, as DINOv2 and ViT-MAE read it."""
PUBLISHED = PixelSpace.from_settings(image_mean=IMAGE_MEAN, image_std=IMAGE_STD, rescale_factor=1 / 127.5, offset=True)
"""Colours in −1…1 minus ImageNet's mean, over its standard deviation: what the published processors make for the gaze
model and for the masked autoencoder alike."""
_UNITS = {
    UNIT: "colours from 0 to 1",
    HALF: "colours from −1 to 1",
    IMAGENET: "standard deviations of ImageNet's colours",
    PUBLISHED: "half standard deviations of ImageNet's colours",
}


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """(B, F) mean absolute difference over channels and pixels, in the unit of the frames.

    Raises:
        ValueError: the two are not (B, F, 3, H, W) of one shape.
    """
    check_frames(prediction, target)
    return (prediction - target).abs().mean(dim=(-3, -2, -1))


def multi_scale_gradient(prediction: Tensor, target: Tensor, *, levels: int = 4) -> Tensor:
    """(B, F) how differently colours change from pixel to pixel, in the unit of the frames.

    Mean absolute difference of the horizontal and of the vertical finite differences, averaged over both directions
    and over ``levels`` sizes, each with 2 × 2 pixels of the one before averaged into one. A constant added to either
    frame changes nothing. Sizes end before a side is shorter than 2 px.

    Raises:
        ValueError: the two are not (B, F, 3, H, W) of one shape, smaller than 2 × 2 px, or ``levels`` is below 1.
    """
    check_frames(prediction, target, min_px=2)
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    # Differences and averages are linear, so those of the error are the errors of those.
    error = (prediction - target).flatten(0, 1)
    means = []
    for _ in range(levels):
        across = error.diff(dim=-1).abs().mean(dim=(-3, -2, -1))
        down = error.diff(dim=-2).abs().mean(dim=(-3, -2, -1))
        means.append((across + down) / 2)
        if min(error.shape[-2:]) < 4:
            break
        error = F.avg_pool2d(error, 2)
    return torch.stack(means).mean(0).view(prediction.shape[:2])


def ssim(prediction: Tensor, target: Tensor, *, data_range: float = 1.0) -> Tensor:
    """(B, F) structural similarity: 1 for equal frames, lower the less they have in common.

    Wang et al. 2004, with their Gaussian window (σ 1.5 px, cut to 11 px), population variances and K₁, K₂ = 0.01,
    0.03; averaged over channels and over the places where the window lies inside the frame. Computed in float32 at
    least, because variances are differences of large numbers.

    Args:
        prediction: colours; in 0…1 if ``data_range`` is 1.
        target: likewise.
        data_range: difference between white and black.

    Raises:
        ValueError: the two are not (B, F, 3, H, W) of one shape, or smaller than the window.
    """
    check_frames(prediction, target, min_px=SSIM_WINDOW_PX)
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    with torch.autocast(prediction.device.type, enabled=False):
        p, t = (frames.to(dtype).flatten(0, 2)[:, None] for frames in (prediction, target))
        moments = _blur(torch.cat([p, t, p * p, t * t, p * t], dim=1))
        mean_p, mean_t, square_p, square_t, product = moments.unbind(1)
        variances = square_p - mean_p**2 + square_t - mean_t**2
        covariance = product - mean_p * mean_t
        c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
        similarity = (2 * mean_p * mean_t + c1) * (2 * covariance + c2)
        similarity = similarity / ((mean_p**2 + mean_t**2 + c1) * (variances + c2))
        return similarity.mean(dim=(-2, -1)).view(prediction.shape[:3]).mean(-1)


def ssim_loss(prediction: Tensor, target: Tensor, *, data_range: float = 1.0) -> Tensor:
    """(B, F) ``1 − ssim``, from 0 to 2 and without unit; see :func:`ssim`.

    Raises:
        ValueError: as :func:`ssim`.
    """
    return 1 - ssim(prediction, target, data_range=data_range)


def _blur(maps: Tensor) -> Tensor:
    """(n, m, H, W) maps under the window, where it lies inside.

    By matrix products: twice as fast as a convolution on a CPU, and in full precision on a GPU.
    """
    return _window(maps.shape[-2], maps) @ maps @ _window(maps.shape[-1], maps).mT


def _window(side_px: int, maps: Tensor) -> Tensor:
    """(side − 10, side) the window at each place of a line."""
    places = torch.arange(side_px, dtype=maps.dtype, device=maps.device)
    middles = places[SSIM_WINDOW_PX // 2 : side_px - SSIM_WINDOW_PX // 2, None]
    distance_px = (places - middles).abs()
    weight = torch.exp(-0.5 * (distance_px / SSIM_SIGMA_PX) ** 2)
    weight = weight.masked_fill(distance_px > SSIM_WINDOW_PX // 2, 0)
    return weight / weight.sum(-1, keepdim=True)


def _on_colours(space: PixelSpace, loss: Loss, prediction: Tensor, target: Tensor) -> Tensor:
    return loss(space.to_unit(prediction), space.to_unit(target))


def _channels(numbers: tuple[float, float, float], frames: Tensor) -> Tensor:
    return frames.new_tensor(numbers)[:, None, None]


def check_frames(prediction: Tensor, target: Tensor, *, min_px: int = 1) -> None:
    """Refuse what no loss can compare.

    Raises:
        ValueError: the two are not (B, F, 3, H, W) of one shape, or a side is shorter than ``min_px``.
    """
    shape = tuple(prediction.shape)
    if len(shape) != 5 or shape[2] != 3 or tuple(target.shape) != shape:
        raise ValueError(
            f"prediction and target must be (B, F, 3, H, W) of one shape, got {shape} and {tuple(target.shape)}"
        )
    if min(shape[-2:]) < min_px:
        raise ValueError(f"frames must be at least {min_px} × {min_px} px, got {shape[-2]} × {shape[-1]}")
