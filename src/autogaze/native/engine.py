"""Decoding on a processor by compiled code: the same decisions as torch, in half the time or less.

Shape letters: B clips, A rows in use, N new tokens of all of them, C channels, H query heads, D channels of a head,
K gazes of a group, V vocabulary, O = K · V + K numbers read out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autogaze.attention import Spans
from autogaze.choosing import Floats
from autogaze.engine import DecoderState, Engine, LayerWeights, fuse, fuse_heads
from autogaze.models.autogaze.configuration_autogaze import Positions
from autogaze.models.autogaze.modeling_autogaze import GazeDecoder
from autogaze.native.library import Library, library, readable
from autogaze.native.packing import PackedDecoder, PackedLayer, pack, pack_gated


@dataclass(slots=True, kw_only=True)
class NativeState(DecoderState):
    """A state whose cache is laid out for the compiled code, and whose weights are packed for it."""

    library: Library
    """The code."""
    packed: PackedDecoder
    """What ``weights`` and ``heads_CO`` would be."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was packed last, and of what."""

    weights: list[Tensor]
    packed: PackedDecoder


class NativeEngine(Engine):
    """An engine that decodes by compiled code where it can: fp32 on a processor that has it.

    Elsewhere it does what :class:`~autogaze.engine.Engine` does. A row's numbers are the same to the bit in any batch,
    in any number of threads, and whether its frames come one by one or all at once. Autocast does not reach the
    compiled code.
    """

    def __init__(self, decoder: GazeDecoder, *, positions: Positions, together: bool | None = None) -> None:
        """See :class:`~autogaze.engine.Engine`; ``together`` keeps the compiled code out."""
        super().__init__(decoder, positions=positions, together=together)
        self._kept: _Kept | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}  # copies pack for themselves

    @torch.inference_mode()
    def start(self, clips: int, *, capacity: int, memory: DecoderState | None = None) -> DecoderState:
        """See :meth:`Engine.start`."""
        fits = all(readable(weight) for weight in self.decoder.parameters())
        code = library() if fits and not self._together else None
        if code is None or not code.takes(self.decoder.model.blocks[0].self_attn.head_dim):
            return super().start(clips, capacity=capacity, memory=memory)
        usable = memory if isinstance(memory, NativeState) else None  # others' may end within a panel
        panels = max(-(-capacity // code.panel), 1)  # whole ones, and as many again when the cache grows
        keys, values, scratch = self._memory(clips, panels * code.panel, usable)
        return NativeState(
            weights=[],
            keys=keys,
            values=values,
            length=[0] * clips,
            unfed=[np.empty(0, np.int64)] * clips,
            scratch=scratch,
            library=code,
            packed=self._pack(code.panel),
        )

    def _pack(self, panel: int) -> PackedDecoder:
        """The decoder's weights as they are now, packed."""
        # All are compared: not everything that changes weights (fused optimisers, ``.data``) can be seen from outside.
        weights, kept = [weight.detach() for weight in self.decoder.parameters()], self._kept
        if kept is not None and all(map(torch.equal, kept.weights, weights)):
            return kept.packed
        packed = pack_decoder(self.decoder, panel=panel)
        self._kept = _Kept([weight.clone() for weight in weights], packed)
        return packed

    def _through_blocks(self, state: DecoderState, spans: Spans, x_NC: Tensor, turn_N1E: Tensor) -> Tensor:
        """One pass through all blocks and heads; all that is read out (A, O) at the last token of each row."""
        if not isinstance(state, NativeState):
            return super()._through_blocks(state, spans, x_NC, turn_N1E)
        first = np.cumsum(spans.new) - spans.new
        spans_A4 = np.stack([spans.rows, first, spans.new, spans.seen], axis=1).astype(np.int64, copy=False)
        return state.library.feed(state.packed, state.keys, state.values, spans_A4, x_NC, turn_N1E, state.scratch)

    def _read_out(self, state: DecoderState, hidden_AC: Tensor) -> tuple[Floats, Floats]:
        if not isinstance(state, NativeState):
            return super()._read_out(state, hidden_AC)
        said_AO, K, V = hidden_AC.numpy(), self.decoder.group_size, self.decoder.vocab_size
        return said_AO[:, : K * V].reshape(-1, K, V), said_AO[:, K * V :]


def pack_decoder(decoder: GazeDecoder, *, panel: int) -> PackedDecoder:
    """The matrices of a decoder, fused as for torch, in panels."""
    attention = decoder.model.blocks[0].self_attn
    queries = attention.q_proj.weight.shape[0]
    # The last norm goes into the heads, as the others went into the matrices behind them.
    heads_OC = fuse_heads(decoder).t() * decoder.model.norm.weight.detach()
    return PackedDecoder(
        layers=tuple(_pack_layer(fuse(layer), queries, panel) for layer in decoder.model.blocks),
        heads=pack(heads_OC, panel=panel),
        channels=heads_OC.shape[1],
        query_heads=queries // attention.head_dim,
        inner=decoder.model.blocks[0].mlp.down_proj.weight.shape[1],
        outputs=len(heads_OC),
        eps=decoder.model.norm.eps,
    )


def _pack_layer(weights: LayerWeights, queries: int, panel: int) -> PackedLayer:
    return PackedLayer(
        q=pack(weights.qkv[:queries], panel=panel),
        kv=pack(weights.qkv[queries:], panel=panel),
        o=pack(weights.o, panel=panel),
        gate_up=pack_gated(*weights.gate_up.chunk(2), panel=panel),
        down=pack(weights.down, panel=panel),
    )
