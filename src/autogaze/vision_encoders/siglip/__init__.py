"""SigLIP that computes only gazed patches, under its published import path."""

from __future__ import annotations

from autogaze.vision_encoders.siglip.configuration_siglip import SiglipConfig, SiglipVisionConfig
from autogaze.vision_encoders.siglip.modeling_siglip import SiglipPreTrainedModel, SiglipVisionModel

__all__ = ["SiglipConfig", "SiglipPreTrainedModel", "SiglipVisionConfig", "SiglipVisionModel"]
