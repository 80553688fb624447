"""Greedy search that tries few patches: those of which most is expected after what was found before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autogaze.errors import AutoGazeError
from autogaze.grid import FrameLayout, Indices, PatchGrid
from autogaze.labelling.search import FrameTrials
from autogaze.selectors.cells import Pixels, Tiling
from autogaze.selectors.distortion import Scales, canvas_errors, loss
from autogaze.selectors.greedy import patch_gains

# Shape letters: P patches of a frame, K scales, S pixels a side of it.

Values = NDArray[np.float64]

SCANS = (1.0, 0.25)
"""Share of the patches that is tried for the first gaze of a clip, which is like no other, and for the second one."""
FIRST_SHARE = 0.5
"""Share of the candidates that is tried at once; the others only where one of them promises more than was found."""
POOLED = 0.02
"""Weight of what all scales say about promises in what is believed of each."""
MEMORY = 0.98
"""Share of what was learned about promises that still counts a gaze later."""


@dataclass(frozen=True, kw_only=True)
class Lazy:
    """Tries every patch at the beginning of a clip, and few of them for each gaze from then on.

    As in lazy greedy maximisation (Minoux 1978) a patch is expected to gain what it gained when it was tried last, in
    this frame or an earlier one. That is corrected by how its *promise* has changed since: what it would take off the
    frame as it is rebuilt now, if it were pasted upon it, which for all patches together costs one rebuilt picture.
    How far such changes of promises come true is learned for each scale from the patches that are tried again. Those
    expected to gain most are tried, then more of them as long as one is expected to gain more than the best found.

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
            ValueError: the cells of some scale of the grid are not whole pixels, so that nothing can be pasted.
        """
        return FewPatches(rgb, grid, candidates=self.candidates)


class FewPatches:
    """The picker of :class:`Lazy`."""

    needs_first_loss = True

    def __init__(self, rgb: Pixels, grid: PatchGrid, *, candidates: int) -> None:
        side_px = grid.scales_px[-1]
        self._rgb, self._candidates = rgb, candidates
        self._tiling = Tiling(FrameLayout.tiled(grid, height_px=side_px, width_px=side_px))
        self._frame, self._gazes = -1, 0
        # Of each patch what it took off the loss when it was tried last, and what it promised then.
        self._gain_P, self._then_P = (np.zeros(grid.num_patches) for _ in range(2))
        self._scale_P = np.array(self._tiling.cells.scale_of_patch)
        # Per scale what was learned of how promises come true; their quotient is a slope.
        self._products_K, self._squares_K = (np.zeros(grid.num_scales) for _ in range(2))

    def begin(self) -> None:
        """See :meth:`~autogaze.labelling.search.Picker.begin`."""
        self._frame += 1
        self._tiles = self._tiling.split(self._rgb[self._frame])
        self._shown = Scales.of(self._tiles, self._tiling, squared=False).errors

    def pick(self, trials: FrameTrials, *, taken: Sequence[int], loss: float) -> tuple[int, float]:
        """See :meth:`~autogaze.labelling.search.Picker.pick`."""
        promised_P = self._promised(trials.picture())
        expected_P = self._gain_P + self._rates[self._scale_P] * (promised_P - self._then_P)
        expected_P[list(taken)] = -np.inf
        left = self._candidates
        at_once = max(1, round(left * FIRST_SHARE))
        if self._gazes < len(SCANS):
            left = at_once = max(left, round(SCANS[self._gazes] * len(expected_P)))
        best, best_loss = -1, np.inf
        while left:
            worth = np.flatnonzero(expected_P > (-np.inf if best < 0 else loss - best_loss))
            if not len(worth):
                break
            patches = worth[np.argsort(-expected_P[worth], kind="stable")[: min(left, at_once)]]
            losses = trials.losses(patches)
            if self._gazes:
                self._learn(patches, loss - losses, promised_P)
            self._gain_P[patches], self._then_P[patches] = loss - losses, promised_P[patches]
            expected_P[patches] = -np.inf
            left -= len(patches)
            if losses.min() < best_loss:
                best, best_loss = int(patches[losses.argmin()]), float(losses.min())
        self._gazes += 1
        return best, best_loss

    @property
    def _rates(self) -> Values:
        """(K,) what a promise that grew by 1 adds to the gain of a patch of each scale."""
        if not self._squares_K.any():
            return np.zeros(len(self._squares_K))
        pooled, weight = self._products_K.sum() / self._squares_K.sum(), POOLED * self._squares_K.sum()
        rates_K: Values = (self._products_K + weight * pooled) / (self._squares_K + weight)
        return rates_K.clip(min=0)

    def _promised(self, picture: Pixels) -> Values:
        """(P,) mean absolute error that each patch would take off a picture, colours in 0…1."""
        errors = canvas_errors(self._tiles, picture[None] * np.int16(2), self._tiling, squared=False)
        gains_P: Values = patch_gains(errors, self._shown, self._tiling.cells)[0]
        return gains_P * loss(1.0, self._tiling.num_values)

    def _learn(self, patches: Indices, gain: Values, promised_P: Values) -> None:
        """How much of a changed promise has come true; what all of them gained or lost alike plays no part."""
        grown, gained = promised_P[patches] - self._then_P[patches], gain - self._gain_P[patches]
        grown, gained = grown - grown.mean(), gained - gained.mean()
        self._products_K *= MEMORY
        self._squares_K *= MEMORY
        np.add.at(self._products_K, self._scale_P[patches], grown * gained)
        np.add.at(self._squares_K, self._scale_P[patches], grown**2)
