"""What the stop head learns: the loss of a frame once its last gaze is taken.

Shape letters: B clips, T frames, F frames that are judged, N gazes of all frames, padding included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autogaze.algorithms.result import Outputs, gaze_mask


@dataclass(frozen=True, kw_only=True, eq=False)
class LossTargets:
    """Loss after each gaze, where it is known: what a stop head learns.

    Where frames are only judged once they are done, that is the last gaze of a judged frame which is not padding.
    """

    loss_BN: Tensor
    """(B, N) of the dtype of the losses, without a graph; 0 where it is not known."""
    mask_BN: Tensor
    """(B, N) bool, true where it is known."""


def last_gaze_targets(loss_BF: Tensor, *, frame_idx_F: Tensor, kept_BN: Tensor, count_T: Tensor) -> LossTargets:
    """Each judged frame's loss at its last gaze that is not padding; see :class:`LossTargets`.

    The published code stores these losses as whole numbers, and marks padded slots where a frame has several; here
    they keep their value, and padding has none.

    Args:
        loss_BF: losses of the judged frames.
        frame_idx_F: int64, which frames these are, none twice.
        kept_BN: bool, where a slot holds a gaze.
        count_T: int64 slots of each frame; they sum to N.
    """
    B, N, T = *kept_BN.shape, len(count_T)
    device = kept_BN.device
    frame_N = torch.arange(T, device=device).repeat_interleave(count_T, output_size=N)
    frame_BN, slot_BN = frame_N.expand(B, N), torch.arange(N, device=device).expand(B, N)
    none_BT = slot_BN.new_full((B, T), -1)
    last_BT = none_BT.scatter_reduce(1, frame_BN, slot_BN.masked_fill(~kept_BN, -1), "amax")
    judged_T = torch.zeros(T, dtype=torch.bool, device=device).index_fill(0, frame_idx_F, True)
    loss_BT = loss_BF.new_zeros(B, T).index_copy(1, frame_idx_F, loss_BF.detach())
    mask_BN = (last_BT.gather(1, frame_BN) == slot_BN) & judged_T[frame_N]
    return LossTargets(loss_BN=loss_BT.gather(1, frame_BN).masked_fill(~mask_BN, 0), mask_BN=mask_BN)


def per_mean_count(sum_B: Tensor, count_B: Tensor) -> Tensor:
    """(B,) sums divided by the mean count of the batch, so that their mean is the mean over all that counts."""
    return sum_B / count_B.float().mean().clamp(min=1 / len(count_B))


def published_stop_loss(gaze_outputs: Outputs, task_outputs: Outputs) -> Tensor:
    """(B,) squared error of the predicted losses where the true ones are known, normalised as :func:`per_mean_count`.

    Raises:
        ValueError: the tensors differ in shape.
    """
    predicted_BN, true_BN = gaze_outputs["task_loss_prediction"], task_outputs["task_losses"]
    known_BN = task_outputs["task_losses_mask"].bool()
    for name, tensor in (("task_losses", true_BN), ("task_losses_mask", known_BN)):
        if tensor.shape != predicted_BN.shape:
            raise ValueError(
                f"{name} must be {tuple(predicted_BN.shape)} like task_loss_prediction, got {tuple(tensor.shape)}"
            )
    known_BN = known_BN & gaze_mask(gaze_outputs)
    error_BN = (predicted_BN - true_BN).masked_fill(~known_BN, 0)
    return per_mean_count(error_BN.square().sum(1), known_BN.sum(1))
