"""The contact sheet: a few frames of a video side by side, and below them what each scale saw of them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from autogaze.archive import atomic_path
from autogaze.captions import clock, drawable, font, percent, shortened
from autogaze.drawing import Backdrop, GazePainter, Rgb, Shown, check_fits
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout

MAX_COLUMNS = 8
MAX_WIDTH_PX = 2400
"""Widest sheet that is drawn."""
_MAX_THUMB_PX = (400, 420)  # width, height
_MIN_THUMB_PX = 24  # thinner frames are stretched to this
_KEPT_PER_COLUMN = 8
_GAP_PX = 8
_MARGIN_PX = 24
_LABELS_PX = 230
_TITLE_PX, _FONT_PX, _SMALL_PX = 34, 22, 18
_BACKGROUND: Rgb = (17, 19, 24)
_TEXT: Rgb = (236, 238, 242)
_QUIET: Rgb = (150, 156, 168)
_DARK = Backdrop(brightness=0.16, saturation=0.2)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sample:
    """One frame that may become a column."""

    shown: Shown
    gaze: Gaze
    seconds: float


class ContactSheet:
    """A picture of a video whose length need not be known: frames are added as they come.

    Rows are the source and then one for each scale, coarsest first, which shows only the patches of that scale;
    columns are frames spread evenly over the video. Only a bounded number of thumbnails is kept.
    """

    def __init__(self, *, layout: FrameLayout, columns: int = MAX_COLUMNS, title: str = "") -> None:
        """Begin a sheet; the title, such as the name of the video, is written above it.

        Raises:
            ValueError: columns is not between 1 and 8.
        """
        if not 1 <= columns <= MAX_COLUMNS:
            raise ValueError(f"columns must be between 1 and {MAX_COLUMNS}, got {columns}")
        self.layout = layout
        self.columns = columns
        self.title = drawable(title)
        height_px, width_px = _thumbnail_size(layout, columns)
        self._painter = GazePainter(layout, height_px=height_px, width_px=width_px)
        self._samples: list[_Sample] = []
        self._stride = 1
        self._num_frames = 0
        self._last_seconds = 0.0
        scale = layout.locate(np.flatnonzero(layout.inside))[0]
        self._patches_per_scale = np.bincount(scale, minlength=layout.grid.num_scales)
        self._kept_per_scale = np.zeros_like(self._patches_per_scale)

    def add(self, frames: Frames, gaze: Gaze) -> None:
        """Add the next frames of the video and their gaze.

        Raises:
            ValueError: frames and gaze do not belong together, or not to the layout of the sheet.
        """
        check_fits(frames, gaze, self.layout)
        scale = self.layout.locate(gaze.index)[0]
        self._kept_per_scale += np.bincount(scale, minlength=len(self._kept_per_scale))
        for t in range(len(frames)):
            if self._num_frames % self._stride == 0:
                shown, seconds = self._painter.show(frames.rgb[t]), float(frames.time_seconds[t])
                self._samples.append(_Sample(shown=shown, gaze=gaze[t], seconds=seconds))
                if len(self._samples) > _KEPT_PER_COLUMN * self.columns:
                    self._samples = self._samples[::2]
                    self._stride *= 2
            self._num_frames += 1
        self._last_seconds = float(frames.time_seconds[-1])

    def image(self) -> Image.Image:
        """The sheet of all that was added so far, as an RGB picture.

        Raises:
            ValueError: nothing was added.
        """
        if not self._samples:
            raise ValueError("a contact sheet needs at least one frame; add some first")
        samples = self._chosen()
        step_x = self._painter.width_px + _GAP_PX
        step_y = max(self._painter.height_px, 4 * _FONT_PX) + _GAP_PX
        left, top = _MARGIN_PX + _LABELS_PX, 2 * _MARGIN_PX + _TITLE_PX + 4 * _FONT_PX
        summary = self._summary()
        titles_px = max(font(_TITLE_PX).getlength(self.title), font(_FONT_PX).getlength(summary))
        inner_px = max(_LABELS_PX + len(samples) * step_x, min(MAX_WIDTH_PX - 2 * _MARGIN_PX, math.ceil(titles_px)))
        rows = 1 + self.layout.grid.num_scales
        page = Image.new("RGB", (inner_px + 2 * _MARGIN_PX, top + rows * step_y + _MARGIN_PX), _BACKGROUND)
        draw = ImageDraw.Draw(page)
        title = shortened(self.title, size_px=_TITLE_PX, width_px=inner_px)
        draw.text((_MARGIN_PX, _MARGIN_PX), title, _TEXT, font(_TITLE_PX))
        draw.text((_MARGIN_PX, 2 * _MARGIN_PX + _TITLE_PX), summary, _QUIET, font(_FONT_PX))
        for column, sample in enumerate(samples):
            x = left + column * step_x
            self._draw_heading(draw, sample, x, top - _FONT_PX // 2)
            for row in range(rows):
                page.paste(self._cell(sample, row), (x, top + row * step_y))
        for row in range(rows):
            self._draw_label(draw, row, top + row * step_y)
        return page

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sheet as a PNG; it appears whole or not at all.

        Raises:
            ValueError: nothing was added.
            OSError: the file cannot be written.
        """
        image = self.image()
        with atomic_path(path) as temporary:
            image.save(temporary, format="PNG")

    def _chosen(self) -> list[_Sample]:
        """The samples nearest to frames spread evenly from the first to the last."""
        columns, last = min(self.columns, len(self._samples)), len(self._samples) - 1
        step = (self._num_frames - 1) / max(1, columns - 1) / self._stride
        return [self._samples[min(last, round(column * step))] for column in range(columns)]

    def _cell(self, sample: _Sample, row: int) -> Image.Image:
        if row == 0:
            return sample.shown.picture
        return self._painter.paint(sample.shown, sample.gaze, backdrop=_DARK, scales=(row - 1,))

    def _summary(self) -> str:
        kept, patches = int(self._kept_per_scale.sum()), self.layout.num_patches * self._num_frames
        frames = f"{self._num_frames:,} frame{'s' if self._num_frames != 1 else ''} to {clock(self._last_seconds)}"
        size = f"{self.layout.width_px} x {self.layout.height_px} px"  # the font has no ×
        return f"{size}  |  {frames}  |  {kept:,} of {patches:,} patches kept ({percent(kept / patches)})"

    def _draw_heading(self, draw: ImageDraw.ImageDraw, sample: _Sample, x: int, y: int) -> None:
        """When the frame of a column is shown and, where there is room, what share of it was kept."""
        time, share = clock(sample.seconds), percent(sample.gaze.num_gazes / self.layout.num_patches)
        size_px = _FONT_PX
        while size_px > 8 and font(size_px).getlength(time) > self._painter.width_px:
            size_px -= 1
        draw.text((x, y), time, _TEXT, font(size_px), anchor="ls")
        share_x = font(size_px).getlength(f"{time}  ")
        if share_x + font(size_px).getlength(share) <= self._painter.width_px:
            draw.text((x + share_x, y), share, _QUIET, font(size_px), anchor="ls")

    def _draw_label(self, draw: ImageDraw.ImageDraw, row: int, y: int) -> None:
        if row == 0:
            draw.text((_MARGIN_PX, y), "source", _TEXT, font(_FONT_PX))
            return
        scale = row - 1
        kept, patches = int(self._kept_per_scale[scale]), int(self._patches_per_scale[scale]) * self._num_frames
        draw.rectangle((_MARGIN_PX, y + 4, _MARGIN_PX + 17, y + 21), outline=self._painter.colors[scale], width=3)
        draw.text((_MARGIN_PX + 28, y), f"scale {self.layout.grid.scales_px[scale]} px", _TEXT, font(_FONT_PX))
        share = percent(kept / patches if patches else 0.0)
        lines = f"{kept:,} kept\n{share} of {patches:,}"
        draw.multiline_text((_MARGIN_PX, y + 32), lines, _QUIET, font(_SMALL_PX), spacing=6)


def sheet(frames: Frames, gaze: Gaze, *, columns: int = MAX_COLUMNS, title: str = "") -> Image.Image:
    """The contact sheet of frames and their gaze as an RGB picture.

    Raises:
        ValueError: frames and gaze do not belong together, or columns is not between 1 and 8.
    """
    contact = ContactSheet(layout=gaze.layout, columns=columns, title=title)
    contact.add(frames, gaze)
    return contact.image()


def _thumbnail_size(layout: FrameLayout, columns: int) -> tuple[int, int]:
    """(height, width) in pixels of a frame in a sheet of so many columns."""
    most_px = (MAX_WIDTH_PX - 2 * _MARGIN_PX - _LABELS_PX) // columns - _GAP_PX
    factor = min(min(most_px, _MAX_THUMB_PX[0]) / layout.width_px, _MAX_THUMB_PX[1] / layout.height_px)
    return max(_MIN_THUMB_PX, round(layout.height_px * factor)), max(_MIN_THUMB_PX, round(layout.width_px * factor))
