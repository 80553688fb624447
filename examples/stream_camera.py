"""Gaze at a camera, frame by frame, in memory that does not grow.

Run ``python examples/stream_camera.py [camera:0|VIDEO] [--frames COUNT] [--threshold LOSS]``. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import time

import autogaze


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="camera:0")
    parser.add_argument("--frames", type=int, default=300, help="end after this many")
    parser.add_argument("--threshold", type=float, default=0.025, help="mean error at which a frame is good enough")
    options = parser.parse_args()

    with autogaze.open_video(options.source, window_frames=1) as reader:
        session = autogaze.stream(
            height_px=reader.height_px, width_px=reader.width_px, threshold=options.threshold, mode="resize"
        )
        for window in reader:
            start = time.perf_counter()
            gaze = session.step(window.rgb[0], time_seconds=float(window.time_seconds[0]))
            milliseconds = (time.perf_counter() - start) * 1e3
            bar = "#" * round(40 * gaze.ratio)
            print(f"{window.time_seconds[0]:7.2f} s  {gaze.num_gazes:4d} patches  {milliseconds:6.1f} ms  {bar}")
            if session.frames_seen == options.frames:
                break


if __name__ == "__main__":
    main()
