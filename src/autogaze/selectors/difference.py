"""Where colours change: patches that differ most from the frame before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.base import Budget
from autogaze.selectors.detail import detail_scores
from autogaze.selectors.pyramid import Scales, all_scales, by_index, patch_means
from autogaze.selectors.scored import FrameScores, ScoredSelector, Scorer


def difference_scores(scales: Scales, before: Scales | None, layout: FrameLayout) -> NDArray[np.float64]:
    """(num_indices,) mean |Δ| (0 … 255) between two frames under each patch, at the patch's scale.

    Args:
        scales: The frame, as :func:`~autogaze.selectors.pyramid.all_scales` gives it.
        before: The frame it is compared with; black if None.
        layout: What the indices are.
    """
    means = []
    for scale, now in enumerate(scales):
        change = now if before is None else np.maximum(now, before[scale]) - np.minimum(now, before[scale])
        means.append(patch_means(change, layout, scale))
    return by_index(means, layout)


class Difference(ScoredSelector):
    """Scores a patch by its mean absolute RGB difference to the frame before, both brought down to its scale.

    A mean per pixel of that scale has one unit at all scales, so they compete directly. The first frame of a
    video has no predecessor: it is scored by detail (see :mod:`autogaze.selectors.detail`) and gets an even
    share of its clip's budget.
    """

    name = "difference"

    def scorer(self, layout: FrameLayout) -> Scorer:
        """What scores the frames of one video of this layout."""
        return _DifferenceScorer(layout)


class PaperDifference(ScoredSelector):
    """The RGB difference of the AutoGaze paper, figure 10: every clip starts from a black image.

    It is meant for one budget over the whole clip, its default: the first frame then differs everywhere and takes
    most of it. Otherwise the same as :class:`Difference`.
    """

    name = "difference-paper"

    def __init__(self, *, grid: PatchGrid | None = None) -> None:
        super().__init__(grid=grid)
        self.default_budget = Budget(ratio=0.1, per="clip")

    def scorer(self, layout: FrameLayout) -> Scorer:
        """What scores the frames of one video of this layout."""
        return _PaperDifferenceScorer(layout)


class _DifferenceScorer:
    def __init__(self, layout: FrameLayout) -> None:
        self._layout = layout
        self._before: Scales | None = None

    def score(self, frames: Frames, *, position: int) -> FrameScores:
        apart_T = np.zeros(len(frames), bool)
        scores = []
        for t, rgb in enumerate(frames.rgb):
            scales = all_scales(rgb, self._layout)
            if self._before is None:
                apart_T[t] = True
                scores.append(detail_scores(rgb, self._layout))
            else:
                scores.append(difference_scores(scales, self._before, self._layout))
            self._before = scales
        self._before = _kept(self._before)
        return FrameScores(score_TP=np.stack(scores), apart_T=apart_T)


class _PaperDifferenceScorer:
    def __init__(self, layout: FrameLayout) -> None:
        self._layout = layout
        self._before: Scales | None = None

    def score(self, frames: Frames, *, position: int) -> FrameScores:
        if position == 0:
            self._before = None
        scores = []
        for rgb in frames.rgb:
            scales = all_scales(rgb, self._layout)
            scores.append(difference_scores(scales, self._before, self._layout))
            self._before = scales
        self._before = _kept(self._before)
        return FrameScores(score_TP=np.stack(scores), apart_T=np.zeros(len(frames), bool))


def _kept(scales: Scales | None) -> Scales | None:
    """The finest scale may be a view of frames that their owner will reuse, and would keep them all in memory."""
    return None if scales is None else (*scales[:-1], scales[-1].copy())
