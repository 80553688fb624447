"""Small sparse SigLIP models, gazes for them in published tensors, and what a dense model makes of the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import sparse_samples
from autogaze.grid import FrameLayout
from autogaze.packing import pack
from autogaze.vision_encoders.siglip import SiglipVisionConfig, SiglipVisionModel
from autogaze.vision_encoders.siglip.configuration_siglip import Sparsity

# Shape letters: B clips, T frames, P patches of a frame, N slots of a clip, D channels.

GOLDEN = Path(__file__).parent / "data" / "siglip_small"
CASES: dict[str, dict[str, Any]] = json.loads((GOLDEN / "index.json").read_text())
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
IMPLEMENTATIONS = ("eager", "sdpa", "flex_attention", "flash_attention_2")


def config(**options: Any) -> SiglipVisionConfig:
    return SiglipVisionConfig(**(SIZES | {"image_size": 32, "patch_size": 8, "scales": "16+32"} | options))


def model(*, attn_implementation: str = "sdpa", **options: Any) -> Any:
    """For frames of 32 px, with 4 + 16 patches of 8 px."""
    made = SiglipVisionModel._from_config(config(**options), attn_implementation=attn_implementation)
    return sparse_samples.random_weights(made)


def info(model: Any, *, clips: int = 2, frames: int = 4, seed: int = 3) -> dict[str, Tensor]:
    """Random gazes, some frames empty, padded at the end of each frame."""
    layout = FrameLayout.resized(Sparsity.of(model.config).grid, height_px=32, width_px=32)
    padded = pack([sparse_samples.some(layout, frames=frames, seed=seed + clip) for clip in range(clips)])
    assert padded.if_padded_gazing.any()
    return {
        "gazing_pos": padded.gazing_pos,
        "if_padded_gazing": padded.if_padded_gazing,
        "num_gazing_each_frame": padded.num_gazing_each_frame,
    }


def run(model: Any, video: Tensor, info: Any, **options: Any) -> Any:
    with torch.no_grad():
        return model(video, gazing_info=info, **options)


def dense(model: Any, video: Tensor, info: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """(B, N, D) features and states by transformers' own layers under an explicit (N, N) mask."""
    sparsity, vision, T = Sparsity.of(model.config), model.vision_model, video.shape[1]
    frame_N = torch.repeat_interleave(torch.arange(T), info["num_gazing_each_frame"])
    same, earlier = frame_N[:, None] == frame_N, frame_N[:, None] > frame_N
    seen = {
        "block_causal": same | earlier,
        "causal": torch.ones(len(frame_N), len(frame_N), dtype=torch.bool).tril(),
        "bidirectional": torch.ones(len(frame_N), len(frame_N), dtype=torch.bool),
    }[sparsity.attn_type]
    seen = seen & same if sparsity.frame_independent else seen
    kept_BN = ~info["if_padded_gazing"]
    seen_BNN = (seen & kept_BN[:, None, :]) | torch.eye(len(frame_N), dtype=torch.bool)  # no row may be empty
    mask = torch.zeros(seen_BNN.shape).masked_fill(~seen_BNN, -torch.inf)[:, None]
    with torch.no_grad():
        scales = [
            vision.embeddings(
                F.interpolate(video.flatten(0, 1), (side, side), mode="bicubic"), interpolate_pos_encoding=True
            )
            for side in sparsity.grid.scales_px
        ]
        all_BPD = torch.cat(scales, dim=1).unflatten(0, video.shape[:2]).flatten(1, 2)
        at = info["gazing_pos"].masked_fill(~kept_BN, 0)[..., None].expand(-1, -1, all_BPD.shape[-1])
        states = [all_BPD.gather(1, at)]
        for layer in vision.encoder.layers:
            states.append(layer(states[-1], attention_mask=mask))
        return vision.post_layernorm(states[-1]), states
