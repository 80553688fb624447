"""Where things move: patches with the fastest dense optical flow."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autogaze.extras import require
from autogaze.frames import Frames
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.detail import detail_scores
from autogaze.selectors.pyramid import by_index, finest_scale, luma, patch_maxima
from autogaze.selectors.scored import FrameScores, ScoredSelector, Scorer

Preset = Literal["ultrafast", "fast", "medium"]


class Flow(ScoredSelector):
    """Scores a patch by the fastest motion in its box, in pixels of the video since the frame before.

    The flow is OpenCV's Dense Inverse Search (extra ``flow``) on the luma of the finest scale; a patch of any
    scale gets the maximum over its box, so a coarse patch is at least as good as the finest one inside it. The
    first frame has no predecessor: it is scored by detail and gets an even share of its clip's budget.
    """

    name = "flow"

    def __init__(self, *, grid: PatchGrid | None = None, preset: Preset = "medium") -> None:
        """
        Args:
            grid: Patches of one tile; the published four scales if None.
            preset: How much work the flow takes; "medium" is the most exact.

        Raises:
            ImportError: opencv-python-headless is not installed.
            ValueError: there is no such preset.
        """
        super().__init__(grid=grid)
        if preset not in ("ultrafast", "fast", "medium"):
            raise ValueError(f'preset must be "ultrafast", "fast" or "medium", got {preset!r}')
        self.preset = preset
        self._cv2 = require("cv2", extra="flow")

    def scorer(self, layout: FrameLayout) -> Scorer:
        """What scores the frames of one video of this layout."""
        preset = getattr(self._cv2, f"DISOPTICAL_FLOW_PRESET_{self.preset.upper()}")
        return _FlowScorer(layout, self._cv2.DISOpticalFlow_create(preset))


class _FlowScorer:
    def __init__(self, layout: FrameLayout, flow: Any) -> None:
        self._layout = layout
        self._flow = flow
        self._before_hw: NDArray[np.uint8] | None = None
        finest_px = layout.grid.scales_px[-1]
        self._stretch = np.array([layout.tile_width_px / finest_px, layout.tile_height_px / finest_px], np.float32)

    def score(self, frames: Frames, *, position: int) -> FrameScores:
        apart_T = np.zeros(len(frames), bool)
        scores = []
        for t, rgb in enumerate(frames.rgb):
            finest_hw = finest_scale(luma(rgb), self._layout)[..., 0]
            if self._before_hw is None:
                apart_T[t] = True
                scores.append(detail_scores(rgb, self._layout))
            else:
                scores.append(self._speeds(self._before_hw, finest_hw))
            self._before_hw = finest_hw
        return FrameScores(score_TP=np.stack(scores), apart_T=apart_T)

    def _speeds(self, before_hw: NDArray[np.uint8], finest_hw: NDArray[np.uint8]) -> NDArray[np.float64]:
        right, down = np.moveaxis(self._flow.calc(before_hw, finest_hw, None) * self._stretch, -1, 0)
        speed_hw = np.hypot(right, down)
        scales = range(self._layout.grid.num_scales)
        return by_index([patch_maxima(speed_hw, self._layout, scale) for scale in scales], self._layout)
