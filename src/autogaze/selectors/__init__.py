"""Selectors that need no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autogaze.selectors.base import Selector

SELECTORS = (
    "replenish",
    "random",
    "uniform",
    "difference",
    "difference-paper",
    "flow",
    "motion-vectors",
    "detail",
)
"""Names that :func:`make_selector` knows."""


def make_selector(name: str, *, device: str | None = None) -> Selector:
    """The selector of this name with its default options; ``device`` is for ``replenish`` alone.

    Raises:
        ValueError: there is no such selector.
        ImportError: the selector needs an optional package that is not installed.
    """
    # Each file is imported only when it is asked for: some need optional packages, and `import autogaze` stays quick.
    if name == "replenish":
        from autogaze.selectors.replenish import Replenish

        return Replenish(device=device)
    if name == "random":
        from autogaze.selectors.uniform_random import Random

        return Random()
    if name == "uniform":
        from autogaze.selectors.uniform import Uniform

        return Uniform()
    if name == "difference":
        from autogaze.selectors.difference import Difference

        return Difference()
    if name == "difference-paper":
        from autogaze.selectors.difference import PaperDifference

        return PaperDifference()
    if name == "flow":
        from autogaze.selectors.flow import Flow

        return Flow()
    if name == "motion-vectors":
        from autogaze.selectors.motion_vectors import MotionVectors

        return MotionVectors()
    if name == "detail":
        from autogaze.selectors.detail import Detail

        return Detail()
    raise ValueError(f"there is no selector {name!r}; choose from {', '.join(SELECTORS)}")
