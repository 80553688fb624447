"""Ragged gazes of a batch ↔ the padded tensors that the published interface speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, Indices, PatchGrid

# Shape letters: B clips, T frames, N slots over all frames, P patches of one frame.


@dataclass(frozen=True, kw_only=True, eq=False)
class PaddedGaze:
    """The gazes of B clips of T frames, each frame padded to the longest any clip has there.

    Raises:
        ValueError: the tensors do not share one (B, N), or are of another dtype than stated below.
    """

    gazing_pos: Tensor
    """(B, N) int64, ``frame · P + patch``; means nothing in padded slots."""
    if_padded_gazing: Tensor
    """(B, N) bool, true where a slot holds no gaze."""
    num_gazing_each_frame: Tensor
    """(T,) int64 slots of each frame, padding included; they sum to N."""
    num_vision_tokens_each_frame: int
    """P."""
    probability: Tensor | None = None
    """(B, N) float32 probability of each choice, 1 in padded slots; None where a clip has none."""
    predicted_loss: Tensor | None = None
    """(B, N) float32 reconstruction loss after each gaze, 0 in padded slots; None where a clip has none."""

    def __post_init__(self) -> None:
        shape = tuple(self.gazing_pos.shape)
        if len(shape) != 2 or self.gazing_pos.dtype != torch.int64:
            raise ValueError(f"gazing_pos must be (B, N) int64, got {shape} {self.gazing_pos.dtype}")
        if tuple(self.if_padded_gazing.shape) != shape or self.if_padded_gazing.dtype != torch.bool:
            got = f"{tuple(self.if_padded_gazing.shape)} {self.if_padded_gazing.dtype}"
            raise ValueError(f"if_padded_gazing must be {shape} bool like gazing_pos, got {got}")
        if self.num_gazing_each_frame.ndim != 1 or self.num_gazing_each_frame.dtype != torch.int64:
            got = f"{tuple(self.num_gazing_each_frame.shape)} {self.num_gazing_each_frame.dtype}"
            raise ValueError(f"num_gazing_each_frame must be (T,) int64, got {got}")
        for name, value in (("probability", self.probability), ("predicted_loss", self.predicted_loss)):
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name} must be {shape} like gazing_pos, got {tuple(value.shape)}")

    def masks(self, grid: PatchGrid) -> list[Tensor]:
        """Per scale (B, T, patches of the scale) bool, true where a patch was gazed at.

        Raises:
            ValueError: the grid does not have P patches.
        """
        if grid.num_patches != self.num_vision_tokens_each_frame:
            raise ValueError(
                f"a grid of {grid.num_patches} patches does not fit frames of {self.num_vision_tokens_each_frame}; "
                "masks per scale exist for gazes of one tile"
            )
        B, T, P = len(self.gazing_pos), len(self.num_gazing_each_frame), grid.num_patches
        mask_BTP = torch.zeros(B, T * P + 1, dtype=torch.bool, device=self.gazing_pos.device)
        # Padding lands in one spare column, so it can never mark a patch.
        mask_BTP.scatter_(1, self.gazing_pos.masked_fill(self.if_padded_gazing, T * P), True)
        return list(torch.split(mask_BTP[:, :-1].view(B, T, P), list(grid.patches_per_scale), dim=2))

    def to_dict(self, grid: PatchGrid) -> dict[str, Any]:
        """The published result under its published names, for gazes of one tile with this grid.

        Raises:
            ValueError: the grid does not have P patches.
        """
        return {
            "gazing_pos": self.gazing_pos,
            "if_padded_gazing": self.if_padded_gazing,
            "num_gazing_each_frame": self.num_gazing_each_frame,
            "gazing_mask": self.masks(grid),
            "scales": list(grid.scales_px),
            "frame_sampling_rate": 1,
            "num_vision_tokens_each_frame": self.num_vision_tokens_each_frame,
            "log_action_probs": None if self.probability is None else self.probability.log(),
            "task_loss_prediction": self.predicted_loss,
        }

    @classmethod
    def from_dict(cls, info: Mapping[str, Any]) -> PaddedGaze:
        """What the published call returns, or any mapping with its first four names.

        Raises:
            KeyError: one of the four is missing.
            ValueError: the tensors do not fit together.
        """
        log_probability = info.get("log_action_probs")
        return cls(
            gazing_pos=info["gazing_pos"],
            if_padded_gazing=info["if_padded_gazing"],
            num_gazing_each_frame=info["num_gazing_each_frame"],
            num_vision_tokens_each_frame=info["num_vision_tokens_each_frame"],
            probability=None if log_probability is None else log_probability.detach().exp(),
            predicted_loss=info.get("task_loss_prediction"),
        )


def pack(gazes: Sequence[Gaze], *, device: torch.device | str | None = None) -> PaddedGaze:
    """Gazes of a batch as padded tensors; order and numbers are kept, times and shifts are not.

    Padding is at the end of each frame and points at the frame's first patch, so that gathering with it is legal.

    Raises:
        ValueError: there are no gazes, or they differ in frames or layout.
    """
    if not gazes:
        raise ValueError("pack needs at least one gaze, got none")
    layout, T = gazes[0].layout, gazes[0].num_frames
    for gaze in gazes:
        if gaze.num_frames != T:
            raise ValueError(f"gazes of a batch must have equally many frames, got {T} and {gaze.num_frames}")
        if gaze.layout != layout:
            raise ValueError(f"gazes of a batch must have one layout, got {layout} and {gaze.layout}")
    slots_T = np.max([gaze.count for gaze in gazes], axis=0)
    first_T = np.cumsum(slots_T) - slots_T
    P, shape = layout.num_indices, (len(gazes), int(slots_T.sum()))
    position = np.broadcast_to(np.repeat(np.arange(T) * P, slots_T), shape).copy()
    padded = np.ones(shape, bool)
    numbers = {
        name: np.full(shape, padding, np.float32)
        for name, padding in (("probability", 1), ("predicted_loss", 0))
        if all(getattr(gaze, name) is not None for gaze in gazes)
    }
    for b, gaze in enumerate(gazes):
        slot = first_T[gaze.frame] + gaze.order
        position[b, slot] += gaze.index
        padded[b, slot] = False
        for name, value in numbers.items():
            value[b, slot] = getattr(gaze, name)
    return PaddedGaze(
        gazing_pos=torch.from_numpy(position).to(device),
        if_padded_gazing=torch.from_numpy(padded).to(device),
        num_gazing_each_frame=torch.from_numpy(slots_T).to(device),
        num_vision_tokens_each_frame=P,
        **{name: torch.from_numpy(value).to(device) for name, value in numbers.items()},
    )


def unpack(
    padded: PaddedGaze, layout: FrameLayout, *, time_seconds: Sequence[NDArray[np.float64] | None] | None = None
) -> list[Gaze]:
    """The gaze of each clip; padding may sit anywhere.

    Args:
        padded: gazes of B clips of T frames.
        layout: of every clip; has P patch indices.
        time_seconds: for each clip the (T,) times of its frames, or None.

    Raises:
        ValueError: the layout, the slot counts, the times or a position do not fit.
    """
    position_BN, kept_BN = _numpy(padded.gazing_pos), ~_numpy(padded.if_padded_gazing)
    slots_T = _numpy(padded.num_gazing_each_frame)
    B, N = position_BN.shape
    P = layout.num_indices
    if padded.num_vision_tokens_each_frame != P:
        raise ValueError(f"the layout has {P} patches a frame, the gazes {padded.num_vision_tokens_each_frame}")
    if (slots_T < 0).any() or slots_T.sum() != N:
        raise ValueError(f"num_gazing_each_frame must sum to the {N} slots, got {slots_T.tolist()}")
    if time_seconds is not None and len(time_seconds) != B:
        raise ValueError(f"time_seconds must have an entry for each of {B} clips, got {len(time_seconds)}")
    frame_N = np.repeat(np.arange(len(slots_T)), slots_T)
    index_BN = position_BN - frame_N * P
    wrong_BN = kept_BN & ((index_BN < 0) | (index_BN >= P))
    if wrong_BN.any():
        b, slot = np.argwhere(wrong_BN)[0]
        raise ValueError(
            f"position {position_BN[b, slot]} of clip {b} is in a slot of frame {frame_N[slot]}, whose positions are "
            f"{frame_N[slot] * P}..{frame_N[slot] * P + P - 1}: frame · {P} + patch"
        )
    return [
        Gaze(
            index=index_BN[b, kept],
            count=np.bincount(frame_N[kept], minlength=len(slots_T)),
            layout=layout,
            probability=None if padded.probability is None else _numpy(padded.probability)[b, kept],
            predicted_loss=None if padded.predicted_loss is None else _numpy(padded.predicted_loss)[b, kept],
            time_seconds=None if time_seconds is None else time_seconds[b],
        )
        for b, kept in enumerate(kept_BN)
    ]


def _numpy(tensor: Tensor) -> Indices:
    array: Indices = tensor.detach().cpu().numpy()
    return array
