"""Batches of a model's own gazes, each with what the greedy search would have done from where they led."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autogaze.datasets.own_labels import OwnLabel, own_labels
from autogaze.grid import Indices
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.packing import pack
from autogaze.training.batch import Batch, to_device
from autogaze.training.rollouts import Rollouts

# Shape letters: B clips, T frames, N slots over all frames.

TEMPERATURE = 0.1
"""Of the draws: nearly the likeliest gazes, which are those that the model will live with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnBatch(Batch):
    """A batch whose gazes are the model's own; ``best_BN`` is where there is something to learn."""

    target_BN: Tensor
    """Patch that each gaze's head should have chosen (int64); 0 where there is none."""


def own_batch(model: AutoGaze, batch: Batch, *, generators: list[torch.Generator]) -> OwnBatch:
    """The same clips with gazes that the model draws, as many in each frame as the label has, at least one.

    ``generators`` has one for each clip.
    """
    frame_N = torch.repeat_interleave(torch.tensor(batch.count_T))
    count_BT = torch.zeros(len(batch.index_BN), len(batch.count_T), dtype=torch.long)
    count_BT.index_add_(1, frame_N, batch.kept_BN.long().cpu())
    limits_BT: Indices = count_BT.clamp(min=1).numpy()
    rollouts = Rollouts(model, batch.rgb_BTSSC, temperature=TEMPERATURE)
    gazes = rollouts.draw(limits_BT, generators=generators)
    clips = batch.rgb_BTSSC.cpu().numpy()
    group = model.gazing_model.gaze_decoder.group_size
    labels = [own_labels(rgb, gaze, group=group) for rgb, gaze in zip(clips, gazes, strict=True)]
    return _collate(batch.rgb_BTSSC, labels)


def _collate(rgb_BTSSC: Tensor, labels: list[OwnLabel]) -> OwnBatch:
    packed = pack([label.gaze for label in labels])
    kept = ~packed.if_padded_gazing.numpy()
    count_T = packed.num_gazing_each_frame
    shape = kept.shape
    index, target = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    known, loss = np.zeros(shape, bool), np.zeros(shape, np.float32)
    for b, label in enumerate(labels):
        # The slots of a clip's gazes are in the order of its gazes.
        index[b, kept[b]], target[b, kept[b]] = label.gaze.index, label.target
        known[b, kept[b]], loss[b, kept[b]] = label.known, label.gaze.predicted_loss
    device = rgb_BTSSC.device
    return OwnBatch(
        rgb_BTSSC=rgb_BTSSC,
        index_BN=to_device(index, device),
        kept_BN=to_device(kept, device),
        best_BN=to_device(known, device),
        loss_BN=to_device(loss, device),
        target_BN=to_device(target, device),
        count_T=tuple(count_T.tolist()),
    )
