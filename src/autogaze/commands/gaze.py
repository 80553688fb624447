"""``autogaze gaze``."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from autogaze.commands.words import EXIT_FAILED, about, argument, keeping_what_is_done, ratios
from autogaze.errors import AutoGazeError

if TYPE_CHECKING:
    from autogaze.files import Outcome


@dataclass(frozen=True, kw_only=True)
class GazeCommand:
    """Choose the patches that matter in videos and write them as data and as pictures.

    Writes NAME.gaze, NAME.json, NAME.overlay.mp4 and NAME.sheet.png for every source. What is complete already is
    skipped.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, argument("SOURCE...")]
    """Videos, folders of them, globs, image folders, addresses or cameras."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("gaze-results")
    """Folder for the results."""
    model: str = "replenish"
    """A selector without weights (info tells about each), a checkpoint folder or .safetensors file, or a hub id."""
    ratio: Annotated[str | None, argument("SHARE[,SHARE...]")] = None
    """Most patches of a frame to keep, above 0 and at most 1; one for each frame of a clip of 16 if several."""
    threshold: Annotated[float | None, argument("LOSS")] = None
    """A frame ends once its reconstruction loss is at or below this, in the model's own unit."""
    psnr: Annotated[float | None, argument("DB")] = None
    """A frame ends once its reconstruction has at least this PSNR."""
    per: Literal["frame", "clip"] = "frame"
    """Whether the ratio limits every frame, or a clip of 16 frames that share what it allows."""
    fps: Annotated[float | None, argument("FPS")] = None
    """Look at this many frames a second."""
    frames: Annotated[int | None, argument("COUNT")] = None
    """Look at this many frames, spread evenly."""
    stride: Annotated[int | None, argument("N")] = None
    """Look at every n-th frame."""
    tiles: Annotated[bool, argument(None)] = False
    """Cover the frame with tiles pixel for pixel (the default)."""
    resize: Annotated[bool, argument(None)] = False
    """Stretch one tile over the whole frame: fast and coarse."""
    device: Annotated[str | None, argument("DEVICE")] = None
    """Where a learned model runs: cpu, cuda, cuda:1, mps."""
    no_overlay: Annotated[bool, argument(None)] = False
    """Do not write the overlay video."""
    no_sheet: Annotated[bool, argument(None)] = False
    """Do not write the contact sheet."""
    overwrite: Annotated[bool, argument(None)] = False
    """Do again what is complete already, and replace files that are no result of the source."""
    json: Annotated[bool, argument(None)] = False
    """Print one JSON array with one object per source, and nothing else."""
    quiet: Annotated[bool, argument(None)] = False
    """Print nothing but errors and warnings."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""

    def run(self) -> int:
        """Gaze at all sources; 2 if one of them failed."""
        from autogaze import terminal
        from autogaze.files import check_out, gaze_many
        from autogaze.video import find_sources

        if self.tiles and self.resize:
            raise AutoGazeError("--tiles and --resize exclude each other; give one of them")
        ratio = ratios(self.ratio)
        check_out(self.out)
        found = find_sources(self.sources)
        outcomes: list[Outcome] = []
        visible = sys.stderr.isatty() and not self.quiet
        with terminal.ProgressBar(num_sources=len(found), visible=visible) as bar:

            def on_outcome(outcome: Outcome) -> None:
                outcomes.append(outcome)
                bar.next_source()
                if not self.json and not self.quiet and outcome.summary is not None:
                    bar.say(terminal.outcome_line(outcome, out=self.out))

            with keeping_what_is_done(outcomes, len(found)):
                gaze_many(
                    found,
                    self.out,
                    overlay=not self.no_overlay,
                    sheet=not self.no_sheet,
                    overwrite=self.overwrite,
                    on_progress=bar.update,
                    on_outcome=on_outcome,
                    model=self.model,
                    ratio=ratio,
                    threshold=self.threshold,
                    psnr_db=self.psnr,
                    per=self.per,
                    stride=self.stride,
                    fps=self.fps,
                    frames=self.frames,
                    mode="resize" if self.resize else "tiles",
                    device=self.device,
                )
        if self.json:
            terminal.say(json.dumps([terminal.outcome_json(o, out=self.out) for o in outcomes], indent=1))
        return self._report(outcomes)

    def _report(self, outcomes: Sequence[Outcome]) -> int:
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
