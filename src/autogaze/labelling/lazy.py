"""Label search that asks the reconstructor about few patches: those that the canvas and earlier answers speak for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autogaze.errors import AutoGazeError
from autogaze.grid import Indices, PatchGrid
from autogaze.labelling.expectations import Expectations, Values
from autogaze.labelling.promises import Promises
from autogaze.labelling.search import FrameTrials, Pick, Rebuilt
from autogaze.selectors.cells import Pixels

# Shape letters: P patches of a frame, S pixels a side of it.

FIRST = 12
"""Patches of each scale, at least, that are tried for the first gaze of a clip, when nothing is known of the judge."""
AT_ONCE = 0.5
"""Share of the candidates that is tried at once; the others only where one of them promises more than was found."""


@dataclass(frozen=True, kw_only=True)
class Lazy:
    """Tries a few patches of each scale at the beginning of a clip, and a few in all for each gaze from then on.

    A patch *promises* what it would take off the frame as it is rebuilt now, if it were pasted upon it. For all patches
    together that needs nothing but the picture, and it is left over from the try that won the gaze before. What to
    expect of a promise is learned from the patches that were tried, see
    :class:`~autogaze.labelling.expectations.Expectations`. Those expected to gain most are tried, then more of them as
    long as one is expected to gain more than the best found.

    Raises:
        AutoGazeError: ``candidates`` is below 1.
    """

    candidates: int = 12
    """Most patches tried for a gaze, the first one of a clip excepted."""

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

    needs_start = True

    def __init__(self, rgb: Pixels, grid: PatchGrid, *, candidates: int) -> None:
        self._candidates, self._is_first = candidates, True
        self._promises = Promises(rgb, grid)
        self._expectations = Expectations(self._promises.scale_of_patch, kinds=Promises.kinds)

    def pick(self, trials: FrameTrials, *, taken: Sequence[int], now: Rebuilt | None) -> Pick:
        """See :meth:`~autogaze.labelling.search.Picker.pick`."""
        assert now is not None
        promise_PF = self._promises.of(now.picture, taken=taken)
        expected_P = self._expectations.gains(promise_PF)
        if self._is_first:
            self._is_first = False
            scale_P, most = self._promises.scale_of_patch, max(FIRST, self._candidates)
            of_scales = [np.where(scale_P == scale, expected_P, -np.inf) for scale in np.unique(scale_P)]
            patches = np.concatenate([_most(values_P, most, above=-np.inf) for values_P in of_scales])
            return self._best(patches, trials, promise_PF=promise_PF, now=now)
        expected_P[list(taken)] = -np.inf
        left, at_once = self._candidates, max(1, round(self._candidates * AT_ONCE))
        best: Pick | None = None
        while left:
            found = -np.inf if best is None else now.loss - best.rebuilt.loss
            patches = _most(expected_P, min(left, at_once), above=found)
            if not len(patches):
                break
            pick = self._best(patches, trials, promise_PF=promise_PF, now=now)
            if best is None or pick.rebuilt.loss < best.rebuilt.loss:
                best = pick
            expected_P[patches] = -np.inf
            left -= len(patches)
            at_once = max(1, at_once // 2)
        assert best is not None, "there is a patch that is not taken"
        return best

    def commit(self, index: Indices) -> None:
        """See :meth:`~autogaze.labelling.search.Picker.commit`."""
        self._promises.commit(index)

    def _best(self, patches: Indices, trials: FrameTrials, *, promise_PF: Values, now: Rebuilt) -> Pick:
        """Try patches, learn from all of them, and take the one with the lowest loss."""
        tried = trials.tried(patches)
        self._expectations.learn(patches, gain_C=now.loss - tried.losses, promise_PF=promise_PF)
        least = int(tried.losses.argmin())
        return Pick(patch=int(patches[least]), rebuilt=Rebuilt(loss=float(tried.losses[least]), picture=tried.picture))


def _most(values_P: Values, count: int, *, above: float) -> Indices:
    """The patches with the largest values above a limit, at most so many; the lowest index first among equals."""
    worth = np.flatnonzero(values_P > above)
    order: Indices = worth[np.argsort(-values_P[worth], kind="stable")[:count]]
    return order
