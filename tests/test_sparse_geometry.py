"""Where patches lie: other sizes of frames and patches, tiles, stretched frames, patches that last two frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import sparse_samples as samples
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.tiling import tile
from autogaze.vision_encoders import SparseEncoder, SparseFeatures, sparsify
from autogaze.vision_encoders.features import merge_frames
from sparse_definition import define, tiles_of

# Shape letters: B clips, T frames, K tiles, S side of a tile.

GRID = PatchGrid(scales_px=(8, 16, 24, 32), patch_px=8)
SMALL = {"hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
POSITIONS = ("SiglipVisionModel", "Dinov2WithRegistersModel", "DINOv3ViTModel", "VJEPA2Model")


def close(own: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(own, expected, atol=3e-5, rtol=1e-5, equal_nan=True)


def noise(clips: int, frames: int, height_px: int, width_px: int) -> Tensor:
    return torch.randn(clips, frames, 3, height_px, width_px, generator=torch.Generator().manual_seed(7))


# Other sizes


@pytest.mark.parametrize(
    ("name", "patch_px", "scales_px", "sides"),
    [
        ("SiglipVisionModel", 14, (56, 112, 196, 392), (4, 8, 14, 28)),
        ("DINOv3ViTModel", 16, (56, 112, 224, 448), (3, 7, 14, 28)),
        ("Siglip2VisionModel", 16, (56, 112, 196, 392), (3, 7, 12, 24)),
        ("Siglip2VisionModel", 16, (384,), (24,)),
        ("Dinov2Model", 14, (518,), (37,)),
        ("CLIPVisionModel", 14, (98, 336), (7, 24)),
    ],
)
@torch.no_grad()
def test_sizes_of_published_models(
    name: str, patch_px: int, scales_px: tuple[int, ...], sides: tuple[int, ...]
) -> None:
    size = {"num_patches": 16} if name == "Siglip2VisionModel" else {"image_size": 14 * patch_px}
    model = samples.make(name, patch_size=patch_px, **SMALL, **size)
    grid, side_px = PatchGrid(scales_px=scales_px, patch_px=patch_px), scales_px[-1]
    assert grid.sides == sides
    layout = FrameLayout.resized(grid, height_px=side_px, width_px=side_px)
    gaze, video = samples.some(layout, frames=2, seed=1, share=0.05), noise(1, 2, side_px, side_px)
    close(sparsify(model)(video, gaze).features, define(model, video[0], gaze, attention="frame").features)


@torch.no_grad()
def test_a_frame_of_another_shape_is_stretched_under_its_tile() -> None:
    model = samples.make("ViTModel", patch_size=16, image_size=224, **SMALL)
    layout = FrameLayout.resized(PatchGrid(), height_px=360, width_px=640)
    gaze, video = samples.some(layout, frames=2, seed=2, share=0.1), noise(1, 2, 360, 640)
    encoder = sparsify(model)
    close(encoder(video, gaze).features, define(model, video[0], gaze, attention="frame").features)
    resized = torch.nn.functional.interpolate(video[0], (224, 224), mode="bicubic")[None]
    finest = Gaze.from_mask(np.repeat([[False] * 69 + [True] * 196], 2, 0), layout)
    close(encoder(resized, finest).features, encoder(video, finest).features)


@torch.no_grad()
def test_smoothing_is_an_option() -> None:
    gaze, video = samples.everything(GRID, frames=1), samples.video(clips=1, frames=1)
    model = samples.make("SiglipVisionModel")
    plain, smooth = (embeddings(sparsify(model, antialias=flag), video, gaze) for flag in (False, True))
    of_finest = slice(GRID.offsets[-1], None)  # not resized
    assert torch.equal(plain[of_finest], smooth[of_finest])
    coarsest = torch.nn.functional.interpolate(video[0], (8, 8), mode="bicubic", antialias=True)[None]
    first = Gaze(index=np.arange(1), count=np.ones(1, int), layout=FrameLayout.resized(GRID, height_px=8, width_px=8))
    close(smooth[:1], embeddings(sparsify(model), coarsest, first))


def embeddings(encoder: SparseEncoder, video: Tensor, gaze: Gaze) -> Tensor:
    states = encoder(video, gaze, hidden_states=True).hidden_states
    assert states is not None
    return states[0]


# Tiles


def tiled(height_px: int = 100, width_px: int = 150, grid: PatchGrid = GRID) -> FrameLayout:
    return FrameLayout.tiled(grid, height_px=height_px, width_px=width_px)


LAYOUTS = {
    "pixel for pixel": tiled(),
    "one tile larger than the frame": tiled(20, 27),
    "tiles larger than the grid": FrameLayout(
        grid=GRID, height_px=100, width_px=150, tile_height_px=48, tile_width_px=64, tile_rows=3, tile_columns=3
    ),
    "tiles smaller than the grid": FrameLayout(
        grid=GRID, height_px=30, width_px=20, tile_height_px=20, tile_width_px=20, tile_rows=2, tile_columns=1
    ),
}


def batch(layout: FrameLayout, frames: int = 3) -> tuple[Tensor, list[Gaze]]:
    video = noise(2, frames, layout.height_px, layout.width_px)
    return video, [samples.some(layout, frames=frames, seed=seed, share=0.1) for seed in (5, 6)]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("name", POSITIONS)
@torch.no_grad()
def test_separate_tiles_are_the_definition(name: str, layout: FrameLayout) -> None:
    model, (video, gazes) = samples.make(name), batch(layout)
    for attention in ("frame", "block_causal"):
        out = sparsify(model, attention=attention)(video, gazes)
        clips = [define(model, clip, gaze, attention=attention) for clip, gaze in zip(video, gazes, strict=True)]
        close(out.features, torch.cat([clip.features for clip in clips]))
        if out.pooled is not None:
            close(out.pooled, torch.cat([clip.pooled for clip in clips if clip.pooled is not None]))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("name", POSITIONS)
@torch.no_grad()
def test_joint_tiles_have_positions_over_the_whole_frame(name: str, layout: FrameLayout) -> None:
    model, (video, gazes) = samples.make(name), batch(layout)
    for attention in ("frame", "bidirectional"):
        encoder = sparsify(model, tiles="joint", attention=attention)
        out = encoder(video, gazes)
        for clip, gaze in enumerate(gazes):
            close(out.clip(clip), define(model, video[clip], gaze, attention=attention, joint=True).features)


def cut(video: Tensor, layout: FrameLayout) -> Tensor:
    """(B · K, T, 3, S, S) by hand."""
    tiles = torch.cat([tiles_of(clip, layout) for clip in video])
    side_px = layout.grid.scales_px[-1]
    flat = torch.nn.functional.interpolate(tiles.flatten(0, 1), (side_px, side_px), mode="bicubic")
    return flat.unflatten(0, tiles.shape[:2])


@pytest.mark.parametrize("tiles", ["separate", "joint"])
@torch.no_grad()
def test_tiles_cut_by_hand_are_the_same(tiles: str) -> None:
    model, layout = samples.make("DINOv3ViTModel"), tiled()
    video, gazes = batch(layout)
    assert layout.num_tiles == 20 and cut(video, layout).shape == (40, 3, 3, 32, 32)
    encoder = sparsify(model, tiles=tiles, attention="block_causal")
    close(encoder(cut(video, layout), gazes).features, encoder(video, gazes).features)


@torch.no_grad()
def test_a_separate_tile_is_a_clip_of_its_own() -> None:
    layout, attention = tiled(), "block_causal"
    model, (video, gazes) = samples.make("ViTModel"), batch(layout)
    encoder = sparsify(model, attention=attention)
    together: SparseFeatures = encoder(video, gazes)
    alone = encoder(cut(video, layout), [tile(gaze, k) for gaze in gazes for k in range(layout.num_tiles)])
    assert together.pooled is not None and alone.pooled is not None
    close(together.pooled, alone.pooled)
    for clip, gaze in enumerate(gazes):
        of_tile = gaze.index // GRID.num_patches
        for k in range(layout.num_tiles):
            close(together.clip(clip)[torch.from_numpy(of_tile == k)], alone.clip(clip * layout.num_tiles + k))


@torch.no_grad()
def test_chunks_of_tiles_change_nothing() -> None:
    model, layout = samples.make("DINOv3ViTModel"), tiled()
    video, gazes = batch(layout)
    kinds = {"attention": "frame"}, {"attention": "block_causal"}, {"attention": "causal", "tiles": "joint"}
    for kind in kinds:
        together = sparsify(model, **kind)(video, gazes)
        for most in (1, 50):
            close(sparsify(model, max_tokens=most, **kind)(video, gazes).features, together.features)


# Patches that last two frames


def test_merged_frames_hold_what_any_of_them_did() -> None:
    layout = FrameLayout.resized(GRID, height_px=32, width_px=32)
    gaze = Gaze(
        index=np.array([5, 2, 2, 9, 5, 7, 7, 1]),
        count=np.array([2, 3, 0, 1, 2]),
        layout=layout,
        probability=np.arange(8, dtype=np.float32) / 8,
        predicted_loss=np.arange(8, dtype=np.float32),
        time_seconds=np.arange(5) / 10,
    )
    two = merge_frames(gaze, 2)
    assert two.index.tolist() == [5, 2, 9, 7, 7, 1] and two.count.tolist() == [3, 1, 2]
    assert two.predicted_loss is not None and two.predicted_loss.tolist() == [0, 1, 3, 5, 6, 7]
    assert two.probability is not None and (two.probability * 8).tolist() == [0, 1, 3, 5, 6, 7]
    assert two.time_seconds is not None and two.time_seconds.tolist() == [0.0, 0.2, 0.4]
    assert merge_frames(gaze, 1).equals(gaze)
    everything = merge_frames(gaze, 8)
    assert everything.index.tolist() == [5, 2, 9, 7, 1] and everything.count.tolist() == [5]
    assert merge_frames(gaze[:0], 2).num_frames == 0


@torch.no_grad()
def test_patches_of_two_frames_read_both_and_repeat_the_last() -> None:
    model, layout = samples.make("VJEPA2Model"), FrameLayout.resized(GRID, height_px=32, width_px=32)
    encoder, video = sparsify(model, attention="block_causal"), samples.video(clips=1, frames=5)
    gaze = samples.some(layout, frames=5, seed=2)
    odd = encoder(video, gaze)
    assert odd.gazes[0].equals(merge_frames(gaze, 2)) and odd.padded()[1].num_gazing_each_frame.shape == (3,)
    nothing = Gaze(index=np.arange(0), count=np.zeros(1, int), layout=layout)
    even = encoder(torch.cat([video, video[:, -1:]], 1), Gaze.concatenate([gaze, nothing]))
    close(odd.features, even.features)
    # Whichever of its frames asked for a patch, it is the same patch.
    one = Gaze(index=np.array([20]), count=np.array([1, 0]), layout=layout)
    other = Gaze(index=np.array([20]), count=np.array([0, 1]), layout=layout)
    assert torch.equal(encoder(video[:, :2], one).features, encoder(video[:, :2], other).features)
    changed = video[:, :2].clone()
    changed[:, 1] += 1
    assert not torch.allclose(encoder(changed, one).features, encoder(video[:, :2], one).features, atol=1e-3)


@torch.no_grad()
def test_coarse_cells_lie_between_fine_ones() -> None:
    tower = sparsify(samples.make("VJEPA2Model")).tower
    row, column = tower.tables(2, 1, finest=(4, 4))
    assert row.tolist() == [0.5, 2.5] and column.tolist() == [1.5, 1.5]
    assert tower.tables(4, 4, finest=(4, 4))[1].tolist() == [0, 1, 2, 3] * 4
