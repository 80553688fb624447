"""Runs that train a reconstructor: a refiner of the canvas, or a video masked autoencoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autogaze.training.refiner import RefinerSettings
from autogaze.training.video_mae import VideoMAESettings


def default() -> RefinerSettings:
    """A refiner of the bundled one's shape from fresh weights, in an hour on two CPU cores or minutes on a GPU."""
    return RefinerSettings(
        out=Path("runs/refiner"),
        steps=2000,
        videos=(Path("videos"),),
        batch=4,
        reuse=1,
        decay="cosine",
        warmup_steps=100,
        weight_decay=1e-4,
        beta2=0.999,
        average=0.998,
    )


def bundled() -> RefinerSettings:
    """The bundled refiner, by the clock; see ``scripts/train_default.py``."""
    return replace(default(), out=Path("runs/default/refiner"), steps=None, total_minutes=3.5, save_minutes=2.0)


def tiny() -> RefinerSettings:
    """A tiny refiner on drawn clips, in half a minute on two CPU cores: to see that everything runs."""
    return RefinerSettings(
        out=Path("runs/refiner-tiny"),
        shape="tiny",
        procedural=1.0,
        steps=200,
        batch=4,
        block=256,
        reuse=2,
        peak_lr=3e-3,
        decay="cosine",
        warmup_steps=20,
        weight_decay=1e-4,
        beta2=0.999,
        average=0.98,
        workers=0,
        log_every=10,
        validation_clips=8,
    )


def video_mae() -> VideoMAESettings:
    """A masked autoencoder of 112 million weights, for GPUs and many thousands of videos.

    Fresh weights need far more of both to get anywhere than those of an image autoencoder of the same sizes:
    ``--init facebook/vit-mae-base``.
    """
    return VideoMAESettings(
        out=Path("runs/video-mae"),
        shape="base",
        steps=20_000,
        videos=(Path("videos"),),
        batch=64,
        peak_lr=3e-4,
        final_lr=1e-6,
        decay="cosine",
        warmup_steps=1000,
        weight_decay=0.05,
        average=0.9995,
    )


def tiny_video_mae() -> VideoMAESettings:
    """A toy autoencoder on drawn clips, in half a minute on two CPU cores: to see that everything runs."""
    return VideoMAESettings(
        out=Path("runs/video-mae-tiny"),
        shape="toy",
        procedural=1.0,
        steps=200,
        batch=8,
        block=256,
        reuse=4,
        frame_share=0.5,
        peak_lr=1e-2,
        decay="cosine",
        warmup_steps=20,
        average=0.98,
        workers=0,
        log_every=10,
        validation_clips=8,
    )


def paper() -> VideoMAESettings:
    """The published reconstructor as far as it is known, for a cluster: 330 million weights, three terms of the loss.

    The paper gives network, start and loss, but not data, steps, batch or learning rate: those are ours.
    """
    return VideoMAESettings(
        out=Path("runs/video-mae-paper"),
        init="facebook/vit-mae-large",
        steps=100_000,
        videos=(Path("videos"),),
        batch=256,
        passes=4,
        block=250_000,
        reuse=100,
        peak_lr=1.5e-4,
        final_lr=1e-6,
        decay="cosine",
        warmup_steps=5000,
        weight_decay=0.05,
        average=0.9999,
        frame_share=0.125,
        loss="l1+dinov2_reg+siglip2",
        loss_weights="1+0.3+0.3",
        dinov2_reg="facebook/dinov2-with-registers-base",
        siglip2="google/siglip2-base-patch16-224",
    )
