"""Settings that every run has, and what follows from them alone: learning rate, end, precision."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from autogaze.errors import TrainingError
from autogaze.training.data import data_of
from autogaze.training.stage import Stage, Tell

if TYPE_CHECKING:
    import torch

Decay = Literal["linear", "cosine"]
_FREE = (
    "out init resume minutes passes device log_every save_minutes save_steps keep trackers project quiet debug "
    "val validation_clips workers cache_gb cache_folder compile"
)
FREE = frozenset(_FREE.split())
"""Settings that may differ from sitting to sitting, and the run is the same."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a run goes, whatever it trains.

    Raises:
        TrainingError: a value is not legal.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("run")
    """Folder for checkpoint, state, log and pictures."""
    init: str | None = None
    """Checkpoint to start from: a folder, file, hub id or bundled; without it fresh weights."""
    resume: bool = False
    """Go on from the state in --out, if there is one."""
    steps: int | None = None
    """Optimiser steps over all sittings, which the learning rate follows; without them it follows the clock."""
    minutes: float | None = None
    """This sitting ends after so many minutes, start included."""
    total_minutes: float | None = None
    """Minutes over all sittings, which the learning rate follows; with --steps too, whichever are nearer their end."""
    batch: int = 64
    """Clips of a step over all processes and passes."""
    passes: int = 1
    """Passes that a step's clips are divided over, whose gradients add up: more need less memory."""
    peak_lr: float = 1e-3
    """Learning rate after the warm-up."""
    final_lr: float = 1e-5
    """Learning rate at the end."""
    decay: Decay = "linear"
    """How the learning rate falls from the one to the other."""
    warmup_steps: int = 200
    """Steps until the learning rate is at its peak."""
    weight_decay: float = 0.02
    """Of matrices and kernels; vectors have none."""
    beta2: float = 0.95
    """Decay of the running mean of squared gradients, which steps are divided by the root of."""
    clip_norm: float = 1.0
    """Gradients longer than this are shortened to it."""
    average: float = 0.999
    """Decay of the averaged weights, which become the checkpoint; 0: the latest weights do."""
    seed: int = 0
    """Seed of weights, clips and draws."""
    device: str | None = None
    """cpu, cuda or mps; without it a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the passes; auto: bf16 on a GPU. Weights and optimiser are always fp32."""
    log_every: int = 20
    """Steps between lines of the log."""
    save_minutes: float = 5.0
    """Minutes between states, validations and pictures."""
    save_steps: int | None = None
    """Save every so many steps instead."""
    keep: int = 2
    """States kept."""
    trackers: tuple[str, ...] = ()
    """Also log to these: tensorboard, trackio, wandb, or another that accelerate knows."""
    project: str = "autogaze"
    """Name of the project there."""
    quiet: bool = False
    """Print nothing but errors."""
    debug: bool = False
    """Show where an error comes from."""

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None and self.total_minutes is None:
            raise TrainingError("a run needs an end; give --steps, --minutes or --total-minutes")
        positive = ("steps", "minutes", "total_minutes", "batch", "passes", "peak_lr", "warmup_steps", "clip_norm")
        for name in (*positive, "log_every", "save_minutes", "save_steps", "keep"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise TrainingError(f"--{name.replace('_', '-')} must be above 0 and finite, got {value}")
        for name in ("final_lr", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(
                    f"--{name.replace('_', '-')} must be at least 0 and finite, got {getattr(self, name)}"
                )
        if not 0 <= self.seed < 2**32:
            raise TrainingError(f"--seed must be at least 0 and below {2**32}, got {self.seed}")
        for name in ("average", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingError(f"--{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.passes > self.batch:
            raise TrainingError(f"{self.passes} passes of a step of {self.batch} clips; each needs one at least")

    def make_stage(self, *, device: torch.device, tell: Tell) -> Stage[Any, Any]:
        """What this run trains, on a device; ``tell`` hears path and message of validation videos left out.

        Raises:
            CheckpointError: a checkpoint cannot be loaded, or does not fit.
            TrainingError: the settings fit no network, or do not say what they train.
        """
        raise TrainingError(
            f"{type(self).__name__} does not say what it trains; use NTPSettings, GRPOSettings, RefinerSettings or "
            f"VideoMAESettings, or define make_stage"
        )

    def data(self) -> dict[str, str]:
        """What there is to learn from, by kind; equal for equal data."""
        return {}

    @property
    def by_clock(self) -> bool:
        """Whether the clock has a say in :meth:`share_done`."""
        return self.steps is None or self.total_minutes is not None

    def share_done(self, *, step: int, seconds: float) -> float:
        """How much of the whole run lies behind it, 0 to 1, after so many steps and seconds over all sittings."""
        shares = [] if self.steps is None else [step / self.steps]
        minutes = self.minutes if self.steps is None and self.total_minutes is None else self.total_minutes
        if minutes is not None:
            shares.append(seconds / (60 * minutes))
        return min(1.0, max(shares))

    def learning_rate(self, *, step: int, share: float) -> float:
        """Linear warm-up by steps, then decay by the share done."""
        left = 1 - share if self.decay == "linear" else (1 + math.cos(math.pi * share)) / 2
        return (self.final_lr + (self.peak_lr - self.final_lr) * left) * min(1.0, (step + 1) / self.warmup_steps)


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """Which clips a run learns from, and how they are made.

    Raises:
        TrainingError: a value is not legal, or there is nothing to train on.
    """

    videos: tuple[Path, ...] = ()
    """Folders of videos; one with train/ and val/ inside means train/ here and val/ for validation."""
    images: tuple[Path, ...] = ()
    """Folders of images to ride over."""
    labels: Path | None = None
    """Label file of the videos, as `autogaze label` writes it; without it labels are made on the way."""
    val: tuple[Path, ...] = ()
    """Folders of videos to validate on, beside the val/ of --videos."""
    scans: float = 0.15
    """Share of clips that ride over images, where there are both images and videos."""
    procedural: float = 0.0
    """Share of clips that are drawn: sprites, text, pans and cuts."""
    validation_clips: int = 93
    """Most clips to validate on, one of each video, evenly spread over them."""
    block: int = 4096
    """Clips that are gone through --reuse times, in different orders, before the next ones. They are kept, 2.4 MB each,
    in a quarter of the free memory and at most 8.6 GB; those that do not fit are made again."""
    reuse: int = 2
    """How often each clip is learned from."""
    workers: int | None = None
    """Processes that make clips, for each training process; without it one for each core but one; 0: none."""
    cache_gb: float = 4.0
    """Decoded sources kept in memory over all workers; a minute of video at 25 frames a second takes 0.5."""
    cache_folder: Path | None = None
    """Keep decoded sources in this folder too, so that the next run need not decode them."""

    def __post_init__(self) -> None:
        for name in ("scans", "procedural"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"--{name} must be a share from 0 to 1, got {getattr(self, name)}")
        if not (self.videos or self.images or self.procedural):
            raise TrainingError(
                "nothing to train on; give folders of --videos, of --images, or a share of --procedural clips"
            )
        if self.labels is not None and not self.videos:
            raise TrainingError("--labels are of videos; give their folders as --videos too")
        unused = " and ".join(f"--{name}" for name in ("videos", "images") if getattr(self, name))
        if unused and self.procedural == 1:
            raise TrainingError(
                f"--procedural 1 draws every clip, and nothing would be learned from {unused}; lower it, 0 draws none, "
                "or give videos that are for validation as --val"
            )
        for name in ("block", "reuse"):
            if getattr(self, name) < 1:
                raise TrainingError(f"--{name} must be at least 1, got {getattr(self, name)}")
        for name in ("cache_gb", "workers", "validation_clips"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise TrainingError(f"--{name.replace('_', '-')} must be at least 0 and finite, got {value}")

    def num_workers(self) -> int:
        """Processes that make clips for one training process."""
        return max(1, (os.cpu_count() or 2) - 1) if self.workers is None else self.workers


@dataclass(frozen=True, kw_only=True)
class ClipRunSettings(ClipSettings, RunSettings):
    """A run that learns from clips.

    Raises:
        TrainingError: a value is not legal, or there is nothing to train on.
    """

    def __post_init__(self) -> None:
        ClipSettings.__post_init__(self)
        RunSettings.__post_init__(self)

    def data(self) -> dict[str, str]:
        """See :func:`~autogaze.training.data.data_of`."""
        return data_of(self)
