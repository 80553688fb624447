"""Everything a step reads and writes, at addresses that stay: cache, weights, orders of the host, what was chosen.

Shape letters: B clips of a desk, P visual tokens of a frame, C channels, G key/value heads, D channels of a head,
E = D / 2 pairs of them, L tokens a clip may have, K gazes a read-out proposes, V vocabulary, S groups of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from autogaze.engine import LayerWeights, fuse
from autogaze.models.autogaze.modeling_autogaze import GazeDecoder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """The decoder's weights as a step reads them."""

    layers: tuple[LayerWeights, ...]
    embed_VC: Tensor
    norm_C: Tensor
    lm_head: Tensor
    """(K · V, C) fp32."""
    loss_head_KC: Tensor
    """fp32."""

    @classmethod
    @torch.inference_mode()
    def of(cls, decoder: GazeDecoder) -> Self:
        """Copies of what the decoder has now."""
        return cls(
            layers=tuple(fuse(layer).clone() for layer in decoder.model.blocks),
            embed_VC=decoder.model.embed_tokens.weight.clone(),
            norm_C=decoder.model.norm.weight.clone(),
            lm_head=decoder.lm_head.weight.to(torch.float32, copy=True),
            loss_head_KC=decoder.task_loss_prediction_head.weight.to(torch.float32, copy=True),
        )

    def tensors(self) -> list[Tensor]:
        """All of them, in one order."""
        fused = [weight for layer in self.layers for weight in layer.tensors()]
        return [*fused, self.embed_VC, self.norm_C, self.lm_head, self.loss_head_KC]

    def takes(self, other: Weights) -> bool:
        """Whether the other's values could be copied here."""
        mine, its = self.tensors(), other.tensors()
        return [(t.shape, t.dtype, t.device) for t in mine] == [(t.shape, t.dtype, t.device) for t in its]

    def take(self, other: Weights) -> None:
        """Copy the other's values here."""
        torch._foreach_copy_(self.tensors(), other.tensors())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Desk:
    """Buffers for B clips. Only their contents ever change."""

    weights: Weights
    turn_LE: Tensor
    """Complex rotation of every position."""
    reference: bool
    """Whether groups inside a frame are read at the positions of the published implementation."""
    norm_eps: float

    keys: tuple[Tensor, ...]
    """Per layer (B, G, L + 1, D); what is written to the last place is never read."""
    values: tuple[Tensor, ...]
    """Per layer (B, G, L + 1, D)."""

    visual_BPC: Tensor
    """Written by the host: the frame's visual tokens."""
    orders: Tensor
    """(B, K + 3) int64, written by the host: gazes not yet read, how many, tokens in the cache, gazes allowed."""
    level: Tensor
    """(2,) fp32, written by the host: predicted loss at which a frame ends, and 0 where there is none."""

    every_B: Tensor
    """0, 1, … B − 1."""
    slot: Tensor
    """0, 1, … at least as many as tokens of a frame's feed, and as K."""
    place_L: Tensor
    """0, 1, … L − 1: the places of the cache."""

    hidden_BC: Tensor
    """The decoder's output at each clip's last token."""
    taken_BV: Tensor
    """Patches that cannot be chosen any more in this frame."""
    left_B: Tensor
    """Gazes the frame still allows."""
    length_B: Tensor
    """Tokens in the cache."""
    anchor_B: Tensor
    """Where the frame's first feed ended."""
    ended_B: Tensor
    """Whether the clip's frame has ended."""
    group_BK: Tensor
    """The group chosen last."""
    step: Tensor
    """(1,) groups of this frame so far."""
    going: Tensor
    """(1,) clips whose frame has not ended."""
    slots: Tensor
    """(B, S, 4 K + 2) fp32: patch, whether it was kept, probability and predicted loss after, of each gaze of a
    group; then the loss predicted before the group, and its gazes. Patch numbers are small enough to be exact."""

    @classmethod
    @torch.inference_mode()
    def make(cls, decoder: GazeDecoder, *, clips: int, capacity: int, visual_tokens: int, reference: bool) -> Self:
        """Buffers on the decoder's device for clips of at most ``capacity`` tokens each."""
        weights = Weights.of(decoder)
        like = weights.embed_VC
        attention = decoder.model.blocks[0].self_attn
        C, K, V = like.shape[1], decoder.group_size, decoder.vocab_size
        cache = (clips, attention.k_proj.weight.shape[0] // attention.head_dim, capacity + 1, attention.head_dim)
        groups = -(-(V - 1) // K)

        def whole(*shape: int) -> Tensor:
            return like.new_zeros(shape, dtype=torch.int64)

        def flags(*shape: int) -> Tensor:
            return like.new_zeros(shape, dtype=torch.bool)

        cos, sin = decoder.model.rotary(torch.arange(capacity, device=like.device), torch.float32)
        return cls(
            weights=weights,
            turn_LE=torch.complex(cos, sin)[..., 0, : cos.shape[-1] // 2].contiguous(),
            reference=reference,
            norm_eps=decoder.model.norm.eps,
            keys=tuple(like.new_zeros(cache) for _ in weights.layers),
            values=tuple(like.new_zeros(cache) for _ in weights.layers),
            visual_BPC=like.new_zeros(clips, visual_tokens, C),
            orders=whole(clips, K + 3),
            level=like.new_zeros(2, dtype=torch.float32),
            every_B=torch.arange(clips, device=like.device),
            slot=torch.arange(K + visual_tokens, device=like.device),
            place_L=torch.arange(capacity, device=like.device),
            hidden_BC=like.new_zeros(clips, C),
            taken_BV=flags(clips, V),
            left_B=whole(clips),
            length_B=whole(clips),
            anchor_B=whole(clips),
            ended_B=flags(clips),
            group_BK=whole(clips, K),
            step=whole(1),
            going=whole(1),
            slots=like.new_zeros(clips, groups, 4 * K + 2, dtype=torch.float32),
        )

    @property
    def clips(self) -> int:
        """B."""
        return len(self.every_B)

    @property
    def capacity(self) -> int:
        """L."""
        return len(self.place_L)

    @property
    def group_size(self) -> int:
        """K."""
        return self.group_BK.shape[1]
