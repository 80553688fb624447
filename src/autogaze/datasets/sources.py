"""What clips can be made of: videos, images, drawings, and videos with labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from autogaze.datasets.label_entries import Labels, find_label, labelled_videos
from autogaze.datasets.label_file import read_labels
from autogaze.datasets.recipes import ClipRecipe, Draw, Kind
from autogaze.errors import VideoError
from autogaze.grid import Indices, PatchGrid
from autogaze.summary import is_result
from autogaze.video_sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_sources, is_special, natural_key

Split = Literal["train", "val"]
"""Which half of a root that has folders of these names."""
SPLITS: tuple[Split, ...] = ("train", "val")
_PURPOSE = 5  # 0 to 4 draw recipes, clips, labels, orders and mirrors


class ClipSource(Protocol):
    """One kind of clips of a mix."""

    @property
    def weight(self) -> float:
        """Share of the clips, relative to the other sources' weights."""
        ...

    def recipe(self, draw: Draw) -> ClipRecipe:
        """The recipe of a draw, by it alone."""
        ...


@dataclass(frozen=True, kw_only=True)
class VideoClips:
    """Random windows of videos, some without motion and some with a cut.

    Raises:
        VideoError: a root is missing, or there is no video in any.
    """

    roots: tuple[Path, ...]
    """Folders, searched with the folders inside them, and videos."""
    split: Split = "train"
    """Of roots that have folders ``train`` and ``val``."""
    weight: float = 0.85
    """Share of the clips."""
    stills: float = 0.06
    """Share of the source's clips that hold (nearly) still."""
    cuts: float = 0.06
    """Share of the source's clips with a cut in them."""

    def __post_init__(self) -> None:
        _check_found(self.paths, "video", self.roots)

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The videos."""
        return find_videos(self.roots, split=self.split)

    def recipe(self, draw: Draw) -> ClipRecipe:
        """A clip of a video drawn at random."""
        kind: Kind = "video"
        if draw.special < self.stills:
            kind = "still"
        elif draw.special < self.stills + self.cuts:
            kind = "cut"
        return draw.recipe(kind, self.paths[int(draw.choice * len(self.paths))])


@dataclass(frozen=True, kw_only=True)
class ScanningClips:
    """Rides over still images in random directions.

    Raises:
        VideoError: a root is missing, or there is no image in any.
    """

    roots: tuple[Path, ...]
    """Folders, searched with the folders inside them, and images."""
    split: Split = "train"
    """Of roots that have folders ``train`` and ``val``."""
    weight: float = 0.15
    """Share of the clips."""

    def __post_init__(self) -> None:
        _check_found(self.paths, "image", self.roots)

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The images."""
        return find_images(self.roots, split=self.split)

    def recipe(self, draw: Draw) -> ClipRecipe:
        """A ride over an image drawn at random."""
        return draw.recipe("scan", self.paths[int(draw.choice * len(self.paths))])


@dataclass(frozen=True, kw_only=True)
class ProceduralClips:
    """Clips drawn from their seed alone, without any file.

    Raises:
        ValueError: a share is negative, or all are 0.
    """

    weight: float = 0.15
    """Share of the clips."""
    sprites: float = 0.35
    """Share of the source's clips with shapes that move, turn, bounce and hide each other."""
    text: float = 0.25
    """Share of pages of text that stand, scroll, are typed, or lie over something that moves."""
    pans: float = 0.2
    """Share of a camera over a textured surface."""
    cuts: float = 0.2
    """Share of two of the others, joined by a cut or a short dissolve."""

    def __post_init__(self) -> None:
        if min(self._shares.values()) < 0 or not sum(self._shares.values()):
            raise ValueError(f"shares of drawn clips must be at least 0 and not all 0, got {self._shares}")

    @property
    def _shares(self) -> dict[Kind, float]:
        return {"sprites": self.sprites, "text": self.text, "pan": self.pans, "scenes": self.cuts}

    def recipe(self, draw: Draw) -> ClipRecipe:
        """A drawn clip."""
        kinds, shares = list(self._shares), list(self._shares.values())
        return draw.recipe(kinds[pick(shares, draw.special)], None)


@dataclass(frozen=True, kw_only=True)
class LabelledVideos:
    """The clips that a label file speaks of: each once before any comes again, in an order that changes each time.

    Raises:
        LabelFileError: the file is damaged, or its labels are of another grid, another number of frames or other
            videos, or two videos have the same label.
        VideoError: a root is missing.
    """

    labels: Path
    """Label file, see :mod:`autogaze.datasets.label_file`."""
    roots: tuple[Path, ...]
    """Folders of the videos, searched with the folders inside them."""
    split: Split = "train"
    """Of roots that have folders ``train`` and ``val``."""
    weight: float = 1.0
    """Share of the clips."""
    grid: PatchGrid | None = None
    """Patches of a frame; None: what the file says, or the published ones."""
    frames: int | None = None
    """Frames of a clip; None: as many as each label has."""

    def __post_init__(self) -> None:
        _ = self.paths  # the errors of the files come now and not with the first clip

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The videos that have a label."""
        return labelled_videos(self.contents, find_videos(self.roots, split=self.split), frames=self.frames)

    @cached_property
    def contents(self) -> Labels:
        """The labels."""
        return read_labels(self.labels, grid=self.grid)

    def recipe(self, draw: Draw) -> ClipRecipe:
        """A labelled clip, by the number alone."""
        turn, place = divmod(draw.number, len(self.paths))
        path = self.paths[_shuffled(draw.seed, len(self.paths), turn)[place]]
        found = find_label(self.contents, path)
        assert found is not None
        return replace(draw.recipe("labelled", path), start=found.start, label=found.label)


def pick(weights: Sequence[float], u: float) -> int:
    """Which of some weights a number from 0 to below 1 falls on, where they lie end to end.

    Raises:
        ValueError: a weight is negative, or all are 0.
    """
    if min(weights, default=-1) < 0 or not sum(weights):
        raise ValueError(f"weights must be at least 0 and not all 0, got {list(weights)}")
    edges = np.cumsum(weights) / sum(weights)
    # Rounding may leave the last edge below u, and a weight of 0 must not get what is left.
    return min(int(np.searchsorted(edges, u, side="right")), int(np.flatnonzero(weights)[-1]))


@lru_cache(maxsize=4)
def _shuffled(seed: int, length: int, turn: int) -> Indices:
    order: Indices = np.random.default_rng([seed, turn, _PURPOSE]).permutation(length)
    return order


# Finding files


def find_videos(roots: Sequence[str | os.PathLike[str]], *, split: Split = "train") -> tuple[Path, ...]:
    """The videos in some folders and the folders inside them.

    Args:
        roots: folders and videos. Roots come in the order given, and what is in one in the natural order of the names
            relative to it, ``2.mp4`` before ``10.mp4``.
        split: of a folder that has ``train`` or ``val`` inside, only this one counts.

    Raises:
        VideoError: a root is missing.
    """
    return tuple(path for root in roots for path in _files(Path(root), split, VIDEO_SUFFIXES))


def find_images(roots: Sequence[str | os.PathLike[str]], *, split: Split = "train") -> tuple[Path, ...]:
    """The images in some folders and the folders inside them, as :func:`find_videos` finds videos.

    Raises:
        VideoError: a root is missing.
    """
    return tuple(path for root in roots for path in _files(Path(root), split, IMAGE_SUFFIXES))


def find_validation(
    roots: Sequence[str | os.PathLike[str]], *, training: Sequence[str | os.PathLike[str]] = ()
) -> tuple[Path, ...]:
    """The videos to validate on.

    Args:
        roots: folders and videos; of a folder that has ``val`` inside, only that.
        training: roots to train on; of those that have ``val`` inside, that is added.

    Raises:
        VideoError: a root is missing.
    """
    halved = [root for root in training if (Path(root) / "val").is_dir()]
    found = find_videos([*roots, *halved], split="val")
    return tuple(dict.fromkeys(found))


def find_sources_below(patterns: Sequence[str]) -> list[str]:
    """:func:`~autogaze.video_sources.find_sources`, but a folder gives the videos in the folders inside it too.

    Raises:
        VideoError: nothing was found.
    """
    named: list[str] = []
    for pattern in patterns:
        # Of a name that is empty or too long find_sources says so.
        is_folder = pattern and os.path.isdir(pattern)  # noqa: PTH112
        below = _below(Path(pattern), VIDEO_SUFFIXES) if is_folder else []
        named += map(str, below) if below else [pattern]
    return find_sources(named)


def _files(root: Path, split: Split, suffixes: frozenset[str]) -> list[Path]:
    if root.is_file():
        return [root]
    if any((root / name).is_dir() for name in SPLITS):
        root = root / split
    elif not root.exists():
        raise VideoError(f"there is no file or folder {root}")
    return _below(root, suffixes)


def _below(root: Path, suffixes: frozenset[str]) -> list[Path]:
    """The files in a folder and the folders inside it, in the natural order of their names relative to it."""
    found: dict[str, Path] = {}
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        # A link may lead back to where the search came from.
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        # A folder that is called like a video cannot be read as one: it is named later on, like every such file.
        named = [name for name in folders if Path(name).suffix.lower() in suffixes]
        folders[:] = [name for name in folders if name not in named and not name.startswith(".")]
        for name in [*named, *files]:
            path = Path(folder, name)
            if (
                path.suffix.lower() in suffixes
                and not name.startswith(".")
                and not is_result(path)
                and not is_special(path)
            ):
                found[path.relative_to(root).as_posix()] = path
    return [found[name] for name in sorted(found, key=lambda name: (natural_key(name), name))]


def _check_found(paths: tuple[Path, ...], what: str, roots: tuple[Path, ...]) -> None:
    if not paths:
        where = ", ".join(map(str, roots)) or "no folder at all"
        raise VideoError(f"there is no {what} in {where}; give folders that hold some")
