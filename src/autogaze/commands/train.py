"""``autogaze train``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from autogaze.errors import AutoGazeError, TrainingError

if TYPE_CHECKING:
    from autogaze.training.run_settings import RunSettings
    from autogaze.training.stop_head import StopHeadSettings

WHAT = ("ntp", "grpo", "stop_head", "reconstructor")
DEFAULT = "default"
HELP = """usage: autogaze train {ntp,grpo,stop_head,reconstructor} [--config NAME] [OPTIONS]

Train a gaze model or a reconstructor.

  ntp            a gaze model, to do what the greedy search does
  grpo           a gaze model, by the reward of its own gazes
  stop_head      a gaze model's predictions of the loss alone, fitted to its own gazes in minutes
  reconstructor  a refiner of the canvas, or a video masked autoencoder

--config names the defaults: a function of autogaze.configs, or path/to/file.py:function.
`autogaze train ntp --help` shows the configurations and options of each.
"""


def find_config(what: str, name: str) -> Callable[[], RunSettings | StopHeadSettings]:
    """The function that a user calls a configuration.

    Args:
        what: one of :data:`WHAT`.
        name: a function of ``autogaze.configs.<what>``, or ``path/to/file.py:function``.

    Raises:
        TrainingError: there is no such function.
    """
    path, colon, function = name.rpartition(":")
    if colon:
        module = _module_at(Path(path))
    else:
        module, function = importlib.import_module(f"autogaze.configs.{what}"), name
    names = config_names(module)
    if function not in names:
        raise TrainingError(f"--config {name!r} is not there; {path or what} has {', '.join(names) or 'none'}")
    found: Callable[[], RunSettings | StopHeadSettings] = getattr(module, function)
    return found


def load_config(what: str, name: str) -> RunSettings | StopHeadSettings:
    """The settings of a configuration.

    Raises:
        TrainingError: there is no such configuration, its code fails, or it gives something else.
    """
    try:
        settings = find_config(what, name)()
    except AutoGazeError:
        raise
    except Exception as error:  # a user's code may raise anything
        raise TrainingError(f"--config {name} failed: {type(error).__name__}: {error}") from error
    module = importlib.import_module(f"autogaze.configs.{what}")
    kinds = {type(getattr(module, known)()) for known in config_names(module)}
    if not isinstance(settings, tuple(kinds)):
        names = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise TrainingError(f"--config {name} gave {settings!r}; `autogaze train {what}` needs {names}")
    return settings


def describe(what: str, config: str, settings: RunSettings | StopHeadSettings) -> str:
    """What stands above the options of a run."""
    names = ", ".join(config_names(importlib.import_module(f"autogaze.configs.{what}")))
    written = inspect.getdoc(type(settings)) or ""
    # Without one a dataclass has its signature for a docstring.
    about = "" if written.startswith(f"{type(settings).__name__}(") else written.partition("\n")[0] + " "
    return (
        f"{about}The defaults are those of --config {config}; there are {names}, and path/to/file.py:function for "
        f"one of your own."
    )


def config_names(module: ModuleType) -> list[str]:
    """The configurations of a module: its own public functions."""
    functions = inspect.getmembers(module, inspect.isfunction)
    return [name for name, function in functions if function.__module__ == module.__name__ and name[0] != "_"]


def _module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"autogaze_config_{path.stem}", path)
    if path.suffix != ".py" or not path.is_file() or spec is None or spec.loader is None:
        raise TrainingError(f"--config {path} is no Python file; give path/to/file.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    spec.loader.exec_module(module)
    return module


def split_words(words: Sequence[str]) -> tuple[str, str, list[str]]:
    """What to train, the configuration's name, and the other words.

    Raises:
        TrainingError: it does not say what to train.
    """
    if not words:
        raise TrainingError(f"train what? {', '.join(WHAT)}; `autogaze train --help` tells of each")
    if words[0] not in WHAT:
        raise TrainingError(f"{words[0]!r} cannot be trained; there are {', '.join(WHAT)}")
    rest, config = list(words[1:]), DEFAULT
    for k, word in enumerate(rest):
        if word == "--config":
            if k + 1 == len(rest):
                raise TrainingError("--config needs a name; `autogaze train --help` shows what is legal")
            config = rest[k + 1]
            del rest[k : k + 2]
            break
        if word.startswith("--config="):
            config = rest.pop(k).partition("=")[2]
            break
    return words[0], config, rest


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """One sitting of a run."""

    settings: RunSettings

    def run(self) -> int:
        """Train; 0 also where the run was asked to stop and saved."""
        import torch

        from autogaze import terminal
        from autogaze.training.processes import Processes
        from autogaze.training.state import check_place
        from autogaze.training.stopping import stopping_on_signals
        from autogaze.training.trainer import Trainer

        settings = self.settings
        check_place(settings.out, resume=settings.resume)  # before models and validation clips are read
        torch.set_float32_matmul_precision("high")
        processes = Processes(settings)
        shown = processes.is_main and not settings.quiet
        try:
            with terminal.CountBar(visible=shown and sys.stderr.isatty()) as bar:
                say = bar.say if shown else _silent
                stage = settings.make_stage(
                    device=processes.device, tell=lambda path, message: say(f"left out: {message}")
                )
                trainer = Trainer(
                    settings,
                    processes,
                    stage,
                    on_progress=lambda share, words: bar.update("", done=share, total=1.0, words=words),
                    say=say,
                )
                with stopping_on_signals(trainer):
                    trainer.run()
        finally:
            processes.close()
        if shown:
            stopped = f"stopped after step {trainer.step}, --resume goes on; " if trainer.must_stop else ""
            terminal.say(f"{stopped}checkpoint: {settings.out / 'checkpoint'}")
        return 0


@dataclass(frozen=True, kw_only=True)
class StopHeadCommand:
    """The fit of a stop head."""

    settings: StopHeadSettings

    def run(self) -> int:
        """Fit and write."""
        from autogaze import terminal
        from autogaze.training.stop_head import fit_stop_head

        settings = self.settings
        with terminal.CountBar(visible=not settings.quiet and sys.stderr.isatty()) as bar:
            say = _silent if settings.quiet else bar.say
            found = fit_stop_head(
                settings, on_progress=lambda share: bar.update("", done=share, total=1.0, words="gazing"), say=say
            )
        if not settings.quiet:
            before, after = f"{found.error_before:.1%}", f"{found.error_after:.1%}"
            terminal.say(f"error of a predicted loss on clips kept aside: {before} before, {after} now")
            terminal.say(f"checkpoint: {settings.out / 'checkpoint'}; calibrate it with `autogaze calibrate`")
        return 0


def command_of(settings: RunSettings | StopHeadSettings) -> TrainCommand | StopHeadCommand:
    """What carries settings out."""
    from autogaze.training.run_settings import RunSettings

    return TrainCommand(settings=settings) if isinstance(settings, RunSettings) else StopHeadCommand(settings=settings)


def _silent(text: str) -> None:
    """Say nothing."""
