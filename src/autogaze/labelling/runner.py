"""Label many videos: in several processes, resumable, and into one file that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from autogaze.datasets.label_entries import Entry, LabelFileError, LabelOrigin, Labels, label_key
from autogaze.datasets.label_file import entry_from_json, entry_to_json, write_labels
from autogaze.datasets.label_parquet import SHARD_CLIPS, SUFFIX, check_folder, write_parquet
from autogaze.errors import AutoGazeError
from autogaze.extras import require
from autogaze.grid import PatchGrid
from autogaze.journal import JournalKind, LineJournal
from autogaze.labelling.settings import Labelled, LabelSettings, VideoLabeller
from autogaze.labelling.workers import Workers
from autogaze.results import OutputError, check_out
from autogaze.summary import fingerprint

JSON = ".json"


@dataclass(frozen=True, kw_only=True)
class LabelProgress:
    """How far a run is."""

    video: str
    """The video that was just done."""
    done: int
    """Videos that are done, those that failed or were done before included."""
    total: int
    """Videos in all."""


OnLabelled: TypeAlias = Callable[[LabelProgress], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelFailure:
    """A video without label."""

    video: str
    """The video as it was named."""
    error: Exception
    """What is wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelRun:
    """What came out."""

    path: Path
    """The file or folder of the labels."""
    labels: Labels
    """All labels in it, by key; those of earlier runs included."""
    made: int
    """Videos labelled by this run."""
    found: int
    """Videos whose labels were there."""
    failures: tuple[LabelFailure, ...]
    """Videos without label, in the order they were named."""
    evaluations: int
    """Sets of gazes that this run asked a learned reconstructor about."""
    read_seconds: float
    """This run's seconds of reading and resizing, summed over processes."""
    search_seconds: float
    """This run's seconds of searching, summed over processes."""


def label_videos(
    videos: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    settings: LabelSettings | None = None,
    jobs: int = 1,
    shard_clips: int = SHARD_CLIPS,
    device: str | None = None,
    overwrite: bool = False,
    on_progress: OnLabelled | None = None,
) -> LabelRun:
    """Label one clip of each video and write the labels into one file, in the order of their keys.

    Beside the file lies a journal, ``.NAME.journal.jsonl``: a run that was interrupted, or gets more videos, does only
    what is missing, with the same settings. Labels do not depend on the order of the videos or on ``jobs``.

    Args:
        videos: paths; see :func:`~autogaze.video_sources.find_sources` for folders and patterns.
        out: a ``.json`` file in the published format; a ``.parquet`` file; or a folder of Parquet files.
        settings: how videos are labelled; None: by the canvas, with counts drawn as in the paper.
        jobs: processes; with several, a script must start them under ``if __name__ == "__main__"``.
        shard_clips: clips of one Parquet file of a folder.
        device: where a learned reconstructor runs, as torch names it; None: the CPU.
        overwrite: whether to start over and replace what is there.
        on_progress: called after each video.

    Raises:
        CheckpointError: there is no such reconstructor, it cannot be loaded, or it cannot judge labels.
        OutputError: the labels cannot be put there, or labels made otherwise are there.
        AutoGazeError: a setting is not legal.
        ImportError: Parquet is asked for, and pyarrow is not installed.
        TypeError: one video was given, not a list of them.
        OSError: a file cannot be written.
    """
    if isinstance(videos, (str, os.PathLike)):
        raise TypeError(f"label_videos takes a list of videos, got one: use [{os.fspath(videos)!r}]")
    if jobs < 1:
        raise AutoGazeError(f"jobs must be at least 1, got {jobs}")
    settings = settings or LabelSettings()
    path = Path(out)
    _claim(path, overwrite=overwrite)
    # Made here too where others will work with it: what is wrong with it is told before anything is begun.
    labeller = VideoLabeller(settings, device)
    make = partial(_labeller_of_many, settings, device) if jobs > 1 else lambda: labeller
    path.parent.mkdir(parents=True, exist_ok=True)
    request = settings.request(labeller.origin)
    with LabelJournal(path, request, grid=labeller.origin.grid, overwrite=overwrite) as journal:
        run = _Run(journal, on_progress=on_progress)
        with Workers[str, Labelled](make, count=jobs) as workers:
            run.label([os.fspath(video) for video in videos], workers)
        labels = Labels(dict(sorted(run.entries.items())), grid=labeller.origin.grid, source=str(path))
        if labels:
            _write(path, labels, origin=labeller.origin, shard_clips=shard_clips)
    return run.outcome(path, labels)


def journal_path(labels_path: Path) -> Path:
    """Where the journal of a label file lies."""
    return labels_path.with_name(f".{labels_path.name}.journal.jsonl")


def _claim(path: Path, *, overwrite: bool) -> None:
    """Find out before hours of work whether labels can be put there.

    Raises:
        OutputError: they cannot, or would take the place of something.
    """
    check_out(path.parent)
    if path.suffix not in ("", JSON, SUFFIX) and not path.is_dir():
        raise OutputError(f"labels go into a {JSON} file, a {SUFFIX} file or a folder of Parquet files, got {path}")
    if path.suffix in (JSON, SUFFIX):
        if path.is_dir():
            raise OutputError(f"{path} is a folder, and a file goes there; choose another --out")
    else:
        try:
            check_folder(path)
        except LabelFileError as error:
            raise OutputError(str(error)) from error
    if path.suffix != JSON:
        require("pyarrow", extra="table")
    if (
        not overwrite
        and not journal_path(path).exists()
        and (path.is_file() or (path.is_dir() and any(path.iterdir())))
    ):
        raise OutputError(
            f"{path} is there already, and no journal beside it says how it was made; --overwrite replaces it, "
            "another --out keeps it"
        )


def _labeller_of_many(settings: LabelSettings, device: str | None) -> VideoLabeller:
    torch.set_num_threads(1)  # there are other processes to keep the processor busy
    return VideoLabeller(settings, device)


def _write(path: Path, labels: Labels, *, origin: LabelOrigin, shard_clips: int) -> None:
    if path.suffix == JSON:
        write_labels(path, labels.values())
    else:
        write_parquet(path, labels.values(), origin=origin, shard_clips=shard_clips)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelRecord:
    """A line of the journal."""

    entry: Entry
    """The label."""
    key: str
    """The video's key."""
    fingerprint: str | None
    """What the file was, see :func:`~autogaze.summary.fingerprint`."""


class LabelJournal(LineJournal[LabelRecord]):
    """The journal of a label file, beside it."""

    def __init__(
        self, labels_path: Path, request: Mapping[str, Any], *, grid: PatchGrid, overwrite: bool = False
    ) -> None:
        """Open the journal of a file, or begin one; see :class:`~autogaze.journal.LineJournal`."""
        self._grid = grid
        kind = JournalKind(
            format="autogaze-label-journal",
            version=1,
            work="labels",
            another="another run",
            differs="labels that differ from these",
            place=str(labels_path),
        )
        super().__init__(journal_path(labels_path), request, kind=kind, overwrite=overwrite)

    def to_line(self, record: LabelRecord) -> dict[str, Any]:
        """See :meth:`LineJournal.to_line`."""
        label = Labels({record.key: record.entry}, grid=self._grid, source=str(self.path))[record.key]
        of_video = {"fingerprint": record.fingerprint, "video_bytes": record.entry.video_bytes}
        return {"key": record.key, **of_video, **entry_to_json(label)}

    def from_line(self, line: dict[str, Any]) -> LabelRecord:
        """See :meth:`LineJournal.from_line`."""
        try:
            entry = entry_from_json(line["key"], line, grid=self._grid, source=str(self.path))
        except LabelFileError as error:
            raise ValueError(str(error)) from error
        entry = replace(entry, video_bytes=line.get("video_bytes"))
        return LabelRecord(key=line["key"], fingerprint=line["fingerprint"], entry=entry)


class _Run:
    """One pass over the videos."""

    def __init__(self, journal: LabelJournal, *, on_progress: OnLabelled | None) -> None:
        self._journal, self._on_progress = journal, on_progress
        self._records = {record.key: record for record in journal.records()}
        self._failures: dict[str, Exception] = {}
        self._made: list[Labelled] = []
        self._found = 0

    @property
    def entries(self) -> dict[str, Entry]:
        """All labels so far, by key."""
        return {key: record.entry for key, record in self._records.items()}

    def label(self, videos: Sequence[str], workers: Workers[str, Labelled]) -> None:
        """Label what has no label yet."""
        total = len(videos)
        missing = self._missing(videos)
        fingerprints = {video: fingerprint(video) for video in missing}
        done = total - len(missing)
        for outcome in workers.each(missing):
            video, labelled = outcome.task, outcome.result
            if labelled is None:
                self._failures[video] = outcome.error or RuntimeError("unknown")
            else:
                record = LabelRecord(
                    key=labelled.label.key, fingerprint=fingerprints[video], entry=Entry.of(labelled.label)
                )
                self._journal.add(record)
                self._records[record.key] = record
                self._made.append(labelled)
            done += 1
            if self._on_progress is not None:
                self._on_progress(LabelProgress(video=video, done=done, total=total))

    def _missing(self, videos: Sequence[str]) -> list[str]:
        named: dict[str, str] = {}
        missing = []
        for video in videos:
            key = label_key(video)
            if key in named:
                self._failures[video] = AutoGazeError(
                    f"{video} would have the same key {key!r} as {named[key]}, which has it; label it into another file"
                )
                continue
            named[key] = video
            record = self._records.get(key)
            if record is not None and record.fingerprint == fingerprint(video):
                self._found += 1
            else:
                missing.append(video)
        return missing

    def outcome(self, path: Path, labels: Labels) -> LabelRun:
        """What came out."""
        return LabelRun(
            path=path,
            labels=labels,
            made=len(self._made),
            found=self._found,
            failures=tuple(LabelFailure(video=video, error=error) for video, error in self._failures.items()),
            evaluations=sum(labelled.evaluations for labelled in self._made),
            read_seconds=sum(labelled.read_seconds for labelled in self._made),
            search_seconds=sum(labelled.search_seconds for labelled in self._made),
        )
