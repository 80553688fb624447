"""Small video autoencoders with random weights, clips for them, and gazes of these clips."""

from __future__ import annotations

import torch
from torch import Tensor

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.tasks.video_mae_reconstruction import VideoMAE, VideoMAEConfig
from gaze_samples import random_gaze

SIDE_PX = 32
CONFIG = VideoMAEConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    image_size=SIDE_PX,
    patch_size=8,
    decoder_hidden_size=24,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=40,
    scales="16+32",
    max_num_frames=8,
    initializer_range=0.2,  # large enough that gazes make a difference
)
"""4 + 16 cells a frame."""
LAYOUT = FrameLayout.resized(CONFIG.grid, height_px=SIDE_PX, width_px=SIDE_PX)


def small_video_mae(seed: int = 0) -> VideoMAE:
    model = VideoMAE(CONFIG)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model.eval()


def smooth_video(clips: int = 2, frames: int = 5, *, seed: int = 0) -> Tensor:
    """(B, T, 3, 32, 32) blurred noise that drifts, about 0 and 1 wide."""
    random = torch.Generator().manual_seed(seed)
    picture = torch.randn(clips, 3, 16, 16, generator=random)
    picture = torch.nn.functional.interpolate(picture, (64, 64), mode="bicubic")
    return torch.stack([picture[..., t : t + SIDE_PX, 2 * t : 2 * t + SIDE_PX] for t in range(frames)], dim=1)


def random_gazes(clips: int = 2, frames: int = 5, *, seed: int = 0) -> list[Gaze]:
    """Gazes of 0 to 9 cells a frame."""
    return [random_gaze(100 * seed + b, layout=LAYOUT, num_frames=frames, numbers=False) for b in range(clips)]
