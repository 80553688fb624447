"""Decoding gazes: a preallocated cache, one pass a group, all clips in one batch, rows that finish dropped.

Shape letters: B clips, A clips gazing at a frame, or still gazing at it, N packed tokens of them, P visual tokens of a
frame, C channels, H query heads, G key/value heads, D channels of a head, E = D / 2 pairs of them, L tokens of the
cache, K gazes one pass proposes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from autogaze.attention import Feed, RowByRow, Spans, Together, any_length
from autogaze.choosing import Floats, FrameGaze, FrameSlots, Group, Sampler, choose
from autogaze.models.autogaze.configuration_autogaze import Positions
from autogaze.models.autogaze.modeling_autogaze import DecoderLayer, GazeDecoder
from autogaze.tiled_attention import QUERY_SCALE, Scratch


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One block's weights, fused: norms and the scale of scores folded into the projections."""

    qkv: Tensor
    """((H + 2 G) · D, C); the channels of a query or key head as pairs that are rotated together."""
    o: Tensor
    gate_up: Tensor
    down: Tensor

    def tensors(self) -> list[Tensor]:
        """All of them, in one order."""
        return [self.qkv, self.o, self.gate_up, self.down]

    def clone(self) -> LayerWeights:
        """The same values in memory of their own."""
        return LayerWeights(*(weight.clone() for weight in self.tensors()))

    def take(self, other: LayerWeights) -> None:
        """Copy the other's values here."""
        torch._foreach_copy_(self.tensors(), other.tensors())


@dataclass(slots=True)
class DecoderState:
    """The decoder's memory of B clips; changed in place by :meth:`Engine.decode_frame`."""

    weights: list[LayerWeights]
    """Per layer, as they were when the clips began: a clip is decoded with one set of weights."""
    keys: list[Tensor]
    """Per layer (B, G, L, D)."""
    values: list[Tensor]
    """Per layer (B, G, L, D)."""
    length: list[int]
    """(B,) tokens of each clip in the cache."""
    unfed: list[NDArray[np.int64]]
    """(B,) gazes kept but not yet read by the decoder: those of each clip's last group."""
    heads_CO: Tensor | None = field(default=None, kw_only=True)
    """Both heads as they were then, fp32, O = K · V + K; None: they are the decoder's own."""
    scratch: Scratch = field(default_factory=Scratch, kw_only=True)
    """Memory that every feed writes over."""

    def holds(self, shape_BGLD: tuple[int, int, int, int], *, like: Tensor) -> bool:
        """Whether the cache has room for this shape in each layer, on the device and in the precision of ``like``."""
        cache = self.keys[0]
        same = (cache.device, cache.dtype) == (like.device, like.dtype)
        return same and all(needed <= there for needed, there in zip(shape_BGLD, cache.shape, strict=True))

    def snapshot(self) -> Self:
        """The state as it is now. It shares the cache, whose written part never changes while this state goes on."""
        return replace(self, length=list(self.length), unfed=list(self.unfed), scratch=Scratch())

    def fork(self) -> Self:
        """A state that goes on by itself from here: the cache is copied."""
        keys, values = ([cache.clone() for cache in caches] for caches in (self.keys, self.values))
        return replace(self.snapshot(), keys=keys, values=values)


class Engine:
    """Decodes with the weights of a :class:`GazeDecoder`, on its device and in its precision."""

    def __init__(self, decoder: GazeDecoder, *, positions: Positions, together: bool | None = None) -> None:
        """``together`` picks the attention of all rows in one call or row by row; None: row by row on a CPU."""
        self.decoder = decoder
        self.positions = positions
        self._together = together
        self._turns: Tensor | None = None

    @torch.inference_mode()
    def start(self, clips: int, *, capacity: int, memory: DecoderState | None = None) -> DecoderState:
        """An empty state for ``clips`` clips of at most ``capacity`` tokens each; it grows when that is passed.

        ``memory`` is a state of this engine that is not needed any more: its cache is written over, if that has room.
        """
        keys, values, scratch = self._memory(clips, capacity, memory)
        return DecoderState(
            weights=[fuse(layer) for layer in self.decoder.model.blocks],
            keys=keys,
            values=values,
            length=[0] * clips,
            unfed=[np.empty(0, np.int64)] * clips,
            heads_CO=None if self._all_together(keys[0]) else fuse_heads(self.decoder),
            scratch=scratch,
        )

    def _memory(
        self, clips: int, capacity: int, memory: DecoderState | None
    ) -> tuple[list[Tensor], list[Tensor], Scratch]:
        """Keys and values (B, G, L, D) per layer, L at least ``capacity``, and a scratch; ``memory``'s if they fit."""
        attention, layers = self.decoder.model.blocks[0].self_attn, self.decoder.model.blocks
        weight = attention.k_proj.weight
        shape = (clips, weight.shape[0] // attention.head_dim, max(capacity, 1), attention.head_dim)
        together = self._all_together(weight)
        if memory is not None and not together and memory.holds(shape, like=weight):
            return memory.keys, memory.values, memory.scratch
        # Zeros where places beyond a row's end are read: they weigh nothing, but nothing times NaN would be NaN.
        new = weight.new_zeros if together else weight.new_empty
        return [new(shape) for _ in layers], [new(shape) for _ in layers], Scratch()

    @torch.inference_mode()
    def restart(self, state: DecoderState, row: int) -> None:
        """Before the first frame of another clip, in the row of one that is over; see ``rows`` below.

        It is decoded with the weights that the state began with.
        """
        state.length[row], state.unfed[row] = 0, np.empty(0, np.int64)
        if self._all_together(state.keys[0]):
            for cache in (*state.keys, *state.values):
                cache[row].zero_()  # as new: nothing times NaN would be NaN

    @torch.inference_mode()
    @any_length()
    def decode_frame(
        self,
        state: DecoderState,
        visual_APC: Tensor,
        *,
        max_gazes: int | NDArray[np.int64],
        threshold: float | None = None,
        sampler: Sampler | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[FrameGaze]:
        """Gaze at the next frame of every clip, or of some.

        Args:
            state: memory of the frames before; advanced in place.
            visual_APC: the visual tokens of the frame of each clip that gazes.
            max_gazes: most gazes a clip may get, at least 1; or one number for each clip that gazes.
            threshold: predicted loss at which a frame ends; None: it never does.
            sampler: draws instead of taking the likeliest; None: greedy. It is of all clips of the state.
            rows: the clips that gaze, each of which is at a frame of its own; the others wait. None: all.

        Returns:
            One result for each clip that gazes, in their order.

        Raises:
            ValueError: the sampler is of another number of clips, or rows are unknown, doubled or not one a frame.
        """
        clips, K, V = len(state.length), self.decoder.group_size, self.decoder.vocab_size
        if sampler is not None and len(sampler) != clips:
            raise ValueError(f"the sampler has {len(sampler)} generators for {clips} clips")
        gazing = _checked_rows(rows, clips, frames=len(visual_APC))
        taken_BV = np.zeros((clips, V), bool)
        taken_BV[:, -1] = True  # the end token is never chosen
        left_B = np.zeros(clips, np.int64)
        left_B[gazing] = max_gazes
        slots = {row: FrameSlots() for row in gazing}
        hidden_AC = self._read_frame(state, gazing, visual_APC)
        rows = gazing
        anchor = list(state.length)  # where the frame's first feed ended
        while True:
            logits_AKV, loss_AK = self._read_out(state, hidden_AC)
            group = choose(
                logits_AKV,
                loss_AK,
                taken_BV[rows],
                left_B[rows],
                first_A=np.array([len(slots[row]) == 0 for row in rows]),
                threshold=threshold,
                noise_AKV=None if sampler is None else sampler.noise(rows, (K, V)),
                temperature=1.0 if sampler is None else sampler.temperature,
            )
            for clip, row in enumerate(rows):
                state.unfed[row] = slots[row].add(group, clip, loss_before=loss_AK[clip, 0])
                taken_BV[row, group.index_AK[clip, : group.size_A[clip]]] = True
            left_B[rows] -= group.size_A
            going_on = [row for row, ended in zip(rows, group.ended_A, strict=True) if not ended]
            if not going_on:
                return [slots[row].finish() for row in gazing]
            self._on_ended(state, rows, group, anchor)
            rows = going_on
            hidden_AC = self._read_group(state, rows, anchor)

    def _on_ended(self, state: DecoderState, rows: list[int], group: Group, anchor: list[int]) -> None:
        """A group has ended the frame of some clips in ``rows`` but not of all: nothing to do, they just wait."""

    def _read_out(self, state: DecoderState, hidden_AC: Tensor) -> tuple[Floats, Floats]:
        """Logits (A, K, V) and losses (A, K) of the next group of each row."""
        if state.heads_CO is None:
            logits_AKV, loss_AK = self.decoder.read_out(hidden_AC)
            return logits_AKV.cpu().numpy(), loss_AK.cpu().numpy()
        A, K, V = len(hidden_AC), self.decoder.group_size, self.decoder.vocab_size
        with torch.autocast(hidden_AC.device.type, enabled=False):
            said_AO = (hidden_AC.float() @ state.heads_CO).cpu().numpy()
        return said_AO[:, : K * V].reshape(A, K, V), said_AO[:, K * V :]

    def _read_frame(self, state: DecoderState, rows: list[int], visual_APC: Tensor) -> Tensor:
        """Feed what the frame before left unfed and the visual tokens; output (A, C) at the last of them."""
        unfed = [state.unfed[row] for row in rows]
        new = [len(gazes) + visual_APC.shape[1] for gazes in unfed]
        gazes_A = torch.split(self._embed(unfed), [len(gazes) for gazes in unfed])
        x_NC = torch.cat([part for both in zip(gazes_A, visual_APC, strict=True) for part in both])
        positions = [np.arange(n) + state.length[row] for row, n in zip(rows, new, strict=True)]
        return self._feed(state, rows, x_NC, new, np.concatenate(positions))

    def _read_group(self, state: DecoderState, rows: list[int], anchor: list[int]) -> Tensor:
        """Feed the group just chosen of the rows that go on; output (A, C) at its last gaze."""
        return self._feed_groups(state, rows, [state.unfed[row] for row in rows], anchor)

    def _feed_groups(
        self, state: DecoderState, rows: list[int], groups: Sequence[NDArray[np.int64]], anchor: list[int]
    ) -> Tensor:
        """Feed one full group of gazes for each row, inside a frame; output (A, C) at the last of each."""
        K = self.decoder.group_size
        position_N = np.concatenate([self._group_positions(state, row, anchor) for row in rows])
        return self._feed(state, rows, self._embed(groups), [K] * len(rows), position_N)

    def _group_positions(self, state: DecoderState, row: int, anchor: list[int]) -> NDArray[np.int64]:
        """(K,) the positions at which a row's next group inside a frame is read."""
        K = self.decoder.group_size
        start = anchor[row] - K if self.positions == "reference" else state.length[row]
        return np.arange(start, start + K)

    def _embed(self, gazes: Sequence[NDArray[np.int64]]) -> Tensor:
        weight = self.decoder.model.embed_tokens.weight
        return F.embedding(torch.from_numpy(np.concatenate(gazes)).to(weight.device), weight)

    def _feed(
        self, state: DecoderState, rows: list[int], x_NC: Tensor, new: list[int], position_N: NDArray[np.int64]
    ) -> Tensor:
        """Append tokens to the cache; see :meth:`_through_blocks`."""
        for row, n in zip(rows, new, strict=True):
            state.length[row] += n
        self._make_room(state)
        spans = Spans(rows, new, [state.length[row] for row in rows])
        return self._through_blocks(state, spans, x_NC, self._turns_at(position_N, x_NC.device))

    def _through_blocks(self, state: DecoderState, spans: Spans, x_NC: Tensor, turn_N1E: Tensor) -> Tensor:
        """One pass through all blocks; the decoder's normed output (A, C) at the last token of each row."""
        feed = self._way(state, spans)
        last = torch.from_numpy(np.cumsum(spans.new) - 1).to(x_NC.device)
        eps = self.decoder.model.norm.eps
        for keys, values, weights in zip(state.keys[:-1], state.values[:-1], state.weights[:-1], strict=True):
            D, G = keys.shape[-1], keys.shape[1]
            qkv = F.linear(norm(x_NC, eps), weights.qkv).view(len(x_NC), -1, D)
            qk, v = qkv[:, :-G], qkv[:, -G:]
            qk = turn(qk, turn_N1E)
            feed.append(keys, qk[:, -G:])
            feed.append(values, v)
            x_NC = after_attention(x_NC, feed.attend(qk[:, :-G], keys, values), weights, eps)
        # Nobody reads the last block's output but the heads, and they only at each row's last token.
        keys, values, weights = state.keys[-1], state.values[-1], state.weights[-1]
        D, G = keys.shape[-1], keys.shape[1]
        normed = norm(x_NC, eps)
        q_weight, kv_weight = weights.qkv[: -2 * G * D], weights.qkv[-2 * G * D :]
        kv = F.linear(normed, kv_weight).view(len(x_NC), -1, D)
        feed.append(keys, turn(kv[:, :G], turn_N1E))
        feed.append(values, kv[:, G:])
        q = turn(F.linear(normed[last], q_weight).view(len(last), -1, D), turn_N1E[last])
        x_AC = after_attention(x_NC[last], feed.attend_last(q, keys, values), weights, eps)
        out: Tensor = self.decoder.model.norm(x_AC)
        return out

    def _way(self, state: DecoderState, spans: Spans) -> Feed:
        """How these tokens are fed."""
        cache = state.keys[0]
        if self._all_together(cache):
            return Together(spans, device=cache.device, cache_rows=len(cache))
        return RowByRow(spans, scratch=state.scratch)

    def _all_together(self, like: Tensor) -> bool:
        """Whether tokens are fed all together or row by row."""
        return self._together if self._together is not None else like.device.type != "cpu"

    def _make_room(self, state: DecoderState) -> None:
        needed, capacity = max(state.length), state.keys[0].shape[2]
        if needed > capacity:
            more = capacity  # doubled until it is enough
            while capacity + more < needed:
                more += capacity + more
            state.keys = [F.pad(keys, (0, 0, 0, more)) for keys in state.keys]
            state.values = [F.pad(values, (0, 0, 0, more)) for values in state.values]

    def _turns_at(self, position_N: NDArray[np.int64], device: torch.device) -> Tensor:
        """Rotations (N, 1, D / 2), complex, from a table that is extended when a position passes its end."""
        table = self._turns
        needed = int(position_N.max()) + 1
        if table is None or len(table) < needed or table.device != device:
            length = max(needed, 1024, 0 if table is None else 2 * len(table))
            cos, sin = self.decoder.model.rotary(torch.arange(length, device=device), torch.float32)
            table = self._turns = torch.complex(cos, sin)[..., : cos.shape[-1] // 2].contiguous()
        turns: Tensor = table[torch.from_numpy(position_N).to(device)]
        return turns


def _checked_rows(rows: Sequence[int] | None, clips: int, *, frames: int) -> list[int]:
    """The rows that gaze at one frame each.

    Raises:
        ValueError: there is not one frame for each, or they are not different rows of the state.
    """
    gazing = list(range(clips)) if rows is None else list(rows)
    if not gazing or len(set(gazing)) != len(gazing) or not all(0 <= row < clips for row in gazing):
        raise ValueError(f"rows must be one or more of 0…{clips - 1}, none of them twice, got {gazing}")
    if frames != len(gazing):
        raise ValueError(f"there must be one frame for each of {len(gazing)} clips that gaze, got {frames}")
    return gazing


def fuse(layer: DecoderLayer) -> LayerWeights:
    """A block's weights as decoding reads them; ``o`` and ``down`` share memory with the block's."""
    attention, mlp = layer.self_attn, layer.mlp
    D = attention.head_dim

    def paired(weight: Tensor) -> Tensor:
        """Channels (d, d + D/2) of every head side by side."""
        return weight.view(-1, 2, D // 2, weight.shape[1]).transpose(1, 2).flatten(0, 2)

    def scaled(weight: Tensor, norm: Tensor) -> Tensor:
        if weight.device.type != "cpu":
            return weight * norm
        # Input channels first in memory: there, a few tokens are read in three quarters of the time.
        fused = weight.new_empty(weight.shape[::-1]).t()
        return torch.mul(weight, norm, out=fused)

    # In fp32, so that half precision rounds once.
    q = paired(attention.q_proj.weight.float()) * (QUERY_SCALE / D**0.5)
    qkv = torch.cat([q, paired(attention.k_proj.weight.float()), attention.v_proj.weight.float()])
    gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).float()
    return LayerWeights(
        qkv=scaled(qkv, layer.input_layernorm.weight).to(attention.q_proj.weight.dtype).detach(),
        o=attention.o_proj.weight.detach(),
        gate_up=scaled(gate_up, layer.post_attention_layernorm.weight).to(mlp.gate_proj.weight.dtype).detach(),
        down=mlp.down_proj.weight.detach(),
    )


def fuse_heads(decoder: GazeDecoder) -> Tensor:
    """(C, K · V + K) both heads side by side in fp32."""
    heads = (decoder.lm_head, decoder.task_loss_prediction_head)
    return torch.cat([head.weight.t().float() for head in heads], dim=1).detach()


def turn(x_NHD: Tensor, turn_N1E: Tensor) -> Tensor:
    """Rotate neighbouring channels of every head: complex numbers times the rotation of their token's position."""
    pairs = torch.view_as_complex(x_NHD.float().view(*x_NHD.shape[:2], -1, 2))
    return torch.view_as_real(pairs * turn_N1E).flatten(-2).to(x_NHD.dtype)


def after_attention(x_NC: Tensor, attended_NHD: Tensor, weights: LayerWeights, eps: float) -> Tensor:
    """The rest of a block: output projection and feed-forward layer, each added to what comes in, in place."""
    x_NC.addmm_(attended_NHD.flatten(1), weights.o.t())
    gate, up = F.linear(norm(x_NC, eps), weights.gate_up).chunk(2, dim=-1)
    return x_NC.addmm_(F.silu(gate).mul_(up), weights.down.t())


def norm(x: Tensor, eps: float) -> Tensor:
    """RMS norm without its weight, which the fused projection carries."""
    if x.device.type != "cpu":
        return F.rms_norm(x, x.shape[-1:], eps=eps)  # sums in fp32 whatever x is
    # There, torch's own takes several times as long for a few tokens.
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.addcmul(_scalar(eps), length, length, value=1 / x.shape[-1]).rsqrt_()
    return (x * scale).to(x.dtype)


@cache
def _scalar(value: float) -> Tensor:
    return torch.tensor(value)
