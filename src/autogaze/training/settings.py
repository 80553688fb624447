"""Settings of a next-token run, and what follows from them alone: learning rate, optimiser, precision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from autogaze.errors import TrainingError as TrainingError


@dataclass(frozen=True, kw_only=True)
class NTPSettings:
    """A complete next-token run.

    Raises:
        TrainingError: a value is not legal, or there is nothing to train on.
    """

    out: Path
    """Folder for checkpoint, log and state."""
    videos: Path | None = None
    """Folder of videos to train on."""
    images: Path | None = None
    """Folder of images to ride over."""
    val: Path | None = None
    """Folder of videos to validate on."""
    init: str | None = None
    """Checkpoint to start from; without it fresh weights of the published shape."""
    resume: bool = False
    """Go on from the state in ``out``, if there is one."""
    minutes: float = 10.0
    """This sitting ends after so many minutes, start included."""
    total_minutes: float | None = None
    """Minutes over all sittings, which the learning rate follows; None: those of this one."""
    steps: int | None = None
    """Steps over all sittings; if given, the learning rate follows them and not the clock."""
    batch: int = 64
    """Clips of a step."""
    reuse: float = 2.0
    """How often a clip is drawn, on average, before it is forgotten."""
    pool: int = 4096
    """Clips kept on the device, 2.4 MB each."""
    peak_lr: float = 1e-3
    """Learning rate after the warm-up."""
    final_lr: float = 1e-5
    """Learning rate at the end."""
    warmup_steps: int = 200
    """Steps until the learning rate is at its peak."""
    loss_head_lr: float = 0.03
    """Learning rate of the loss head, as a share: it speaks of hundredths, and each of its weights of all of them."""
    weight_decay: float = 0.02
    """Of matrices and kernels; vectors have none."""
    clip_norm: float = 1.0
    """Gradients longer than this are shortened to it, those of the loss head by themselves."""
    average: float = 0.999
    """Decay of the averaged weights, which become the checkpoint."""
    loss_weight: float = 1.0
    """Weight of the predicted losses against the gazes."""
    loss_floor: float = 0.01
    """Errors of predicted losses are counted relative to loss plus this. Mean absolute errors are a few hundredths;
    in that unit their squares would vanish beside the cross-entropy."""
    max_gazes: int = 1024
    """Most gazes of a clip."""
    seed: int = 0
    """Seed of weights, clips and batches."""
    workers: int | None = None
    """Processes that make clips; None: one for each core but one; 0: none, which is slow."""
    cache_gb: float = 4.0
    """Decoded sources kept in memory over all processes; a minute of video at 25 frames a second takes 0.5."""
    device: str | None = None
    """None: a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the passes; auto: bf16 on a GPU. Weights and optimiser are always fp32."""
    compile: bool = False
    """Compile the decoder's layers."""
    log_every: int = 20
    """Steps between lines of the log."""
    save_minutes: float = 2.0
    """Minutes between states and validations."""

    def __post_init__(self) -> None:
        if self.videos is None and self.images is None:
            raise TrainingError("nothing to train on; give a folder of --videos, of --images, or both")
        for name in ("batch", "pool", "log_every", "warmup_steps", "reuse", "peak_lr", "minutes", "loss_floor"):
            if getattr(self, name) <= 0:
                raise TrainingError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.reuse < 1:
            raise TrainingError(f"reuse must be at least 1, got {self.reuse}; 1 draws every clip once")
        if self.pool < self.batch:
            raise TrainingError(f"a pool of {self.pool} clips is too small for batches of {self.batch}")

    def torch_device(self) -> torch.device:
        """Where the run takes place."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def num_workers(self) -> int:
        """Processes that make clips."""
        return max(1, (os.cpu_count() or 2) - 1) if self.workers is None else self.workers

    def share_done(self, *, step: int, seconds: float) -> float:
        """How much of the whole run lies behind it, 0 to 1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, seconds / (60 * (self.total_minutes or self.minutes)))

    def learning_rate(self, *, step: int, share: float) -> float:
        """Linear warm-up by steps, then linear decay by the share done."""
        return (self.peak_lr + (self.final_lr - self.peak_lr) * share) * min(1.0, (step + 1) / self.warmup_steps)

    def clips_wanted(self, step: int) -> int:
        """Clips that must have come before a step; at first a few batches, later ``batch / reuse`` a step."""
        return min(self.pool, 4 * self.batch) + int(step * self.batch / self.reuse)

    def optimizer(self, model: nn.Module) -> torch.optim.AdamW:
        """AdamW with its parameter groups; each group's ``scale`` multiplies the learning rate."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            scale = self.loss_head_lr if "task_loss_prediction_head" in name else 1.0
            decay = self.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
        return torch.optim.AdamW(
            [{"params": found, "scale": scale, "weight_decay": decay} for (scale, decay), found in groups.items()],
            lr=self.peak_lr,
            betas=(0.9, 0.95),
            fused=self.torch_device().type == "cuda",
        )

    def autocast(self) -> torch.autocast:
        """The precision of forward passes."""
        kind = self.torch_device().type
        wanted = self.precision == "bf16" or (self.precision == "auto" and kind == "cuda")
        return torch.autocast(kind, torch.bfloat16, enabled=wanted)
