"""``autogaze label``."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from autogaze.commands.words import EXIT_FAILED, about, argument
from autogaze.errors import AutoGazeError

if TYPE_CHECKING:
    from autogaze.labelling.runner import LabelProgress, LabelRun
    from autogaze.labelling.settings import LabelSettings


@dataclass(frozen=True, kw_only=True)
class LabelCommand:
    """Label videos for the training of gaze models: the best patches one after the other, and the loss after each.

    The clip of a video is its first 16 frames, squeezed whole into the square of the model. How many gazes it gets is
    drawn for each clip as in the paper, or follows from --threshold. The same command goes on after an interruption
    and does only what is missing, with more videos too.
    """

    videos: Annotated[tuple[str, ...], tyro.conf.Positional, argument("VIDEO...")]
    """Videos, folders of them (searched with the folders inside them), globs or image folders."""
    out: Annotated[Path, tyro.conf.arg(metavar="PATH")] = Path("labels.json")
    """A .json file in the published format, a .parquet file, or a folder of Parquet files."""
    reconstructor: Annotated[str, tyro.conf.arg(metavar="NAME|PATH|ID")] = "canvas"
    """What rebuilds the frames: canvas, refined, or a refiner or VideoMAE by path or hub id."""
    search: Annotated[Literal["exhaustive", "lazy"] | None, argument("exhaustive|lazy")] = None
    """Whether a learned reconstructor tries every patch for every gaze, or few (the default); canvas tries all."""
    candidates: Annotated[int | None, argument("COUNT")] = None
    """Patches that the lazy search tries for each gaze."""
    threshold: Annotated[float | None, argument("LOSS")] = None
    """A frame ends once its loss is at or below this, in the reconstructor's unit; without it counts are drawn."""
    max_ratio: Annotated[float | None, argument("SHARE")] = None
    """Most patches of a frame that --threshold may take, above 0 and at most 1 (0.75)."""
    start: Literal["first", "random"] = "first"
    """Whether the clip begins with the first frame, or anywhere."""
    clip_len: Annotated[int, tyro.conf.arg(metavar="FRAMES")] = 16
    """Frames of a clip."""
    seed: Annotated[int, tyro.conf.arg(metavar="NUMBER")] = 0
    """Of all draws; each video has its own, whatever the others are."""
    jobs: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 1
    """Processes that label at the same time."""
    shard_clips: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 10_000
    """Clips of one Parquet file of a folder."""
    device: Annotated[str | None, argument("DEVICE")] = None
    """Where a learned reconstructor runs: cpu, cuda, cuda:1, mps."""
    overwrite: Annotated[bool, argument(None)] = False
    """Start over, and replace what is there."""
    json: Annotated[bool, argument(None)] = False
    """Print one JSON object with what was done, and nothing else."""
    quiet: Annotated[bool, argument(None)] = False
    """Print nothing but errors."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""

    def run(self) -> int:
        """Label all videos; 2 if one of them failed."""
        from autogaze import terminal
        from autogaze.datasets.sources import find_sources_below
        from autogaze.labelling.runner import label_videos

        settings = self._settings()
        found = find_sources_below(self.videos)
        visible = sys.stderr.isatty() and not self.quiet
        with terminal.CountBar(visible=visible) as bar, _keeping_what_is_done() as last:

            def on_progress(progress: LabelProgress) -> None:
                last[:] = [progress]
                words = f"{progress.done} of {progress.total} videos"
                bar.update(Path(progress.video).name, done=progress.done, total=progress.total, words=words)

            run = label_videos(
                found,
                out=self.out,
                settings=settings,
                jobs=self.jobs,
                shard_clips=self.shard_clips,
                device=self.device,
                overwrite=self.overwrite,
                on_progress=on_progress,
            )
        if self.json:
            terminal.say(json.dumps(_plain(run), indent=1))
        elif not self.quiet and run.labels:
            terminal.say(_line(run))
        for failure in run.failures:
            if self.debug:
                traceback.print_exception(failure.error)
            terminal.complain(about(failure.video, terminal.error_line(failure.error)))
        if run.failures and len(found) > 1:
            others = "the others are done" if run.made + run.found else "nothing was written"
            terminal.complain(f"{len(run.failures)} of {len(found)} videos failed; {others}")
        return EXIT_FAILED if run.failures else 0

    def _settings(self) -> LabelSettings:
        """The settings that were asked for.

        Raises:
            AutoGazeError: an option is not legal, or options do not go together.
        """
        from autogaze.labelling.budgets import DrawnBudget, ThresholdBudget
        from autogaze.labelling.settings import LabelSettings

        for name, least in (("clip_len", 1), ("jobs", 1), ("shard_clips", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise AutoGazeError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}")
        if self.max_ratio is not None and self.threshold is None:
            raise AutoGazeError("--max-ratio limits what --threshold takes; without --threshold counts are drawn")
        budget: DrawnBudget | ThresholdBudget = DrawnBudget()
        if self.threshold is not None:
            budget = ThresholdBudget(threshold=self.threshold)
            if self.max_ratio is not None:
                budget = ThresholdBudget(threshold=self.threshold, max_ratio=self.max_ratio)
        settings = LabelSettings(
            reconstructor=self.reconstructor,
            search=self.search,
            budget=budget,
            start=self.start,
            frames=self.clip_len,
            seed=self.seed,
        )
        return settings if self.candidates is None else settings.trying(self.candidates)


@contextmanager
def _keeping_what_is_done() -> Iterator[list[LabelProgress]]:
    """Say when a run ends early that its first part need not be done again."""
    last: list[LabelProgress] = []
    try:
        yield last
    except (KeyboardInterrupt, SystemExit, OSError):
        if last:
            from autogaze import terminal

            terminal.complain(f"{last[0].done} of {last[0].total} videos are done; the same command does the rest")
        raise


def _line(run: LabelRun) -> str:
    done = f"{run.made} videos labelled" + (f", {run.found} were before" if run.found else "")
    seconds = f"{run.search_seconds / run.made:.3g} s a clip to search" if run.made else "nothing was missing"
    return f"{done}; {seconds} → {run.path} ({len(run.labels)} clips)"


def _plain(run: LabelRun) -> dict[str, Any]:
    from autogaze import terminal

    return {
        "path": str(run.path),
        "clips": len(run.labels),
        "made": run.made,
        "found": run.found,
        "evaluations": run.evaluations,
        "read_seconds": run.read_seconds,
        "search_seconds": run.search_seconds,
        "failures": [{"video": failure.video, "error": terminal.error_line(failure.error)} for failure in run.failures],
    }
