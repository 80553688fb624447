"""Coarse to fine for large frames: look at the whole frame small, and open only the tiles where it changed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from autogaze.errors import AutoGazeWarning, OptionError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.selectors.base import Budget, Selector, SelectorSession
from autogaze.selectors.distortion import picture_error
from autogaze.selectors.replenish import Replenish
from autogaze.selectors.tiles import open_tiles
from autogaze.tiling import merge, split, tile_layout

# Shape letters: T frames, K tiles, H × W pixels of the video, S side of the overview, C = 3 colours.

Pixels = NDArray[np.uint8]


class Cascade:
    """Another selector, which sees only the tiles that changed.

    Every frame is first seen small, as one tile stretched over it: the overview. A tile is opened in a frame where
    some pixel of its part of the overview differs, in some colour, by more than ``change`` from what it was when the
    tile was last opened; the first frame opens every tile. Slow changes add up until they open a tile, so no tile
    stays behind by more than ``change``, as far as the overview shows.

    Every tile is a video of its own for the inner selector, made of the frames in which it is open: a canvas stays as
    it was while its tile is closed, and a clip of a gaze model is 16 open frames of a tile. Limits are those of each
    opened tile, and so are predicted losses. A closed tile gets no gazes. Which tiles are open depends on no later
    frame, so a stream opens what a file opens.

    With ``change=0``, and where the layout has one tile, this is the inner selector itself.
    """

    def __init__(self, inner: Selector, *, change: float) -> None:
        """A cascade around a selector.

        Args:
            inner: what gazes at the opened tiles.
            change: how much a colour of the overview, in 0…1, must change to open a tile, in [0, 1).

        Raises:
            ValueError: ``change`` is out of range, or the inner selector reads motion vectors or moves its canvas
                with the camera, which both are of whole frames.
        """
        self.change = _checked(change)
        if inner.needs_motion_vectors and change:
            raise OptionError(
                f"{inner.name} reads motion vectors, which are of whole frames and not of tiles; "
                "use it without a cascade, or use flow or difference"
            )
        if isinstance(inner, Replenish) and inner.motion != "none" and change:
            raise OptionError(
                f"motion={inner.motion!r} moves the canvas of whole frames, and a cascade opens tiles one by one; "
                "leave one of the two out"
            )
        self.inner = inner
        """What gazes at the opened tiles."""
        self.needs_motion_vectors = inner.needs_motion_vectors

    @property
    def name(self) -> str:
        """``cascade:`` and the name of the inner selector."""
        return f"cascade:{self.inner.name}"

    @property
    def grid(self) -> PatchGrid:
        """Patches of one tile."""
        return self.inner.grid

    @property
    def device(self) -> object:
        """Where the inner selector works, if it says so."""
        return getattr(self.inner, "device", None)

    @property
    def default_budget(self) -> Budget:
        """The inner selector's."""
        return self.inner.default_budget

    def open(self, layout: FrameLayout, budget: Budget) -> SelectorSession:
        """Start on a video whose frames have this layout.

        Raises:
            BudgetError: the budget names a limit that the inner selector cannot keep.
        """
        if not self.change or layout.num_tiles == 1:
            return self.inner.open(layout, budget)
        # The whole frame decides what is warned of: that frames are cut into tiles, no tile by itself could tell.
        self.inner.open(layout, budget)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AutoGazeWarning)
            return CascadeSession(self, layout, budget)


class CascadeSession:
    """One video on its way through :class:`Cascade`."""

    def __init__(self, selector: Cascade, layout: FrameLayout, budget: Budget) -> None:
        self.layout = layout
        self.opened_TK: NDArray[np.bool_] = np.zeros((0, layout.num_tiles), bool)
        """(T, K) which tiles were open in the frames of the last step, row by row."""
        self._change_levels = selector.change * 255
        self._overview = FrameLayout.resized(layout.grid, height_px=layout.height_px, width_px=layout.width_px)
        self._tiles = [_Tile(place) for place in _places(layout)]
        self._session = open_tiles(selector.inner, [tile.place.layout for tile in self._tiles], budget)

    def step(self, frames: Frames) -> Gaze:
        """The gaze of the next frames of the video (any number of them, at least 1), with their times.

        Raises:
            ValueError: the frames are not of the session's height and width.
        """
        overview_TSSC = split(frames.rgb, self._overview)[0]
        self.opened_TK = np.stack([tile.opens(overview_TSSC, self._change_levels) for tile in self._tiles], axis=1)
        frames_K = self.opened_TK.sum(axis=0)
        # Those with most frames come first, lest one goes on alone when all others are done.
        opened = [k for k in np.argsort(-frames_K, kind="stable").tolist() if frames_K[k]]
        gazes = self._session.step((k, self._tiles[k].part(frames, self.opened_TK[:, k])) for k in opened)
        of_tile = dict(zip(opened, gazes, strict=True))
        whole = [tile.whole(of_tile.get(k), self.opened_TK[:, k]) for k, tile in enumerate(self._tiles)]
        return replace(merge(whole, self.layout), time_seconds=frames.time_seconds)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a tile is."""

    layout: FrameLayout
    """Of the tile's part of the frame: one tile."""
    pixels: tuple[slice, slice]
    """Rows and columns of the frame, padding left out."""
    overview: tuple[slice, slice]
    """Rows and columns of the overview that show any of them."""


class _Tile:
    """One tile on its way through a video."""

    def __init__(self, place: _Place) -> None:
        self.place = place
        self._shown: Pixels | None = None
        nothing = np.zeros(0, np.int64)
        self._no_frames = Gaze(index=nothing, count=nothing, layout=place.layout)

    def opens(self, overview_TSSC: Pixels, change_levels: float) -> NDArray[np.bool_]:
        """(T,) the frames in which the tile is open."""
        rows, columns = self.place.overview
        opened_T = np.zeros(len(overview_TSSC), bool)
        for t, picture in enumerate(overview_TSSC[:, rows, columns]):
            if self._shown is None or picture_error(picture, self._shown).max() > change_levels:
                opened_T[t], self._shown = True, picture.copy()
        return opened_T

    def part(self, frames: Frames, opened_T: NDArray[np.bool_]) -> Frames:
        """The tile's part of the frames in which it is open."""
        rows, columns = self.place.pixels
        return Frames(
            rgb=np.ascontiguousarray(frames.rgb[:, rows, columns][opened_T]),
            time_seconds=frames.time_seconds[opened_T],
            number=frames.number[opened_T],
        )

    def whole(self, gaze: Gaze | None, opened_T: NDArray[np.bool_]) -> Gaze:
        """The gaze of all frames, as of a whole tile whatever part of it is padding; closed frames have no gazes.

        ``gaze`` is of the open frames; None: there are none.
        """
        if gaze is None:
            gaze = self._no_frames
        else:
            self._no_frames = gaze[:0]  # it knows which numbers go with a gaze; the first frame opens every tile
        count = np.zeros(len(opened_T), np.int64)
        count[opened_T] = gaze.count
        return replace(gaze, count=count, layout=tile_layout(self.place.layout.grid), time_seconds=None)


def _checked(change: object) -> float:
    """How much must change to open a tile, as a plain number.

    Raises:
        ValueError: it is not a number in [0, 1).
    """
    if isinstance(change, bool) or not isinstance(change, Real) or not 0 <= float(change) < 1:  # NaN is not ≥ 0
        raise OptionError(
            f"the change that opens a tile must be at least 0 and below 1, got {change!r}; 0 opens every tile, "
            "0.1 those where a colour changed by a tenth"
        )
    return float(change)


def _places(layout: FrameLayout) -> Iterator[_Place]:
    """The places of all tiles, row by row."""
    side_px = layout.grid.scales_px[-1]

    def spans(tiles: int, tile_px: int, frame_px: int) -> list[tuple[slice, slice]]:
        """Pixels of the frame and of the overview, for each row or column of tiles."""
        edges = [(i * tile_px, min((i + 1) * tile_px, frame_px)) for i in range(tiles)]
        return [
            (slice(first, end), slice(first * side_px // frame_px, math.ceil(end * side_px / frame_px)))
            for first, end in edges
        ]

    columns = spans(layout.tile_columns, layout.tile_width_px, layout.width_px)
    for row_px, overview_row_px in spans(layout.tile_rows, layout.tile_height_px, layout.height_px):
        for column_px, overview_column_px in columns:
            of_tile = replace(
                layout,
                height_px=row_px.stop - row_px.start,
                width_px=column_px.stop - column_px.start,
                tile_rows=1,
                tile_columns=1,
            )
            yield _Place(layout=of_tile, pixels=(row_px, column_px), overview=(overview_row_px, overview_column_px))
