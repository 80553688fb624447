"""One compiled pass through all blocks and heads: torch's numbers, and a row's depend on nothing but the row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autogaze.engine import Engine
from autogaze.models.autogaze.configuration_autogaze import GazeDecoderConfig
from autogaze.models.autogaze.modeling_autogaze import GazeDecoder
from autogaze.native.engine import NativeEngine
from autogaze.native.library import library, state
from autogaze.tiled_attention import Scratch

needs_library = pytest.mark.skipif(library() is None, reason=state())


def random_decoder(**changes: int) -> GazeDecoder:
    sizes = {
        "vocab_size": 37,
        "hidden_size": 52,  # no whole number of panels, as the next
        "intermediate_size": 75,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "num_multi_token_pred": 3,
    }
    decoder = GazeDecoder(GazeDecoderConfig(**(sizes | changes))).eval()
    generator = torch.Generator().manual_seed(0)
    for weight in decoder.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=generator)
    for name, weight in decoder.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(weight, 0.5, 1.5, generator=generator)
    return decoder


def read(engine: Engine, feeds: list[dict[int, int]], *, rows: int) -> list[np.ndarray]:
    """What is read out after each feed; a feed says how many tokens each of some rows gets."""
    generator = torch.Generator().manual_seed(0)
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
