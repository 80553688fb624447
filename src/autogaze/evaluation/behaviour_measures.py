"""What a clip shows and what was gazed at in it: motion and detail under every patch, counted per clip."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autogaze.extras import require
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.selectors.detail import laplacian
from autogaze.selectors.pyramid import by_index, luma, patch_maxima

# Shape letters: T frames of H × W pixels, P patches of a frame, S scales, B bins, N gazes.

FLOW_EDGES_PX = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Where bins of flow begin, in pixels a frame; each ends where the next begins, the last one never."""
DETAIL_EDGES = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
"""Where bins of Laplacian variance begin, grey in 0…1; each ends where the next begins, the last one never."""

_GREY = np.array([299, 587, 114])
_GREY_MAX = 255_000


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipFacts:
    """Motion and detail of a clip, whoever gazes at it."""

    layout: FrameLayout
    """One tile over the whole frame, pixel for pixel."""
    flow_px_TP: NDArray[np.float32]
    """(T − 1, P) fastest motion in the box of each patch, in pixels; of every frame but the first."""
    detail_TP: NDArray[np.float64]
    """(T, P) variance of the Laplacian in the box of each patch, grey in 0…1."""

    @classmethod
    def of(cls, rgb: NDArray[np.uint8], *, layout: FrameLayout) -> ClipFacts:
        """Look at the (T, H, W, 3) frames of a clip (extra ``evaluate``).

        Raises:
            ValueError: the frames are not of the layout, or it is not one tile of as many pixels as its finest scale.
            ImportError: opencv-python-headless is not installed.
        """
        side_px = layout.grid.scales_px[-1]
        if layout != FrameLayout.resized(layout.grid, height_px=side_px, width_px=side_px):
            raise ValueError(f"the layout must be one tile over frames of {side_px} × {side_px} px, got {layout}")
        if rgb.ndim != 4 or rgb.shape[1:] != (side_px, side_px, 3) or rgb.dtype != np.uint8:
            raise ValueError(f"rgb must be (T, {side_px}, {side_px}, 3) uint8, got {rgb.shape} {rgb.dtype}")
        scales = range(layout.grid.num_scales)
        flow_TP = [
            by_index([patch_maxima(flow_hw, layout, scale) for scale in scales], layout) for flow_hw in flow_px(rgb)
        ]
        return cls(
            layout=layout,
            flow_px_TP=np.array(flow_TP, np.float32).reshape(-1, layout.num_indices),
            detail_TP=np.stack([laplacian_variance(frame, layout=layout) for frame in rgb]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipBehaviour:
    """What a selector gazed at in one clip, by motion, detail, frame and scale: small, and all that is kept of it."""

    clip: str
    """Name of the clip; no two of a set may share it."""
    scales_px: tuple[int, ...]
    """Scales of the grid."""
    patches_S: NDArray[np.int64]
    """(S,) patches of one frame."""
    gazes_TS: NDArray[np.int64]
    """(T, S) patches gazed at in each frame."""
    moved_SB: NDArray[np.int64]
    """(S, B) patches with flow in each bin of :data:`FLOW_EDGES_PX`, over all frames but the first."""
    moved_gazed_SB: NDArray[np.int64]
    """(S, B) how many of them were gazed at."""
    scale_N: NDArray[np.int8]
    """(N,) number of the scale of each gaze, 0 being the coarsest."""
    detail_N: NDArray[np.float32]
    """(N,) Laplacian variance of each gazed patch."""
    detail_sum_S: NDArray[np.float64]
    """(S,) sum of the Laplacian variances of all patches of all frames, gazed at or not."""

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.gazes_TS)

    @property
    def num_gazes(self) -> int:
        """N."""
        return len(self.scale_N)

    @classmethod
    def of(cls, facts: ClipFacts, *, gaze: Gaze, clip: str) -> ClipBehaviour:
        """Count what a gaze chose in a clip; the order of gazes in a frame plays no part.

        Raises:
            ValueError: the gaze is not of the clip's layout and length, or looks at a patch twice in a frame.
        """
        if gaze.layout != facts.layout:
            raise ValueError(f"the clip has layout {facts.layout}, the gaze {gaze.layout}; use the same layout")
        if len(gaze) != len(facts.detail_TP):
            raise ValueError(f"clip and gaze must be equally long, got {len(facts.detail_TP)} and {len(gaze)} frames")
        grid, gazed_TP = facts.layout.grid, gaze.mask()
        if gazed_TP.sum() != gaze.num_gazes:
            raise ValueError(f"{clip}: {gaze.num_gazes - gazed_TP.sum()} patches are gazed at twice in a frame")
        flow_bin_TP = bin_of(facts.flow_px_TP, FLOW_EDGES_PX)
        scale_P = np.repeat(np.arange(grid.num_scales), grid.patches_per_scale)
        slots = grid.num_scales, len(FLOW_EDGES_PX)

        def counted(chosen_TP: NDArray[np.bool_]) -> NDArray[np.int64]:
            flat = (scale_P * slots[1] + flow_bin_TP)[chosen_TP]
            return np.bincount(flat, minlength=slots[0] * slots[1]).reshape(slots)

        starts = list(grid.offsets)
        return cls(
            clip=clip,
            scales_px=grid.scales_px,
            patches_S=np.array(grid.patches_per_scale),
            gazes_TS=np.add.reduceat(gazed_TP.astype(np.int64), starts, axis=1),
            moved_SB=counted(np.ones_like(gazed_TP[1:])),
            moved_gazed_SB=counted(gazed_TP[1:]),
            scale_N=np.broadcast_to(scale_P, gazed_TP.shape)[gazed_TP].astype(np.int8),
            detail_N=facts.detail_TP[gazed_TP].astype(np.float32),
            detail_sum_S=np.add.reduceat(facts.detail_TP.sum(0), starts),
        )


def bin_of(values: NDArray[Any], edges: tuple[float, ...]) -> NDArray[np.int64]:
    """Number of the bin that each value is in; a value on an edge is in the bin that begins there."""
    numbers: NDArray[np.int64] = np.searchsorted(np.asarray(edges), values, side="right") - 1
    return numbers


def flow_px(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(T − 1, H, W) how fast each pixel of every frame but the first moves, in pixels a frame.

    The flow is OpenCV's Dense Inverse Search of the luma, from each frame to the one before and back, see
    :func:`larger_flow`. It finds motion of up to about 16 px a frame in things of a quarter of a 224 px frame's side;
    of what moves faster it finds half, and less.

    Raises:
        ImportError: opencv-python-headless is not installed.
    """
    cv2 = require("cv2", extra="evaluate")
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # The preset's windows of 8 px lose things of a quarter of the frame's side that move by 12 px.
    search.setPatchSize(4)
    search.setPatchStride(2)
    luma_THW = [luma(frame)[..., 0] for frame in rgb]
    speeds = [
        larger_flow(search.calc(after, before, None), search.calc(before, after, None))
        for before, after in pairwise(luma_THW)
    ]
    return np.array(speeds, np.float32).reshape(-1, *rgb.shape[1:3])


def larger_flow(to_before_hw2: NDArray[np.float32], to_after_hw2: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) the larger magnitude of two flows between a frame and the one before it, in pixels.

    ``to_before_hw2`` (right, down) starts at the pixels of the frame itself. ``to_after_hw2`` starts at those of the
    frame before; it is fetched from where the first one points (bilinear), and counts as 0 where that is outside
    the picture. This is the map of the AutoGaze paper (its Fig. 4) drawn on the frame whose gazes are counted.

    Raises:
        ImportError: opencv-python-headless is not installed.
    """
    cv2 = require("cv2", extra="evaluate")
    height_px, width_px, _ = to_before_hw2.shape
    down, right = np.indices((height_px, width_px), np.float32)
    right, down = right + to_before_hw2[..., 0], down + to_before_hw2[..., 1]
    fetched_hw2 = cv2.remap(to_after_hw2, right, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside_hw = (right >= 0) & (right <= width_px - 1) & (down >= 0) & (down <= height_px - 1)
    larger: NDArray[np.float32] = np.maximum(
        np.hypot(to_before_hw2[..., 0], to_before_hw2[..., 1]),
        np.where(inside_hw, np.hypot(fetched_hw2[..., 0], fetched_hw2[..., 1]), np.float32(0)),
    )
    return larger


def laplacian_variance(rgb: NDArray[np.uint8], *, layout: FrameLayout) -> NDArray[np.float64]:
    """(P,) variance of the 3 × 3 Laplacian (0 1 0; 1 −4 1; 0 1 0) of an (H, W, 3) frame in the box of each patch.

    Grey is ITU-R 601 in 0…1, not rounded; past the border the picture repeats its edge. Boxes of all scales are
    looked at in the same pixels, so a coarse patch differs from a fine one by what it covers, not by blur.
    """
    # In whole thousandths of a level, so that sums are exact and equal patches get equal variances.
    answer_HW = laplacian(rgb @ _GREY).astype(np.int64)
    left, top, right, bottom = layout.patch_boxes_px.T
    count_P = (right - left) * (bottom - top)

    def means(values_HW: NDArray[np.int64]) -> NDArray[np.float64]:
        corner = np.pad(values_HW, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        sums = corner[bottom, right] - corner[top, right] - corner[bottom, left] + corner[top, left]
        return np.asarray(sums / count_P, np.float64)

    variance_P: NDArray[np.float64] = (means(answer_HW**2) - means(answer_HW) ** 2).clip(min=0) / _GREY_MAX**2
    return variance_P
