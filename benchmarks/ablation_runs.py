"""Networks of an ablation: fresh weights, and what the training commands make of them."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from autogaze.models.autogaze.configuration_autogaze import AutoGazeConfig
from autogaze.training.networks import SHAPES, gaze_model

STAGES = ("none", "NTP", "GRPO only", "NTP + GRPO")
FURTHER = "NTP + NTP"
"""What as many further steps of next-token training make of the same network that GRPO goes on from."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What the training commands are called with beside what the ablation decides itself."""

    ntp: tuple[str, ...]
    """After ``autogaze train ntp``."""
    grpo: tuple[str, ...]
    """After ``autogaze train grpo``, from fresh weights."""
    both: tuple[str, ...]
    """After ``autogaze train grpo``, from an NTP checkpoint."""
    further: tuple[str, ...]
    """After ``autogaze train ntp``, from an NTP checkpoint."""
    ntp_steps: int
    """Steps of NTP."""
    grpo_steps: int
    """Steps of GRPO, and of further NTP."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains networks into a folder. What is there already is not trained again, what was interrupted goes on, and what
    another command made is trained anew."""

    folder: Path
    """A folder for each network."""
    words: Words
    """Of the commands."""

    def make(self, stage: str, *, config: AutoGazeConfig, name: str, seed: int) -> Path:
        """The checkpoint of a stage.

        Raises:
            RuntimeError: a command failed.
        """
        shape = self.folder / f"{name}.json"
        config.to_json_file(shape)
        here = f"{name}-seed{seed}"
        words = self.words
        if stage == "none":
            return self._fresh(here, shape, seed)
        fresh = ("--shape", shape)
        if stage == "GRPO only":
            return self._train("grpo", f"{here}-grpo", words.grpo, words.grpo_steps, start=fresh, seed=seed)
        ntp = self._train("ntp", f"{here}-ntp", words.ntp, words.ntp_steps, start=fresh, seed=seed)
        if stage == "NTP":
            return ntp
        what, name, further = ("ntp", "further", words.further) if stage == FURTHER else ("grpo", "both", words.both)
        return self._train(what, f"{here}-{name}", further, words.grpo_steps, start=("--init", ntp), seed=seed)

    def _fresh(self, here: str, shape: Path, seed: int) -> Path:
        checkpoint = self.folder / f"{here}-none"
        if not checkpoint.exists():
            gaze_model(init=None, shape=str(shape), seed=seed).save_pretrained(checkpoint)
        return checkpoint

    def _train(
        self, what: str, here: str, words: tuple[str, ...], steps: int, *, start: tuple[str, Path], seed: int
    ) -> Path:
        out = self.folder / here
        begun, done = (self.folder / f"{here}-{state}.json" for state in ("begun", "done"))
        command = [
            sys.executable,
            "-m",
            "autogaze.cli",
            "train",
            what,
            *words,
            "--steps",
            str(steps),
            "--seed",
            str(seed),
        ]
        command += [start[0], str(start[1]), "--out", str(out), "--resume", "--quiet"]
        if begun.exists() and json.loads(begun.read_text()) != command:
            shutil.rmtree(out, ignore_errors=True)
            done.unlink(missing_ok=True)
        if done.exists():
            return out / "checkpoint"
        begun.write_text(json.dumps(command))
        print(shlex.join(command), flush=True)
        if subprocess.run(command, check=False).returncode:
            raise RuntimeError(f"this failed: {shlex.join(command)}")
        done.write_text(json.dumps(command))
        return out / "checkpoint"


def config_of(shape: str) -> AutoGazeConfig:
    """A named network, or that of a ``config.json``."""
    return SHAPES[shape] if shape in SHAPES else AutoGazeConfig.from_json_file(Path(shape))


def with_gazes_per_pass(config: AutoGazeConfig, gazes: int) -> AutoGazeConfig:
    """The network with another number of gazes that one pass of its decoder proposes."""
    model = config.gaze_model_config
    decoder = replace(model.gaze_decoder_config, num_multi_token_pred=gazes)
    return replace(config, gaze_model_config=replace(model, gaze_decoder_config=decoder))


def with_finest_scale_alone(config: AutoGazeConfig) -> AutoGazeConfig:
    """The network with the patches of its finest scale and no others."""
    grid = config.grid
    patches = grid.patches_per_scale[-1]
    model = config.gaze_model_config
    decoder = replace(model.gaze_decoder_config, vocab_size=patches + 1)
    return replace(
        config,
        scales=str(grid.scales_px[-1]),
        gaze_model_config=replace(model, gaze_decoder_config=decoder),
    )
