"""``autogaze watch``."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from autogaze.commands.batch import ChoosingOptions
from autogaze.commands.words import argument

if TYPE_CHECKING:
    from autogaze.watching import Tally, Watched


@dataclass(frozen=True, kw_only=True)
class _Source:
    source: Annotated[str, tyro.conf.Positional, argument("SOURCE")]
    """A camera (camera:0), an address, or a video, which plays at its own rate."""


@dataclass(frozen=True, kw_only=True)
class _Playing:
    fps: Annotated[float | None, argument("FPS")] = None
    """Play a file at this rate instead of its own."""
    seconds: Annotated[float | None, argument("SECONDS")] = None
    """End after so long."""
    window: Annotated[bool, argument(None)] = False
    """Show each frame beside its gaze in a window; q closes it and ends."""
    json: Annotated[Path | None, argument("FILE")] = None
    """Write the summary into this file."""
    quiet: Annotated[bool, argument(None)] = False
    """Print nothing but errors and warnings."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""


# The last base comes first in the help.
@dataclass(frozen=True, kw_only=True)
class WatchCommand(_Playing, ChoosingOptions, _Source):
    """Gaze at a camera or a video while it plays, and measure how that goes.

    Always looks at the newest frame and drops those it is too late for. Ends with the source, with --seconds, or with
    Ctrl-C, and says then what it saw.
    """

    def run(self) -> int:
        """Watch it."""
        from autogaze import terminal
        from autogaze.archive import atomic_path
        from autogaze.results import check_out
        from autogaze.watching import watch
        from autogaze.watching.meter import Meter, summary_table
        from autogaze.watching.window import Window

        options = self.choosing()
        if self.json is not None:
            check_out(self.json.parent)
        with ExitStack() as shown:
            window = shown.enter_context(Window(f"autogaze {self.source}")) if self.window else None
            meter = shown.enter_context(Meter(visible=sys.stderr.isatty() and not self.quiet))

            def on_frame(seen: Watched, tally: Tally) -> bool:
                meter.update(tally)
                return window is None or window.show(seen, tally)

            summary = watch(self.source, fps=self.fps, seconds=self.seconds, on_frame=on_frame, **options)
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.json) as temporary:
                temporary.write_text(json.dumps(summary.to_json(), indent=1) + "\n", encoding="utf-8")
        if not self.quiet:
            terminal.show(summary_table(summary))
        for warning in summary.warnings:
            terminal.complain(f"warning: {warning}")
        return 0
