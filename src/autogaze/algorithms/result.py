"""What the published classes of algorithms are given and give back.

Shape letters: B clips, N gazes of all frames, padding included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor


class Outputs(Protocol):
    """Values by their published names: a mapping, or a task's result."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class AlgorithmResult:
    """The loss of a batch; ``result["loss"]`` and ``result["metrics"]`` work too, as with the published classes."""

    loss: Tensor
    """(B,) the sum of the terms; its mean is what is minimised."""
    terms: Mapping[str, Tensor]
    """(B,) each, by name, with their graph."""

    @classmethod
    def of(cls, terms: Mapping[str, Tensor]) -> Self:
        """The result of these terms."""
        return cls(loss=torch.stack(list(terms.values())).sum(0), terms=dict(terms))

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The mean of each term, without a graph."""
        return {name: term.detach().mean() for name, term in self.terms.items()}

    def __getitem__(self, name: str) -> Any:
        if name not in ("loss", "metrics", "terms"):
            raise KeyError(name)
        return getattr(self, name)


def gaze_mask(gaze_outputs: Outputs) -> Tensor:
    """(B, N) bool, where a slot holds a gaze.

    Raises:
        ValueError: padding is not told by booleans, or is of another shape than the probabilities.
    """
    padded_BN, log_BN = gaze_outputs["if_padded_gazing"], gaze_outputs["log_action_probs"]
    if not isinstance(log_BN, Tensor):
        raise ValueError("log_action_probs are missing; call the gaze model without generate_only")
    if padded_BN.dtype != torch.bool or padded_BN.shape != log_BN.shape:
        raise ValueError(
            f"if_padded_gazing must be {tuple(log_BN.shape)} bool like log_action_probs, "
            f"got {tuple(padded_BN.shape)} {padded_BN.dtype}"
        )
    kept_BN: Tensor = ~padded_BN
    return kept_BN
