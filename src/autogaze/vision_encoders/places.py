"""Where the patches of gazes lie, and how their tokens are packed into sequences.

Shape letters: B clips, T frames, N patches of all clips, S sequences, G groups (a frame of a sequence), M packed
tokens (the patches and, where a model has them, class and register tokens), P class and register tokens of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout

Indices = NDArray[np.int64]

Tiles: TypeAlias = Literal["separate", "joint"]
"""``separate``: every tile is a clip of its own with its own positions. ``joint``: a frame's tiles are one grid."""
TILES: tuple[Tiles, ...] = get_args(Tiles)

ClassTokens: TypeAlias = Literal["frame", "clip"]
"""Whether every frame has class and register tokens of its own, or a clip has one set."""
CLASS_TOKENS: tuple[ClassTokens, ...] = get_args(ClassTokens)


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Clip, frame, tile, scale, row and column of each patch; all (N,) int64."""

    clip: Indices
    frame: Indices
    tile: Indices
    scale: Indices
    row: Indices
    """Inside the tile."""
    column: Indices
    """Inside the tile."""

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, patches: Indices | slice) -> Places:
        return Places(
            clip=self.clip[patches],
            frame=self.frame[patches],
            tile=self.tile[patches],
            scale=self.scale[patches],
            row=self.row[patches],
            column=self.column[patches],
        )

    @classmethod
    def of(cls, gazes: Sequence[Gaze]) -> Places:
        """The patches of clips of one layout, clip after clip in the order of their gazes."""
        grid = gazes[0].layout.grid
        index = np.concatenate([gaze.index for gaze in gazes])
        tile, patch = np.divmod(index, grid.num_patches)
        scale, row, column = grid.locate(patch)
        return cls(
            clip=np.repeat(np.arange(len(gazes)), [gaze.num_gazes for gaze in gazes]),
            frame=np.concatenate([gaze.frame for gaze in gazes]),
            tile=tile,
            scale=scale,
            row=row,
            column=column,
        )

    def cells(self, layout: FrameLayout, *, tiles: Tiles) -> tuple[Indices, tuple[tuple[int, int], ...]]:
        """Number of each patch among the cells of all scales, and the (rows, columns) of each scale.

        Cells count scale after scale and row by row, those of a tile or, with joint tiles, those of the frame.
        """
        rows, columns = (layout.tile_rows, layout.tile_columns) if tiles == "joint" else (1, 1)
        sides = tuple((rows * side, columns * side) for side in layout.grid.sides)
        offset = np.cumsum([0, *(height * width for height, width in sides)])
        side = np.asarray(layout.grid.sides)[self.scale]
        tile_row, tile_column = np.divmod(self.tile, layout.tile_columns) if tiles == "joint" else (0, 0)
        width = np.asarray([width for _, width in sides])[self.scale]
        cell: Indices = offset[self.scale] + (tile_row * side + self.row) * width + tile_column * side + self.column
        return cell, sides


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """The patches of a batch by sequence and frame. A sequence is a clip, or a tile of it."""

    order: Indices
    """(N,) which patch, in the order of the gazes, is where: sequence after sequence, frame after frame."""
    count_ST: Indices
    """(S, T) patches of each frame of each sequence."""

    @classmethod
    def of(cls, places: Places, *, clips: int, frames: int, tiles: int) -> Sequences:
        """Sequences of ``clips`` clips of ``frames`` frames; ``tiles`` is 1 if a clip is one sequence."""
        sequence = places.clip * tiles + (places.tile if tiles > 1 else 0)
        group = sequence * frames + places.frame
        count = np.bincount(group, minlength=clips * tiles * frames)
        return cls(order=np.argsort(group, kind="stable"), count_ST=count.reshape(clips * tiles, frames))

    def frame_by_frame(self) -> Sequences:
        """The same with every frame as a sequence of its own."""
        return Sequences(order=self.order, count_ST=self.count_ST.reshape(-1, 1))

    def chunks(self, most_tokens: int, *, prefix: int) -> list[slice]:
        """Runs of sequences with at most so many tokens each, class tokens included; never less than a sequence."""
        tokens_S = (self.count_ST + prefix * (self.count_ST > 0)).sum(1)
        runs, start, held = [], 0, 0
        for number, tokens in enumerate(tokens_S.tolist()):
            if held and held + tokens > most_tokens:
                runs.append(slice(start, number))
                start, held = number, 0
            held += tokens
        if len(tokens_S) > start:
            runs.append(slice(start, len(tokens_S)))
        return runs


@dataclass(frozen=True, kw_only=True, eq=False)
class Packing:
    """Where the tokens of some sequences lie in one packed row. Frames without gazes have no tokens at all."""

    tokens: int
    """M."""
    lengths: tuple[tuple[int, ...], ...]
    """For each sequence the tokens of each frame, class tokens included."""
    patch_slot: Indices
    """(N,) place of each patch."""
    prefix_slot: Indices
    """(G, P) places of the class and register tokens of those frames, or sequences, that have patches."""
    prefix_group: Indices
    """(G,) which frame of all, counted sequence after sequence, these belong to."""

    @classmethod
    def of(cls, count_ST: Indices, *, prefix: int, class_tokens: ClassTokens) -> Packing:
        """Pack sequences of so many patches; ``prefix`` is P."""
        has_ST = count_ST > 0
        if class_tokens == "clip":
            has_ST = has_ST & (np.cumsum(has_ST, axis=1) == 1)  # the first frame that is not empty
        length_ST = count_ST + prefix * has_ST
        start = (np.cumsum(length_ST) - length_ST.ravel()).reshape(length_ST.shape)
        first_patch = (start + prefix * has_ST).ravel()
        count = count_ST.ravel()
        rank = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        group = np.flatnonzero(has_ST)
        return cls(
            tokens=int(length_ST.sum()),
            lengths=tuple(map(tuple, length_ST.tolist())),
            patch_slot=np.repeat(first_patch, count) + rank,
            prefix_slot=start.ravel()[group][:, None] + np.arange(prefix),
            prefix_group=group,
        )
