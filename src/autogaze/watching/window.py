"""A window that shows each frame beside its gaze, through OpenCV."""

from __future__ import annotations

import importlib
import os
import re
import sys
from types import TracebackType
from typing import Any, Self

from autogaze.errors import AutoGazeError
from autogaze.overlay import OverlayPage
from autogaze.watching.tally import Tally, Watched

_ESCAPE, _Q = 27, ord("q")


class WindowError(AutoGazeError):
    """No window can be shown here."""


class Window:
    """Open from its first frame until someone closes it, or presses q or Escape."""

    def __init__(self, title: str) -> None:
        """Find out whether there can be one; it opens with its first frame.

        Raises:
            WindowError: OpenCV is missing or without windows, or there is no display.
        """
        self._cv2 = opencv_with_windows()
        self._title = title
        self._page: OverlayPage | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._page is not None:
            self._cv2.destroyWindow(self._title)

    def show(self, seen: Watched, tally: Tally) -> bool:
        """Show a frame; whether the window is still open."""
        if self._page is None:
            self._page = OverlayPage(tally.layout)
            self._cv2.namedWindow(self._title, self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO)
            self._cv2.resizeWindow(self._title, self._page.width_px, self._page.height_px)
        seconds = 0.0 if seen.gaze.time_seconds is None else float(seen.gaze.time_seconds[0])
        page = self._page.draw(seen.rgb, seen.gaze, time_seconds=seconds, mean_share=tally.kept_share)
        self._cv2.imshow(self._title, page[..., ::-1])  # OpenCV shows blue first
        pressed = self._cv2.waitKey(1) & 0xFF
        visible = self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) >= 1
        return visible and pressed not in (_ESCAPE, _Q)


def opencv_with_windows() -> Any:
    """OpenCV, if it can show windows here.

    Raises:
        WindowError: it is missing or without windows, or there is no display.
    """
    try:
        cv2 = importlib.import_module("cv2")
    except ModuleNotFoundError as error:
        raise WindowError("a window needs OpenCV: pip install opencv-python, or leave --window out") from error
    interface = re.search(r"^\s*GUI:\s*(.*)$", cv2.getBuildInformation(), re.M)
    if interface is not None and interface[1].strip() in ("NONE", "NO"):
        raise WindowError(
            "this OpenCV has no windows (opencv-python-headless); "
            "pip uninstall opencv-python-headless, then pip install opencv-python, or leave --window out"
        )
    # Without a display, OpenCV ends the process instead of telling.
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise WindowError("there is no display (DISPLAY and WAYLAND_DISPLAY are not set); leave --window out")
    return cv2
