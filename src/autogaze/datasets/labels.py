"""Labels of clips: the gazes a greedy search on the canvas takes, with the exact loss after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.base import max_patches
from autogaze.selectors.cells import Pixels, Tiling
from autogaze.selectors.distortion import LEVELS, Scales, canvas_errors, loss
from autogaze.selectors.greedy import Search
from autogaze.selectors.painting import Painting

# Shape letters: T frames, S pixels a side of a frame, N gazes.

RELAX = 1.3
"""How much a threshold is raised each time a clip has too many gazes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Label:
    """What a gaze model is to learn about one clip. N gazes."""

    gaze: Gaze
    """The gazes; ``predicted_loss`` is the frame's exact mean absolute error after each, colours in 0…1."""
    best: NDArray[np.bool_]
    """(N,) whether the gaze was the best there was; false for slips, whose losses are true all the same."""
    threshold: float
    """The threshold at which frames ended."""


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """How a clip is labelled."""

    threshold: float
    """A frame ends once its mean absolute error is at or below this; every frame gets one gaze at least."""
    max_ratio: float = 0.75
    """Most gazes of a frame, as a share of its patches."""
    max_gazes: int = 1024
    """Most gazes of the clip; where the threshold takes more, it is raised until they suffice."""
    slip: float = 0.0
    """Share of gazes that are drawn in proportion to their gain instead of being the best. A model that saw perfect
    gazes alone would not know how the picture looks after its own mistakes."""


def label_clip(
    rgb: Pixels, *, rule: LabelRule, grid: PatchGrid | None = None, rng: np.random.Generator | None = None
) -> Label:
    """Label one clip.

    Args:
        rgb: (T, S, S, 3) uint8 frames, S the side of the grid's finest scale.
        rule: when frames end.
        grid: the patches there are; None: the published ones.
        rng: draws the slips.

    Raises:
        ValueError: the frames are of another shape, or slips are asked for without ``rng``.
    """
    if rule.slip and rng is None:
        raise ValueError(f"a slip of {rule.slip} needs rng, a numpy.random.Generator")
    labeller = _Labeller(rgb, grid or PatchGrid(), slip=rule.slip, rng=rng)
    threshold = rule.threshold
    most = max_patches(rule.max_ratio, labeller.layout.num_patches)
    while True:
        label = labeller.run(threshold, most_T=[most] * len(rgb))
        if label.gaze.num_gazes <= max(rule.max_gazes, len(rgb)):
            return label
        threshold = max(threshold * RELAX, 1 / LEVELS)


def label_counts(rgb: Pixels, *, counts: Sequence[int], threshold: float = 0.0, grid: PatchGrid | None = None) -> Label:
    """Label one clip whose frames may have so many gazes each, without slips.

    A frame ends earlier where its loss is at or below ``threshold``, or where no patch takes anything off its loss.
    It gets one gaze at least, the best there is, even if that gains nothing.

    Args:
        rgb: (T, S, S, 3) uint8 frames, S the side of the grid's finest scale.
        counts: most gazes of each of the T frames, at least 1.
        threshold: mean absolute error, colours in 0…1.
        grid: the patches there are; None: the published ones.

    Raises:
        ValueError: the frames are of another shape, or the counts are not one of at least 1 for each frame.
    """
    labeller = _Labeller(rgb, grid or PatchGrid(), slip=0.0, rng=None)
    if len(counts) != len(rgb) or min(counts, default=1) < 1:
        raise ValueError(f"counts must be one number of at least 1 for each of {len(rgb)} frames, got {list(counts)}")
    return labeller.run(threshold, most_T=counts, least=1)


class _Labeller:
    """One clip with what does not depend on the threshold."""

    def __init__(self, rgb: Pixels, grid: PatchGrid, *, slip: float, rng: np.random.Generator | None) -> None:
        side_px = grid.scales_px[-1]
        if rgb.ndim != 4:
            raise ValueError(f"a clip must be (T, {side_px}, {side_px}, 3) uint8, got {rgb.shape} {rgb.dtype}")
        self.layout = FrameLayout.tiled(grid, height_px=side_px, width_px=side_px)
        self.slip, self.rng = slip, rng
        self.tiling = Tiling(self.layout)
        self.tiles = [self.tiling.split(frame) for frame in rgb]
        self.scales = [Scales.of(tiles, self.tiling, squared=False) for tiles in self.tiles]

    def run(self, threshold: float, *, most_T: Sequence[int], least: int = 0) -> Label:
        """A label whose frames end at a threshold or a count; ``least`` gazes are taken though they gain nothing."""
        canvas = Painting.blank(self.tiling)
        counts, index, losses, best = [], [], [], []
        for tiles, scales, most in zip(self.tiles, self.scales, most_T, strict=True):
            errors = canvas_errors(tiles, canvas, self.tiling, squared=False)
            search = Search(errors, scales)
            taken: list[int] = []
            while len(taken) < most and not (taken and self._loss(search) <= threshold):
                patch, gain = search.best()
                if gain <= 0 and len(taken) >= least:
                    break
                drawn = self._draw(search, patch)
                search.take(drawn)
                taken.append(drawn)
                losses.append(self._loss(search))
                best.append(drawn == patch)
            scales.paste(np.array(taken, np.int64), canvas)
            counts.append(len(taken))
            index += taken
        gaze = Gaze(
            index=np.array(index, np.int64),
            count=np.array(counts, np.int64),
            layout=self.layout,
            predicted_loss=np.array(losses, np.float32),
        )
        return Label(gaze=gaze, best=np.array(best, bool), threshold=threshold)

    def _loss(self, search: Search) -> float:
        return loss(search.absolute, self.tiling.num_values)

    def _draw(self, search: Search, best: int) -> int:
        """The best patch or, by a slip, one drawn in proportion to what it gains."""
        if self.rng is None or not self.slip or self.rng.random() >= self.slip:
            return best
        gain = search.gains[0].clip(min=0)
        return int(self.rng.choice(len(gain), p=gain / gain.sum()))
