"""Next-token runs."""

from __future__ import annotations

from pathlib import Path

from autogaze.training.ntp import NTPSettings


def default() -> NTPSettings:
    """The published shape from fresh weights, for a GPU and a folder of videos."""
    return NTPSettings(out=Path("runs/ntp"), steps=6000, videos=(Path("videos"),))


def tiny() -> NTPSettings:
    """A tiny network on drawn clips, in half a minute on two CPU cores: to see that everything runs."""
    return NTPSettings(
        out=Path("runs/ntp-tiny"),
        shape="tiny",
        procedural=1.0,
        steps=200,
        batch=16,
        block=256,
        reuse=4,
        peak_lr=3e-3,
        warmup_steps=20,
        workers=0,
        log_every=10,
        validation_clips=8,
    )


def bundled() -> NTPSettings:
    """The first stage of the bundled checkpoint, by the clock; see ``scripts/train_default.py``."""
    return NTPSettings(
        out=Path("runs/default/ntp"),
        total_minutes=14.5,
        videos=(Path("videos"),),
        block=4096,
        save_minutes=3.0,
    )


def finetune() -> NTPSettings:
    """From the bundled checkpoint, for videos of one kind, such as those of a camera or of a screen."""
    return NTPSettings(
        out=Path("runs/ntp-finetune"),
        init="bundled",
        steps=500,
        videos=(Path("videos"),),
        batch=16,
        block=512,
        peak_lr=1e-4,
        warmup_steps=50,
        average=0.99,
    )


def paper() -> NTPSettings:
    """What the paper says of this stage: 150 epochs of 250,000 labelled clips, for a cluster.

    Batch 256, linear decay from 5e-4 to 1e-5; the labels are made on the fly here.
    """
    return NTPSettings(
        out=Path("runs/ntp-paper"),
        steps=150 * 250_000 // 256,
        videos=(Path("videos"),),
        batch=256,
        block=250_000,
        reuse=150,
        peak_lr=5e-4,
        final_lr=1e-5,
        weight_decay=0.0,
        average=0.0,
    )
