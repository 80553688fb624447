"""The gaze model as two functions of tensors: what a host loop calls once a frame, and once a group of gazes.

Shape letters: T frames, S side of a frame in pixels, P visual tokens of a frame, h × w their grid, C channels, H query
heads, G key/value heads, D channels of a head, N tokens that are read now, L tokens read before, K gazes one pass
proposes, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autogaze.models.autogaze.autogaze import AutoGaze, normalised
from autogaze.models.autogaze.modeling_autogaze import Attention, DecoderLayer, GazeDecoder, rotate


class Encoder(nn.Module):
    """Frames and what the convolutions remember in, visual tokens and what they remember out."""

    def __init__(self, model: AutoGaze) -> None:
        super().__init__()
        self.vision_model = model.gazing_model.vision_model
        self.connector = model.gazing_model.connector

    def forward(self, frames_TSS3: Tensor, *past_CLhw: Tensor) -> tuple[Tensor, ...]:
        """(T, P, C) visual tokens, then each block's last inputs, which the frames after these need as ``past``.

        Args:
            frames_TSS3: uint8 RGB; they are normalised here.
            past_CLhw: for each block its last inputs; zeros before the first frame of a clip.
        """
        features, kept = self.vision_model(normalised(frames_TSS3)[None], tuple(past[None] for past in past_CLhw))
        return self.connector(features)[0], *(last[0] for last in kept)


class DecoderStep(nn.Module):
    """Tokens and the cache of those before in, scores of the next gazes and the longer cache out."""

    def __init__(self, decoder: GazeDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, token_N: Tensor, visual_PC: Tensor, position_N: Tensor, *past_GLD: Tensor) -> tuple[Tensor, ...]:
        """(K, V) logits and (K,) predicted losses at the last token, then the cache with the new tokens in it.

        Args:
            token_N: int64; a patch is a gaze at it, and V + p is visual token p of the frame.
            visual_PC: the frame's visual tokens.
            position_N: int64 rotary position of each token; each sees itself and those before, whatever theirs are.
            past_GLD: keys of every layer, then values of every layer; of length 0 before the first frame of a clip.
        """
        model = self.decoder.model
        x_NC = torch.cat([model.embed_tokens.weight, visual_PC])[token_N]
        cos_N1D, sin_N1D = model.rotary(position_N, x_NC.dtype)
        angle = (cos_N1D, sin_N1D)
        new, seen = token_N.shape[0], past_GLD[0].shape[1] + token_N.shape[0]
        visible_NL = torch.arange(seen) <= (seen - new) + torch.arange(new)[:, None]
        layers = model.blocks
        keys, values = list(past_GLD[: len(layers)]), list(past_GLD[len(layers) :])
        for number, layer in enumerate(layers):
            q, k, v = _projected(layer, x_NC, *angle)
            keys[number], values[number] = torch.cat([keys[number], k], 1), torch.cat([values[number], v], 1)
            if number == len(layers) - 1:
                # Nobody reads the last block's output but the heads, and they only at the last token.
                x_NC, q, visible_NL = x_NC[-1:], q[:, -1:], visible_NL[-1:]
            x_NC = _attended(layer, x_NC, q, keys[number], values[number], visible_NL)
        logits_KV, loss_K = self.decoder.read_out(model.norm(x_NC)[0])
        return logits_KV, loss_K, *keys, *values


def _projected(layer: DecoderLayer, x_NC: Tensor, cos_N1D: Tensor, sin_N1D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, heads first."""
    attention: Attention = layer.self_attn
    normed = layer.input_layernorm(x_NC)
    heads = (x_NC.shape[0], -1, attention.head_dim)
    q = rotate(attention.q_proj(normed).view(heads), cos_N1D, sin_N1D)
    k = rotate(attention.k_proj(normed).view(heads), cos_N1D, sin_N1D)
    v = attention.v_proj(normed).view(heads)
    return q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)


def _attended(
    layer: DecoderLayer, x_NC: Tensor, q_HND: Tensor, k_GLD: Tensor, v_GLD: Tensor, visible_NL: Tensor
) -> Tensor:
    """The rest of a block after its projections."""
    out_HND = F.scaled_dot_product_attention(
        q_HND[None], k_GLD[None], v_GLD[None], visible_NL, enable_gqa=len(q_HND) != len(k_GLD)
    )[0]
    x_NC = x_NC + layer.self_attn.o_proj(out_HND.transpose(0, 1).flatten(1))
    out: Tensor = x_NC + layer.mlp(layer.post_attention_layernorm(x_NC))
    return out
