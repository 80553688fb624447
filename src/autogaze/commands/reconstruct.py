"""``autogaze reconstruct``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from autogaze.commands.batch import GazeOptions, SourceOptions, SpeechOptions
from autogaze.commands.words import argument
from autogaze.errors import AutoGazeError

if TYPE_CHECKING:
    from autogaze.pipeline import OnProgress
    from autogaze.reconstruct_summary import ReconstructionSummary
    from autogaze.results import OnOutcome


@dataclass(frozen=True, kw_only=True)
class _Rebuilding(SourceOptions):
    gaze: Annotated[Path | None, argument("FILE|DIR")] = None
    """Rebuild from this .gaze file, or from NAME.gaze in this folder; without it the model below gazes."""
    reconstructor: Annotated[str, tyro.conf.arg(metavar="NAME|PATH|ID")] = "canvas"
    """What rebuilds: canvas, refined, the folder or file of a refiner or a VideoMAE, or a hub id."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("reconstructions")
    """Folder for the results."""


@dataclass(frozen=True, kw_only=True)
class _Pictures:
    no_side_by_side: Annotated[bool, argument(None)] = False
    """Do not write the side-by-side video."""


# The last base comes first in the help.
@dataclass(frozen=True, kw_only=True)
class ReconstructCommand(SpeechOptions, _Pictures, GazeOptions, _Rebuilding):
    """Rebuild videos from the patches that were kept of them, and tell how good that is.

    Writes NAME.reconstruction.mp4, NAME.side-by-side.mp4 (source, kept patches, reconstruction, error) and
    NAME.reconstruction.json for every source. What is complete already is skipped.
    """

    def run(self) -> int:
        """Rebuild all sources; 2 if one of them failed."""
        from autogaze.reconstruct import reconstruct_many
        from autogaze.results import check_out
        from autogaze.video import find_sources

        options = self.options()
        if self.gaze is not None:
            if self.chosen():
                raise AutoGazeError(
                    f"with --gaze the patches are chosen already; leave out {' and '.join(self.chosen())}, or --gaze"
                )
            options = {"device": self.device}
        check_out(self.out)
        found = find_sources(self.sources)

        def work(on_progress: OnProgress, on_outcome: OnOutcome[ReconstructionSummary]) -> None:
            reconstruct_many(
                found,
                self.out,
                gaze=self.gaze,
                reconstructor=self.reconstructor,
                side_by_side=not self.no_side_by_side,
                overwrite=self.overwrite,
                on_progress=on_progress,
                on_outcome=on_outcome,
                **options,
            )

        return self.run_batch(work, num_sources=len(found), out=self.out)
