"""``autogaze info``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated

import tyro

from autogaze.commands.words import argument


@dataclass(frozen=True, kw_only=True)
class InfoCommand:
    """Tell what a gaze file holds, or what a model or a reconstructor is."""

    target: Annotated[str, tyro.conf.Positional, argument("MODEL|GAZEFILE")]
    """A .gaze file, the name of a selector or reconstructor, a checkpoint folder or file, or a hub id."""
    json: Annotated[bool, argument(None)] = False
    """Print one JSON object and nothing else."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""

    def run(self) -> int:
        """Describe it."""
        from autogaze import terminal
        from autogaze.info import describe

        info = describe(self.target)
        if self.json:
            terminal.say(json.dumps(asdict(info), indent=1))
        else:
            terminal.show(terminal.info_table(info))
        return 0
