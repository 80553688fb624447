"""One clip to look at: source, kept patches, reconstruction and error of up to eight frames, side by side."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from autogaze.archive import atomic_path
from autogaze.captions import drawable, font, percent, shortened
from autogaze.drawing import Backdrop, GazePainter, Rgb, check_fits
from autogaze.evaluation.rows import ClipRow
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.reconstructors.base import Reconstruction

# Shape letters: H, W height and width of a frame in pixels.

MAX_COLUMNS = 8
MAX_WIDTH_PX = 2400
TITLE_KEY = "Title"
"""Under which the PNG carries its title as text."""
_MOST_BYTES = 220  # of the 255 that file systems allow, with the ending and what a temporary file adds
_MAX_THUMB_PX = (270, 340)  # width, height
_MIN_THUMB_PX = 24
_MIN_INNER_PX = 900
_GAP_PX, _MARGIN_PX, _LABELS_PX = 8, 24, 190
_TITLE_PX, _FONT_PX, _SMALL_PX = 30, 20, 16
_BACKGROUND: Rgb = (17, 19, 24)
_TEXT: Rgb = (236, 238, 242)
_QUIET: Rgb = (150, 156, 168)
_DARK = Backdrop(brightness=0.16, saturation=0.2)
_FULL_ERROR = 0.25
"""Mean absolute error of a pixel, of 1, from which on the error map is white."""
# Black, purple, red, yellow, white: darker is always less, with and without hues.
_HEAT: tuple[tuple[float, Rgb], ...] = (
    (0.0, (0, 0, 0)),
    (0.25, (72, 18, 108)),
    (0.5, (188, 55, 84)),
    (0.78, (249, 160, 40)),
    (1.0, (255, 255, 235)),
)


def grid_name(row: ClipRow, *, with_reconstructor: bool) -> str:
    """What the grid of a row's measurement is called before its ending: short enough for every file system."""
    words = (row.clip_name, row.selector, row.setting, *((row.reconstructor,) if with_reconstructor else ()))
    name = "_".join(word.replace("/", "-") for word in words)
    encoded = os.fsencode(name)
    if len(encoded) <= _MOST_BYTES:
        return name
    tail = f"-{hashlib.sha256(encoded).hexdigest()[:12]}"
    return encoded[: _MOST_BYTES - len(tail)].decode(errors="ignore") + tail


def write_grid(path: Path, *, frames: Frames, gaze: Gaze, reconstruction: Reconstruction, title: str) -> None:
    """Draw a clip under one setting as a PNG that appears whole or not at all.

    Columns are at most eight frames, spread evenly, with the first and the last. The picture is at most
    2400 px wide. Equal input gives equal bytes; the title is in the file as text, too.

    Raises:
        ValueError: frames, gaze and reconstruction are not of one clip.
        OSError: the file cannot be written.
    """
    image = grid_image(frames, gaze=gaze, reconstruction=reconstruction, title=title)
    texts = PngInfo()
    # A file name that is not text keeps its bytes as escapes.
    texts.add_itxt(TITLE_KEY, title.encode("utf-8", "backslashreplace").decode())
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=texts)


def grid_image(frames: Frames, *, gaze: Gaze, reconstruction: Reconstruction, title: str) -> Image.Image:
    """The RGB picture that :func:`write_grid` writes.

    Raises:
        ValueError: frames, gaze and reconstruction are not of one clip.
    """
    check_fits(frames, gaze, gaze.layout)
    if reconstruction.rgb.shape != frames.rgb.shape:
        raise ValueError(
            f"frames and reconstruction must be of one clip, got {frames.rgb.shape} and {reconstruction.rgb.shape}"
        )
    chosen = evenly(len(frames), most=MAX_COLUMNS)
    painter = _painter(gaze.layout, columns=len(chosen))
    left, top = _MARGIN_PX + _LABELS_PX, _MARGIN_PX + _TITLE_PX + 3 * _SMALL_PX + 2 * _FONT_PX
    step_x, step_y = painter.width_px + _GAP_PX, max(painter.height_px, 5 * _FONT_PX) + _GAP_PX
    inner_px = max(_MIN_INNER_PX, _LABELS_PX + len(chosen) * step_x)
    page = Image.new("RGB", (inner_px + 2 * _MARGIN_PX, top + 4 * step_y + _MARGIN_PX), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    words = shortened(drawable(title), size_px=_TITLE_PX, width_px=inner_px)
    draw.text((_MARGIN_PX, _MARGIN_PX - 6), words, _TEXT, font(_TITLE_PX))
    draw.text((_MARGIN_PX, _MARGIN_PX + _TITLE_PX + 6), _summary(frames, gaze, reconstruction), _QUIET, font(_FONT_PX))
    for column, t in enumerate(chosen):
        x = left + column * step_x
        psnr = _psnr_words(frames.rgb[t], reconstruction.rgb[t])
        _draw_caption(
            draw,
            (f"frame {t}: {gaze.count[t]:,} kept", f"loss {reconstruction.loss[t]:.3g}, {psnr}"),
            at=(x, top),
            width_px=painter.width_px,
        )
        for row, cell in enumerate(_cells(painter, frames.rgb[t], gaze[t], reconstruction.rgb[t])):
            page.paste(cell, (x, top + row * step_y))
    _draw_labels(draw, painter, gaze, tops=[top + row * step_y for row in range(4)])
    return page


def evenly(count: int, *, most: int) -> list[int]:
    """At most ``most`` of the numbers 0 … count − 1, spread evenly, with the first and the last."""
    columns = min(count, most)
    return [0] if columns == 1 else [round(number * (count - 1) / (columns - 1)) for number in range(columns)]


def error_map(rgb: NDArray[np.uint8], rebuilt: NDArray[np.uint8]) -> Image.Image:
    """Where two (H, W, 3) pictures differ: black where not at all, white from a quarter of the range of colours on."""
    error_HW = np.abs(rgb.astype(np.int16) - rebuilt).mean(-1) / 255
    level_HW = np.round(255 * np.minimum(1.0, error_HW / _FULL_ERROR)).astype(np.uint8)
    at = np.arange(256) / 255
    table = np.stack([np.interp(at, [x for x, _ in _HEAT], [c[i] for _, c in _HEAT]) for i in range(3)], -1)
    return Image.fromarray(table.round().astype(np.uint8)[level_HW])


def _painter(layout: FrameLayout, *, columns: int) -> GazePainter:
    most_px = (MAX_WIDTH_PX - 2 * _MARGIN_PX - _LABELS_PX) // columns - _GAP_PX
    factor = min(min(most_px, _MAX_THUMB_PX[0]) / layout.width_px, _MAX_THUMB_PX[1] / layout.height_px)
    return GazePainter(
        layout,
        height_px=max(_MIN_THUMB_PX, round(layout.height_px * factor)),
        width_px=max(_MIN_THUMB_PX, round(layout.width_px * factor)),
    )


def _cells(
    painter: GazePainter, rgb: NDArray[np.uint8], gaze: Gaze, rebuilt: NDArray[np.uint8]
) -> Sequence[Image.Image]:
    shown, size = painter.show(rgb), (painter.width_px, painter.height_px)
    return (
        shown.picture,
        painter.paint(shown, gaze, backdrop=_DARK),
        painter.show(rebuilt).picture,
        error_map(rgb, rebuilt).resize(size, Image.Resampling.BILINEAR),
    )


def _summary(frames: Frames, gaze: Gaze, reconstruction: Reconstruction) -> str:
    return (
        f"{gaze.num_gazes:,} of {gaze.num_patches:,} patches kept ({percent(gaze.ratio)})  |  "
        f"mean loss {reconstruction.loss.mean():.3g}  |  {frames.width_px} x {frames.height_px} px, "
        f"{len(frames)} {'frame' if len(frames) == 1 else 'frames'}"
    )


def _psnr_words(rgb: NDArray[np.uint8], rebuilt: NDArray[np.uint8]) -> str:
    squared = float(np.square(rgb.astype(np.int32) - rebuilt).mean()) / 255**2
    return f"{-10 * np.log10(squared):.1f} dB" if squared else "exact"


def _draw_caption(draw: ImageDraw.ImageDraw, lines: Sequence[str], *, at: tuple[int, int], width_px: int) -> None:
    """Lines above a column, smaller where they do not fit."""
    size_px = _SMALL_PX
    while size_px > 7 and max(font(size_px).getlength(line) for line in lines) > width_px:
        size_px -= 1
    for line, color, up in zip(lines, (_TEXT, _QUIET), (_SMALL_PX + 9, 5), strict=True):
        draw.text((at[0], at[1] - up), line, color, font(size_px), anchor="ls")


def _draw_labels(draw: ImageDraw.ImageDraw, painter: GazePainter, gaze: Gaze, *, tops: Sequence[int]) -> None:
    names = ("source", "kept patches", "rebuilt", "error")
    for name, y in zip(names, tops, strict=True):
        draw.text((_MARGIN_PX, y), name, _TEXT, font(_FONT_PX))
    kept = np.bincount(gaze.layout.locate(gaze.index)[0], minlength=gaze.layout.grid.num_scales)
    for scale, (scale_px, color) in enumerate(zip(gaze.layout.grid.scales_px, painter.colors, strict=True)):
        y = tops[1] + 34 + 24 * scale
        draw.rectangle((_MARGIN_PX, y, _MARGIN_PX + 13, y + 13), outline=color, width=3)
        draw.text((_MARGIN_PX + 22, y - 3), f"{scale_px} px: {kept[scale]:,}", _QUIET, font(_SMALL_PX))
    draw.multiline_text(
        (_MARGIN_PX, tops[3] + 32), f"white: {_FULL_ERROR:g}\nof 1 or more", _QUIET, font(_SMALL_PX), spacing=5
    )
