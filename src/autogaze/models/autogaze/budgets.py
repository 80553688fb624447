"""What a checkpoint's configuration says about limits when the caller names none.

The published configuration describes how a ratio, its spread over the frames and a threshold are drawn, in training
and at inference. ``fixed`` gives one value; ``uniform`` and ``exponential`` draw a ratio; ``dirichlet`` spreads it
unevenly over the frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from autogaze.errors import CheckpointError
from autogaze.models.autogaze.configuration_autogaze import AutoGazeConfig
from autogaze.selectors.base import Budget

When = Literal["training", "inference"]


def draw_budget(
    config: AutoGazeConfig, *, frames: int, when: When = "inference", generator: torch.Generator | None = None
) -> Budget:
    """The budget of one clip of ``frames`` frames.

    Raises:
        CheckpointError: the configuration names a strategy that is not known.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    random = np.random.default_rng(seed)
    ratio = _draw(config.gazing_ratio_config, "gazing_ratio", when, random, default=1.0)
    ratios = _spread(config.gazing_ratio_each_frame_config, ratio, frames, when, random)
    flag = f"has_task_loss_requirement_during_{when}"
    wanted = config.has_task_loss_requirement_during_inference if when == "inference" else config.extra.get(flag)
    threshold = None
    if wanted:
        threshold = _draw(config.task_loss_requirement_config, "task_loss_requirement", when, random, default=0.7)
    return Budget(ratio=ratios, threshold=threshold)


def _draw(config: Mapping[str, Any], name: str, when: When, random: np.random.Generator, *, default: float) -> float:
    strategy = config.get(f"sample_strategy_during_{when}", "fixed")
    settings: Mapping[str, Any] = config.get(strategy) or {}
    if strategy == "fixed":
        return float(settings.get(name, default))
    low, high = float(settings.get(f"{name}_min", 0.0)), float(settings.get(f"{name}_max", 1.0))
    if strategy == "uniform":
        return float(random.uniform(low, high))
    if strategy == "exponential":
        # The exponential restricted to [low, high], by inverting its distribution function.
        rate = float(settings.get("lambda", 10.0))
        start, end = np.exp(-rate * low), np.exp(-rate * high)
        return float(-np.log(start - random.random() * (start - end)) / rate)
    raise CheckpointError(
        f'{name} is to be drawn by "{strategy}"; known are "fixed", "uniform" and "exponential": '
        "name a ratio or a threshold in the call"
    )


def _spread(
    config: Mapping[str, Any], ratio: float, frames: int, when: When, random: np.random.Generator
) -> float | tuple[float, ...]:
    smallest = 1e-6  # a ratio of 0 is no legal budget; every frame gets at least one patch anyway
    strategy = config.get(f"sample_strategy_during_{when}", "uniform")
    if strategy in ("uniform", "self"):
        return min(max(ratio, smallest), 1.0)
    if strategy == "dirichlet":
        alpha = (config.get("dirichlet") or {}).get("alpha", 0.5)
        alphas = np.asarray(alpha if isinstance(alpha, list | tuple) else [alpha] * frames, float)
        shares = random.dirichlet(alphas[:frames])
        return tuple(float(share) for share in np.clip(shares * ratio * frames, smallest, 1.0))
    raise CheckpointError(
        f'the ratio is to be spread by "{strategy}"; known are "uniform" and "dirichlet": name a ratio in the call'
    )
