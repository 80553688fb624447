"""Small video masked autoencoders with random weights, and clips and gazes for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autogaze.gaze import Gaze
from autogaze.grid import PatchGrid
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VideoMAEConfig
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE
from autogaze.tiling import tile_layout

GRID = PatchGrid(scales_px=(16, 32))  # 1 + 4 cells


def small_config(**changes: Any) -> VideoMAEConfig:
    return VideoMAEConfig(
        **{
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 32,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 2,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 24,
            "scales": "16+32",
            "max_num_frames": 20,
            "initializer_range": 0.3,  # large enough that every token matters to every other
            **changes,
        }
    )


def small_model(seed: int = 0, **changes: Any) -> VideoMAE:
    model = VideoMAE(small_config(**changes)).eval()
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def clips(count: int, frames: int, *, seed: int = 0, side_px: int = 32) -> Tensor:
    """(count, frames, 3, side, side) normalised noise."""
    return torch.randn(count, frames, 3, side_px, side_px, generator=torch.Generator().manual_seed(seed))


def random_cells(frames: int, *, seed: int, grid: PatchGrid = GRID) -> Gaze:
    """Any number of cells in every frame, in any order; none in some frames."""
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(grid.num_patches)[: rng.integers(0, grid.num_patches + 1)] for _ in range(frames)]
    return gaze_of(chosen, grid=grid)


def gaze_of(cells: list[Any], *, grid: PatchGrid = GRID) -> Gaze:
    """A gaze of the cells of each frame."""
    index = np.concatenate([np.asarray(cell, np.int64) for cell in cells])
    return Gaze(index=index, count=np.array([len(cell) for cell in cells]), layout=tile_layout(grid))


class LargestTensor(TorchDispatchMode):
    """Watches how large the tensors get that an operation makes, views and expanded ones not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made
