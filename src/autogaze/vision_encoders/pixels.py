"""The pixels of gazed patches: every scale is resized only where something is kept, and only kept cells are copied.

Shape letters: B clips, T frames, H × W pixels of a frame, N patches, U frames of a chunk, P side of a patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autogaze.grid import FrameLayout
from autogaze.vision_encoders.places import Indices, Places

CHUNK_BYTES = 2**28
"""Frames are gone through in chunks of about so many bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelSource:
    """Normalised frames of clips and how a grid lies on them.

    Raises:
        TypeError: the frames are no tensor.
        ValueError: the frames are not of a size that fits the layout.
    """

    video: Tensor
    """(B, T, 3, H, W) floating point frames of the layout's height and width; or the tiles of each clip in their
    order, as clips of their own, in the size of the finest scale: (B · tiles, T, 3, S, S)."""
    layout: FrameLayout
    antialias: bool
    """Whether frames are smoothed when they are made smaller. The published encoder does not."""

    def __post_init__(self) -> None:
        if not isinstance(self.video, Tensor):
            raise TypeError(f"video must be a tensor, got {type(self.video).__name__}; torch.from_numpy makes one")
        if self.video.ndim != 5 or self.video.shape[2] != 3:
            raise ValueError(f"video must be (B, T, 3, H, W), got {tuple(self.video.shape)}")
        if not self.video.is_floating_point():
            raise ValueError(
                f"video must hold floating point frames, normalised as the model wants them, got {self.video.dtype}; "
                "for 0…255: (video / 255 - mean) / std"
            )
        layout, (height_px, width_px) = self.layout, self.video.shape[-2:]
        side_px = layout.grid.scales_px[-1]
        if self.of_tiles and (height_px, width_px) != (side_px, side_px):
            pieces = "tiles" if layout.num_tiles > 1 else "frames"
            raise ValueError(
                f"video must be of {layout.height_px} × {layout.width_px} px, the size of what was gazed at, or of "
                f"{side_px} × {side_px} px {pieces}, got {height_px} × {width_px} px; resize it to one of these"
            )
        if self.of_tiles and len(self.video) % layout.num_tiles:
            raise ValueError(
                f"video of {side_px} × {side_px} px tiles must have {layout.num_tiles} for each clip, one after the "
                f"other, got {len(self.video)}"
            )

    @property
    def of_tiles(self) -> bool:
        """Whether every clip of the video is a tile, cut and resized already."""
        return tuple(self.video.shape[-2:]) != (self.layout.height_px, self.layout.width_px)

    @property
    def clips(self) -> int:
        """B."""
        return len(self.video) // self.layout.num_tiles if self.of_tiles else len(self.video)

    @property
    def frames(self) -> int:
        """T."""
        return self.video.shape[1]

    def gather(self, places: Places) -> Tensor:
        """(N, 3, P, P) pixels of patches, in the precision of the video."""
        p = self.layout.grid.patch_px
        pixels = self.video.new_empty(len(places), 3, p, p)
        for number, images, chosen in self._frames_of(places):
            for scale in np.unique(places.scale[chosen]):
                of_scale = chosen[places.scale[chosen] == scale]
                pixels[self._on_device(of_scale)] = self._of_scale(
                    images, number[of_scale], places[of_scale], int(scale)
                )
        return pixels

    def _frames_of(self, places: Places) -> Iterator[tuple[Indices, Tensor, Indices]]:
        """Chunks of frames: the number of each patch's frame in its chunk, (U, 3, H, W), and the patches in it."""
        clips = places.clip * self.layout.num_tiles + places.tile if self.of_tiles else places.clip
        T = self.frames
        frames, number = np.unique(clips * T + places.frame, return_inverse=True)
        step = max(1, CHUNK_BYTES // self.video[0, :1].nbytes) if len(frames) else 1
        for first in range(0, len(frames), step):
            chunk = self._on_device(frames[first : first + step])
            images = self._padded(self.video[chunk // T, chunk % T])
            yield number - first, images, np.flatnonzero((number >= first) & (number < first + step))

    def _padded(self, images_U3HW: Tensor) -> Tensor:
        """Whole frames with zeros where tiles reach past them; tiles as they are."""
        if self.of_tiles:
            return images_U3HW
        layout = self.layout
        right = layout.tile_columns * layout.tile_width_px - layout.width_px
        below = layout.tile_rows * layout.tile_height_px - layout.height_px
        return F.pad(images_U3HW, (0, right, 0, below)) if right or below else images_U3HW

    def _of_scale(self, images_U3HW: Tensor, number: Indices, places: Places, scale: int) -> Tensor:
        """(n, 3, P, P) patches of one scale, ``number`` telling the frame of each."""
        layout, grid = self.layout, self.layout.grid
        scale_px, p = grid.scales_px[scale], grid.patch_px
        if self.of_tiles:
            (height, width), tile = images_U3HW.shape[-2:], np.zeros_like(places.tile)
        else:
            height, width, tile = layout.tile_height_px, layout.tile_width_px, places.tile
        if height != scale_px or width != scale_px:
            pairs, number = np.unique(number * layout.num_tiles + tile, return_inverse=True)
            kept_frame, kept_tile = np.divmod(pairs, layout.num_tiles)
            images_U3HW = self._resized(self._tiles(images_U3HW, kept_frame, kept_tile, (height, width)), scale_px)
            tile = np.zeros_like(tile)
        top = tile // layout.tile_columns * height + places.row * p
        left = tile % layout.tile_columns * width + places.column * p
        windows = images_U3HW.unfold(2, p, 1).unfold(3, p, 1)  # a view: (U, 3, H - P + 1, W - P + 1, P, P)
        n, y, x = (self._on_device(numbers) for numbers in (number, top, left))
        return windows[n, :, y, x]

    def _tiles(self, images_U3HW: Tensor, frame: Indices, tile: Indices, size: tuple[int, int]) -> Tensor:
        """Tiles of frames; the frames themselves where each is one tile and all are wanted."""
        if tuple(images_U3HW.shape[-2:]) == size:
            return images_U3HW if len(frame) == len(images_U3HW) else images_U3HW[self._on_device(frame)]
        rows, columns = self.layout.tile_rows, self.layout.tile_columns
        cut = images_U3HW.reshape(-1, 3, rows, size[0], columns, size[1])
        f, i, j = (self._on_device(numbers) for numbers in (frame, tile // columns, tile % columns))
        return cut.permute(0, 2, 4, 1, 3, 5)[f, i, j]

    def _resized(self, images: Tensor, side_px: int) -> Tensor:
        """Bicubic, in single precision at least."""
        exact = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
        resized = F.interpolate(
            exact, (side_px, side_px), mode="bicubic", align_corners=False, antialias=self.antialias
        )
        back: Tensor = resized.to(images.dtype)
        return back

    def _on_device(self, numbers: Indices) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self.video.device)
