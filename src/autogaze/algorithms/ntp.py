"""Next-token prediction on labelled gazes: pure functions of tensors, and the published class on top of them.

Shape letters: B clips, N gazes of all frames, padding included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from autogaze.algorithms.result import AlgorithmResult, Outputs, gaze_mask
from autogaze.algorithms.stop_head import per_mean_count, published_stop_loss


class NTPLoss(NamedTuple):
    """The two terms for each clip; what is minimised is the mean over clips of their sum."""

    gaze_B: Tensor
    """(B,) cross-entropy of the labelled gazes."""
    loss_B: Tensor
    """(B,) squared error of the predicted losses."""


class NTPSums(NamedTuple):
    """The two terms before they are divided by anything, and by what they are to be divided.

    Over several batches or processes the loss of a step is the sum of all sums over the sum of all counts: so each
    adds up its counts first, and divides its own sums by the counts of all.
    """

    gaze_B: Tensor
    """(B,) cross-entropies of each clip's labelled gazes, summed."""
    loss_B: Tensor
    """(B,) squared errors of each clip's predicted losses, summed."""
    gaze_count_B: Tensor
    """(B,) int64 gazes in ``gaze_B``."""
    loss_count_B: Tensor
    """(B,) int64 losses in ``loss_B``."""


def ntp_sums(
    log_probability_BN: Tensor,
    predicted_loss_BN: Tensor,
    *,
    target_loss_BN: Tensor,
    gaze_mask_BN: Tensor,
    loss_mask_BN: Tensor,
) -> NTPSums:
    """Cross-entropy on label gazes and squared error on recorded losses, summed over each clip.

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
    return NTPSums(
        gaze_B=-log_probability_BN.masked_fill(~gaze_mask_BN, 0).sum(1),
        loss_B=error_BN.square().sum(1),
        gaze_count_B=gaze_mask_BN.sum(1),
        loss_count_B=loss_mask_BN.sum(1),
    )


def ntp_loss(
    log_probability_BN: Tensor,
    predicted_loss_BN: Tensor,
    *,
    target_loss_BN: Tensor,
    gaze_mask_BN: Tensor,
    loss_mask_BN: Tensor,
) -> NTPLoss:
    """The sums of :func:`ntp_sums`, normalised over this batch alone.

    A clip's sum is divided by the *mean* number of counted gazes over the clips, so that the mean over the clips is
    the mean over all counted gazes: a long clip weighs more than a short one. A batch in which nothing counts has
    loss 0.

    Raises:
        ValueError: see :func:`ntp_sums`.
    """
    sums = ntp_sums(
        log_probability_BN,
        predicted_loss_BN,
        target_loss_BN=target_loss_BN,
        gaze_mask_BN=gaze_mask_BN,
        loss_mask_BN=loss_mask_BN,
    )
    return NTPLoss(
        gaze_B=per_mean_count(sums.gaze_B, sums.gaze_count_B),
        loss_B=per_mean_count(sums.loss_B, sums.loss_count_B),
    )


class NTP:
    """Next-token prediction, called as the published class of this name is."""

    def __init__(self, optimize_task_loss_prediction: bool = False) -> None:
        """``optimize_task_loss_prediction`` trains the stop head too."""
        self.optimize_task_loss_prediction = optimize_task_loss_prediction

    def preprocess_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What the gaze model and the task are given: the batch as it is."""
        return dict(inputs)

    def __call__(self, inputs: object, gaze_outputs: Outputs, task_outputs: Outputs) -> AlgorithmResult:
        """Loss of one batch.

        Args:
            inputs: the batch; not looked at.
            gaze_outputs: what the gaze model says of the labelled gazes, under its published names:
                ``log_action_probs`` (B, N), ``if_padded_gazing`` (B, N) bool, and ``task_loss_prediction`` (B, N).
            task_outputs: ``task_losses`` (B, N) after each gaze, and ``task_losses_mask`` (B, N), bool or 0 and 1,
                where they are known; only looked at to train the stop head.

        Raises:
            ValueError: the tensors differ in shape.
        """
        kept_BN = gaze_mask(gaze_outputs)
        log_BN = gaze_outputs["log_action_probs"]
        nothing_BN = torch.zeros_like(kept_BN)
        loss = ntp_loss(
            log_BN,
            torch.zeros_like(log_BN),
            target_loss_BN=torch.zeros_like(log_BN),
            gaze_mask_BN=kept_BN,
            loss_mask_BN=nothing_BN,
        )
        terms = {"ntp_loss": loss.gaze_B}
        if self.optimize_task_loss_prediction:
            terms["task_loss_prediction_loss"] = published_stop_loss(gaze_outputs, task_outputs)
        return AlgorithmResult.of(terms)
