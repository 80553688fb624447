"""Scoring gazes: under the policy that drew them, as published, and with targets other than the gazes read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autogaze.choosing import Sampler
from autogaze.engine import Engine
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.decoding import ClipDecoder
from autogaze.models.autogaze.modeling_autogaze import GazeModel, TeacherForcing
from autogaze.models.autogaze.scoring import Policy
from small_models import clips, small_config, small_model

COUNTS = [7, 1, 5, 20, 2]
P = 20  # patches of a frame


def drawn(
    model: GazeModel, *, counts: list[int], temperature: float, seeds: range = range(3)
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, N) gazes of :func:`clips` drawn by the engine, and the log of the probabilities it says they had."""
    decoder = ClipDecoder(model, engine=Engine(model.gaze_decoder, positions="true"))
    state = decoder.start(len(seeds), frames=len(counts), max_gazes=max(counts))
    sampler = Sampler([torch.Generator().manual_seed(seed) for seed in seeds], temperature=temperature)
    frames = decoder.step(state, clips(len(seeds), len(counts)), max_gazes_T=counts, sampler=sampler)
    index = np.stack([np.concatenate([frame.index_S for frame in clip]) for clip in frames])
    probability = np.stack([np.concatenate([frame.probability_S for frame in clip]) for clip in frames])
    return torch.from_numpy(index), torch.from_numpy(probability).log()


def score(model: GazeModel, index_BN: torch.Tensor, counts: list[int], **options: object) -> TeacherForcing:
    kept_BN = torch.ones_like(index_BN, dtype=torch.bool)
    return model(clips(len(index_BN), len(counts)), index_BN, kept_BN, counts, **options)  # type: ignore[no-any-return]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("group_size", [1, 4, 10])
def test_equals_what_the_engine_says_of_its_draws(group_size: int, temperature: float) -> None:
    model = small_model(group_size=group_size)
    index_BN, log_BN = drawn(model, counts=COUNTS, temperature=temperature)
    with torch.no_grad():
        scored = score(model, index_BN, COUNTS, policy=Policy(temperature=temperature))
        published = score(model, index_BN, COUNTS)
    torch.testing.assert_close(scored.log_probability_BN, log_BN, atol=1e-4, rtol=0)
    assert (published.log_probability_BN - log_BN).abs().max() > 0.1
    # All 20 patches of the fourth frame were gazed at: the last was the only choice.
    torch.testing.assert_close(scored.log_probability_BN[:, 32], torch.zeros(3))


@torch.no_grad()
def naive_log_probabilities(
    model: GazeModel, index_N: list[int], target_N: list[int], counts: list[int], temperature: float
) -> list[float]:
    """The definition for clip 0, slot by slot in double precision, everything read anew for every group."""
    decoder, K = model.gaze_decoder, model.gaze_decoder.group_size
    tokens: list[torch.Tensor] = []
    result, slot = [], 0
    for visual, count in zip(model.connector(model.vision_model(clips(1, len(counts)))[0])[0], counts, strict=True):
        tokens += [*visual]
        frame, targets = index_N[slot : slot + count], target_N[slot : slot + count]
        for start in range(0, count, K):
            hidden = decoder.model(torch.stack(tokens)[None], torch.arange(len(tokens))[None])[0, -1]
            logits = decoder.read_out(hidden)[0].double().tolist()
            for head, target in enumerate(targets[start : start + K]):
                closed = {P, *frame[:start], *targets[start : start + head]}
                weights = {v: math.exp(logits[head][v] / temperature) for v in range(P + 1) if v not in closed}
                share = weights.get(target, 0.0) / sum(weights.values())
                result.append(math.log(share) if share else -math.inf)
            tokens += [*decoder.model.embed_tokens(torch.tensor(frame[start : start + K]))]
        slot += count
    return result


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_targets_equal_the_definition(temperature: float) -> None:
    model, rng = small_model(group_size=4), np.random.default_rng(5)
    index, target = [], []
    for count in COUNTS:
        frame = rng.permutation(P)[:count].tolist()
        index += frame
        for start in range(0, count, 4):
            left = [patch for patch in range(P) if patch not in frame[:start]]
            target += rng.permutation(left)[: min(4, count - start)].tolist()
    expected = naive_log_probabilities(model, index, target, COUNTS, temperature)
    with torch.no_grad():
        options = {"target_BN": torch.tensor([target]), "policy": Policy(temperature=temperature)}
        scored = score(model, torch.tensor([index]), COUNTS, **options)
        own = score(model, torch.tensor([index]), COUNTS, policy=Policy(temperature=temperature))
    torch.testing.assert_close(scored.log_probability_BN[0], torch.tensor(expected), atol=2e-5, rtol=0)
    # The losses are those after the gazes that were read, whatever the targets.
    assert torch.equal(scored.predicted_loss_BN, own.predicted_loss_BN)


def test_targets_equal_to_the_gazes_change_nothing() -> None:
    model = small_model()
    index_BN, _ = drawn(model, counts=COUNTS, temperature=1.0)
    for policy in (None, Policy(temperature=0.7)):
        with torch.no_grad():
            alone = score(model, index_BN, COUNTS, policy=policy)
            same = score(model, index_BN, COUNTS, policy=policy, target_BN=index_BN.clone())
        assert torch.equal(alone.log_probability_BN, same.log_probability_BN)


def test_without_a_policy_targets_are_scored_among_all_entries() -> None:
    """A head's probabilities of all entries, one target after the other, sum to 1."""
    model = small_model()
    index_BN, _ = drawn(model, counts=COUNTS, temperature=1.0, seeds=range(1))
    with torch.no_grad():
        each = [score(model, index_BN, COUNTS, target_BN=torch.full_like(index_BN, v)) for v in range(P + 1)]
        total = torch.stack([scored.log_probability_BN for scored in each]).logsumexp(0)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-5, rtol=0)


def test_under_the_policy_only_what_is_open_has_probability() -> None:
    model = small_model(group_size=4)
    index_BN, _ = drawn(model, counts=COUNTS, temperature=1.0, seeds=range(1))
    slot = 33 + 1  # the second gaze of the fifth frame
    with torch.no_grad():
        logs = []
        for v in range(P + 1):
            target_BN = index_BN.clone()
            target_BN[0, slot] = v
            scored = score(model, index_BN, COUNTS, target_BN=target_BN, policy=Policy())
            logs.append(float(scored.log_probability_BN[0, slot]))
    closed = {P, int(index_BN[0, slot - 1])}
    assert sum(math.exp(log) for log in logs) == pytest.approx(1, abs=1e-5)
    assert {v for v, log in enumerate(logs) if log < -1e29} == closed


@pytest.mark.parametrize("junk", [0, P, -7, 10**6])
def test_padding_changes_neither_value_nor_gradient(junk: int) -> None:
    """Frames of 3 and 2 gazes with 6 slots each, against frames without padding."""
    model = small_model(group_size=4)
    index_BN, _ = drawn(model, counts=[3, 2], temperature=1.0)
    target_BN = index_BN.flip(0)
    wide = torch.full((3, 12), junk)
    places = torch.tensor([0, 1, 2, 6, 7])
    index, target = wide.index_copy(1, places, index_BN), wide.index_copy(1, places, target_BN)
    kept = torch.zeros(3, 12, dtype=torch.bool).index_fill(1, places, True)
    gradients = []
    for scored, mask in (
        (score(model, index_BN, [3, 2], target_BN=target_BN, policy=Policy()), torch.ones(3, 5, dtype=torch.bool)),
        (model(clips(3, 2), index, kept, [6, 6], target_BN=target, policy=Policy()), kept),
    ):
        model.zero_grad()
        total = scored.log_probability_BN.clamp(min=-50).masked_fill(~mask, 0).sum()
        (total + scored.predicted_loss_BN.masked_fill(~mask, 0).square().sum()).backward()
        gradients.append([total.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for plain, padded in zip(*gradients, strict=True):
        assert (padded - plain).norm() <= 1e-5 * plain.norm() + 1e-6


def test_what_stands_in_padding_can_still_be_chosen() -> None:
    """A frame whose second slot is padding, and whose second group gazes at what stands there."""
    model = small_model(group_size=4)
    kept_BN = torch.tensor([[True, False, True, True, True, True]])
    with torch.no_grad():
        same, other = (
            model(clips(1, 1), torch.tensor([[3, padding, 5, 6, 8, 9]]), kept_BN, [6], policy=Policy())
            for padding in (8, 11)
        )
    assert same.log_probability_BN[0, 4] > -50
    torch.testing.assert_close(same.log_probability_BN[kept_BN], other.log_probability_BN[kept_BN])


def test_where_nothing_is_open_numbers_and_gradients_are_finite() -> None:
    """Slots past the last patch of a frame: nothing is left to choose there."""
    model = small_model(group_size=4)
    index_BN = torch.cat([torch.randperm(P, generator=torch.Generator().manual_seed(0)), torch.zeros(4).long()])[None]
    kept_BN = torch.arange(24)[None] < P
    scored = model(clips(1, 1), index_BN, kept_BN, [24], policy=Policy())
    assert bool(scored.log_probability_BN.isfinite().all())
    scored.log_probability_BN.masked_fill(~kept_BN, 0).sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)


def test_unknown_targets_take_nothing_and_targets_may_stand_in_padding() -> None:
    model = small_model(group_size=4)
    index_BN, kept_BN = torch.tensor([[3, 8, 0, 0]]), torch.tensor([[True, True, False, False]])
    target_BN, known_BN = torch.tensor([[5, 7, 9, 11]]), torch.tensor([[True, False, True, True]])
    with torch.no_grad():
        scored, naive = (
            model(clips(1, 1), index_BN, kept_BN, [4], target_BN=target_BN, known_BN=known_BN, policy=Policy()),
            naive_log_probabilities(model, [3, 8, 0, 0], [5, 5, 9, 11], [4], 1.0),
        )
        repeated = naive_log_probabilities(model, [3, 8, 0, 0], [5, 7, 9, 11], [4], 1.0)
    got = scored.log_probability_BN[0].tolist()
    assert got[2:] == pytest.approx(naive[2:], abs=1e-5)  # 7 was not known, so it could still be chosen
    assert got[2] != pytest.approx(repeated[2], abs=1e-6)


def test_a_group_of_gazes_of_each_clip_reads_the_clips_once() -> None:
    model = small_model()
    index_BN, _ = drawn(model, counts=COUNTS, temperature=1.0, seeds=range(6))
    kept_BN = torch.ones_like(index_BN, dtype=torch.bool)
    video = clips(2, 5)
    with torch.no_grad():
        once = model(video, index_BN, kept_BN, COUNTS, policy=Policy())
        thrice = model(video.repeat(3, 1, 1, 1, 1), index_BN, kept_BN, COUNTS, policy=Policy())
    torch.testing.assert_close(once.log_probability_BN, thrice.log_probability_BN, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="6 rows of gazes are not a multiple of 4 clips"):
        model(clips(4), index_BN, kept_BN, COUNTS)


def test_the_model_people_load_scores_under_a_policy() -> None:
    model = AutoGaze(small_config(), positions="true").eval()
    rgb = torch.randint(0, 256, (2, 4, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    gazes = model.gaze_batch(rgb, ratio=0.4, temperature=2.0, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        scored = model.score(rgb, gazes, policy=Policy(temperature=2.0))
    expected = torch.from_numpy(np.stack([gaze.probability for gaze in gazes])).log()
    torch.testing.assert_close(scored.log_probability_BN, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperatures_that_mean_nothing_are_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        Policy(temperature=temperature)
