"""Make ``docs/images/hero.png``: frames of the sample video above what was gazed at in them.

Run ``python docs/make_hero.py [VIDEO]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from autogaze.captions import font, percent
from autogaze.drawing import Backdrop, GazePainter, scale_colors
from autogaze.frames import Frames
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.base import Budget
from autogaze.selectors.replenish import Replenish

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ((2.25, "the camera pans"), (5.0, "a train and balloons move"), (7.25, "a ladybird walks"))
THRESHOLD = 0.025
PANEL_PX = (560, 315)
GAP_PX, MARGIN_PX, FONT_PX = 18, 18, 26
TEXT, QUIET = (236, 238, 242), (150, 156, 168)


def read(path: Path) -> Frames:
    """All frames of a short video."""
    with av.open(str(path)) as file:
        decoded = [(frame.to_ndarray(format="rgb24"), float(frame.time or 0)) for frame in file.decode(video=0)]
    rgb, seconds = zip(*decoded, strict=True)
    return Frames(rgb=np.stack(rgb), time_seconds=np.array(seconds), number=np.arange(len(rgb)))


def hero(frames: Frames) -> Image.Image:
    """Source above gaze at a few moments, with the share kept of each and of the whole video."""
    grid = PatchGrid()
    layout = FrameLayout.tiled(grid, height_px=frames.height_px, width_px=frames.width_px)
    gaze = Replenish().open(layout, Budget(threshold=THRESHOLD)).step(frames)
    painter = GazePainter(layout, height_px=PANEL_PX[1], width_px=PANEL_PX[0])
    step_x, step_y = PANEL_PX[0] + GAP_PX, PANEL_PX[1] + GAP_PX
    size = (len(SHOWN) * step_x - GAP_PX + 2 * MARGIN_PX, 2 * step_y + 4 * FONT_PX + MARGIN_PX)
    page = Image.new("RGB", size, (17, 19, 24))
    draw = ImageDraw.Draw(page)
    caption_y = MARGIN_PX + 2 * step_y + FONT_PX // 2
    for column, (seconds, what) in enumerate(SHOWN):
        t = int(np.abs(frames.time_seconds - seconds).argmin())
        x = MARGIN_PX + column * step_x
        shown = painter.show(frames.rgb[t])
        page.paste(shown.picture, (x, MARGIN_PX))
        page.paste(painter.paint(shown, gaze[t], backdrop=Backdrop()), (x, MARGIN_PX + step_y))
        draw.text((x, caption_y), what, TEXT, font(FONT_PX), anchor="lm")
        share = f"{percent(gaze[t].ratio)} kept"
        draw.text((x + PANEL_PX[0], caption_y), share, TEXT, font(FONT_PX), anchor="rm")
    draw_legend(draw, grid, y=caption_y + 2 * FONT_PX)
    words = f"{len(frames)} frames, {gaze.num_gazes:,} of {gaze.num_patches:,} patches kept ({percent(gaze.ratio)})"
    draw.text((size[0] - MARGIN_PX, caption_y + 2 * FONT_PX), words, QUIET, font(FONT_PX), anchor="rm")
    return page


def draw_legend(draw: ImageDraw.ImageDraw, grid: PatchGrid, *, y: int) -> None:
    """The scales and their colours, in one line."""
    x = MARGIN_PX
    for scale_px, color in zip(grid.scales_px, scale_colors(grid.num_scales), strict=True):
        draw.rectangle((x, y - 10, x + 20, y + 10), outline=color, width=4)
        draw.text((x + 32, y), f"{scale_px} px", QUIET, font(FONT_PX), anchor="lm")
        x += 60 + round(font(FONT_PX).getlength(f"{scale_px} px"))


if __name__ == "__main__":
    video = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "examples" / "sample.mp4"
    target = ROOT / "docs" / "images" / "hero.png"
    target.parent.mkdir(exist_ok=True)
    hero(read(video)).save(target, optimize=True)
    sys.stdout.write(f"{target}\n")
