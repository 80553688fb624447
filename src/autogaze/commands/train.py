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

from autogaze.errors import TrainingError

if TYPE_CHECKING:
    from autogaze.training.run_settings import RunSettings

WHAT = ("ntp", "grpo", "reconstructor")
DEFAULT = "default"


def find_config(what: str, name: str) -> Callable[[], RunSettings]:
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
    found: Callable[[], RunSettings] = getattr(module, function)
    return found


def config_names(module: ModuleType) -> list[str]:
    """The configurations of a module: its own public functions."""
    functions = inspect.getmembers(module, inspect.isfunction)
    return [name for name, function in functions if function.__module__ == module.__name__ and name[0] != "_"]


def _module_at(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if path.suffix != ".py" or not path.is_file() or spec is None or spec.loader is None:
        raise TrainingError(f"--config {path} is no Python file; give path/to/file.py:function")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def split_words(words: Sequence[str]) -> tuple[str, str, list[str]]:
    """What to train, the configuration's name, and the other words.

    Raises:
        TrainingError: it does not say what to train.
    """
    if not words or words[0] in ("-h", "--help"):
        raise TrainingError(f"train what? {', '.join(WHAT)}; `autogaze train ntp --help` shows what is legal")
    if words[0] not in WHAT:
        raise TrainingError(f"{words[0]!r} cannot be trained; there are {', '.join(WHAT)}")
    rest, config = list(words[1:]), DEFAULT
    for k, word in enumerate(rest):
        if word == "--config" and k + 1 < len(rest):
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
        from autogaze.training.stopping import stopping_on_signals
        from autogaze.training.trainer import Trainer

        settings = self.settings
        torch.set_float32_matmul_precision("high")
        processes = Processes(settings)
        shown = processes.is_main and not settings.quiet
        say = terminal.say if shown else _silent
        try:
            stage = settings.make_stage(device=processes.device, tell=lambda path, message: say(f"left out: {message}"))
            with terminal.CountBar(visible=shown and sys.stderr.isatty()) as bar:
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
        say(f"checkpoint: {settings.out / 'checkpoint'}")
        return 0


def _silent(text: str) -> None:
    """Say nothing."""
