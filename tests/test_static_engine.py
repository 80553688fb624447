"""Frames as fixed steps: the gazes of the usual engine, whatever is replayed, shared, moved or fallen back from."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autogaze.choosing import FrameGaze, Sampler
from autogaze.choosing import choose as choose_on_host
from autogaze.models.autogaze.decoding import ClipDecoder
from autogaze.models.autogaze.modeling_autogaze import GazeModel
from autogaze.static import engine as static_engine
from autogaze.static.choose import choose
from autogaze.static.desk import Desk
from autogaze.static.engine import StaticEngine, StaticState
from autogaze.static.graphs import CudaGraphs, StepByStep
from autogaze.static.steps import frame_step, group_step
from small_models import clips, small_model
from test_engine import decode, median_loss, same

TOKENS = 16  # visual tokens of a frame of the small model


class Tape(TorchDispatchMode):
    """The operations of a step with the memory they touch."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor):
                    old.copy_(new)


class Taped:
    """Records a step the first time and from then on does what was recorded where it was, as CUDA graphs do."""

    def __init__(self) -> None:
        self.replays = 0
        self._tapes: dict[Hashable, Tape] = {}

    def begin_clip(self) -> None:
        pass

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        if key in self._tapes:
            self.replays += 1
            self._tapes[key].replay()
        else:
            self._tapes[key] = Tape()
            with self._tapes[key]:
                step()


def static_decoder(model: GazeModel, positions="true") -> ClipDecoder:
    engine = StaticEngine(model.gaze_decoder, positions=positions, visual_tokens=TOKENS, static=True)
    return ClipDecoder(model, engine=engine)


def run(decoder: ClipDecoder, video: torch.Tensor, **options) -> list[list[FrameGaze]]:
    options.setdefault("max_gazes_T", [10] * video.shape[1])
    state = decoder.start(len(video), frames=video.shape[1], max_gazes=max(options["max_gazes_T"]))
    return decoder.step(state, video, **options)


def train(model: GazeModel) -> None:
    """Change the weights as a fused optimiser does: nothing but their values tells."""
    for weight in model.gaze_decoder.parameters():
        version = weight._version
        weight.data.mul_(1.3)
        assert weight._version == version


def all_same(a: list[list[FrameGaze]], b: list[list[FrameGaze]]) -> None:
    assert len(a) == len(b)
    for first, second in zip(a, b, strict=True):
        same(first, second)


@pytest.mark.parametrize("positions", ["true", "reference"])
@pytest.mark.parametrize("group_size", [1, 4, 7])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("count", [1, 9])
def test_steps_give_the_gazes_of_the_usual_engine(positions, group_size, stop, count):
    model, video = small_model(group_size=group_size), clips(count)
    threshold = median_loss(model, video) if stop else None
    options = {"max_gazes_T": [20, 3, 9, 1, 10], "threshold": threshold}
    got = run(static_decoder(model, positions), video, **options)
    all_same(got, decode(model, video, positions=positions, **options))
    if stop and count > 1:
        assert len({len(frame.index_S) for clip in got for frame in clip}) >= 3


@pytest.mark.parametrize("positions", ["true", "reference"])
@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("count", [1, 9])
def test_recorded_steps_serve_other_frames_and_other_clips(positions, stop, count, monkeypatch):
    """A recorded step depends on nothing that the host knew when it was recorded."""
    monkeypatch.setattr(static_engine, "recorder_for", lambda device: Taped())
    model = small_model()
    decoder = static_decoder(model, positions)
    threshold = median_loss(model, clips(9)) if stop else None
    for seed in (1, 2, 3):
        video, limits = clips(count, seed=seed), [[20, 3, 9, 1, 10], [1, 20, 2, 8, 4], [7] * 5][seed - 1]
        got = run(decoder, video, max_gazes_T=limits, threshold=threshold)
        all_same(got, decode(model, video, positions=positions, max_gazes_T=limits, threshold=threshold))
    (station,) = decoder.engine._idle
    assert station.recorder.replays > 10


def test_steps_neither_wait_for_the_device_nor_leave_it():
    """Tensors of the meta device have no values to wait for, and work with none of another device."""
    model = small_model().to("meta")
    desk = Desk.make(model.gaze_decoder, clips=5, capacity=256, visual_tokens=TOKENS, reference=False)
    with torch.inference_mode():
        frame_step(desk, longest=64)
        group_step(desk, rows=5, longest=64)
        group_step(desk, rows=2, longest=64)
    with pytest.raises(RuntimeError, match="meta"):
        desk.going.item()  # what the test would see


@pytest.mark.parametrize("room", ["much", "little", "none"])
@pytest.mark.parametrize("threshold", [None, 0.4])
def test_choice_on_the_device_equals_its_definition(room, threshold):
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(50, 6, 12, generator=generator)
    loss = torch.rand(50, 6, generator=generator)
    loss[7, 2] = torch.nan
    taken = torch.rand(50, 12, generator=generator) < {"much": 0.2, "little": 0.6, "none": 0.9}[room]
    taken[:, 0], taken[:, -1] = False, True
    left = torch.randint(1, 9, (50,), generator=generator)
    for first in (True, False):
        wanted = choose_on_host(
            logits.numpy(), loss.numpy(), taken.numpy(), left.numpy(), first_A=np.full(50, first), threshold=threshold
        )
        level = torch.tensor([0.0 if threshold is None else threshold, threshold is not None])
        got = choose(logits, loss, taken, left, first=torch.tensor([first]), level=level)
        assert got.size_A.tolist() == wanted.size_A.tolist()
        assert got.ended_A.tolist() == wanted.ended_A.tolist()
        assert len(set(wanted.size_A.tolist())) > 1
        for row, size in enumerate(wanted.size_A):
            assert got.index_AK[row, :size].tolist() == wanted.index_AK[row, :size].tolist()
            assert got.kept_AK[row, :size].tolist() == wanted.kept_AK[row, :size].tolist()
            np.testing.assert_allclose(got.probability_AK[row, :size], wanted.probability_AK[row, :size], rtol=1e-5)


def test_frame_by_frame_equals_whole_clips_and_a_fork_goes_its_own_way():
    model, video = small_model(), clips(3, frames=6)
    threshold = median_loss(model, video)
    decoder = static_decoder(model)
    whole = run(decoder, video, threshold=threshold)
    state = decoder.start(3, frames=6, max_gazes=10)
    got = decoder.step(state, video[:, :3], max_gazes_T=[10] * 3, threshold=threshold)
    fork = state.fork()
    for t in range(3, 6):
        more = decoder.step(state, video[:, t : t + 1], max_gazes_T=[10], threshold=threshold)
        got = [before + after for before, after in zip(got, more, strict=True)]
    all_same(got, whole)
    rest = decoder.step(fork, video[:, 3:], max_gazes_T=[10] * 3, threshold=threshold)
    all_same(rest, [clip[3:] for clip in whole])


def test_frames_of_some_rows_between_frames_of_all():
    model, video = small_model(), clips(3, frames=6)
    threshold = median_loss(model, video)
    decoder = static_decoder(model)
    visual_BTPC, _ = decoder.encode(video, None)
    whole = run(static_decoder(model), video, threshold=threshold)
    state = decoder.start(3, frames=2, max_gazes=4).decoder  # too small on purpose: the cache must grow
    assert isinstance(state, StaticState)
    got: list[list[FrameGaze]] = [[] for _ in video]
    for rows in ([0, 1, 2], [1], [2, 0], [0, 1, 2], [2], [0, 1], [0, 1, 2], [0, 1, 2]):
        frames = torch.stack([visual_BTPC[row, len(got[row])] for row in rows])
        named = None if len(rows) == 3 else rows
        gazes = decoder.engine.decode_frame(state, frames, max_gazes=10, threshold=threshold, rows=named)
        for row, gaze in zip(rows, gazes, strict=True):
            got[row].append(gaze)
    all_same(got, whole)


def test_a_snapshot_keeps_its_cache_from_other_clips():
    model, video = small_model(), clips(2, frames=4)
    decoder = static_decoder(model)
    whole = run(decoder, video)
    state = decoder.start(2, frames=4, max_gazes=10)
    decoder.step(state, video[:, :2], max_gazes_T=[10] * 2)
    kept = state.snapshot()
    del state
    run(decoder, clips(2, frames=4, seed=9))  # would write where the snapshot's cache is, were it free
    all_same(decoder.step(kept.fork(), video[:, 2:], max_gazes_T=[10] * 2), [clip[2:] for clip in whole])
    all_same(decoder.step(kept, video[:, 2:], max_gazes_T=[10] * 2), [clip[2:] for clip in whole])


def test_a_station_is_used_again_once_nobody_holds_its_cache():
    model = small_model()
    decoder = static_decoder(model)
    state = decoder.start(2, frames=4, max_gazes=10)
    keys = state.decoder.keys[0]
    other = decoder.start(2, frames=4, max_gazes=10)
    assert other.decoder.keys[0] is not keys
    other_keys = other.decoder.keys[0]
    assert decoder.start(2, frames=4, max_gazes=10, memory=other).decoder.keys[0] is other_keys
    snapshot = state.snapshot()
    del state
    gc.collect()
    assert all(station.desk.keys[0] is not keys for station in decoder.engine._idle)
    del snapshot
    gc.collect()
    assert any(station.desk.keys[0] is keys for station in decoder.engine._idle)


def test_what_a_clip_left_behind_plays_no_part():
    model, video = small_model(), clips(3)
    decoder = static_decoder(model)
    wanted = run(decoder, video)
    (station,) = decoder.engine._idle
    with torch.inference_mode():
        for cache in (*station.desk.keys, *station.desk.values):
            cache.fill_(torch.nan)
    all_same(run(decoder, video), wanted)


def test_a_clip_outgrows_its_desk():
    model, video = small_model(), clips(2, frames=30)
    decoder = static_decoder(model)
    state = decoder.start(2, frames=1, max_gazes=4)
    assert isinstance(state.decoder, StaticState) and state.decoder.keys[0].shape[2] < 30 * TOKENS
    got = decoder.step(state, video, max_gazes_T=[10] * 30)
    all_same(got, decode(model, video, max_gazes_T=[10] * 30))


def test_each_clip_is_decoded_with_the_weights_it_began_with():
    model, video = small_model(), clips(2, frames=4)
    decoder = static_decoder(model)
    old = run(decoder, video)
    state = decoder.start(2, frames=4, max_gazes=10)
    got = decoder.step(state, video[:, :2], max_gazes_T=[10] * 2)
    train(model)
    more = decoder.step(state, video[:, 2:], max_gazes_T=[10] * 2)
    all_same([a + b for a, b in zip(got, more, strict=True)], old)
    del state
    new = run(decoder, video)
    all_same(new, decode(model, video))
    assert [f.index_S.tolist() for f in new[0]] != [f.index_S.tolist() for f in old[0]]


def test_a_fork_keeps_its_weights_when_its_desk_serves_others():
    model, video = small_model(), clips(2, frames=4)
    decoder = static_decoder(model)
    old = run(decoder, video)
    state = decoder.start(2, frames=4, max_gazes=10)
    decoder.step(state, video[:, :2], max_gazes_T=[10] * 2)
    fork, heads = state.fork(), copy.deepcopy(model.gaze_decoder.state_dict())
    del state
    train(model)
    run(decoder, video)
    with torch.no_grad():  # the heads and embeddings are the decoder's own, whatever a clip began with
        for name, weight in model.gaze_decoder.named_parameters():
            if ".layers." not in name:
                weight.copy_(heads[name])
    all_same(decoder.step(fork, video[:, 2:], max_gazes_T=[10] * 2), [clip[2:] for clip in old])


def test_desks_that_the_decoder_cannot_use_any_more_are_given_back():
    model, video = small_model(), clips(2)
    decoder = static_decoder(model)
    run(decoder, video)
    assert len(decoder.engine._idle) == 1
    model.gaze_decoder.half()
    decoder.start(7, frames=1, max_gazes=10)
    gc.collect()
    assert [station.desk.clips for station in decoder.engine._idle] == [7]
    decoder.engine._static = False
    decoder.start(2, frames=1, max_gazes=10)
    assert not decoder.engine._idle


def test_desks_that_wait_make_room_for_one_that_is_needed(monkeypatch):
    model = small_model()
    decoder = static_decoder(model)
    for count in (2, 3):
        run(decoder, clips(count))
    make, idle = Desk.make, decoder.engine._idle

    def make_where_room_is(*args, **options):
        if idle:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(*args, **options)

    assert len(idle) == 2
    monkeypatch.setattr(Desk, "make", make_where_room_is)
    all_same(run(decoder, clips(4)), decode(model, clips(4)))
    assert [station.desk.clips for station in idle] == [4]


def test_a_stream_that_never_ends_changes_its_desk_ever_more_seldom():
    model = small_model()
    decoder = static_decoder(model)
    state, desks = decoder.start(1, frames=1, max_gazes=10), set()
    for seed in range(100):
        decoder.step(state, clips(1, frames=1, seed=seed), max_gazes_T=[10])
        desks.add(state.decoder.keys[0].shape)
    assert max(state.decoder.length) > 2000 and len(desks) <= 5


def test_autocast_of_the_caller_stays_outside():
    model, video = small_model(), clips(2)
    visual_BTPC = model.connector(model.vision_model(video)[0]).detach()
    engine = static_decoder(model).engine
    state, cast = engine.start(2, capacity=100), engine.start(2, capacity=100)
    wanted = engine.decode_frame(state, visual_BTPC[:, 0], max_gazes=10)
    with torch.autocast("cpu", torch.bfloat16):
        got = engine.decode_frame(cast, visual_BTPC[:, 0], max_gazes=10)
    same(got, wanted)


def test_drawn_gazes_are_those_of_the_usual_engine():
    model, video = small_model(), clips(2)

    def sampler() -> Sampler:
        return Sampler([torch.Generator().manual_seed(seed) for seed in (5, 6)], temperature=0.7)

    all_same(run(static_decoder(model), video, sampler=sampler()), decode(model, video, sampler=sampler()))


def test_copies_of_an_engine_share_no_station():
    model, video = small_model(), clips(2)
    decoder = static_decoder(model)
    wanted = run(decoder, video)
    for other in (copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
        assert not other.engine._idle
        all_same(run(other, video), wanted)


def test_without_cuda_the_engine_is_the_usual_one():
    model = small_model()
    engine = StaticEngine(model.gaze_decoder, positions="true", visual_tokens=TOKENS)
    assert not isinstance(engine.start(1, capacity=8), StaticState)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("stop", [False, True])
def test_replayed_graphs_give_the_gazes_of_the_usual_engine(count, stop):
    model = small_model()
    threshold = median_loss(model, clips(9)) if stop else None
    videos = [clips(count, seed=seed) for seed in range(1, 6)]
    wanted = [decode(model, video, threshold=threshold) for video in videos]
    engine = StaticEngine(model.cuda().gaze_decoder, positions="true", visual_tokens=TOKENS)
    decoder = ClipDecoder(model, engine=engine)
    for video, gazes in zip(videos, wanted, strict=True):
        all_same(run(decoder, video.cuda(), threshold=threshold), gazes)
    (station,) = engine._idle
    assert station.recorder.reason is None and station.recorder._graphs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("key_value_heads", [2, 4])  # attention by different kernels
@pytest.mark.parametrize("stop", [False, True])
def test_replayed_graphs_do_exactly_what_was_recorded(dtype, key_value_heads, stop, monkeypatch):
    """Sums are added up in the same order, so nothing is left to chance; also of weights that have changed since."""
    model = small_model(key_value_heads=key_value_heads)
    threshold = median_loss(model, clips(9)) if stop else None
    model.to("cuda", dtype)
    got = []
    for recorder in (StepByStep, CudaGraphs):
        engine = StaticEngine(model.gaze_decoder, positions="true", visual_tokens=TOKENS)
        decoder, own = ClipDecoder(model, engine=engine), copy.deepcopy(model.state_dict())
        monkeypatch.setattr(static_engine, "recorder_for", lambda device, recorder=recorder: recorder())
        videos = [clips(count, seed=seed).to("cuda", dtype) for seed in range(1, 5) for count in (9, 3)]
        got.append([run(decoder, video, threshold=threshold) for video in videos])
        assert all(np.isfinite(f.probability_S).all() for clip in got[-1][0] for f in clip)
        train(model)
        got[-1] += [run(decoder, video, threshold=threshold) for video in videos[:2]]
        model.load_state_dict(own)
    for once, again in zip(*got, strict=True):
        all_same(once, again)
    assert all(station.recorder.reason is None and station.recorder._graphs for station in engine._idle)
