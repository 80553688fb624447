"""What each patch of a frame promises to gain, guessed without asking the reconstructor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autogaze.grid import Indices, PatchGrid
from autogaze.labelling.expectations import Values
from autogaze.labelling.scorers import CanvasClip
from autogaze.selectors.cells import Pixels
from autogaze.selectors.distortion import canvas_errors, loss
from autogaze.selectors.greedy import Search, patch_gains
from autogaze.selectors.painting import Painting

# Shape letters: P patches of a frame, S pixels a side of it.


class Promises:
    """Two guesses at the gains of all patches, for one clip on its way through a search.

    Pasted upon the frame as it is rebuilt now, a patch takes some error off it; that is the better guess where the
    reconstructor is as good as what is pasted. Pasted on a canvas, upon nothing but the other gazes, it takes off
    another error; that is the better guess for coarse patches, from which a reconstructor makes more than they show.
    """

    kinds = 2
    """How many guesses there are."""

    def __init__(self, rgb: Pixels, grid: PatchGrid) -> None:
        """Start on a (T, S, S, 3) clip.

        Raises:
            ValueError: the cells of some scale of the grid are not whole pixels, so that nothing can be pasted.
        """
        self._clip = CanvasClip(rgb, grid)
        self._search: Search | None = None
        self._pasted = 0
        tiling = self._clip.tiling
        self.scale_of_patch: Indices = np.array(tiling.cells.scale_of_patch)
        """(P,) scale of each patch, the coarsest being 0."""
        self._unit = loss(1.0, tiling.num_values)

    def of(self, picture: Pixels, *, taken: Sequence[int]) -> Values:
        """(P, 2) mean absolute error, colours in 0…1, that each patch would take off, upon the picture and the canvas.

        Args:
            picture: (S, S, 3) uint8 the next frame as it is rebuilt now.
            taken: its gazes so far, those of the last call first.
        """
        clip, cells = self._clip, self._clip.tiling.cells
        shown = clip.scales.errors
        if self._search is None:
            self._search, self._pasted = Search(clip.errors, clip.scales), 0
        for patch in taken[self._pasted :]:
            self._search.take(patch)
        self._pasted = len(taken)
        errors = canvas_errors(clip.scales.tiles, Painting(picture[None]), clip.tiling, squared=False)
        gains_PF: Values = np.stack([patch_gains(errors, shown, cells)[0], self._search.gains[0]], axis=1) * self._unit
        return gains_PF

    def commit(self, index: Indices) -> None:
        """The next frame has these gazes, (k,) int64; the frame after it becomes the next one."""
        self._clip.commit(index)
        self._search = None
