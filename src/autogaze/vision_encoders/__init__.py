"""Sparse vision encoders: vision transformers that compute only the patches that were gazed at."""

from __future__ import annotations

from autogaze.vision_encoders.encoder import SparseEncoder, sparsify
from autogaze.vision_encoders.features import SparseFeatures
from autogaze.vision_encoders.options import SparseOptions
from autogaze.vision_encoders.session import SparseSession
from autogaze.vision_encoders.towers import TOWERS, TokenPositions, Tower

__all__ = [
    "TOWERS",
    "SparseEncoder",
    "SparseFeatures",
    "SparseOptions",
    "SparseSession",
    "TokenPositions",
    "Tower",
    "sparsify",
]
