"""Gazed patches drawn into a picture: what each scale still shows, outlined in the scale's colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, Indices

# Shape letters: H, W height and width of the picture in pixels, R, C patch rows and columns of a scale over the
# whole frame, P pixels picked out of a picture.

Rgb = tuple[int, int, int]
Pixels = NDArray[np.uint32]
Array = TypeVar("Array", bound=NDArray[Any])

# Okabe and Ito's palette, which stays apart under every kind of colour blindness, ordered so that the finest scale,
# which has most outlines, gets the colour that shows on dark and on white alike.
_PALETTE: tuple[Rgb, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
    (255, 255, 255),
)
_ROOMY_PX = 18
"""Patches drawn smaller than this have fainter edges, lest outlines hide what they surround."""


def scale_colors(num_scales: int) -> tuple[Rgb, ...]:
    """One colour per scale, coarsest first; the finest scale always has the same one.

    Beyond eight scales colours come again.
    """
    return tuple(_PALETTE[fineness % len(_PALETTE)] for fineness in reversed(range(num_scales)))


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """How the part of a frame that was not gazed at is shown."""

    brightness: float = 0.38
    """Share of the light that is left, 0 to 1."""
    saturation: float = 0.3
    """Share of the colour that is left, 0 to 1."""

    def apply(self, image: Image.Image) -> Image.Image:
        """The RGB image, dimmed and with less colour."""
        grey, kept = 1 - self.saturation, self.saturation
        luma = (0.299 * grey, 0.587 * grey, 0.114 * grey)
        rows = [[self.brightness * (luma[i] + kept * (i == j)) for i in range(3)] for j in range(3)]
        return image.convert("RGB", tuple(value for row in rows for value in (*row, 0.0)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A frame made ready for pictures of one size."""

    picture: Image.Image
    """The RGB frame at the size of the picture."""
    base: Image.Image
    """The RGB frame at that size or its own, whichever is smaller: what coarse scales are made from."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Axis:
    """One direction of one scale: which picture pixel belongs to which patch position."""

    position: Indices
    """(pixels,) patch row or column, one past the last where no patch lies."""
    shown: Indices
    """Patch positions that have a pixel."""
    first: Indices
    """First picture pixel of each shown position."""
    last: Indices
    """Last picture pixel of each shown position."""
    sample: Indices
    """(pixels,) pixel of the frame at this scale that a picture pixel shows."""


class GazePainter:
    """Draws gazes of one layout into pictures of one size; what does not change from frame to frame is kept.

    The picture shows the whole frame, at whatever size: ``height_px × width_px`` need not be the video's.
    """

    def __init__(self, layout: FrameLayout, *, height_px: int, width_px: int) -> None:
        self.layout = layout
        self.height_px = height_px
        self.width_px = width_px
        self.colors = scale_colors(layout.grid.num_scales)
        self.thickness_px = max(1, round(min(height_px, width_px) / 700))

    def show(self, rgb: NDArray[np.uint8]) -> Shown:
        """Bring an (H, W, 3) frame of the layout to the size of the picture, antialiased."""
        image = Image.fromarray(rgb)
        base = _resized(image, self._base_size)
        return Shown(picture=_resized(base, (self.width_px, self.height_px)), base=base)

    def paint(
        self,
        shown: Shown,
        gaze: Gaze,
        *,
        backdrop: Backdrop,
        scales: Sequence[int] | None = None,
    ) -> Image.Image:
        """RGB picture: the backdrop with the gazed patches of one frame as a transformer sees them, outlined.

        ``shown`` is the frame as :meth:`show` made it ready; ``scales`` names the scales to show (0 is the
        coarsest), all if None. Where patches overlap the finer one is seen.

        Raises:
            ValueError: the gaze is not of exactly one frame, or of another layout.
        """
        if gaze.num_frames != 1 or gaze.layout != self.layout:
            raise ValueError(f"paint needs the gaze of one frame of {self.layout}, got {gaze!r} of {gaze.layout}")
        pixels = _pixels(backdrop.apply(shown.picture)).copy()
        chosen = range(self.layout.grid.num_scales) if scales is None else sorted(scales)
        masks = gaze.scale_masks()
        used = [scale for scale in chosen if masks[scale].any()]
        for scale in used:
            self._paste(pixels, shown, scale, masks[scale][0])
        for scale in used:
            self._outline(pixels, scale, masks[scale][0])
        return Image.frombuffer("RGBX", shown.picture.size, pixels, "raw", "RGBX", 0, 1).convert("RGB")

    def _paste(self, pixels: Pixels, shown: Shown, scale: int, mask_RC: NDArray[np.bool_]) -> None:
        rows, columns = self._axes[scale]
        inside_HW = _padded(mask_RC)[rows.position][:, columns.position]
        if self._is_finer_than_base(scale):
            np.copyto(pixels, _pixels(shown.picture), where=inside_HW)
            return
        picked_P = np.flatnonzero(inside_HW)
        y_P, x_P = np.divmod(picked_P, self.width_px)
        seen = _pixels(self._seen(shown.base, scale))
        pixels.reshape(-1)[picked_P] = seen[rows.sample[y_P], columns.sample[x_P]]

    def _seen(self, base: Image.Image, scale: int) -> Image.Image:
        """The frame at the resolution of a scale, tiles side by side, smooth and antialiased as selectors see it."""
        layout, scale_px = self.layout, self.layout.grid.scales_px[scale]
        # Whole pixels of the scale that the frame reaches into; the last ones may lie partly in the padding.
        size = (-(-layout.width_px * scale_px // layout.tile_width_px),
                -(-layout.height_px * scale_px // layout.tile_height_px))  # fmt: skip
        covered = (
            size[0] * layout.tile_width_px / scale_px / layout.width_px * base.width,
            size[1] * layout.tile_height_px / scale_px / layout.height_px * base.height,
        )
        padded = (math.ceil(covered[0]), math.ceil(covered[1]))
        base = base.crop((0, 0, *padded))  # beyond the frame this is black, as padding is
        return base.resize(size, Image.Resampling.BILINEAR, box=(0, 0, *covered))

    def _outline(self, pixels: Pixels, scale: int, mask_RC: NDArray[np.bool_]) -> None:
        """Edges inside the gazed patches: whole around a group of neighbours, fainter between them."""
        rows, columns = self._axes[scale]
        color = self.colors[scale]
        for axis, other, mask, picture in (
            (rows, columns, mask_RC, pixels),
            (columns, rows, mask_RC.T, pixels.T),
        ):
            if not len(axis.shown):
                continue
            side_px = len(axis.position) / len(axis.shown)
            shared = 0.6 * min(1.0, max(0.0, (side_px - 4) / (_ROOMY_PX - 4)))
            outer = 0.95 * min(1.0, 0.3 + side_px / _ROOMY_PX)
            grown = np.pad(mask, 1)  # one position more on every side that no gaze touches
            here, before, after = (grown[axis.shown + step, 1:] for step in (1, 0, 2))
            start = np.where(before, shared, outer) * here
            end = outer * (here & ~after)
            for layer in range(self.thickness_px):
                fits = axis.first + layer <= axis.last
                _blend(picture, axis.first[fits] + layer, other, start[fits], color)
                _blend(picture, axis.last[fits] - layer, other, end[fits], color)

    @property
    def _base_size(self) -> tuple[int, int]:
        return min(self.width_px, self.layout.width_px), min(self.height_px, self.layout.height_px)

    def _is_finer_than_base(self, scale: int) -> bool:
        layout, scale_px = self.layout, self.layout.grid.scales_px[scale]
        width, height = self._base_size
        return (
            scale_px * layout.width_px >= layout.tile_width_px * width
            and scale_px * layout.height_px >= layout.tile_height_px * height
        )

    @cached_property
    def _axes(self) -> tuple[tuple[_Axis, _Axis], ...]:
        """Rows and columns of every scale."""
        layout = self.layout
        return tuple(
            (
                _axis(layout, scale, layout.tile_rows, layout.tile_height_px, layout.height_px, self.height_px),
                _axis(layout, scale, layout.tile_columns, layout.tile_width_px, layout.width_px, self.width_px),
            )
            for scale in range(layout.grid.num_scales)
        )


def _axis(layout: FrameLayout, scale: int, tiles: int, tile_px: int, frame_px: int, picture_px: int) -> _Axis:
    grid = layout.grid
    side, scale_px, patch_px = grid.sides[scale], grid.scales_px[scale], grid.patch_px
    tile, inside = np.divmod(np.arange(tiles * side), side)
    left = tile * tile_px + inside * patch_px * tile_px // scale_px
    right = tile * tile_px + (inside + 1) * patch_px * tile_px // scale_px
    # The video pixel in whose middle a picture pixel lies, then the last patch that starts at or before it.
    video = (2 * np.arange(picture_px) + 1) * frame_px // (2 * picture_px)
    position = np.searchsorted(left, video, side="right") - 1
    position = np.where(video < right[position], position, tiles * side)
    shown, first, pixels = np.unique(position, return_index=True, return_counts=True)
    real = shown < tiles * side
    sample = (2 * np.arange(picture_px) + 1) * frame_px * scale_px // (2 * picture_px * tile_px)
    return _Axis(
        position=position,
        shown=shown[real],
        first=first[real],
        last=first[real] + pixels[real] - 1,
        sample=sample,
    )


def _blend(pixels: Pixels, lines: Indices, along: _Axis, alpha: NDArray[np.floating[Any]], color: Rgb) -> None:
    """Mix a colour into whole lines of the picture, as strongly as ``alpha`` (line, position along it) says."""
    strength = _padded(alpha)[:, along.position]
    line_P, at_P = np.nonzero(strength[:-1])
    if not len(line_P):
        return
    share_P1 = strength[line_P, at_P][:, None]
    old_P3 = pixels[lines[line_P], at_P].view(np.uint8).reshape(-1, 4)[:, :3]
    new_P4 = np.full((len(line_P), 4), 255, np.uint8)
    new_P4[:, :3] = np.round(old_P3 * (1 - share_P1) + np.asarray(color) * share_P1)
    pixels[lines[line_P], at_P] = new_P4.view(np.uint32)[:, 0]


def _padded(values: Array) -> Array:
    """With one more row and column of zeros, which the position of no patch points at."""
    return cast("Array", np.pad(values, ((0, 1), (0, 1))))


def _pixels(image: Image.Image) -> Pixels:
    """(H, W) one 32-bit number per pixel, which moves faster than three bytes."""
    return np.asarray(image.convert("RGBX")).view(np.uint32)[..., 0]


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.0)


def check_fits(frames: Frames, gaze: Gaze, layout: FrameLayout) -> None:
    """Make sure that a gaze belongs to frames and to the layout a picture was begun with.

    Raises:
        ValueError: the number of frames, their size or the layout differs.
    """
    if gaze.layout != layout:
        raise ValueError(f"these pictures are of {layout}, got a gaze of {gaze.layout}; begin new ones")
    if gaze.num_frames != len(frames):
        raise ValueError(f"there must be a gaze for each frame, got {len(frames)} frames and {gaze.num_frames} gazes")
    if (frames.height_px, frames.width_px) != (layout.height_px, layout.width_px):
        raise ValueError(
            f"frames must be {layout.width_px} × {layout.height_px} px as the layout says, "
            f"got {frames.width_px} × {frames.height_px}"
        )
