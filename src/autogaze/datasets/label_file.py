"""Label files: the published JSON, read and written, and the way to either kind of file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from autogaze.archive import atomic_path
from autogaze.datasets.label_entries import (
    Entry,
    LabelFileError,
    LabelOrigin,
    Labels,
    VideoLabel,
    find_label,
    label_key,
    labelled_videos,
)
from autogaze.datasets.label_parquet import SUFFIX, read_parquet, write_parquet
from autogaze.grid import PatchGrid

__all__ = [
    "LabelFileError",
    "LabelOrigin",
    "Labels",
    "VideoLabel",
    "entry_from_json",
    "entry_to_json",
    "find_label",
    "label_key",
    "labelled_videos",
    "read_labels",
    "write_labels",
    "write_parquet",
]

START = "clip_start"
"""Where an entry says which frame its clip begins with; published ones have none and begin with the first."""
_LISTS = ("gazing_pos", "task_losses")


def read_labels(path: str | os.PathLike[str], *, grid: PatchGrid | None = None) -> Labels:
    """The labels of a JSON file, of a Parquet file, or of a folder of Parquet files.

    Args:
        path: the file or folder.
        grid: patches of a frame. None: what the file says; for a JSON file, which says nothing, the published grid.

    Raises:
        LabelFileError: it is no label file, a label is damaged, or it is of another grid.
        OSError: it cannot be read.
        ImportError: it is Parquet, and pyarrow is not installed.
    """
    path = Path(path)
    if path.is_dir() or path.suffix == SUFFIX:
        return read_parquet(path, grid=grid)
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LabelFileError(f"{path} is not a label file, or damaged ({error}); write it again") from error
    if not isinstance(data, dict):
        raise LabelFileError(f"{path} is not a label file: it must be one JSON object with an entry for each video")
    grid = grid or PatchGrid()
    # Taken out of the parsed file one by one, because there they need ten times the memory.
    entries = {key: entry_from_json(key, data.pop(key), grid=grid, source=str(path)) for key in list(data)}
    return Labels(entries, grid=grid, source=str(path))


def write_labels(path: str | os.PathLike[str], labels: Iterable[VideoLabel]) -> None:
    """Write the published JSON: ``{key: {"gazing_pos": [[…] …], "task_losses": [[…] …]}}``, positions frame-local.

    An entry whose clip does not begin with the first frame has ``clip_start`` beside them. Losses are written as the
    shortest decimals that name the same float32; the file appears whole or not at all.

    Args:
        path: the file.
        labels: taken one after the other; each key once.

    Raises:
        OSError: the file cannot be written.
        ValueError: a gaze has several tiles or no losses.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        before = "{"
        for label in labels:
            file.write(f"{before}\n{json.dumps(label.key)}: {json.dumps(entry_to_json(label), separators=(',', ':'))}")
            before = ","
        file.write("{}\n" if before == "{" else "\n}\n")


def entry_to_json(label: VideoLabel) -> dict[str, Any]:
    """A label as an entry of the published JSON.

    Raises:
        ValueError: its gaze has several tiles or no losses.
    """
    gaze = label.gaze
    if gaze.layout.num_tiles != 1 or gaze.predicted_loss is None:
        raise ValueError(f"the label of {label.key!r} must be of one tile and have losses, got {gaze}")
    ends = np.cumsum(gaze.count)[:-1]
    # As float64 the decimals of the same number would be twice as long.
    loss = np.array([float(str(number)) for number in gaze.predicted_loss])
    parts = (np.split(gaze.index, ends), np.split(loss, ends))
    entry: dict[str, Any] = {
        name: [frame.tolist() for frame in frames] for name, frames in zip(_LISTS, parts, strict=True)
    }
    return entry if label.start == 0 else {**entry, START: label.start}


def entry_from_json(key: str, entry: object, *, grid: PatchGrid, source: str) -> Entry:
    """What an entry of the published JSON holds; inverse of :func:`entry_to_json`.

    Args:
        key: the entry's key.
        entry: what stands there.
        grid: patches of a frame.
        source: what errors call the file.

    Raises:
        LabelFileError: the entry is damaged, or of another grid.
    """
    if not isinstance(entry, dict) or not entry.keys() >= set(_LISTS):
        raise LabelFileError(f"{source}: {key!r} must have {' and '.join(_LISTS)}; is it a label file?")
    for name in _LISTS:
        frames = entry[name]
        if not isinstance(frames, list) or not frames or not all(isinstance(one, list) for one in frames):
            raise LabelFileError(f"{source}: {name} of {key!r} must be a list with one list for each frame")
    count, of_losses = ([len(frame) for frame in entry[name]] for name in _LISTS)
    if count != of_losses:
        raise LabelFileError(
            f"{source}: {key!r} must have one loss for each gaze; its frames have {_told(count)} gazes and "
            f"{_told(of_losses)} losses"
        )
    index, loss = (list(chain.from_iterable(entry[name])) for name in _LISTS)
    if not all(type(position) is int and abs(position) < 2**63 for position in index):
        raise LabelFileError(f"{source}: gazing_pos of {key!r} must hold whole numbers")
    if not all(type(number) in (int, float) for number in loss):
        raise LabelFileError(f"{source}: task_losses of {key!r} must hold numbers")
    start = entry.get(START, 0)
    if type(start) is not int or start < 0:
        raise LabelFileError(f"{source}: {START} of {key!r} must be the number of a frame, got {start!r}")
    return Entry.checked(
        key,
        index=np.array(index, np.int64),
        count=np.array(count, np.int64),
        loss=np.array([_float(number) for number in loss], np.float64),
        start=start,
        grid=grid,
        source=source,
    )


def _float(number: float) -> float:
    """JSON has whole numbers of any length; infinity stands for those that are no float, and is refused as such."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _told(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:16]))
    return shown if len(numbers) <= 16 else f"{shown}, …"
