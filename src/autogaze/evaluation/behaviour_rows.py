"""What the behaviour analyses find: a row for each bin, scale and frame position, and figures for each selector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autogaze.evaluation.behaviour_statistics import Interval, RankCorrelation

# The order of the fields is the order of the columns. None is an empty cell: there is nothing to tell the figure from.


@dataclass(frozen=True, kw_only=True)
class FlowRow:
    """How often patches of one scale are gazed at that move this fast. First frames of clips have no flow and are
    left out.
    """

    selector: str
    """Name of the selector."""
    scale_px: int
    """Scale of the patches."""
    flow_from_px: float
    """Slowest motion of the bin, in pixels a frame, fastest pixel of the patch."""
    flow_to_px: float | None
    """Where the next bin begins; None for the last."""
    patches: int
    """Patches of that scale with that motion, over all frames."""
    gazed: int
    """How many of them were gazed at."""
    gaze_rate: float | None
    """``gazed / patches``."""
    wilson_low: float | None
    """Lower end of the rate's 95 % interval if patches were independent."""
    wilson_high: float | None
    """Upper end of it."""
    clips: int
    """Clips with such patches."""
    clips_low: float | None
    """Lower end of the rate's 95 % interval when whole clips are drawn anew; None for less than two clips."""
    clips_high: float | None
    """Upper end of it."""


@dataclass(frozen=True, kw_only=True)
class DetailRow:
    """Gazed patches of one scale and their mean detail, or gazed patches of one range of detail and their mean scale.

    Detail is the variance of the 3 × 3 Laplacian, grey in 0…1.
    """

    selector: str
    """Name of the selector."""
    group: Literal["scale", "detail"]
    """What the gazes of a row share."""
    scale_px: int | None
    """Their scale, in rows of one scale."""
    detail_from: float | None
    """Least detail, in rows of a range of detail."""
    detail_to: float | None
    """Where the next range begins; None for the last."""
    gazes: int
    """How many there are."""
    mean_of: Literal["detail", "scale_px"]
    """What the mean is of."""
    mean: float | None
    """Mean over gazes."""
    sem: float | None
    """Its standard error if gazes were independent; None for less than two."""
    clips: int
    """Clips with such gazes."""
    clips_low: float | None
    """Lower end of the mean's 95 % interval when whole clips are drawn anew; None for less than two clips."""
    clips_high: float | None
    """Upper end of it."""
    mean_of_all_patches: float | None
    """In rows of one scale: mean detail of all patches of that scale, gazed at or not."""


@dataclass(frozen=True, kw_only=True)
class _OfFrame:
    selector: str
    """Name of the selector."""
    frame_idx: int
    """Position of the frame in its clip."""


@dataclass(frozen=True, kw_only=True)
class _OfScale:
    selector: str
    """Name of the selector."""
    scale_px: int
    """Scale of the patches."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How much of what is gazed at is here, and how much of what is here is gazed at."""

    gazes: int
    """Patches gazed at."""
    patches: int
    """Patches there were."""
    share: float | None
    """These gazes as a share of all; sums to 1."""
    rate: float | None
    """``gazes / patches``."""
    clips: int
    """Clips that have such patches."""
    share_mean: float | None
    """Mean over clips with gazes of each clip's share; sums to 1."""
    share_sd: float | None
    """Standard deviation of it over clips; None for less than two."""
    rate_mean: float | None
    """Mean over clips of each clip's rate."""
    rate_sd: float | None
    """Standard deviation of it over clips; None for less than two."""


# Fields of the last base come first.


@dataclass(frozen=True, kw_only=True)
class FrameShareRow(Shares, _OfFrame):
    """Gazes at one frame position of clips."""


@dataclass(frozen=True, kw_only=True)
class ScaleShareRow(Shares, _OfScale):
    """Gazes at one scale."""


@dataclass(frozen=True, kw_only=True)
class FlowTrend:
    """Whether patches of one scale are gazed at more when they move faster."""

    scale_px: int
    """Scale of the patches."""
    gazed_moves_faster: float | None
    """Probability that a gazed patch is in a faster bin than one that is not, a tie counting half: 0.5 where motion
    plays no part, 1 where all that is gazed at moves faster (the area under the ROC curve); None where all or none
    are gazed at."""
    over_clips: Interval | None
    """Its 95 % interval when whole clips are drawn anew; None for a single clip."""


@dataclass(frozen=True, kw_only=True)
class SelectorBehaviour:
    """What one selector looks at, over all clips."""

    selector: str
    """Name of the selector."""
    clips: int
    """Clips it gazed at."""
    frames: int
    """Frames of them."""
    gazes: int
    """Patches it kept."""
    patches: int
    """Patches there were."""
    flow: tuple[FlowRow, ...]
    """Gaze rate against motion, scale by scale."""
    flow_trends: tuple[FlowTrend, ...]
    """The same as one figure for each scale."""
    detail: tuple[DetailRow, ...]
    """Detail by scale, then scale by detail."""
    scale_and_detail: RankCorrelation
    """Of the scale and the detail of each gaze."""
    frame_shares: tuple[FrameShareRow, ...]
    """Gazes by frame position."""
    scale_shares: tuple[ScaleShareRow, ...]
    """Gazes by scale."""

    @property
    def kept_ratio(self) -> float:
        """``gazes / patches``."""
        return self.gazes / self.patches
