"""Frames as the gaze model reads them: resized, rescaled and normalised as the published checkpoint wants it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RemoteEntryNotFoundError
from numpy.typing import NDArray
from PIL import Image

from autogaze.archive import atomic_path
from autogaze.errors import CheckpointError

PROCESSOR_NAME = "preprocessor_config.json"
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

Size = int | Sequence[int] | Mapping[str, int]


class ProcessedVideos(Mapping[str, Any]):
    """What the processor returns: ``.pixel_values``, which ``["pixel_values"]`` gives too."""

    def __init__(self, pixel_values: Any) -> None:
        self.pixel_values = pixel_values
        """A list over videos of lists over frames of (3, H, W) float32 arrays, or one (B, T, 3, H, W) tensor."""

    def __getitem__(self, key: str) -> Any:
        if key != "pixel_values":
            raise KeyError(key)
        return self.pixel_values

    def __iter__(self) -> Iterator[str]:
        return iter(("pixel_values",))

    def __len__(self) -> int:
        return 1


class AutoGazeImageProcessor:
    """Turns uint8 frames into normalised float32 ones.

    The settings are those of ``preprocessor_config.json``, and are attributes too. What the published checkpoint
    says is the default: the shorter side to 224 px (bilinear, antialiased, nothing cropped, so that a frame that is
    not square stays so), x / 127.5 − 1, then minus mean and over standard deviation.
    """

    def __init__(
        self,
        *,
        size: Size | None = None,
        resample: int = Image.Resampling.BILINEAR,
        do_resize: bool = True,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 127.5,
        offset: bool = True,
        do_normalize: bool = True,
        image_mean: Sequence[float] = IMAGE_MEAN,
        image_std: Sequence[float] = IMAGE_STD,
        do_center_crop: bool = False,
        **extra: Any,
    ) -> None:
        """See the class.

        Args:
            size: ``{"shortest_edge": px}`` or a number, the other side follows; ``{"height": px, "width": px}`` or
                (height, width), exactly that. None: shortest edge 224.
            resample: a ``PIL.Image.Resampling``.
            do_resize: whether to resize.
            do_rescale: whether to multiply by ``rescale_factor`` (and subtract 1 with ``offset``).
            rescale_factor: multiplies pixel values of 0..255.
            offset: whether 1 is subtracted after rescaling.
            do_normalize: whether to subtract ``image_mean`` and divide by ``image_std``.
            image_mean: one number for each of red, green, blue, in rescaled units.
            image_std: likewise, none of them 0.
            do_center_crop: must be false.
            extra: unknown settings, kept and saved again, without effect.

        Raises:
            ValueError: a setting is not legal.
        """
        if do_center_crop:
            raise ValueError("do_center_crop=True is not supported: a crop would hide what lies at the borders")
        self.size = _legal_size({"shortest_edge": 224} if size is None else size)
        self.resample = Image.Resampling(resample)
        self.do_resize, self.do_rescale, self.do_normalize = do_resize, do_rescale, do_normalize
        self.rescale_factor, self.offset = float(rescale_factor), offset
        self.image_mean, self.image_std = tuple(map(float, image_mean)), tuple(map(float, image_std))
        self.do_center_crop = do_center_crop
        self.extra = extra
        if len(self.image_mean) != 3 or len(self.image_std) != 3 or 0 in self.image_std:
            raise ValueError(
                f"image_mean and image_std must be three numbers each, image_std not 0, "
                f"got {self.image_mean} and {self.image_std}"
            )

    def __call__(self, images: Any, *, return_tensors: Literal["pt", "np"] | None = None) -> ProcessedVideos:
        """Prepare one video, or several.

        Args:
            images: a list of frames (one video) or a list of such lists; a frame is a PIL image or a uint8 array or
                CPU tensor of (H, W, 3) or (3, H, W). Arrays of frames, and of videos, do as well as lists, and a
                single frame is a video of one.
            return_tensors: None for lists, "pt" or "np" for one (B, T, 3, H, W) float32 tensor or array.

        Raises:
            ValueError: there are no frames, a frame is no such thing, or the frames do not stack.
        """
        if return_tensors not in (None, "pt", "np"):
            raise ValueError(f'return_tensors must be "pt", "np" or None, got {return_tensors!r}')
        table = self._levels()
        videos = [[self._prepare(frame, table) for frame in video] for video in _videos(images)]
        if return_tensors is None:
            return ProcessedVideos(videos)
        shapes = {(len(video), frame.shape) for video in videos for frame in video}
        if len(shapes) > 1:
            raise ValueError(
                f"videos of {sorted(shapes)} (frames, shape) do not stack; give size=(height, width) and equally many "
                "frames, or leave return_tensors out"
            )
        stacked = np.stack([np.stack(video) for video in videos])
        if return_tensors == "np":
            return ProcessedVideos(stacked)
        import torch  # only here: all else works on arrays

        return ProcessedVideos(torch.from_numpy(stacked))

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        size: Size | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> AutoGazeImageProcessor:
        """The processor of a checkpoint folder, a file in one, or a hub id; ``size`` and ``overrides`` go first.

        A checkpoint without ``preprocessor_config.json`` gets the defaults, which are the published settings.

        Raises:
            CheckpointError: there is no such folder, the hub cannot be reached, or the settings are not legal.
        """
        path = Path(source)
        config: Path | None
        if path.exists():
            config = (path if path.is_dir() else path.parent) / PROCESSOR_NAME
        else:
            hub = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
            config = _download(str(source), hub)
        try:
            found = json.loads(config.read_bytes()) if config is not None and config.is_file() else {}
            settings = {**found, **overrides}
            return cls(**(settings if size is None else settings | {"size": size}))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{config or source} does not hold legal settings: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """All settings as they are written to ``preprocessor_config.json``."""
        return {
            **self.extra,
            "image_processor_type": type(self).__name__,
            "size": self.size,
            "resample": int(self.resample),
            "do_resize": self.do_resize,
            "do_rescale": self.do_rescale,
            "rescale_factor": self.rescale_factor,
            "offset": self.offset,
            "do_normalize": self.do_normalize,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "do_center_crop": self.do_center_crop,
        }

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``preprocessor_config.json`` into a folder, made if it is not there.

        Raises:
            OSError: the folder or the file cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / PROCESSOR_NAME) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    def _levels(self) -> NDArray[np.float32]:
        """(3, 256) what each of the 256 levels of each channel becomes."""
        levels = np.tile(np.arange(256.0), (3, 1))
        if self.do_rescale:
            levels = levels * self.rescale_factor - (1 if self.offset else 0)
        if self.do_normalize:
            levels = (levels - np.array(self.image_mean)[:, None]) / np.array(self.image_std)[:, None]
        return levels.astype(np.float32)

    def _prepare(self, frame: Any, levels: NDArray[np.float32]) -> NDArray[np.float32]:
        image = _image(frame)
        if self.do_resize:
            image = image.resize(self._target(image.width, image.height), self.resample)
        rgb = np.asarray(image)
        return np.stack([levels[channel][rgb[..., channel]] for channel in range(3)])

    def _target(self, width_px: int, height_px: int) -> tuple[int, int]:
        """(width, height) of a resized frame."""
        if "height" in self.size:
            return self.size["width"], self.size["height"]
        edge, shorter = self.size["shortest_edge"], min(width_px, height_px)
        return edge * width_px // shorter, edge * height_px // shorter


def _legal_size(size: Size) -> dict[str, int]:
    if isinstance(size, Mapping):
        named = dict(size)
    elif isinstance(size, Sequence):
        named = dict(zip(("height", "width"), size, strict=True)) if len(size) == 2 else {}
    else:
        named = {"shortest_edge": size}
    whole = all(isinstance(px, int) and px > 0 for px in named.values())
    if not whole or named.keys() not in ({"shortest_edge"}, {"height", "width"}):
        raise ValueError(
            f"size must be shortest_edge, or height and width, in whole pixels, got {size!r}; "
            'examples: 224, (392, 392), {"height": 392, "width": 392}'
        )
    return named


def _videos(images: Any) -> list[list[Any]]:
    """Frames video by video, whatever way they are nested."""
    if not isinstance(images, list | tuple):
        images = images if isinstance(images, Image.Image) else np.asarray(images)
        if isinstance(images, Image.Image) or images.ndim == 3:
            images = [images]
    videos = [images] if len(images) and _is_frame(images[0]) else [list(video) for video in images]
    if not videos or not all(len(video) for video in videos):
        raise ValueError("need at least one frame in every video, got none")
    return [list(video) for video in videos]


def _is_frame(value: Any) -> bool:
    return isinstance(value, Image.Image) or getattr(value, "ndim", 0) == 3


def _image(frame: Any) -> Image.Image:
    if isinstance(frame, Image.Image):
        return frame.convert("RGB")
    array = np.asarray(frame)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[-1] != 3:
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"a frame must be a PIL image or (H, W, 3) uint8, got {array.shape} {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array))


def _download(name: str, hub: Mapping[str, Any]) -> Path | None:
    """The settings of a checkpoint on the hub; None where it has none."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"no checkpoint at {name}: there is no such folder or file, and it is no hub id")
    try:
        return Path(hf_hub_download(name, PROCESSOR_NAME, **hub))
    except RemoteEntryNotFoundError:
        return None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"cannot get {name} from the hub ({reason}); a local folder works offline") from error
