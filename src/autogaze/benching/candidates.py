"""Which selectors a benchmark measures, each ready to gaze here and to be made anew in another process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from autogaze.benching.naive import naively
from autogaze.errors import AutoGazeError
from autogaze.evaluation.plan import DEFAULT_SELECTORS
from autogaze.loading import BUNDLED, DEFAULT_MODEL
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.pipeline import Options, Recipe, make_recipe

DEFAULT_MODELS = (DEFAULT_MODEL, BUNDLED, *(name for name in DEFAULT_SELECTORS if name != DEFAULT_MODEL))
"""What is measured when nothing is asked for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """One selector to be measured."""

    name: str
    """What its row is called."""
    naive: bool
    """Whether it is a gaze model in the naive loop."""
    recipe: Recipe
    """The selector with its limits."""
    make: Callable[[], Recipe]
    """Makes the same; picklable."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """All of them."""

    all: tuple[Candidate, ...]
    """In the order of the rows: a gaze model is followed by its naive loop."""
    warnings: tuple[str, ...]
    """What was left out, and why."""


def find_candidates(models: Sequence[str | os.PathLike[str]] | None, *, naive: bool, options: Options) -> Candidates:
    """Load the selectors that are asked for; see :func:`~autogaze.benching.run.bench`.

    Raises:
        AutoGazeError: there is no such model, none is named, or it cannot keep the limits.
        ImportError: a model that was named needs a package that is not installed.
    """
    if models is not None and not models:
        raise AutoGazeError(f"name at least one model, such as {DEFAULT_MODEL}")
    found: list[Candidate] = []
    warnings: list[str] = []
    for name in dict.fromkeys(os.fspath(model) for model in (DEFAULT_MODELS if models is None else models)):
        make = partial(_recipe, name, options=options)
        try:
            recipe = make()
        except ImportError as error:
            if models is not None:
                raise
            warnings.append(f"{name} was not measured: {error}")
            continue
        found.append(Candidate(name=name, naive=False, recipe=recipe, make=make))
        if naive and isinstance(recipe.selector, AutoGazeSelector):
            found.append(
                Candidate(
                    name=f"{name}, naive loop",
                    naive=True,
                    recipe=_naive(recipe),
                    make=partial(_naive_recipe, name, options=options),
                )
            )
    return Candidates(all=tuple(found), warnings=tuple(warnings))


def _recipe(model: str, *, options: Options) -> Recipe:
    named: Options = {**options, "model": model}
    return make_recipe(**named)


def _naive_recipe(model: str, *, options: Options) -> Recipe:
    return _naive(_recipe(model, options=options))


def _naive(recipe: Recipe) -> Recipe:
    assert isinstance(recipe.selector, AutoGazeSelector)
    return replace(recipe, selector=naively(recipe.selector))
