"""Selectors that need no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autogaze.errors import OptionError

if TYPE_CHECKING:
    from autogaze.selectors.base import Selector
    from autogaze.selectors.replenish import Motion

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


def make_selector(name: str, *, device: str | None = None, motion: Motion = "none") -> Selector:
    """The selector of this name; ``device`` and ``motion`` are for ``replenish`` alone, all else is as usual.

    Raises:
        ValueError: there is no such selector, or it has no such motion.
        ImportError: the selector needs an optional package that is not installed.
    """
    # Each file is imported only when it is asked for: some need optional packages, and `import autogaze` stays quick.
    if name == "replenish":
        from autogaze.selectors.replenish import Replenish

        return Replenish(device=device, motion=motion)
    check_still(name, motion=motion)
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
    raise OptionError(f"there is no selector {name!r}; choose from {', '.join(SELECTORS)}")


def check_still(model: str, *, motion: Motion) -> None:
    """Refuse a motion for a model that is not ``replenish``, and so has no canvas that could move.

    Raises:
        ValueError: the motion is not ``"none"``.
    """
    if motion != "none":
        raise OptionError(
            f"motion={motion!r} moves the canvas of replenish, and {model} has none; leave motion out, or use replenish"
        )
