"""The command line: each verb parses its words, calls one public function and shows what came back."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TextIO

import tyro

from autogaze import __version__
from autogaze.errors import AutoGazeError, BudgetError

if TYPE_CHECKING:
    from autogaze.files import Outcome


def _argument(metavar: str | None) -> Any:
    """How help shows an argument; that the default is nothing need not be said."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


EXIT_FAILED, EXIT_BUG, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 1, 130, 143
_INTERRUPTED = ("interrupted; nothing half-written is left", EXIT_INTERRUPTED)


@dataclass(frozen=True, kw_only=True)
class GazeCommand:
    """Choose the patches that matter in videos and write them as data and as pictures.

    Writes NAME.gaze, NAME.json, NAME.overlay.mp4 and NAME.sheet.png for every source. What is complete already is
    skipped.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, _argument("SOURCE...")]
    """Videos, folders of them, globs, image folders, addresses or cameras."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("gaze-results")
    """Folder for the results."""
    model: str = "replenish"
    """A selector without weights (info tells about each), a checkpoint folder or .safetensors file, or a hub id."""
    ratio: Annotated[str | None, _argument("SHARE[,SHARE...]")] = None
    """Most patches of a frame to keep, above 0 and at most 1; one for each frame of a clip of 16 if several."""
    threshold: Annotated[float | None, _argument("LOSS")] = None
    """A frame ends once its reconstruction loss is at or below this, in the model's own unit."""
    psnr: Annotated[float | None, _argument("DB")] = None
    """A frame ends once its reconstruction has at least this PSNR."""
    per: Literal["frame", "clip"] = "frame"
    """Whether the ratio limits every frame, or a clip of 16 frames that share what it allows."""
    fps: Annotated[float | None, _argument("FPS")] = None
    """Look at this many frames a second."""
    frames: Annotated[int | None, _argument("COUNT")] = None
    """Look at this many frames, spread evenly."""
    stride: Annotated[int | None, _argument("N")] = None
    """Look at every n-th frame."""
    tiles: Annotated[bool, _argument(None)] = False
    """Cover the frame with tiles pixel for pixel (the default)."""
    resize: Annotated[bool, _argument(None)] = False
    """Stretch one tile over the whole frame: fast and coarse."""
    device: Annotated[str | None, _argument("DEVICE")] = None
    """Where a learned model runs: cpu, cuda, cuda:1, mps."""
    no_overlay: Annotated[bool, _argument(None)] = False
    """Do not write the overlay video."""
    no_sheet: Annotated[bool, _argument(None)] = False
    """Do not write the contact sheet."""
    overwrite: Annotated[bool, _argument(None)] = False
    """Do again what is complete already, and replace files that are no result of the source."""
    json: Annotated[bool, _argument(None)] = False
    """Print one JSON array with one object per source, and nothing else."""
    quiet: Annotated[bool, _argument(None)] = False
    """Print nothing but errors and warnings."""
    debug: Annotated[bool, _argument(None)] = False
    """Show where an error comes from."""

    def run(self) -> int:
        """Gaze at all sources; 2 if one of them failed."""
        from autogaze import terminal
        from autogaze.files import check_out, gaze_many
        from autogaze.video import find_sources

        if self.tiles and self.resize:
            raise AutoGazeError("--tiles and --resize exclude each other; give one of them")
        ratio = _ratios(self.ratio)
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

            with _keeping_what_is_done(outcomes, len(found)):
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
                terminal.complain(f"warning: {_about(outcome.source, warning)}")
        for outcome in failed:
            if outcome.error is not None:
                if self.debug:
                    traceback.print_exception(outcome.error)
                terminal.complain(_about(outcome.source, terminal.error_line(outcome.error)))
        if failed and len(outcomes) > 1:
            terminal.complain(f"{len(failed)} of {len(outcomes)} sources failed; the others are done")
        return EXIT_FAILED if failed else 0


@dataclass(frozen=True, kw_only=True)
class InfoCommand:
    """Tell what a gaze file holds, or what a model is."""

    target: Annotated[str, tyro.conf.Positional, _argument("MODEL|GAZEFILE")]
    """A .gaze file, a selector's name, a checkpoint folder or .safetensors file, or a hub id."""
    json: Annotated[bool, _argument(None)] = False
    """Print one JSON object and nothing else."""
    debug: Annotated[bool, _argument(None)] = False
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


@dataclass(frozen=True, kw_only=True)
class ChecksCommand:
    """Report whether this machine has what autogaze needs; the exit code is 1 if something required is missing."""

    json: Annotated[bool, _argument(None)] = False
    """Print one JSON object and nothing else."""
    debug: Annotated[bool, _argument(None)] = False
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


Command = (
    Annotated[GazeCommand, tyro.conf.subcommand("gaze")]
    | Annotated[InfoCommand, tyro.conf.subcommand("info")]
    | Annotated[ChecksCommand, tyro.conf.subcommand("checks")]
)


_RULE = re.compile("[─-]{4,}")


class _UsageError(AutoGazeError):
    """The words of the command line do not fit together."""


VERBS = ("gaze", "info", "checks")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _prepare()
        status = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = _complain(*_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has gone; without this Python complains once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_FAILED
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        status = _complain(*_line_and_status(error))
    sys.exit(status)


def _prepare() -> None:
    """Make signals and streams behave, whoever started this process."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A shell may have closed them, as `>&-` does.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file may have a name that the terminal has no letters for.
        sys.stdout.reconfigure(errors="replace")


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        sys.stdout.write(f"autogaze {__version__}\n")
        return 0
    return _parse(words).run()


def _parse(words: list[str]) -> GazeCommand | InfoCommand | ChecksCommand:
    """The command that the words spell; help is printed by tyro, which then exits."""
    if words and words[0] not in VERBS and not words[0].startswith("-"):
        raise _UsageError(
            f"{words[0]!r} is no command; there are {', '.join(VERBS)}; `autogaze --help` shows what is legal"
        )
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                Command,
                prog="autogaze",
                description=(
                    "Look at a video before the vision transformer does, and keep only what matters. "
                    "`autogaze --version` tells the version."
                ),
                args=words or ["--help"],
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        verb = words[0] if words and words[0] in VERBS else ""
        help_command = " ".join(["autogaze", *([verb] if verb else []), "--help"])
        raise _UsageError(f"{_unboxed(box.getvalue())}; `{help_command}` shows what is legal") from None


def _unboxed(text: str) -> str:
    """A message of the parser without its frame, its colours and its own pointer to the help."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().splitlines()
    # The frame is drawn with lines and holds the title, or, where the terminal has no lines, left out.
    framed = lines[:1] != [] and lines[0].startswith("╭")
    lines = [line.strip("│ ") for line in (lines[1:-1] if framed else lines)]
    sections = [
        " ".join(section)
        for rule, section in itertools.groupby(lines, lambda line: bool(_RULE.fullmatch(line)))
        if not rule
    ]
    told = sections[min(0 if framed else 1, len(sections) - 1)] if sections else "the words cannot be read"
    # The library speaks of its types; what matters is what was given.
    told = re.sub(r"no type matching (\S+) could be instantiated from \['(.*?)'\].*", r"\1 was wanted, got '\2'", told)
    return " ".join(told.split("(required)")[0].split()).strip(" .:")


def _ratios(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise BudgetError(
            f"--ratio must be a number above 0 and at most 1, or several with commas between them, got {text!r}"
        ) from error


@contextlib.contextmanager
def _keeping_what_is_done(outcomes: Sequence[Outcome], num_sources: int) -> Iterator[None]:
    """Say when a batch ends early that its first part need not be done again."""
    try:
        yield
    except (KeyboardInterrupt, OSError):
        done = sum(outcome.summary is not None for outcome in outcomes)
        if done and len(outcomes) < num_sources:
            _complain(f"{done} of {num_sources} sources are done; the same command does the rest", 0)
        raise


def _line_and_status(error: Exception) -> tuple[str, int]:
    from autogaze import terminal

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):  # Python turns one into another error where classes are made
            return _INTERRUPTED
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (AutoGazeError, OSError, ValueError, ImportError, MemoryError)):
        # The one option that is called otherwise in Python.
        return re.sub(r"\bpsnr_db\b", "--psnr", terminal.error_line(error)), EXIT_FAILED
    return f"a bug: {type(error).__name__}: {error}; please report it with the output of --debug", EXIT_BUG


def _about(source: str, message: str) -> str:
    return message if source in message else f"{source}: {message}"


def _complain(text: str, status: int) -> int:
    from autogaze import terminal

    terminal.complain(text)
    return status


def _terminate(number: int, frame: object) -> NoReturn:
    # An exception lets temporary files be removed on the way out.
    sys.exit(EXIT_TERMINATED)


if __name__ == "__main__":
    main()
