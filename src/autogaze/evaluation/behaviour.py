"""The behaviour analyses: what selectors look at in clips of videos, clip by clip in bounded memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from autogaze.errors import AutoGazeError
from autogaze.evaluation.behaviour_measures import ClipBehaviour, ClipFacts
from autogaze.evaluation.behaviour_rows import SelectorBehaviour
from autogaze.evaluation.behaviour_summary import DRAWS, summarize
from autogaze.evaluation.clips import ClipReader, Cutting
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.names import result_names
from autogaze.pipeline import OnProgress, Progress, Recipe
from autogaze.summary import Settings


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A source that could not be measured; none of its clips count."""

    source: str
    """As it was named."""
    error: Exception
    """Why."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What some selectors look at, and how that was measured."""

    selectors: tuple[SelectorBehaviour, ...]
    """One for each selector; empty if no source could be measured."""
    settings: tuple[Settings, ...]
    """What was asked of each."""
    cutting: Cutting
    """Which clips were looked at."""
    seed: int
    """Of the draws behind intervals over clips."""
    draws: int
    """How many there are."""
    clips: tuple[str, ...]
    """Names of the clips, sorted."""
    short_clips: tuple[str, ...]
    """Those of fewer frames than asked for, from videos that are shorter than a clip."""
    failures: tuple[Failure, ...]
    """Sources that could not be measured."""
    warnings: tuple[str, ...]
    """What was wrong with sources without stopping the work."""
    seconds: float
    """Time it took."""


def measure_behaviour(
    sources: Sequence[str | os.PathLike[str]],
    *,
    recipes: Sequence[Recipe],
    cutting: Cutting | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    on_progress: OnProgress | None = None,
    on_source: Callable[[], None] | None = None,
) -> Behaviour:
    """Gaze at clips of some videos with each recipe and count what was gazed at.

    Frames are stretched to the square of the grid's finest scale (bilinear), so that every patch is a box of whole
    pixels, and each clip starts afresh. Motion and detail are those of the stretched frames. A source that fails is
    told in the result and the others are done.

    Args:
        sources: videos, as :func:`~autogaze.video.find_sources` lists them.
        recipes: selectors with their budgets; all see the same clips.
        cutting: which clips; None: as ``Cutting()`` says. Its size and motion vectors are chosen here.
        seed: of the draws behind intervals over clips, which are all that is random here.
        draws: how many there are.
        on_progress: called after each clip; kept patches are those of all recipes together.
        on_source: called after each source.

    Raises:
        AutoGazeError: there are no recipes, or two of one selector.
        ImportError: opencv-python-headless or scipy is not installed (extra ``evaluate``).
    """
    start, labels = time.perf_counter(), _labels(recipes)
    cutting = _fitted(cutting or Cutting(), recipes)
    found: list[list[ClipBehaviour]] = [[] for _ in recipes]
    failures, warnings = [], []
    for source, name in zip(sources, result_names(sources), strict=True):
        try:
            of_source, told = _measure_source(os.fspath(source), name, recipes, cutting, on_progress)
        except ImportError:
            raise
        except Exception as error:  # whatever is wrong with one source, the others are worth doing
            failures.append(Failure(source=os.fspath(source), error=error))
        else:
            for kept, new in zip(found, of_source, strict=True):
                kept += new
            warnings += [f"{os.fspath(source)}: {warning}" for warning in told]
        if on_source is not None:
            on_source()
    pools = zip(found, labels, strict=True)
    clips = sorted(found[0], key=lambda clip: clip.clip)
    return Behaviour(
        selectors=tuple(summarize(kept, selector=label, seed=seed, draws=draws) for kept, label in pools if kept),
        settings=tuple(recipe.settings for recipe in recipes),
        cutting=cutting,
        seed=seed,
        draws=draws,
        clips=tuple(clip.clip for clip in clips),
        short_clips=tuple(clip.clip for clip in clips if clip.num_frames < cutting.clip_len),
        failures=tuple(failures),
        warnings=tuple(warnings),
        seconds=time.perf_counter() - start,
    )


def _labels(recipes: Sequence[Recipe]) -> list[str]:
    """What each selector is called in the results: its short name, or what the user called it if two share that."""
    if not recipes:
        raise AutoGazeError("no selector was named; give at least one")
    labels = [recipe.selector.name for recipe in recipes]
    if len(set(labels)) < len(labels):
        labels = [recipe.settings.model for recipe in recipes]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise AutoGazeError(f"selector {twice} is named twice; name each once")
    return labels


def _fitted(cutting: Cutting, recipes: Sequence[Recipe]) -> Cutting:
    """The same clips, at their own size only where they are needed so."""
    motion_vectors = any(recipe.selector.needs_motion_vectors for recipe in recipes)
    sides_px = {recipe.selector.grid.scales_px[-1] for recipe in recipes}
    side_px = None if motion_vectors or len(sides_px) > 1 else min(sides_px)
    return replace(cutting, side_px=side_px, motion_vectors=motion_vectors)


def _measure_source(
    source: str, name: str, recipes: Sequence[Recipe], cutting: Cutting, on_progress: OnProgress | None
) -> tuple[list[list[ClipBehaviour]], list[str]]:
    """For each recipe the clips of one source; and what was wrong with it."""
    start = time.perf_counter()
    found: list[list[ClipBehaviour]] = [[] for _ in recipes]
    frames_done, kept, total = 0, 0, 0
    with ClipReader(source, name=name, cutting=cutting) as reader:
        expected_clips = reader.expected_clips()
        for clip in reader:
            for clips, behaviour in zip(found, measure_clip(clip.frames, recipes=recipes, name=clip.name), strict=True):
                clips.append(behaviour)
                kept += behaviour.num_gazes
                total += behaviour.num_frames * int(behaviour.patches_S.sum())
            frames_done += len(clip.frames)
            if on_progress is not None:
                on_progress(
                    Progress(
                        source=name,
                        frames=frames_done,
                        expected_frames=None if expected_clips is None else expected_clips * cutting.clip_len,
                        patches_kept=kept,
                        patches_total=total,
                        seconds=time.perf_counter() - start,
                    )
                )
        return found, [*reader.reader.warnings, *reader.notes]


def measure_clip(frames: Frames, *, recipes: Sequence[Recipe], name: str) -> list[ClipBehaviour]:
    """What each recipe gazes at in one clip of frames of any size; the clip is called ``name``.

    Raises:
        ImportError: opencv-python-headless is not installed (extra ``evaluate``).
    """
    facts: dict[PatchGrid, tuple[Frames, ClipFacts]] = {}
    found = []
    for recipe in recipes:
        grid = recipe.selector.grid
        if grid not in facts:
            square = stretched(frames, side_px=grid.scales_px[-1])
            layout = FrameLayout.resized(grid, height_px=square.height_px, width_px=square.width_px)
            facts[grid] = square, ClipFacts.of(square.rgb, layout=layout)
        square, of_clip = facts[grid]
        # What the codec stored is in pixels of the decoded frame; one tile has the same patches at any size.
        gaze = _gaze(recipe, frames if recipe.selector.needs_motion_vectors else square)
        found.append(ClipBehaviour.of(of_clip, gaze=replace(gaze, layout=of_clip.layout), clip=name))
    return found


def _gaze(recipe: Recipe, frames: Frames) -> Gaze:
    layout = FrameLayout.resized(recipe.selector.grid, height_px=frames.height_px, width_px=frames.width_px)
    return recipe.selector.open(layout, recipe.budget).step(frames)


def stretched(frames: Frames, *, side_px: int) -> Frames:
    """The frames as squares (bilinear, Pillow), without motion vectors."""
    rgb = [np.asarray(Image.fromarray(rgb).resize((side_px, side_px), Image.Resampling.BILINEAR)) for rgb in frames.rgb]
    return Frames(rgb=np.stack(rgb), time_seconds=frames.time_seconds, number=frames.number)
