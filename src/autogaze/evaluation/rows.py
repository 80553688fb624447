"""What an evaluation writes down: a row for each frame, one for each clip, and one for each setting over all clips."""

from __future__ import annotations

from dataclasses import dataclass

# The order of the fields is the order of the columns: first the names that the research community's tables already
# have, then ours. What was not measured is None, an empty cell: seconds and memory of an evaluation without timings.


@dataclass(frozen=True, kw_only=True)
class FrameRow:
    """One frame of one clip under one selector, reconstructor and setting."""

    clip_name: str
    """Name of the clip: the video's result name, ``_start_`` and the number of the clip's first frame."""
    clip_start: int
    """Number of the clip's first frame in its video."""
    setting: str
    """Name of the operating point, such as ``ratio_0.10``."""
    frame_idx: int
    """Position of the frame in the clip."""
    reconstruction_loss: float
    """In the reconstructor's own unit."""
    non_padded_gazes: int
    """Patches kept in this frame."""
    pixel_mae: float
    """Mean absolute error, colours in 0…1."""
    pixel_mse: float
    """Mean squared error, colours in 0…1."""
    psnr: float
    """Peak signal-to-noise ratio in dB; infinite where nothing differs."""
    ssim: float
    """Structural similarity (Gaussian window of σ = 1.5 px, 11 px wide)."""
    selector: str
    """Name of the selector."""
    reconstructor: str
    """Name of the reconstructor."""
    predicted_loss: float | None
    """What the selector said the loss would be after the frame's last gaze, in its own unit; None if it has no say
    about the frame as a whole, as where a frame has several tiles."""


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """One clip under one selector, reconstructor and setting; means are over its frames."""

    clip_name: str
    """See :class:`FrameRow`."""
    clip_start: int
    """See :class:`FrameRow`."""
    setting: str
    """See :class:`FrameRow`."""
    gazing_ratio_arg: float | None
    """The ratio asked for."""
    task_loss_requirement_arg: float | None
    """The threshold asked for, in the selector's own unit."""
    non_padded_gazes: int
    """Patches kept in the clip."""
    actual_gaze_ratio: float
    """Patches kept as a share of those of all scales (265 a frame with the published grid)."""
    reconstruction_loss: float
    """Mean of the frames."""
    pixel_mae: float
    """Mean of the frames."""
    pixel_mse: float
    """Mean of the frames."""
    psnr: float
    """Mean of the frames in dB; a frame that is rebuilt exactly counts as :data:`PSNR_CEILING_DB`."""
    ssim: float
    """Mean of the frames."""
    gaze_seconds: float | None
    """Time the selector took for the clip."""
    reconstruction_seconds: float | None
    """Time the reconstructor took for the clip, its loss included."""
    non_padded_gazes_by_frame: tuple[int, ...]
    """Patches kept in each frame."""
    num_gazing_each_frame: tuple[int, ...]
    """The same: results here have no padding."""
    selector: str
    """Name of the selector."""
    reconstructor: str
    """Name of the reconstructor."""
    budget_per: str
    """``frame``, or ``clip`` where the frames of a clip share one budget."""
    video: str
    """The video's path as it was given."""
    frames: int
    """Frames of the clip."""
    gaze_ratio_of_finest: float
    """Patches kept as a share of those of the finest scale alone (196 a frame with the published grid)."""
    decode_seconds: float | None
    """Time decoding and resizing the clip took."""
    peak_memory_mb: float | None
    """Most memory the process held while gazing and rebuilding, in 10⁶ bytes; of the accelerator where that worked."""


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """One selector, reconstructor and setting; means over clips."""

    setting: str
    """See :class:`FrameRow`."""
    actual_gaze_ratio: float
    """Mean over clips, like every number below."""
    non_padded_gazes: float
    """Patches kept in a clip."""
    reconstruction_loss: float
    """In the reconstructor's own unit."""
    pixel_mae: float
    """Colours in 0…1."""
    pixel_mse: float
    """Colours in 0…1."""
    psnr: float
    """In dB."""
    ssim: float
    """Structural similarity."""
    gaze_seconds: float | None
    """A clip."""
    reconstruction_seconds: float | None
    """A clip."""
    selector: str
    """Name of the selector."""
    reconstructor: str
    """Name of the reconstructor."""
    gaze_ratio_of_finest: float
    """Share of the finest scale's patches."""
    decode_seconds: float | None
    """A clip."""
    peak_memory_mb: float | None
    """Largest over clips, in 10⁶ bytes."""
    clips: int
    """Clips the means are over."""


PSNR_CEILING_DB = 100.0
"""What an exactly rebuilt frame counts as where PSNRs are averaged."""
