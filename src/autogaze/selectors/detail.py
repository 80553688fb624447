"""Where there is detail: patches with the largest variance of the Laplacian."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.grid import FrameLayout
from autogaze.selectors.pyramid import all_scales, by_index, luma, patch_means
from autogaze.selectors.scored import FrameScores, ScoredSelector, Scorer


def laplacian(luma_hw: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """(h, w) answer of the filter (0 1 0; 1 −4 1; 0 1 0); past the border the image repeats its edge."""
    padded = np.pad(luma_hw, 1, mode="edge").astype(np.int32)
    across = padded[1:-1, :-2] + padded[1:-1, 2:]
    down = padded[:-2, 1:-1] + padded[2:, 1:-1]
    return across + down - 4 * padded[1:-1, 1:-1]


def detail_scores(rgb_HWC: NDArray[np.uint8], layout: FrameLayout) -> NDArray[np.float64]:
    """(num_indices,) variance of the Laplacian of the luma (0 … 255) under each patch, at the patch's scale."""
    variances = []
    for scale, luma_hw1 in enumerate(all_scales(luma(rgb_HWC), layout)):
        answer = laplacian(luma_hw1[..., 0])
        mean = patch_means(answer, layout, scale)
        variances.append(patch_means(answer * answer, layout, scale) - mean**2)
    return by_index(variances, layout)


class Detail(ScoredSelector):
    """Scores a patch by the variance of the 3 × 3 Laplacian of the luma, at the patch's own scale.

    A variance is a mean per pixel of that scale, so the scales compete directly. Each frame is looked at alone.
    """

    name = "detail"

    def scorer(self, layout: FrameLayout) -> Scorer:
        """What scores the frames of one video of this layout."""
        return _DetailScorer(layout)


class _DetailScorer:
    def __init__(self, layout: FrameLayout) -> None:
        self._layout = layout

    def score(self, frames: Frames, *, position: int) -> FrameScores:
        score_TP = np.stack([detail_scores(rgb, self._layout) for rgb in frames.rgb])
        return FrameScores(score_TP=score_TP, apart_T=np.zeros(len(frames), bool))
