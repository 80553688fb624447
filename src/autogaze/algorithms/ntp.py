"""Next-token prediction on labelled gazes: a pure function of tensors, no model or trainer.

Shape letters: B clips, N gazes of all frames, padding included.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class NTPLoss(NamedTuple):
    """The two terms for each clip; what is minimised is the mean over clips of their sum."""

    gaze_B: Tensor
    """(B,) cross-entropy of the labelled gazes."""
    loss_B: Tensor
    """(B,) squared error of the predicted losses."""


def ntp_loss(
    log_probability_BN: Tensor,
    predicted_loss_BN: Tensor,
    *,
    target_loss_BN: Tensor,
    gaze_mask_BN: Tensor,
    loss_mask_BN: Tensor,
) -> NTPLoss:
    """Cross-entropy on label gazes and squared error on recorded losses.

    A clip's sum is divided by the *mean* number of counted gazes over the clips, so that the mean over the clips is
    the mean over all counted gazes: a long clip weighs more than a short one. A batch in which nothing counts has
    loss 0.

    Args:
        log_probability_BN: log of the probability of each labelled gaze.
        predicted_loss_BN: reconstruction loss predicted after each gaze.
        target_loss_BN: the loss it really had, in the same unit.
        gaze_mask_BN: bool, where the gaze is to be learned; false in padding.
        loss_mask_BN: bool, where the loss is known; false in padding. What stands elsewhere, NaN included, changes
            neither value nor gradient.

    Raises:
        ValueError: the tensors differ in shape, or a mask is not boolean.
    """
    shape = log_probability_BN.shape
    others = {
        "predicted_loss_BN": predicted_loss_BN,
        "target_loss_BN": target_loss_BN,
        "gaze_mask_BN": gaze_mask_BN,
        "loss_mask_BN": loss_mask_BN,
    }
    for name, tensor in others.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)} like log_probability_BN, got {tuple(tensor.shape)}")
        if "mask" in name and tensor.dtype != torch.bool:
            raise ValueError(f"{name} must be bool, got {tensor.dtype}; compare it with a number first")
    error_BN = (predicted_loss_BN - target_loss_BN).masked_fill(~loss_mask_BN, 0)
    return NTPLoss(
        gaze_B=_per_clip(-log_probability_BN.masked_fill(~gaze_mask_BN, 0), gaze_mask_BN),
        loss_B=_per_clip(error_BN.square(), loss_mask_BN),
    )


def _per_clip(value_BN: Tensor, mask_BN: Tensor) -> Tensor:
    mean_count = mask_BN.sum(1).float().mean()
    return value_BN.sum(1) / mean_count.clamp(min=1 / len(mask_BN))
