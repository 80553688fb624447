"""Gazes that a model draws by itself: several of each clip, with as many in each frame as the clip's group has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autogaze.choosing import FrameGaze, Sampler
from autogaze.engine import Engine
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, Indices
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.decoding import exact_convolutions, to_gaze
from autogaze.selectors.base import max_patches

# Shape letters: B clips, T frames, S pixels a side of a frame, P visual tokens of a frame, C channels, G members of a
# group, R = G·B rows: row g·B + b is member g of clip b.

_PURPOSE = 6  # 0 to 5 draw recipes, clips, labels, orders and mirrors


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many gazes the count of a frame may come to."""

    threshold: float
    """Predicted loss at which a frame ends."""
    max_ratio: float
    """Most gazes of a frame, as a share of its patches."""
    max_gazes: int
    """Most gazes of a clip; where its frames have more, each has its share of these, and one at least."""


class Rollouts:
    """Draws gazes of a batch of clips, which the encoder sees once.

    The distribution is the one that :class:`~autogaze.models.autogaze.scoring.Policy` scores: positions count tokens
    as training does, also in a model whose configuration gazes with the published ones.
    """

    def __init__(self, model: AutoGaze, rgb_BTSSC: Tensor, *, temperature: float) -> None:
        """Encode clips (uint8) with the weights as they are."""
        self._temperature = temperature
        self._engine = Engine(model.gazing_model.gaze_decoder, positions="true")
        self._layout = FrameLayout.resized(model.grid, height_px=rgb_BTSSC.shape[2], width_px=rgb_BTSSC.shape[3])
        video_BTCSS = model.preprocess(rgb_BTSSC)
        with torch.inference_mode(), exact_convolutions(video_BTCSS):
            features_BCThw, _ = model.gazing_model.vision_model(video_BTCSS)
            self.visual_BTPC: Tensor = model.gazing_model.connector(features_BCThw)

    def counts(self, limits: Limits, *, generators: Sequence[torch.Generator]) -> Indices:
        """(B, T) how many gazes each frame gets in one roll-out that the stop rule ends; at least 1.

        ``generators`` has one for each clip.
        """
        B, T, _, _ = self.visual_BTPC.shape
        most = max_patches(limits.max_ratio, self._layout.num_indices)
        drawn = self._draw(np.full((B, T), most), generators, threshold=limits.threshold)
        return limited(np.stack([gaze.count for gaze in drawn]), limits)

    def draw(self, count_BT: Indices, *, generators: Sequence[torch.Generator]) -> list[Gaze]:
        """A gaze for each of R rows; all members of a clip's group have exactly its counts.

        ``generators`` has one for each row; what one row gets does not depend on the others.
        """
        members = len(generators) // len(count_BT)
        return self._draw(np.tile(count_BT, (members, 1)), generators, threshold=None)

    @torch.inference_mode()
    def _draw(self, most_RT: Indices, generators: Sequence[torch.Generator], *, threshold: float | None) -> list[Gaze]:
        rows, T = most_RT.shape
        sampler = Sampler(generators, temperature=self._temperature)
        P = self.visual_BTPC.shape[2]
        state = self._engine.start(rows, capacity=T * P + int(most_RT.sum(1).max()))
        frames: list[list[FrameGaze]] = []
        for t in range(T):
            # Clips of row 0, 1, …, and again: the order in which the rows are scored.
            visual_RPC = self.visual_BTPC[:, t].repeat(rows // len(self.visual_BTPC), 1, 1)
            frames.append(
                self._engine.decode_frame(
                    state, visual_RPC, max_gazes=most_RT[:, t], threshold=threshold, sampler=sampler
                )
            )
        return [to_gaze(row, self._layout) for row in zip(*frames, strict=True)]


def limited(count_BT: Indices, limits: Limits) -> Indices:
    """Counts of which no frame has more than its cap, no clip more than its own, and every frame 1 at least."""
    count_BT = count_BT.clip(1, None)
    share_B1 = np.minimum(1.0, limits.max_gazes / count_BT.sum(axis=1, keepdims=True))
    fewer: Indices = np.floor(count_BT * share_B1).astype(np.int64).clip(1, None)
    return fewer


def member_generator(*, seed: int, step: int, number: int, member: int) -> torch.Generator:
    """The source of one member's draws at one step, by these numbers alone.

    ``number`` is that of the clip's recipe.
    """
    sequence = np.random.SeedSequence([seed, step, number, member, _PURPOSE])
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
