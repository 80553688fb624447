"""The engine equals its definition; batches, streams and budgets change nothing they should not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autogaze.attention import RowByRow, Spans, Together
from autogaze.choosing import FrameGaze, Sampler, choose
from autogaze.engine import Engine
from autogaze.models.autogaze.configuration_autogaze import Positions
from autogaze.models.autogaze.decoding import ClipDecoder
from autogaze.models.autogaze.lockstep import LockstepEngine
from autogaze.models.autogaze.modeling_autogaze import GazeModel
from autogaze.native.engine import NativeEngine
from autogaze.tiled_attention import QUERY_SCALE, Scratch
from naive import naive_gaze, naive_lockstep
from small_models import clips, small_model


def clip_decoder(model: GazeModel, positions: Positions, **options: bool | None) -> ClipDecoder:
    return ClipDecoder(model, engine=Engine(model.gaze_decoder, positions=positions, **options))


def decode(
    model: GazeModel, video: torch.Tensor, *, together=None, positions="true", **options
) -> list[list[FrameGaze]]:
    decoder = clip_decoder(model, positions, together=together)
    options.setdefault("max_gazes_T", [10] * video.shape[1])
    state = decoder.start(len(video), frames=video.shape[1], max_gazes=max(options["max_gazes_T"]))
    return decoder.step(state, video, **options)


def same(a: list[FrameGaze], b: list[FrameGaze]) -> None:
    assert len(a) == len(b)
    for first, second in zip(a, b, strict=True):
        assert first.index_S.tolist() == second.index_S.tolist()
        assert first.kept_S.tolist() == second.kept_S.tolist()
        np.testing.assert_allclose(first.probability_S, second.probability_S, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(first.predicted_loss_S, second.predicted_loss_S, rtol=1e-4, atol=1e-5)


def median_loss(model: GazeModel, video: torch.Tensor) -> float:
    """A threshold that some frames pass early and others late."""
    return float(np.nanmedian(np.concatenate([f.predicted_loss_S for c in decode(model, video) for f in c])))


@pytest.mark.parametrize("positions", ["true", "reference"])
@pytest.mark.parametrize("group_size", [1, 4, 7])
@pytest.mark.parametrize("stop", [False, True])
def test_engine_equals_the_naive_loop(positions, group_size, stop):
    model, video = small_model(group_size=group_size), clips(3)
    threshold = median_loss(model, video) if stop else None
    limits = [20, 3, 9, 1, 10]
    got = decode(model, video, positions=positions, max_gazes_T=limits, threshold=threshold)
    for clip, frames in zip(video, got, strict=True):
        wanted = naive_gaze(model, clip, max_gazes=limits, threshold=threshold, positions=positions)
        assert [(f.index_S.tolist(), f.kept_S.tolist()) for f in frames] == wanted


@pytest.mark.parametrize("positions", ["true", "reference"])
def test_lockstep_equals_its_definition(positions):
    model, video = small_model(), clips(5, frames=6)
    threshold = median_loss(model, video)
    decoder = ClipDecoder(model, engine=LockstepEngine(model.gaze_decoder, positions=positions))
    state = decoder.start(5, frames=6, max_gazes=20)
    got = decoder.step(state, video, max_gazes_T=[20] * 6, threshold=threshold)
    slots = [[(f.index_S.tolist(), f.kept_S.tolist()) for f in clip] for clip in got]
    assert slots == naive_lockstep(model, video, most=20, threshold=threshold, positions=positions)
    alone = decode(model, video, positions=positions, max_gazes_T=[20] * 6, threshold=threshold)
    assert slots != [[(f.index_S.tolist(), f.kept_S.tolist()) for f in clip] for clip in alone]


@pytest.mark.parametrize("together", [False, True])
def test_what_lies_in_unwritten_memory_plays_no_part(together, monkeypatch):
    model, video = small_model(), clips(7)
    threshold = median_loss(model, video)
    clean = decode(model, video, together=together, threshold=threshold)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)  # fills what is allocated and not written with NaN
    try:
        assert torch.empty(3).isnan().all()
        for before, after in zip(clean, decode(model, video, together=together, threshold=threshold), strict=True):
            same(before, after)
    finally:
        torch.use_deterministic_algorithms(False)


def test_position_modes_differ():
    model, video = small_model(), clips(2)
    picks = [
        [f.index_S.tolist() for clip in decode(model, video, positions=positions) for f in clip]
        for positions in ("true", "reference")
    ]
    assert picks[0] != picks[1]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("positions", ["true", "reference"])
def test_a_batch_of_seven_equals_seven_single_runs(together, positions):
    model, video = small_model(), clips(7)
    threshold = median_loss(model, video)
    batch = decode(model, video, together=together, positions=positions, threshold=threshold)
    stops = {len(frame.index_S) for clip in batch for frame in clip}
    assert len(stops) > 1, "the clips should stop at different times, or this test shows nothing"
    for number, clip in enumerate(batch):
        same(clip, decode(model, video[number : number + 1], positions=positions, threshold=threshold)[0])


@pytest.mark.parametrize("rows", [[0, 2, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("heads", [2, 6])  # as many query heads as key heads, and grouped
def test_both_ways_of_attention_agree(rows, heads):
    generator = torch.Generator().manual_seed(0)
    past = torch.randn(2, 4, 2, 30, 8, generator=generator)
    spans = Spans(rows=rows, new=[3, 5, 1, 2][: len(rows)], seen=[10, 30, 1, 2][: len(rows)])
    total = sum(spans.new)
    query = torch.randn(total, heads, 8, generator=generator)
    new = torch.randn(2, total, 2, 8, generator=generator)
    scaled = query * QUERY_SCALE / 8**0.5
    results = []
    for feed in (RowByRow(spans, scratch=Scratch()), Together(spans, device=past.device, cache_rows=4)):
        keys, values = past.clone()
        feed.append(keys, new[0])
        feed.append(values, new[1])
        attended = feed.attend(scaled, keys, values)
        last = torch.tensor(spans.new).cumsum(0) - 1
        torch.testing.assert_close(feed.attend_last(scaled[last], keys, values), attended[last])
        results.append((keys, values, attended))
    torch.testing.assert_close(results[0], results[1])
    # And both equal the definition: token i of a row sees the row up to itself.
    keys, values, attended = results[0]
    start = 0
    for row, count, seen in zip(spans.rows, spans.new, spans.seen, strict=True):
        for i in range(count):
            upto = seen - count + i + 1
            for head in range(heads):
                g = head * 2 // heads
                weight = torch.softmax(keys[row, g, :upto] @ query[start + i, head] / 8**0.5, 0)
                torch.testing.assert_close(attended[start + i, head], weight @ values[row, g, :upto])
        start += count


@pytest.mark.parametrize("positions", ["true", "reference"])
def test_frame_by_frame_equals_the_whole_clip(positions):
    model, video = small_model(), clips(3, frames=6)
    threshold = median_loss(model, video)
    whole = decode(model, video, positions=positions, threshold=threshold)
    decoder = clip_decoder(model, positions)
    for cuts in ([1] * 6, [2, 4], [5, 1]):
        state = decoder.start(3, frames=1, max_gazes=1)  # too small on purpose: the cache must grow
        pieces: list[list[FrameGaze]] = [[], [], []]
        for part in video.split(cuts, dim=1):
            for piece, more in zip(
                pieces,
                decoder.step(state, part, max_gazes_T=[10] * part.shape[1], threshold=threshold),
                strict=True,
            ):
                piece += more
        for piece, clip in zip(pieces, whole, strict=True):
            same(piece, clip)


@pytest.mark.parametrize("capacity", [0, 1, 17])
@pytest.mark.parametrize("head_dim", [8, 32])  # by torch, and compiled where that can be had
def test_a_cache_grows_from_any_size(capacity, head_dim):
    model = small_model(head_dim=head_dim)
    visual_BPC = model.connector(model.vision_model(clips(2, frames=1))[0])[:, 0].detach()
    gazed = []
    for size in (capacity, 999):
        engine = NativeEngine(model.gaze_decoder, positions="true")
        state = engine.start(2, capacity=size)
        gazed.append([engine.decode_frame(state, visual_BPC, max_gazes=12) for _ in range(3)])
    for small, large in zip(*gazed, strict=True):
        same(small, large)


def test_a_clip_in_the_memory_of_another():
    model, video = small_model(), clips(4)
    decoder = clip_decoder(model, "true")
    first = decoder.start(3, frames=5, max_gazes=10)
    decoder.step(first, torch.full_like(video[:3], torch.nan), max_gazes_T=[10] * 5)  # nothing of it may be seen
    again = decoder.start(2, frames=4, max_gazes=10, memory=first)
    assert [keys.data_ptr() for keys in again.decoder.keys] == [keys.data_ptr() for keys in first.decoder.keys]
    for clip, alone in zip(decoder.step(again, video[:2], max_gazes_T=[10] * 5), decode(model, video[:2]), strict=True):
        same(clip, alone)
    for rows, frames in ((4, 5), (3, 50)):
        assert decoder.start(rows, frames=frames, max_gazes=10, memory=again).decoder.keys[0].shape[0] == rows
    assert decoder.start(2, frames=50, max_gazes=10, memory=again).decoder.keys[0] is not again.decoder.keys[0]
    together = clip_decoder(model, "true", together=True).start(2, frames=4, max_gazes=10, memory=again).decoder
    assert not any(cache.any() for cache in (*together.keys, *together.values))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("positions", ["true", "reference"])
def test_rows_that_gaze_by_themselves_equal_clips_of_their_own(together, positions):
    model, video = small_model(), clips(7)
    threshold, limits = median_loss(model, video), [9, 3, 20, 1, 10]
    options = {"together": together, "positions": positions, "threshold": threshold, "max_gazes_T": limits}
    alone = [decode(model, video[clip : clip + 1], **options)[0] for clip in range(7)]
    decoder = clip_decoder(model, positions, together=together)
    visual_BTPC, _ = decoder.encode(video, None)
    state = decoder.start(4, frames=5, max_gazes=20).decoder
    clip_of, frame_of, coming = [0, 1, 2, 3], [0] * 4, [4, 5, 6]
    got: list[list[FrameGaze]] = [[] for _ in range(7)]
    generator, steps = np.random.default_rng(0), 0
    while rows := [row for row in range(4) if frame_of[row] < 5]:
        rows = generator.permutation(rows)[: generator.integers(1, len(rows), endpoint=True)].tolist()
        gazes = decoder.engine.decode_frame(
            state,
            torch.stack([visual_BTPC[clip_of[row], frame_of[row]] for row in rows]),
            max_gazes=np.array([limits[frame_of[row]] for row in rows]),
            threshold=threshold,
            rows=rows,
        )
        for row, gaze in zip(rows, gazes, strict=True):
            got[clip_of[row]].append(gaze)
            frame_of[row] += 1
            if frame_of[row] == 5 and coming:
                clip_of[row], frame_of[row] = coming.pop(), 0
                decoder.engine.restart(state, row)
        steps += 1
    assert steps < 7 * 5, "some passes should be shared"
    for clip in range(7):
        same(got[clip], alone[clip])


def test_rows_that_wait_stay_as_they_are():
    model, video = small_model(), clips(3)
    decoder = clip_decoder(model, "true")
    visual_BTPC, _ = decoder.encode(video, None)
    state = decoder.start(3, frames=5, max_gazes=10).decoder
    decoder.engine.decode_frame(state, visual_BTPC[:, 0], max_gazes=10)
    before, keys = state.fork(), [keys.clone() for keys in state.keys]
    decoder.engine.decode_frame(state, visual_BTPC[[1], 1], max_gazes=10, rows=[1])
    for row in (0, 2):
        assert state.length[row] == before.length[row]
        assert state.unfed[row].tolist() == before.unfed[row].tolist()
        written = slice(before.length[row])  # the rest may be anything, also no number
        assert all(
            torch.equal(now[row, :, written], then[row, :, written]) for now, then in zip(state.keys, keys, strict=True)
        )
    assert state.length[1] > before.length[1]


@pytest.mark.parametrize("together", [False, True])
def test_nothing_of_a_clip_is_left_when_its_row_begins_again(together):
    model, video = small_model(), clips(2)
    decoder = clip_decoder(model, "true", together=together)
    visual_BTPC, _ = decoder.encode(video, None)
    state = decoder.start(2, frames=5, max_gazes=10)
    decoder.step(state, torch.full_like(video, torch.nan), max_gazes_T=[10] * 5)
    for row in range(2):
        decoder.engine.restart(state.decoder, row)
    got: list[list[FrameGaze]] = [[], []]
    for rows in ([0], [0], [0, 1], [0, 1], [0, 1], [1], [1]):  # at different lengths: one reads past its end
        frames = torch.stack([visual_BTPC[row, len(got[row])] for row in rows])
        for row, gaze in zip(
            rows, decoder.engine.decode_frame(state.decoder, frames, max_gazes=10, rows=rows), strict=True
        ):
            got[row].append(gaze)
    for clip, alone in zip(got, decode(model, video), strict=True):
        same(clip, alone)


def test_rows_draw_from_their_own_generators():
    model, video = small_model(), clips(3)
    decoder = clip_decoder(model, "true")
    visual_BTPC, _ = decoder.encode(video, None)
    state = decoder.start(3, frames=1, max_gazes=10).decoder
    got = decoder.engine.decode_frame(
        state, visual_BTPC[[2, 0], 0], max_gazes=10, sampler=sampler(4, 5, 6), rows=[2, 0]
    )
    all_rows = decode(model, video, sampler=sampler(4, 5, 6))
    same(got, [all_rows[2][0], all_rows[0][0]])


@pytest.mark.parametrize(
    ("rows", "frames", "told"),
    [
        ([0, 3], 2, "rows must be one or more of 0…2"),
        ([-1], 1, "rows must be one or more of 0…2"),
        ([1, 1], 2, "none of them twice"),
        ([], 0, "one or more"),
        ([0, 1], 3, "one frame for each of 2 clips that gaze, got 3"),
        (None, 2, "one frame for each of 3 clips that gaze, got 2"),
    ],
)
def test_errors_of_rows(rows, frames, told):
    model = small_model()
    decoder = clip_decoder(model, "true")
    visual_BTPC, _ = decoder.encode(clips(3, frames=1), None)
    state = decoder.start(3, frames=1, max_gazes=10).decoder
    with pytest.raises(ValueError, match=told):
        decoder.engine.decode_frame(state, visual_BTPC[:frames, 0], max_gazes=10, rows=rows)
    assert state.length == [0] * 3


def test_going_on_twice_from_a_forked_state():
    model, video = small_model(), clips(1, frames=4)
    decoder = clip_decoder(model, "true")
    state = decoder.start(1, frames=4, max_gazes=10)
    decoder.step(state, video[:, :2], max_gazes_T=[10, 10])
    middle, other = state.snapshot(), clips(1, frames=2, seed=9)
    first = decoder.step(state, video[:, 2:], max_gazes_T=[10, 10])[0]
    decoder.step(middle.fork(), other, max_gazes_T=[10, 10])
    same(decoder.step(middle.fork(), video[:, 2:], max_gazes_T=[10, 10])[0], first)


@pytest.mark.parametrize("most", [1, 3, 4, 5, 19, 20])
def test_the_limit_is_a_ceiling_and_no_patch_comes_twice(most):
    for frame in decode(small_model(), clips(1), max_gazes_T=[most] * 5)[0]:
        assert len(frame.index_S) == most
        assert len(set(frame.index_S.tolist())) == most
        assert frame.index_S.min() >= 0
        assert frame.index_S.max() < 20


def test_a_limit_past_the_grid_takes_every_patch():
    frame = decode(small_model(), clips(1), max_gazes_T=[99] * 5)[0][0]
    assert sorted(frame.index_S.tolist()) == list(range(20))


def test_a_threshold_that_always_holds_keeps_one_gaze_a_frame():
    for frame in decode(small_model(), clips(1), threshold=1e9)[0]:
        assert frame.kept_S.tolist() == [True, False, False, False]


def test_a_threshold_never_reached_equals_none():
    model, video = small_model(), clips(2)
    for a, b in zip(decode(model, video, threshold=-1e9), decode(model, video), strict=True):
        same(a, b)


def test_the_future_changes_nothing():
    model, video = small_model(), clips(1)
    changed = video.clone()
    changed[:, 3:] = clips(1, seed=5)[:, 3:]
    before, after = decode(model, video)[0], decode(model, changed)[0]
    same(before[:3], after[:3])
    assert before[3].index_S.tolist() != after[3].index_S.tolist()


def test_predicted_loss_is_known_except_after_a_full_last_group():
    frames = decode(small_model(), clips(1), max_gazes_T=[8, 7, 6, 5, 1])[0]
    for frame, unknown in zip(frames, [True, False, False, False, False], strict=True):
        assert np.isnan(frame.predicted_loss_S[-1]) == unknown
        assert np.isfinite(frame.predicted_loss_S[:-1]).all()


def test_changed_weights_are_noticed():
    model, video = small_model(), clips(1)
    decoder = clip_decoder(model, "true")

    def gazes() -> list[list[int]]:
        state = decoder.start(1, frames=5, max_gazes=10)
        return [frame.index_S.tolist() for frame in decoder.step(state, video, max_gazes_T=[10] * 5)[0]]

    before = gazes()
    model.load_state_dict(small_model(seed=7).state_dict())
    changed = gazes()
    assert changed != before
    assert changed == [f.index_S.tolist() for f in decode(small_model(seed=7), video)[0]]


def sampler(*seeds: int, temperature: float = 1.0) -> Sampler:
    return Sampler([torch.Generator().manual_seed(seed) for seed in seeds], temperature=temperature)


def test_sampling_depends_on_the_clips_own_generator_only():
    model, video = small_model(), clips(3)
    batch = decode(model, video, sampler=sampler(4, 5, 6))
    for number, seed in enumerate((4, 5, 6)):
        same(batch[number], decode(model, video[number : number + 1], sampler=sampler(seed))[0])
    other = decode(model, video[:1], sampler=sampler(7))[0]
    assert [f.index_S.tolist() for f in other] != [f.index_S.tolist() for f in batch[0]]


def test_cold_sampling_is_greedy():
    model, video = small_model(), clips(2)
    cold = decode(model, video, sampler=sampler(1, 2, temperature=1e-6))
    for a, b in zip(cold, decode(model, video), strict=True):
        assert [f.index_S.tolist() for f in a] == [f.index_S.tolist() for f in b]


def test_draws_follow_the_masked_softmax_at_the_temperature():
    draws, temperature = 4000, 1.7
    logits = np.array([0.0, 1.0, 2.0, 3.0, 9.0], np.float32)
    taken = np.array([False, False, True, False, True])
    noise = sampler(*range(draws)).noise(range(draws), (1, 5))
    group = choose(
        np.tile(logits, (draws, 1, 1)),
        np.zeros((draws, 1), np.float32),
        np.tile(taken, (draws, 1)),
        np.ones(draws, np.int64),
        first_A=np.ones(draws, bool),
        noise_AKV=noise,
        temperature=temperature,
    )
    weight = np.where(taken, 0, np.exp(logits / temperature))
    expected = weight / weight.sum()
    seen = np.bincount(group.index_AK[:, 0], minlength=5) / draws
    np.testing.assert_allclose(seen, expected, atol=4 * np.sqrt(0.25 / draws))
    np.testing.assert_allclose(group.probability_AK[:, 0], expected[group.index_AK[:, 0]], rtol=1e-5)


@pytest.mark.parametrize("rows_agree", [False, True])
def test_a_group_is_chosen_one_after_the_other(rows_agree):
    generator = np.random.default_rng(0)
    logits = generator.integers(0, 6, (40, 1 if rows_agree else 5, 9)).astype(np.float32)  # many are equal
    logits = np.broadcast_to(logits, (40, 5, 9)).copy()
    taken = generator.random((40, 9)) < 0.3
    taken[:, -1] = True
    taken[:, 0] = False
    group = choose(logits, np.zeros((40, 5), np.float32), taken, np.full(40, 5), first_A=np.ones(40, bool))
    for clip in range(40):
        free = [patch for patch in range(9) if not taken[clip, patch]]
        for i in range(group.size_A[clip]):
            weight = np.exp(logits[clip, i, free])
            best = free[int(weight.argmax())]
            assert group.index_AK[clip, i] == best
            np.testing.assert_allclose(group.probability_AK[clip, i], weight.max() / weight.sum(), rtol=1e-5)
            free.remove(best)
        assert group.size_A[clip] == 5 or not free


def test_probability_leaves_out_what_was_taken():
    logits = np.zeros((1, 3, 5), np.float32)
    taken = np.array([[False, False, False, False, True]])
    group = choose(logits, np.zeros((1, 3), np.float32), taken, np.array([9]), first_A=np.array([True]))
    np.testing.assert_allclose(group.probability_AK[0], [1 / 4, 1 / 3, 1 / 2])
    assert group.index_AK[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_an_illegal_temperature(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        sampler(1, temperature=temperature)


def test_a_sampler_for_another_batch():
    with pytest.raises(ValueError, match="2 generators for 3 clips"):
        decode(small_model(), clips(3), sampler=sampler(1, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_and_reads_out_in_fp32(dtype):
    model, video = small_model().to(dtype), clips(2).to(dtype)
    for clip in decode(model, video):
        for frame in clip:
            assert frame.probability_S.dtype == np.float32
            assert len(frame.index_S) == 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("positions", ["true", "reference"])
def test_cuda_equals_cpu(positions):
    model, video = small_model(), clips(5)
    threshold = median_loss(model, video)
    wanted = decode(model, video, positions=positions, threshold=threshold)
    got = decode(model.cuda(), video.cuda(), positions=positions, threshold=threshold)
    for a, b in zip(wanted, got, strict=True):
        same(a, b)
