"""Labels of a model's own gazes: what the greedy search would have done from where they led."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autogaze.gaze import Gaze
from autogaze.grid import Indices
from autogaze.selectors.cells import Pixels, Tiling
from autogaze.selectors.distortion import Scales, canvas_errors, loss
from autogaze.selectors.greedy import Search, greedy
from autogaze.selectors.painting import Painting

# Shape letters: T frames, H × W pixels of a frame, N gazes.


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnLabel:
    """What a gaze model is to learn from its own gazes of one clip. N gazes."""

    gaze: Gaze
    """The model's own gazes; ``predicted_loss`` is the frame's exact mean absolute error after each, colours in 0…1."""
    target: Indices
    """(N,) the patch that each gaze's head should have chosen; 0 where :attr:`known` is false."""
    known: NDArray[np.bool_]
    """(N,) whether there is such a patch: false where nothing was left to gain."""
    gain_share: NDArray[np.float32]
    """(N,) error that each gaze took off the canvas, as a share of what the best patch would have then: 1 for the
    best, 0 for a gaze that changed nothing, or where no patch gained anything; below 0 if it did harm."""


def own_labels(rgb: Pixels, gaze: Gaze, *, group: int) -> OwnLabel:
    """Teach a model on the sequences that it produces itself (after DAgger, Ross et al. 2011).

    The model proposes ``group`` gazes at once from what it has read, which are its own gazes so far. So the gazes are
    replayed on a canvas, and at the start of each group the greedy search goes on from the canvas as it is for as
    many gazes as the group has: these are the targets of the group's heads. The next group starts from the model's
    own gazes again. Gazes that are the search's own have themselves as targets.

    Args:
        rgb: (T, H, W, 3) uint8 frames.
        gaze: the model's gazes of these frames, of one tile, each frame's in the order they were chosen.
        group: K, gazes proposed at once.

    Raises:
        ValueError: frames and gaze do not belong together, the gaze is of several tiles, or ``group`` is below 1.
    """
    if group < 1:
        raise ValueError(f"group must be at least 1, got {group}; it is the model's num_multi_token_pred")
    if rgb.ndim != 4 or len(rgb) != len(gaze):
        raise ValueError(f"need frames (T, H, W, 3), one for each of {len(gaze)} frames of the gaze, got {rgb.shape}")
    if gaze.layout.num_tiles != 1:
        raise ValueError(f"groups are of one tile, the gaze has {gaze.layout.num_tiles}; label the tiles one by one")
    replay = _Replay(Tiling(gaze.layout), group)
    for frame, one in zip(rgb, gaze, strict=True):
        replay.step(frame, one.index.tolist())
    return OwnLabel(
        gaze=replace(gaze, predicted_loss=np.array(replay.losses, np.float32)),
        target=np.array(replay.targets, np.int64),
        known=np.array(replay.known, bool),
        gain_share=np.array(replay.gain_shares, np.float32),
    )


class _Replay:
    """The canvas under the model's gazes, and what was found on the way."""

    def __init__(self, tiling: Tiling, group: int) -> None:
        self.tiling, self.group = tiling, group
        self.canvas = Painting.blank(tiling)
        self.losses: list[float] = []
        self.targets: list[int] = []
        self.known: list[bool] = []
        self.gain_shares: list[float] = []

    def step(self, rgb: Pixels, own: list[int]) -> None:
        """Replay the gazes of the next frame."""
        tiles = self.tiling.split(rgb)
        scales = Scales.of(tiles, self.tiling, squared=False)
        errors = canvas_errors(tiles, self.canvas, self.tiling, squared=False)
        search = Search(errors, scales)
        for start in range(0, len(own), self.group):
            gazes = own[start : start + self.group]
            targets = greedy(search.fork(), max_patches=len(gazes)).index.tolist()
            missing = len(gazes) - len(targets)
            self.targets += targets + [0] * missing
            self.known += [True] * len(targets) + [False] * missing
            for patch in gazes:
                self._take(search, patch)
        scales.paste(np.array(own, np.int64), self.canvas)

    def _take(self, search: Search, patch: int) -> None:
        gain, best = float(search.gains[0, patch]), search.best()[1]
        search.take(patch)
        self.gain_shares.append(gain / best if best > 0 else 0.0)
        self.losses.append(loss(search.absolute, self.tiling.num_values))
