"""The loss of next-token prediction."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from autogaze.algorithms import NTP
from autogaze.algorithms.ntp import NTPLoss, ntp_loss, ntp_sums

GOLDEN = Path(__file__).parent / "data" / "losses" / "losses.safetensors"


def test_equals_the_published_loss() -> None:
    data = load_file(GOLDEN)
    kept = ~data["if_padded_gazing"]
    loss = ntp_loss(
        data["log_action_probs"],
        data["task_loss_prediction"],
        target_loss_BN=data["task_losses"],
        gaze_mask_BN=kept,
        loss_mask_BN=kept & data["task_losses_mask"].bool(),
    )
    torch.testing.assert_close(loss.gaze_B, data["ntp_loss"], atol=1e-5, rtol=0)
    torch.testing.assert_close(loss.loss_B, data["ntp_task_loss_prediction_loss"], atol=1e-5, rtol=0)


def problem(clips: int = 3, gazes: int = 7) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(clips, gazes, 11, generator=rng)
    label = torch.randint(11, (clips, gazes), generator=rng)
    predicted, target = torch.rand(2, clips, gazes, generator=rng)
    return logits, label, predicted, target


def chosen(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, label[..., None])[..., 0]


def on_all(log_probability: torch.Tensor, predicted: torch.Tensor, target: torch.Tensor) -> NTPLoss:
    everything = torch.ones(target.shape, dtype=torch.bool)
    return ntp_loss(log_probability, predicted, target_loss_BN=target, gaze_mask_BN=everything, loss_mask_BN=everything)


def test_equals_cross_entropy_and_squared_error_without_padding() -> None:
    logits, label, predicted, target = problem()
    loss = on_all(chosen(logits, label), predicted, target)
    torch.testing.assert_close(loss.gaze_B.mean(), F.cross_entropy(logits.flatten(0, 1), label.flatten()))
    torch.testing.assert_close(loss.loss_B.mean(), F.mse_loss(predicted, target))


def test_clips_of_different_length_average_over_gazes() -> None:
    logits, label, predicted, target = problem()
    mask = torch.arange(7) < torch.tensor([[7], [2], [4]])
    loss = ntp_loss(chosen(logits, label), predicted, target_loss_BN=target, gaze_mask_BN=mask, loss_mask_BN=mask)
    torch.testing.assert_close(loss.gaze_B.mean(), F.cross_entropy(logits[mask], label[mask]))
    torch.testing.assert_close(loss.loss_B.mean(), F.mse_loss(predicted[mask], target[mask]))


@pytest.mark.parametrize("junk", [0.0, 1e9, float("nan"), float("-inf")])
def test_padding_changes_neither_value_nor_gradient(junk: float) -> None:
    logits, label, predicted, target = problem()
    log_probability = chosen(logits, label)

    def run(padding: int) -> tuple[NTPLoss, list[torch.Tensor]]:
        leaves = [F.pad(x, (0, padding), value=junk).requires_grad_() for x in (log_probability, predicted)]
        mask = F.pad(torch.ones(3, 7, dtype=torch.bool), (0, padding))
        padded = F.pad(target, (0, padding), value=junk)
        loss = ntp_loss(*leaves, target_loss_BN=padded, gaze_mask_BN=mask, loss_mask_BN=mask)
        (loss.gaze_B + loss.loss_B).sum().backward()
        return loss, [leaf.grad for leaf in leaves]

    (plain, plain_grads), (padded, padded_grads) = run(0), run(4)
    torch.testing.assert_close(padded, plain)
    for before, after in zip(plain_grads, padded_grads, strict=True):
        assert torch.equal(after[:, 7:], torch.zeros(3, 4))
        torch.testing.assert_close(after[:, :7], before)


def test_nothing_to_learn_is_loss_zero() -> None:
    _, _, predicted, target = problem()
    nothing = torch.zeros(3, 7, dtype=torch.bool)
    loss = ntp_loss(predicted, predicted, target_loss_BN=target, gaze_mask_BN=nothing, loss_mask_BN=nothing)
    assert loss.gaze_B.tolist() == loss.loss_B.tolist() == [0, 0, 0]


def test_wrong_shapes_and_masks_are_refused() -> None:
    _, _, predicted, target = problem()
    mask = torch.ones(3, 7, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"target_loss_BN must be \(3, 7\).*got \(3, 6\)"):
        ntp_loss(predicted, predicted, target_loss_BN=target[:, :6], gaze_mask_BN=mask, loss_mask_BN=mask)
    with pytest.raises(ValueError, match=r"loss_mask_BN must be bool, got torch\.float32"):
        ntp_loss(predicted, predicted, target_loss_BN=target, gaze_mask_BN=mask, loss_mask_BN=mask.float())


def test_sums_over_parts_divided_by_the_counts_of_all_are_the_loss_of_all() -> None:
    """As processes do it, and passes: values and gradients are those of one batch, however it is cut."""
    logits, label, predicted, target = problem(clips=5)
    mask = torch.arange(7) < torch.tensor([[7], [2], [0], [4], [1]])
    losses = mask & (torch.rand(5, 7, generator=torch.Generator().manual_seed(3)) < 0.6)

    def leaves() -> tuple[torch.Tensor, torch.Tensor]:
        return chosen(logits, label).requires_grad_(), predicted.clone().requires_grad_()

    whole = leaves()
    loss = ntp_loss(*whole, target_loss_BN=target, gaze_mask_BN=mask, loss_mask_BN=losses)
    total = loss.gaze_B.mean() + loss.loss_B.mean()
    total.backward()
    parts = leaves()
    sums = [
        ntp_sums(
            *(leaf[rows] for leaf in parts),
            target_loss_BN=target[rows],
            gaze_mask_BN=mask[rows],
            loss_mask_BN=losses[rows],
        )
        for rows in (slice(0, 1), slice(1, 4), slice(4, 5))
    ]
    gazes = torch.stack([part.gaze_count_B.sum() for part in sums]).sum()
    known = torch.stack([part.loss_count_B.sum() for part in sums]).sum()
    assert (int(gazes), int(known)) == (int(mask.sum()), int(losses.sum()))
    pieces = [part.gaze_B.sum() / gazes + part.loss_B.sum() / known for part in sums]
    for piece in pieces:
        piece.backward()
    torch.testing.assert_close(torch.stack(pieces).sum(), total)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_published_class_equals_the_published_loss() -> None:
    data = load_file(GOLDEN)
    result = NTP(optimize_task_loss_prediction=True)({}, data, data)
    torch.testing.assert_close(result.terms["ntp_loss"], data["ntp_loss"], atol=1e-5, rtol=0)
    head = data["ntp_task_loss_prediction_loss"]
    torch.testing.assert_close(result.terms["task_loss_prediction_loss"], head, atol=1e-5, rtol=0)
    torch.testing.assert_close(result["loss"], data["ntp_loss"] + head, atol=1e-5, rtol=0)
    assert float(result["metrics"]["ntp_loss"]) == pytest.approx(float(data["ntp_loss"].mean()), abs=1e-5)
    alone = NTP()({}, data, {})
    torch.testing.assert_close(alone.loss, data["ntp_loss"], atol=1e-5, rtol=0)
    assert NTP().preprocess_inputs({"video": 3}) == {"video": 3}
    with pytest.raises(KeyError):
        alone["nothing"]


def test_the_published_class_refuses_what_does_not_fit() -> None:
    data = load_file(GOLDEN)
    with pytest.raises(ValueError, match=r"if_padded_gazing must be \(8, 25\) bool"):
        NTP()({}, {**data, "if_padded_gazing": data["if_padded_gazing"].float()}, data)
    with pytest.raises(ValueError, match="without generate_only"):
        NTP()({}, {**data, "log_action_probs": None}, data)
    with pytest.raises(ValueError, match=r"task_losses must be \(8, 25\)"):
        NTP(optimize_task_loss_prediction=True)({}, data, {**data, "task_losses": data["task_losses"][:, 1:]})
