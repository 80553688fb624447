"""Groups of gazes of the same clips as the tensors of one pass, and what is learned from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autogaze.algorithms.grpo import discounted_advantages, group_advantages
from autogaze.algorithms.stop_head import last_gaze_targets

# Shape letters: B clips, T frames, S pixels a side of a frame, G members of a group, R = G·B rows (row g·B + b is
# member g of clip b), N slots over all frames.


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupBatch:
    """Groups of gazes of a batch of clips, and what became of the frames. Each frame has as many slots as the clip
    with most gazes there needs."""

    rgb_BTSSC: Tensor
    """Frames (uint8)."""
    index_RN: Tensor
    """Patch index of each gaze inside its own frame (int64); means nothing in padding."""
    kept_RN: Tensor
    """Where a slot holds a gaze (bool)."""
    count_T: tuple[int, ...]
    """Slots of each frame; they sum to N."""
    temperature: float
    """That of the draws."""
    loss_GBT: Tensor
    """Loss of each frame after its last gaze (fp32)."""
    rewarded_BT: Tensor
    """Which of them are rewarded (bool)."""


def advantages(batch: GroupBatch, *, discount: float) -> Tensor:
    """(R, N) what each gaze is credited with, in the unit of the losses; see :mod:`autogaze.algorithms.grpo`."""
    G, _, T = batch.loss_GBT.shape
    better_RT = group_advantages(-batch.loss_GBT.reshape(-1, T), group_size=G)
    end_T = torch.tensor(batch.count_T, device=better_RT.device).cumsum(0)
    return discounted_advantages(
        better_RT * batch.rewarded_BT.repeat(G, 1), kept_BN=batch.kept_RN, end_F=end_T, discount=discount
    )


def relative_errors(batch: GroupBatch, predicted_RN: Tensor, *, floor: float) -> Tensor:
    """(R, N) predicted minus true loss after the last gaze of each rewarded frame, relative to the true one plus
    ``floor``; 0 elsewhere."""
    G, _, T = batch.loss_GBT.shape
    count_T = torch.tensor(batch.count_T, device=predicted_RN.device)
    frame_T = torch.arange(T, device=predicted_RN.device)
    true = last_gaze_targets(batch.loss_GBT.reshape(-1, T), frame_idx_F=frame_T, kept_BN=batch.kept_RN, count_T=count_T)
    rewarded_RN = batch.rewarded_BT.repeat(G, 1)[:, frame_T.repeat_interleave(count_T)]
    error_RN = (predicted_RN - true.loss_BN) / (true.loss_BN + floor)
    return error_RN.masked_fill(~(true.mask_BN & rewarded_RN), 0)
