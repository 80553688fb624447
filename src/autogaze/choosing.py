"""Turning one read-out of the decoder into a group of gazes: masking, greedy or sampled choice, stopping.

Shape letters: A clips still gazing, K gazes one read-out proposes, V vocabulary (patches and the end token).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """The gazes one read-out gave to each clip, in order. Slots from ``size`` on mean nothing."""

    size_A: NDArray[np.int64]
    """Gazes chosen, at least 1 and at most K."""
    index_AK: NDArray[np.int64]
    """Chosen patch."""
    kept_AK: NDArray[np.bool_]
    """False where the stop rule turned the choice into padding."""
    probability_AK: Floats
    """Probability of the choice among all that could be chosen then."""
    loss_after_AK: Floats
    """Predicted loss after the choice; NaN for the K-th, about which the read-out says nothing."""
    ended_A: NDArray[np.bool_]
    """Whether the clip's frame ends with this group."""


def choose(
    logits_AKV: Floats,
    loss_AK: Floats,
    taken_AV: NDArray[np.bool_],
    left_A: NDArray[np.int64],
    *,
    first_A: NDArray[np.bool_],
    threshold: float | None = None,
    noise_AKV: Floats | None = None,
    temperature: float = 1.0,
) -> Group:
    """Choose up to K gazes for every clip.

    Args:
        logits_AKV: row i scores the i-th next gaze.
        loss_AK: predicted loss before each of them.
        taken_AV: what cannot be chosen: patches gazed before, and the end token.
        left_A: gazes the frame's budget still allows, at least 1.
        first_A: whether the clip has no gaze in this frame yet; its very first gaze is always kept.
        threshold: every choice whose loss before it is at or below this becomes padding and ends the frame.
        noise_AKV: Gumbel noise, which turns the arg max into a sample; None: greedy.
        temperature: divides the logits.
    """
    A, K, V = logits_AKV.shape
    scores = logits_AKV / np.float32(temperature) if temperature != 1 else logits_AKV.copy()
    room_A = np.minimum(left_A, V - taken_AV.sum(1))
    size_A = np.minimum(room_A, K)
    index_AK = np.zeros((A, K), np.int64)
    every, taken_AV = np.arange(A), taken_AV.copy()
    for i in range(int(size_A.max())):
        row = scores[:, i]
        row[taken_AV] = -np.inf
        index_AK[:, i] = (row if noise_AKV is None else row + noise_AKV[:, i]).argmax(1)
        taken_AV[every, index_AK[:, i]] = True
    if threshold is None:
        kept_AK = np.ones((A, K), bool)
    else:
        kept_AK = loss_AK > np.float32(threshold)
        kept_AK[first_A, 0] = True
    chosen_AK = np.arange(K) < size_A[:, None]
    return Group(
        size_A=size_A,
        index_AK=index_AK,
        kept_AK=kept_AK,
        probability_AK=_probability(scores, index_AK),
        loss_after_AK=np.concatenate([loss_AK[:, 1:], np.full((A, 1), np.nan, np.float32)], axis=1),
        ended_A=(chosen_AK & ~kept_AK).any(1) | (size_A == room_A),
    )


def _probability(scores_AKV: Floats, index_AK: NDArray[np.int64]) -> Floats:
    peak = scores_AKV.max(-1, keepdims=True)
    weight = np.exp(scores_AKV - np.where(np.isfinite(peak), peak, 0))
    chosen = np.take_along_axis(weight, index_AK[..., None], -1)[..., 0]
    return np.asarray(chosen / np.maximum(weight.sum(-1), np.finfo(np.float32).tiny), np.float32)


class Sampler:
    """Draws gazes at a temperature. Each clip has its own stream of noise, so neighbours change nothing."""

    def __init__(self, generators: Sequence[torch.Generator], *, temperature: float = 1.0) -> None:
        """One CPU generator for each clip of the batch.

        Raises:
            ValueError: the temperature is not above 0.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}; leave it out for greedy gazing")
        self.temperature = temperature
        self._generators = list(generators)

    @classmethod
    def from_generator(cls, generator: torch.Generator, *, clips: int, temperature: float = 1.0) -> Sampler:
        """A generator for each clip, seeded from one."""
        seeds = torch.randint(2**62, (clips,), generator=generator, device=generator.device).tolist()
        return cls([torch.Generator().manual_seed(seed) for seed in seeds], temperature=temperature)

    def __len__(self) -> int:
        return len(self._generators)

    def noise(self, rows: Sequence[int], shape: tuple[int, int]) -> Floats:
        """(A, K, V) standard Gumbel noise for the clips in ``rows``."""
        uniform = torch.stack([torch.rand(shape, generator=self._generators[row]) for row in rows])
        tiny = torch.finfo(torch.float32).tiny
        gumbel: Floats = (-(-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()).numpy()
        return gumbel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameGaze:
    """What one frame of one clip got: S slots in the order they were chosen, group by group."""

    index_S: NDArray[np.int64]
    """Patch inside the frame."""
    kept_S: NDArray[np.bool_]
    """False where the stop rule turned the choice into padding."""
    probability_S: Floats
    """Probability of the choice among what could be chosen, at the sampling temperature (1 when greedy)."""
    predicted_loss_S: Floats
    """Predicted loss after the slot's gaze; NaN where the model was not asked."""


class FrameSlots:
    """Collects the groups of one frame of one clip."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.bool_], Floats, Floats]] = []

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self._parts)

    def add(self, group: Group, clip: int, *, loss_before: np.float32) -> NDArray[np.int64]:
        """Append a clip's share of a group; the patches that were kept of it.

        ``loss_before`` is what the read-out says of the loss before the group: the loss after the last gaze of
        the group before, about which that one's read-out said nothing.
        """
        if self._parts:
            self._parts[-1][3][-1] = loss_before
        size = group.size_A[clip]
        index, kept = group.index_AK[clip, :size], group.kept_AK[clip, :size]
        self._parts.append((index, kept, group.probability_AK[clip, :size], group.loss_after_AK[clip, :size].copy()))
        return index[kept]

    def finish(self) -> FrameGaze:
        """All slots of the frame."""
        index, kept, probability, loss = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        return FrameGaze(index_S=index, kept_S=kept, probability_S=probability, predicted_loss_S=loss)
