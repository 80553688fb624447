"""Group-relative policy optimisation of gazes: pure functions of tensors, and the published class on top of them.

After GRPO (Shao et al. 2024) with the changes of Dr. GRPO (Liu et al. 2025): a group's rewards are not divided by
their deviation, a sample's loss not by its length. It is on-policy, so there is no clipping, and there is no KL term.

Shape letters: G samples of each clip, C clips, B = G · C samples in the order sample · C + clip, T frames, F frames
that are rewarded, N gazes of all frames, padding included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from autogaze.algorithms.result import AlgorithmResult, Outputs, gaze_mask
from autogaze.algorithms.stop_head import published_stop_loss


def group_advantages(reward_BF: Tensor, *, group_size: int) -> Tensor:
    """(B, F) how much better each sample of a clip did in each frame than the clip's samples do on average.

    Raises:
        ValueError: the samples are not whole groups.
    """
    if reward_BF.ndim != 2 or group_size < 1 or len(reward_BF) % group_size:
        raise ValueError(
            f"rewards must be (group_size · clips, F), got {tuple(reward_BF.shape)} for a group_size of {group_size}"
        )
    reward_GCF = reward_BF.reshape(group_size, -1, reward_BF.shape[1])
    return (reward_GCF - reward_GCF.mean(0)).flatten(0, 1)


def discounted_advantages(advantage_BF: Tensor, *, kept_BN: Tensor, end_F: Tensor, discount: float) -> Tensor:
    """(B, N) what each gaze is credited with: for each rewarded frame that is not over before it, the advantage there
    times ``discount`` to the number of gazes that follow until the end of that frame; 0 for padding, which does not
    count as a gaze either.

    Args:
        advantage_BF: see :func:`group_advantages`.
        kept_BN: bool, where a slot holds a gaze.
        end_F: int64 slots, padding included, up to the end of each rewarded frame, at least 1.
        discount: γ, from 0 to 1.

    Raises:
        ValueError: the shapes do not fit, or the discount is not in its range.
    """
    B, N = kept_BN.shape
    if advantage_BF.shape != (B, len(end_F)):
        raise ValueError(f"advantage_BF must be {(B, len(end_F))}, got {tuple(advantage_BF.shape)}")
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must be from 0 to 1, got {discount}")
    so_far_BN = kept_BN.cumsum(1)
    at_end_BF = so_far_BN[:, end_F - 1]
    following_BNF = at_end_BF[:, None] - so_far_BN[..., None]
    before_end_NF = torch.arange(N, device=kept_BN.device)[:, None] < end_F
    counted_BNF = before_end_NF & kept_BN[..., None]
    weight_BNF = torch.pow(discount, following_BNF.clamp(min=0).to(advantage_BF.dtype)) * counted_BNF
    # Not as a product of matrices, which autocast would round to half precision.
    return (weight_BNF * advantage_BF[:, None]).sum(-1)


def grpo_loss(log_probability_BN: Tensor, *, advantage_BN: Tensor, kept_BN: Tensor) -> Tensor:
    """(B,) minus the sum over gazes of ratio · advantage; its mean is what is minimised.

    The ratio of a gaze's probability to itself when it was drawn is 1, so the value is minus the sum of the
    advantages; what matters is its gradient, minus the advantage for each log-probability.

    Args:
        log_probability_BN: log of the probability of each gaze under the policy that drew it.
        advantage_BN: see :func:`discounted_advantages`.
        kept_BN: bool, where a slot holds a gaze. What stands elsewhere, NaN included, changes neither value nor
            gradient.

    Raises:
        ValueError: the tensors differ in shape, or the mask is not boolean.
    """
    for name, tensor in (("advantage_BN", advantage_BN), ("kept_BN", kept_BN)):
        if tensor.shape != log_probability_BN.shape:
            raise ValueError(
                f"{name} must be {tuple(log_probability_BN.shape)} like log_probability_BN, got {tuple(tensor.shape)}"
            )
    if kept_BN.dtype != torch.bool:
        raise ValueError(f"kept_BN must be bool, got {kept_BN.dtype}; compare it with a number first")
    log_BN = log_probability_BN.masked_fill(~kept_BN, 0)
    ratio_BN = torch.exp(log_BN - log_BN.detach())
    return -(ratio_BN * advantage_BN.detach().masked_fill(~kept_BN, 0)).sum(1)


class GRPO:
    """Group-relative policy optimisation, called as the published class of this name is."""

    def __init__(self, group_size: int, discount_factor: float, optimize_task_loss_prediction: bool = False) -> None:
        """A group of ``group_size`` samples of each clip, whose rewards fade by ``discount_factor`` a gaze.

        Args:
            group_size: G, published: 12.
            discount_factor: γ, published: 0.995.
            optimize_task_loss_prediction: train the stop head too.

        Raises:
            ValueError: the group is empty, or the discount is not from 0 to 1.
        """
        if group_size < 1:
            raise ValueError(f"group_size must be at least 1, got {group_size}")
        if not 0 <= discount_factor <= 1:
            raise ValueError(f"discount_factor must be from 0 to 1, got {discount_factor}")
        self.group_size = group_size
        self.discount_factor = discount_factor
        self.optimize_task_loss_prediction = optimize_task_loss_prediction

    def preprocess_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """A batch with each clip as often as a group has samples: all clips once, then all again, and so on.

        Tensors are repeated along their first dimension, lists and tuples as a whole. ``group_size`` is added.

        Raises:
            TypeError: a value is something else.
        """
        repeated: dict[str, Any] = {}
        for name, value in inputs.items():
            if isinstance(value, Tensor):
                repeated[name] = value.repeat(self.group_size, *[1] * (value.ndim - 1))
            elif isinstance(value, (list, tuple)):
                repeated[name] = value * self.group_size
            else:
                raise TypeError(f"inputs[{name!r}] must be a tensor or a list to repeat, got {type(value).__name__}")
        return {**repeated, "group_size": self.group_size}

    def __call__(self, inputs: object, gaze_outputs: Outputs, task_outputs: Outputs) -> AlgorithmResult:
        """Loss of one batch of whole groups.

        Args:
            inputs: the batch; not looked at.
            gaze_outputs: what the gaze model says of its own gazes, under its published names: ``log_action_probs``
                (B, N), ``if_padded_gazing`` (B, N) bool, and ``task_loss_prediction`` (B, N). The published call scores
                with nothing masked at temperature 1; a policy of :mod:`autogaze.models.autogaze.scoring` scores what
                drew the gazes.
            task_outputs: ``reward`` (B, F); ``traj_len_each_reward`` (F,), slots up to the end of each rewarded
                frame; and, to train the stop head, ``task_losses`` and ``task_losses_mask`` (B, N).

        Raises:
            ValueError: the samples are not whole groups, or the tensors do not fit together.
        """
        kept_BN = gaze_mask(gaze_outputs)
        end_F = torch.as_tensor(task_outputs["traj_len_each_reward"], device=kept_BN.device)
        advantage_BN = discounted_advantages(
            group_advantages(task_outputs["reward"].detach(), group_size=self.group_size),
            kept_BN=kept_BN,
            end_F=end_F,
            discount=self.discount_factor,
        )
        terms = {"grpo_loss": grpo_loss(gaze_outputs["log_action_probs"], advantage_BN=advantage_BN, kept_BN=kept_BN)}
        if self.optimize_task_loss_prediction:
            terms["task_loss_prediction_loss"] = published_stop_loss(gaze_outputs, task_outputs)
        return AlgorithmResult.of(terms)
