"""How videos are labelled, and one video's label by these settings."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from autogaze.datasets.label_clip import read_clip_anywhere, read_label_clip
from autogaze.datasets.label_entries import LabelOrigin, VideoLabel, file_bytes, label_key
from autogaze.datasets.labels import label_counts
from autogaze.errors import AutoGazeError
from autogaze.gaze import Gaze
from autogaze.labelling.budgets import DrawnBudget, Limits, ThresholdBudget, clip_rng
from autogaze.labelling.lazy import Lazy
from autogaze.labelling.scorers import CanvasScorer, make_scorer
from autogaze.labelling.search import Exhaustive, SearchMethod, search_clip
from autogaze.loading import check_device
from autogaze.reconstructors.loading import DEFAULT_RECONSTRUCTOR, load_reconstructor, reconstructor_path
from autogaze.selectors.cells import Pixels
from autogaze.summary import fingerprint

BUDGET, START = 0, 1
"""Purposes of a clip's draws."""


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Everything that decides the label of a video.

    Raises:
        AutoGazeError: a value is not legal, or values do not go together.
    """

    reconstructor: str = DEFAULT_RECONSTRUCTOR
    """What rebuilds the frames; see :func:`~autogaze.reconstructors.load_reconstructor`."""
    search: Literal["exhaustive", "lazy"] | None = None
    """``exhaustive`` tries every patch, ``lazy`` few of them; None: lazy, but the canvas always tries every one."""
    candidates: int = Lazy.candidates
    """Patches that the lazy search tries for each gaze."""
    budget: DrawnBudget | ThresholdBudget = field(default_factory=DrawnBudget)
    """When frames end."""
    start: Literal["first", "random"] = "first"
    """Whether the clip begins with the video's first frame, or at a place drawn by ``seed`` and key."""
    frames: int = 16
    """Frames of a clip."""
    seed: int = 0
    """Of every draw."""

    def __post_init__(self) -> None:
        if self.start not in ("first", "random"):
            raise AutoGazeError(f"start must be first or random, got {self.start!r}")
        if self.search not in (None, "exhaustive", "lazy"):
            raise AutoGazeError(f"search must be exhaustive or lazy, got {self.search!r}")
        if self.of_canvas and self.search == "lazy":
            raise AutoGazeError("the canvas tries every patch in no time, a lazy search is for other reconstructors")
        for name, least in (("frames", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise AutoGazeError(f"{name} must be at least {least}, got {getattr(self, name)}")
        _ = self.method

    def trying(self, candidates: int) -> LabelSettings:
        """The same, but so many patches are tried for each gaze.

        Raises:
            AutoGazeError: the number is not legal, or all patches are tried.
        """
        if isinstance(self.method, Exhaustive):
            raise AutoGazeError(f"candidates are for the lazy search; {self._all_tried()}")
        return replace(self, candidates=candidates)

    def _all_tried(self) -> str:
        return "the canvas tries every patch" if self.of_canvas else "the exhaustive one tries every patch"

    @property
    def of_canvas(self) -> bool:
        """Whether the canvas judges."""
        return self.reconstructor == DEFAULT_RECONSTRUCTOR

    @property
    def method(self) -> SearchMethod:
        """The search."""
        exhaustive = self.of_canvas or self.search == "exhaustive"
        return Exhaustive() if exhaustive else Lazy(candidates=self.candidates)

    def request(self, origin: LabelOrigin) -> dict[str, Any]:
        """What must be equal for labels to go into one file, as plain values."""
        tried = {} if isinstance(self.method, Exhaustive) else {"candidates": self.candidates}
        return {**origin.to_json(), **tried}


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """The label of a video, and what it took."""

    label: VideoLabel
    """The label."""
    evaluations: int
    """Sets of gazes that a learned reconstructor was asked about."""
    read_seconds: float
    """Spent reading and resizing the clip."""
    search_seconds: float
    """Spent searching."""


class VideoLabeller:
    """Labels videos by one reconstructor.

    Args:
        settings: how.
        device: where a learned reconstructor runs, as torch names it; None: the CPU.

    Raises:
        CheckpointError: there is no such reconstructor, it cannot be loaded, or it cannot judge labels.
        AutoGazeError: there is no such device.
    """

    def __init__(self, settings: LabelSettings, device: str | None = None) -> None:
        self.settings = settings
        if device is not None:
            check_device(device)
        reconstructor = load_reconstructor(settings.reconstructor, device=device)
        self._scorer = make_scorer(reconstructor)
        self._method = settings.method

    @property
    def origin(self) -> LabelOrigin:
        """Where the labels come from."""
        settings, grid = self.settings, self._scorer.grid
        path = reconstructor_path(settings.reconstructor)
        return LabelOrigin(
            scales_px=grid.scales_px,
            patch_px=grid.patch_px,
            frames=settings.frames,
            start=settings.start,
            reconstructor=settings.reconstructor,
            reconstructor_fingerprint=None if path is None else fingerprint(path, beside=("config.json",)),
            loss_unit=self._scorer.loss_unit,
            search=self._method.name,
            budget=settings.budget.to_json(),
            seed=settings.seed,
        )

    def __call__(self, video: str | os.PathLike[str]) -> Labelled:
        """Label one video.

        Raises:
            VideoError: it cannot be read, or is shorter than a clip.
        """
        settings, key, side_px = self.settings, label_key(video), self._scorer.grid.scales_px[-1]
        begun_seconds, start, video_bytes = time.perf_counter(), 0, file_bytes(video)
        if settings.start == "first":
            rgb = read_label_clip(video, frames=settings.frames, side_px=side_px)
        else:
            place = clip_rng(settings.seed, key, START).random()
            rgb, start = read_clip_anywhere(video, place=place, frames=settings.frames, side_px=side_px)
        read_seconds = time.perf_counter()
        limits = settings.budget.limits(
            clip_rng(settings.seed, key, BUDGET), frames=settings.frames, num_patches=self._scorer.grid.num_patches
        )
        gaze, evaluations = self._search(rgb, limits)
        return Labelled(
            label=VideoLabel(key=key, gaze=gaze, start=start, video_bytes=video_bytes),
            evaluations=evaluations,
            read_seconds=read_seconds - begun_seconds,
            search_seconds=time.perf_counter() - read_seconds,
        )

    def _search(self, rgb: Pixels, limits: Limits) -> tuple[Gaze, int]:
        if isinstance(self._scorer, CanvasScorer):
            # The same search in whole numbers, patch by patch, in a hundredth of the time.
            return label_counts(
                rgb, counts=limits.counts, threshold=limits.threshold or 0.0, grid=self._scorer.grid
            ).gaze, 0
        found = search_clip(rgb, scorer=self._scorer, method=self._method, limits=limits)
        return found.gaze, found.evaluations
