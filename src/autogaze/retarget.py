"""A gaze in the patches of another vision transformer, by whole-number geometry."""

from __future__ import annotations

from typing import Literal, NoReturn

import numpy as np

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, Indices, PatchGrid

_FRAMES_AT_ONCE = 1024


def retarget(gaze: Gaze, grid: PatchGrid, *, coarse: Literal["cover", "drop"] = "cover") -> Gaze:
    """The same choice in the patches of ``grid``, in the order in which the gazes bring them in.

    - The gaze's own grid, for gazes of one tile: the gaze itself.
    - A grid of one scale, whatever the gaze's layout: it is stretched over the whole frame, and every cell that
      shares some area with a gazed patch is kept. ``coarse`` says what becomes of the gazes above the finest scale:
      "cover" treats them like all others, so that everything gazed at is covered (but for what lies past the last
      whole patch of ``grid``); "drop" leaves them out. A cell has the probability and the predicted loss of the
      first gaze that brings it in.
    - A grid of as many scales as the gaze's, whose frame was gazed at in n × n tiles of as many patches as the
      finest scale needs: scale by scale the tiles lie side by side, and rows and columns past
      ``scales_px // patch_px`` are cut off. Patches keep their row and column even where a scale is no whole number
      of patches (56 px at patch 16 keep 3 of 4 rows): this is how such encoders were trained. ``coarse`` plays no
      part.

    The result's layout is one tile of ``grid`` over the frame. Frames may end up empty. Shifts of a canvas, which other
    patches would not paint alike, are left out but for the gaze's own grid.

    Raises:
        TypeError: ``grid`` is no :class:`~autogaze.grid.PatchGrid`.
        ValueError: ``grid`` is none of these, or ``coarse`` is neither "cover" nor "drop".
    """
    if not isinstance(grid, PatchGrid):
        raise TypeError(
            f"grid must be a PatchGrid, got {grid!r}; 24 × 24 patches are PatchGrid(scales_px=(336,), patch_px=14)"
        )
    if coarse not in ("cover", "drop"):
        raise ValueError(f'coarse must be "cover" or "drop", got {coarse!r}')
    if grid == gaze.layout.grid and gaze.layout.num_tiles == 1:
        return gaze
    if grid.num_scales > 1:
        return _side_by_side(gaze, grid)
    # In parts, because the work on a part needs memory for every patch that any gaze could bring in.
    starts = range(0, max(1, len(gaze)), _FRAMES_AT_ONCE)
    return Gaze.concatenate([_by_overlap(gaze[t : t + _FRAMES_AT_ONCE], grid, coarse=coarse) for t in starts])


def _side_by_side(gaze: Gaze, grid: PatchGrid) -> Gaze:
    layout, source = gaze.layout, gaze.layout.grid
    tiles = -(-grid.sides[-1] // source.sides[-1])
    if (
        grid.num_scales != source.num_scales
        or (layout.tile_rows, layout.tile_columns) != (tiles, tiles)
        or any(side > tiles * tile_side for side, tile_side in zip(grid.sides, source.sides, strict=True))
    ):
        _refuse(layout, grid)
    scale, row, column = layout.locate(gaze.index)
    side = np.asarray(grid.sides)[scale]
    kept = (row < side) & (column < side)

    def frame_px(tile_px: int, video_px: int) -> int:
        """Video pixels that the finest scale of the grid spans, its patches being as large as those of the tiles."""
        whole = tile_px * source.patch_px * grid.scales_px[-1]
        return max(video_px, -(-whole // (source.scales_px[-1] * grid.patch_px)))

    return Gaze(
        index=grid.index(scale[kept], row[kept], column[kept]),
        count=np.bincount(gaze.frame[kept], minlength=len(gaze)),
        layout=FrameLayout(
            grid=grid,
            height_px=layout.height_px,
            width_px=layout.width_px,
            tile_height_px=frame_px(layout.tile_height_px, layout.height_px),
            tile_width_px=frame_px(layout.tile_width_px, layout.width_px),
        ),
        probability=None if gaze.probability is None else gaze.probability[kept],
        predicted_loss=None if gaze.predicted_loss is None else gaze.predicted_loss[kept],
        time_seconds=gaze.time_seconds,
    )


def _refuse(layout: FrameLayout, grid: PatchGrid) -> NoReturn:
    tiles = -(-grid.sides[-1] // layout.grid.sides[-1])
    raise ValueError(
        f"cannot retarget {layout.tile_rows} × {layout.tile_columns} tiles of {layout.grid.scales_px} px at patch "
        f"{layout.grid.patch_px} to {grid.scales_px} px at patch {grid.patch_px}; possible are any grid of one scale, "
        f"and {layout.grid.num_scales} scales of at most {tuple(tiles * side for side in layout.grid.sides)} patches a "
        f"side if the frame was gazed at in {tiles} × {tiles} tiles"
    )


def _by_overlap(gaze: Gaze, grid: PatchGrid, *, coarse: Literal["cover", "drop"]) -> Gaze:
    layout, side, P = gaze.layout, grid.sides[0], grid.num_patches
    scale, row, column = layout.locate(gaze.index)
    source = np.arange(gaze.num_gazes)
    if coarse == "drop":
        source = source[scale == layout.grid.num_scales - 1]
        scale, row, column = scale[source], row[source], column[source]
    top, bottom = _spans(layout.tile_rows, layout.tile_height_px, layout.height_px, layout.grid, grid)
    left, right = _spans(layout.tile_columns, layout.tile_width_px, layout.width_px, layout.grid, grid)
    first_row, first_column = top[scale, row], left[scale, column]
    columns = right[scale, column] - first_column
    area = (bottom[scale, row] - first_row) * columns
    # One entry for every cell that every gaze brings in, the cells of a gaze row by row.
    entry = np.repeat(np.arange(len(source)), area)
    cell_row, cell_column = np.divmod(np.arange(len(entry)) - np.repeat(np.cumsum(area) - area, area), columns[entry])
    cell = (first_row[entry] + cell_row) * side + first_column[entry] + cell_column
    place = gaze.frame[source][entry] * P + cell
    first = np.full(len(gaze) * P, len(entry))
    np.minimum.at(first, place, np.arange(len(entry)))
    taken = np.sort(first[first < len(entry)])
    chosen = source[entry[taken]]
    return Gaze(
        index=cell[taken],
        count=np.bincount(place[taken] // P, minlength=len(gaze)),
        layout=FrameLayout.resized(grid, height_px=layout.height_px, width_px=layout.width_px),
        probability=None if gaze.probability is None else gaze.probability[chosen],
        predicted_loss=None if gaze.predicted_loss is None else gaze.predicted_loss[chosen],
        time_seconds=gaze.time_seconds,
    )


def _spans(tiles: int, tile_px: int, frame_px: int, source: PatchGrid, target: PatchGrid) -> tuple[Indices, Indices]:
    """First target row, and one past the last, that each source row overlaps; (scales, rows of the finest) both.

    Columns likewise. Edges are compared as fractions brought to a common denominator, never rounded.
    """
    first = np.zeros((source.num_scales, tiles * max(source.sides)), np.int64)
    end = np.zeros_like(first)
    target_px, side = target.scales_px[0], target.sides[0]
    for number, (scale_px, scale_side) in enumerate(zip(source.scales_px, source.sides, strict=True)):
        tile, row = np.divmod(np.arange(tiles * scale_side), scale_side)
        # Edges in pixels of the video, times scale_px. Padding lies past the frame, and so past the last target row.
        start = (tile * scale_px + row * source.patch_px) * tile_px
        stop = (tile * scale_px + (row + 1) * source.patch_px) * tile_px
        row_px = target.patch_px * frame_px * scale_px  # one target row in the same unit, times target_px
        first[number, : len(row)] = (start * target_px // row_px).clip(max=side)
        end[number, : len(row)] = (-(-stop * target_px // row_px)).clip(max=side)
    return first, end
