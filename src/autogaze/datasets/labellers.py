"""What is made of a clip beside its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from autogaze.datasets.labels import Label, label_clip
from autogaze.grid import PatchGrid
from autogaze.selectors.cells import Pixels

if TYPE_CHECKING:
    from autogaze.datasets.recipes import ClipRecipe

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
    """The label that comes with a recipe, else the gazes of a greedy search on the canvas by the recipe's rule."""

    grid: PatchGrid
    """Patches of a frame; its finest scale is the side of the clips."""

    def __call__(self, rgb: Pixels, recipe: ClipRecipe, /) -> Label:
        """The label of a clip; that of the recipe where it has one.

        Raises:
            ValueError: the clip or the recipe's label is of another grid, or the label of another number of frames.
        """
        if recipe.label is not None:
            gaze = recipe.label.gaze
            if len(gaze.count) != len(rgb) or gaze.layout.grid != self.grid:
                raise ValueError(
                    f"the label of {recipe.path} has {len(gaze.count)} frames at scales {gaze.layout.grid.scales_px}, "
                    f"and clips have {len(rgb)} at {self.grid.scales_px}; label the videos again for these"
                )
            return recipe.label
        return label_clip(rgb, rule=recipe.rule, grid=self.grid, rng=recipe.rng(2))


def no_label(rgb: Pixels, recipe: ClipRecipe, /) -> None:
    """Nothing: for training that rewards what the model does by itself."""
