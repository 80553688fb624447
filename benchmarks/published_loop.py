"""Decoding the way the published code does it, as the yardstick for speed; same weights, same result.

A generate loop over a cache that is copied on every pass (each layer's keys and values are concatenated anew), a
dense additive mask over it, logits at every position fed, and a fresh embedding of the whole sequence so far on
every pass, of which only the end is used. True positions; one clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from autogaze.models.autogaze.modeling_autogaze import DecoderLayer, GazeModel, rotate


@dataclass
class GrowingCache:
    """Keys and values that are copied to make room for every token."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if layer == len(self.keys):
            self.keys.append(key)
            self.values.append(value)
        else:
            self.keys[layer] = torch.cat([self.keys[layer], key], dim=2)
            self.values[layer] = torch.cat([self.values[layer], value], dim=2)
        return self.keys[layer], self.values[layer]


def layer_forward(
    layer: DecoderLayer, number: int, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, cache: GrowingCache
) -> Tensor:
    attention = layer.self_attn
    normed = layer.input_layernorm(x)
    heads = (*x.shape[:2], -1, attention.head_dim)
    query = rotate(attention.q_proj(normed).view(heads), *rope).transpose(1, 2)
    key = rotate(attention.k_proj(normed).view(heads), *rope).transpose(1, 2)
    key, value = cache.extend(number, key, attention.v_proj(normed).view(heads).transpose(1, 2))
    out = F.scaled_dot_product_attention(query, key, value, mask)
    x = x + attention.o_proj(out.transpose(1, 2).flatten(2))
    return x + layer.mlp(layer.post_attention_layernorm(x))


@torch.inference_mode()
def published_gaze(model: GazeModel, video_TCSS: Tensor, *, max_gazes: list[int]) -> list[list[int]]:
    """Per frame the chosen patches, ``max_gazes`` of them."""
    decoder, K = model.gaze_decoder, model.gaze_decoder.group_size
    visual_TPC = model.connector(model.vision_model(video_TCSS[None])[0])[0]
    cache, fed, frames = GrowingCache(), 0, []
    sequence: list[Tensor] = []  # ids or visual tokens, as fed so far
    unfed = torch.empty(0, dtype=torch.long)
    for visual_PC, most in zip(visual_TPC, max_gazes, strict=True):
        sequence += [unfed, visual_PC]
        chosen: list[int] = []
        while True:
            embedded = torch.cat([decoder.model.embed_tokens(part) if part.ndim == 1 else part for part in sequence])
            x = embedded[None, fed:]
            new, total = x.shape[1], len(embedded)
            mask = torch.full((new, total), -torch.inf).triu(total - new + 1)[None, None]
            rope = decoder.model.rotary(torch.arange(fed, total)[None], x.dtype)
            for number, layer in enumerate(decoder.model.blocks):
                x = layer_forward(layer, number, x, rope, mask, cache)
            logits, _ = decoder.read_out(decoder.model.norm(x))
            scores = logits[0, -1].clone()
            scores[:, [-1, *chosen]] = -torch.inf
            fed = total
            group: list[int] = []
            for i in range(min(K, most - len(chosen))):
                group.append(int(scores[i].argmax()))
                scores[:, group[-1]] = -torch.inf
            chosen += group
            unfed = torch.tensor(group)
            if len(chosen) == most:
                break
            sequence.append(unfed)
        frames.append(chosen)
    return frames
