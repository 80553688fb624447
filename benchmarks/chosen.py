"""Gazes of clips and what reconstructors make of them, kept in a file so that an interrupted run goes on.

What was chosen is kept apart from how it was judged: another reconstructor needs no new gazes. The file knows clips
by their pixels and models by their weights, but not the code: delete it after a change to a selector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import av
import numpy as np
from replenish_table import random_like, read_clip

from autogaze.evaluation.clips import ClipReader, Cutting
from autogaze.evaluation.facts import weights_sha256
from autogaze.evaluation.measure import seeded
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.loading import checkpoint_path
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.reconstructors import Reconstructor, load_reconstructor, rebuild
from autogaze.selectors import SELECTORS, make_selector
from autogaze.selectors.base import CLIP_FRAMES, Budget, Selector

SIDE_PX = 224
LONG_FRAMES = 64
"""Most frames of a long clip."""
AT_COUNTS = "random at counts of replenish"
"""As many patches in every frame as replenish takes at a threshold, drawn by lot."""
ANEW = "replenish anew every 16 frames"
"""Replenish with as short a memory as a gaze model has."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One selector at one limit."""

    selector: str
    """A selector without weights, ``AT_COUNTS``, ``ANEW``, or the folder of a checkpoint, which gazes uncalibrated."""
    ratio: float | None = None
    """Most patches of a frame, as a share."""
    threshold: float | None = None
    """Loss at which a frame ends: true for replenish, predicted for a model."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How close a reconstructor came to T frames."""

    loss: tuple[float, ...]
    """Its loss of each frame."""
    mse: tuple[float, ...]
    """Mean squared error of each frame, colours in 0…1."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A gaze of T frames as plain values, and its judges."""

    index: tuple[int, ...]
    """Patch of each gaze, frame after frame."""
    count: tuple[int, ...]
    """Gazes of each frame."""
    stated: tuple[float | None, ...]
    """Loss stated after each frame's last gaze; None where nothing was said."""
    judged: dict[str, Judged]
    """Key of a reconstructor → what it made of them."""

    @property
    def kept(self) -> float:
        """Share of the patches of all frames."""
        return len(self.index) / (len(self.count) * PatchGrid().num_patches)

    @classmethod
    def of(cls, gaze: Gaze) -> Chosen:
        """Not judged yet."""
        last = np.cumsum(gaze.count) - 1
        said = [
            None if gaze.predicted_loss is None or not count else float(gaze.predicted_loss[place])
            for count, place in zip(gaze.count, last, strict=True)
        ]
        stated = tuple(None if one is None or np.isnan(one) else one for one in said)
        return cls(index=tuple(gaze.index.tolist()), count=tuple(gaze.count.tolist()), stated=stated, judged={})

    @classmethod
    def from_json(cls, data: dict) -> Chosen:
        """What :func:`dataclasses.asdict` made of one."""
        judged = {name: Judged(loss=tuple(one["loss"]), mse=tuple(one["mse"])) for name, one in data["judged"].items()}
        index, count, stated = (tuple(data[name]) for name in ("index", "count", "stated"))
        return cls(index=index, count=count, stated=stated, judged=judged)

    def gaze(self, layout: FrameLayout) -> Gaze:
        """The gaze again, without what was stated."""
        return Gaze(index=np.array(self.index, np.int64), count=np.array(self.count, np.int64), layout=layout)


class Store:
    """The file; a line for each clip and setting, of which the last one counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Chosen] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                key, data = json.loads(line)
            except ValueError:  # torn by an interruption
                continue
            self._known[key] = Chosen.from_json(data)

    def of(self, keys: Iterable[str]) -> dict[str, Chosen]:
        """What is known of these."""
        return {key: self._known[key] for key in keys if key in self._known}

    def add(self, chosen: dict[str, Chosen]) -> None:
        """Write what is new down at once."""
        new = {key: one for key, one in chosen.items() if self._known.get(key) != one}
        with self.path.open("a") as file:
            file.writelines(json.dumps([key, asdict(one)]) + "\n" for key, one in new.items())
        self._known |= new


@dataclass(frozen=True, kw_only=True)
class Job:
    """One clip, all that is to be measured of it, and what is known already."""

    path: Path
    """The video."""
    long: bool
    """Whether the clip is the video's first frames up to ``LONG_FRAMES``, or as ``replenish_table`` has it."""
    settings: tuple[Setting, ...]
    """Who chooses."""
    reconstructors: tuple[str, ...]
    """Who judges, as the command line names them."""
    known: dict[str, Chosen]
    """By :func:`keys_of`."""


def keys_of(job: Job) -> dict[Setting, str]:
    """What a clip under each setting is called in a :class:`Store`."""
    # The file stands for its pixels: who is asked for the key has not decoded it.
    clip = [job.path.name, hashlib.sha256(job.path.read_bytes()).hexdigest(), job.long]
    return {
        one: hashlib.sha256(
            json.dumps([*clip, _selector_key(one.selector), one.ratio, one.threshold]).encode()
        ).hexdigest()[:32]
        for one in job.settings
    }


def reconstructor_key(name: str) -> str:
    """A reconstructor by what it does: its name, or its weights."""
    return weights_sha256(reconstructor(name)) or name


def measure(job: Job) -> dict[str, Chosen]:
    """Choose and judge what is not known; everything that was asked for, by key."""
    import torch

    torch.set_num_threads(1)
    layout = FrameLayout.resized(PatchGrid(), height_px=SIDE_PX, width_px=SIDE_PX)
    frames = read_long(job.path) if job.long else read_clip(job.path)
    found = {}
    for setting, key in keys_of(job).items():
        chosen = job.known.get(key) or Chosen.of(choose(setting, frames, layout, path=job.path))
        judged = dict(chosen.judged)
        for name in job.reconstructors:
            if reconstructor_key(name) not in judged:
                judged[reconstructor_key(name)] = judge(frames, chosen.gaze(layout), reconstructor(name))
        found[key] = Chosen(index=chosen.index, count=chosen.count, stated=chosen.stated, judged=judged)
    return found


def read_long(path: Path) -> Frames:
    """The first frames of a video, as ``autogaze evaluate --clip-len 64`` takes them."""
    with ClipReader(path, name=path.stem, cutting=Cutting(clip_len=LONG_FRAMES, max_clips=1, side_px=SIDE_PX)) as clips:
        return next(iter(clips)).frames


def choose(setting: Setting, frames: Frames, layout: FrameLayout, *, path: Path) -> Gaze:
    """The gaze of one clip."""
    budget = Budget(ratio=setting.ratio, threshold=setting.threshold)
    if setting.selector == AT_COUNTS:
        gaze = make_selector("replenish").open(layout, budget).step(frames)
        return random_like(gaze, np.random.default_rng(int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4])))
    if setting.selector == ANEW:
        pieces = [frames[first : first + CLIP_FRAMES] for first in range(0, len(frames), CLIP_FRAMES)]
        return Gaze.concatenate([make_selector("replenish").open(layout, budget).step(piece) for piece in pieces])
    if setting.selector == "motion-vectors":
        return _by_motion_vectors(path, budget, layout)
    selector = seeded(_selector(setting.selector), seed=0, clip_name=path.name)
    return selector.open(layout, budget).step(frames)


def _by_motion_vectors(path: Path, budget: Budget, layout: FrameLayout) -> Gaze:
    """Chosen on the frames as they were coded: the same patches of the same grid, laid over the small frames."""
    with av.open(str(path)) as container:
        several = sum(1 for _ in islice(container.decode(video=0), 2 * CLIP_FRAMES)) >= 2 * CLIP_FRAMES
    cutting = Cutting(clip_len=CLIP_FRAMES, max_clips=1, stride=2 if several else 1, motion_vectors=True)
    with ClipReader(path, name=path.stem, cutting=cutting) as clips:
        coded = next(iter(clips)).frames
    own = FrameLayout.resized(layout.grid, height_px=coded.height_px, width_px=coded.width_px)
    gaze = make_selector("motion-vectors").open(own, budget).step(coded)
    return Gaze(index=gaze.index, count=gaze.count, layout=layout)


def judge(frames: Frames, gaze: Gaze, by: Reconstructor) -> Judged:
    """Rebuild the frames and compare."""
    rebuilt = rebuild(frames, gaze=gaze, reconstructor=by)
    error = (np.maximum(rebuilt.rgb, frames.rgb) - np.minimum(rebuilt.rgb, frames.rgb)).astype(np.float32)
    mse = np.square(error).reshape(len(error), -1).mean(axis=1, dtype=np.float64) / 255**2
    return Judged(loss=tuple(rebuilt.loss.tolist()), mse=tuple(mse.tolist()))


@cache
def reconstructor(name: str) -> Reconstructor:
    """Loaded once in each process."""
    return load_reconstructor(name)


@cache
def _selector(name: str) -> Selector:
    if name in SELECTORS:
        return make_selector(name)
    return AutoGazeSelector(AutoGaze.from_pretrained(checkpoint_path(name) or name, calibrated=False))


@cache
def _selector_key(name: str) -> str:
    return (None if name in (AT_COUNTS, ANEW) else weights_sha256(_selector(name))) or name
