"""What people see in a terminal: a progress bar, one line per result, tables."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

if TYPE_CHECKING:
    # For their types alone: an error must not wait for torch to be told.
    from autogaze.checks import Report
    from autogaze.info import GazeInfo, ModelInfo, ReconstructorInfo
    from autogaze.pipeline import Progress
    from autogaze.results import Outcome
    from autogaze.summary import ResultSummary


_NO_ROOM = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT)


class ProgressBar:
    """One bar per source on standard error with frames a second, kept share and time left."""

    def __init__(self, *, num_sources: int, visible: bool) -> None:
        self._num_sources = num_sources
        self._done = 0
        self._bars = _bars(visible=visible)
        self._visible = visible
        self._task = self._bars.add_task("", total=None, rates="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, progress: Progress) -> None:
        """Show how far the pass over a source is."""
        count = f"[{self._done + 1}/{self._num_sources}] " if self._num_sources > 1 else ""
        fps = progress.frames / progress.seconds if progress.seconds > 0 else 0.0
        kept = progress.patches_kept / max(1, progress.patches_total)
        # A source may hold more frames than it promised.
        total = None if progress.expected_frames is None else max(progress.expected_frames, progress.frames)
        self._bars.update(
            self._task,
            description=escape(count + Path(progress.source).name),
            total=total,
            completed=progress.frames,
            rates=f"{fps:.1f} frames/s, {kept:.1%} kept",
            refresh=True,
        )

    def say(self, text: str) -> None:
        """One line on standard output, above the bar where both are on the same terminal."""
        _say_above(self._bars, text, visible=self._visible)

    def next_source(self) -> None:
        """Start over for the next source."""
        self._done += 1
        self._bars.reset(self._task, total=None, rates="", description="")


class CountBar:
    """One bar on standard error for work whose steps are counted, with the time left."""

    def __init__(self, *, visible: bool) -> None:
        self._visible = visible
        self._bars = _bars(visible=visible)
        self._task = self._bars.add_task("", total=None, rates="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """See :meth:`ProgressBar.say`."""
        _say_above(self._bars, text, visible=self._visible)

    def update(self, step: str, *, done: float, total: float, words: str) -> None:
        """Show what is being done, how much of all of it is done, and a few words beside that."""
        self._bars.update(self._task, description=escape(step), total=total, completed=done, rates=escape(words))


def _bars(*, visible: bool) -> Bars:
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rates]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not visible,
        redirect_stdout=False,
    )


def _say_above(bars: Bars, text: str, *, visible: bool) -> None:
    if visible and sys.stdout.isatty():
        bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        say(text)


def say(text: str) -> None:
    """One line on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line on standard error, whatever line breaks a message from below carries."""
    sys.stderr.write("autogaze: " + " ".join(text.split()) + "\n")
    sys.stderr.flush()


def error_line(error: BaseException) -> str:
    """What went wrong, in one line that says what to do where autogaze does not say so itself."""
    if isinstance(error, OSError) and error.strerror:
        # Of two names the second is where something was to go; the first is temporary.
        named = error.filename if error.filename2 is None else error.filename2
        where = f"{_told(Path(os.fsdecode(named)))}: " if isinstance(named, (str, bytes)) else ""
        advice = "; free some room or choose another --out" if error.errno in _NO_ROOM else ""
        return f"{where}{error.strerror}{advice}"
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); try --resize, or smaller frames"
    return str(error) or type(error).__name__


def outcome_line(outcome: Outcome[ResultSummary], *, out: Path) -> str:
    """What became of a source, and where its files are."""
    if outcome.summary is None:
        return f"{outcome.source}: failed"
    where = f"{out / outcome.name}.{{{','.join(_endings(outcome.summary))}}}"
    if outcome.skipped:
        return f"{outcome.source}: already complete, skipped (--overwrite does it again) → {where}"
    return f"{outcome.source}: {outcome.summary.headline()}, {outcome.summary.total_seconds:.1f} s → {where}"


def outcome_json(outcome: Outcome[ResultSummary], *, out: Path) -> dict[str, Any]:
    """What became of a source as plain values: its summary, or its error."""
    if outcome.summary is None:
        return {"source": outcome.source, "error": error_line(outcome.error or RuntimeError("unknown"))}
    return {**outcome.summary.to_json(), "skipped": outcome.skipped, "folder": str(out)}


def info_table(info: GazeInfo | ModelInfo | ReconstructorInfo) -> Table:
    """A gaze file, a model or a reconstructor, one line per value."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in asdict(info).items():
        table.add_row(name.replace("_", " "), escape(_shown(value)))
    return table


def report_table(report: Report) -> Table:
    """The checks of an environment, one line each."""
    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "found", "advice"):
        table.add_column(title)
    for check in report.checks:
        mark = "[green]ok[/]" if check.ok else "[red]missing[/]" if check.required else "[yellow]–[/]"
        table.add_row(
            mark, escape(f"{check.group}: {check.name}"), escape(check.found), "" if check.ok else escape(check.advice)
        )
    return table


def show(table: Table) -> None:
    """A table on standard output, never cut to the width of something that is not a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)
    with console.capture() as captured:
        console.print(table)
    say("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _told(path: Path) -> Path:
    """The path, or the folder above the temporary files in it, which nobody has named."""
    hidden = [parent for parent in (path, *path.parents) if parent.name.startswith(".")]
    return hidden[-1].parent if hidden else path


def _endings(summary: ResultSummary) -> list[str]:
    return [file.removeprefix(f"{summary.name}.") for file in summary.files]


def _shown(value: object) -> str:
    match value:
        case None:
            return "–"
        case float():
            return f"{value:.4g}"
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case dict():
            return ", ".join(f"{name}: {_shown(item)}" for name, item in value.items()) or "–"
        case list() | tuple():
            return ", ".join(map(_shown, value)) or "–"
    return str(value)
