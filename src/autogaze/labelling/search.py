"""Greedy search for the gazes of a clip, judged by any reconstructor; and the definition: try every patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autogaze.errors import AutoGazeError
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, Indices, PatchGrid
from autogaze.labelling.budgets import Limits
from autogaze.labelling.scorers import CandidateScorer, ClipScorer, Tried
from autogaze.selectors.cells import Pixels

# Shape letters: T frames, S pixels a side of a frame, P patches of it, C patches to try.


@dataclass(frozen=True, kw_only=True, eq=False)
class Rebuilt:
    """The next frame of a clip, as it is rebuilt from the gazes that it has so far."""

    loss: float
    """What it lacks."""
    picture: Pixels
    """(S, S, 3) uint8."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pick:
    """A gaze that was chosen."""

    patch: int
    """Its index in the frame."""
    rebuilt: Rebuilt
    """The frame after it."""


class FrameTrials(Protocol):
    """The next frame of a clip, with the gazes that it has so far."""

    def tried(self, patches: Indices) -> Tried:
        """The frame, if each of these (C,) patches came on top; none of them may be taken already."""
        ...


class Picker(Protocol):
    """Chooses the next gaze of a frame, trying as many patches as it wants. One is of one clip."""

    def pick(self, trials: FrameTrials, *, taken: Sequence[int], now: Rebuilt | None) -> Pick:
        """The next gaze.

        Args:
            trials: what may be asked about the frame.
            taken: the frame's gazes so far, fewer than P.
            now: the frame as it is; None if :attr:`needs_start` is false and nothing is taken yet.
        """
        ...

    def commit(self, index: Indices) -> None:
        """The next frame has these gazes, (k,) int64; the frame after it becomes the next one."""
        ...

    @property
    def needs_start(self) -> bool:
        """Whether a frame without gazes is to be rebuilt."""
        ...


class SearchMethod(Protocol):
    """A way of searching."""

    @property
    def name(self) -> str:
        """Short name, as the command line takes it."""
        ...

    def open(self, rgb: Pixels, grid: PatchGrid) -> Picker:
        """Start on a (T, S, S, 3) clip."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Searched:
    """What a search found."""

    gaze: Gaze
    """The gazes in their order; ``predicted_loss`` is the frame's loss after each of them."""
    evaluations: int
    """Sets of gazes that the reconstructor was asked about."""


def search_clip(rgb: Pixels, *, scorer: CandidateScorer, method: SearchMethod, limits: Limits) -> Searched:
    """Search frame by frame and gaze by gaze; earlier frames keep what they have (arXiv 2603.12254, 3.2).

    A frame ends when it has its count of gazes, or where there is a threshold, when its loss is at or below it or the
    next gaze would not lower it. It gets one gaze at least.

    Args:
        rgb: (T, S, S, 3) uint8, S being the finest scale of the scorer's grid.
        scorer: the reconstructor.
        method: which patches are tried.
        limits: when frames end.

    Raises:
        AutoGazeError: a loss is no finite number.
        ValueError: the clip is of another shape, or the limits of another length.
    """
    grid = scorer.grid
    side_px = grid.scales_px[-1]
    if rgb.ndim != 4 or rgb.shape[1:] != (side_px, side_px, 3) or not len(rgb):
        raise ValueError(f"a clip must be (T, {side_px}, {side_px}, 3) uint8, got {rgb.shape} {rgb.dtype}")
    if len(limits.counts) != len(rgb):
        raise ValueError(f"there must be one count for each of {len(rgb)} frames, got {len(limits.counts)}")
    clip, picker = _Counted(scorer.open(rgb)), method.open(rgb, grid)
    frames: list[list[int]] = []
    losses: list[float] = []
    for count in limits.counts:
        taken, of_frame = _search_frame(clip, picker, most=min(count, grid.num_patches), threshold=limits.threshold)
        index = np.array(taken, np.int64)
        clip.commit(index)
        picker.commit(index)
        frames.append(taken)
        losses += of_frame
    gaze = Gaze(
        index=np.concatenate([np.array(taken, np.int64) for taken in frames]),
        count=np.array([len(taken) for taken in frames], np.int64),
        layout=FrameLayout.tiled(grid, height_px=side_px, width_px=side_px),
        predicted_loss=np.array(losses, np.float32),
    )
    return Searched(gaze=gaze, evaluations=clip.evaluations)


def _search_frame(
    clip: _Counted, picker: Picker, *, most: int, threshold: float | None
) -> tuple[list[int], list[float]]:
    """The gazes of the next frame, and the loss after each."""
    taken: list[int] = []
    losses: list[float] = []
    now: Rebuilt | None = None

    if picker.needs_start:
        nothing = clip.tried(np.empty((1, 0), np.int64))
        now = Rebuilt(loss=float(nothing.losses[0]), picture=nothing.picture)
    while len(taken) < most:
        if taken and now is not None and threshold is not None and now.loss <= threshold:
            break
        pick = picker.pick(_Trials(clip, taken), taken=taken, now=now)
        after = pick.rebuilt.loss
        if not math.isfinite(after):
            raise AutoGazeError(f"the reconstructor gives a loss of {after}; are its weights those of a trained model?")
        if taken and now is not None and threshold is not None and after >= now.loss:
            break
        taken.append(pick.patch)
        losses.append(after)
        now = pick.rebuilt
    return taken, losses


class _Counted:
    """A clip that counts what it is asked."""

    def __init__(self, clip: ClipScorer) -> None:
        self._clip = clip
        self.evaluations = 0

    def tried(self, candidates: Indices) -> Tried:
        self.evaluations += len(candidates)
        return self._clip.tried(candidates)

    def commit(self, index: Indices) -> None:
        self._clip.commit(index)


class _Trials:
    """See :class:`FrameTrials`."""

    def __init__(self, clip: _Counted, taken: Sequence[int]) -> None:
        self._clip, self._taken = clip, np.array(taken, np.int64)

    def tried(self, patches: Indices) -> Tried:
        before = np.broadcast_to(self._taken, (len(patches), len(self._taken)))
        return self._clip.tried(np.concatenate([before, patches[:, None]], axis=1))


@dataclass(frozen=True, kw_only=True)
class Exhaustive:
    """The definition: every patch of the frame is tried for every gaze; the lowest index wins among equals."""

    name = "exhaustive"

    def open(self, rgb: Pixels, grid: PatchGrid) -> EveryPatch:
        """See :meth:`SearchMethod.open`."""
        return EveryPatch(grid)


class EveryPatch:
    """The picker of :class:`Exhaustive`."""

    needs_start = False

    def __init__(self, grid: PatchGrid) -> None:
        self._all = np.arange(grid.num_patches)

    def pick(self, trials: FrameTrials, *, taken: Sequence[int], now: Rebuilt | None) -> Pick:
        """See :meth:`Picker.pick`."""
        patches = np.setdiff1d(self._all, taken)
        tried = trials.tried(patches)
        best = int(tried.losses.argmin())
        return Pick(patch=int(patches[best]), rebuilt=Rebuilt(loss=float(tried.losses[best]), picture=tried.picture))

    def commit(self, index: Indices) -> None:
        """See :meth:`Picker.commit`."""
