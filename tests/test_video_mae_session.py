"""Frame by frame against the whole clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from autogaze.gaze import Gaze
from autogaze.tasks.video_mae_reconstruction.incremental import VideoMAESession
from video_mae_samples import GRID, LargestTensor, clips, gaze_of, random_cells, small_model

P = GRID.num_patches
T = 5


def cells(gazes: list[Gaze], t: int) -> list[Any]:
    return [gaze[t].index for gaze in gazes]


@pytest.mark.parametrize("batch", [1, 3])
def test_rebuilding_every_frame_equals_the_whole_clip(batch: int) -> None:
    model, video = small_model(), clips(batch, T)
    gazes = [random_cells(T, seed=seed) for seed in range(batch)]
    with torch.no_grad():
        whole = model(video, gazes)
    session = VideoMAESession(model, batch=batch)
    for t in range(T):
        output = session.rebuild(video[:, t], cells(gazes, t))
        torch.testing.assert_close(output.reconstruction[:, 0], whole.reconstruction[:, t], rtol=0, atol=1e-5)
        wanted = whole.loss_each_reconstruction_frame[:, t]
        torch.testing.assert_close(output.loss_each_reconstruction_frame[:, 0], wanted, rtol=0, atol=1e-5)
        assert output.frame_idx_to_reconstruct.tolist() == [t]
    assert session.num_frames == T


def test_frames_may_be_rebuilt_or_only_added() -> None:
    model, video = small_model(), clips(2, T)
    gazes, rebuilt = [random_cells(T, seed=seed) for seed in (4, 5)], [1, 2, 4]
    with torch.no_grad():
        whole = model(video, gazes, rebuilt)
    session = VideoMAESession(model, batch=2)
    for t in range(T):
        if t in rebuilt:
            output = session.rebuild(video[:, t], cells(gazes, t))
            wanted = whole.loss_each_reconstruction_frame[:, rebuilt.index(t)]
            torch.testing.assert_close(output.loss_mean, wanted, rtol=0, atol=1e-5)
        else:
            session.add_frame(video[:, t], cells(gazes, t))


CANDIDATES = torch.tensor([[0, -1, -1], [3, 1, -1], [1, 3, -1], [4, 2, 0], [-1, -1, -1], [2, 2, 2]])


@pytest.mark.parametrize("candidate_batch", [1, 4, 32])
@pytest.mark.parametrize("t", [0, 1, 4])
def test_losses_of_candidates_equal_those_from_scratch(t: int, candidate_batch: int) -> None:
    model, video, past = small_model(), clips(1, t + 1), random_cells(T, seed=7)
    session = VideoMAESession(model)
    for number in range(t):
        session.add_frame(video[:, number], [past[number].index])
    wanted, frames = [], []
    for candidate in CANDIDATES.tolist():
        chosen = [past[number].index for number in range(t)] + [[cell for cell in candidate if cell >= 0]]
        with torch.no_grad():
            output = model(video, gaze_of(chosen), [t])
        wanted.append(output.loss_mean[0])
        frames.append(output.reconstruction[0, 0])
    for _ in range(2):  # trying changes nothing
        got = session.losses(video[:, t], CANDIDATES, candidate_batch=candidate_batch)
        torch.testing.assert_close(got, torch.stack(wanted), rtol=0, atol=1e-5)
    got = session.reconstructions(video[:, t], CANDIDATES, candidate_batch=candidate_batch)
    torch.testing.assert_close(got, torch.stack(frames), rtol=0, atol=1e-5)
    assert got.shape == (len(CANDIDATES), 3, 32, 32)
    session.add_frame(video[:, t], CANDIDATES[1:2])
    assert session.num_frames == t + 1


def test_candidates_of_several_rows_are_those_of_each_row() -> None:
    model, video = small_model(), clips(3, 3)
    gazes = [random_cells(3, seed=seed) for seed in (1, 2, 3)]  # of different numbers
    together = VideoMAESession(model, batch=3)
    alone = [VideoMAESession(model) for _ in range(3)]
    for t in range(2):
        together.add_frame(video[:, t], cells(gazes, t))
        for b in range(3):
            alone[b].add_frame(video[b : b + 1, t], cells(gazes[b : b + 1], t))
    candidates = torch.stack([CANDIDATES, CANDIDATES.flip(0), CANDIDATES.roll(1, 0)])
    got = together.losses(video[:, 2], candidates, candidate_batch=4)
    assert got.shape == (3, len(CANDIDATES))
    assert together.reconstructions(video[:, 2], candidates).shape == (3, len(CANDIDATES), 3, 32, 32)
    for b in range(3):
        wanted = alone[b].losses(video[b : b + 1, 2], candidates[b])
        torch.testing.assert_close(got[b], wanted, rtol=0, atol=1e-5)


def test_after_rebuilt_frames_candidates_see_what_was_rebuilt() -> None:
    model, video, gaze = small_model(), clips(1, 2), gaze_of([[1], [2, 3]])
    session = VideoMAESession(model)
    session.rebuild(video[:, 0], [[1]])
    got = session.losses(video[:, 1], torch.tensor([[2, 3]]))
    with torch.no_grad():
        wanted = model(video, gaze).loss_each_reconstruction_frame[:, 1]
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


def test_half_precision_goes_frame_by_frame_too() -> None:
    model, video, gaze = small_model(initializer_range=0.1), clips(1, 2), gaze_of([[1], [2, 3]])
    with torch.no_grad():
        wanted = model(video, gaze, [1]).loss_mean
    for context in (torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad()):
        with context:
            session = VideoMAESession(model)
            session.add_frame(video[:, 0], torch.tensor([[1]]))
            got = session.losses(video[:, 1], torch.tensor([[2, 3], [0, -1]]))
        torch.testing.assert_close(got[:1].float(), wanted, rtol=0.05, atol=0.05)
        model = model.to(torch.bfloat16)


def test_a_frame_that_fails_leaves_the_session_as_it_was() -> None:
    model, video, gazes = small_model(), clips(2, 2), [gaze_of([[0, 1], [2]]), gaze_of([[3], [4]])]
    session = VideoMAESession(model, batch=2)
    session.add_frame(video[:, 0], cells(gazes, 0))
    handle = model.decoder.decoder_layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.add_frame(video[:, 1], [[0, 1, 2], [3]])
    handle.remove()
    assert session.num_frames == 1
    got = session.rebuild(video[:, 1], cells(gazes, 1)).loss_mean
    with torch.no_grad():
        torch.testing.assert_close(got, model(video, gazes, [1]).loss_mean, rtol=0, atol=1e-5)


def test_nothing_is_tracked_for_gradients() -> None:
    session, frame = VideoMAESession(small_model()), clips(1, 1)[:, 0]
    assert not session.losses(frame, CANDIDATES).requires_grad
    assert not session.rebuild(frame, [[0]]).reconstruction.requires_grad


FRAME = clips(1, 1)[:, 0]


@pytest.mark.parametrize(
    ("frame", "index", "message"),
    [
        (FRAME[0], [[0]], r"pixel_values must be \(1, 3, 32, 32\)"),
        (clips(2, 1)[:, 0], [[0]], "pixel_values must be"),
        (FRAME.to(torch.uint8), [[0]], "normalised floats, got .* torch.uint8"),
        (FRAME, [[0], [1]], r"each of 1 rows.*got \(2, 1\)"),
        (FRAME, [], r"each of 1 rows.*got \(0, 0\)"),
        (FRAME, torch.zeros(1, 2), "int64, got .* torch.float32"),
        (FRAME, [[5]], r"cells must be in 0\.\.4, or negative for padding, got 5"),
    ],
)
def test_frames_that_do_not_fit_are_refused(frame: Tensor, index: Any, message: str) -> None:
    session = VideoMAESession(small_model())
    for commit in (session.add_frame, session.rebuild):
        with pytest.raises(ValueError, match=message):
            commit(frame, index)
    assert session.num_frames == 0


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        (torch.zeros(2, 3, 1, dtype=torch.int64), {}, r"candidates must be \(1, C, k\)"),
        (torch.zeros(3, dtype=torch.int64), {}, "candidates must be"),
        (torch.zeros(0, 2, dtype=torch.int64), {}, "at least one candidate"),
        (torch.tensor([[7]]), {}, r"0\.\.4"),
        (torch.tensor([[1]]), {"candidate_batch": 0}, "candidate_batch must be at least 1, got 0"),
    ],
)
def test_candidates_that_do_not_fit_are_refused(candidates: Tensor, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoMAESession(small_model()).losses(FRAME, candidates, **options)


def test_a_clip_ends_where_the_times_end() -> None:
    session = VideoMAESession(small_model(max_num_frames=1))
    session.add_frame(FRAME, [[0]])
    with pytest.raises(ValueError, match="at most 1 frames, got 2"):
        session.add_frame(FRAME, [[0]])


def test_only_causal_models_go_frame_by_frame() -> None:
    with pytest.raises(ValueError, match="only a causal VideoMAE"):
        VideoMAESession(small_model(causal=False))
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        VideoMAESession(small_model(), batch=0)


def test_the_past_is_not_repeated_for_every_candidate() -> None:
    model, video, C = small_model(time_embed=False), clips(1, 1)[:, 0], 50
    session = VideoMAESession(model)
    for _ in range(60):
        session.add_frame(video, [np.arange(P)])
    with LargestTensor() as largest:
        session.losses(video, torch.arange(P)[:, None].repeat(C // P, 1), candidate_batch=C)
    assert largest.numel < C * 60 * P * min(model.config.hidden_size, model.config.decoder_hidden_size)
