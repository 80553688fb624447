"""Losses by name, weighted and added up.

Shape letters: B clips, F frames of each.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from autogaze.losses.features import DINOv2RegLoss, SigLIP2Loss
from autogaze.losses.pixel import PUBLISHED, Loss, PixelSpace, l1, multi_scale_gradient, ssim_loss

VisionModel: TypeAlias = str | os.PathLike[str]
"""Folder or hub id of a Hugging Face vision model."""


class WeightedLoss(nn.Module):
    """``Σ weight · term`` for every frame: (B, F, 3, H, W) twice in, (B, F) out.

    Its unit is that of its terms, weights and models together: a threshold of 0.7 says nothing by itself, and losses
    with other terms, other weights, another model behind a term or another pixel space cannot be compared. :attr:`unit`
    says which it is.

    Terms that are modules move with this one.
    """

    def __init__(self, terms: Mapping[str, tuple[float, Loss]]) -> None:
        """See the class.

        Args:
            terms: name → (weight, loss), in the order in which they are added. A loss is any callable that turns two
                (B, F, 3, H, W) tensors, prediction and target, into (B, F).

        Raises:
            ValueError: there are no terms, or a weight is not a finite number of at least 0.
        """
        super().__init__()
        if not terms:
            raise ValueError('a loss needs at least one term, got none; {"l1": (1.0, l1)} has one')
        for name, (weight, _) in terms.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"the weight of {name} must be a finite number of at least 0, got {weight}")
        self.weights = {name: float(weight) for name, (weight, _) in terms.items()}
        self._losses = {name: loss for name, (_, loss) in terms.items()}
        # Here too, because .to() looks for modules in modules alone.
        self.modules_of_terms = nn.ModuleList(loss for loss in self._losses.values() if isinstance(loss, nn.Module))

    @property
    def unit(self) -> str:
        """What a loss of 1 is, such as ``l1 + 0.3·dinov2_reg``."""
        return " + ".join(name if weight == 1 else f"{weight:g}·{name}" for name, weight in self.weights.items())

    def per_term(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """(B, F) of each term before it is weighted, for logs."""
        return {name: loss(prediction, target) for name, loss in self._losses.items()}

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(B, F) weighted sum of the terms."""
        terms = self.per_term(prediction, target)
        (name, total), *others = ((name, self.weights[name] * term) for name, term in terms.items())
        for name, term in others:
            if term.shape != total.shape:
                raise ValueError(f"term {name} gave {tuple(term.shape)}, those before it {tuple(total.shape)}")
            total = total + term
        return total


@dataclass(frozen=True, kw_only=True)
class TermOptions:
    """What a term is made from."""

    name: str
    """Name of the term."""
    space: PixelSpace
    """Space of the frames it will see."""
    model: VisionModel | None = None
    """The vision model it looks through, if it looks through one."""
    frame_batch: int = 64
    """Frames that model sees at once."""
    attn_implementation: str = "sdpa"
    """Attention of that model, as transformers names it."""

    def needed_model(self) -> VisionModel:
        """The model, or an error that says how to name one.

        Raises:
            ValueError: there is none.
        """
        if self.model is None:
            raise ValueError(
                f"{self.name} looks through a vision model: give its folder or hub id, "
                f'models={{"{self.name}": "{_EXAMPLES.get(self.name, "path/to/model")}"}}'
            )
        return self.model


_EXAMPLES = {
    "dinov2_reg": "facebook/dinov2-with-registers-base",
    "siglip2": "google/siglip2-base-patch16-224",
}


def _dinov2_reg(options: TermOptions) -> Loss:
    return DINOv2RegLoss.from_pretrained(
        options.needed_model(),
        space=options.space,
        frame_batch=options.frame_batch,
        attn_implementation=options.attn_implementation,
    )


def _siglip2(options: TermOptions) -> Loss:
    return SigLIP2Loss.from_pretrained(
        options.needed_model(),
        space=options.space,
        frame_batch=options.frame_batch,
        attn_implementation=options.attn_implementation,
    )


# A new term is one line here; whoever does not want to edit it passes a callable to WeightedLoss.
TERMS: dict[str, Callable[[TermOptions], Loss]] = {
    "l1": lambda options: l1,
    "gradient": lambda options: multi_scale_gradient,
    "ssim": lambda options: options.space.on_colours(ssim_loss),
    "dinov2_reg": _dinov2_reg,
    "siglip2": _siglip2,
}
"""Name → what makes the term. ``l1`` and ``gradient`` are in the unit of the frames, ``ssim`` has none, the others
have that of their model."""


def make_loss(
    types: str = "l1",
    weights: str = "1",
    *,
    models: Mapping[str, VisionModel] | None = None,
    space: PixelSpace = PUBLISHED,
    frame_batch: int = 64,
    attn_implementation: str = "sdpa",
) -> WeightedLoss:
    """The loss that two published strings name, such as ``make_loss("l1+ssim", "1+0.3")``.

    Args:
        types: names of the terms joined by ``+``; see :data:`TERMS`.
        weights: their weights joined by ``+``.
        models: folder or hub id for each term that looks through a vision model; none is fetched unasked.
        space: of the frames that the loss will see.
        frame_batch: frames a vision model sees at once.
        attn_implementation: attention of the vision models, as transformers names it.

    Raises:
        ValueError: a name is not known or stands twice, a term has no model or no weight, or a weight is no number
            of at least 0.
        CheckpointError: a model cannot be loaded.
        ImportError: a term needs transformers, and it is not installed.
    """
    models = models or {}
    names = [name.strip() for name in types.split("+")]
    _check_names(names, models)
    terms = {}
    for name, weight in zip(names, _numbers(weights, len(names)), strict=True):
        options = TermOptions(
            name=name,
            space=space,
            model=models.get(name),
            frame_batch=frame_batch,
            attn_implementation=attn_implementation,
        )
        terms[name] = (weight, TERMS[name](options))
    return WeightedLoss(terms)


def _check_names(names: list[str], models: Mapping[str, VisionModel]) -> None:
    for name in names:
        if name not in TERMS:
            raise ValueError(f"{name!r} is no loss; legal are {', '.join(TERMS)}, joined by +")
    if len(set(names)) < len(names):
        raise ValueError(f"a loss may be named once, got {'+'.join(names)}; give it a larger weight instead")
    for name in models:
        if name not in names:
            raise ValueError(f"models names {name!r}, which is not a term of {'+'.join(names)}")


def _numbers(weights: str, count: int) -> list[float]:
    try:
        numbers = [float(weight) for weight in weights.split("+")]
    except ValueError as error:
        raise ValueError(f"weights must be numbers joined by +, such as 1+0.3+0.3, got {weights!r}") from error
    if len(numbers) != count:
        raise ValueError(f"weights must be one number for each of {count} terms, joined by +, got {weights!r}")
    return numbers
