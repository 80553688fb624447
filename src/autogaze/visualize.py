"""Pictures of what was gazed at: overlay videos, contact sheets, and single frames."""

from autogaze.drawing import scale_colors
from autogaze.overlay import OverlayWriter, overlay_frame
from autogaze.sheet import ContactSheet, sheet

__all__ = ["ContactSheet", "OverlayWriter", "overlay_frame", "scale_colors", "sheet"]
