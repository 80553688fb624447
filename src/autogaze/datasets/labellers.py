"""What is made of a clip beside its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from autogaze.datasets.labels import Label, label_clip
from autogaze.grid import PatchGrid
from autogaze.selectors.cells import Pixels

if TYPE_CHECKING:
    from autogaze.datasets.clips import ClipRecipe

T_co = TypeVar("T_co", covariant=True)


class Labeller(Protocol[T_co]):
    """Says what is to be learned about a clip; it goes to worker processes and must be picklable.

    A function at the top of a module will do, and so will a frozen dataclass with ``__call__``.
    """

    def __call__(self, rgb: Pixels, recipe: ClipRecipe, /) -> T_co:
        """What there is to learn about the (T, S, S, 3) clip of a recipe, by both alone."""
        ...


@dataclass(frozen=True, kw_only=True)
class GreedyLabeller:
    """The gazes of a greedy search on the canvas, by the rule of the recipe."""

    grid: PatchGrid
    """Patches of a frame; its finest scale is the side of the clips."""

    def __call__(self, rgb: Pixels, recipe: ClipRecipe, /) -> Label:
        """The label of a clip.

        Raises:
            ValueError: the clip has another side than the grid's finest scale.
        """
        return label_clip(rgb, rule=recipe.rule, grid=self.grid, rng=recipe.rng(2))


def no_label(rgb: Pixels, recipe: ClipRecipe, /) -> None:
    """Nothing: for training that rewards what the model does by itself."""
