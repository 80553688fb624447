"""Labels as Parquet: the columns of the published JSON in files of equal length, and where they come from."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autogaze.archive import atomic_path, commit
from autogaze.datasets.label_entries import Entry, LabelFileError, LabelOrigin, Labels, VideoLabel
from autogaze.extras import require
from autogaze.grid import PatchGrid

FORMAT = "autogaze-labels"
FORMAT_VERSION = 1
METADATA = b"autogaze"
"""Key of the schema's metadata under which the origin stands, as JSON."""
SUFFIX = ".parquet"
VIDEO_BYTES = "video_bytes"
"""Column that may have gaps, and that earlier files lack."""
SHARD_CLIPS = 10_000
"""Clips of one file of a folder."""


def write_parquet(
    path: Path, labels: Iterable[VideoLabel], *, origin: LabelOrigin, shard_clips: int = SHARD_CLIPS
) -> None:
    """Write one file if ``path`` ends in ``.parquet``, else a folder of ``labels-00000.parquet`` and so on.

    Columns: key, gazing_pos (a list of patches for each frame), task_losses (as many float32), clip_start, video_bytes.
    File or folder appear whole or not at all; a folder takes the place of one that holds such files alone.

    Raises:
        LabelFileError: a folder is there already and holds other things.
        ImportError: pyarrow is not installed.
        OSError: a file cannot be written.
        ValueError: ``shard_clips`` is below 1.
    """
    if shard_clips < 1:
        raise ValueError(f"a file must hold at least 1 clip, got shard_clips {shard_clips}")
    shards = _shards(labels, shard_clips)
    if path.suffix == SUFFIX:
        with atomic_path(path) as temporary:
            _write_file(temporary, shards, origin)
        return
    check_folder(path)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.absolute().parent))
    try:
        fresh = staging / "labels"
        fresh.mkdir()
        for number, shard in enumerate(shards):
            _write_file(fresh / f"labels-{number:05d}{SUFFIX}", iter([shard]), origin)
        if path.exists():
            path.rename(staging / "before")
        commit(fresh, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_folder(path: Path) -> None:
    """Refuse to put a folder of labels where there is something else.

    Raises:
        LabelFileError: there is a file, or a folder that holds other things.
    """
    foreign = [path] if path.is_file() else [inside for inside in _inside(path) if inside.suffix != SUFFIX]
    if foreign:
        raise LabelFileError(f"{foreign[0]} is there already and no label file; choose another place for the labels")


def read_parquet(path: Path, *, grid: PatchGrid | None) -> Labels:
    """The labels of a file, or of all files of a folder.

    Raises:
        LabelFileError: there are none, or they are damaged, of another grid, or of several runs.
        ImportError: pyarrow is not installed.
        OSError: a file cannot be read.
    """
    files = [inside for inside in _inside(path) if inside.suffix == SUFFIX] if path.is_dir() else [path]
    if not files:
        raise LabelFileError(f"folder {path} holds no label file (*{SUFFIX}); give the folder that was written")
    entries: dict[str, Entry] = {}
    origin: LabelOrigin | None = None
    for file in files:
        table, of_file = _read_file(file)
        if origin is not None and of_file != origin:
            raise LabelFileError(f"{file} was made otherwise than {files[0]}; keep the files of each run in a folder")
        origin = of_file
        if grid is not None and grid != origin.grid:
            raise LabelFileError(f"{file} is a label file from another grid: {origin.grid}, wanted is {grid}")
        for key, entry in _entries(table, grid=origin.grid, source=str(file)):
            if key in entries:
                raise LabelFileError(f"{file} has {key!r} again; keep the files of each run in a folder of their own")
            entries[key] = entry
    assert origin is not None
    return Labels(entries, grid=origin.grid, source=str(path), origin=origin)


def _inside(folder: Path) -> list[Path]:
    return sorted(inside for inside in folder.iterdir() if inside.name[0] != ".") if folder.is_dir() else []


def _shards(labels: Iterable[VideoLabel], shard_clips: int) -> Iterator[list[VideoLabel]]:
    """Lists of so many labels; a single empty one if there is none, so that a file says so."""
    rest = iter(labels)
    shard = list(islice(rest, shard_clips))
    while True:
        yield shard
        shard = list(islice(rest, shard_clips))
        if not shard:
            return


def _schema(metadata: dict[bytes, bytes] | None = None) -> Any:
    pyarrow = require("pyarrow", extra="table")
    return pyarrow.schema(
        [
            ("key", pyarrow.string()),
            ("gazing_pos", pyarrow.list_(pyarrow.list_(pyarrow.int32()))),
            ("task_losses", pyarrow.list_(pyarrow.list_(pyarrow.float32()))),
            ("clip_start", pyarrow.int64()),
            (VIDEO_BYTES, pyarrow.int64()),
        ],
        metadata=metadata,
    )


def _write_file(path: Path, shards: Iterator[list[VideoLabel]], origin: LabelOrigin) -> None:
    pyarrow = require("pyarrow", extra="table")
    parquet = require("pyarrow.parquet", extra="table")
    told = json.dumps({"format": FORMAT, "version": FORMAT_VERSION, **origin.to_json()})
    schema = _schema({METADATA: told.encode()})
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for shard in shards:
            columns = [
                [label.key for label in shard],
                _nested(shard, [label.gaze.index.astype(np.int32) for label in shard]),
                _nested(shard, [_losses(label) for label in shard]),
                [label.start for label in shard],
                [label.video_bytes for label in shard],
            ]
            writer.write_table(pyarrow.table(columns, schema=schema))


def _losses(label: VideoLabel) -> NDArray[np.float32]:
    if label.gaze.predicted_loss is None:
        raise ValueError(f"the label of {label.key!r} has no losses")
    return label.gaze.predicted_loss


def _nested(labels: list[VideoLabel], values: list[NDArray[Any]]) -> Any:
    """A column of lists of lists: clips, frames, gazes."""
    pyarrow = require("pyarrow", extra="table")
    frames = np.cumsum([0, *(label.gaze.num_frames for label in labels)])
    gazes = np.cumsum(np.concatenate([[0], *(label.gaze.count for label in labels)]))
    flat = np.concatenate(values) if values else np.empty(0, np.int32)
    inner = pyarrow.ListArray.from_arrays(pyarrow.array(gazes, pyarrow.int32()), pyarrow.array(flat))
    return pyarrow.ListArray.from_arrays(pyarrow.array(frames, pyarrow.int32()), inner)


def _read_file(path: Path) -> tuple[Any, LabelOrigin]:
    pyarrow = require("pyarrow", extra="table")
    parquet = require("pyarrow.parquet", extra="table")
    try:
        # As it is and not as part of a data set, whose folders could become columns.
        table = parquet.ParquetFile(path).read()
        told = json.loads((table.schema.metadata or {})[METADATA])
        if told.get("format") != FORMAT or told.get("version") != FORMAT_VERSION:
            raise ValueError(f"its format is {told.get('format')!r}, version {told.get('version')!r}")
        origin = LabelOrigin.from_json(told)
        _ = origin.grid
        if VIDEO_BYTES not in table.column_names:
            table = table.append_column(VIDEO_BYTES, pyarrow.nulls(len(table), pyarrow.int64()))
        table = table.select(_schema().names).cast(_schema())
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError) as error:
        told_error = " ".join(str(error).split())
        raise LabelFileError(
            f"{path} is no label file of this version, or damaged ({told_error}); write it again"
        ) from error
    if any(table.column(name).null_count for name in table.column_names if name != VIDEO_BYTES):
        raise LabelFileError(f"{path} has gaps; write it again")
    return table, origin


def _entries(table: Any, *, grid: PatchGrid, source: str) -> Iterator[tuple[str, Entry]]:
    if not table.num_rows:
        return
    keys, starts, sizes = (table.column(name).to_pylist() for name in ("key", "clip_start", VIDEO_BYTES))
    frames, gazes, index = _flat(table, "gazing_pos", source)
    frames_of_losses, gazes_of_losses, loss = _flat(table, "task_losses", source)
    if not (np.array_equal(frames, frames_of_losses) and np.array_equal(gazes, gazes_of_losses)):
        raise LabelFileError(f"{source} must have one loss for each gaze; write it again")
    for number, (key, start) in enumerate(zip(keys, starts, strict=True)):
        ends = gazes[frames[number] : frames[number + 1] + 1]
        inside = slice(ends[0], ends[-1])
        entry = Entry.checked(
            key,
            index=index[inside].astype(np.int64),
            count=np.diff(ends),
            loss=loss[inside],
            start=start,
            video_bytes=sizes[number],
            grid=grid,
            source=source,
        )
        yield key, entry


def _flat(table: Any, name: str, source: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Where the frames of each clip and the gazes of each frame begin, and all values; from a column of lists."""
    pyarrow = require("pyarrow", extra="table")
    outer = pyarrow.concat_arrays(table.column(name).chunks)
    inner = outer.values
    values = inner.values
    if inner.null_count or values.null_count:
        raise LabelFileError(f"{source}: {name} has gaps; write it again")
    frames, gazes = (array.offsets.to_numpy().astype(np.int64) for array in (outer, inner))
    return frames, gazes, values.to_numpy()
