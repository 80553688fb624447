"""Runs of training by reward."""

from __future__ import annotations

from pathlib import Path

from autogaze.training.grpo import GRPOSettings


def default() -> GRPOSettings:
    """From the checkpoint of a next-token run, for a GPU and a folder of videos."""
    return GRPOSettings(
        out=Path("runs/grpo"),
        init="runs/ntp/checkpoint",
        steps=1500,
        videos=(Path("videos"),),
        batch=16,
        passes=4,
        peak_lr=1e-4,
        warmup_steps=50,
        average=0.99,
    )


def tiny() -> GRPOSettings:
    """A tiny network on drawn clips, in half a minute on two CPU cores: to see that everything runs.

    It starts from fresh weights, whose stop head knows nothing; give ``--init runs/ntp-tiny/checkpoint`` and
    ``--counts model`` to go on from a tiny next-token run.
    """
    return GRPOSettings(
        out=Path("runs/grpo-tiny"),
        shape="tiny",
        procedural=1.0,
        steps=50,
        batch=4,
        block=64,
        reuse=4,
        peak_lr=2e-3,
        warmup_steps=10,
        counts="label",
        workers=0,
        log_every=5,
        validation_clips=8,
        average=0.9,
    )


def bundled() -> GRPOSettings:
    """The second stage of the bundled checkpoint, by the clock; see ``scripts/train_default.py``.

    The temperature ends low, since the model will live with its likeliest gazes and not with draws.
    """
    return GRPOSettings(
        out=Path("runs/default/grpo"),
        init="runs/default/ntp/checkpoint",
        total_minutes=5.0,
        videos=(Path("videos"),),
        batch=16,
        passes=2,
        block=1024,
        peak_lr=5e-5,
        warmup_steps=20,
        average=0.99,
        last_temperature=0.03,
        save_minutes=2.5,
    )


def finetune() -> GRPOSettings:
    """From the bundled checkpoint, for videos of one kind, such as those of a camera or of a screen."""
    return GRPOSettings(
        out=Path("runs/grpo-finetune"),
        init="bundled",
        steps=200,
        videos=(Path("videos"),),
        batch=8,
        passes=2,
        block=512,
        peak_lr=5e-5,
        warmup_steps=20,
        average=0.98,
    )


def paper() -> GRPOSettings:
    """What the paper says of this stage: 3 epochs of 250,000 clips from a next-token checkpoint, for a cluster.

    Groups of 12, batch 256, 2 frames of 16 rewarded, temperature from 1 to 0.01, at most three quarters of the
    patches. Thresholds and rewards are in the unit of the canvas, unless ``--judge`` names a reconstructor.
    """
    return GRPOSettings(
        out=Path("runs/grpo-paper"),
        init="runs/ntp-paper/checkpoint",
        steps=3 * 250_000 // 256,
        videos=(Path("videos"),),
        batch=256,
        block=250_000,
        reuse=3,
        peak_lr=5e-4,
        weight_decay=0.0,
        average=0.0,
        last_temperature=0.01,
        rewarded_frames=2,
    )
