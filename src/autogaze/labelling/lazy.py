"""Greedy search that tries few patches: those of which the canvas, and what was found before, promise most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autogaze.errors import AutoGazeError
from autogaze.grid import Indices, PatchGrid
from autogaze.labelling.scorers import CanvasClip
from autogaze.labelling.search import Try
from autogaze.selectors.cells import Pixels
from autogaze.selectors.greedy import Search

# Shape letters: P patches of a frame, K scales.

Values = NDArray[np.float64]

FIRST_SHARE = 0.5
"""Share of the candidates that is tried at once; the others only where one of them promises more than was found."""
POOLED = 2.0
"""Weight of all scales' rate in that of each scale, in tries."""
MEMORY = 0.7
"""Share of what was tried in a frame that counts in the next one."""


@dataclass(frozen=True, kw_only=True)
class Lazy:
    """Tries at most so many patches for each gaze.

    What a patch would take off the loss is expected from two things: what it would take off a canvas with the same
    gazes, times the rate at which patches of its scale kept such promises so far; or, where it was tried before in
    this frame, what it took off then, less the share of its promise that is lost since (as in lazy greedy
    maximisation, Minoux 1978, whose bounds these are where gains only shrink). The patches expected to gain most are
    tried, then more of them as long as one promises more than the best that was found.

    Raises:
        AutoGazeError: ``candidates`` is below 1.
    """

    candidates: int = 12
    """Most patches tried for a gaze."""

    name = "lazy"

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise AutoGazeError(f"candidates must be at least 1, got {self.candidates}")

    def open(self, rgb: Pixels, grid: PatchGrid) -> FewPatches:
        """See :meth:`~autogaze.labelling.search.SearchMethod.open`.

        Raises:
            ValueError: the cells of some scale of the grid are not whole pixels, so that there is no canvas.
        """
        return FewPatches(rgb, grid, candidates=self.candidates)


class FewPatches:
    """The picker of :class:`Lazy`."""

    needs_first_loss = True

    def __init__(self, rgb: Pixels, grid: PatchGrid, *, candidates: int) -> None:
        self._candidates = candidates
        self._canvas = CanvasClip(rgb, grid)
        self._scale_P = np.array(self._canvas.tiling.cells.scale_of_patch)
        # Per scale what tried patches took off the loss, what they had promised, and how many they were.
        self._kept_K, self._promised_K, self._tries_K = (np.zeros(grid.num_scales) for _ in range(3))
        self._reset()

    def _reset(self) -> None:
        canvas = self._canvas
        self._search = Search(canvas.errors, canvas.scales.errors, canvas.tiling.cells)
        # What a patch took off the loss when it was tried last, and what it promised then; NaN before.
        self._gain_P, self._then_P = (np.full(len(self._scale_P), np.nan) for _ in range(2))

    def begin(self) -> None:
        """See :meth:`~autogaze.labelling.search.Picker.begin`."""
        self._reset()
        for sums_K in (self._kept_K, self._promised_K, self._tries_K):
            sums_K *= MEMORY

    def pick(self, attempt: Try, *, taken: Sequence[int], loss: float) -> tuple[int, float]:
        """See :meth:`~autogaze.labelling.search.Picker.pick`."""
        promised_P = self._search.gains[0].clip(min=0)
        expected_P = self._expected(promised_P)
        expected_P[list(taken)] = -np.inf
        best, best_loss, left = -1, np.inf, self._candidates
        while left:
            worth = np.flatnonzero(expected_P > (-np.inf if best < 0 else loss - best_loss))
            if not len(worth):
                break
            count = max(1, min(left, round(self._candidates * FIRST_SHARE)))
            patches = self._most_promising(worth, expected_P)[:count]
            losses = attempt(patches)
            self._learn(patches, loss - losses, promised_P[patches])
            expected_P[patches] = -np.inf
            left -= len(patches)
            if losses.min() < best_loss:
                best, best_loss = int(patches[losses.argmin()]), float(losses.min())
        self._search.take(best)
        return best, best_loss

    def end(self, taken: Sequence[int]) -> None:
        """See :meth:`~autogaze.labelling.search.Picker.end`."""
        self._canvas.commit(np.array(taken, np.int64))

    def _expected(self, promised_P: Values) -> Values:
        """(P,) what each patch is expected to take off the loss."""
        if not self._promised_K.any():
            return promised_P.copy()
        pooled = self._kept_K.sum() / self._promised_K.sum()
        weight = POOLED * self._promised_K.sum() / self._tries_K.sum()
        rate_K = (self._kept_K + weight * pooled) / (self._promised_K + weight)
        expected_P: Values = promised_P * rate_K[self._scale_P]
        tried = np.flatnonzero(~np.isnan(self._gain_P))
        then = self._then_P[tried]
        left = np.divide(promised_P[tried], then, out=np.zeros(len(tried)), where=then > 0)
        expected_P[tried] = self._gain_P[tried] * left.clip(max=1)
        return expected_P

    def _most_promising(self, patches: Indices, expected_P: Values) -> Indices:
        """These patches, best first; after the first one comes the best of each scale that was never tried."""
        ordered = patches[np.argsort(-expected_P[patches], kind="stable")]
        scales, first = np.unique(self._scale_P[ordered], return_index=True)
        unknown = np.sort(first[(self._tries_K[scales] == 0) & (first > 0)])
        return np.concatenate([ordered[:1], ordered[unknown], np.delete(ordered, [0, *unknown])])

    def _learn(self, patches: Indices, gain: Values, promised: Values) -> None:
        self._gain_P[patches], self._then_P[patches] = gain, promised
        np.add.at(self._kept_K, self._scale_P[patches], gain.clip(min=0))
        np.add.at(self._promised_K, self._scale_P[patches], promised)
        np.add.at(self._tries_K, self._scale_P[patches], 1)
