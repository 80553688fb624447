"""Greedy conditional replenishment: paste the patch that removes most error, until the frame is good enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from autogaze.errors import BudgetError, OptionError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors import spending
from autogaze.selectors.base import CLIP_FRAMES, Budget, clips
from autogaze.selectors.canvas import Canvas
from autogaze.selectors.cells import Cells, Tiling, resize
from autogaze.selectors.distortion import loss
from autogaze.selectors.easel import Easel, HostEasel
from autogaze.selectors.greedy import Goal, Taken
from autogaze.selectors.motion import Picture, global_shift

# Shape letters: T frames, n tiles, S pixels a side of a tile.

LOOK_AHEAD_BYTES = 2**29
"""Scales of a clip's frames are kept while a clip budget is planned if they take no more than this."""


Motion: TypeAlias = Literal["none", "global"]
"""Whether the canvas stands still, or moves as a whole with the camera."""
STILL = (0, 0)
"""The shift of a picture that does not move."""


class Replenish:
    """Selects without weights what a :class:`~autogaze.selectors.canvas.Canvas` needs to follow the video.

    In each frame the patch that takes most error off the canvas is pasted, then the next, until the frame's loss
    (mean absolute error over real pixels and channels, colours in 0…1) is at or below ``Budget.threshold``, its
    PSNR is at least ``Budget.psnr_db``, the ratio is used up, or no patch gains anything. The canvas lives as
    long as the video. A frame that is good enough as it is still gets one gaze, its best, which keeps the canvas
    from ageing until the limit is hit; only a frame that no patch improves gets none. Among patches that gain
    equally the lowest index wins. All tiles of a frame are one search: the best patch of the whole frame
    goes first, and loss and PSNR are of the whole frame.

    ``Gaze.predicted_loss`` is the frame's loss after each gaze, exact. How a budget per clip is spread over its
    frames: :mod:`autogaze.selectors.spending`.

    Raises:
        ValueError: the cells of some scale of the grid are not whole pixels, or there is no such motion.
    """

    name: str = "replenish"
    default_budget: Budget = Budget(threshold=0.025)
    needs_motion_vectors: bool = False

    def __init__(self, grid: PatchGrid | None = None, *, device: str | None = None, motion: Motion = "none") -> None:
        """Select patches of this grid, the published one if None.

        ``device`` is where, as torch names it. On ``cuda`` all tiles take patches at once; everywhere else the CPU
        works patch by patch, on the tiles that matter. The gazes are the same. With the ``motion`` ``"global"`` the
        canvas moves with the camera where that brings it nearer to a frame, and a gaze in which it does says so.
        """
        self.grid: PatchGrid = grid or PatchGrid()
        self.device = device
        if motion not in ("none", "global"):
            raise OptionError(f'motion must be "none" or "global", got {motion!r}')
        self.motion = motion
        Cells(self.grid)  # refuses a grid that cannot be cut into whole pixels

    def open(self, layout: FrameLayout, budget: Budget) -> ReplenishSession:
        """Start on a video whose frames have this layout.

        Raises:
            BudgetError: the threshold is negative, which no loss can reach, or a list of ratios is not as long as
                a clip.
            ValueError: the cells of some scale of the layout's grid are not whole pixels.
        """
        budget.check_one_ratio_a_frame()
        if budget.threshold is not None and budget.threshold < 0:
            raise BudgetError(
                f"replenish measures loss as mean absolute error, 0 to 1; no frame reaches a threshold of "
                f"{budget.threshold}; 0.025 is a usual one"
            )
        squared = budget.psnr_db is not None
        if self.device is None or torch.device(self.device).type != "cuda":
            return ReplenishSession(layout, budget, HostEasel(layout, squared=squared), motion=self.motion)
        from autogaze.selectors.device import DeviceEasel  # few need it

        easel = DeviceEasel(layout, squared=squared, device=torch.device(self.device))
        return ReplenishSession(layout, budget, easel, motion=self.motion)


class ReplenishSession:
    """One video on its way through :class:`Replenish`."""

    def __init__(self, layout: FrameLayout, budget: Budget, easel: Easel, *, motion: Motion = "none") -> None:
        self.layout = layout
        self.budget = budget
        self._easel = easel
        self._tiling = Tiling(layout)
        values = self._tiling.num_values
        self._goal = Goal.of(threshold=budget.threshold, psnr_db=budget.psnr_db, num_values=values)
        self._frames_done = 0
        self._spent = 0
        self._follows = motion == "global"
        self._before: Picture | None = None

    @property
    def canvas(self) -> Canvas:
        """The canvas after the last frame that was stepped over; not to be painted on."""
        return self._easel.canvas

    def step(self, frames: Frames) -> Gaze:
        """The gaze of the next frames of the video (any number of them, at least 1), with their times.

        Raises:
            ValueError: the frames are not of the session's height and width.
        """
        taken: list[Taken] = []
        for clip, position in clips(frames, start=self._frames_done):
            if self.budget.per == "clip" and self.budget.ratio is not None:
                taken += self._step_within_pool(clip, position)
            else:
                taken += self._step_within_frames(clip, position)
            self._frames_done += len(clip)
        absolute = np.concatenate([part.absolute for part in taken])
        return Gaze(
            index=np.concatenate([part.index for part in taken]),
            count=np.array([len(part.index) for part in taken]),
            layout=self.layout,
            predicted_loss=np.array([loss(value, self._tiling.num_values) for value in absolute], np.float32),
            time_seconds=frames.time_seconds,
            shift_px=np.array([part.shift_px for part in taken], np.int64).reshape(-1, 2),
        )

    def _shifts(self, clip: Frames) -> list[tuple[int, int]]:
        """How far each of the next frames seems to have moved from the one before it."""
        if not self._follows:
            return [STILL] * len(clip)
        shifts = []
        for rgb in resize(clip.rgb, self._tiling.height_px, self._tiling.width_px):
            after = Picture.of(rgb)
            shifts.append(STILL if self._before is None else global_shift(self._before, after))
            self._before = after
        if self._before is not None:
            self._before = replace(self._before, rgb=self._before.rgb.copy())  # the caller's frames may change
        return shifts

    def _advance(
        self, easel: Easel, seen: Any, shift_px: tuple[int, int], *, max_patches: int, least_gain: float = 0.0
    ) -> Taken:
        moved = shift_px != STILL and easel.move(seen, shift_px)
        taken = easel.advance(seen, max_patches=max_patches, goal=self._goal, least_gain=least_gain)
        return replace(taken, shift_px=shift_px) if moved else taken

    def _step_within_frames(self, clip: Frames, position: int) -> list[Taken]:
        taken = []
        for number, (seen, shift_px) in enumerate(zip(self._easel.see_each(clip.rgb), self._shifts(clip), strict=True)):
            limit = self.budget.max_patches(self.layout.num_patches, position + number)
            taken.append(self._advance(self._easel, seen, shift_px, max_patches=limit))
        return taken

    def _step_within_pool(self, clip: Frames, position: int) -> list[Taken]:
        if position == 0:
            self._spent = 0
        # What the clip has used must be legal after every step: no step knows whether another one follows.
        pool = self.budget.max_patches_of_clip(self.layout.num_patches, position + len(clip)) - self._spent
        taken = self._step_planned(clip, pool) if len(clip) > 1 else self._step_alone(clip, position, pool)
        self._spent += sum(len(part.index) for part in taken)
        return taken

    def _step_alone(self, frame: Frames, position: int, pool: int) -> list[Taken]:
        left = self.budget.max_patches_of_clip(self.layout.num_patches, CLIP_FRAMES) - self._spent
        limit = min(pool, spending.even_share(left, frames_left=CLIP_FRAMES - position))
        (shift_px,) = self._shifts(frame)
        return [self._advance(self._easel, self._easel.see(frame.rgb[0]), shift_px, max_patches=limit)]

    def _step_planned(self, clip: Frames, pool: int) -> list[Taken]:
        bytes_seen = len(clip) * self.layout.grid.num_scales * int(np.prod(self._tiling.tiles_shape))
        shifts = self._shifts(clip)
        seen = list(self._easel.see_each(clip.rgb)) if bytes_seen <= LOOK_AHEAD_BYTES else None

        def run(allow: Callable[[int, int], tuple[int, float]]) -> tuple[list[Taken], Easel]:
            """Take in each frame what ``allow(number, patches left)`` lets it: at most how many, of which gain."""
            easel, left = self._easel.fork(), pool
            taken: list[Taken] = []
            for number, rgb in enumerate(clip.rgb):
                limit, least_gain = allow(number, left)
                frame = easel.see(rgb) if seen is None else seen[number]
                shift_px = shifts[number]
                taken.append(self._advance(easel, frame, shift_px, max_patches=limit, least_gain=least_gain))
                left -= len(taken[-1].index)
            return taken, easel

        def least_gain(number: int, least_worth: float) -> float:
            return least_worth / spending.lifetime(len(clip) - number)

        def spend(least_worth: float) -> list[int]:
            # One patch too many is enough to know that it is too much.
            taken, _ = run(lambda number, left: (left + 1, least_gain(number, least_worth)))
            return [len(part.index) for part in taken]

        def share(number: int, left: int) -> int:
            first = self._frames_done == 0 and number == 0
            return spending.even_share(left, frames_left=len(clip) - number, first_of_video=first)

        plan = spending.plan(spend, pool=pool)
        runs = (
            run(lambda number, left: (left - sum(plan.counts[number + 1 :]), least_gain(number, plan.least_worth))),
            run(lambda number, left: (share(number, left), 0.0)),
        )
        taken, self._easel = min(runs, key=lambda result: sum(part.remaining for part in result[0]))
        return taken
