"""``autogaze checks``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

from autogaze.commands.words import argument


@dataclass(frozen=True, kw_only=True)
class ChecksCommand:
    """Report whether this machine has what autogaze needs; the exit code is 1 if something required is missing."""

    json: Annotated[bool, argument(None)] = False
    """Print one JSON object and nothing else."""
    debug: Annotated[bool, argument(None)] = False
    """Show where an error comes from."""

    def run(self) -> int:
        """Check the environment."""
        from autogaze import terminal
        from autogaze.checks import check_environment

        report = check_environment()
        if self.json:
            terminal.say(json.dumps(report.to_json(), indent=1))
        else:
            terminal.show(terminal.report_table(report))
        return 0 if report.ok else 1
