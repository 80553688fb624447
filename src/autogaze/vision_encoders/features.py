"""What a sparse encoder returns: one feature for every kept patch, packed, beside the gazes they belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autogaze.gaze import Gaze
from autogaze.packing import PaddedGaze, pack

# Shape letters: B clips, T frames, N patches of all clips, C channels, S sequences (a clip, or a tile of it), K slots.


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseFeatures:
    """Features of the kept patches of B clips, clip after clip, in the order of their gazes."""

    features: Tensor
    """(N, C) after the model's last norm."""
    gazes: tuple[Gaze, ...]
    """The patches: row n of ``features`` is gaze n, counted over all clips. Those that were given, but for models
    whose patches last several frames (V-JEPA 2): there a frame holds what was kept in any of these frames."""
    hidden_states: tuple[Tensor, ...] | None = None
    """(N, C) embeddings and outputs of every layer, before the last norm; None where they were not asked for."""
    pooled: Tensor | None = None
    """(S, T, C) for each frame, or (S, 1, C) for each clip, what the model makes of it as a whole; not a number where
    nothing was kept. None where a model has no head and no class token."""

    def __post_init__(self) -> None:
        kept = sum(gaze.num_gazes for gaze in self.gazes)
        if self.features.ndim != 2 or len(self.features) != kept:
            raise ValueError(f"features must be ({kept}, C), one for each gaze, got {tuple(self.features.shape)}")

    def __len__(self) -> int:
        return len(self.gazes)

    def clip(self, clip: int) -> Tensor:
        """(gazes of the clip, C) features of one clip.

        Raises:
            IndexError: there is no such clip.
        """
        if not -len(self) <= clip < len(self):
            raise IndexError(f"clip {clip} of {len(self)}")
        return torch.split(self.features, [gaze.num_gazes for gaze in self.gazes])[clip]

    def padded(self) -> tuple[Tensor, PaddedGaze]:
        """(B, K, C) features, frames padded with zeros to the longest of all clips, and the gazes in these slots."""
        padded = pack(self.gazes, device=self.features.device)
        return scatter(self.features, padded), padded


def scatter(values_NC: Tensor, padded: PaddedGaze) -> Tensor:
    """(B, K, C) packed values in the slots that hold gazes, zeros in the others."""
    slots = ~padded.if_padded_gazing
    out = values_NC.new_zeros(*slots.shape, values_NC.shape[-1])
    out[slots] = values_NC
    return out


def merge_frames(gaze: Gaze, frames: int) -> Gaze:
    """The gaze of groups of ``frames`` frames: what was kept in any of them, once, in the order it was first kept.

    Probabilities and predicted losses are those of the first time; the last group may have fewer frames.
    """
    P = gaze.layout.num_indices
    group = gaze.frame // frames
    _, first = np.unique(group * P + gaze.index, return_index=True)
    kept = np.sort(first)  # gazes are in order of frames, so groups stay together
    groups = -(-gaze.num_frames // frames)
    return Gaze(
        index=gaze.index[kept],
        count=np.bincount(group[kept], minlength=groups),
        layout=gaze.layout,
        probability=None if gaze.probability is None else gaze.probability[kept],
        predicted_loss=None if gaze.predicted_loss is None else gaze.predicted_loss[kept],
        time_seconds=None if gaze.time_seconds is None else gaze.time_seconds[::frames],
    )


def undefined(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Values that are not numbers, in the precision and on the device of ``like``."""
    return torch.full(shape, torch.nan, dtype=like.dtype, device=like.device)
