"""What an evaluation is to do, checked before any video is touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from autogaze.errors import AutoGazeError
from autogaze.evaluation.clips import Cutting
from autogaze.evaluation.facts import all_versions, checkpoint_facts, identity
from autogaze.evaluation.measure import Bench, Candidate, Judge, Mode
from autogaze.evaluation.memory import PeakMemory
from autogaze.evaluation.settings import OperatingPoint, default_settings, playable
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.loading import Model, checkpoint_path, load_selector
from autogaze.names import result_names
from autogaze.reconstructors import load_reconstructor
from autogaze.reconstructors.base import Reconstructor
from autogaze.reconstructors.loading import ReconstructorLike, reconstructor_path
from autogaze.selectors import SELECTORS
from autogaze.selectors.base import Selector

DEFAULT_SELECTORS = tuple(name for name in SELECTORS if name != "motion-vectors")
"""Selectors without weights that work on any video."""

ThingT = TypeVar("ThingT", Selector, Reconstructor)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that was asked for, or is usual, and cannot be measured."""

    selector: str
    """Name of the selector."""
    setting: str | None
    """Name of the setting; None: all of them."""
    reconstructor: str | None
    """Name of the reconstructor; None: all of them."""
    reason: str
    """Why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What is done to which clips, by whom."""

    bench: Bench
    """What is done to every clip."""
    cutting: Cutting
    """What the clips are."""
    skipped: tuple[Skipped, ...]
    """What is left out."""
    identities: dict[str, Any]
    """Selectors and reconstructors as plain values, with the files of their weights."""
    request: dict[str, Any]
    """Everything that decides the rows, as plain values: two runs with equal requests give equal tables."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The arguments of :func:`~autogaze.evaluation.evaluate` that decide its rows; described there."""

    selectors: Sequence[Model]
    reconstructors: Sequence[ReconstructorLike]
    settings: Sequence[OperatingPoint] | None
    cutting: Cutting
    mode: Mode
    viz_clips: int
    seed: int
    device: str | None
    timings: bool


def make_plan(choices: Choices) -> Plan:
    """Load and check everything.

    Raises:
        BudgetError: a setting has a number that a selector would take if it were another.
        CheckpointError: there is no such selector or reconstructor, or it cannot be loaded.
        AutoGazeError: the device does not exist, one is named twice, or nothing is left that can be measured.
        ValueError: an argument is not legal.
        ImportError: OpenCV is not installed (extra ``evaluate``).
    """
    for name in ("selectors", "reconstructors"):
        if isinstance(getattr(choices, name), (str, os.PathLike)) or not getattr(choices, name):
            raise ValueError(f"{name} must be a list of at least one, got {getattr(choices, name)!r}")
    if choices.mode not in ("resize", "tiles"):
        raise ValueError(f'mode must be "resize" or "tiles", got {choices.mode!r}')
    if choices.viz_clips < 0 or choices.seed < 0:
        raise ValueError(f"viz_clips and seed must be at least 0, got {choices.viz_clips} and {choices.seed}")
    versions = all_versions()
    selectors = _loaded(choices.selectors, lambda model: load_selector(model, device=choices.device))
    reconstructors = _loaded(choices.reconstructors, lambda one: load_reconstructor(one, device=choices.device))
    candidates, skipped = _candidates(choices, selectors, reconstructors)
    if not candidates:
        reasons = "; ".join(dict.fromkeys(f"{one.selector}: {one.reason}" for one in skipped))
        raise AutoGazeError(f"there is nothing that can be measured: {reasons}")
    bench = Bench(
        candidates=candidates,
        mode=choices.mode,
        seed=choices.seed,
        timings=choices.timings,
        memory=PeakMemory(choices.device),
    )
    cutting = replace(
        choices.cutting,
        side_px=_common_side_px(candidates) if choices.mode == "resize" else None,
        motion_vectors=any(candidate.selector.needs_motion_vectors for candidate in candidates),
    )
    identities = _identities(choices, selectors, reconstructors)
    return Plan(
        bench=bench,
        cutting=cutting,
        skipped=skipped,
        identities=identities,
        request=_request(choices, bench, cutting, identities, versions),
    )


def _loaded(asked: Sequence[Any], load: Callable[[Any], ThingT]) -> dict[str, ThingT]:
    """What was asked for under its name; of several of one name, under what tells their paths apart."""
    named = [os.fspath(one) for one in asked if isinstance(one, (str, os.PathLike))]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise AutoGazeError(f"{twice} is named twice; name each once")
    things = [load(one) for one in asked]
    names = [thing.name for thing in things]
    for name in {name for name in names if names.count(name) > 1}:
        places = [place for place, other in enumerate(names) if other == name]
        paths = [asked[place] if isinstance(asked[place], (str, os.PathLike)) else name for place in places]
        for place, longer in zip(places, result_names(paths), strict=True):
            names[place] = longer
    if len(set(names)) < len(names):
        raise ValueError(f"names must differ, got {', '.join(names)}; call a checkpoint's folder otherwise")
    return dict(zip(names, things, strict=True))


def _candidates(
    choices: Choices, selectors: dict[str, Selector], reconstructors: dict[str, Reconstructor]
) -> tuple[tuple[Candidate, ...], tuple[Skipped, ...]]:
    candidates, skipped = [], []
    for name, selector in selectors.items():
        if selector.needs_motion_vectors and choices.mode == "resize":
            why = "motion vectors are of the frames as they were coded, and resizing changes those; use tiles"
            skipped.append(Skipped(selector=name, setting=None, reconstructor=None, reason=why))
            continue
        settings, refused = playable(
            selector, default_settings(selector) if choices.settings is None else choices.settings
        )
        skipped += [
            Skipped(selector=name, setting=one.setting, reconstructor=None, reason=one.reason) for one in refused
        ]
        judges = []
        for judge_name, reconstructor in reconstructors.items():
            reason = _unsuited(reconstructor, selector.grid)
            if reason is None:
                judges.append(Judge(name=judge_name, reconstructor=reconstructor))
            else:
                skipped.append(Skipped(selector=name, setting=None, reconstructor=judge_name, reason=reason))
        if settings and judges:
            candidates.append(Candidate(name=name, selector=selector, settings=settings, judges=tuple(judges)))
    return tuple(candidates), tuple(skipped)


def _unsuited(reconstructor: Reconstructor, grid: PatchGrid) -> str | None:
    side_px = grid.scales_px[-1]
    try:
        reconstructor.open(FrameLayout.resized(grid, height_px=side_px, width_px=side_px))
    except ValueError as error:
        return str(error)
    return None


def _common_side_px(candidates: Sequence[Candidate]) -> int:
    sides_px = {candidate.name: candidate.selector.grid.scales_px[-1] for candidate in candidates}
    if len(set(sides_px.values())) > 1:
        told = ", ".join(f"{name} {side_px} px" for name, side_px in sides_px.items())
        raise AutoGazeError(
            f"figures of frames of different sizes cannot be compared ({told}); evaluate them apart, or use tiles"
        )
    return next(iter(sides_px.values()))


def _identities(
    choices: Choices, selectors: dict[str, Selector], reconstructors: dict[str, Reconstructor]
) -> dict[str, Any]:
    return {
        "selectors": [
            {
                **identity(selector, name=name, asked=asked),
                "grid": {"scales_px": list(selector.grid.scales_px), "patch_px": selector.grid.patch_px},
                "checkpoint": _checkpoint(asked, checkpoint_path),
            }
            for (name, selector), asked in zip(selectors.items(), choices.selectors, strict=True)
        ],
        "reconstructors": [
            {
                **identity(reconstructor, name=name, asked=asked),
                "loss_unit": reconstructor.loss_unit,
                "checkpoint": _checkpoint(asked, reconstructor_path),
            }
            for (name, reconstructor), asked in zip(reconstructors.items(), choices.reconstructors, strict=True)
        ],
    }


def _checkpoint(asked: object, path_of: Callable[[str], Path | None]) -> dict[str, str] | None:
    return checkpoint_facts(path_of(os.fspath(asked))) if isinstance(asked, (str, os.PathLike)) else None


def _request(
    choices: Choices, bench: Bench, cutting: Cutting, identities: dict[str, Any], versions: dict[str, str]
) -> dict[str, Any]:
    def without_files(kind: str) -> list[dict[str, Any]]:
        # The weights count, not where their file lies or when it was copied there.
        return [{name: one[name] for name in one.keys() - {"asked", "checkpoint"}} for one in identities[kind]]

    return {
        "selectors": without_files("selectors"),
        "reconstructors": without_files("reconstructors"),
        "operating_points": {
            candidate.name: [
                {
                    "name": point.name,
                    "ratio": point.ratio,
                    "threshold": point.budget.threshold,
                    "psnr_db": point.budget.psnr_db,
                    "per": point.budget.per,
                }
                for point in candidate.settings
            ]
            for candidate in bench.candidates
        },
        "clip_len": cutting.clip_len,
        "clip_starts": None if cutting.clip_starts is None else list(cutting.clip_starts),
        "max_clips": cutting.max_clips,
        "stride": cutting.stride,
        "mode": choices.mode,
        "side_px": cutting.side_px,
        "viz_clips": choices.viz_clips,
        "seed": choices.seed,
        "device": choices.device,
        "timings": choices.timings,
        "versions": versions,
    }
