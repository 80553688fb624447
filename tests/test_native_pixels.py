"""Errors by compiled code are those of numpy, number for number."""

from __future__ import annotations

import numpy as np
import pytest

from autogaze.grid import FrameLayout, PatchGrid
from autogaze.native.library import SWITCH
from autogaze.native.pixels import pixel_library
from autogaze.selectors.base import Budget
from autogaze.selectors.cells import Cells, Tiling
from autogaze.selectors.distortion import Errors, bare_errors, canvas_errors, picture_errors
from autogaze.selectors.painting import Painting
from autogaze.selectors.replenish import Replenish
from clip_samples import moving_squares

needs_library = pytest.mark.skipif(pixel_library() is None, reason="no compiled code here")

GRIDS = [PatchGrid(), PatchGrid(scales_px=(16, 48), patch_px=16), PatchGrid(scales_px=(32, 64), patch_px=32)]


def same(a: Errors, b: Errors) -> None:
    np.testing.assert_array_equal(a.absolute, b.absolute)
    assert (a.squared is None) == (b.squared is None)
    if a.squared is not None:
        np.testing.assert_array_equal(a.squared, b.squared)
