"""``autogaze gaze``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from autogaze.commands.batch import GazeOptions, SourceOptions, SpeechOptions
from autogaze.commands.words import argument

if TYPE_CHECKING:
    from autogaze.pipeline import OnProgress
    from autogaze.results import OnOutcome
    from autogaze.summary import Summary


@dataclass(frozen=True, kw_only=True)
class _Place(SourceOptions):
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("gaze-results")
    """Folder for the results."""


@dataclass(frozen=True, kw_only=True)
class _Pictures:
    no_overlay: Annotated[bool, argument(None)] = False
    """Do not write the overlay video."""
    no_sheet: Annotated[bool, argument(None)] = False
    """Do not write the contact sheet."""


# The last base comes first in the help.
@dataclass(frozen=True, kw_only=True)
class GazeCommand(SpeechOptions, _Pictures, GazeOptions, _Place):
    """Choose the patches that matter in videos and write them as data and as pictures.

    Writes NAME.gaze, NAME.json, NAME.overlay.mp4 and NAME.sheet.png for every source. What is complete already is
    skipped.
    """

    def run(self) -> int:
        """Gaze at all sources; 2 if one of them failed."""
        from autogaze.files import check_out, gaze_many
        from autogaze.video import find_sources

        options = self.options()
        check_out(self.out)
        found = find_sources(self.sources)

        def work(on_progress: OnProgress, on_outcome: OnOutcome[Summary]) -> None:
            gaze_many(
                found,
                self.out,
                overlay=not self.no_overlay,
                sheet=not self.no_sheet,
                overwrite=self.overwrite,
                on_progress=on_progress,
                on_outcome=on_outcome,
                **options,
            )

        return self.run_batch(work, num_sources=len(found), out=self.out)
