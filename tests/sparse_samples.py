"""Vision models of every supported family with random weights, and their dense features frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid

# Shape letters: B clips, T frames, N patches of a frame, C channels.

SIDE_PX, PATCH_PX = 32, 8
GRID = PatchGrid(scales_px=(8, 16, 24, 32), patch_px=PATCH_PX)
LAYOUT = FrameLayout.resized(GRID, height_px=SIDE_PX, width_px=SIDE_PX)
T = 5
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
_VIT = _SIZES | {"image_size": SIDE_PX, "patch_size": PATCH_PX}


@dataclass(frozen=True)
class Dense:
    """What a model says of whole frames."""

    features: Tensor
    """(B, T, N, C) after the last norm; for models whose patches last several frames (B, T / frames, N, C)."""
    hidden_states: tuple[Tensor, ...]
    """The same before it: embeddings and every layer."""
    pooled: Tensor | None
    """(B, T, C)."""


def random_weights(model: nn.Module, seed: int = 0) -> Any:
    """The model in evaluation mode with every weight drawn, also those that start at 0 or 1."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=rng)
            around = 1.0 if weight.ndim == 1 and name.endswith("weight") else 0.0
            weight.copy_(around + noise * (0.2 if weight.ndim > 1 else 0.1))
    return model.eval()


def make(name: str, **options: Any) -> Any:
    """A small model of a family, by the name of its class (``Siglip2VisionModel`` is the one for any size)."""
    config_class, settings = FAMILIES[name]
    return random_weights(getattr(transformers, name)(config_class(**settings | options)))


def _all(model: Any, **inputs: Any) -> Any:
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True)


def dense(model: Any, video: Tensor) -> Dense:
    """Features of every patch of (B, T, 3, S, S) frames, frame by frame, by the model's own forward."""
    name = type(model).__name__
    B, T = video.shape[:2]
    if name == "VJEPA2Model":
        out = _all(model, pixel_values_videos=video, skip_predictor=True)
        return Dense(
            *(_by_frame(out.last_hidden_state, (B, T // 2), 0), _frames(out.hidden_states, (B, T // 2), 0)), None
        )
    frames = video.flatten(0, 1)
    if name == "Siglip2VisionModel":
        side = frames.shape[-1] // PATCH_PX
        rows = frames.unfold(2, PATCH_PX, PATCH_PX).unfold(3, PATCH_PX, PATCH_PX)  # (B · T, 3, R, K, p, p)
        flat = rows.permute(0, 2, 3, 4, 5, 1).reshape(len(frames), side * side, -1)
        shape = torch.tensor([[side, side]]).repeat(len(frames), 1)
        everything = torch.ones(len(frames), side * side, dtype=torch.int64)
        out = _all(model, pixel_values=flat, spatial_shapes=shape, pixel_attention_mask=everything)
    elif name == "ViTMAEModel":
        in_order = torch.arange((frames.shape[-1] // PATCH_PX) ** 2, dtype=torch.float32).repeat(len(frames), 1)
        out = _all(model, pixel_values=frames, noise=in_order, interpolate_pos_encoding=True)
    elif name.startswith(("DINO", "Dino")):
        out = _all(model, pixel_values=frames)
    else:
        out = _all(model, pixel_values=frames, interpolate_pos_encoding=True)
    prefix = out.last_hidden_state.shape[1] - (frames.shape[-1] // PATCH_PX) ** 2
    pooled = out.last_hidden_state[:, 0] if name == "ViTMAEModel" else getattr(out, "pooler_output", None)
    return Dense(
        features=_by_frame(out.last_hidden_state, (B, T), prefix),
        hidden_states=_frames(out.hidden_states, (B, T), prefix),
        pooled=None if pooled is None else pooled.view(B, T, -1),
    )


def _by_frame(states: Tensor, shape: tuple[int, int], prefix: int) -> Tensor:
    return states[:, prefix:].reshape(*shape, -1, states.shape[-1])


def _frames(states: tuple[Tensor, ...], shape: tuple[int, int], prefix: int) -> tuple[Tensor, ...]:
    return tuple(_by_frame(state, shape, prefix) for state in states)


def video(clips: int = 2, frames: int = 4, side_px: int = SIDE_PX, seed: int = 1) -> Tensor:
    """(B, T, 3, S, S) float32 noise."""
    return torch.randn(clips, frames, 3, side_px, side_px, generator=torch.Generator().manual_seed(seed))


def everything(grid: PatchGrid, *, frames: int, height_px: int | None = None, width_px: int | None = None) -> Gaze:
    """All patches, in order, of frames stretched under one grid."""
    side_px = grid.scales_px[-1]
    layout = FrameLayout.resized(grid, height_px=height_px or side_px, width_px=width_px or side_px)
    return Gaze.from_mask(np.ones((frames, layout.num_indices), bool), layout)


def some(layout: FrameLayout, *, frames: int, seed: int, share: float = 0.3) -> Gaze:
    """Random patches in random order; some frames have none."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, max(2, int(2 * share * layout.num_indices)), frames)
    counts[rng.integers(frames)] = 0
    index = [rng.permutation(layout.num_indices)[:count] for count in counts]
    return Gaze(index=np.concatenate(index), count=np.array([len(one) for one in index]), layout=layout)


def gazes(clips: int = 2, seed: int = 11) -> list[Gaze]:
    """Of clips of T frames seen at four scales; the first frame of the second has none."""
    return [some(LAYOUT, frames=T, seed=seed + clip) for clip in range(clips)]


def close(own: Tensor | None, expected: Tensor | None, tolerance: float = 3e-5) -> None:
    """Fail unless both are the same numbers, or both are none."""
    torch.testing.assert_close(own, expected, atol=tolerance, rtol=1e-5, equal_nan=True)


class Largest(TorchDispatchMode):
    """Bytes of the largest memory that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else (out,):
            if isinstance(part, Tensor):
                self.most = max(self.most, part.untyped_storage().nbytes())
        return out


FAMILIES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "SiglipVisionModel": (transformers.SiglipVisionConfig, _VIT),
    "Siglip2VisionModel": (transformers.Siglip2VisionConfig, _SIZES | {"num_patches": 16, "patch_size": PATCH_PX}),
    "CLIPVisionModel": (transformers.CLIPVisionConfig, _VIT),
    "Dinov2Model": (transformers.Dinov2Config, _VIT | {"mlp_ratio": 2}),
    "Dinov2WithRegistersModel": (transformers.Dinov2WithRegistersConfig, _VIT | {"num_register_tokens": 3}),
    "DINOv3ViTModel": (transformers.DINOv3ViTConfig, _VIT | {"num_register_tokens": 3}),
    "ViTModel": (transformers.ViTConfig, _VIT),
    "DeiTModel": (transformers.DeiTConfig, _VIT),
    "ViTMAEModel": (transformers.ViTMAEConfig, _VIT | {"mask_ratio": 0.0}),
    "VJEPA2Model": (
        transformers.VJEPA2Config,
        _SIZES
        | {"crop_size": SIDE_PX, "patch_size": PATCH_PX, "frames_per_clip": 4, "mlp_ratio": 2.0, "hidden_size": 48}
        | {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
    ),
}
