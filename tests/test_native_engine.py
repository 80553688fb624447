"""Compiled decoding equals torch's, and a row's numbers depend on nothing but the row."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from autogaze.choosing import FrameGaze, Sampler
from autogaze.engine import DecoderState, Engine
from autogaze.models.autogaze.configuration_autogaze import GazeDecoderConfig
from autogaze.models.autogaze.decoding import ClipDecoder
from autogaze.models.autogaze.modeling_autogaze import GazeDecoder, GazeModel
from autogaze.native.compiler import NativeError
from autogaze.native.engine import NativeEngine, NativeState
from autogaze.native.library import SWITCH, library, state
from autogaze.tiled_attention import Scratch
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


def random_decoder(**changes: int) -> GazeDecoder:
    sizes = {
        "vocab_size": 37,
        "hidden_size": 52,  # full panels of nothing
        "intermediate_size": 75,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_multi_token_pred": 3,
        "max_position_embeddings": 4096,
    }
    known = {name: value for name, value in (sizes | changes).items() if name in GazeDecoderConfig.__dataclass_fields__}
    decoder = GazeDecoder(GazeDecoderConfig(**known)).eval()
    generator = torch.Generator().manual_seed(0)
    for weight in decoder.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=generator)
    for name, weight in decoder.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(weight, 0.5, 1.5, generator=generator)
    return decoder


def read(engine: Engine, feeds: list[dict[int, int]], *, rows: int, seed: int = 0) -> list[np.ndarray]:
    """What is read out after each feed; a feed says how many tokens each of some rows gets."""
    generator = torch.Generator().manual_seed(seed)
    width = engine.decoder.model.embed_tokens.weight.shape[1]
    tokens = torch.randn(rows, 2000, width, generator=generator)
    memory = engine.start(rows, capacity=64)  # too small for most
    out = []
    with torch.inference_mode():
        for feed in feeds:
            start = [memory.length[row] for row in feed]
            spans = [(row, first, first + new) for (row, new), first in zip(feed.items(), start, strict=True)]
            x_NC = torch.cat([tokens[row, first:end] for row, first, end in spans])
            positions = np.concatenate([np.arange(first, end) for _, first, end in spans])
            said = engine._feed(memory, list(feed), x_NC, list(feed.values()), positions)
            logits, loss = engine._read_out(memory, said)
            out.append(np.concatenate([logits.reshape(len(logits), -1), loss], axis=1))
    return out


ENGINES = (Engine, NativeEngine)
FEEDS = [{0: 1}, {0: 1, 1: 13, 2: 300}, {2: 10}, {1: 206, 0: 126}, {0: 1, 1: 2, 2: 3}, {2: 129}, {0: 48, 1: 49}]


@needs_library
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_hidden_layers": 1},
        {"num_attention_heads": 6},  # three query heads share keys
        {"head_dim": 64, "hidden_size": 33},
        {"head_dim": 96, "num_key_value_heads": 1},
        {"head_dim": 128, "num_attention_heads": 1, "num_key_value_heads": 1},
        {"hidden_size": 192, "intermediate_size": 384, "vocab_size": 266, "num_multi_token_pred": 10},
        {"hidden_size": 7, "intermediate_size": 5, "vocab_size": 2, "num_multi_token_pred": 1},
    ],
)
def test_a_pass_equals_torchs(sizes):
    decoder = random_decoder(**sizes)
    torchs = read(Engine(decoder, positions="true"), FEEDS, rows=3)
    ours = read(NativeEngine(decoder, positions="true"), FEEDS, rows=3)
    for a, b in zip(torchs, ours, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * np.abs(a).max())


@needs_library
def test_it_is_as_exact_as_torch():
    decoder = random_decoder(hidden_size=192, intermediate_size=384)
    feeds = [{0: 206}, {0: 10}, {0: 200}, {0: 10}, {0: 500}]
    got = [read(engine(decoder, positions="true"), feeds, rows=1)[-1] for engine in ENGINES]
    decoder.double()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 2000, 192, generator=generator)[:, :926].double()
    with torch.inference_mode():
        # Frequencies of positions are fp32 everywhere.
        hidden = decoder.model(tokens, torch.arange(926)[None])[0, -1]
        logits = torch.cat([head.weight @ hidden for head in (decoder.lm_head, decoder.task_loss_prediction_head)])
    off = [np.abs(said[0] - logits.numpy()).max() for said in got]
    assert off[1] < 2 * off[0] + 1e-6


@needs_library
@pytest.mark.parametrize("scale", [30.0, 3000.0])
def test_scores_far_apart(scale):
    """Large scores, and the largest of them late: what was weighed before is weighed anew."""
    decoder = random_decoder(num_hidden_layers=2)
    with torch.no_grad():
        for layer in decoder.model.blocks:
            layer.self_attn.q_proj.weight.mul_(scale)
    torchs = read(Engine(decoder, positions="true"), FEEDS, rows=3)
    ours = read(NativeEngine(decoder, positions="true"), FEEDS, rows=3)
    for a, b in zip(torchs, ours, strict=True):
        assert np.isfinite(b).all()
        # Nearly all weight is on one token: rounding of scores decides which of two that are close.
        assert np.median(np.abs(a - b)) < 1e-3 * np.abs(a).max()


@needs_library
def test_gates_far_below_and_above_nothing():
    decoder = random_decoder()
    with torch.no_grad():
        for layer in decoder.model.blocks:
            layer.mlp.gate_proj.weight.mul_(60)  # exponentials beyond fp32, where torch's gates are closed or open
    for torchs, ours in zip(
        *(read(engine(decoder, positions="true"), FEEDS, rows=3) for engine in ENGINES), strict=True
    ):
        np.testing.assert_allclose(torchs, ours, rtol=1e-3, atol=1e-4 * np.abs(torchs).max())


@needs_library
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj"])
def test_what_is_no_number_stays_none(bad, where):
    decoder = random_decoder()
    decoder.model.blocks[0].get_submodule(where).weight.data[0, 0] = bad
    for said in read(NativeEngine(decoder, positions="true"), FEEDS, rows=3):
        assert np.isnan(said).all()


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
def test_a_feed_of_many_rows_is_the_feeds_of_each_to_the_bit():
    decoder = random_decoder(num_attention_heads=6)
    engine = NativeEngine(decoder, positions="true")
    together = read(engine, FEEDS, rows=3)
    for row in range(3):
        alone = read(engine, [{row: feed[row]} for feed in FEEDS if row in feed], rows=3)
        here = [said[list(feed).index(row)] for feed, said in zip(FEEDS, together, strict=True) if row in feed]
        for a, b in zip(alone, here, strict=True):
            np.testing.assert_array_equal(a[0], b)


@needs_library
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(threads):
    engine = NativeEngine(random_decoder(), positions="true")
    before = torch.get_num_threads()
    wanted = read(engine, FEEDS, rows=3)
    try:
        torch.set_num_threads(threads)
        for a, b in zip(wanted, read(engine, FEEDS, rows=3), strict=True):
            np.testing.assert_array_equal(a, b)
    finally:
        torch.set_num_threads(before)


@needs_library
@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 200}, {"intermediate_size": 200, "num_attention_heads": 4}])
def test_no_more_working_memory_is_written_than_was_asked_for(sizes, threads, monkeypatch):
    rooms = []

    class Fenced(Scratch):
        def room(self, size, *, like):
            rooms.append((like.new_full((size + 8192,), 7.0), size))
            return rooms[-1][0][:size]

    monkeypatch.setattr("autogaze.engine.Scratch", Fenced)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        read(NativeEngine(random_decoder(**sizes), positions="true"), FEEDS, rows=3)
    finally:
        torch.set_num_threads(before)
    assert len(rooms) == len(FEEDS)
    for memory, size in rooms:
        assert (memory[size:] == 7).all()


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
    pickled = pickle.dumps(NativeEngine(random_decoder(), positions="true").start(1, capacity=9))
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
