"""Losses of rebuilt frames: functions ``(prediction, target) → (B, F)``, and their weighted sum by name."""

from __future__ import annotations

from autogaze.losses.features import DINOv2RegLoss, FeatureLoss, SigLIP2Loss
from autogaze.losses.frozen import FrozenVisionModel
from autogaze.losses.pixel import (
    HALF,
    IMAGENET,
    PUBLISHED,
    UNIT,
    Loss,
    PixelSpace,
    l1,
    multi_scale_gradient,
    ssim,
    ssim_loss,
)
from autogaze.losses.weighted import TERMS, TermOptions, WeightedLoss, make_loss

__all__ = [
    "HALF",
    "IMAGENET",
    "PUBLISHED",
    "TERMS",
    "UNIT",
    "DINOv2RegLoss",
    "FeatureLoss",
    "FrozenVisionModel",
    "Loss",
    "PixelSpace",
    "SigLIP2Loss",
    "TermOptions",
    "WeightedLoss",
    "l1",
    "make_loss",
    "multi_scale_gradient",
    "ssim",
    "ssim_loss",
]
