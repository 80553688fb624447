"""Compiled decoding: the decisions of the naive loop, a clip's the same to the bit in any batch; states and weights."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from autogaze.choosing import FrameGaze, Sampler
from autogaze.engine import DecoderState, Engine
from autogaze.models.autogaze.decoding import ClipDecoder
from autogaze.models.autogaze.modeling_autogaze import GazeModel
from autogaze.native.compiler import NativeError
from autogaze.native.engine import NativeEngine, NativeState
from autogaze.native.library import library, state
from autogaze.native.loading import SWITCH
from naive import naive_gaze
from small_models import clips, small_model

needs_library = pytest.mark.skipif(library() is None, reason=state())


def native_model(**options: int) -> GazeModel:
    """A small model whose heads are as wide as compiled code wants them."""
    return small_model(head_dim=32, **options)


def native_decoder(model: GazeModel, positions="true") -> ClipDecoder:
    return ClipDecoder(model, engine=NativeEngine(model.gaze_decoder, positions=positions))


def decode(model: GazeModel, video: torch.Tensor, *, positions="true", **options) -> list[list[FrameGaze]]:
    decoder = native_decoder(model, positions)
    options.setdefault("max_gazes_T", [10] * video.shape[1])
    memory = decoder.start(len(video), frames=video.shape[1], max_gazes=max(options["max_gazes_T"]))
    assert isinstance(memory.decoder, NativeState)
    return decoder.step(memory, video, **options)


def identical(a: list[FrameGaze], b: list[FrameGaze]) -> None:
    """To the bit."""
    assert len(a) == len(b)
    for first, second in zip(a, b, strict=True):
        for name in ("index_S", "kept_S", "probability_S", "predicted_loss_S"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def median_loss(model: GazeModel, video: torch.Tensor) -> float:
    return float(np.nanmedian(np.concatenate([f.predicted_loss_S for c in decode(model, video) for f in c])))


@needs_library
@pytest.mark.parametrize("positions", ["true", "reference"])
@pytest.mark.parametrize("group_size", [1, 4, 7])
@pytest.mark.parametrize("stop", [False, True])
def test_decisions_equal_the_naive_loops(positions, group_size, stop):
    model, video = native_model(group_size=group_size), clips(3)
    threshold = median_loss(model, video) if stop else None
    limits = [20, 3, 9, 1, 10]
    got = decode(model, video, positions=positions, max_gazes_T=limits, threshold=threshold)
    for clip, frames in zip(video, got, strict=True):
        wanted = naive_gaze(model, clip, max_gazes=limits, threshold=threshold, positions=positions)
        assert [(f.index_S.tolist(), f.kept_S.tolist()) for f in frames] == wanted


@needs_library
def test_a_row_is_the_same_to_the_bit_in_any_batch():
    model, video = native_model(), clips(7)
    threshold = median_loss(model, video)
    batch = decode(model, video, threshold=threshold)
    assert len({len(frame.index_S) for clip in batch for frame in clip}) > 1
    for number, clip in enumerate(batch):
        identical(clip, decode(model, video[number : number + 1], threshold=threshold)[0])


@needs_library
def test_frame_by_frame_equals_the_whole_clip_to_the_bit():
    model, video = native_model(), clips(3, frames=6)
    threshold = median_loss(model, video)
    whole = decode(model, video, threshold=threshold)
    decoder = native_decoder(model)
    memory = decoder.start(3, frames=1, max_gazes=1)  # the cache must grow
    pieces: list[list[FrameGaze]] = [[], [], []]
    for part in video.split(1, dim=1):
        for piece, more in zip(pieces, decoder.step(memory, part, max_gazes_T=[10], threshold=threshold), strict=True):
            piece += more
    for piece, clip in zip(pieces, whole, strict=True):
        identical(piece, clip)


@needs_library
def test_what_lies_in_memory_plays_no_part():
    model, video = native_model(), clips(4)
    decoder = native_decoder(model)
    first = decoder.start(4, frames=5, max_gazes=10)
    decoder.step(first, torch.full_like(video, torch.nan), max_gazes_T=[10] * 5)
    with torch.inference_mode():
        for cache in (*first.decoder.keys, *first.decoder.values):
            cache.fill_(torch.nan)
    again = decoder.start(2, frames=4, max_gazes=10, memory=first)
    assert again.decoder.keys[0] is first.decoder.keys[0]
    for clip, alone in zip(decoder.step(again, video[:2], max_gazes_T=[10] * 5), decode(model, video[:2]), strict=True):
        identical(clip, alone)


@needs_library
def test_rows_that_gaze_by_themselves_equal_clips_of_their_own_to_the_bit():
    model, video = native_model(), clips(2)
    decoder = native_decoder(model)
    visual_BTPC, _ = decoder.encode(video, None)
    memory = decoder.start(2, frames=5, max_gazes=10)
    decoder.step(memory, torch.full_like(video, torch.nan), max_gazes_T=[10] * 5)
    for row in range(2):
        decoder.engine.restart(memory.decoder, row)
    got: list[list[FrameGaze]] = [[], []]
    for rows in ([1], [1], [1, 0], [0], [0, 1], [0, 1], [0]):
        frames = torch.stack([visual_BTPC[row, len(got[row])] for row in rows])
        gazes = decoder.engine.decode_frame(memory.decoder, frames, max_gazes=10, rows=rows)
        for row, gaze in zip(rows, gazes, strict=True):
            got[row].append(gaze)
    for clip, alone in zip(got, decode(model, video), strict=True):
        identical(clip, alone)


@needs_library
def test_memory_of_torchs_engine_is_not_taken():
    model = native_model()
    other = ClipDecoder(model, engine=Engine(model.gaze_decoder, positions="true"))
    memory = other.start(2, frames=9, max_gazes=10)
    assert (
        native_decoder(model).start(2, frames=1, max_gazes=1, memory=memory).decoder.keys[0]
        is not memory.decoder.keys[0]
    )


@needs_library
def test_going_on_twice_from_a_forked_state():
    model, video = native_model(), clips(1, frames=4)
    decoder = native_decoder(model)
    memory = decoder.start(1, frames=4, max_gazes=10)
    decoder.step(memory, video[:, :2], max_gazes_T=[10, 10])
    middle = memory.snapshot()
    first = decoder.step(memory, video[:, 2:], max_gazes_T=[10, 10])[0]
    decoder.step(middle.fork(), clips(1, frames=2, seed=9), max_gazes_T=[10, 10])
    identical(decoder.step(middle.fork(), video[:, 2:], max_gazes_T=[10, 10])[0], first)


@needs_library
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_a_copied_state_goes_on(copied):
    model, video = native_model(), clips(1, frames=4)
    decoder = native_decoder(model)
    memory = decoder.start(1, frames=4, max_gazes=10)
    decoder.step(memory, video[:, :2], max_gazes_T=[10, 10])
    other = copied(memory)
    rest = decoder.step(memory, video[:, 2:], max_gazes_T=[10, 10])[0]
    identical(decoder.step(other, video[:, 2:], max_gazes_T=[10, 10])[0], rest)


@needs_library
def test_a_state_of_another_machine(monkeypatch):
    pickled = pickle.dumps(NativeEngine(native_model().gaze_decoder, positions="true").start(1, capacity=9))
    panel = library().panel
    monkeypatch.setenv(SWITCH, "0")
    with pytest.raises(NativeError, match=f"compiled in panels of {panel} cannot go on here, which is torch"):
        pickle.loads(pickled)
    monkeypatch.delenv(SWITCH)
    monkeypatch.setattr(library(), "panel", 8)
    with pytest.raises(NativeError, match="cannot go on here, which is compiled in panels of 8"):
        pickle.loads(pickled)


@needs_library
def test_tokens_of_another_precision_are_refused():
    """Their memory would be read as if it were fp32."""
    model = native_model()
    decoder = native_decoder(model)
    memory = decoder.start(1, frames=2, max_gazes=10)
    with pytest.raises(ValueError, match=r"tokens must be torch\.float32 on the CPU .* got torch\.float64 on cpu"):
        decoder.engine.decode_frame(memory.decoder, torch.zeros(1, 16, 32, dtype=torch.float64), max_gazes=10)


@needs_library
def test_threads_of_python_decode_at_once():
    model, video = native_model(), clips(3)
    decoder = native_decoder(model)

    def run(number: int) -> list[FrameGaze]:
        memory = decoder.start(1, frames=5, max_gazes=10)
        return decoder.step(memory, video[number : number + 1], max_gazes_T=[10] * 5)[0]

    wanted = [run(number) for number in range(3)]
    numbers = [0, 1, 2] * 6
    with ThreadPoolExecutor(3) as pool:
        for number, got in zip(numbers, pool.map(run, numbers), strict=True):
            identical(got, wanted[number])


@needs_library
def test_weights_are_packed_once_and_changes_are_noticed():
    model, video = native_model(), clips(1)
    engine = NativeEngine(model.gaze_decoder, positions="true")
    first, second = engine.start(1, capacity=9), engine.start(2, capacity=9)
    assert first.packed is second.packed
    model.gaze_decoder.lm_head.weight.data.view(-1)[3] += 1  # behind torch's back
    assert engine.start(1, capacity=9).packed is not first.packed
    model.load_state_dict(native_model(seed=7).state_dict())
    decoder = ClipDecoder(model, engine=engine)
    got = decoder.step(decoder.start(1, frames=5, max_gazes=10), video, max_gazes_T=[10] * 5)[0]
    identical(got, decode(native_model(seed=7), video)[0])


@needs_library
def test_a_clip_is_decoded_with_the_weights_that_it_began_with():
    model, video = native_model(), clips(1)
    wanted = decode(model, video)[0]
    decoder = native_decoder(model)
    memory = decoder.start(1, frames=5, max_gazes=10)
    visual_BTPC, _ = decoder.encode(video, None)
    embedding = copy.deepcopy(model.gaze_decoder.model.embed_tokens)
    model.gaze_decoder.load_state_dict(native_model(seed=7).gaze_decoder.state_dict())
    model.gaze_decoder.model.embed_tokens = embedding  # it is read as it is
    got = [decoder.engine.decode_frame(memory.decoder, visual_BTPC[:, t], max_gazes=10)[0] for t in range(5)]
    identical(got, wanted)


@needs_library
def test_copies_of_an_engine_pack_for_themselves():
    engine = NativeEngine(native_model().gaze_decoder, positions="true")
    packed = engine.start(1, capacity=9).packed
    for other in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert other._kept is None
        assert torch.equal(other.start(1, capacity=9).packed.heads, packed.heads)


@needs_library
def test_sampling_draws_the_same():
    model, video = native_model(), clips(2)
    torchs = ClipDecoder(model, engine=Engine(model.gaze_decoder, positions="true"))

    def drawn(decoder: ClipDecoder) -> list[list[int]]:
        sampler = Sampler([torch.Generator().manual_seed(seed) for seed in (1, 2)], temperature=1.0)
        memory = decoder.start(2, frames=5, max_gazes=10)
        got = decoder.step(memory, video, max_gazes_T=[10] * 5, sampler=sampler)
        return [frame.index_S.tolist() for clip in got for frame in clip]

    assert drawn(native_decoder(model)) == drawn(torchs)


@pytest.mark.parametrize(
    "why",
    [
        *("narrow heads", "heads too wide", "half precision", "double precision", "one weight in half precision"),
        *("together", "switched off"),
    ],
)
def test_where_torch_decodes(why, monkeypatch):
    head_dim = {"narrow heads": 8, "heads too wide": 160}.get(why, 32)
    model = small_model(head_dim=head_dim)
    if why == "half precision":
        model.bfloat16()
    if why == "double precision":
        model.double()
    if why == "one weight in half precision":
        model.gaze_decoder.model.blocks[1].mlp.down_proj.bfloat16()
    if why == "switched off":
        monkeypatch.setenv(SWITCH, "0")
    engine = NativeEngine(model.gaze_decoder, positions="true", together=True if why == "together" else None)
    memory = engine.start(2, capacity=99)
    assert type(memory) is DecoderState
    assert memory.weights
