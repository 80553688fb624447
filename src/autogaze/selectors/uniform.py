"""Patches spread evenly over the frame, whatever it shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.grid import FrameLayout
from autogaze.selectors.scored import FrameScores, ScoredSelector, Scorer

# The solution of x³ = x + 1: the multiples of its powers are spread most evenly over the plane, for the same
# reason for which those of the golden ratio are over the line.
PLASTIC_NUMBER = 1.3247179572447460


class Uniform(ScoredSelector):
    """Takes the same evenly spread patches of the finest scale in every frame.

    Patches are taken in the order of ``|frac(row / p + column / p²) − ½|``, counted from the middle of the frame,
    with p the plastic number: a lattice, so any budget is spread evenly, and a larger budget adds to a smaller
    one. When the finest scale is used up, the next coarser one follows.
    """

    name = "uniform"

    def scorer(self, layout: FrameLayout) -> Scorer:
        """What scores the frames of one video of this layout."""
        return _UniformScorer(layout)


def uniform_scores(layout: FrameLayout) -> NDArray[np.float64]:
    """(num_indices,) the highest for the patch to take first."""
    scale, row, column = layout.locate(np.arange(layout.num_indices))
    scores = np.empty(layout.num_indices)
    for number in range(layout.grid.num_scales):
        of_scale = scale == number
        shown = of_scale & layout.inside
        # Where no patch of a scale lies inside the frame, none of its scores is ever looked at.
        middle_row, middle_column = (row[shown].max(initial=0) / 2, column[shown].max(initial=0) / 2)
        down, right = row[of_scale] - middle_row, column[of_scale] - middle_column
        phase = (0.5 + down / PLASTIC_NUMBER + right / PLASTIC_NUMBER**2) % 1
        scores[of_scale] = number + 0.5 - np.abs(phase - 0.5)
    return scores


class _UniformScorer:
    def __init__(self, layout: FrameLayout) -> None:
        self._score_P = uniform_scores(layout)

    def score(self, frames: Frames, *, position: int) -> FrameScores:
        score_TP = np.broadcast_to(self._score_P, (len(frames), len(self._score_P)))
        return FrameScores(score_TP=score_TP, apart_T=np.zeros(len(frames), bool))
