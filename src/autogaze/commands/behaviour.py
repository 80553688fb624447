"""``autogaze evaluate behaviour``."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from autogaze.commands.words import EXIT_FAILED, about, argument, ratios
from autogaze.errors import AutoGazeError

if TYPE_CHECKING:
    from autogaze.evaluation.behaviour import Behaviour
    from autogaze.pipeline import Recipe


@dataclass(frozen=True, kw_only=True)
class BehaviourCommand:
    """Tell what selectors look at in clips of videos: motion, detail, frames and scales.

    Writes behaviour_flow.csv (gaze rate against optical flow at each scale), behaviour_detail.csv (scale against
    the variance of the Laplacian), behaviour_frames.csv and behaviour_scales.csv (where the gazes are),
    behaviour.json (all of it, with settings and versions) and a plot of each under plots/. Every frame is stretched to
    one tile. A folder that is called behaviour is evaluated as ./behaviour.
    """

    videos: Annotated[tuple[str, ...], tyro.conf.Positional, argument("VIDEO...")]
    """Videos, folders of them, globs, image folders or addresses."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("behaviour-results")
    """Folder for the results."""
    model: Annotated[str | None, argument("NAME")] = None
    """A selector without weights (info tells about each), a checkpoint folder or .safetensors file, or a hub id; the
    default is replenish."""
    selectors: Annotated[str | None, argument("NAME[,NAME...]")] = None
    """Several of them, to be compared on the same clips."""
    ratio: Annotated[str | None, argument("SHARE[,SHARE...]")] = None
    """Most patches of a frame to keep, above 0 and at most 1; one for each frame of a clip of 16 if several."""
    threshold: Annotated[float | None, argument("LOSS")] = None
    """A frame ends once its reconstruction loss is at or below this, in the model's own unit."""
    psnr: Annotated[float | None, argument("DB")] = None
    """A frame ends once its reconstruction has at least this PSNR."""
    per: Literal["frame", "clip"] = "frame"
    """Whether the ratio limits every frame, or a clip whose frames share what it allows."""
    clip_len: Annotated[int, tyro.conf.arg(metavar="FRAMES")] = 16
    """Frames of a clip; each clip is gazed at as a video of its own."""
    max_clips: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 4
    """Look at this many clips of each video at most, one after the other from its start."""
    stride: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Look at every n-th frame."""
    seed: Annotated[int, tyro.conf.arg(metavar="NUMBER")] = 0
    """Of the draws of clips that intervals come from."""
    device: Annotated[str | None, argument("DEVICE")] = None
    """Where a learned model runs: cpu, cuda, cuda:1, mps."""
    overwrite: Annotated[bool, argument(None)] = False
    """Replace results that are there already."""
    json: Annotated[bool, argument(None)] = False
    """Print what is in behaviour.json, and nothing else."""
    quiet: Annotated[bool, argument(None)] = False
    """Print nothing but errors and warnings."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""

    def run(self) -> int:
        """Measure all sources and write the results; 2 if one of the sources failed."""
        from autogaze import terminal
        from autogaze.evaluation.behaviour import measure_behaviour
        from autogaze.evaluation.behaviour_files import check_ready, save_behaviour, summary_line, to_json
        from autogaze.evaluation.clips import Cutting
        from autogaze.video import find_sources

        try:
            cutting = Cutting(clip_len=self.clip_len, max_clips=self.max_clips, stride=self.stride)
        except ValueError as error:
            raise AutoGazeError(_as_option(str(error))) from error
        if self.seed < 0:
            raise AutoGazeError(f"--seed must be at least 0, got {self.seed}")
        check_ready(self.out, overwrite=self.overwrite)
        found = find_sources(self.videos)
        recipes = self._recipes()
        visible = sys.stderr.isatty() and not self.quiet
        with terminal.ProgressBar(num_sources=len(found), visible=visible) as bar:
            behaviour = measure_behaviour(
                found,
                recipes=recipes,
                cutting=cutting,
                seed=self.seed,
                on_progress=bar.update,
                on_source=bar.next_source,
            )
        if behaviour.selectors:
            save_behaviour(behaviour, self.out)
            if not self.json and not self.quiet:
                for of_selector in behaviour.selectors:
                    terminal.say(f"{summary_line(of_selector)} → {self.out}/behaviour.json")
        if self.json:
            terminal.say(json.dumps(to_json(behaviour), indent=1))
        return self._report(behaviour, len(found))

    def _recipes(self) -> list[Recipe]:
        """The selectors with their budgets.

        Raises:
            AutoGazeError: a name, a limit, or the two options together are not legal.
        """
        if self.model is not None and self.selectors is not None:
            raise AutoGazeError("--model and --selectors exclude each other; name all selectors with --selectors")
        names = [self.model or "replenish"] if self.selectors is None else self.selectors.split(",")
        names = [name.strip() for name in names]
        if not all(names):
            raise AutoGazeError(f"--selectors must be names with one comma between two of them, got {self.selectors!r}")
        ratio = ratios(self.ratio)
        from autogaze.pipeline import make_recipe

        recipes = []
        for name in names:
            try:
                recipes.append(
                    make_recipe(
                        model=name,
                        ratio=ratio,
                        threshold=self.threshold,
                        psnr_db=self.psnr,
                        per=self.per,
                        mode="resize",
                        device=self.device,
                    )
                )
            except AutoGazeError as error:
                if len(names) == 1:
                    raise
                raise AutoGazeError(about(name, str(error))) from error
        return recipes

    def _report(self, behaviour: Behaviour, num_sources: int) -> int:
        from autogaze import terminal

        for warning in behaviour.warnings:
            terminal.complain(f"warning: {warning}")
        if behaviour.short_clips:
            terminal.complain(
                f"warning: {len(behaviour.short_clips)} of {len(behaviour.clips)} clips have fewer than "
                f"{self.clip_len} frames, as their videos are shorter; they count with the frames they have"
            )
        for failure in behaviour.failures:
            if self.debug:
                traceback.print_exception(failure.error)
            terminal.complain(about(failure.source, terminal.error_line(failure.error)))
        failed = len(behaviour.failures)
        if failed and num_sources > 1:
            others = "the others are done" if failed < num_sources else "nothing was written"
            terminal.complain(f"{failed} of {num_sources} sources failed; {others}")
        return EXIT_FAILED if failed else 0


def _as_option(message: str) -> str:
    """An error about a number, by the name that the command line has for it."""
    name, _, rest = message.partition(" ")
    return f"--{name.replace('_', '-')} {rest}"
