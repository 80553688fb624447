"""The overlay video: every frame beside what was gazed at in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from autogaze.captions import clock, font, percent
from autogaze.drawing import Backdrop, GazePainter, Rgb, check_fits
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.video_writer import VideoWriter

MAX_WIDTH_PX = 1920
"""Widest video that is written."""
_MAX_PANEL_HEIGHT_PX = 960
_SMALL_PX = (640, 480)  # smaller frames are enlarged to fit in here
_MIN_PANEL_PX = 32  # thinner frames are stretched to this
_GAP_PX = 12
_GAUGE_PX = 6
_BACKGROUND: Rgb = (17, 19, 24)
_TRACK: Rgb = (44, 48, 58)
_TEXT: Rgb = (236, 238, 242)
_QUIET: Rgb = (150, 156, 168)


class OverlayWriter:
    """Writes an mp4 with the source on the left and its gazes on the right, as frames come in.

    The file appears under its name when the ``with`` block ends without an error, and not at all otherwise.
    """

    def __init__(self, path: str | os.PathLike[str], *, layout: FrameLayout, fps: float) -> None:
        """Begin a video of ``fps`` frames a second.

        Raises:
            ValueError: fps is not a positive number.
            OSError: the file cannot be written.
        """
        self._page = OverlayPage(layout)
        self._writer = VideoWriter(path, fps=fps, height_px=self._page.height_px, width_px=self._page.width_px)
        self._num_frames = self._num_gazes = 0

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, frames: Frames, gaze: Gaze) -> None:
        """Add frames, in order, and the gaze of exactly these frames.

        Raises:
            ValueError: frames and gaze do not belong together, or not to the layout of the video.
            OSError: the file cannot be written.
        """
        layout = self._page.layout
        check_fits(frames, gaze, layout)
        for rgb_HW3, seconds, one in zip(frames.rgb, frames.time_seconds, gaze, strict=True):
            self._num_frames += 1
            self._num_gazes += one.num_gazes
            mean_share = self._num_gazes / (self._num_frames * layout.num_patches)
            self._writer.write(self._page.draw(rgb_HW3, one, time_seconds=float(seconds), mean_share=mean_share)[None])


def overlay_frame(rgb: NDArray[np.uint8], gaze: Gaze) -> NDArray[np.uint8]:
    """One (H, W, 3) uint8 frame at its own size, dimmed but for the patches of its gaze.

    Gazed patches look as they do at their scale and have an outline in the scale's colour.

    Raises:
        ValueError: the frame is not of the gaze's height and width, or the gaze not of one frame.
    """
    layout = gaze.layout
    if rgb.shape != (layout.height_px, layout.width_px, 3) or rgb.dtype != np.uint8:
        raise ValueError(
            f"the frame must be ({layout.height_px}, {layout.width_px}, 3) uint8 as its gaze says, "
            f"got {rgb.shape} {rgb.dtype}"
        )
    painter = GazePainter(layout, height_px=layout.height_px, width_px=layout.width_px)
    return np.asarray(painter.paint(painter.show(rgb), gaze, backdrop=Backdrop()))


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """Widths of what the caption says, so that it can be set on one line or two."""

    font: ImageFont.FreeTypeFont
    size_px: int
    time: int
    source: int
    legend: int
    kept: int
    number: int


class OverlayPage:
    """One frame of the overlay video: two panels of equal size, a gauge of the kept share, a caption."""

    def __init__(self, layout: FrameLayout) -> None:
        self.layout = layout
        self.panel_height_px, self.panel_width_px = panel_size(layout)
        panels_px = 2 * self.panel_width_px + _GAP_PX
        texts = self._measure(size_px=min(28, max(15, panels_px // 64)))
        spacing = 2 * texts.size_px
        right_px = texts.legend + texts.kept + spacing
        self._one_line = max(texts.time + texts.source + spacing, right_px) <= self.panel_width_px
        two_lines_px = max(texts.time + texts.kept, texts.source + texts.legend) + spacing
        self.width_px = max(panels_px, 0 if self._one_line else two_lines_px + two_lines_px % 2)
        self._line_px = texts.size_px * 3 // 2
        caption_px = _GAUGE_PX + texts.size_px // 2 + self._line_px * (1 if self._one_line else 2)
        self.height_px = self.panel_height_px + caption_px + (self.panel_height_px + caption_px) % 2
        self._left_px = (self.width_px - panels_px) // 2
        self._texts = texts
        self._painter = GazePainter(layout, height_px=self.panel_height_px, width_px=self.panel_width_px)
        self._blank = self._draw_blank()

    def draw(self, rgb: NDArray[np.uint8], gaze: Gaze, *, time_seconds: float, mean_share: float) -> NDArray[np.uint8]:
        """(height_px, width_px, 3) uint8 for one (H, W, 3) frame and its gaze."""
        page = self._blank.copy()
        shown = self._painter.show(rgb)
        page.paste(shown.picture, (self._left_px, 0))
        page.paste(self._painter.paint(shown, gaze, backdrop=Backdrop()), (self._right_panel_px, 0))
        draw = ImageDraw.Draw(page)
        self._draw_gauge(draw, gaze)
        draw.text((self._edge_left_px, self._lines[0]), clock(time_seconds), _TEXT, self._texts.font, anchor="lm")
        share = gaze.num_gazes / self.layout.num_patches
        for words, left in zip((percent(share), percent(mean_share)), self._numbers_left, strict=True):
            draw.text((left, self._lines[0]), words, _TEXT, self._texts.font, anchor="lm")
        return np.asarray(page)

    @property
    def _right_panel_px(self) -> int:
        return self._left_px + self.panel_width_px + _GAP_PX

    @property
    def _edge_left_px(self) -> int:
        """Where the caption starts: below the panels if they carry it, else at the edge of the page."""
        return (self._left_px if self._one_line else 0) + self._texts.size_px // 3

    @property
    def _edge_right_px(self) -> int:
        return self.width_px - (self._left_px if self._one_line else 0) - self._texts.size_px // 3

    @property
    def _lines(self) -> tuple[int, int]:
        """Middle of the first and the last line of the caption."""
        first = self.panel_height_px + _GAUGE_PX + self._texts.size_px // 4 + self._line_px // 2
        return first, first + (0 if self._one_line else self._line_px)

    @property
    def _numbers_left(self) -> tuple[float, float]:
        """Where the share of this frame and the running mean start; their labels end just before."""
        mean = self._edge_right_px - self._texts.number
        return mean - self._texts.kept / 2, mean

    def _measure(self, *, size_px: int) -> _Texts:
        letters = font(size_px)
        legend = letters.getlength(" ".join(self._scale_names)) + 1.6 * size_px * len(self._scale_names)
        number = letters.getlength("100.0%")
        return _Texts(
            font=letters,
            size_px=size_px,
            time=round(letters.getlength("00:00:00.00")),
            source=round(letters.getlength(self._source_name)),
            legend=round(legend),
            kept=round(2 * (letters.getlength("mean ") + number + 0.7 * size_px)),
            number=round(number),
        )

    @property
    def _scale_names(self) -> list[str]:
        names = [str(scale) for scale in self.layout.grid.scales_px]
        return [*names[:-1], f"{names[-1]} px"]

    @property
    def _source_name(self) -> str:
        return f"{self.layout.width_px} x {self.layout.height_px} px"  # the font has no ×

    def _draw_blank(self) -> Image.Image:
        """All that stays the same from frame to frame."""
        page = Image.new("RGB", (self.width_px, self.height_px), _BACKGROUND)
        draw = ImageDraw.Draw(page)
        letters, size = self._texts.font, self._texts.size_px
        if self._one_line:
            source_right_px = self._left_px + self.panel_width_px - size // 3
            draw.text((source_right_px, self._lines[1]), self._source_name, _QUIET, letters, anchor="rm")
        else:
            draw.text((self._edge_left_px, self._lines[1]), self._source_name, _QUIET, letters, anchor="lm")
        for words, left in zip(("kept", "mean"), self._numbers_left, strict=True):
            draw.text((left - size * 0.35, self._lines[0]), words, _QUIET, letters, anchor="rm")
        x: float = self._right_panel_px + size // 3 if self._one_line else self._edge_right_px - self._texts.legend
        for name, color in zip(self._scale_names, self._painter.colors, strict=True):
            top = self._lines[1] - size * 2 // 5
            draw.rectangle((x, top, x + size * 4 // 5, top + size * 4 // 5), outline=color, width=max(2, size // 8))
            draw.text((x + size * 1.15, self._lines[1]), name, _TEXT, letters, anchor="lm")
            x += size * 1.6 + letters.getlength(f"{name} ")
        return page

    def _draw_gauge(self, draw: ImageDraw.ImageDraw, gaze: Gaze) -> None:
        """A bar as wide as the panel is all patches of the frame; the kept ones are filled in, scale by scale."""
        left, width = self._right_panel_px, self.panel_width_px
        top, bottom = self.panel_height_px, self.panel_height_px + _GAUGE_PX - 1
        draw.rectangle((left, top, left + width - 1, bottom), fill=_TRACK)
        scale = self.layout.locate(gaze.index)[0]
        ends = np.cumsum(np.bincount(scale, minlength=len(self._painter.colors))) * width / self.layout.num_patches
        start = 0
        for end, color in zip(np.minimum(np.round(ends).astype(int), width), self._painter.colors, strict=True):
            if end > start:
                draw.rectangle((left + start, top, left + int(end) - 1, bottom), fill=color)
            start = int(end)


def panel_size(layout: FrameLayout) -> tuple[int, int]:
    """(height, width) in pixels at which a frame is shown: within the page, small ones enlarged."""
    height_px, width_px = layout.height_px, layout.width_px
    most = min((MAX_WIDTH_PX - _GAP_PX) / 2 / width_px, _MAX_PANEL_HEIGHT_PX / height_px)
    larger = min(_SMALL_PX[0] / width_px, _SMALL_PX[1] / height_px)
    factor = min(most, max(1, larger))
    return max(_MIN_PANEL_PX, round(height_px * factor)), max(_MIN_PANEL_PX, round(width_px * factor))
