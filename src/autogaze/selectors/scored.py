"""Selectors that give every patch of a frame a score and take the highest within the budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autogaze.errors import BudgetError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, Indices, PatchGrid
from autogaze.selectors.base import CLIP_FRAMES, Budget, SelectorSession, clips

# Shape letters: T frames, P patch indices of a layout, I of them inside the video.


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameScores:
    """How much each patch of some frames is worth; only the order of the numbers matters."""

    score_TP: NDArray[np.float64]
    """(T, num_indices) finite; the highest win. Every scale competes in one unit."""
    apart_T: NDArray[np.bool_]
    """(T,) true where a frame's scores are of another kind than those of the frames around it (the first frame
    has no predecessor to differ from): it then gets an even share of a clip's budget."""


class Scorer(Protocol):
    """What scores the frames of one video, in order."""

    def score(self, frames: Frames, *, position: int) -> FrameScores:
        """Scores of the next frames; all are of one clip, the first is frame number ``position`` of it."""
        ...


class ScoredSelector(ABC):
    """Base of the selectors that score patches: candidates of all scales compete, the highest scores win.

    The whole budget is spent, in the order of the scores, ties by ascending index (coarse before fine). A patch
    outside the video is never chosen, nor one twice in a frame. Nothing is known of the loss or of the
    probability of a gaze.

    Results do not depend on how a video is cut into steps, with one exception: a budget per clip lets the frames
    of a clip compete, which they can only do inside one step. A step that holds less than a clip gets its
    proportional share of the clip's budget.
    """

    name: str
    grid: PatchGrid
    default_budget: Budget
    needs_motion_vectors: bool = False

    def __init__(self, *, grid: PatchGrid | None = None) -> None:
        """
        Args:
            grid: Patches of one tile; the published four scales if None.
        """
        self.grid = PatchGrid() if grid is None else grid
        self.default_budget = Budget(ratio=0.1)

    def open(self, layout: FrameLayout, budget: Budget) -> SelectorSession:
        """Start on a video whose frames have this layout.

        Raises:
            BudgetError: the budget has a threshold or a PSNR, which need a reconstruction, or a list of ratios that
                is not as long as a clip.
        """
        budget.check_one_ratio_a_frame()
        for limit, value in (("threshold", budget.threshold), ("psnr_db", budget.psnr_db)):
            if value is not None:
                raise BudgetError(
                    f"{self.name} cannot stop at {limit}={value}: it does not reconstruct frames; "
                    f"give it a ratio, or use the selector replenish"
                )
        return ScoredSession(self.scorer(layout), layout=layout, budget=budget)

    @abstractmethod
    def scorer(self, layout: FrameLayout) -> Scorer:
        """What scores the frames of one video of this layout."""


class ScoredSession:
    """One video on its way through a :class:`ScoredSelector`."""

    layout: FrameLayout

    def __init__(self, scorer: Scorer, *, layout: FrameLayout, budget: Budget) -> None:
        self.layout = layout
        self._scorer = scorer
        self._budget = budget
        self._frames_seen = 0

    def step(self, frames: Frames) -> Gaze:
        """The gaze of the next frames of the video, with their times.

        Raises:
            ValueError: the frames are not of the layout's height and width, or lack what the selector reads.
        """
        if (frames.height_px, frames.width_px) != (self.layout.height_px, self.layout.width_px):
            raise ValueError(
                f"this video's frames must be {self.layout.width_px} × {self.layout.height_px} px, "
                f"got {frames.width_px} × {frames.height_px}; open a new session for another video"
            )
        chosen: list[Indices] = []
        for part, position in clips(frames, start=self._frames_seen):
            scores = self._scorer.score(part, position=position)
            chosen += choose(scores, self.layout, self._budget, position=position)
            self._frames_seen += len(part)
        return Gaze(
            index=np.concatenate(chosen),
            count=np.array([len(of_frame) for of_frame in chosen]),
            layout=self.layout,
            time_seconds=frames.time_seconds,
        )


def choose(scores: FrameScores, layout: FrameLayout, budget: Budget, *, position: int) -> list[Indices]:
    """Per frame the indices of the best patches within the budget, the best first.

    Args:
        scores: Of frames of one clip.
        layout: What the scores' columns are.
        budget: Its ratio, per frame or per clip; no ratio allows every patch.
        position: Number of the first of these frames in its clip.

    Raises:
        BudgetError: there is no ratio for one of the frames.
    """
    inside = np.flatnonzero(layout.inside)
    score_TI = scores.score_TP[:, inside]
    T, N = score_TI.shape
    if budget.per == "frame":
        return [inside[_best(score_TI[t], budget.max_patches(N, position + t))] for t in range(T)]

    assert position + T <= CLIP_FRAMES
    left = budget.max_patches_of_clip(N, position + T) - budget.max_patches_of_clip(N, position)
    chosen: dict[int, Indices] = {}
    for t in np.flatnonzero(scores.apart_T):
        chosen[int(t)] = _best(score_TI[t], budget.max_patches(N, position + int(t)))
        left -= len(chosen[int(t)])
    pooled = np.flatnonzero(~scores.apart_T)
    if len(pooled):
        chosen |= zip(pooled.tolist(), _best_of_all(score_TI[pooled], left), strict=True)
    return [inside[chosen[t]] for t in range(T)]


def _best(score_I: NDArray[np.float64], count: int) -> Indices:
    return np.argsort(-score_I, kind="stable")[:count]


def _best_of_all(score_TI: NDArray[np.float64], count: int) -> list[Indices]:
    """Columns of the ``count`` highest scores, at least one in each row, per row from the highest down."""
    T, columns = score_TI.shape
    order = np.argsort(-score_TI.reshape(-1), kind="stable")
    first_of_row = np.zeros(T * columns, bool)
    first_of_row[np.arange(T) * columns + score_TI.argmax(1)] = True
    is_first = first_of_row[order]
    others = np.flatnonzero(~is_first)[: max(0, count - T)]
    best = order[np.sort(np.concatenate([np.flatnonzero(is_first), others]))]
    return [best[best // columns == t] % columns for t in range(T)]
