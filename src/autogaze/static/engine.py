"""Decoding gazes on an accelerator: few launches, a wait for each frame, the same gazes.

Shape letters: B clips, A clips gazing at a frame, P visual tokens of a frame, C channels, K gazes of a group,
V vocabulary, S groups of a frame.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autogaze.attention import any_length
from autogaze.choosing import Floats, FrameGaze, Sampler
from autogaze.engine import DecoderState
from autogaze.models.autogaze.configuration_autogaze import Positions
from autogaze.models.autogaze.modeling_autogaze import GazeDecoder
from autogaze.native.engine import NativeEngine
from autogaze.static.desk import Desk, Weights
from autogaze.static.graphs import Recorder, recorder_for
from autogaze.static.steps import frame_step, group_step

_PLACES = 256
"""Steps look at a multiple of this many places of the cache: each number of places is a recording of its own."""
_FEWER_ROWS = 4
"""Steps are for all clips, or this many times fewer, or again: so are these."""
_AHEAD_FROM = 8
"""Clips from which a group is launched before it is known whether anybody needs it. With fewer a step for nobody takes
longer than the wait that it saves."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Station:
    """A desk with what was recorded at it. In use as long as a state refers to it."""

    desk: Desk
    recorder: Recorder
    inbox: Tensor
    """(B, K + 3) on the host; what becomes ``desk.orders``."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Lease:
    """Held by the states that share a cache; when the last is gone the station is free."""

    station: Station


@dataclass(slots=True)
class StaticState(DecoderState):
    """A state whose cache is a desk's. A fork has a cache of its own, until it goes on at another desk."""

    lease: _Lease | None = None

    def fork(self) -> Self:
        """See :meth:`DecoderState.fork`."""
        # The desk's weights become others' once its clips are over.
        return replace(DecoderState.fork(self), weights=[layer.clone() for layer in self.weights], lease=None)


class StaticEngine(NativeEngine):
    """An engine whose frames are sequences of recorded steps where the decoder is on a CUDA device.

    Elsewhere, and where gazes are drawn with noise of the host or rows are named, it does what
    :class:`~autogaze.native.engine.NativeEngine` does. All clips must be decoded on one stream.
    """

    def __init__(
        self, decoder: GazeDecoder, *, positions: Positions, visual_tokens: int, static: bool | None = None
    ) -> None:
        """``static`` decides whether steps are used whatever the device is; None: on CUDA devices."""
        super().__init__(decoder, positions=positions)
        self.visual_tokens = visual_tokens
        self._static = static
        self._idle: deque[Station] = deque(maxlen=2)  # each holds memory for its clips

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_idle": deque(maxlen=self._idle.maxlen)}  # copies record for themselves

    @torch.inference_mode()
    def start(self, clips: int, *, capacity: int, memory: DecoderState | None = None) -> DecoderState:
        """See :meth:`Engine.start`."""
        weight = self.decoder.model.embed_tokens.weight
        if not (weight.device.type == "cuda" if self._static is None else self._static):
            self._idle.clear()  # memory of a device that the decoder has left
            return super().start(clips, capacity=capacity, memory=memory)
        if isinstance(memory, StaticState):
            memory.lease = None  # its desk is free, if no snapshot has it
        lease = self._lease(clips, capacity)
        desk = lease.station.desk
        return StaticState(
            weights=list(desk.weights.layers),
            keys=list(desk.keys),
            values=list(desk.values),
            length=[0] * clips,
            unfed=[np.empty(0, np.int64)] * clips,
            lease=lease,
        )

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
        """See :meth:`Engine.decode_frame`."""
        if sampler is not None or rows is not None or not isinstance(state, StaticState):
            return super().decode_frame(
                state, visual_APC, max_gazes=max_gazes, threshold=threshold, sampler=sampler, rows=rows
            )
        visual_BPC = visual_APC
        clips, K, P = len(state.length), self.decoder.group_size, visual_BPC.shape[1]
        most_B = np.minimum(np.full(clips, max_gazes), self.decoder.vocab_size - 1)
        longest = max(n + len(unfed) for n, unfed in zip(state.length, state.unfed, strict=True)) + P
        groups = -(-int(most_B.max()) // K)
        device = visual_BPC.device
        # The steps are of the weights' precision, whatever the caller has autocast to.
        with _current(device), torch.autocast(device.type, enabled=False):
            station = self._at_desk(state, needed=longest + (groups - 1) * K)
            _order(station, state, visual_BPC, most_B, threshold)
            _run_frame(station, longest=longest, most_B=most_B, stops=threshold is not None)
            slots = station.desk.slots[:, :groups].to("cpu", copy=True).numpy()
        return _take(state, slots, visual_tokens=P)

    def _lease(self, clips: int, capacity: int) -> _Lease:
        """A station with an empty cache and the decoder's weights as they are now."""
        capacity = _rounded(capacity)
        station = self._free_station(clips, capacity)
        if station is None:
            desk = self._new_desk(clips, capacity)
            device = desk.orders.device
            inbox = torch.zeros(desk.orders.shape, dtype=torch.int64, pin_memory=device.type == "cuda")
            station = Station(desk, recorder_for(device), inbox)
        else:
            for cache in (*station.desk.keys, *station.desk.values):
                cache.zero_()  # masked places weigh nothing, but nothing times NaN would be NaN
        station.recorder.begin_clip()
        lease = _Lease(station)
        weakref.finalize(lease, self._idle.append, station).atexit = False
        return lease

    def _new_desk(self, clips: int, capacity: int) -> Desk:
        make = partial(
            Desk.make,
            self.decoder,
            clips=clips,
            capacity=capacity,
            visual_tokens=self.visual_tokens,
            reference=self.positions == "reference",
        )
        try:
            return make()
        except torch.OutOfMemoryError:
            self._idle.clear()  # what waits for clips that may never come
        return make()  # not while the error holds what was made until then

    def _free_station(self, clips: int, capacity: int) -> Station | None:
        """An idle station for as many clips and tokens, with today's weights; None: there is none."""
        if not self._idle:
            return None
        # Copied for every clip: not all that changes weights (fused optimisers, ``.data``) can be seen from outside.
        weights = Weights.of(self.decoder)
        for _ in range(len(self._idle)):
            try:
                station = self._idle.popleft()
            except IndexError:  # another thread was faster
                return None
            desk = station.desk
            if not desk.weights.takes(weights):
                continue  # of another device or precision: nobody comes back to it
            if desk.clips == clips and capacity <= desk.capacity <= 2 * capacity:
                desk.weights.take(weights)
                return station
            self._idle.append(station)
        return None

    def _at_desk(self, state: StaticState, *, needed: int) -> Station:
        """The station where the state's cache is, with room for so many tokens; moved to another if need be."""
        lease = state.lease
        if lease is not None and state.keys[0] is lease.station.desk.keys[0] and needed <= lease.station.desk.capacity:
            return lease.station
        capacity = state.keys[0].shape[2] - 1
        lease = self._lease(len(state.length), capacity if needed <= capacity else max(needed, 2 * capacity))
        desk, written = lease.station.desk, max(state.length)
        for old, new in zip((*state.keys, *state.values), (*desk.keys, *desk.values), strict=True):
            new[:, :, :written] = old[:, :, :written]
        # A clip is decoded with the weights that it began with.
        for layer, own in zip(desk.weights.layers, state.weights, strict=True):
            layer.take(own)
        state.keys, state.values, state.lease = list(desk.keys), list(desk.values), lease
        state.weights = list(desk.weights.layers)
        return lease.station


def _order(
    station: Station, state: DecoderState, visual_BPC: Tensor, most_B: NDArray[np.int64], threshold: float | None
) -> None:
    """Lay out what the steps of a frame read."""
    desk, K = station.desk, station.desk.group_size
    inbox = station.inbox.numpy()
    for row, unfed in enumerate(state.unfed):
        inbox[row, : len(unfed)] = unfed
        inbox[row, K] = len(unfed)
    inbox[:, K + 1] = state.length
    inbox[:, K + 2] = most_B
    desk.orders.copy_(station.inbox, non_blocking=True)
    desk.level[0].fill_(0.0 if threshold is None else float(np.float32(threshold)))
    desk.level[1].fill_(0.0 if threshold is None else 1.0)
    desk.visual_BPC.copy_(visual_BPC)


def _run_frame(station: Station, *, longest: int, most_B: NDArray[np.int64], stops: bool) -> None:
    """All steps of a frame. Where frames stop by themselves, the device is asked who goes on."""
    desk, run = station.desk, station.recorder.run
    K, clips = desk.group_size, desk.clips
    places = _rounded(longest)
    run(("frame", places), partial(frame_step, desk, longest=places))
    counts = _Counts(desk.going, ahead=1 if clips >= _AHEAD_FROM else 0)
    group = 0
    while True:
        group += 1
        going = int((most_B > group * K).sum())
        if going and stops:
            going = min(going, counts.least_known())
        if not going:
            return
        rows, places = _rows(going, clips), _rounded(longest + group * K)
        run(("group", rows, places), partial(group_step, desk, rows=rows, longest=places))


class _Counts:
    """How many clips go on, as far as is known without waiting for what was launched last."""

    def __init__(self, going: Tensor, *, ahead: int) -> None:
        """``ahead`` is the number of launches that are not waited for."""
        self._going, self._ahead = going, ahead
        self._copies: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()
        self._least = 2**62

    def least_known(self) -> int:
        """At least as many as go on after what has been launched until now."""
        on_cuda = self._going.device.type == "cuda"
        copy = torch.empty(self._going.shape, dtype=torch.int64, pin_memory=on_cuda)
        copy.copy_(self._going, non_blocking=True)
        event = None
        if on_cuda:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._copies.append((copy, event))
        while len(self._copies) > self._ahead:
            copy, event = self._copies.popleft()
            if event is not None:
                event.synchronize()
            self._least = int(copy)
        return self._least


def _take(state: DecoderState, slots: Floats, *, visual_tokens: int) -> list[FrameGaze]:
    """The frame's gazes out of what the steps wrote down, (B, S, 4 K + 2); the state moves on."""
    K = (slots.shape[2] - 2) // 4
    size_BS = slots[:, :, -1].astype(np.int64)
    index, kept, probability, loss = (slots[:, :, i * K : (i + 1) * K] for i in range(4))
    # About the loss after a full group the next one's read-out speaks.
    loss[:, :-1, -1] = np.where(size_BS[:, 1:] > 0, slots[:, 1:, -2], np.nan)
    rows = len(slots)
    index_BN, kept_BN = index.reshape(rows, -1).astype(np.int64), kept.reshape(rows, -1) > 0.5
    probability_BN, loss_BN = probability.reshape(rows, -1), loss.reshape(rows, -1)
    read_B = ((size_BS > 0).sum(1) - 1) * K  # all groups but the last
    frames = []
    for row, (read, end) in enumerate(zip(read_B.tolist(), size_BS.sum(1).tolist(), strict=True)):
        state.length[row] += len(state.unfed[row]) + visual_tokens + read
        state.unfed[row] = index_BN[row, read:end][kept_BN[row, read:end]]
        frames.append(
            FrameGaze(
                index_S=index_BN[row, :end],
                kept_S=kept_BN[row, :end],
                probability_S=probability_BN[row, :end],
                predicted_loss_S=loss_BN[row, :end],
            )
        )
    return frames


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Recordings and events belong to the current CUDA device: make it the decoder's."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _rounded(places: int) -> int:
    return -(-places // _PLACES) * _PLACES


def _rows(going: int, clips: int) -> int:
    """The fewest rows of a step that so many clips fit into."""
    rows = clips
    while rows > 1 and rows // _FEWER_ROWS >= going:
        rows //= _FEWER_ROWS
    return rows
