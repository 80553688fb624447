"""Patches drawn by lot."""

from __future__ import annotations

import numpy as np

from autogaze.frames import Frames
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.scored import FrameScores, ScoredSelector, Scorer


class Random(ScoredSelector):
    """Draws patches of every frame anew, each patch of each scale as likely as any other.

    Every session starts from the seed, so a video gets the same gazes each time.
    """

    name = "random"

    def __init__(self, *, grid: PatchGrid | None = None, seed: int = 0) -> None:
        """
        Args:
            grid: Patches of one tile; the published four scales if None.
            seed: Of the generator, 0 or above.
        """
        super().__init__(grid=grid)
        self.seed = seed

    def scorer(self, layout: FrameLayout) -> Scorer:
        """What scores the frames of one video of this layout."""
        return _RandomScorer(layout, np.random.default_rng(self.seed))


class _RandomScorer:
    def __init__(self, layout: FrameLayout, generator: np.random.Generator) -> None:
        self._layout = layout
        self._generator = generator

    def score(self, frames: Frames, *, position: int) -> FrameScores:
        score_TP = self._generator.random((len(frames), self._layout.num_indices))
        return FrameScores(score_TP=score_TP, apart_T=np.zeros(len(frames), bool))
