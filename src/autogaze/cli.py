"""The command line: finds the verb, parses its words, runs it and turns what goes wrong into one line."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NoReturn, Protocol, TextIO

import tyro

from autogaze import __version__
from autogaze.commands.behaviour import BehaviourCommand
from autogaze.commands.bench import BenchCommand
from autogaze.commands.calibrate import CalibrateCommand
from autogaze.commands.checks import ChecksCommand
from autogaze.commands.encode import EncodeCommand
from autogaze.commands.evaluate import EvaluateCommand
from autogaze.commands.export import ExportCommand
from autogaze.commands.gaze import GazeCommand
from autogaze.commands.info import InfoCommand
from autogaze.commands.label import LabelCommand
from autogaze.commands.reconstruct import ReconstructCommand
from autogaze.commands.watch import WatchCommand
from autogaze.commands.words import EXIT_FAILED
from autogaze.errors import AutoGazeError, AutoGazeWarning

EXIT_BUG, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143
_INTERRUPTED = ("interrupted; nothing half-written is left", EXIT_INTERRUPTED)


Command = (
    Annotated[GazeCommand, tyro.conf.subcommand("gaze")]
    | Annotated[ReconstructCommand, tyro.conf.subcommand("reconstruct")]
    | Annotated[WatchCommand, tyro.conf.subcommand("watch")]
    | Annotated[EncodeCommand, tyro.conf.subcommand("encode")]
    | Annotated[BenchCommand, tyro.conf.subcommand("bench")]
    | Annotated[EvaluateCommand, tyro.conf.subcommand("evaluate")]
    | Annotated[CalibrateCommand, tyro.conf.subcommand("calibrate")]
    | Annotated[LabelCommand, tyro.conf.subcommand("label")]
    | Annotated[ExportCommand, tyro.conf.subcommand("export")]
    | Annotated[InfoCommand, tyro.conf.subcommand("info")]
    | Annotated[ChecksCommand, tyro.conf.subcommand("checks")]
)


_RULE = re.compile("[─-]{4,}")


class Runnable(Protocol):
    """What a command is once its words are read."""

    def run(self) -> int:
        """Do it; the exit code."""
        ...


class _UsageError(AutoGazeError):
    """The words of the command line do not fit together."""


VERBS = (
    "gaze",
    "reconstruct",
    "encode",
    "watch",
    "bench",
    "evaluate",
    "calibrate",
    "label",
    "train",
    "export",
    "info",
    "checks",
)
BEHAVIOUR = ("evaluate", "behaviour")
"""Two words that are a verb of their own; a source of that name is ``./behaviour``."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _prepare()
        with _warnings_as_lines():
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


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Tell what autogaze warns of once, in a line of its own; other warnings stay as they are."""
    told: set[str] = set()
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if not issubclass(category, AutoGazeWarning):
            before(message, category, *place, **options)
        elif str(message) not in told:
            told.add(str(message))
            _complain(f"warning: {message}", 0)

    with warnings.catch_warnings():
        warnings.simplefilter("always", AutoGazeWarning)
        warnings.showwarning = show
        yield


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        sys.stdout.write(f"autogaze {__version__}\n")
        return 0
    return _parse(words).run()


def _parse(words: list[str]) -> Runnable:
    """The command that the words spell; help is printed by tyro, which then exits."""
    command: Runnable
    if tuple(words[:2]) == BEHAVIOUR:
        command = _read(BehaviourCommand, words[2:], prog=" ".join(["autogaze", *BEHAVIOUR]), verb=())
        return command
    if words[:1] == ["train"]:
        return _parse_train(words[1:])
    if words and words[0] not in VERBS and not words[0].startswith("-"):
        raise _UsageError(
            f"{words[0]!r} is no command; there are {', '.join(VERBS)}; `autogaze --help` shows what is legal"
        )
    command = _read(
        Command,
        words or ["--help"],
        prog="autogaze",
        verb=words[:1] if words and words[0] in VERBS else (),
        description=(
            "Look at a video before the vision transformer does, and keep only what matters. "
            "`autogaze train --help` tells of training. `autogaze --version` tells the version."
        ),
    )
    return command


def _parse_train(words: Sequence[str]) -> Runnable:
    """``autogaze train``: what to train, which configuration, and what to change in it."""
    from autogaze.commands.train import HELP, command_of, describe, load_config, split_words

    if list(words[:1]) in (["-h"], ["--help"]):
        sys.stdout.write(HELP)
        sys.exit(0)
    what, config, rest = split_words(words)
    settings = load_config(what, config)
    prog, description = f"autogaze train {what}", describe(what, config, settings)
    changed = _read(type(settings), rest, prog=prog, verb=(), description=description, default=settings)
    return command_of(changed)


def _read(
    kind: Any,
    words: Sequence[str],
    *,
    prog: str,
    verb: Sequence[str],
    description: str | None = None,
    default: Any = None,
) -> Any:
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                kind,
                prog=prog,
                description=description,
                args=words,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
                **({} if default is None else {"default": default}),
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        help_command = " ".join([prog, *verb, "--help"])
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


def _complain(text: str, status: int) -> int:
    from autogaze import terminal

    terminal.complain(text)
    return status


def _terminate(number: int, frame: object) -> NoReturn:
    # An exception lets temporary files be removed on the way out.
    sys.exit(EXIT_TERMINATED)


if __name__ == "__main__":
    main()
