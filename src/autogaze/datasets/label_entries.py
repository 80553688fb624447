"""Labels of many videos in memory: what a label file holds, checked, and found by the path of a video."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from autogaze.datasets.labels import Label
from autogaze.errors import AutoGazeError, AutoGazeWarning
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, Indices, PatchGrid

# Shape letters: T frames, N gazes over all frames.

KEY_PARTS = 3
"""A video's key is so many last parts of its path."""


class LabelFileError(AutoGazeError):
    """A label file cannot be read, or its labels are of another grid or other videos."""


@dataclass(frozen=True, kw_only=True)
class LabelOrigin:
    """What decides the labels of a file, beside the videos."""

    scales_px: tuple[int, ...]
    """Scales of the patch grid."""
    patch_px: int
    """Side of a patch in pixels of its scale."""
    frames: int
    """Frames of a clip."""
    start: str
    """Which clip of a video: ``first``, or ``random``, drawn by ``seed`` and key."""
    reconstructor: str
    """What rebuilt the frames, as it was asked for."""
    reconstructor_fingerprint: str | None
    """Size and time of change of its checkpoint on this disk; None where it has no file."""
    loss_unit: str
    """What a loss of 1 is."""
    search: str
    """How the best patch was looked for."""
    budget: dict[str, Any]
    """When a frame ended."""
    seed: int
    """Of every draw."""

    @property
    def grid(self) -> PatchGrid:
        """Patches of a frame."""
        return PatchGrid(scales_px=self.scales_px, patch_px=self.patch_px)

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` reads them back."""
        return {**asdict(self), "scales_px": list(self.scales_px)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The origin of a :meth:`to_json` value; names of later versions are passed over.

        Raises:
            KeyError: a name is missing.
            TypeError: scales are no list.
        """
        values = {field.name: data[field.name] for field in fields(cls)}
        return cls(**{**values, "scales_px": tuple(values["scales_px"])})


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoLabel:
    """The gazes of one clip of a video, and the loss after each of them. T frames, N gazes."""

    key: str
    """The last three parts of the video's path, see :func:`label_key`."""
    gaze: Gaze
    """The gazes, on one tile; ``predicted_loss`` is the recorded loss of the frame after each of them."""
    start: int = 0
    """Number of the clip's first frame in the video."""
    video_bytes: int | None = None
    """Size of the video's file when it was labelled; None where nothing says so."""

    @property
    def label(self) -> Label:
        """The same as what training takes. No gaze is a slip, and no threshold is known (NaN)."""
        return Label(gaze=self.gaze, best=np.ones(self.gaze.num_gazes, bool), threshold=math.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """A label in few bytes. T frames, N gazes."""

    index: NDArray[np.unsignedinteger[Any]]
    """(N,) patches."""
    count: NDArray[np.unsignedinteger[Any]]
    """(T,) gazes of each frame."""
    loss: NDArray[np.float32]
    """(N,) loss after each gaze."""
    start: int
    """Number of the clip's first frame."""
    video_bytes: int | None
    """See :attr:`VideoLabel.video_bytes`."""

    @classmethod
    def of(cls, label: VideoLabel) -> Self:
        """A label that was just made.

        Raises:
            LabelFileError: its losses are no finite numbers.
            ValueError: it has no losses.
        """
        gaze = label.gaze
        if gaze.predicted_loss is None:
            raise ValueError(f"the label of {label.key!r} has no losses")
        return cls.checked(
            label.key,
            index=gaze.index,
            count=gaze.count,
            loss=gaze.predicted_loss,
            start=label.start,
            video_bytes=label.video_bytes,
            grid=gaze.layout.grid,
            source="the search",
        )

    @classmethod
    def checked(
        cls,
        key: str,
        *,
        index: Indices,
        count: Indices,
        loss: NDArray[np.floating[Any]],
        start: int,
        video_bytes: int | None = None,
        grid: PatchGrid,
        source: str,
    ) -> Self:
        """A label whose numbers can be trusted.

        Raises:
            LabelFileError: a gaze lies outside the grid or comes twice in a frame, or a loss is no finite number.
        """
        frame, P = np.repeat(np.arange(len(count)), count), grid.num_patches
        outside = np.flatnonzero((index < 0) | (index >= P))
        if len(outside):
            raise LabelFileError(
                f"{source} is a label file from another grid: frame {frame[outside[0]]} of {key!r} has a gaze at "
                f"{index[outside[0]]}, and scales {'+'.join(map(str, grid.scales_px))} have patches 0..{P - 1}"
            )
        endless = np.flatnonzero(~(np.abs(loss) <= np.finfo(np.float32).max))
        if len(endless):
            raise LabelFileError(
                f"{source}: frame {frame[endless[0]]} of {key!r} has a loss of {loss[endless[0]]}; label it again"
            )
        places = frame * P + index
        order = np.argsort(places, kind="stable")
        again = order[1:][np.diff(places[order]) == 0]
        if len(again):
            raise LabelFileError(
                f"{source}: frame {frame[again[0]]} of {key!r} has patch {index[again[0]]} twice; label it again"
            )
        small = np.min_scalar_type(P)
        return cls(
            index=index.astype(small),
            count=count.astype(small),
            loss=loss.astype(np.float32),
            start=start,
            video_bytes=video_bytes,
        )


class Labels(Mapping[str, VideoLabel]):
    """Labels by key, in the order of their file. They are kept as small arrays, and made when they are asked for."""

    def __init__(
        self, entries: Mapping[str, Entry], *, grid: PatchGrid, source: str, origin: LabelOrigin | None = None
    ) -> None:
        """See :func:`~autogaze.datasets.label_file.read_labels`, which makes them."""
        self.grid = grid
        """Patches of a frame."""
        self.source = source
        """What errors call the file."""
        self.origin = origin
        """Where the labels come from; None where the file does not say."""
        self.layout = FrameLayout.tiled(grid, height_px=grid.scales_px[-1], width_px=grid.scales_px[-1])
        """Layout of every gaze."""
        self._entries = entries

    def __getitem__(self, key: str) -> VideoLabel:
        entry = self._entries[key]
        gaze = Gaze(
            index=entry.index.astype(np.int64),
            count=entry.count.astype(np.int64),
            layout=self.layout,
            predicted_loss=entry.loss,
        )
        return VideoLabel(key=key, gaze=gaze, start=entry.start, video_bytes=entry.video_bytes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def num_frames(self, key: str) -> int:
        """Frames of a clip.

        Raises:
            KeyError: there is no such label.
        """
        return len(self._entries[key].count)

    def is_of(self, key: str, video: Path) -> bool:
        """Whether a video may be the one that a label was made of: false if its file has another size.

        Raises:
            KeyError: there is no such label.
        """
        labelled = self._entries[key].video_bytes
        return labelled is None or labelled == file_bytes(video)

    def __repr__(self) -> str:
        return f"Labels({len(self)} clips of {self.source})"


def label_key(video: str | os.PathLike[str]) -> str:
    """What label files call a video: the last three parts of its absolute path, such as ``set/train/clip.mp4``."""
    return "/".join(part for part in Path(video).absolute().parts[-KEY_PARTS:] if part != os.sep)


def file_bytes(video: str | os.PathLike[str]) -> int | None:
    """Size of a file; None of what is none, such as a folder of images."""
    path = Path(video)
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None


def find_label(labels: Labels, video: str | os.PathLike[str]) -> VideoLabel | None:
    """The label of a video, found by the end of its path; None if there is none."""
    return labels.get(label_key(video))


def labelled_videos(labels: Labels, videos: Sequence[Path], *, frames: int | None = None) -> tuple[Path, ...]:
    """Those of some videos that have a label, in their order; a warning tells how many others there are.

    A label of a file of another size is none, if it says so: the video was replaced since.

    Args:
        labels: of the videos.
        videos: their paths.
        frames: of a clip; None: as many as each label has.

    Raises:
        LabelFileError: none has one: the labels are of other videos, or of these in other folders; or two videos have
            the same label, or a label is of another number of frames.
    """
    of_key: dict[str, Path] = {}
    found: list[Path] = []
    replaced: list[Path] = []
    for video in videos:
        if (key := label_key(video)) not in labels:
            continue
        if not labels.is_of(key, video):
            replaced.append(video)
            continue
        if (other := of_key.setdefault(key, video)) is not video and other.resolve() != video.resolve():
            raise LabelFileError(
                f"{other} and {video} would both have the label {key!r} of {labels.source}; train on one of them, or "
                "rename a folder and label again"
            )
        if frames is not None and labels.num_frames(key) != frames:
            raise LabelFileError(
                f"{labels.source}: the label of {key!r} has {labels.num_frames(key)} frames, and clips have {frames}; "
                f"label the videos again with --clip-len {frames}"
            )
        found.append(video)
    told = (
        f"{len(replaced)} changed since they were labelled, such as {replaced[0]}; label them again" if replaced else ""
    )
    if found and len(found) < len(videos):
        warnings.warn(
            f"{labels.source} has labels for {len(found)} of {len(videos)} videos; the others are left out"
            + (f"; {told}" if told else ""),
            AutoGazeWarning,
            stacklevel=2,
        )
    if not found and replaced:
        raise LabelFileError(f"{labels.source}: of the videos with labels {told}")
    if not found:
        any_key = next(iter(labels), None)
        told = "it holds none" if any_key is None else f"one of its keys is {any_key!r}"
        of = f"that of {videos[0]} would be {label_key(videos[0])!r}" if videos else "and there is no video"
        raise LabelFileError(
            f"{labels.source} has labels for other videos: {told}, {of}; a key is the last {KEY_PARTS} parts of a "
            "video's path"
        )
    return tuple(found)
