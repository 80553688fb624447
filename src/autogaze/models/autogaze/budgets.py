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
    random = _Random(generator)
    ratio = _draw(config.gazing_ratio_config, "gazing_ratio", when, random, default=1.0)
    ratios = _spread(config.gazing_ratio_each_frame_config, ratio, frames, when, random)
    flag = f"has_task_loss_requirement_during_{when}"
    wanted = config.has_task_loss_requirement_during_inference if when == "inference" else config.extra.get(flag)
    threshold = None
    if wanted:
        threshold = _draw(config.task_loss_requirement_config, "task_loss_requirement", when, random, default=0.7)
    return Budget(ratio=ratios, threshold=threshold)


class _Random:
    """A numpy generator seeded from a torch one when something is drawn, and only then."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self._seed_from = generator
        self._numpy: np.random.Generator | None = None

    def __call__(self) -> np.random.Generator:
        if self._numpy is None:
            self._numpy = np.random.default_rng(int(torch.randint(2**31, (), generator=self._seed_from)))
        return self._numpy


def _draw(config: Mapping[str, Any], name: str, when: When, random: _Random, *, default: float) -> float:
    strategy = config.get(f"sample_strategy_during_{when}", "fixed")
    settings: Mapping[str, Any] = config.get(strategy) or {}
    if strategy == "fixed":
        return _number(settings.get(name, default), name)
    low = _number(settings.get(f"{name}_min", 0.0), f"{name}_min")
    high = _number(settings.get(f"{name}_max", 1.0), f"{name}_max")
    if strategy == "uniform":
        return float(random().uniform(low, high))
    if strategy == "exponential":
        # The exponential restricted to [low, high], by inverting its distribution function.
        rate = _number(settings.get("lambda", 10.0), "lambda")
        if rate <= 0:
            raise CheckpointError(
                f"lambda of an exponential {name} must be above 0, got {rate}: name a ratio in the call"
            )
        start, end = np.exp(-rate * low), np.exp(-rate * high)
        return float(-np.log(start - random().random() * (start - end)) / rate)
    raise CheckpointError(
        f'{name} is to be drawn by "{strategy}"; known are "fixed", "uniform" and "exponential": '
        "name a ratio or a threshold in the call"
    )


def _spread(
    config: Mapping[str, Any], ratio: float, frames: int, when: When, random: _Random
) -> float | tuple[float, ...]:
    smallest = 1e-6  # a ratio of 0 is no legal budget; every frame gets at least one patch anyway
    strategy = config.get(f"sample_strategy_during_{when}", "uniform")
    if strategy in ("uniform", "self"):
        return min(max(ratio, smallest), 1.0)
    if strategy == "dirichlet":
        alpha = (config.get("dirichlet") or {}).get("alpha", 0.5)
        alphas = np.asarray(alpha if isinstance(alpha, list | tuple) else [alpha] * frames, float)
        shares = random().dirichlet(alphas[:frames])
        return tuple(float(share) for share in np.clip(shares * ratio * frames, smallest, 1.0))
    raise CheckpointError(
        f'the ratio is to be spread by "{strategy}"; known are "uniform" and "dirichlet": name a ratio in the call'
    )


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(f"the configuration's {name} must be a number, got {value!r}: name a limit in the call")
    return float(value)
