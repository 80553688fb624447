"""Training clips of all kinds, mixed by weight, each decided by a seed and its number alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autogaze.datasets.footage import ExactFrames, Footage, Reading, WholeSource
from autogaze.datasets.labels import LabelRule
from autogaze.datasets.motion import cut_clip
from autogaze.datasets.procedural import draw_clip
from autogaze.datasets.recipes import ClipRecipe, Draw
from autogaze.datasets.sources import (
    ClipSource,
    LabelledVideos,
    ProceduralClips,
    ScanningClips,
    VideoClips,
    pick,
)
from autogaze.grid import PatchGrid
from autogaze.selectors.cells import Pixels

# Shape letters: T frames, S pixels a side of a clip's frame.


@dataclass(frozen=True, kw_only=True)
class ClipMix:
    """What training clips are made of; recipe number n depends on the seed and n alone.

    Raises:
        ValueError: there is no source, or no weight above 0.
    """

    sources: tuple[ClipSource, ...]
    """Kinds of clips; their order counts, since each takes its share of the same draws."""
    seed: int = 0
    """Seed of every draw."""
    thresholds: tuple[float, float] = (0.008, 0.06)
    """Range of the threshold at which frames end, drawn evenly on a log scale."""
    max_gazes: int = 1024
    """Most gazes of a clip."""
    clean: float = 0.5
    """Share of the clips labelled without slips."""
    max_slip: float = 0.3
    """The others slip at a rate drawn evenly up to this."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("training clips need at least one source, got none")
        pick(self._weights, 0)

    @property
    def _weights(self) -> list[float]:
        return [source.weight for source in self.sources]

    def recipe(self, number: int) -> ClipRecipe:
        """Recipe ``number``."""
        rng = np.random.default_rng([self.seed, number, 0])
        source, choice, special, threshold, clean, slip = rng.random(6).tolist()
        low, high = np.log(self.thresholds)
        rule = LabelRule(
            threshold=float(np.exp(low + (high - low) * threshold)),
            max_gazes=self.max_gazes,
            slip=0.0 if clean < self.clean else self.max_slip * slip,
        )
        drawn = Draw(number=number, seed=self.seed, choice=choice, special=special, rule=rule)
        return self.sources[pick(self._weights, source)].recipe(drawn)


def mixed_sources(
    *,
    videos: Sequence[Path] = (),
    images: Sequence[Path] = (),
    labels: Path | None = None,
    scans: float = 0.15,
    procedural: float = 0.0,
    grid: PatchGrid | None = None,
    frames: int | None = None,
) -> tuple[ClipSource, ...]:
    """The sources that a few settings ask for.

    Args:
        videos: roots of videos.
        images: roots of images to ride over.
        labels: label file of the videos; with it only what it speaks of is taken of them.
        scans: share of rides over images, among what is not drawn and where there are videos too.
        procedural: share of drawn clips, where there is anything else.
        grid: patches that the labels must be of; None: those that the file names, or the published ones.
        frames: that the labels must have; None: any number.

    Raises:
        ValueError: nothing is asked for, or a share is not one.
        VideoError: a root is missing or holds nothing of its kind.
        LabelFileError: the labels are damaged, or of another grid, number of frames or other videos.
    """
    for name, share in (("scans", scans), ("procedural", procedural)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} must be a share from 0 to 1, got {share}")
    found: list[ClipSource] = []
    ridden = (scans if videos else 1.0) * (1 - procedural)
    if images and ridden:
        found.append(ScanningClips(roots=tuple(images), weight=ridden))
    filmed = (1 - scans if images else 1.0) * (1 - procedural)
    if videos and filmed:
        roots = tuple(videos)
        found.append(
            LabelledVideos(labels=labels, roots=roots, weight=filmed, grid=grid, frames=frames)
            if labels
            else VideoClips(roots=roots, weight=filmed)
        )
    if procedural:
        found.append(ProceduralClips(weight=procedural))
    if not found:
        raise ValueError("no clips are asked for; name videos, images, or a share of procedural clips")
    return tuple(found)


def validation_recipes(
    videos: Sequence[Path], *, thresholds: tuple[float, ...] = (0.012, 0.018, 0.025, 0.035)
) -> list[ClipRecipe]:
    """The beginning of each video, labelled without slips at one of the thresholds in turn."""
    return [
        ClipRecipe(
            number=place,
            path=path,
            kind="whole",
            seed=0,
            rule=LabelRule(threshold=thresholds[place % len(thresholds)]),
        )
        for place, path in enumerate(videos)
    ]


def reading_of(recipe: ClipRecipe, *, frames: int = 16, side_px: int = 224) -> Reading | None:
    """What has to be decoded for a recipe; None where all is drawn."""
    if recipe.path is None:
        return None
    if recipe.kind == "labelled":
        return ExactFrames(path=recipe.path, start=recipe.start, frames=frames, side_px=side_px)
    return WholeSource(path=recipe.path)


def render(recipe: ClipRecipe, footage: Footage | None, *, frames: int = 16, side_px: int = 224) -> Pixels:
    """The (T, S, S, 3) clip of a recipe; ``footage`` is what :func:`reading_of` asks for."""
    if footage is None:
        return draw_clip(recipe, frames=frames, side_px=side_px)
    return cut_clip(recipe, footage, frames=frames, side_px=side_px)
