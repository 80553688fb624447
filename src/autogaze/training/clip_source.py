"""From the settings of a run to its clips."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from autogaze.datasets.clips import ClipMix, mixed_sources, validation_recipes
from autogaze.datasets.feed import ClipFeed
from autogaze.datasets.labellers import Labeller
from autogaze.datasets.order import SampleOrder
from autogaze.datasets.sources import find_validation
from autogaze.datasets.stream import ClipMaker, ClipShape, LabelledClip
from autogaze.training.memory import kept_bytes
from autogaze.training.run_settings import ClipRunSettings, ClipSettings
from autogaze.training.stage import Share, Tell

T = TypeVar("T")
MAX_GAZES = 1024
"""Most gazes of a labelled clip."""


def clip_feed(
    settings: ClipRunSettings, shape: ClipShape, labeller: Labeller[T], share: Share, *, max_gazes: int = MAX_GAZES
) -> ClipFeed[T]:
    """The clips of one process.

    Raises:
        TrainingError: there is nothing to train on.
    """
    sources = mixed_sources(
        videos=settings.videos,
        images=settings.images,
        labels=settings.labels,
        scans=settings.scans,
        procedural=settings.procedural,
        grid=shape.grid,
        frames=shape.frames,
    )
    mix = ClipMix(sources=sources, seed=settings.seed, max_gazes=max_gazes)
    return ClipFeed(
        mix,
        shape,
        batch=settings.batch,
        order=SampleOrder(block=settings.block, reuse=settings.reuse, seed=settings.seed),
        labeller=labeller,
        rank=share.rank,
        world=share.world,
        first_step=share.first_step,
        workers=settings.num_workers(),
        ahead=min(512, 4 * settings.batch),
        cache_bytes=int(settings.cache_gb * 1e9),
        cache_folder=settings.cache_folder,
        kept_bytes=kept_bytes(),
    )


def validation_clips(
    settings: ClipSettings, shape: ClipShape, labeller: Labeller[T], *, tell: Tell
) -> list[LabelledClip[T]]:
    """The beginning of each validation video; ``tell`` hears path and message of those that cannot be read."""
    paths = find_validation(settings.val, training=settings.videos)
    count = min(len(paths), settings.validation_clips)
    chosen = [paths[round(k)] for k in np.linspace(0, len(paths) - 1, count)]
    maker = ClipMaker(shape, labeller=labeller, cache_bytes=0)
    clips = []
    for recipe in validation_recipes(chosen):
        made = maker.make(recipe)
        if isinstance(made, LabelledClip):
            clips.append(made)
        else:
            tell(str(recipe.path), made.message)
    return clips
