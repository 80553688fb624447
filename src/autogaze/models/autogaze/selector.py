"""The gaze model as a selector: video frames of any size in, one gaze in video coordinates out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autogaze.errors import BudgetError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.budgets import draw_budget
from autogaze.models.autogaze.configuration_autogaze import Positions
from autogaze.models.autogaze.decoding import ClipState, to_gaze
from autogaze.models.autogaze.pool import TilePool
from autogaze.selectors.base import Budget, clips
from autogaze.selectors.tiles import TileByTile, TilesSession
from autogaze.tiling import merge, split_on, tile_layout

PUBLISHED_BUDGET = Budget(ratio=0.75, threshold=0.7)
"""Operating point of the published checkpoint."""


class AutoGazeSelector:
    """A gaze model behind the interface of all selectors.

    A video is cut into clips of the model's length (16 frames) and each starts afresh: memory is bounded, and
    streaming frame by frame gives what gazing at the whole video gives.
    """

    needs_motion_vectors = False

    def __init__(
        self,
        model: AutoGaze,
        *,
        name: str = "autogaze",
        budget: Budget | None = None,
        tile_batch: int | None = None,
        kept_tiles: int | None = None,
    ) -> None:
        """A selector around a model.

        Args:
            model: the model; results come from the device it is on.
            name: how it is called in results.
            budget: used when the caller names no limit; None: what the checkpoint's configuration says if it names a
                threshold, or else the published operating point; with a calibration, what that threshold is worth.
            tile_batch: most tiles decoded at once, which bounds memory (about 50 MB a tile in fp32 at most);
                None: 8 on a CPU, 64 elsewhere.
            kept_tiles: most tiles of a frame, where they are more than ``tile_batch``, that keep what the decoder
                remembers of them from one step of a clip to the next (on a CPU 2 MB a tile and frame); with more, every
                step decodes the clip again from its beginning. None: 64 on a CPU, 0 elsewhere.

        Raises:
            ValueError: tile_batch is below 1, or kept_tiles below 0.
        """
        if tile_batch is not None and tile_batch < 1:
            raise ValueError(f"tile_batch must be at least 1, got {tile_batch}")
        if kept_tiles is not None and kept_tiles < 0:
            raise ValueError(f"kept_tiles must be at least 0, got {kept_tiles}")
        self.model = model
        self.name = name
        says = model.config.has_task_loss_requirement_during_inference
        own = draw_budget(model.config, frames=model.config.max_num_frames) if says else PUBLISHED_BUDGET
        self.default_budget = budget or model.promised(own)
        self.tile_batch = tile_batch or (8 if model.device.type == "cpu" else 64)
        self.kept_tiles = (64 if model.device.type == "cpu" else 0) if kept_tiles is None else kept_tiles

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        positions: Positions | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
    ) -> Self:
        """A selector around :meth:`AutoGaze.from_pretrained` of the same arguments, called ``name`` in results.

        Raises:
            CheckpointError: nothing is there, or it does not fit its configuration.
        """
        model = AutoGaze.from_pretrained(source, positions=positions, device=device, dtype=dtype)
        return cls(model, name=name or Path(source).name or str(source))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def grid(self) -> PatchGrid:
        """Patches of one tile."""
        return self.model.grid

    def open(self, layout: FrameLayout, budget: Budget) -> AutoGazeSession:
        """Start on a video. Warns where a calibration is not about gazing like this.

        Raises:
            BudgetError: the budget is per clip, in dB, names too few ratios, or a threshold below what the model's
                calibration can promise.
        """
        self._check(layout, budget)
        level = self.model.stop_level(budget.threshold, layout=layout)
        return AutoGazeSession(self, layout, replace(budget, threshold=level))

    def open_tiles(self, layouts: Sequence[FrameLayout], budget: Budget) -> TilesSession:
        """Start on tiles that are videos of their own; see :class:`~autogaze.selectors.tiles.TilesSelector`.

        They share passes, at most ``tile_batch`` of them one. Errors and warnings are those of :meth:`open`.
        """
        if self.tile_batch == 1:  # nothing to share
            return TileByTile([self.open(layout, budget) for layout in layouts])
        level = budget.threshold
        for layout in layouts:
            self._check(layout, budget)
            level = self.model.stop_level(budget.threshold, layout=layout)  # the same for all, but each may warn
        level_budget = replace(budget, threshold=level)
        return TilePool(self.model, layouts=layouts, budget=level_budget, tile_batch=self.tile_batch)

    def _check(self, layout: FrameLayout, budget: Budget) -> None:
        """Refuse a budget that this selector cannot keep, and a layout that is not of its grid."""
        if budget.psnr_db is not None:
            raise BudgetError("a gaze model predicts a loss, not decibels; give a threshold, or use --model replenish")
        if budget.per == "clip":
            raise BudgetError("a gaze model keeps a ratio in every frame, not per clip; give one ratio for each frame")
        longest = self.model.config.max_num_frames
        if 1 < len(budget.ratios()) < longest:
            raise BudgetError(f"ratio must be one number or {longest}, one for each frame, got {len(budget.ratios())}")
        if layout.grid != self.grid:
            raise ValueError(f"the layout is of {layout.grid}, the model of {self.grid}")


@dataclass(slots=True)
class _OpenClip:
    """A clip that a step ended in the middle of."""

    states: list[ClipState] | None
    """One for each micro-batch of tiles; None where replaying the frames is cheaper than keeping all of them."""
    frames: list[NDArray[np.uint8]]
    """What a replay needs."""


class AutoGazeSession:
    """One video on its way through a gaze model; :meth:`step` takes any number of frames at a time.

    A step that ends inside a clip keeps the decoder's memory until the next one, if the tiles fit one micro-batch.
    With more tiles, a clip's first step keeps its frames instead, and the next one decodes them again: a video is often
    over there. From then on up to ``kept_tiles`` tiles keep the memory; more go on with frames.
    """

    def __init__(self, selector: AutoGazeSelector, layout: FrameLayout, budget: Budget) -> None:
        """Start on a video. The budget's threshold is a level: it is compared with the predictions as they are."""
        self.layout = layout
        self.preprocess_seconds = 0.0
        """Time spent so far on cutting frames into tiles, resizing and normalising them."""
        self._selector = selector
        self._fits = layout.num_tiles <= selector.tile_batch
        self._keeps = self._fits or layout.num_tiles <= selector.kept_tiles
        self._budget = budget
        self._frames_seen = 0
        self._open: _OpenClip | None = None
        self._done: ClipState | None = None  # its memory serves the next tiles, or clip

    def step(self, frames: Frames) -> Gaze:
        """The gaze of the next frames, with their times.

        Raises:
            ValueError: the frames are not of the session's height and width.
        """
        size = (self.layout.height_px, self.layout.width_px)
        if (frames.height_px, frames.width_px) != size:
            raise ValueError(f"frames must be {size[0]} × {size[1]} px, got {frames.height_px} × {frames.width_px}")
        longest = self._selector.model.config.max_num_frames
        parts = []
        for part, position in clips(frames, start=self._frames_seen, clip_frames=longest):
            gaze = self._gaze(part.rgb, position, ends=position + len(part) == longest)
            parts.append(replace(gaze, time_seconds=part.time_seconds))
            self._frames_seen += len(part)
        return Gaze.concatenate(parts)

    def _gaze(self, rgb_THWC: NDArray[np.uint8], position: int, *, ends: bool) -> Gaze:
        """The gaze of frames ``position``, … of the current clip."""
        before = self._open
        self._open = None
        keeps = self._keeps and not ends and (self._fits or position > 0)
        replayed = before.frames if before is not None and before.states is None else []
        new = rgb_THWC if not replayed else np.concatenate([*replayed, rgb_THWC])
        start = position - sum(len(frames) for frames in replayed)
        states = before.states if before is not None else None
        gazes, kept_states = [], []
        for number, tiles in enumerate(self._micro_batches(new)):
            state = states[number] if states is not None else None
            tile_gazes, state = self._decode(tiles, start, state, keeps=keeps)
            gazes += tile_gazes
            if keeps:
                kept_states.append(state)
            else:
                self._done = state
        if not ends:
            self._open = _OpenClip(kept_states, []) if keeps else _OpenClip(None, [new])
        if not self._fits or before is None:
            self._done = None  # between steps no more is held than an open clip holds
        return merge([gaze[position - start :] for gaze in gazes], self.layout)

    def _micro_batches(self, rgb_THWC: NDArray[np.uint8]) -> Iterator[Tensor]:
        """The tiles of frames as the network reads them, (K, T, 3, S, S) with K at most ``tile_batch``."""
        size, started_seconds = self._selector.tile_batch, time.perf_counter()
        tiles_KTSSC = split_on(self._selector.device, rgb_THWC, self.layout)
        for first in range(0, len(tiles_KTSSC), size):
            pixels_KTCSS = self._selector.model.preprocess(tiles_KTSSC[first : first + size])
            self.preprocess_seconds += time.perf_counter() - started_seconds
            yield pixels_KTCSS
            started_seconds = time.perf_counter()

    def _decode(
        self, pixels_KTCSS: Tensor, start: int, state: ClipState | None, *, keeps: bool
    ) -> tuple[list[Gaze], ClipState]:
        model = self._selector.model
        tiles, frames = pixels_KTCSS.shape[:2]
        patches = self._selector.grid.num_patches
        limits = [self._budget.max_patches(patches, start + t) for t in range(frames)]
        if state is None:
            longest = model.config.max_num_frames if self._fits or keeps else frames
            state = model.decoder.start(tiles, frames=longest, max_gazes=max(limits), memory=self._done)
            self._done = None
        slots = model.decoder.step(state, pixels_KTCSS, max_gazes_T=limits, threshold=self._budget.threshold)
        one_tile = tile_layout(self._selector.grid)
        return [to_gaze(tile, one_tile) for tile in slots], state
