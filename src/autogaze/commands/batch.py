"""What the verbs that turn sources into results share: their options, and how a batch is shown and ends."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from autogaze.commands.words import EXIT_FAILED, about, argument, keeping_what_is_done, ratios
from autogaze.errors import AutoGazeError

if TYPE_CHECKING:
    from autogaze.pipeline import OnProgress, Options, StreamOptions
    from autogaze.results import OnOutcome, Outcome
    from autogaze.summary import ResultSummary

SummaryT = TypeVar("SummaryT", bound="ResultSummary")


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What to work on."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, argument("SOURCE...")]
    """Videos, folders of them, globs, image folders, addresses or cameras."""


@dataclass(frozen=True, kw_only=True)
class ChoosingOptions:
    """What chooses, and within which limits."""

    model: str = "replenish"
    """replenish, bundled (a gaze model), difference, flow, motion-vectors, detail, uniform, random (info tells about
    each); or a checkpoint folder or .safetensors file, or a hub id."""
    ratio: Annotated[str | None, argument("SHARE[,SHARE...]")] = None
    """Most patches of a frame to keep, above 0 and at most 1; one for each frame of a clip of 16 if several."""
    threshold: Annotated[float | None, argument("LOSS")] = None
    """A frame ends once its reconstruction loss is at or below this, in the model's own unit."""
    psnr: Annotated[float | None, argument("DB")] = None
    """A frame ends once its reconstruction has at least this PSNR."""
    per: Literal["frame", "clip"] = "frame"
    """Whether the ratio limits every frame, or a clip of 16 frames that share what it allows."""
    tiles: Annotated[bool, argument(None)] = False
    """Cover the frame with tiles pixel for pixel (the default)."""
    resize: Annotated[bool, argument(None)] = False
    """Stretch one tile over the whole frame: fast and coarse."""
    cascade: Annotated[float | None, argument("CHANGE")] = None
    """Open only the tiles where a colour of the small whole frame, from 0 to 1, changed by more than this; 0: all."""
    motion: Literal["none", "global"] = "none"
    """global: the canvas of replenish moves with the camera."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of a gaze model; bf16 and fp16 are faster on some devices, and choose some other patches."""
    device: Annotated[str | None, argument("DEVICE")] = None
    """Where a gaze model or replenish runs: cpu, cuda, cuda:1; a gaze model also on mps. Without it the cpu."""

    def choosing(self) -> StreamOptions:
        """The same for the functions of the package.

        Raises:
            AutoGazeError: two of them exclude each other, or one cannot be read.
        """
        if self.tiles and self.resize:
            raise AutoGazeError("--tiles and --resize exclude each other; give one of them")
        return {
            "model": self.model,
            "ratio": ratios(self.ratio),
            "threshold": self.threshold,
            "psnr_db": self.psnr,
            "per": self.per,
            "mode": "resize" if self.resize else "tiles",
            "cascade": self.cascade,
            "motion": self.motion,
            "precision": self.precision,
            "device": self.device,
        }


@dataclass(frozen=True, kw_only=True)
class GazeOptions(ChoosingOptions):
    """How to gaze."""

    fps: Annotated[float | None, argument("FPS")] = None
    """Look at this many frames a second."""
    frames: Annotated[int | None, argument("COUNT")] = None
    """Look at this many frames, spread evenly."""
    stride: Annotated[int | None, argument("N")] = None
    """Look at every n-th frame."""

    def options(self) -> Options:
        """The same for the functions of the package.

        Raises:
            AutoGazeError: two of them exclude each other, or one cannot be read.
        """
        return {**self.choosing(), "stride": self.stride, "fps": self.fps, "frames": self.frames}

    def chosen(self) -> list[str]:
        """The options that say how to gaze and were given, as they are spelt."""
        return [
            f"--{field.name}"
            for field in fields(GazeOptions)
            if field.name != "device" and getattr(self, field.name) != field.default
        ]


@dataclass(frozen=True, kw_only=True)
class SpeechOptions:
    """What to do again, and what to say."""

    overwrite: Annotated[bool, argument(None)] = False
    """Do again what is complete already, and replace files that are no result of the source."""
    json: Annotated[bool, argument(None)] = False
    """Print one JSON array with one object per source, and nothing else."""
    quiet: Annotated[bool, argument(None)] = False
    """Print nothing but errors and warnings."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""

    def run_batch(
        self, work: Callable[[OnProgress, OnOutcome[SummaryT]], object], *, num_sources: int, out: Path
    ) -> int:
        """Do ``work`` and tell what becomes of each source; the exit code, 2 if one of them failed."""
        from autogaze import terminal

        outcomes: list[Outcome[SummaryT]] = []
        visible = sys.stderr.isatty() and not self.quiet
        with terminal.ProgressBar(num_sources=num_sources, visible=visible) as bar:

            def on_outcome(outcome: Outcome[SummaryT]) -> None:
                outcomes.append(outcome)
                bar.next_source()
                if not self.json and not self.quiet and outcome.summary is not None:
                    bar.say(terminal.outcome_line(outcome, out=out))

            with keeping_what_is_done(outcomes, num_sources):
                work(bar.update, on_outcome)
        if self.json:
            terminal.say(json.dumps([terminal.outcome_json(o, out=out) for o in outcomes], indent=1))
        return self._report(outcomes)

    def _report(self, outcomes: Sequence[Outcome[ResultSummary]]) -> int:
        from autogaze import terminal

        failed = [outcome for outcome in outcomes if outcome.error is not None]
        for outcome in outcomes:
            for warning in outcome.summary.warnings if outcome.summary is not None and not outcome.skipped else ():
                terminal.complain(f"warning: {about(outcome.source, warning)}")
        for outcome in failed:
            if outcome.error is not None:
                if self.debug:
                    traceback.print_exception(outcome.error)
                terminal.complain(about(outcome.source, terminal.error_line(outcome.error)))
        if failed and len(outcomes) > 1:
            terminal.complain(f"{len(failed)} of {len(outcomes)} sources failed; the others are done")
        return EXIT_FAILED if failed else 0
