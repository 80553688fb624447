"""Losses of the training stages, as pure functions of tensors."""

from autogaze.algorithms.grpo import GRPO
from autogaze.algorithms.ntp import NTP

__all__ = ["GRPO", "NTP"]
