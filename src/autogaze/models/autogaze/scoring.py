"""Which gazes are scored where, and what the policy that draws them could not choose there.

Shape letters: B clips, T frames, N slots of all frames, S groups of all frames, K gazes of a group, V vocabulary
(patches and the end token).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IMPOSSIBLE = -1e30
"""Logit of what cannot be chosen: its probability is 0, and a row without anything else has no NaN in it."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The distribution gazes are drawn from: never the end token, no patch twice in a frame, logits divided by the
    temperature.

    Raises:
        ValueError: the temperature is not above 0.
    """

    temperature: float = 1.0
    """That of the draws, see :class:`autogaze.choosing.Sampler`."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """Where the gazes of a sequence sit: for each frame its visual tokens, then its slots in groups of K."""

    group_size: int
    """K; the last group of a frame may be shorter."""
    num_frames: int
    """T."""
    before_S: Tensor
    """Token that each group is read out at: the one before its first."""
    first_S: Tensor
    """First slot of each group."""
    frame_S: Tensor
    """Frame of each group."""
    own_N: Tensor
    """Token of each slot."""
    frame_N: Tensor
    """Frame of each slot."""
    group_N: Tensor
    """Group of each slot."""
    rank_N: Tensor
    """Place of each slot in its group."""

    @classmethod
    def of(cls, counts: Iterable[int], *, visual_tokens: int, group_size: int, device: torch.device) -> Slots:
        """Lay out frames of ``visual_tokens`` tokens followed by ``counts`` slots."""
        count_T = np.fromiter(counts, np.int64)
        frame_N = np.repeat(np.arange(len(count_T)), count_T)
        place_N = np.arange(count_T.sum()) - (np.cumsum(count_T) - count_T)[frame_N]
        own_N = np.arange(count_T.sum()) + (frame_N + 1) * visual_tokens
        first_S = np.flatnonzero(place_N % group_size == 0)
        arrays = {
            "before_S": own_N[first_S] - 1,
            "first_S": first_S,
            "frame_S": frame_N[first_S],
            "own_N": own_N,
            "frame_N": frame_N,
            "group_N": np.cumsum(place_N % group_size == 0) - 1,
            "rank_N": place_N % group_size,
        }
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        return cls(group_size=group_size, num_frames=len(count_T), **tensors)

    def by_head(self, values_BN: Tensor) -> Tensor:
        """(B, S, K) the slots' values by group and head; 0 where a group has no such slot."""
        values_BM = values_BN.new_zeros(len(values_BN), len(self.first_S) * self.group_size)
        return values_BM.index_copy(1, self._head_N, values_BN).view(len(values_BN), -1, self.group_size)

    def by_slot(self, values_BSK: Tensor) -> Tensor:
        """(B, N) what heads say about their slots; the inverse of :meth:`by_head`."""
        return values_BSK.flatten(1)[:, self._head_N]

    @property
    def _head_N(self) -> Tensor:
        return self.group_N * self.group_size + self.rank_N

    def taken(
        self, index_BN: Tensor, kept_BN: Tensor, *, target_BN: Tensor, known_BN: Tensor, vocab_size: int
    ) -> Tensor:
        """(B, S, K, V) bool, what cannot be chosen at each head.

        That is the end token, the gazes of the same frame's earlier groups, and the targets of the same group's
        earlier heads. Slots that are not kept, and targets that are not known, take nothing.
        """
        B, V = len(index_BN), vocab_size
        # One column more than there are entries: what takes nothing is written there.
        slot_N = torch.arange(index_BN.shape[1], device=index_BN.device)
        taken_at = slot_N.new_full((B, self.num_frames * (V + 1)), len(slot_N))
        column_BN = index_BN.masked_fill(~kept_BN, V) + self.frame_N * (V + 1)
        taken_at.scatter_reduce_(1, column_BN, slot_N.expand(B, -1), "amin")
        taken_at_BSV = taken_at.view(B, -1, V + 1)[:, self.frame_S, :V]
        earlier_BSV = taken_at_BSV < self.first_S[:, None]

        rank_of = slot_N.new_full((B, len(self.first_S) * (V + 1)), self.group_size)
        column_BN = target_BN.masked_fill(~known_BN, V) + self.group_N * (V + 1)
        rank_of.scatter_reduce_(1, column_BN, self.rank_N.expand(B, -1), "amin")
        rank_BSV = rank_of.view(B, -1, V + 1)[..., :V].masked_fill(earlier_BSV, -1)
        rank_BSV[..., V - 1] = -1
        return rank_BSV[:, :, None] < torch.arange(self.group_size, device=index_BN.device)[:, None]


def log_probability(
    logits_BSKV: Tensor, target_BSK: Tensor, *, taken_BSKV: Tensor | None, temperature: float
) -> Tensor:
    """(B, S, K) log of the probability of each target, among what is not taken, at a temperature."""
    if taken_BSKV is not None:
        logits_BSKV = (logits_BSKV / temperature).masked_fill(taken_BSKV, IMPOSSIBLE)
    return logits_BSKV.log_softmax(-1).gather(-1, target_BSK[..., None])[..., 0]
