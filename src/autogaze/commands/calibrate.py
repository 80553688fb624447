"""``autogaze calibrate``."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from autogaze.commands.batch import SourceOptions
from autogaze.commands.words import EXIT_FAILED, about, argument
from autogaze.errors import AutoGazeError

if TYPE_CHECKING:
    from rich.table import Table

    from autogaze.evaluation.calibrate import LevelRun
    from autogaze.models.autogaze.calibration import Calibration


@dataclass(frozen=True, kw_only=True)
class CalibrateCommand(SourceOptions):
    """Make the threshold of a gaze model mean what it says: at most a share alpha of frames ends above it.

    A gaze model predicts the loss at which a frame ends, and may be too hopeful. This measures how far on clips of
    your videos, one of each, and writes calibration.json beside the checkpoint's weights. The promise holds on average
    over clips like these, under one reconstructor, and unless --ratio ends a frame first.
    """

    model: Annotated[str, tyro.conf.arg(metavar="CHECKPOINT")]
    """A checkpoint folder or .safetensors file, bundled, or a hub id; the last two need --out."""
    out: Annotated[Path | None, argument("DIR")] = None
    """Write a complete calibrated copy of the checkpoint into this folder instead."""
    alpha: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.1
    """Share of frames that may end above a threshold; it takes at least 1 / alpha - 1 clips."""
    reconstructor: Annotated[str, tyro.conf.arg(metavar="NAME|PATH|ID")] = "canvas"
    """What measures the true loss, in whose unit thresholds are given from then on."""
    thresholds: Annotated[str | None, argument("LOSS[,LOSS...]")] = None
    """Thresholds to have a pass of their own; without it passes are spread over all."""
    levels: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 10
    """Passes over the clips at most; thresholds between those of two passes are read off a line."""
    ratio: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.75
    """Most patches of a frame to keep meanwhile, above 0 and at most 1."""
    clips_per_video: Annotated[int, tyro.conf.arg(metavar="COUNT")] = 1
    """Clips of each video; several only where the promise is for this video and its like, as from one camera."""
    max_clips: Annotated[int | None, argument("COUNT")] = None
    """Use at most so many clips, of videos drawn by lot."""
    tiles: Annotated[bool, argument(None)] = False
    """Calibrate for tiled gazing: a clip is one tile cut from its video, and the promise is about tiles."""
    resize: Annotated[bool, argument(None)] = False
    """A clip is whole frames brought to one tile (the default)."""
    seed: Annotated[int, tyro.conf.arg(metavar="NUMBER")] = 0
    """Of the draws of clips."""
    device: Annotated[str | None, argument("DEVICE")] = None
    """Where learned models run: cpu, cuda, cuda:1, mps."""
    overwrite: Annotated[bool, argument(None)] = False
    """Replace a calibration, or a checkpoint in --out, that is there already."""
    json: Annotated[bool, argument(None)] = False
    """Print what is in calibration.json, and nothing else."""
    quiet: Annotated[bool, argument(None)] = False
    """Print nothing but errors."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""

    def run(self) -> int:
        """Calibrate; 2 if a video could not be used."""
        from autogaze import terminal
        from autogaze.evaluation.calibrate_checkpoint import calibrate_checkpoint
        from autogaze.models.autogaze.calibration import rounded_up
        from autogaze.video import find_sources

        if self.tiles and self.resize:
            raise AutoGazeError("--tiles and --resize exclude each other; give one of them")
        if self.seed < 0:
            raise AutoGazeError(f"--seed must be at least 0, got {self.seed}")
        wanted = _losses(self.thresholds)
        found = find_sources(self.sources)
        failed: list[tuple[str, Exception]] = []
        runs: list[LevelRun] = []

        def on_run(run: LevelRun, most: int) -> None:
            runs.append(run)
            if not self.json and not self.quiet:
                terminal.say(_run_line(run, number=len(runs), most=most))

        calibration, path = calibrate_checkpoint(
            self.model,
            found,
            out=self.out,
            overwrite=self.overwrite,
            alpha=self.alpha,
            reconstructor=self.reconstructor,
            ratio=self.ratio,
            levels=self.levels,
            wanted=wanted,
            clips_per_video=self.clips_per_video,
            max_clips=self.max_clips,
            mode="tiles" if self.tiles else "resize",
            seed=self.seed,
            device=self.device,
            on_error=lambda source, error: failed.append((source, error)),
            on_run=on_run,
        )
        if self.json:
            terminal.say(json.dumps(calibration.to_json(), indent=1))
        elif not self.quiet:
            terminal.show(_table(calibration))
            terminal.say(
                f"{calibration.clips} clips: at most {calibration.alpha:.3g} of the frames end above a threshold from "
                f"{rounded_up(calibration.lowest_threshold):g} on ({calibration.reconstructor}) → {path}"
            )
        for source, error in failed:
            if self.debug:
                traceback.print_exception(error)
            terminal.complain(about(source, terminal.error_line(error)))
        return EXIT_FAILED if failed else 0


def _losses(text: str | None) -> tuple[float, ...]:
    """The numbers of ``--thresholds``.

    Raises:
        AutoGazeError: they are no numbers.
    """
    try:
        return () if text is None else tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise AutoGazeError(f"--thresholds must be numbers with commas between them, got {text!r}") from error


def _run_line(run: LevelRun, *, number: int, most: int) -> str:
    losses = [loss for clip in run.loss for loss in clip.tolist()]
    kept = sum(int(count.sum()) for count in run.kept) / len(losses)
    return (
        f"{number} of {most} at most: stopping at a predicted {run.level:.4g} reaches {sum(losses) / len(losses):.4g} "
        f"on average, with {kept:.1f} patches a frame"
    )


def _table(calibration: Calibration) -> Table:
    from rich.table import Table

    from autogaze.models.autogaze.calibration import rounded_up

    table = Table(box=None, pad_edge=False)
    for title in ("threshold", "stops at a predicted", "kept", "mean loss", "frames above", "as it was"):
        table.add_column(title, justify="right")
    for promise in calibration.promises:
        table.add_row(
            f"{rounded_up(promise.threshold):g}",
            f"{promise.level:.4g}",
            f"{promise.kept_share:.2%}",
            f"{promise.loss:.4g}",
            f"{promise.above_threshold:.1%}",
            f"{promise.above_level:.1%} above {promise.level:.4g}",
        )
    return table
