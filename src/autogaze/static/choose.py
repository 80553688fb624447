"""Choosing a group of gazes on the device; :func:`autogaze.choosing.choose`, of which this is the greedy half, is
the definition.

Shape letters: A clips, K gazes a read-out proposes, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Choice(NamedTuple):
    """What one read-out gave to each clip. Slots from ``size`` on mean nothing."""

    size_A: Tensor
    index_AK: Tensor
    kept_AK: Tensor
    probability_AK: Tensor
    ended_A: Tensor


def choose(
    logits_AKV: Tensor, loss_AK: Tensor, taken_AV: Tensor, left_A: Tensor, *, first: Tensor, level: Tensor
) -> Choice:
    """Choose up to K gazes for every clip, the likeliest ones.

    Args:
        logits_AKV: fp32, row i scores the i-th next gaze.
        loss_AK: fp32, predicted loss before each of them.
        taken_AV: what cannot be chosen: patches gazed before, and the end token.
        left_A: int64 gazes the frame's budget still allows.
        first: (1,) bool, whether these are the frame's first gazes, of which one is always kept.
        level: (2,) fp32, loss at which a frame ends, and 0 where there is none.
    """
    A, K, V = logits_AKV.shape
    slot_K = torch.arange(K, device=logits_AKV.device)
    room_A = torch.minimum(left_A, V - taken_AV.sum(1))
    size_A = room_A.clamp(max=K)
    free_AKV = logits_AKV.masked_fill(taken_AV[:, None], -torch.inf)
    index = []
    for i in range(K):
        index.append(free_AKV[:, i].argmax(1, keepdim=True))
        # In place, for the heads that are still to choose.
        later_AKV = free_AKV[:, i + 1 :]
        later_AKV.scatter_(2, index[-1][:, None].expand(A, K - 1 - i, 1), -torch.inf)
    index_AK = torch.cat(index, dim=1)
    kept_AK = (loss_AK > level[0]) | (level[1] == 0) | (first & (slot_K == 0))
    chosen_AK = slot_K < size_A[:, None]
    return Choice(
        size_A=size_A,
        index_AK=index_AK,
        kept_AK=kept_AK,
        probability_AK=free_AKV.softmax(-1).gather(-1, index_AK[..., None])[..., 0],
        ended_A=(chosen_AK & ~kept_AK).any(1) | (size_A == room_A),
    )
