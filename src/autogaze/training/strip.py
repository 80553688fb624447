"""The picture of a reconstructor at work: true frames, what it made of them, and how far off that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

from autogaze.archive import atomic_path
from autogaze.captions import drawable, font, shortened
from autogaze.datasets.stream import LabelledClip
from autogaze.drawing import Rgb
from autogaze.error_map import FULL_LEVELS, error_map
from autogaze.gaze import Gaze
from autogaze.picture_error import PictureError
from autogaze.selectors.canvas import Canvas
from autogaze.selectors.cells import Pixels

# Shape letters: T frames of H × W pixels, S of a side where they are square.

PICTURES = 4
"""Validation clips that are drawn."""
CELL_PX = 224
"""Side of a frame in the picture; captions need it even where frames are smaller."""
_GAP_PX, _TITLE_PX, _FONT_PX = 8, 20, 15
_BACKGROUND: Rgb = (17, 19, 24)
_TEXT: Rgb = (236, 238, 242)

LabelT = TypeVar("LabelT")


def some_of(clips: Sequence[LabelledClip[LabelT]]) -> Iterator[tuple[str, LabelledClip[LabelT]]]:
    """A few clips, evenly spread, each with a name for its picture that no other has."""
    for place in range(0, len(clips), max(1, -(-len(clips) // PICTURES))):
        path = clips[place].recipe.path
        yield f"{place:03d}-{'clip' if path is None else path.stem}", clips[place]


def canvases(rgb: Pixels, gaze: Gaze) -> Pixels:
    """(T, S, S, 3) uint8 what gazes alone paint of a (T, S, S, 3) clip, frame by frame."""
    canvas = Canvas(gaze.layout)
    return np.stack([canvas.paste(frame, one) for frame, one in zip(rgb, gaze, strict=True)])


def strip(true_THWC: Pixels, rows: Mapping[str, Pixels], *, title: Path | str | None, path: Path) -> None:
    """Write a PNG of T columns: true frames, then each row's, then the errors of the last row.

    Args:
        true_THWC: (T, H, W, 3) uint8 frames as they were.
        rows: name → (T, H, W, 3) uint8 what was made of them, at least one.
        title: of the picture; of a path its last part.
        path: the PNG; its folder is made.

    Raises:
        ValueError: a row is not of the shape of the true frames.
        OSError: the file cannot be written.
    """
    *_, last = rows
    step_px, heading_px = CELL_PX + _GAP_PX, _TITLE_PX + 3 * _GAP_PX
    line_px = CELL_PX + _FONT_PX + 2 * _GAP_PX
    width_px = len(true_THWC) * step_px + _GAP_PX
    page = Image.new("RGB", (width_px, heading_px + (len(rows) + 2) * line_px), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    words = drawable(title.name if isinstance(title, Path) else title or "drawn clip")
    words = shortened(words, size_px=_TITLE_PX, width_px=width_px - 2 * _GAP_PX)
    draw.text((_GAP_PX, _GAP_PX), words, _TEXT, font(_TITLE_PX))
    for column, true in enumerate(true_THWC):
        errors = {name: PictureError.between(true, row[column]) for name, row in rows.items()}
        cells = [(_enlarged(true), "frame")]
        cells += [(_enlarged(row[column]), f"{name}  {_decibels(errors[name])}") for name, row in rows.items()]
        picture = error_map(errors[last].absolute, height_px=CELL_PX, width_px=CELL_PX)
        cells.append((picture, f"error  mean {errors[last].mean_levels:.1f} levels, white {FULL_LEVELS}"))
        for place, (cell, caption) in enumerate(cells):
            left_px, top_px = _GAP_PX + column * step_px, heading_px + place * line_px
            page.paste(cell, (left_px, top_px))
            draw.text((left_px, top_px + CELL_PX + _GAP_PX // 2), caption, _TEXT, font(_FONT_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        page.save(temporary, format="PNG")


def _enlarged(frame: Pixels) -> Image.Image:
    return Image.fromarray(frame).resize((CELL_PX, CELL_PX), Image.Resampling.NEAREST)


def _decibels(error: PictureError) -> str:
    return f"{error.psnr_db:.1f} dB" if error.squared_sum else "exact"
