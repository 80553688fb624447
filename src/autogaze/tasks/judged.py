"""What a task judges: the video, its selection, some of its frames, and the last gaze of each.

Shape letters: B clips, T frames, F frames that are judged, N gaze slots of all frames, P patches of one frame.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from autogaze.algorithms import stop_head
from autogaze.algorithms.stop_head import LossTargets
from autogaze.gaze import Gaze
from autogaze.packing import PaddedGaze, pack

Selection: TypeAlias = Mapping[str, Any] | PaddedGaze | Gaze | Sequence[Gaze]
"""Gazes of a batch: what the gaze model's published call returns, padded, or one for each clip."""

VIDEO = "video_for_task"
"""Under this name a batch holds the video that tasks see: (B, T, 3, H, W) floats, as the task's ``transform`` makes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskBatch:
    """What a task was given, checked and on one device; :func:`task_batch` makes it."""

    video_BT3HW: Tensor
    """(B, T, 3, H, W) floats."""
    gaze: PaddedGaze
    """Gazes of these clips."""
    frame_idx: Tensor
    """(F,) int64 frames that are judged."""


def task_batch(
    inputs: Mapping[str, Any],
    gaze_outputs: Selection,
    frame_idx: Tensor | Sequence[int] | None,
    *,
    num_patches: int,
    sample_rate: float,
    generator: torch.Generator | None = None,
) -> TaskBatch:
    """Check what a task was given, and choose the frames that are judged if nobody did.

    Args:
        inputs: the batch.
        gaze_outputs: its selection.
        frame_idx: the frames to judge; None: a share of ``sample_rate``, see :func:`sample_frames`.
        num_patches: P, what one frame of the task has.
        sample_rate: see there.
        generator: see there.

    Raises:
        ValueError: there is no video, or video, selection and frames do not fit together.
    """
    video = inputs.get(VIDEO)
    if not isinstance(video, Tensor) or video.ndim != 5 or video.shape[2] != 3 or not video.is_floating_point():
        got = f"{tuple(video.shape)} {video.dtype}" if isinstance(video, Tensor) else type(video).__name__
        raise ValueError(f"inputs[{VIDEO!r}] must be (B, T, 3, H, W) floats, got {got}")
    gaze = padded_gaze(gaze_outputs, device=video.device)
    B, T = video.shape[:2]
    got_B, got_T, got_P = len(gaze.gazing_pos), len(gaze.num_gazing_each_frame), gaze.num_vision_tokens_each_frame
    if (got_B, got_T) != (B, T):
        raise ValueError(f"the video has {B} clips of {T} frames, the selection {got_B} of {got_T}; is it of this one?")
    if got_P != num_patches:
        raise ValueError(
            f"a frame of the selection has {got_P} patches, one of the task {num_patches}; call the gaze model with "
            "the task's gaze_model_kwargs, or use Gaze.retarget"
        )
    if frame_idx is None:
        chosen = sample_frames(T, sample_rate, generator=generator)
    else:
        chosen = torch.as_tensor(frame_idx)
        numbers = chosen.tolist()
        if chosen.ndim != 1 or not numbers or len({*numbers}) < len(numbers) or not {*numbers} <= {*range(T)}:
            raise ValueError(f"frames to judge must be different ones of 0..{T - 1}, at least one, got {numbers}")
    return TaskBatch(video_BT3HW=video, gaze=gaze, frame_idx=chosen.to(video.device, torch.int64))


def sample_frames(num_frames: int, rate: float, *, generator: torch.Generator | None = None) -> Tensor:
    """(F,) int64 a random choice of frames without repetition, ascending: ``max(1, floor(rate · num_frames))``.

    Args:
        num_frames: T, at least 1.
        rate: share of the frames, above 0 and at most 1; the published 0.125 takes 2 of 16.
        generator: on the CPU; None: torch's own.

    Raises:
        ValueError: there are no frames, or the share is not in its range.
    """
    if num_frames < 1:
        raise ValueError(f"sampling needs at least one frame, got {num_frames}")
    if not 0 < rate <= 1:
        raise ValueError(f"the share of frames must be above 0 and at most 1, got {rate}")
    count = max(1, math.floor(rate * num_frames + 1e-9))  # 0.29 of 100 is 29, whatever binary fractions say
    return torch.randperm(num_frames, generator=generator)[:count].sort().values


def padded_gaze(selection: Selection, *, device: torch.device | str) -> PaddedGaze:
    """A selection of any kind as padded tensors on a device.

    Raises:
        TypeError: it is of no such kind.
        ValueError: its parts do not fit together, or it holds fewer frames than the video by sampling.
    """
    if isinstance(selection, Gaze):
        return pack([selection], device=device)
    if isinstance(selection, Mapping):
        if selection.get("frame_sampling_rate", 1) != 1:
            raise ValueError(
                f"frame_sampling_rate must be 1, got {selection['frame_sampling_rate']}; sample the video beforehand"
            )
        try:
            selection = PaddedGaze.from_dict(selection)
        except KeyError as error:
            raise ValueError(f"the selection lacks {error}; give all that the gaze model returns") from error
    elif not isinstance(selection, PaddedGaze):
        if not isinstance(selection, Sequence) or not all(isinstance(gaze, Gaze) for gaze in selection):
            raise TypeError(
                f"a selection must be what the gaze model returns, a Gaze or a list of them, "
                f"got {type(selection).__name__}"
            )
        return pack(selection, device=device)
    probability, loss = selection.probability, selection.predicted_loss
    return dataclasses.replace(
        selection,
        gazing_pos=selection.gazing_pos.to(device),
        if_padded_gazing=selection.if_padded_gazing.to(device),
        num_gazing_each_frame=selection.num_gazing_each_frame.to(device),
        probability=None if probability is None else probability.to(device),
        predicted_loss=None if loss is None else loss.to(device),
    )


def kept_at(gaze: PaddedGaze, frame_idx: Tensor) -> Tensor:
    """(B, F) int64 gazes of each of these frames, padding not counted."""
    kept_BN = (~gaze.if_padded_gazing).long()
    kept_BT = kept_BN.new_zeros(len(kept_BN), len(gaze.num_gazing_each_frame))
    return kept_BT.index_add(1, _frame_of_slot(gaze), kept_BN)[:, frame_idx]


def last_gaze_targets(gaze: PaddedGaze, *, frame_idx: Tensor, loss_BF: Tensor) -> LossTargets:
    """Each judged frame's loss at its last gaze that is not padding; see :func:`autogaze.algorithms.stop_head`.

    Args:
        gaze: B clips of T frames.
        frame_idx: (F,) int64 frames that were judged.
        loss_BF: their losses.
    """
    kept_BN, count_T = ~gaze.if_padded_gazing, gaze.num_gazing_each_frame
    return stop_head.last_gaze_targets(loss_BF, frame_idx_F=frame_idx, kept_BN=kept_BN, count_T=count_T)


def _frame_of_slot(gaze: PaddedGaze) -> Tensor:
    """(N,) int64 frame of each slot."""
    count_T = gaze.num_gazing_each_frame
    frames = torch.arange(len(count_T), device=count_T.device)
    return frames.repeat_interleave(count_T, output_size=gaze.gazing_pos.shape[1])
