"""The refiner: a small convolutional network that takes a canvas and gives back what the frame probably looked like."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autogaze.archive import atomic_path
from autogaze.configuration import read_json_object, write_json_object
from autogaze.errors import CheckpointError
from autogaze.grid import PatchGrid
from autogaze.models.autogaze.checkpoint import CONFIG_NAME, HubOptions, find_files, fitted, read_weights, save_weights
from autogaze.reconstructors.provenance import CanvasView

_FEATURES = 10
"""Of a pixel: canvas (3), canvas before (3), whether it is new, its age, its place in its cell (2)."""

# Shape letters: B frames, C channels, H × W pixels, K scales.

REFINER_TYPE = "autogaze_refiner"
"""What the configuration of a refiner says its ``model_type`` is."""
MAX_LEVELS = 16
MAX_BLOCKS = 64
UNSHUFFLE = 2
"""Pixels that one position of the network's finest level holds, along each side."""
WINDOW_PX = 1024
"""Larger frames are refined window by window; windows overlap by the receptive field, so that it does not show."""


@dataclass(frozen=True, kw_only=True)
class RefinerConfig:
    """Shape of a refiner.

    Raises:
        CheckpointError: a value is not legal.
    """

    scales_px: tuple[int, ...] = (32, 64, 112, 224)
    """Scales of the patch grid whose canvas is refined."""
    patch_px: int = 16
    """Side of a patch."""
    widths: tuple[int, ...] = (32, 64, 96, 128)
    """Channels of each level; each level is half as high and wide as the one before."""
    blocks: int = 1
    """Residual blocks of a level on the way down, and as many on the way up."""

    def __post_init__(self) -> None:
        for name in ("scales_px", "widths"):
            numbers = getattr(self, name)
            if not isinstance(numbers, (tuple, list)) or not numbers or not all(_is_count(n) for n in numbers):
                raise CheckpointError(f"{name} of a refiner must be whole numbers above 0, got {numbers!r}")
            object.__setattr__(self, name, tuple(numbers))
        for name in ("patch_px", "blocks"):
            if not _is_count(getattr(self, name)):
                raise CheckpointError(
                    f"{name} of a refiner must be a whole number above 0, got {getattr(self, name)!r}"
                )
        if len(self.widths) > MAX_LEVELS or self.blocks > MAX_BLOCKS:
            raise CheckpointError(
                f"a refiner has at most {MAX_LEVELS} levels and at most {MAX_BLOCKS} blocks a level, "
                f"got {len(self.widths)} and {self.blocks}"
            )
        try:
            PatchGrid(scales_px=self.scales_px, patch_px=self.patch_px)
        except ValueError as error:
            raise CheckpointError(f"a refiner's grid is not legal: {error}") from error

    @property
    def grid(self) -> PatchGrid:
        """The patches whose canvas is refined."""
        return PatchGrid(scales_px=self.scales_px, patch_px=self.patch_px)

    @property
    def stride_px(self) -> int:
        """Pixels along a side of what one position of the coarsest level sees: frames are padded to multiples."""
        return int(UNSHUFFLE * 2 ** (len(self.widths) - 1))

    @property
    def margin_px(self) -> int:
        """How far a pixel reaches: at least the radius of the receptive field, and a multiple of the stride."""
        reach = 2 * UNSHUFFLE  # the first and the last convolution
        for level in range(len(self.widths)):
            ways = 1 if level == len(self.widths) - 1 else 2
            reach += UNSHUFFLE * 2**level * (2 * self.blocks * ways + 1)
        return -(-reach // self.stride_px) * self.stride_px

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The configuration of a ``config.json``.

        Raises:
            CheckpointError: it is not one of a refiner.
        """
        if data.get("model_type") != REFINER_TYPE:
            raise CheckpointError(f"model_type is {data.get('model_type')!r}, a refiner's is {REFINER_TYPE!r}")
        known = {field.name for field in fields(cls)}
        unknown = sorted(data.keys() - known - {"model_type"})
        if unknown:
            raise CheckpointError(
                f"a refiner's configuration has no {', '.join(unknown)}; legal are {', '.join(known)}"
            )
        return cls(**{name: value for name, value in data.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """Plain values; :meth:`from_dict` reads them back."""
        return {"model_type": REFINER_TYPE, **asdict(self)}


class Refiner(nn.Module):
    """A U-Net from a canvas and where its pixels come from to a correction of it.

    It sees the canvas, the canvas before this frame's gazes (what has just been painted shows how things move), which
    scale painted each pixel, how long ago, and where in its cell the pixel lies. It is causal, as the canvas is, and
    keeps no state of its own. Untrained, it changes nothing: its last layer starts at zero. Trained or not, it leaves
    alone what the finest scale painted in this very frame, because that is exact.
    """

    _cell_px: Tensor

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        widths, blocks = config.widths, config.blocks
        features = _FEATURES + len(config.scales_px) + 1
        self.stem = nn.Conv2d(features, widths[0], 2 * UNSHUFFLE, stride=UNSHUFFLE, padding=UNSHUFFLE // 2)
        self.down = nn.ModuleList(_blocks(width, blocks) for width in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(_blocks(width, blocks) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 3 * UNSHUFFLE**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)
        self.register_buffer("_cell_px", _cell_sides(config.grid), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.stem.weight.device

    def on(self, device: torch.device | str) -> Self:
        """This network on a device, its weights laid out as its kernels are fastest."""
        return self.to(device).to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]

    def forward(self, view: CanvasTensors) -> Tensor:
        """(B, 3, H, W) float32 frames, colours about 0…1, not clamped. B frames of any size, each by itself."""
        height_px, width_px = view.canvas_BHWC.shape[1:3]
        stride = self.config.stride_px
        padding = (0, 0, 0, -width_px % stride, 0, -height_px % stride)
        x = F.pad(self._features(view), padding).movedim(-1, 1)
        x = self.stem(x.to(self.stem.weight.dtype))
        skipped: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            x = blocks(x)
            if level < len(self.shrink):
                skipped.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.grow))):
            x = self.up[level](self.grow[level](x) + skipped[level])
        correction = F.pixel_shuffle(self.head(x), UNSHUFFLE)[..., :height_px, :width_px]
        canvas = view.canvas_BHWC.movedim(-1, 1).float() / 255
        exact_BHW = (view.scale_BHW == len(self.config.scales_px)) & (view.age_BHW == 0)
        return torch.where(exact_BHW[:, None], canvas, canvas + correction.float())

    def refine(self, view: CanvasTensors) -> Tensor:
        """:meth:`forward` window by window: the same result in memory that does not grow with the frame's size."""
        height_px, width_px = view.canvas_BHWC.shape[1:3]
        margin = self.config.margin_px
        if max(height_px, width_px) <= WINDOW_PX + 2 * margin:
            return self.forward(view)
        refined = torch.empty(len(view.canvas_BHWC), 3, height_px, width_px, device=self.device)
        for top, bottom in _windows(height_px):
            for left, right in _windows(width_px):
                # A window starts at a multiple of the stride, as the whole frame does.
                first_row, first_column = max(0, top - margin), max(0, left - margin)
                window = view.crop(first_row, bottom + margin, first_column, right + margin)
                part = self.forward(window)
                rows, columns = (
                    slice(top - first_row, bottom - first_row),
                    slice(left - first_column, right - first_column),
                )
                refined[..., top:bottom, left:right] = part[..., rows, columns]
        return refined

    def _features(self, view: CanvasTensors) -> Tensor:
        """(B, H, W, features) what the network sees of each pixel, in the order of :data:`_FEATURES`, then scales."""
        scale_BHW, age_BHW = view.scale_BHW, view.age_BHW
        scales = len(self.config.scales_px) + 1
        features = torch.empty(*scale_BHW.shape, _FEATURES + scales, device=scale_BHW.device)
        features[..., 0:3] = view.canvas_BHWC / 255 - 0.5
        features[..., 3:6] = view.before_BHWC / 255 - 0.5
        features[..., 6] = age_BHW == 0
        features[..., 7] = torch.log2(1 + age_BHW.float()) / 8
        cell_BHW = self._cell_px[scale_BHW.long()]
        rows = torch.arange(scale_BHW.shape[1], device=scale_BHW.device) + view.top_px
        columns = torch.arange(scale_BHW.shape[2], device=scale_BHW.device) + view.left_px
        tile_px = self.config.scales_px[-1]
        for number, place in ((8, rows[:, None]), (9, columns)):
            # From −1 to 1 inside the cell; 0 where nothing painted, whose cell is one pixel.
            features[..., number] = (2 * (place % tile_px % cell_BHW) + 1) / cell_BHW - 1
        for number in range(scales):
            features[..., _FEATURES + number] = scale_BHW == number
        return features

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike[str], *, device: str | torch.device | None = None, hub: HubOptions | None = None
    ) -> Self:
        """The refiner of a folder with ``config.json`` and ``model.safetensors``, of that file, or of a hub id.

        Raises:
            CheckpointError: nothing is there, or it does not fit its configuration.
        """
        config_path, weights_path = find_files(source, hub or HubOptions())
        stored = read_json_object(config_path)
        try:
            config = RefinerConfig.from_dict(stored)
        except CheckpointError as error:
            raise CheckpointError(f"{config_path}: {error}") from error
        with torch.device("meta"):  # a configuration may ask for more memory than there is
            wanted = cls(config).state_dict()
        weights = fitted(read_weights(weights_path), wanted=wanted, path=weights_path)
        refiner = cls(config)
        refiner.load_state_dict(weights)
        return refiner.on(device or "cpu").eval()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, made if it is not there.

        Raises:
            OSError: the folder or a file cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self, folder)
        with atomic_path(folder / CONFIG_NAME) as temporary:
            write_json_object(temporary, self.config.to_dict())


@dataclass(frozen=True, kw_only=True, eq=False)
class CanvasTensors:
    """A :class:`CanvasView` on a device, without its target. B frames."""

    canvas_BHWC: Tensor
    """(B, H, W, 3) uint8."""
    before_BHWC: Tensor
    """(B, H, W, 3) uint8."""
    scale_BHW: Tensor
    """(B, H, W) uint8."""
    age_BHW: Tensor
    """(B, H, W) uint8."""
    top_px: int = 0
    """Row of the frame that the first row here is."""
    left_px: int = 0
    """Column of the frame that the first column here is."""

    @classmethod
    def of(cls, view: CanvasView, *, device: torch.device | str) -> Self:
        """Move a view's arrays to a device."""
        arrays = (view.canvas, view.before, view.scale, view.age)
        canvas, before, scale, age = (torch.from_numpy(array).to(device, non_blocking=True) for array in arrays)
        return cls(canvas_BHWC=canvas, before_BHWC=before, scale_BHW=scale, age_BHW=age)

    def crop(self, top: int, bottom: int, left: int, right: int) -> CanvasTensors:
        """A window of the frames."""
        rows, columns = slice(top, bottom), slice(left, right)
        return CanvasTensors(
            canvas_BHWC=self.canvas_BHWC[:, rows, columns],
            before_BHWC=self.before_BHWC[:, rows, columns],
            scale_BHW=self.scale_BHW[:, rows, columns],
            age_BHW=self.age_BHW[:, rows, columns],
            top_px=self.top_px + top,
            left_px=self.left_px + left,
        )


class _Block(nn.Module):
    """Two convolutions beside the identity, of normalised channels: without it training hardly gets anywhere.

    The channels of each place are normalised by themselves, so that no place learns of one out of reach.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        normalised = self.norm(x_BCHW.movedim(1, -1)).movedim(-1, 1)
        out: Tensor = x_BCHW + self.second(F.gelu(self.first(normalised)))
        return out


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width) for _ in range(count)))


def _cell_sides(grid: PatchGrid) -> Tensor:
    """(K + 1,) side of the cell of each scale in tile pixels; 1 for what nothing painted."""
    return torch.tensor([1, *(grid.scales_px[-1] * grid.patch_px // scale for scale in grid.scales_px)])


def _windows(length_px: int) -> list[tuple[int, int]]:
    return list(pairwise([*range(0, length_px, WINDOW_PX), length_px]))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
