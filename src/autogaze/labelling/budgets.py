"""How many gazes the frames of a clip get: drawn as in the paper, or until the loss is low enough."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from autogaze.errors import BudgetError
from autogaze.selectors.base import max_patches

# Shape letters: T frames.


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When the frames of one clip end.

    Raises:
        ValueError: a count is below 1.
    """

    counts: tuple[int, ...]
    """(T,) most gazes of each frame."""
    threshold: float | None = None
    """A frame ends once its loss is at or below this, or no patch lowers it; None: only counts end it."""

    def __post_init__(self) -> None:
        if min(self.counts, default=1) < 1:
            raise ValueError(f"every frame must have at least 1 gaze, got counts {list(self.counts)}")


class LabelBudget(Protocol):
    """Anything that says when the frames of a clip end."""

    def limits(self, rng: np.random.Generator, *, frames: int, num_patches: int) -> Limits:
        """The limits of a clip of so many frames of so many patches; all that is random comes from ``rng``."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What decides the limits, as plain values."""
        ...


@dataclass(frozen=True, kw_only=True)
class DrawnBudget:
    """A mean ratio for the clip and its spread over the frames, drawn as the paper does.

    The ratio is exponential with rate λ, restricted to a range; the frames share it by a Dirichlet distribution that
    favours the first one (arXiv 2603.12254, 3.2). A frame's count is its share rounded down, and 1 at least.

    Raises:
        BudgetError: a number is not legal.
    """

    rate: float = 10.0
    """λ: larger ones make large ratios rarer."""
    low: float = 0.02
    """Smallest mean ratio of a clip."""
    high: float = 0.2
    """Largest mean ratio of a clip."""
    first_alpha: float = 10.0
    """Weight of the first frame in the Dirichlet distribution."""
    alpha: float = 3.0
    """Weight of every other frame."""

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise BudgetError(f"ratios must have 0 < low <= high <= 1, got low {self.low} and high {self.high}")
        for name in ("rate", "first_alpha", "alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise BudgetError(f"{name} must be a finite number above 0, got {getattr(self, name)}")

    def limits(self, rng: np.random.Generator, *, frames: int, num_patches: int) -> Limits:
        """See :meth:`LabelBudget.limits`."""
        start, end = math.exp(-self.rate * self.low), math.exp(-self.rate * self.high)
        mean = -math.log(start - rng.random() * (start - end)) / self.rate  # by its distribution function, inverted
        shares_T = rng.dirichlet([self.first_alpha, *[self.alpha] * (frames - 1)])
        ratios_T = (shares_T * mean * frames).clip(max=1.0)
        return Limits(counts=tuple(max_patches(ratio, num_patches) for ratio in ratios_T.tolist()))

    def to_json(self) -> dict[str, Any]:
        """See :meth:`LabelBudget.to_json`."""
        return {"kind": "drawn", **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class ThresholdBudget:
    """Every frame until its loss is at or below a threshold.

    Raises:
        BudgetError: a number is not legal.
    """

    threshold: float
    """The loss, in the reconstructor's unit."""
    max_ratio: float = 0.75
    """Most gazes of a frame, as a share of its patches."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < math.inf:
            raise BudgetError(f"the threshold must be a finite number of at least 0, got {self.threshold}")
        if not 0 < self.max_ratio <= 1:
            raise BudgetError(f"the most a frame may keep must be above 0 and at most 1, got {self.max_ratio}")

    def limits(self, rng: np.random.Generator, *, frames: int, num_patches: int) -> Limits:
        """See :meth:`LabelBudget.limits`; nothing here is drawn."""
        most = max_patches(self.max_ratio, num_patches)
        return Limits(counts=(most,) * frames, threshold=self.threshold)

    def to_json(self) -> dict[str, Any]:
        """See :meth:`LabelBudget.to_json`."""
        return {"kind": "threshold", **asdict(self)}


def clip_rng(seed: int, key: str, purpose: int) -> np.random.Generator:
    """The source of draws about the video of a key, whatever other videos there are. ``seed`` is at least 0."""
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], "<u4").tolist(), purpose])
