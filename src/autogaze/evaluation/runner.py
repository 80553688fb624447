"""Videos × selectors × settings × reconstructors, measured clip by clip into a folder; what is done is never redone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from autogaze.evaluation.clips import Clip, ClipReader, Cutting
from autogaze.evaluation.journal import ClipRecord, Journal, VideoRecord
from autogaze.evaluation.measure import Mode, measure, warm_up
from autogaze.evaluation.outputs import (
    Evaluation,
    Failure,
    Pictures,
    claim,
    clear,
    metadata_of,
    write_metadata,
    write_summary_text,
    write_tables,
)
from autogaze.evaluation.plan import DEFAULT_SELECTORS, Choices, Plan, make_plan
from autogaze.evaluation.rows import ClipRow, FrameRow
from autogaze.evaluation.settings import OperatingPoint
from autogaze.evaluation.tables import summarise
from autogaze.loading import Model
from autogaze.names import result_names
from autogaze.reconstructors.loading import ReconstructorLike
from autogaze.results import check_out
from autogaze.summary import fingerprint


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an evaluation is."""

    clip_name: str
    """What is being measured."""
    clips: int
    """Clips done, those of an earlier run included."""
    expected_clips: int
    """Clips there will probably be."""
    measurements: int
    """Measurements of the present clip that are done."""
    measurements_of_clip: int
    """Measurements of a clip: one for each selector, setting and reconstructor."""


OnProgress: TypeAlias = Callable[[Progress], None]


def evaluate(
    videos: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    selectors: Sequence[Model] = DEFAULT_SELECTORS,
    reconstructors: Sequence[ReconstructorLike] = ("canvas",),
    settings: Sequence[OperatingPoint] | None = None,
    clip_len: int = 16,
    clip_starts: Sequence[int] | None = None,
    max_clips: int | None = 4,
    stride: int = 1,
    mode: Mode = "resize",
    viz_clips: int = 1,
    seed: int = 0,
    device: str | None = None,
    timings: bool = True,
    plots: bool = True,
    overwrite: bool = False,
    command: str | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measure what selections are worth: how well reconstructors rebuild the videos from them, at what cost.

    Writes into ``out`` ``metrics_by_clip_setting.csv``, ``metrics_by_frame.csv``, ``summary_by_setting.csv``,
    ``summary.txt``, ``metadata.json``, ``plots/``, ``visualizations/`` and ``report.html``. Every finished clip is
    written down at once: the same call continues an evaluation that was interrupted, and without timings gives the
    same bytes in every table, however often it was. A video that cannot be read is named in the result; the others
    are measured.

    Args:
        videos: files, addresses or image folders, see :func:`~autogaze.video.find_sources`.
        out: the folder, which is made if need be.
        selectors: names, checkpoints or objects, see :func:`~autogaze.loading.load_selector`. One that has an
            attribute ``seed`` gets another one for each clip, drawn from ``seed`` and the clip's name.
        reconstructors: names, checkpoints or objects, see :func:`~autogaze.reconstructors.load_reconstructor`; each
            selection is judged by all of them.
        settings: operating points for all selectors; None: for each its own default ones, see
            :func:`~autogaze.evaluation.settings.default_settings`. What a selector has no means to keep is left out.
        clip_len: frames of a clip; selectors and reconstructors start afresh with each.
        clip_starts: numbers of the clips' first frames, counted as decoded; None: one after the other.
        max_clips: most clips of a video; None: all of them.
        stride: every n-th frame is looked at.
        mode: ``"resize"`` brings every frame to the square of the patch grid's finest scale before anything sees it,
            so that all is measured at that size; ``"tiles"`` keeps the size and covers it with tiles.
        viz_clips: for so many clips in all, the first ones, a picture of each measurement is drawn.
        seed: of what is drawn by lot.
        device: where learned selectors and reconstructors run, as torch names it; None: the CPU.
        timings: whether seconds and memory are measured, the only columns that differ from run to run.
        plots: whether to draw the plots and write the report; the same call with plots adds them later.
        overwrite: whether to start over, and replace what is in ``out`` under the names above.
        command: how a user would repeat it, for ``metadata.json`` and the report.
        on_progress: called after every measurement.

    Raises:
        BudgetError: a setting's number is out of a selector's range.
        CheckpointError: there is no such selector or reconstructor, or it cannot be loaded.
        OutputError: ``out`` is no folder, or holds the evaluation of another request, or other files of these names.
        AutoGazeError: there is no such device, or nothing that can be measured.
        ValueError: another argument is not legal.
        TypeError: one video was given, not a list of them.
        OSError: a file cannot be written.
        ImportError: OpenCV is not installed (extra ``evaluate``).
    """
    if isinstance(videos, (str, os.PathLike)):
        raise TypeError(f"evaluate takes a list of videos, got one: use [{os.fspath(videos)!r}]")
    if not videos:
        raise ValueError("evaluate needs at least one video, got none")
    cutting = Cutting(
        clip_len=clip_len,
        clip_starts=None if clip_starts is None else tuple(clip_starts),
        max_clips=max_clips,
        stride=stride,
    )
    plan = make_plan(
        Choices(
            selectors=selectors,
            reconstructors=reconstructors,
            settings=settings,
            cutting=cutting,
            mode=mode,
            viz_clips=viz_clips,
            seed=seed,
            device=device,
            timings=timings,
        )
    )
    check_out(out)
    folder = Path(out)
    claim(folder, overwrite=overwrite)
    named = [os.fspath(video) for video in videos]
    with Journal(folder, {"videos": named, **plan.request}, overwrite=overwrite) as journal:
        if overwrite:
            clear(folder)
        return _Run(
            plan=plan,
            folder=folder,
            videos=named,
            journal=journal,
            plots=plots,
            command=command,
            on_progress=on_progress,
        ).run()


class _Run:
    """One pass over the videos."""

    def __init__(
        self,
        *,
        plan: Plan,
        folder: Path,
        videos: Sequence[str],
        journal: Journal,
        plots: bool,
        command: str | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._plots, self._command = plots, command
        self._plan, self._folder, self._journal, self._on_progress = plan, folder, journal, on_progress
        self._videos = dict(zip(result_names(videos), videos, strict=True))
        self._fingerprints = {video: fingerprint(video) for video in videos}
        self._pictures = Pictures(folder, several_reconstructors=len(plan.identities["reconstructors"]) > 1)
        self._clips = 0
        self._warm = not plan.bench.timings
        self._failures: list[Failure] = []
        self._done_clips: set[tuple[str, str]] = set()
        self._done_videos: dict[str, VideoRecord] = {}
        for record in journal.records():
            if not self._counts(record):
                continue
            if isinstance(record, VideoRecord):
                self._done_videos[record.name] = record
            else:
                self._done_clips.add((record.video, record.clip_name))

    def run(self) -> Evaluation:
        """Measure what is not done yet, then write everything."""
        begun_seconds = time.perf_counter()
        try:
            for number, (name, video) in enumerate(self._videos.items()):
                self._measure_video(name, video, videos_left=len(self._videos) - number - 1)
        except (KeyboardInterrupt, SystemExit):
            write_tables(self._folder, self._records())
            raise
        return self._finish(time.perf_counter() - begun_seconds)

    def _counts(self, record: ClipRecord | VideoRecord) -> bool:
        """Whether a record is of the file as it is now."""
        return self._fingerprints.get(record.video) == record.fingerprint

    def _measure_video(self, name: str, video: str, *, videos_left: int) -> None:
        if name in self._done_videos:
            self._clips += len(self._done_videos[name].clip_starts)
            return
        try:
            with ClipReader(video, name=name, cutting=self._plan.cutting) as reader:
                before = self._clips
                starts: list[int] = []
                for clip in reader:
                    here = max(reader.expected_clips() or 0, len(starts) + 1)
                    expected = before + here + self._expected_later(before + here, videos_left)
                    if (video, clip.name) not in self._done_clips:
                        self._measure_clip(clip, video, expected_clips=expected)
                    starts.append(clip.start)
                    self._clips += 1
        except OSError:  # the results cannot be written, so that nothing else could be
            raise
        except Exception as error:  # whatever is wrong with one video, the others are worth doing
            self._failures.append(Failure(video=video, error=error))
            return
        record = VideoRecord(
            video=video,
            fingerprint=self._fingerprints[video],
            name=name,
            clip_starts=tuple(starts),
            width_px=reader.reader.width_px,
            height_px=reader.reader.height_px,
            fps=reader.reader.fps,
            frames_read=reader.frames_read,
            notes=(*reader.reader.warnings, *reader.notes),
        )
        self._journal.add(record)
        self._done_videos[name] = record

    def _expected_later(self, clips: int, videos_left: int) -> int:
        """Clips of the videos that are not open yet, if they have as many as those so far."""
        videos = len(self._videos) - videos_left - len(self._failures)
        return round(clips / max(1, videos) * videos_left)

    def _measure_clip(self, clip: Clip, video: str, *, expected_clips: int) -> None:
        bench = self._plan.bench
        if not self._warm:
            warm_up(clip, bench)
            self._warm = True
        draw = self._clips < self._plan.request["viz_clips"]
        clips: list[ClipRow] = []
        frames: list[FrameRow] = []
        for measurement in measure(clip, bench, video=video):
            clips.append(measurement.clip_row)
            frames += measurement.frame_rows
            if draw:
                self._pictures.grid(measurement, clip.frames)
            if self._on_progress is not None:
                self._on_progress(
                    Progress(
                        clip_name=clip.name,
                        clips=self._clips,
                        expected_clips=max(expected_clips, self._clips + 1),
                        measurements=len(clips),
                        measurements_of_clip=bench.measurements,
                    )
                )
        record = ClipRecord(
            video=video,
            fingerprint=self._fingerprints[video],
            clip_name=clip.name,
            clip_start=clip.start,
            clips=tuple(clips),
            frames=tuple(frames),
        )
        self._journal.add(record)
        self._done_clips.add((video, clip.name))

    def _records(self) -> list[ClipRecord]:
        """The clips of the videos as they are now, video by video in the order asked for, from first to last clip."""
        place = {video: number for number, video in enumerate(self._videos.values())}
        found = {
            (record.video, record.clip_name): record
            for record in self._journal.records()
            if isinstance(record, ClipRecord) and self._counts(record)
        }
        return sorted(found.values(), key=lambda record: (place[record.video], record.clip_start, record.clip_name))

    def _finish(self, seconds: float) -> Evaluation:
        records = self._records()
        clips, frames = write_tables(self._folder, records)
        summary = tuple(summarise(clips))
        videos = tuple(self._done_videos[name] for name in self._videos if name in self._done_videos)
        metadata = metadata_of(
            self._plan,
            videos=videos,
            failures=self._failures,
            num_clips=len(records),
            seconds=seconds,
            command=self._command,
        )
        write_metadata(self._folder, metadata)
        write_summary_text(self._folder, summary, plan=self._plan, metadata=metadata)
        if clips and self._plots:
            self._pictures.plots_and_report(clips=clips, frames=frames, summary=summary, metadata=metadata)
        return Evaluation(
            folder=self._folder,
            clips=clips,
            frames=frames,
            summary=summary,
            videos=videos,
            failures=tuple(self._failures),
            skipped=self._plan.skipped,
            warnings=tuple(self._pictures.warnings),
        )
