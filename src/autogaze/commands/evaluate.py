"""``autogaze evaluate``."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from autogaze.commands.words import EXIT_FAILED, about, argument, listed
from autogaze.errors import AutoGazeError, BudgetError

if TYPE_CHECKING:
    from autogaze.evaluation.outputs import Evaluation
    from autogaze.evaluation.runner import Progress
    from autogaze.evaluation.settings import OperatingPoint


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Measure what selections are worth: how well a video is rebuilt from what a selector keeps, and at what cost.

    Writes metrics_by_clip_setting.csv, metrics_by_frame.csv, summary_by_setting.csv, summary.txt, metadata.json,
    plots/, visualizations/ and report.html. The same command continues an evaluation that was interrupted; finished
    clips are not done again. `autogaze evaluate behaviour --help` tells of what selectors look at.
    """

    videos: Annotated[tuple[str, ...], tyro.conf.Positional, argument("VIDEO...")]
    """Videos, folders of them, globs, image folders or addresses."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("evaluation-results")
    """Folder for the results."""
    selectors: Annotated[str | None, argument("NAME[,NAME...]")] = None
    """Selectors without weights (info tells about each), checkpoint folders or .safetensors files, or hub ids; the
    default is every selector without weights that works on any video."""
    reconstructors: Annotated[str, tyro.conf.arg(metavar="NAME[,NAME...]")] = "canvas"
    """What rebuilds the video: canvas, refined, a checkpoint folder or file, or a hub id; each judges every
    selection."""
    ratios: Annotated[str | None, argument("SHARE[,SHARE...]")] = None
    """Most patches of every frame to keep, above 0 and at most 1. Each of --ratios, --thresholds and --clip-ratios
    takes the place of all default settings, which are: ratios 0.10, 0.25, 0.50, 0.75, 1.00; the selector's own
    threshold, alone and under the ratio 0.75; clip ratios 0.01, 0.02, 0.03, 0.05, 0.10, 0.25."""
    thresholds: Annotated[str | None, argument("LOSS[,LOSS...]")] = None
    """A frame ends once its reconstruction loss is at or below this, in the selector's own unit; with --ratios, each
    pair of the two is measured as well."""
    clip_ratios: Annotated[str | None, argument("SHARE[,SHARE...]")] = None
    """Most patches of a clip to keep, above 0 and at most 1, which its frames share."""
    clip_len: Annotated[int, tyro.conf.arg(metavar="FRAMES")] = 16
    """Frames of a clip; selectors and reconstructors start afresh with each."""
    clip_starts: Annotated[str | None, argument("FRAME[,FRAME...]")] = None
    """Numbers of the clips' first frames; without it one clip follows the other from the start."""
    max_clips: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 4
    """Measure this many clips of each video at most."""
    stride: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Look at every n-th frame."""
    viz_clips: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 1
    """Draw a picture of every measurement of this many clips in all."""
    seed: Annotated[int, tyro.conf.arg(metavar="NUMBER")] = 0
    """Of what is drawn by lot; each clip has a lot of its own, whatever the order of the videos."""
    device: Annotated[str | None, argument("DEVICE")] = None
    """Where learned selectors and reconstructors run: cpu, cuda, cuda:1, mps."""
    tiles: Annotated[bool, argument(None)] = False
    """Keep the size of the frames and cover them with tiles; without it they are resized to one tile first, and
    everything is measured at that size."""
    no_timings: Annotated[bool, argument(None)] = False
    """Leave seconds and memory empty: they alone differ from run to run, so equal commands then write equal tables."""
    no_plots: Annotated[bool, argument(None)] = False
    """Draw no plots and write no report; the same command without this adds them."""
    overwrite: Annotated[bool, argument(None)] = False
    """Start over, and replace what an evaluation left in the folder."""
    json: Annotated[bool, argument(None)] = False
    """Print one JSON object with the means, and nothing else."""
    quiet: Annotated[bool, argument(None)] = False
    """Print nothing but errors and warnings."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""

    def run(self) -> int:
        """Measure, write, and tell where; 2 if a video failed."""
        from autogaze import terminal
        from autogaze.evaluation.plan import DEFAULT_SELECTORS
        from autogaze.evaluation.runner import evaluate
        from autogaze.video import find_sources

        settings = self._settings()
        selectors = DEFAULT_SELECTORS if self.selectors is None else listed("--selectors", self.selectors)
        reconstructors = listed("--reconstructors", self.reconstructors)
        starts = None if self.clip_starts is None else _whole_numbers("--clip-starts", self.clip_starts)
        found = find_sources(self.videos)
        visible = sys.stderr.isatty() and not self.quiet
        with terminal.CountBar(visible=visible) as bar, _keeping_what_is_done() as last:

            def on_progress(progress: Progress) -> None:
                last[:] = [progress]
                done = progress.clips + progress.measurements / progress.measurements_of_clip
                bar.update(
                    progress.clip_name,
                    done=done,
                    total=progress.expected_clips,
                    words=f"{progress.clips} of {progress.expected_clips} clips",
                )

            evaluation = evaluate(
                found,
                out=self.out,
                selectors=selectors,
                reconstructors=reconstructors,
                settings=settings,
                clip_len=self.clip_len,
                clip_starts=starts,
                max_clips=self.max_clips,
                stride=self.stride,
                mode="tiles" if self.tiles else "resize",
                viz_clips=self.viz_clips,
                seed=self.seed,
                device=self.device,
                timings=not self.no_timings,
                plots=not self.no_plots,
                overwrite=self.overwrite,
                command=self._command(),
                on_progress=on_progress,
            )
        if self.json:
            terminal.say(json.dumps(_plain(evaluation), indent=1))
        elif not self.quiet and evaluation.clips:
            terminal.say(_line(evaluation, num_videos=len(found)))
        return self._report(evaluation, num_videos=len(found))

    def _settings(self) -> tuple[OperatingPoint, ...] | None:
        """The settings that were asked for; None: each selector's own."""
        from autogaze.evaluation.settings import settings_of

        if not self._names_settings():
            return None
        return settings_of(
            ratios=_numbers("--ratios", self.ratios),
            thresholds=_numbers("--thresholds", self.thresholds),
            clip_ratios=_numbers("--clip-ratios", self.clip_ratios),
        )

    def _command(self) -> str:
        """The words of the command line that decide the results."""
        words = ["autogaze", "evaluate", *self.videos]
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default and field.name not in ("videos", "overwrite", "json", "quiet", "debug"):
                words += [f"--{field.name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return shlex.join(words)

    def _report(self, evaluation: Evaluation, *, num_videos: int) -> int:
        from autogaze import terminal

        for line in self._left_out(evaluation):
            terminal.complain(f"warning: {line}")
        for video in evaluation.videos:
            for note in video.notes:
                terminal.complain(f"warning: {about(video.video, note)}")
        for warning in evaluation.warnings:
            terminal.complain(f"warning: {warning}")
        for failure in evaluation.failures:
            if self.debug:
                traceback.print_exception(failure.error)
            terminal.complain(about(failure.video, terminal.error_line(failure.error)))
        if evaluation.failures and num_videos > 1:
            terminal.complain(f"{len(evaluation.failures)} of {num_videos} videos failed; the others are done")
        return EXIT_FAILED if evaluation.failures else 0

    def _left_out(self, evaluation: Evaluation) -> list[str]:
        """What was asked for and could not be measured, in a line for each reason."""
        measured = {row.selector for row in evaluation.clips}
        lines: dict[tuple[str, str], list[str]] = {}
        for one in evaluation.skipped:
            # The default settings are for all: that one selector does not know one of them is no news.
            is_news = one.setting is None or self._names_settings() or (one.selector not in measured and measured)
            if is_news:
                what = " under ".join(name for name in (one.selector, one.reconstructor) if name is not None)
                lines.setdefault((what, one.reason), []).extend([one.setting] if one.setting is not None else [])
        return [
            f"{what} was not measured{' at ' if settings else ''}{', '.join(settings)}: {reason}"
            for (what, reason), settings in lines.items()
        ]

    def _names_settings(self) -> bool:
        return any(words is not None for words in (self.ratios, self.thresholds, self.clip_ratios))


@contextlib.contextmanager
def _keeping_what_is_done() -> Iterator[list[Progress]]:
    """Say when an evaluation ends early that its first part need not be done again; the list holds the last word."""
    last: list[Progress] = []
    try:
        yield last
    except (KeyboardInterrupt, OSError):
        if last and last[0].clips:
            from autogaze import terminal

            terminal.complain(
                f"{last[0].clips} of about {last[0].expected_clips} clips are done; the same command does the rest"
            )
        raise


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise BudgetError(f"{option} must be numbers with commas between them, got {text!r}") from error


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise AutoGazeError(f"{option} must be whole numbers with commas between them, got {text!r}") from error


def _line(evaluation: Evaluation, *, num_videos: int) -> str:
    clips = len({row.clip_name for row in evaluation.clips})
    selectors = len({row.selector for row in evaluation.clips})
    videos = num_videos - len(evaluation.failures)
    has_report = (evaluation.folder / "report.html").exists()
    return (
        f"{clips} {'clip' if clips == 1 else 'clips'} of {videos} {'video' if videos == 1 else 'videos'}, "
        f"{selectors} {'selector' if selectors == 1 else 'selectors'}, {len(evaluation.clips)} measurements → "
        f"{evaluation.folder / ('report.html' if has_report else 'summary.txt')}"
    )


def _plain(evaluation: Evaluation) -> dict[str, Any]:
    from autogaze import terminal

    return {
        "folder": str(evaluation.folder),
        "clips": len({row.clip_name for row in evaluation.clips}),
        "summary": [asdict(row) for row in evaluation.summary],
        "failures": [
            {"video": failure.video, "error": terminal.error_line(failure.error)} for failure in evaluation.failures
        ],
        "skipped": [asdict(one) for one in evaluation.skipped],
        "warnings": list(evaluation.warnings),
    }
