"""Draw the sample video: a panned street at dusk, a cut to a train in the hills, a cut to a still notice board.

Run ``python examples/make_sample.py`` to write ``examples/sample.mp4``. Every frame is a function of its number
alone, so the video can be made again and checked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image
from sample_shots.board import notice_board
from sample_shots.hills import hills
from sample_shots.pen import FPS, HEIGHT_PX, WIDTH_PX, Layer
from sample_shots.street import street


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A number of frames and the function that draws each."""

    num_frames: int
    draw: Callable[[int], Layer]


SHOTS = (
    Shot(num_frames=108, draw=street),
    Shot(num_frames=42, draw=hills),
    Shot(num_frames=42, draw=notice_board),
)
NUM_FRAMES = sum(shot.num_frames for shot in SHOTS)


def draw_frame(number: int) -> Image.Image:
    """The RGB frame of a number in ``0 .. NUM_FRAMES - 1``.

    Raises:
        IndexError: there is no such frame.
    """
    inside = number
    for shot in SHOTS:
        if 0 <= inside < shot.num_frames:
            return shot.draw(inside).convert("RGB")
        inside -= shot.num_frames
    raise IndexError(f"frame {number} is outside 0..{NUM_FRAMES - 1}")


def write_video(path: Path) -> None:
    """Draw and encode the whole video; one thread, so that the file does not depend on the machine's cores."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=FPS, options={"crf": "21", "preset": "slow", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for number in range(NUM_FRAMES):
            file.mux(stream.encode(av.VideoFrame.from_image(draw_frame(number))))
        file.mux(stream.encode(None))


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("sample.mp4")
    write_video(target)
    print(f"{target}: {NUM_FRAMES} frames, {target.stat().st_size / 1000:.0f} kB")
