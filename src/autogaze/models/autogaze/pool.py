"""Tiles that are videos of their own, decoded together: every pass of the decoder is for as many as are open.

Shape letters: K tiles, A of them in one pass, T frames, S side of the frames the encoder reads, P visual tokens of a
frame, C channels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from autogaze.choosing import FrameGaze
from autogaze.engine import DecoderState
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.decoding import to_gaze
from autogaze.selectors.base import Budget
from autogaze.selectors.tiles import once_each
from autogaze.tiling import merge, split_on, tile_layout


class TilePool:
    """Sessions of K tiles that share the decoder's passes; see :class:`~autogaze.selectors.tiles.TilesSession`.

    A tile's clip is as many of its frames as the model sees at once, whenever they come, and tiles may be at different
    frames of their clips. A pass is for at most ``tile_batch`` tiles; when one has no more frames in a step, another
    takes its place.

    Each tile in the middle of a clip holds a row of the decoder's memory, about 50 MB in fp32 at most, and hands it on
    when the clip is over. On a CPU rows take what is written to them; elsewhere there is memory for K from the first
    frame on. Between steps at which no tile is in the middle of a clip nothing is held, and what comes next is decoded
    with the weights of that time.
    """

    def __init__(self, model: AutoGaze, *, layouts: Sequence[FrameLayout], budget: Budget, tile_batch: int) -> None:
        """Start on tiles of these layouts.

        Args:
            model: the model.
            layouts: of each tile's part of the frame.
            budget: of every tile; its threshold is a level, which is compared with the predictions as they are.
            tile_batch: most tiles in one pass.
        """
        self._model, self._budget, self._tile_batch = model, budget, tile_batch
        self._tiles = [_Tile(layout) for layout in layouts]
        self._memory: _Memory | None = None
        patches, self._clip_frames = model.grid.num_patches, model.config.max_num_frames
        self._max_gazes_T = [budget.max_patches(patches, t) for t in range(self._clip_frames)]

    @torch.inference_mode()
    def step(self, opened: Iterable[tuple[int, Frames]]) -> list[Gaze]:
        """See :class:`~autogaze.selectors.tiles.TilesSession`."""
        visits = self._visits(opened)
        gazes: dict[int, Gaze] = {}
        going: list[_Visit] = []
        while going := [*going, *islice(visits, self._tile_batch - len(going))]:
            self._pass(going)
            gazes |= {visit.number: self._gaze(visit) for visit in going if visit.is_over}
            going = [visit for visit in going if not visit.is_over]
        if all(tile.row is None for tile in self._tiles):
            self._memory = None
        return [gazes[number] for number in sorted(gazes)]

    def _visits(self, opened: Iterable[tuple[int, Frames]]) -> Iterator[_Visit]:
        """What the encoder reads of every tile, made when a pass has room for it."""
        for number, (tile_number, frames) in enumerate(once_each(opened, len(self._tiles))):
            tile = self._tiles[tile_number]
            (tile_TSSC,) = split_on(self._model.device, frames.rgb, tile.layout)
            yield _Visit(number=number, tile=tile, frames=frames, pixels_TCSS=self._model.preprocess(tile_TSSC))

    def _pass(self, visits: Sequence[_Visit]) -> None:
        """Gaze at the next frame of each."""
        memory = self._memory = self._memory or self._new_memory()
        rows = [self._row(visit.tile, memory) for visit in visits]
        self._encode([visit for visit in visits if not visit.visual])
        gazed = self._model.decoder.engine.decode_frame(
            memory.decoder,
            torch.stack([visit.visual.popleft() for visit in visits]),
            max_gazes=np.array([self._max_gazes_T[visit.tile.frames] for visit in visits]),
            threshold=self._budget.threshold,
            rows=rows,
        )
        for visit, row, gaze in zip(visits, rows, gazed, strict=True):
            visit.gazed.append(gaze)
            visit.tile.frames += 1
            if visit.tile.frames == self._clip_frames:
                visit.tile.row, visit.tile.frames, visit.tile.conv = None, 0, None
                memory.free.append(row)

    def _encode(self, visits: Sequence[_Visit]) -> None:
        """The visual tokens of each visit's frames up to the end of its clip, in batches of equally many frames."""
        batches: dict[tuple[int, bool], list[_Visit]] = {}
        for visit in visits:
            frames = min(len(visit.pixels_TCSS) - len(visit.gazed), self._clip_frames - visit.tile.frames)
            batches.setdefault((frames, visit.tile.conv is None), []).append(visit)
        for (frames, _), batch in batches.items():
            pixels_ATCSS = torch.stack([visit.pixels_TCSS[len(visit.gazed) :][:frames] for visit in batch])
            pasts = [visit.tile.conv for visit in batch if visit.tile.conv is not None]
            past = tuple(torch.cat(parts) for parts in zip(*pasts, strict=True)) or None
            visual_ATPC, last = self._model.decoder.encode(pixels_ATCSS, past)
            for a, visit in enumerate(batch):
                visit.visual.extend(visual_ATPC[a])
                visit.tile.conv = tuple(part[a : a + 1].clone() for part in last)

    def _row(self, tile: _Tile, memory: _Memory) -> int:
        """The tile's row, emptied where a clip begins."""
        if tile.row is None:
            tile.row = memory.free.pop()
            self._model.decoder.engine.restart(memory.decoder, tile.row)
        return tile.row

    def _new_memory(self) -> _Memory:
        K = len(self._tiles)
        state = self._model.decoder.start(K, frames=self._clip_frames, max_gazes=max(self._max_gazes_T))
        return _Memory(decoder=state.decoder, free=list(reversed(range(K))))

    def _gaze(self, visit: _Visit) -> Gaze:
        of_tile = to_gaze(visit.gazed, tile_layout(self._model.grid))
        return replace(merge([of_tile], visit.tile.layout), time_seconds=visit.frames.time_seconds)


@dataclass(slots=True)
class _Tile:
    """One tile between its frames."""

    layout: FrameLayout
    row: int | None = None
    """Its row of the memory; None between clips."""
    frames: int = 0
    """Frames of its clip gazed at so far."""
    conv: tuple[Tensor, ...] | None = None
    """What the encoder's blocks need of earlier frames of its clip; None before the first."""


@dataclass(slots=True, kw_only=True)
class _Visit:
    """A tile on its way through the frames of one step."""

    number: int
    """Tiles before it in the step."""
    tile: _Tile
    frames: Frames
    pixels_TCSS: Tensor
    """Normalised frames."""
    visual: deque[Tensor] = field(default_factory=deque)
    """(P, C) visual tokens of the next frames, as far as they have been encoded."""
    gazed: list[FrameGaze] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether all of its frames were gazed at."""
        return len(self.gazed) == len(self.pixels_TCSS)


@dataclass(slots=True, kw_only=True)
class _Memory:
    """What the decoder needs of earlier frames of the tiles in the middle of their clips, a row each."""

    decoder: DecoderState
    free: list[int]
    """Rows of no tile; the one left last is the next to be taken, as its memory has been written before."""
