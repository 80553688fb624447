"""The side-by-side video: every frame, what was kept of it, what was rebuilt from that, and how far off it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from autogaze.captions import clock, drawable, font, percent
from autogaze.drawing import Backdrop, GazePainter, Rgb, check_fits
from autogaze.error_map import FULL_LEVELS, colors_of, error_map
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.picture_error import PictureError
from autogaze.reconstructors.base import Reconstruction
from autogaze.video_writer import VideoWriter

# Shape letters: H × W pixels of a frame.

MAX_WIDTH_PX = 1920
"""Widest page, unless its captions need more."""

_MAX_PANELS_HEIGHT_PX = 1080
_SMALL_PX = (640, 480)  # smaller frames are enlarged to fit in here
_MIN_PANEL_PX = 32  # thinner frames are stretched to this
_LONGEST_NAME = 24
_GAP_PX = 16
_TICKS = 4
_UNIT = "levels"
_BACKGROUND: Rgb = (17, 19, 24)
_TEXT: Rgb = (236, 238, 242)
_QUIET: Rgb = (150, 156, 168)


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """How four panels of one size stand on a page."""

    rows: int
    """Panels from top to bottom."""
    columns: int
    """Panels from left to right."""
    panel_height_px: int
    """Height of a panel."""
    panel_width_px: int
    """Width of a panel."""

    @classmethod
    def of(cls, layout: FrameLayout) -> Arrangement:
        """The one that shows the frames of a layout largest, two by two or in a row; of equals the wider than tall."""
        height_px, width_px = layout.height_px, layout.width_px
        enlarged = max(1.0, min(_SMALL_PX[0] / width_px, _SMALL_PX[1] / height_px))

        def factor(rows: int, columns: int) -> float:
            room_px = (MAX_WIDTH_PX - (columns - 1) * _GAP_PX) / columns
            return min(enlarged, room_px / width_px, _MAX_PANELS_HEIGHT_PX / rows / height_px)

        def fitness(shape: tuple[int, int]) -> tuple[float, float]:
            rows, columns = shape
            return factor(rows, columns), -abs(np.log(columns * width_px / (rows * height_px) / (16 / 9)))

        rows, columns = max(((2, 2), (1, 4)), key=fitness)
        return cls(
            rows=rows,
            columns=columns,
            panel_height_px=max(_MIN_PANEL_PX, round(height_px * factor(rows, columns))),
            panel_width_px=max(_MIN_PANEL_PX, round(width_px * factor(rows, columns))),
        )


class SideBySideWriter:
    """Writes an mp4 of four panels a frame, as frames come in: source, kept patches, reconstruction, error map.

    The file appears under its name when the ``with`` block ends without an error, and not at all otherwise.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, layout: FrameLayout, fps: float, reconstructor: str, loss_unit: str
    ) -> None:
        """Begin a video of ``fps`` frames a second; the captions name the reconstructor and the unit of its loss.

        Raises:
            ValueError: fps is not a positive number.
            OSError: the file cannot be written.
        """
        self._page = SideBySidePage(layout, reconstructor=reconstructor, loss_unit=loss_unit)
        self._writer = VideoWriter(path, fps=fps, height_px=self._page.height_px, width_px=self._page.width_px)

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, frames: Frames, gaze: Gaze, rebuilt: Reconstruction) -> None:
        """Add frames, in order, with the gaze and the reconstruction of exactly these frames.

        Raises:
            ValueError: the three do not belong together, or not to the layout of the video.
            OSError: the file cannot be written.
        """
        check_fits(frames, gaze, self._page.layout)
        if rebuilt.rgb.shape != frames.rgb.shape:
            raise ValueError(f"the reconstruction must be {frames.rgb.shape} like the frames, got {rebuilt.rgb.shape}")
        for t, one in enumerate(gaze):
            page = self._page.draw(
                frames.rgb[t],
                one,
                rebuilt.rgb[t],
                time_seconds=float(frames.time_seconds[t]),
                loss=float(rebuilt.loss[t]),
            )
            self._writer.write(page[None])


class SideBySidePage:
    """One frame of the side-by-side video: four panels, each with two lines below it."""

    def __init__(self, layout: FrameLayout, *, reconstructor: str, loss_unit: str) -> None:
        self.layout = layout
        self.arrangement = Arrangement.of(layout)
        self._name = shortened_name(reconstructor)
        self._loss_unit = drawable(loss_unit)
        panel_px, columns = self.arrangement.panel_width_px, self.arrangement.columns
        wanted_px = (columns * panel_px + (columns - 1) * _GAP_PX) // 74
        sizes = range(min(26, max(15, wanted_px)), 14, -1)
        self._size_px = next((size for size in sizes if self._caption_width_px(size) <= panel_px), 15)
        self._cell_width_px = max(panel_px, self._caption_width_px(self._size_px))
        self._line_px = self._size_px * 3 // 2
        self._cell_height_px = self.arrangement.panel_height_px + 2 * self._line_px + self._size_px // 2
        width_px = columns * self._cell_width_px + (columns - 1) * _GAP_PX
        height_px = self.arrangement.rows * self._cell_height_px + (self.arrangement.rows - 1) * _GAP_PX // 2
        self.width_px, self.height_px = width_px + width_px % 2, height_px + height_px % 2
        self._painter = GazePainter(layout, height_px=self.arrangement.panel_height_px, width_px=panel_px)
        self._blank = self._draw_blank()

    def draw(
        self,
        rgb: NDArray[np.uint8],
        gaze: Gaze,
        rebuilt: NDArray[np.uint8],
        *,
        time_seconds: float,
        loss: float,
    ) -> NDArray[np.uint8]:
        """(height_px, width_px, 3) uint8 for one (H, W, 3) frame, its gaze and the frame rebuilt from it."""
        page = self._blank.copy()
        shown = self._painter.show(rgb)
        error = PictureError.between(rgb, rebuilt)
        panels = (
            shown.picture,
            self._painter.paint(shown, gaze, backdrop=Backdrop()),
            self._painter.show(rebuilt).picture,
            error_map(
                error.absolute, height_px=self.arrangement.panel_height_px, width_px=self.arrangement.panel_width_px
            ),
        )
        numbers = (
            (clock(time_seconds), ""),
            (percent(gaze.num_gazes / self.layout.num_patches), f"{gaze.num_gazes:,} of {self.layout.num_patches:,}"),
            (f"PSNR {error.psnr_db:.1f} dB" if error.squared_sum else "exact", self._told(loss)),
            (f"mean {error.mean_levels:.1f} levels", ""),
        )
        draw = ImageDraw.Draw(page)
        for number, (panel, (right, below)) in enumerate(zip(panels, numbers, strict=True)):
            page.paste(panel, self._panel_px(number))
            left_px, right_px, first_px, second_px = self._caption_px(number)
            draw.text((right_px, first_px), right, _TEXT, font(self._size_px), anchor="rm")
            draw.text((left_px, second_px), below, _QUIET, font(self._size_px), anchor="lm")
        return np.asarray(page)

    def _told(self, loss: float) -> str:
        """The loss, and its unit if there is room for all of it: a part would be another unit."""
        room_px = self._cell_width_px - 2 * self._inset_px
        said = f"loss {loss:.4f}"
        whole = f"{said}: {self._loss_unit}"
        return whole if font(self._size_px).getlength(whole) <= room_px else said

    @property
    def _inset_px(self) -> int:
        return self._size_px // 3

    def _cell_px(self, number: int) -> tuple[int, int]:
        """Left and top of a cell."""
        row, column = divmod(number, self.arrangement.columns)
        return column * (self._cell_width_px + _GAP_PX), row * (self._cell_height_px + _GAP_PX // 2)

    def _panel_px(self, number: int) -> tuple[int, int]:
        """Left and top of a panel."""
        left_px, top_px = self._cell_px(number)
        return left_px + (self._cell_width_px - self.arrangement.panel_width_px) // 2, top_px

    def _caption_px(self, number: int) -> tuple[int, int, int, int]:
        """Left and right end of a caption, and the middles of its two lines."""
        left_px, top_px = self._cell_px(number)
        first_px = top_px + self.arrangement.panel_height_px + self._size_px // 4 + self._line_px // 2
        inset_px = self._inset_px
        return left_px + inset_px, left_px + self._cell_width_px - inset_px, first_px, first_px + self._line_px

    @property
    def _titles(self) -> tuple[str, str, str, str]:
        return "source", "kept patches", f"rebuilt by {self._name}", "error"

    @property
    def _scale_names(self) -> list[str]:
        names = [str(scale) for scale in self.layout.grid.scales_px]
        return [*names[:-1], f"{names[-1]} px"]

    def _caption_width_px(self, size_px: int) -> int:
        """What the longest line needs."""
        letters = font(size_px)
        most = f"{self.layout.num_patches:,}"
        legend = letters.getlength(" ".join(self._scale_names)) + 1.6 * size_px * len(self._scale_names)
        lines = (
            letters.getlength(f"{self._titles[2]}   PSNR 100.0 dB"),
            letters.getlength(f"{self._titles[3]}   mean 255.0 levels"),
            letters.getlength(f"{most} of {most}  ") + legend,
            letters.getlength(f"   0   4   16   36   {FULL_LEVELS}+ {_UNIT}  "),
        )
        return round(max(lines)) + size_px

    def _draw_blank(self) -> Image.Image:
        """All that stays the same from frame to frame."""
        page = Image.new("RGB", (self.width_px, self.height_px), _BACKGROUND)
        draw = ImageDraw.Draw(page)
        letters = font(self._size_px)
        for number, title in enumerate(self._titles):
            left_px, _, first_px, _ = self._caption_px(number)
            draw.text((left_px, first_px), title, _TEXT, letters, anchor="lm")
        left_px, _, _, second_px = self._caption_px(0)
        size = f"{self.layout.width_px} x {self.layout.height_px} px"  # the font has no ×
        draw.text((left_px, second_px), size, _QUIET, letters, anchor="lm")
        self._draw_scales(draw)
        self._draw_errors(page, draw)
        return page

    def _draw_scales(self, draw: ImageDraw.ImageDraw) -> None:
        """Which colour outlines the patches of which scale."""
        letters, size = font(self._size_px), self._size_px
        _, right_px, _, middle_px = self._caption_px(1)
        x = right_px - letters.getlength(" ".join(self._scale_names)) - 1.6 * size * len(self._scale_names) + size / 2
        for name, color in zip(self._scale_names, self._painter.colors, strict=True):
            top = middle_px - size * 2 // 5
            draw.rectangle((x, top, x + size * 4 // 5, top + size * 4 // 5), outline=color, width=max(2, size // 8))
            draw.text((x + size * 1.1, middle_px), name, _QUIET, letters, anchor="lm")
            x += size * 1.6 + letters.getlength(f"{name} ")

    def _draw_errors(self, page: Image.Image, draw: ImageDraw.ImageDraw) -> None:
        """Which colour is which error: a bar of all colours with numbers in it."""
        letters, size = font(self._size_px), self._size_px
        left_px, right_px, _, middle_px = self._caption_px(3)
        width_px = round(right_px - left_px - letters.getlength(f"   {_UNIT}"))
        top_px, height_px = middle_px - size * 5 // 8, size * 5 // 4
        share = np.linspace(0, 1, width_px)
        bar = np.broadcast_to(colors_of(FULL_LEVELS * share**2), (height_px, width_px, 3))
        page.paste(Image.fromarray(bar.copy()), (left_px, top_px))
        draw.text((right_px, middle_px), _UNIT, _QUIET, letters, anchor="rm")
        for tick in range(_TICKS + 1):
            levels = round(FULL_LEVELS * (tick / _TICKS) ** 2)
            words = f"{levels}+" if tick == _TICKS else f"{levels}"
            place, anchor = left_px + width_px * tick / _TICKS, "mm"
            if tick in (0, _TICKS):
                place, anchor = (place - size / 3, "rm") if tick else (place + size / 3, "lm")
            draw.text((place, middle_px), words, _TEXT if tick < _TICKS * 0.6 else _BACKGROUND, letters, anchor=anchor)


def shortened_name(name: str) -> str:
    """A name as it stands in captions."""
    name = drawable(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
