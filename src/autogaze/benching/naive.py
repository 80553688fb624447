"""Decoding the way the published code does it, as the yardstick for speed; same weights, same gazes.

A generate loop over a cache that is copied on every pass (each layer's keys and values are concatenated anew), a
dense additive mask over it, logits at every position fed, and a fresh embedding of the whole sequence so far on
every pass, of which only the end is used. One clip at a time.

Shape letters: A = 1 clip, P visual tokens of a frame, C channels, N tokens fed, L tokens so far, K gazes one pass
proposes, V vocabulary.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from autogaze.choosing import Floats
from autogaze.engine import DecoderState, Engine
from autogaze.models.autogaze.decoding import ClipDecoder
from autogaze.models.autogaze.modeling_autogaze import DecoderLayer, rotate
from autogaze.models.autogaze.selector import AutoGazeSelector


@dataclass(slots=True)
class NaiveState(DecoderState):
    """Memory of one clip. Of what it inherits, ``keys`` and ``values`` grow by copies, and no weights are fused."""

    sequence: list[Tensor] = field(default_factory=list)
    """What was fed so far: ids of gazes (n,), or visual tokens (P, C)."""


class NaiveEngine(Engine):
    """An engine that decides like the others and computes like the published loop."""

    def start(self, clips: int, *, capacity: int, memory: DecoderState | None = None) -> NaiveState:
        """An empty state for one clip; nothing is allocated beforehand, and no memory is used again.

        Raises:
            ValueError: there are several clips.
        """
        if clips != 1:
            raise ValueError(f"the naive loop takes one clip at a time, got {clips}")
        return NaiveState(weights=[], keys=[], values=[], length=[0], unfed=[np.empty(0, np.int64)])

    def _read_frame(self, state: DecoderState, rows: list[int], visual_APC: Tensor) -> Tensor:
        visual_PC, unfed = visual_APC[0], self._ids(state)
        first = state.length[0]
        return self._pass(state, [unfed, visual_PC], np.arange(first, first + len(unfed) + len(visual_PC)))

    def _read_group(self, state: DecoderState, rows: list[int], anchor: list[int]) -> Tensor:
        return self._pass(state, [self._ids(state)], self._group_positions(state, 0, anchor))

    def _read_out(self, state: DecoderState, hidden_AC: Tensor) -> tuple[Floats, Floats]:
        # ``hidden_AC`` has every token fed: all are read out, and the last counts.
        logits_NKV, loss_NK = self.decoder.read_out(hidden_AC)
        return logits_NKV[-1:].cpu().numpy(), loss_NK[-1:].cpu().numpy()

    def _ids(self, state: DecoderState) -> Tensor:
        return torch.from_numpy(state.unfed[0]).to(self.decoder.model.embed_tokens.weight.device)

    def _pass(self, state: DecoderState, new: list[Tensor], position_N: NDArray[np.int64]) -> Tensor:
        """Append to the sequence; the decoder's normed output (N, C) at what is new."""
        assert isinstance(state, NaiveState)
        model = self.decoder.model
        state.sequence += new
        embedded_LC = torch.cat([model.embed_tokens(part) if part.ndim == 1 else part for part in state.sequence])
        x_1NC = embedded_LC[None, state.length[0] :]
        N, L = x_1NC.shape[1], len(embedded_LC)
        state.length[0] = L
        mask_11NL = torch.full((N, L), -torch.inf, dtype=x_1NC.dtype, device=x_1NC.device).triu(L - N + 1)[None, None]
        rope = model.rotary(torch.from_numpy(position_N).to(x_1NC.device)[None], x_1NC.dtype)
        for number, layer in enumerate(model.blocks):
            x_1NC = _layer(layer, number, x_1NC, rope, mask_11NL, state)
        normed_1NC: Tensor = model.norm(x_1NC)
        return normed_1NC[0]


def _layer(
    layer: DecoderLayer,
    number: int,
    x_1NC: Tensor,
    rope: tuple[Tensor, Tensor],
    mask_11NL: Tensor,
    state: NaiveState,
) -> Tensor:
    """One block, with its keys and values copied to make room for the new ones."""
    attention = layer.self_attn
    normed = layer.input_layernorm(x_1NC)
    heads = (*x_1NC.shape[:2], -1, attention.head_dim)
    query = rotate(attention.q_proj(normed).view(heads), *rope).transpose(1, 2)
    key = rotate(attention.k_proj(normed).view(heads), *rope).transpose(1, 2)
    value = attention.v_proj(normed).view(heads).transpose(1, 2)
    if number == len(state.keys):
        state.keys.append(key)
        state.values.append(value)
    else:
        state.keys[number] = torch.cat([state.keys[number], key], dim=2)
        state.values[number] = torch.cat([state.values[number], value], dim=2)
    key, value = state.keys[number], state.values[number]
    out = F.scaled_dot_product_attention(query, key, value, mask_11NL, enable_gqa=query.shape[1] != key.shape[1])
    x_1NC = x_1NC + attention.o_proj(out.transpose(1, 2).flatten(2))
    after: Tensor = x_1NC + layer.mlp(layer.post_attention_layernorm(x_1NC))
    return after


def naively(selector: AutoGazeSelector) -> AutoGazeSelector:
    """A selector with the same weights and limits that decodes tile after tile with a :class:`NaiveEngine`."""
    model = copy.copy(selector.model)  # shares every weight
    model.decoder = ClipDecoder(
        model.gazing_model, engine=NaiveEngine(model.gazing_model.gaze_decoder, positions=model.config.positions)
    )
    return AutoGazeSelector(model, name=f"{selector.name}, naive loop", budget=selector.default_budget, tile_batch=1)
