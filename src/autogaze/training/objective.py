"""What next-token training minimises on one batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from autogaze.algorithms.ntp import ntp_loss
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.training.batch import Batch
from autogaze.training.settings import NTPSettings


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What one batch says, as scalars on the device."""

    gaze: Tensor
    """Cross-entropy of a gaze, in nats."""
    loss: Tensor
    """Mean squared error of a predicted loss, relative to that loss plus the floor."""
    loss_bias: Tensor
    """Mean of predicted minus true loss, relative likewise: above 0 the model is pessimistic."""


def score(model: AutoGaze, batch: Batch, settings: NTPSettings) -> Terms:
    """One differentiable pass over a batch."""
    video = model.preprocess(batch.rgb_BTSSC)
    with settings.autocast():
        scored = model.gazing_model(video, batch.index_BN, batch.kept_BN, list(batch.count_T))
    unit_BN = batch.loss_BN + settings.loss_floor
    relative_BN = scored.predicted_loss_BN.float() / unit_BN
    target_BN = batch.loss_BN / unit_BN
    loss = ntp_loss(
        scored.log_probability_BN,
        relative_BN,
        target_loss_BN=target_BN,
        gaze_mask_BN=batch.best_BN,
        loss_mask_BN=batch.kept_BN,
    )
    bias = (relative_BN - target_BN).detach().masked_fill(~batch.kept_BN, 0).sum() / batch.kept_BN.sum()
    return Terms(gaze=loss.gaze_B.mean(), loss=loss.loss_B.mean(), loss_bias=bias)
