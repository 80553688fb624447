"""The files of a reconstruction: a video rebuilt from its gaze, beside the source, and how good it is."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Unpack

from autogaze.gaze import Gaze
from autogaze.gazed import (
    Gazed,
    GazeSource,
    Origin,
    check_gaze,
    doubts,
    gaze_of,
    identity_of,
    is_folder,
    made_or_given,
    open_gazed,
)
from autogaze.loading import checkpoint_fingerprint
from autogaze.names import result_name, result_names
from autogaze.picture_error import PictureError
from autogaze.pipeline import OnProgress, Options, Recipe
from autogaze.reconstruct_summary import ReconstructionSeconds, ReconstructionSettings, ReconstructionSummary
from autogaze.reconstructors import Reconstructor, ReconstructorLike, load_reconstructor
from autogaze.reconstructors.loading import DEFAULT_RECONSTRUCTOR, reconstructor_path
from autogaze.results import Job, OnOutcome, Outcome, check_many, check_name, check_out, do_all, staging
from autogaze.side_by_side import SideBySideWriter
from autogaze.summary import REBUILT, REBUILT_SUMMARY, SIDE_BY_SIDE
from autogaze.video import VideoSource
from autogaze.video_writer import VideoWriter


def reconstruct_to_files(
    source: VideoSource,
    out: str | os.PathLike[str],
    *,
    gaze: GazeSource | None = None,
    reconstructor: ReconstructorLike = DEFAULT_RECONSTRUCTOR,
    name: str | None = None,
    side_by_side: bool = True,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[Options],
) -> ReconstructionSummary:
    """Rebuild a source from a gaze in one pass and write the result into the folder ``out``, made if need be.

    Writes ``<name>.reconstruction.mp4``, the rebuilt frames at the source's size; ``<name>.side-by-side.mp4`` with
    the source, the kept patches, the reconstruction and its error; and last ``<name>.reconstruction.json``, the
    summary. Each appears whole or not at all. If all of them are there already, made from the same source with the
    same settings, nothing is done. Only frames that were gazed at are rebuilt; they are shown at their mean rate,
    without sound.

    Args:
        source: see :func:`~autogaze.pipeline.gaze`.
        out: the folder.
        gaze: a gaze of the source, a file that holds one, or a folder that holds ``<name>.gaze``; None: a model makes
            it on the way.
        reconstructor: see :func:`~autogaze.reconstructors.load_reconstructor`.
        name: what the files are called, a plain file name; None takes the source's own name without its ending.
        side_by_side: whether to write the side-by-side video.
        overwrite: whether to do again what is complete, and to replace files of those names that are no result of
            this source.
        on_progress: called after each window of frames.
        options: the options of :func:`~autogaze.pipeline.gaze`; with a gaze none but ``device`` is legal.

    Raises:
        OutputError: ``out`` is not a folder, or holds files of those names that are no result of this source; or the
            name is not a plain file name.
        GazeFileError: there is no gaze of that name, or it is damaged.
        GazeMismatchError: the gaze is of another video.
        CheckpointError: there is no such reconstructor, or it cannot be loaded.
        ValueError: there are options beside a gaze, or the gaze's grid does not suit the reconstructor.
        OSError: a file cannot be written.
        AutoGazeError: as :func:`~autogaze.pipeline.gaze`.
    """
    plan = _Plan.of(gaze, reconstructor, options)
    job = plan.job(
        source,
        out=Path(out),
        name=result_name(source) if name is None else check_name(name),
        side_by_side=side_by_side,
        overwrite=overwrite,
    )
    check_out(out)
    return job.do(on_progress)


def reconstruct_many(
    sources: Sequence[VideoSource],
    out: str | os.PathLike[str],
    *,
    gaze: GazeSource | None = None,
    reconstructor: ReconstructorLike = DEFAULT_RECONSTRUCTOR,
    side_by_side: bool = True,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome[ReconstructionSummary] | None = None,
    **options: Unpack[Options],
) -> list[Outcome[ReconstructionSummary]]:
    """:func:`reconstruct_to_files` for many sources with one reconstructor, going on after one that fails.

    Sources whose files would be called the same get distinct names, see :func:`~autogaze.names.result_names`; these
    are also the names of the gazes in a folder. ``on_outcome`` is called after each source. The outcomes are in the
    order of the sources.

    Raises:
        OutputError: ``out`` is not a folder.
        TypeError: one source was given, not a list of them.
        ValueError: one gaze was given for several sources, or options beside a gaze.
        OSError: there is no room to write, so that the other sources would fail too.
        AutoGazeError: the options are not legal, or there is no such reconstructor.
    """
    check_many(sources, many="reconstruct_many", one="reconstruct_to_files")
    check_gaze(gaze)
    if gaze is not None and len(sources) > 1 and not is_folder(gaze):
        raise ValueError(f"one gaze is of one source, got {len(sources)} sources; give the folder of their gazes")
    plan = _Plan.of(gaze, reconstructor, options)
    check_out(out)
    jobs = (
        plan.job(source, out=Path(out), name=name, side_by_side=side_by_side, overwrite=overwrite)
        for source, name in zip(sources, result_names(sources), strict=True)
    )
    return do_all(jobs, on_progress=on_progress, on_outcome=on_outcome)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """What is the same for every source: where gazes come from, and what rebuilds."""

    gaze: GazeSource | Recipe
    reconstructor: Reconstructor
    reconstructor_name: str
    reconstructor_fingerprint: str | None

    @classmethod
    def of(cls, gaze: GazeSource | None, reconstructor: ReconstructorLike, options: Options) -> _Plan:
        made = made_or_given(gaze, options)
        loaded = load_reconstructor(reconstructor, device=options.get("device"))
        if isinstance(reconstructor, (str, os.PathLike)):
            name, path = os.fspath(reconstructor), reconstructor_path(os.fspath(reconstructor))
            identity = None if path is None else checkpoint_fingerprint(path)
        else:
            # Nothing tells two objects of one name apart, so a result of one never counts as a result of another.
            name, identity = loaded.name, f"an object, {secrets.token_hex(8)}"
        return cls(gaze=made, reconstructor=loaded, reconstructor_name=name, reconstructor_fingerprint=identity)

    def job(self, source: VideoSource, *, out: Path, name: str, side_by_side: bool, overwrite: bool) -> _Job:
        gaze = gaze_of(name, self.gaze)
        return _Job(
            source=source,
            out=out,
            name=name,
            side_by_side=side_by_side,
            overwrite=overwrite,
            gaze=gaze,
            reconstructor=self.reconstructor,
            settings=self._settings(gaze),
        )

    def _settings(self, gaze: Origin) -> ReconstructionSettings:
        file, identity = identity_of(gaze)
        return ReconstructionSettings(
            gaze_file=file,
            gaze_fingerprint=identity,
            selector=gaze.settings if isinstance(gaze, Recipe) else None,
            reconstructor=self.reconstructor_name,
            reconstructor_fingerprint=self.reconstructor_fingerprint,
        )


@dataclass(kw_only=True, eq=False)
class _Tally:
    """What is known of the frames rebuilt so far."""

    gazes: list[Gaze] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    squared_sum: list[int] = field(default_factory=list)
    reconstruct_seconds: float = 0.0
    write_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job(Job[ReconstructionSummary]):
    """One source to be rebuilt."""

    side_by_side: bool
    gaze: Origin
    reconstructor: Reconstructor
    settings: ReconstructionSettings

    def endings(self) -> tuple[str, ...]:
        return REBUILT, *((SIDE_BY_SIDE,) if self.side_by_side else ()), REBUILT_SUMMARY

    def optional_endings(self) -> tuple[str, ...]:
        return (SIDE_BY_SIDE,)

    def load_summary(self) -> ReconstructionSummary:
        return ReconstructionSummary.load(self.summary_path)

    def has_settings_of(self, summary: ReconstructionSummary) -> bool:
        # Where a gaze lies does not matter if it is the same.
        return replace(summary.settings, gaze_file=self.settings.gaze_file) == self.settings

    def run(self, on_progress: OnProgress | None) -> ReconstructionSummary:
        fingerprint_before = self.fingerprint()
        with (
            open_gazed(self.source, self.gaze, on_progress=on_progress) as stream,
            staging(self.out, self.name) as folder,
        ):
            tally = self._write(stream, folder)
            summary = ReconstructionSummary.of(
                Gaze.concatenate(tally.gazes),
                loss=tally.loss,
                squared_sum=tally.squared_sum,
                source=self.source_name,
                source_fingerprint=fingerprint_before,
                name=self.name,
                files=self.files(),
                fps=stream.fps,
                reconstructor=self.reconstructor.name,
                loss_unit=self.reconstructor.loss_unit,
                settings=self.settings,
                seconds=ReconstructionSeconds(
                    decode=stream.reader.decode_seconds,
                    gaze=stream.gaze_seconds,
                    reconstruct=tally.reconstruct_seconds,
                    write=tally.write_seconds,
                    total=stream.seconds,
                ),
                warnings=(*doubts(self.gaze, fingerprint_before), *stream.reader.warnings),
            )
            summary.save(folder / f"{self.name}{REBUILT_SUMMARY}")
            self.publish(folder)
        return summary

    def _write(self, stream: Gazed, folder: Path) -> _Tally:
        """Both videos, in one pass."""
        tally = _Tally()
        session = self.reconstructor.open(stream.layout)
        size = {"height_px": stream.layout.height_px, "width_px": stream.layout.width_px}
        with ExitStack() as stack:
            video: VideoWriter | None = None
            beside: SideBySideWriter | None = None
            for frames, gaze in stream:
                started = time.perf_counter()
                rebuilt = session.step(frames, gaze)
                stepped = time.perf_counter()
                if video is None:  # the first frame may be one that cannot be read
                    path = folder / f"{self.name}{REBUILT}"
                    video = stack.enter_context(VideoWriter(path, fps=stream.fps, **size))
                    beside = stack.enter_context(self._beside(stream, folder)) if self.side_by_side else None
                video.write(rebuilt.rgb)
                if beside is not None:
                    beside.write(frames, gaze, rebuilt)
                errors = (PictureError.between(*pair) for pair in zip(frames.rgb, rebuilt.rgb, strict=True))
                tally.squared_sum += [error.squared_sum for error in errors]
                tally.loss += rebuilt.loss.tolist()
                tally.gazes.append(gaze)
                tally.reconstruct_seconds += stepped - started
                tally.write_seconds += time.perf_counter() - stepped
            started = time.perf_counter()
        tally.write_seconds += time.perf_counter() - started
        return tally

    def _beside(self, stream: Gazed, folder: Path) -> SideBySideWriter:
        return SideBySideWriter(
            folder / f"{self.name}{SIDE_BY_SIDE}",
            layout=stream.layout,
            fps=stream.fps,
            reconstructor=self.reconstructor.name,
            loss_unit=self.reconstructor.loss_unit,
        )
