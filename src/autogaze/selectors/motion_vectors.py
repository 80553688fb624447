"""Where the codec saw motion: patches that the video file itself says have moved."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from autogaze.frames import Frames
from autogaze.grid import FrameLayout
from autogaze.selectors.base import CLIP_FRAMES
from autogaze.selectors.detail import detail_scores
from autogaze.selectors.pyramid import by_index
from autogaze.selectors.scored import FrameScores, ScoredSelector, Scorer

# Shape letters: V vectors of one frame, h × w cells of CELL_PX, R × D patches of one scale over all tiles.

CELL_PX = 4
"""The smallest block that a codec with exported vectors moves; blocks start and end at its multiples,
save in frames that are shown turned: there they are widened to the next multiple."""
NEW_PX = 16.0
"""How far a pixel is taken to have moved that the codec predicted from no other frame: one macroblock."""


class MotionVectors(ScoredSelector):
    """Scores a patch by the mean motion of its pixels, in pixels of the video, as the codec stored it.

    Where a frame has vectors but a block has none, the encoder found nothing to predict it from: such pixels
    show something new and count as moved by ``NEW_PX``. A block with two vectors counts with their mean. A vector
    reaches to the frame that the encoder chose, which may be further away than the frame before. A mean per pixel
    has one unit at all scales, so they compete directly.

    Key frames have no vectors: like a first frame they are scored by detail and get an even share of their clip's
    budget; a whole clip of such frames warns, for many codecs export no vectors at all. Vectors are in pixels of
    the upright frame, as :func:`~autogaze.video.open_video` turns them.
    """

    name = "motion-vectors"
    needs_motion_vectors = True

    def scorer(self, layout: FrameLayout) -> Scorer:
        """What scores the frames of one video of this layout."""
        return _MotionVectorScorer(layout)


def motion_map(vectors_V: NDArray[np.void], *, height_px: int, width_px: int) -> NDArray[np.float64]:
    """(h, w) mean motion in pixels of each CELL_PX × CELL_PX cell of a frame; ``NEW_PX`` where no vector arrives.

    Args:
        vectors_V: As PyAV exports them: ``dst_x, dst_y`` is the middle of a block of ``w × h`` pixels in this
            frame, ``motion_x, motion_y`` over ``motion_scale`` how far it was moved.
        height_px: Height of the frame.
        width_px: Width of the frame.
    """
    rows, columns = -(-height_px // CELL_PX), -(-width_px // CELL_PX)
    scale = np.maximum(vectors_V["motion_scale"], 1)
    # Rounded to 1/1024 px, so that the running sums are exact and blocks at rest tie.
    motion_px = np.rint(np.hypot(vectors_V["motion_x"] / scale, vectors_V["motion_y"] / scale) * 1024) / 1024

    def cells(middle: str, extent: str, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        start_px = vectors_V[middle].astype(np.int64) - vectors_V[extent] // 2
        end_px = start_px + vectors_V[extent]
        return np.clip(start_px // CELL_PX, 0, limit), np.clip(-(-end_px // CELL_PX), 0, limit)

    top, bottom = cells("dst_y", "h", rows)
    left, right = cells("dst_x", "w", columns)
    # Marked at the corners of every block, two running sums fill the blocks.
    total, count = np.zeros((2, rows + 1, columns + 1))
    for row, column, sign in ((top, left, 1), (bottom, right, 1), (top, right, -1), (bottom, left, -1)):
        np.add.at(total, (row, column), sign * motion_px)
        np.add.at(count, (row, column), sign)
    total, count = (corners.cumsum(0).cumsum(1)[:-1, :-1] for corners in (total, count))
    return np.where(count > 0.5, total / np.maximum(count, 1), NEW_PX)


class _MotionVectorScorer:
    def __init__(self, layout: FrameLayout) -> None:
        self._layout = layout
        self._frames_without_vectors = 0
        self._weights = [_overlaps(layout, scale) for scale in range(layout.grid.num_scales)]

    def score(self, frames: Frames, *, position: int) -> FrameScores:
        if frames.motion_vectors is None:
            raise ValueError(
                "motion-vectors reads what the codec stored, and these frames have none; open a video file "
                "(H.264 or MPEG-4) with motion_vectors=True, or use the selector flow or difference"
            )
        apart_T = np.array([len(vectors) == 0 for vectors in frames.motion_vectors])
        self._warn_if_codec_has_none(apart_T)
        scores = [
            detail_scores(rgb, self._layout) if apart else self._motion(vectors)
            for rgb, vectors, apart in zip(frames.rgb, frames.motion_vectors, apart_T, strict=True)
        ]
        return FrameScores(score_TP=np.stack(scores), apart_T=apart_T)

    def _warn_if_codec_has_none(self, empty_T: NDArray[np.bool_]) -> None:
        for empty in empty_T:
            self._frames_without_vectors = self._frames_without_vectors + 1 if empty else 0
            if self._frames_without_vectors == CLIP_FRAMES:
                warnings.warn(
                    f"{CLIP_FRAMES} frames in a row have no motion vectors, so they are scored by detail; only H.264 "
                    "and MPEG-4 files with predicted frames have them, the selectors flow and difference need none",
                    stacklevel=4,
                )

    def _motion(self, vectors_V: NDArray[np.void]) -> NDArray[np.float64]:
        motion_hw = motion_map(vectors_V, height_px=self._layout.height_px, width_px=self._layout.width_px)
        return by_index([down_Rh @ motion_hw @ right_Dw.T for down_Rh, right_Dw in self._weights], self._layout)


def _overlaps(layout: FrameLayout, scale: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R, h) and (D, w) shares of each patch of one scale, top to bottom and left to right, that lie in each cell."""
    side = layout.grid.sides[scale]
    rows, columns = np.arange(layout.tile_rows * side), np.arange(layout.tile_columns * side)
    left, _, right, _ = layout.patch_boxes_px[layout.index(np.full_like(columns, scale), 0 * columns, columns)].T
    _, top, _, bottom = layout.patch_boxes_px[layout.index(np.full_like(rows, scale), rows, 0 * rows)].T
    return _shares(top, bottom, layout.height_px), _shares(left, right, layout.width_px)


def _shares(start_px: NDArray[np.int64], end_px: NDArray[np.int64], frame_px: int) -> NDArray[np.float64]:
    cell_start_px = np.arange(-(-frame_px // CELL_PX)) * CELL_PX
    overlap_px = np.minimum(end_px[:, None], cell_start_px + CELL_PX) - np.maximum(start_px[:, None], cell_start_px)
    shares: NDArray[np.float64] = np.clip(overlap_px, 0, None) / np.maximum(end_px - start_px, 1)[:, None]
    return shares
