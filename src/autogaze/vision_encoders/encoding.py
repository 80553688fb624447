"""One pass of kept patches through a tower, a bounded number of tokens at a time.

Shape letters: T frames, N patches of all clips, S sequences, M packed tokens, C channels, P class and register tokens
of a frame or clip, F frames a patch lasts, p its side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from autogaze.gaze import Gaze
from autogaze.vision_encoders.attending import attend_with
from autogaze.vision_encoders.features import SparseFeatures, undefined
from autogaze.vision_encoders.options import SparseOptions
from autogaze.vision_encoders.pixels import PixelSource
from autogaze.vision_encoders.places import Indices, Packing, Places, Sequences
from autogaze.vision_encoders.stream_keys import Past
from autogaze.vision_encoders.towers import TokenPositions, Tower
from autogaze.vision_encoders.windows import Windows


class EncoderPass:
    """One pass of patches through a tower, sequence by sequence."""

    def __init__(
        self,
        tower: Tower,
        options: SparseOptions,
        source: PixelSource,
        places: Places,
        *,
        hidden_states: bool,
        pasts: Sequence[Past] | None = None,
        past_frames: int = 0,
    ) -> None:
        self._tower, self._options, self._source, self._places = tower, options, source, places
        self._hidden = hidden_states
        self._pasts, self._past_frames = pasts, past_frames
        self._device = tower.weight.device
        self._cell, sides = places.cells(source.layout, tiles=options.tiles)
        used = np.unique(places.scale)
        self._tables = self._position_tables(sides, used)
        self._parts: list[list[Tensor]] = []  # features and hidden states of each chunk
        self._pooled: list[Tensor] = []
        self._order = np.arange(0)
        self.tokens = 0
        """Tokens that went through the layers."""

    def _position_tables(self, sides: tuple[tuple[int, int], ...], used: Indices) -> tuple[Tensor, ...]:
        """What the tower says of all cells, scale after scale; scales nobody looks at are left undefined."""
        per_scale = {
            scale: self._tower.tables(*sides[scale], finest=sides[-1]) for scale in (used.tolist() or [len(sides) - 1])
        }
        like = next(iter(per_scale.values()))
        empty = {
            scale: tuple(part.new_empty(rows * columns, *part.shape[1:]) for part in like)
            for scale, (rows, columns) in enumerate(sides)
            if scale not in per_scale
        }
        ordered = [(per_scale | empty)[scale] for scale in range(len(sides))]
        return tuple(torch.cat(parts) for parts in zip(*ordered, strict=True))

    def encode(self, sequences: Sequences) -> None:
        """Go through all sequences, no more than ``max_tokens`` at once; those of a stream one by one."""
        self._order = sequences.order
        patch = np.concatenate([[0], np.cumsum(sequences.count_ST.sum(1))])
        if self._pasts is None:
            runs = sequences.chunks(self._options.max_tokens, prefix=self._tower.prefix_tokens)
        else:
            runs = [slice(number, number + 1) for number in range(len(self._pasts))]
        for run in runs:
            patches = sequences.order[patch[run.start] : patch[run.stop]]
            past = None if self._pasts is None else self._pasts[run.start]
            self._chunk(patches, sequences.count_ST[run], past)

    def _chunk(self, patches: Indices, count_ST: Indices, past: Past | None) -> None:
        tower, options, places = self._tower, self._options, self._places[patches]
        packing = Packing.of(count_ST, prefix=tower.prefix_tokens, class_tokens=options.class_tokens)
        self.tokens += packing.tokens
        cell, slot, frame = (
            self._on_device(n) for n in (self._cell[patches], packing.patch_slot, places.frame + self._past_frames)
        )
        position = tuple(table[cell] for table in self._tables)
        x_NC = tower.place(self._embedded(places), position)
        x_MC = self._packed(x_NC, slot, packing)
        states = [x_MC] if self._hidden else []
        if packing.tokens:
            windows = Windows.of(packing.lengths, attention=options.attention, past=past.tokens if past else 0)
            attend = attend_with(windows, backend=options.backend, device=x_MC.device, dtype=_attended_in(x_MC))
            positions = TokenPositions(patch=position, patch_slot=slot, frame=frame, tokens=packing.tokens)
            for y_MC in tower.run(x_MC, attend, positions, past):
                x_MC = y_MC
                if self._hidden:
                    states.append(x_MC)
            if past is not None:
                past.tokens += packing.tokens
        else:
            states *= 1 + len(tower.layers)  # all of them nothing
        left_MC = tower.leave(x_MC)
        features = left_MC[slot]
        self._parts.append([features, *(state[slot] for state in states)])
        if tower.prefix_tokens:
            pooled = self._pooled_prefix(left_MC, packing, count_ST)
        else:
            pooled = self._pooled_patches(features, count_ST)
        if pooled is not None:
            self._pooled.append(pooled)

    def _embedded(self, places: Places) -> Tensor:
        """(N, C) embedded patches, those of ``embed_clips`` clips at once."""
        most = self._options.embed_clips
        if most is None:
            return self._tower.embed(self._pixels(places))
        ends = np.flatnonzero(np.diff(places.clip // most)) + 1
        parts = np.split(np.arange(len(places)), ends)
        return torch.cat([self._tower.embed(self._pixels(places[part])) for part in parts])

    def _pixels(self, places: Places) -> Tensor:
        """(N, 3, F, p, p) pixels of the frames that each patch lasts; where the last is missing, the one before it."""
        last, frames = self._tower.frames_per_patch, self._source.frames
        if last == 1:
            return self._source.gather(places)[:, :, None].to(self._device)
        parts = [
            self._source.gather(replace(places, frame=np.minimum(places.frame * last + step, frames - 1)))
            for step in range(last)
        ]
        return torch.stack(parts, dim=2).to(self._device)

    def _packed(self, x_NC: Tensor, slot: Tensor, packing: Packing) -> Tensor:
        tower = self._tower
        if not tower.prefix_tokens:
            return tower.enter(x_NC)
        prefix_PC = tower.prefix().to(x_NC.dtype)
        prefix_slot = self._on_device(packing.prefix_slot).flatten()
        x_MC = x_NC.new_empty(packing.tokens, x_NC.shape[1]).index_copy(0, slot, x_NC)
        x_MC = x_MC.index_copy(0, prefix_slot, prefix_PC.repeat(len(packing.prefix_slot), 1))
        return tower.enter(x_MC)

    def _pooled_prefix(self, left_MC: Tensor, packing: Packing, count_ST: Indices) -> Tensor | None:
        """(S, T, C) or (S, 1, C) what a chunk's class and register tokens say."""
        S, T = count_ST.shape
        pooled_GC = self._tower.pool(left_MC[self._on_device(packing.prefix_slot)])
        if pooled_GC is None:
            return None
        group = packing.prefix_group // T if self._options.class_tokens == "clip" else packing.prefix_group
        groups = 1 if self._options.class_tokens == "clip" else T
        out = undefined((S * groups, pooled_GC.shape[-1]), pooled_GC)
        return out.index_copy(0, self._on_device(group), pooled_GC).view(S, groups, -1)

    def _pooled_patches(self, features_NC: Tensor, count_ST: Indices) -> Tensor | None:
        """(S, 1, C) what the model's head makes of the patches of each sequence of a chunk."""
        pool = self._tower.pool_patches
        pooled_S = [
            pool(part[None]) if len(part) else None for part in torch.split(features_NC, count_ST.sum(1).tolist())
        ]
        like = next((pooled for pooled in pooled_S if pooled is not None), None)
        if like is None:  # without patches nothing tells whether there is a head
            like = pool(features_NC.new_zeros(1, 1, features_NC.shape[1]))
        if like is None:
            return None
        nothing = undefined((1, like.shape[-1]), like)
        return torch.stack([nothing if pooled is None else pooled for pooled in pooled_S])

    def result(self, gazes: tuple[Gaze, ...], shape: tuple[int, int]) -> SparseFeatures:
        """Everything in the order of the gazes; ``shape`` is (S, T)."""
        back = self._on_device(np.argsort(self._order, kind="stable"))
        features, *states = (torch.cat(parts)[back] for parts in zip(*self._parts, strict=True))
        pooled = torch.cat(self._pooled) if self._pooled else None
        if pooled is not None and self._options.attention == "frame":
            pooled = pooled.view(*shape, -1)
        return SparseFeatures(
            features=features, gazes=gazes, hidden_states=tuple(states) if self._hidden else None, pooled=pooled
        )

    def _on_device(self, numbers: Indices) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self._device)


def _attended_in(x: Tensor) -> torch.dtype:
    """Precision of the queries that linear layers make of ``x``."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
