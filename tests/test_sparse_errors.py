"""What an encoder refuses, and what it says then: what was got, what is legal, what to do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

import sparse_samples as samples
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.vision_encoders import TOWERS, SparseFeatures, SparseOptions, sparsify

GRID = PatchGrid(scales_px=(16, 32), patch_px=8)
LAYOUT = FrameLayout.resized(GRID, height_px=40, width_px=60)
TILED = FrameLayout.tiled(GRID, height_px=40, width_px=60)
SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def gaze(layout: FrameLayout = LAYOUT, frames: int = 2) -> Gaze:
    return Gaze.from_mask(np.ones((frames, layout.num_indices), bool), layout)


def frames(clips: int = 1, count: int = 2, height_px: int = 40, width_px: int = 60) -> Tensor:
    return torch.zeros(clips, count, 3, height_px, width_px)


def of_patches(patch_px: int) -> Gaze:
    return gaze(FrameLayout.resized(PatchGrid(scales_px=(32,), patch_px=patch_px), height_px=32, width_px=32))


INPUTS: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "other patches": (
        frames(),
        of_patches(16),
        ValueError,
        r"patches of 16 px, the model's patches have 8 px; .*retarget\(gaze, PatchGrid\(scales_px=…, patch_px=8\)\)",
    ),
    "another size": (
        frames(height_px=41),
        gaze(),
        ValueError,
        "must be of 40 × 60 px, .* or of 32 × 32 px frames, got 41 × 60 px; resize",
    ),
    "tiles of another size": (
        frames(height_px=16, width_px=16),
        gaze(TILED),
        ValueError,
        "32 × 32 px tiles, got 16 × 16 px",
    ),
    "half the tiles": (
        frames(clips=3, height_px=32, width_px=32),
        gaze(TILED),
        ValueError,
        "must have 4 for each clip, one after the other, got 3",
    ),
    "bytes": (
        frames().to(torch.uint8),
        gaze(),
        ValueError,
        r"floating point frames, normalised .* got torch\.uint8; for 0…255: \(video / 255 - mean\) / std",
    ),
    "whole numbers": (frames().long(), gaze(), ValueError, r"floating point frames, .* got torch\.int64"),
    "an array": (frames().numpy(), gaze(), TypeError, r"must be a tensor, got ndarray; torch\.from_numpy makes one"),
    "no batch": (frames()[0], gaze(), ValueError, r"must be \(B, T, 3, H, W\), got \(2, 3, 40, 60\)"),
    "colours last": (
        frames().movedim(2, -1),
        gaze(),
        ValueError,
        r"must be \(B, T, 3, H, W\), got \(1, 2, 40, 60, 3\)",
    ),
    "other clips": (
        frames(clips=2),
        gaze(),
        ValueError,
        "a gaze of 2 frames for each of the 2 clips of the video, got 1 gazes of 2 frames",
    ),
    "other frames": (
        frames(),
        gaze(frames=3),
        ValueError,
        "a gaze of 2 frames for each of the 1 clips of the video, got 1 gazes of 3 frames",
    ),
    "other clips of tiles": (
        frames(clips=8, height_px=32, width_px=32),
        gaze(TILED),
        ValueError,
        "each of the 2 clips of the video, got 1 gazes",
    ),
    "mixed layouts": (
        frames(clips=2),
        [gaze(), gaze(TILED)],
        ValueError,
        "must have one layout, got .* in a call of their own",
    ),
    "mixed lengths": (
        frames(clips=2),
        [gaze(), gaze(frames=3)],
        ValueError,
        "must have equally many frames, got 2 and 3; encode .* in a call of their own",
    ),
    "no gazes": (frames(clips=0), [], ValueError, "a gaze for every clip, got none"),
    "no frames": (frames(count=0), gaze(frames=0), ValueError, "at least one frame, got gazes of none"),
    "no gaze": (
        frames(),
        [{"gazing_pos": 1}],
        TypeError,
        r"a Gaze for every clip, got dict; autogaze\.packing\.unpack",
    ),
}


@pytest.mark.parametrize(("video", "gazes", "error", "message"), INPUTS.values(), ids=INPUTS)
def test_inputs_that_do_not_fit(video: Any, gazes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sparsify(samples.make("ViTModel"))(video, gazes)


OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "unknown": (
        {"heads": 3},
        TypeError,
        "no option heads; options are attention, tiles, class_tokens, backend, max_tokens",
    ),
    "attention": (
        {"attention": "full"},
        ValueError,
        "attention must be one of frame, block_causal, causal, bidirectional, got 'full'",
    ),
    "tiles": ({"tiles": "merged"}, ValueError, "tiles must be one of separate, joint, got 'merged'"),
    "class tokens": ({"class_tokens": "none"}, ValueError, "class_tokens must be one of frame, clip, got 'none'"),
    "back end": ({"backend": "eager"}, ValueError, "backend must be one of sdpa, varlen, flex or None, got 'eager'"),
    "one token of a clip": (
        {"class_tokens": "clip", "attention": "causal"},
        ValueError,
        'class_tokens="clip" needs attention="bidirectional", got \'causal\'',
    ),
    "no tokens": ({"max_tokens": 0}, ValueError, "max_tokens must be a whole number of at least 1, got 0"),
    "no clips": ({"embed_clips": 0}, ValueError, "embed_clips must be a whole number of at least 1 or None, got 0"),
    "half tokens": ({"max_tokens": 0.5}, ValueError, r"a whole number of at least 1, got 0\.5"),
}


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_are_not_legal(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sparsify(samples.make("ViTModel"), **options)


def test_options_check_themselves() -> None:
    with pytest.raises(ValueError, match="tiles must be one of separate, joint, got 'merged'"):
        SparseOptions(tiles="merged")  # type: ignore[arg-type]


def test_a_back_end_says_what_it_cannot_when_it_is_used() -> None:
    encoder = sparsify(samples.make("ViTModel"), backend="varlen")
    with pytest.raises(ValueError, match='"varlen" runs on CUDA alone, not on cpu; use "sdpa" or "flex"'):
        encoder(frames(), gaze())


def config(name: str, **more: Any) -> Any:
    return getattr(transformers, name)(**SIZES, **more)


def clip() -> Any:
    vision = SIZES | {"image_size": 32, "patch_size": 8}
    return transformers.CLIPConfig(text_config=SIZES | {"vocab_size": 9}, vision_config=vision)


WRAPPERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "classifier": (
        lambda: transformers.ViTForImageClassification(config("ViTConfig", image_size=32, patch_size=8)),
        r"ViTForImageClassification is not supported; supported are SiglipVisionModel, .*; pass model\.vit of it",
    ),
    "text and images": (
        lambda: transformers.CLIPModel(clip()),
        r"CLIPModel is not supported; .*; pass model\.vision_model of it",
    ),
    "deeper inside": (
        lambda: nn.ModuleDict({"a": nn.Sequential(samples.make("ViTModel"))}),
        r"ModuleDict is not supported; .*; pass model\.a\.0 of it",
    ),
    "a stranger": (
        partial(nn.Linear, 2, 2),
        r"Linear is not supported; supported are .* a Tower of your own: sparsify\(model, tower=…\)",
    ),
}


@pytest.mark.parametrize(("wrapper", "message"), WRAPPERS.values(), ids=WRAPPERS)
def test_models_that_are_not_supported(wrapper: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        sparsify(wrapper())
    assert all(name in str(caught.value) for name in TOWERS)


def test_the_part_that_is_named_works() -> None:
    wrapper = transformers.CLIPModel(clip()).eval()
    assert sparsify(wrapper.vision_model)(frames(), gaze()).features.shape == (2 * GRID.num_patches, 8)


def test_a_name_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"vision model, got 'google/siglip2'; load it first, .* from_pretrained"):
        sparsify("google/siglip2")  # type: ignore[arg-type]


def test_features_fit_their_gazes() -> None:
    with pytest.raises(ValueError, match=r"features must be \(40, C\), one for each gaze, got \(39, 2\)"):
        SparseFeatures(features=torch.zeros(39, 2), gazes=(gaze(),))
    out = SparseFeatures(features=torch.zeros(40, 2), gazes=(gaze(),))
    assert torch.equal(out.clip(-1), out.clip(0))
    with pytest.raises(IndexError, match="clip 1 of 1"):
        out.clip(1)
