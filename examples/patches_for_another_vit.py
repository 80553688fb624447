"""From a gaze to what another vision transformer eats: the kept patches of its own grid, and where they sit.

Run ``python examples/patches_for_another_vit.py VIDEO [--size 336] [--patch 14] [--frames COUNT]``.

The default grid is that of a ViT-L/14 at 336 px: 24 × 24 patches. A sparse encoder adds its own position embedding
at ``position`` and runs on N tokens instead of T · 576. A coarse gaze covers many fine patches: ``--coarse drop``
leaves those out and keeps only what was gazed at in the finest scale.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from PIL import Image

import autogaze
from autogaze.retarget import retarget


def kept_patches(frames: autogaze.Frames, gaze: autogaze.Gaze) -> torch.Tensor:
    """(N, 3, P, P) uint8 pixels of the gazed patches of a one-scale gaze, in gazing order."""
    grid = gaze.layout.grid
    side_px, patch_px = grid.scales_px[0], grid.patch_px
    size = (side_px, side_px)
    resized = np.stack([Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC) for rgb in frames.rgb])
    _, row, column = grid.locate(gaze.index)
    pixels = torch.from_numpy(resized).permute(0, 3, 1, 2).unfold(2, patch_px, patch_px).unfold(3, patch_px, patch_px)
    return pixels[gaze.frame, :, row, column]


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--size", type=int, default=336, help="side of the frames the encoder reads, in pixels")
    parser.add_argument("--patch", type=int, default=14, help="side of its patches, in pixels")
    parser.add_argument("--frames", type=int, default=16, help="frames, spread evenly")
    parser.add_argument("--coarse", choices=("cover", "drop"), default="cover", help="what becomes of coarse gazes")
    options = parser.parse_args()

    grid = autogaze.PatchGrid(scales_px=(options.size,), patch_px=options.patch)
    patches, positions, dense = [], [], 0
    for frames, gaze in autogaze.iter_gaze(options.video, frames=options.frames, mode="resize"):
        theirs = retarget(gaze, grid, coarse=options.coarse)
        patches.append(kept_patches(frames, theirs))
        positions.append(torch.from_numpy((dense + theirs.frame) * grid.num_patches + theirs.index))
        dense += len(gaze)
    tokens, position = torch.cat(patches), torch.cat(positions)
    print(f"patches  {tuple(tokens.shape)} {tokens.dtype}")
    print(f"position {tuple(position.shape)} {position.dtype}, up to {int(position.max())}")
    print(f"{len(tokens):,} of {dense * grid.num_patches:,} tokens: {len(tokens) / (dense * grid.num_patches):.1%}")


if __name__ == "__main__":
    main()
