"""What decides a training clip, whatever it is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from autogaze.datasets.labels import Label, LabelRule

Kind = Literal["video", "still", "cut", "scan", "whole", "labelled", "sprites", "text", "pan", "scenes"]
"""Of a video: a window of it; one frame of it, repeated; two windows of it, joined; its beginning, uncropped, for
validation; the frames that a label file speaks of. Of an image: a ride over it. Drawn: shapes that move, pages of
text, a camera over a surface, and two of these, joined."""


def source_name(path: Path) -> str:
    """Files that differ in the number after the last underscore of their names alone are parts of one source."""
    return re.sub(r"_\d+$", "", path.stem)


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """Everything that decides one labelled clip."""

    number: int
    """Place in the sequence of recipes."""
    path: Path | None = None
    """Video or image; None where everything is drawn."""
    kind: Kind
    """What is made of it."""
    seed: int
    """With ``number`` the seed of every draw."""
    rule: LabelRule
    """How the clip is labelled, unless ``label`` is given."""
    start: int = 0
    """Number of the first frame of a ``labelled`` clip."""
    label: Label | None = None
    """The label of a ``labelled`` clip."""

    @property
    def source(self) -> str:
        """What the clip was cut from, see :func:`source_name`; a drawn clip is a source of its own."""
        return f"#{self.number}" if self.path is None else source_name(self.path)

    def rng(self, purpose: int) -> np.random.Generator:
        """The source of draws for one purpose."""
        return np.random.default_rng([self.seed, self.number, purpose])


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What a source makes a recipe of."""

    number: int
    """Number of the recipe."""
    seed: int
    """Seed of every draw."""
    choice: float
    """From 0 to below 1: which file."""
    special: float
    """From 0 to below 1: what is made of it."""
    rule: LabelRule
    """How the clip is labelled."""

    def recipe(self, kind: Kind, path: Path | None) -> ClipRecipe:
        """A recipe for this draw."""
        return ClipRecipe(number=self.number, path=path, kind=kind, seed=self.seed, rule=self.rule)
