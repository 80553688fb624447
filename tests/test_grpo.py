"""Group-relative policy optimisation: the published numbers, its invariances, and that it learns."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from autogaze.algorithms import GRPO
from autogaze.algorithms.grpo import discounted_advantages, group_advantages, grpo_loss
from autogaze.algorithms.stop_head import last_gaze_targets

GOLDEN = Path(__file__).parent / "data" / "losses" / "losses.safetensors"


def golden() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    data = load_file(GOLDEN)
    ends = data["num_gazing_each_frame"].cumsum(0)[data["reward_frames"]]
    return data, {**data, "traj_len_each_reward": ends}


def random_problem(*, group: int = 4, clips: int = 3, counts: tuple[int, ...] = (3, 5, 2)) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    B, N = group * clips, sum(counts)
    return {
        "log_BN": torch.randn(B, N, generator=rng) - 2,
        "kept_BN": torch.rand(B, N, generator=rng) < 0.7,
        "reward_BF": -torch.rand(B, len(counts), generator=rng),
        "end_F": torch.tensor(counts).cumsum(0),
    }


def gradient(problem: dict[str, Tensor], *, group: int = 4, discount: float = 0.9) -> tuple[Tensor, Tensor]:
    """Loss (B,) and the gradient of its sum."""
    log_BN = problem["log_BN"].clone().requires_grad_()
    advantage_BN = discounted_advantages(
        group_advantages(problem["reward_BF"], group_size=group),
        kept_BN=problem["kept_BN"],
        end_F=problem["end_F"],
        discount=discount,
    )
    loss_B = grpo_loss(log_BN, advantage_BN=advantage_BN, kept_BN=problem["kept_BN"])
    loss_B.sum().backward()
    return loss_B.detach(), log_BN.grad


def test_equals_the_published_loss_and_gradient() -> None:
    data, task = golden()
    log_BN = data["log_action_probs"].requires_grad_()
    result = GRPO(4, 0.995, optimize_task_loss_prediction=True)({}, {**data, "log_action_probs": log_BN}, task)
    head = data["grpo_task_loss_prediction_loss"]
    torch.testing.assert_close(result.terms["grpo_loss"], data["grpo_loss"], atol=1e-5, rtol=0)
    torch.testing.assert_close(result.terms["task_loss_prediction_loss"], head, atol=1e-5, rtol=0)
    torch.testing.assert_close(result["loss"], data["grpo_loss"] + head, atol=1e-5, rtol=0)
    result.terms["grpo_loss"].sum().backward()
    torch.testing.assert_close(log_BN.grad, data["grpo_grad_log_action_probs"], atol=1e-5, rtol=0)
    alone = GRPO(group_size=4, discount_factor=0.995)({}, data, task)
    torch.testing.assert_close(alone.loss, data["grpo_loss"], atol=1e-5, rtol=0)
    assert set(alone.metrics) == {"grpo_loss"} and not alone["metrics"]["grpo_loss"].requires_grad


def test_equals_the_definition_sample_by_sample() -> None:
    problem = random_problem()
    _, grad_BN = gradient(problem)
    kept, reward, ends = problem["kept_BN"], problem["reward_BF"], problem["end_F"].tolist()
    for b, n in itertools.product(range(12), range(10)):
        expected = 0.0
        for f, end in enumerate(ends):
            group = [float(reward[sample, f]) for sample in range(b % 3, 12, 3)]
            if kept[b, n] and n < end:
                later = sum(bool(kept[b, m]) for m in range(n + 1, end))
                expected += (float(reward[b, f]) - sum(group) / 4) * 0.9**later
        assert float(grad_BN[b, n]) == pytest.approx(-expected, abs=1e-6)


def test_what_all_samples_of_a_clip_share_changes_nothing() -> None:
    problem = random_problem()
    shift_CF = torch.tensor([[5.0, -3.0, 0.0], [1.0, 1.0, 1.0], [-40.0, 2.0, 7.0]])
    shifted = {**problem, "reward_BF": problem["reward_BF"] + shift_CF.repeat(4, 1)}
    torch.testing.assert_close(gradient(shifted), gradient(problem), atol=1e-5, rtol=0)


def test_twice_the_reward_is_twice_the_gradient() -> None:
    """Rewards are not divided by their deviation."""
    problem = random_problem()
    twice = {**problem, "reward_BF": 2 * problem["reward_BF"]}
    torch.testing.assert_close(gradient(twice)[1], 2 * gradient(problem)[1])


def test_a_group_of_equal_rewards_has_no_gradient() -> None:
    problem = random_problem()
    problem["reward_BF"][[0, 3, 6, 9]] = -0.25  # the samples of clip 0
    _, grad_BN = gradient(problem)
    assert grad_BN[[0, 3, 6, 9]].abs().max() < 1e-7
    assert grad_BN[[1, 4, 7, 10]].abs().max() > 0.1


@pytest.mark.parametrize("junk", [0.0, 1e9, float("nan"), float("-inf")])
def test_padding_gets_no_gradient_and_changes_nothing(junk: float) -> None:
    problem = random_problem()
    filled = {**problem, "log_BN": problem["log_BN"].masked_fill(~problem["kept_BN"], junk)}
    (loss_B, grad_BN), (junk_loss_B, junk_grad_BN) = gradient(problem), gradient(filled)
    assert torch.equal(loss_B, junk_loss_B) and torch.equal(grad_BN, junk_grad_BN)
    assert (grad_BN[~problem["kept_BN"]] == 0).all()


def test_the_discount_counts_kept_gazes_only() -> None:
    """The same gazes with padding strewn in between have the same gradients."""
    rng = torch.Generator().manual_seed(2)
    tight = {
        "log_BN": torch.randn(4, 6, generator=rng),
        "kept_BN": torch.ones(4, 6, dtype=torch.bool),
        "reward_BF": torch.randn(4, 2, generator=rng),
        "end_F": torch.tensor([2, 6]),
    }
    places = torch.tensor([1, 3, 5, 6, 8, 10])  # frames of 5 and 7 slots
    loose = {
        **tight,
        "log_BN": torch.zeros(4, 12).index_copy(1, places, tight["log_BN"]),
        "kept_BN": torch.zeros(4, 12, dtype=torch.bool).index_fill(1, places, True),
        "end_F": torch.tensor([5, 12]),
    }
    torch.testing.assert_close(gradient(loose)[1][:, places], gradient(tight)[1])
    # The last gaze of the second frame is not discounted, the first of the first frame by what follows in its frame.
    only_last = {**tight, "reward_BF": tight["reward_BF"][:, 1:], "end_F": tight["end_F"][1:]}
    ratio = gradient(only_last)[1] / gradient(only_last)[1][:, -1:]
    torch.testing.assert_close(ratio[0], 0.9 ** torch.arange(5.0, -1, -1))


def test_gazes_after_a_rewarded_frame_have_nothing_of_its_reward() -> None:
    problem = random_problem()
    first = {**problem, "reward_BF": problem["reward_BF"][:, :1], "end_F": problem["end_F"][:1]}
    _, grad_BN = gradient(first)
    assert (grad_BN[:, 3:] == 0).all() and (grad_BN[:, :3] != 0).any()


def test_rewarded_frames_add_up_in_any_order() -> None:
    problem = random_problem()
    every = gradient(problem)[1]
    single = [
        gradient({**problem, "reward_BF": problem["reward_BF"][:, f : f + 1], "end_F": problem["end_F"][f : f + 1]})[1]
        for f in (2, 0, 1)
    ]
    torch.testing.assert_close(sum(single), every)


def test_over_all_groups_that_could_be_drawn_it_is_the_gradient_of_the_expected_reward() -> None:
    """Exact, by enumeration: with the sample's own reward in the mean it is (G − 1) / G of it a sample."""
    value_V, group = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64), 3
    logit_V = torch.tensor([0.2, 0.7, -0.4], dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad((logit_V.softmax(0) * value_V).sum(), logit_V)
    total = torch.zeros(3, dtype=torch.float64)
    for draws in itertools.product(range(3), repeat=group):
        log_B = logit_V.log_softmax(0)[list(draws)]
        advantage_BN = group_advantages(value_V[list(draws)][:, None], group_size=group)
        loss = grpo_loss(log_B[:, None], advantage_BN=advantage_BN, kept_BN=torch.ones(group, 1, dtype=torch.bool))
        (grad,) = torch.autograd.grad(loss.sum(), logit_V)
        total -= log_B.detach().exp().prod() * grad
    torch.testing.assert_close(total, (group - 1) * expected)


def test_it_learns_where_to_look() -> None:
    """Two clips of two frames; a gaze is worth what its patch is worth in all frames from its own on."""
    rng = torch.Generator().manual_seed(0)
    value_CTV = torch.rand(2, 2, 6, generator=rng)
    logit_CTV = torch.zeros(2, 2, 6, requires_grad=True)
    optimizer, group = torch.optim.Adam([logit_CTV], lr=0.1), 12
    kept_BN = torch.ones(2 * group, 2, dtype=torch.bool)

    def worth(gaze_BN: Tensor) -> Tensor:
        clip = torch.arange(len(gaze_BN)) % 2
        first = value_CTV[clip, 0, gaze_BN[:, 0]]
        return torch.stack([first, value_CTV[clip, 1, gaze_BN[:, 1]] + first], 1)

    for _ in range(150):
        log_CTV = logit_CTV.log_softmax(-1)
        draws = torch.multinomial(log_CTV.detach().exp().flatten(0, 1), group, replacement=True, generator=rng)
        gaze_BN = draws.view(2, 2, group).permute(2, 0, 1).reshape(-1, 2)
        log_BN = log_CTV.repeat(group, 1, 1).gather(-1, gaze_BN[..., None])[..., 0]
        outputs = {"log_action_probs": log_BN, "if_padded_gazing": ~kept_BN}
        task = {"reward": worth(gaze_BN), "traj_len_each_reward": [1, 2]}
        result = GRPO(group, 0.995)({}, outputs, task)
        optimizer.zero_grad()
        result.loss.mean().backward()
        optimizer.step()
    chance = logit_CTV.detach().softmax(-1).gather(-1, value_CTV.argmax(-1, keepdim=True))
    assert (chance > 0.9).all()


def test_inputs_are_repeated_sample_after_sample() -> None:
    inputs = {"video": torch.arange(6).view(2, 3), "names": ["a", "b"], "pair": (1, 2)}
    repeated = GRPO(3, 0.9).preprocess_inputs(inputs)
    assert repeated["video"].tolist() == [[0, 1, 2], [3, 4, 5]] * 3
    assert repeated["names"] == ["a", "b"] * 3 and repeated["pair"] == (1, 2) * 3
    assert repeated["group_size"] == 3
    assert inputs["names"] == ["a", "b"] and "group_size" not in inputs
    with pytest.raises(TypeError, match=r"inputs\['path'\] must be a tensor or a list to repeat, got str"):
        GRPO(3, 0.9).preprocess_inputs({"path": "x"})


def test_stop_targets_are_at_the_last_kept_gaze_of_judged_frames() -> None:
    kept_BN = torch.tensor([[1, 1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 1, 1]]).bool()
    loss_BF = torch.tensor([[0.5, 0.25], [0.125, 0.75]], requires_grad=True)
    targets = last_gaze_targets(
        loss_BF, frame_idx_F=torch.tensor([1, 0]), kept_BN=kept_BN, count_T=torch.tensor([3, 2, 2])
    )
    # Clip 1 has no gaze in frame 1, so nothing is known there.
    assert targets.mask_BN.int().tolist() == [[0, 1, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]
    assert targets.loss_BN.tolist() == [[0, 0.25, 0, 0.5, 0, 0, 0], [0.75, 0, 0, 0, 0, 0, 0]]
    assert not targets.loss_BN.requires_grad


def test_what_does_not_fit_is_refused() -> None:
    problem = random_problem()
    reward, kept = problem["reward_BF"], problem["kept_BN"]
    with pytest.raises(ValueError, match=r"got \(12, 3\) for a group_size of 5"):
        group_advantages(reward, group_size=5)
    with pytest.raises(ValueError, match=r"discount must be from 0 to 1, got 1\.5"):
        discounted_advantages(reward, kept_BN=kept, end_F=problem["end_F"], discount=1.5)
    with pytest.raises(ValueError, match=r"advantage_BF must be \(12, 2\), got \(12, 3\)"):
        discounted_advantages(reward, kept_BN=kept, end_F=problem["end_F"][:2], discount=0.9)
    with pytest.raises(ValueError, match=r"advantage_BN must be \(12, 10\) like log_probability_BN"):
        grpo_loss(problem["log_BN"], advantage_BN=reward, kept_BN=kept)
    with pytest.raises(ValueError, match="kept_BN must be bool"):
        grpo_loss(problem["log_BN"], advantage_BN=problem["log_BN"], kept_BN=kept.float())
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        GRPO(0, 0.9)
    with pytest.raises(ValueError, match=r"discount_factor must be from 0 to 1, got -0\.1"):
        GRPO(2, -0.1)
