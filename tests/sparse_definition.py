"""What a sparse encoder must give, by the shortest way: everything is embedded, gathered, and masked densely.

Shape letters: T frames, K tiles, N patches, M tokens, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout


@dataclass(frozen=True)
class Definition:
    """Of one clip."""

    features: Tensor
    """(N, C) in the order of the gaze."""
    hidden_states: tuple[Tensor, ...]
    """(N, C) each."""
    pooled: Tensor | None
    """(sequences, T or 1, C); not a number where nothing was kept."""


SEES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "frame": lambda _q, _k, frame_q, frame_k: frame_k == frame_q,
    "block_causal": lambda _q, _k, frame_q, frame_k: frame_k <= frame_q,
    "causal": lambda q, k, _frame_q, _frame_k: k <= q,
    "bidirectional": lambda _q, _k, _frame_q, frame_k: frame_k >= 0,
}


def dense_mask(frame_M: Tensor, attention: str) -> Tensor:
    """(M, M) 0 where a token (row) sees another (column) of its sequence, else minus infinity."""
    token = torch.arange(len(frame_M))
    seen = SEES[attention](token[:, None], token[None], frame_M[:, None], frame_M[None])
    seen = seen.expand(len(token), len(token))
    return torch.zeros(seen.shape).masked_fill(~seen, -math.inf)


def define(
    model: Any, video: Tensor, gaze: Gaze, *, attention: str, class_tokens: str = "frame", joint: bool = False
) -> Definition:
    """Features of one clip of (T, 3, H, W) frames in the size that was gazed at."""
    lasts = model.config.tubelet_size if _name(model) == "VJEPA2Model" else 1
    frames = [gaze[t].index.tolist() for t in range(len(gaze))]
    if lasts > 1:
        video = torch.cat([video, video[-1:].repeat(-len(video) % lasts, 1, 1, 1)])
        groups = [frames[t : t + lasts] for t in range(0, len(frames), lasts)]
        frames = [list(dict.fromkeys(chain.from_iterable(group))) for group in groups]
    layout, P = gaze.layout, gaze.layout.grid.num_patches
    everything = embedded(model, tiles_of(video, layout), layout, lasts)
    where = positions(model, layout, joint=joint)
    if _name(model) not in ("DINOv3ViTModel", "VJEPA2Model"):
        everything = everything + where
    kept = [(t, index) for t, of_frame in enumerate(frames) for index in of_frame]
    every = range(layout.num_tiles)
    out: dict[int, list[Tensor]] = {}
    pooled = []
    for tiles in [every] if joint else [range(k, k + 1) for k in every]:
        rows = [n for n, (_, index) in enumerate(kept) if index // P in tiles]
        states, pool = _sequence(
            model, everything, where, [kept[n] for n in rows], len(frames), attention, class_tokens
        )
        pooled.append(pool)
        out |= {n: [state[i] for state in states] for i, n in enumerate(rows)}
    per_state = [torch.stack(state) for state in zip(*(out[n] for n in range(len(kept))), strict=True)]
    return Definition(
        features=per_state[-1],
        hidden_states=tuple(per_state[:-1]),
        pooled=None if pooled[0] is None else torch.stack(pooled),
    )


def tiles_of(video: Tensor, layout: FrameLayout) -> Tensor:
    """(K, T, 3, tile height, tile width), zeros where a tile reaches past the frame."""
    tiles = []
    for row in range(layout.tile_rows):
        for column in range(layout.tile_columns):
            top, left = row * layout.tile_height_px, column * layout.tile_width_px
            part = video[:, :, top : top + layout.tile_height_px, left : left + layout.tile_width_px]
            tile = video.new_zeros(len(video), 3, layout.tile_height_px, layout.tile_width_px)
            tile[:, :, : part.shape[2], : part.shape[3]] = part
            tiles.append(tile)
    return torch.stack(tiles)


def embedded(model: Any, tiles: Tensor, layout: FrameLayout, lasts: int) -> Tensor:
    """(T, K · P, C) every patch of every scale of every tile, without positions."""
    p, projection = layout.grid.patch_px, _projection(model)
    weight = projection.weight
    if weight.ndim == 2:  # rows, columns, colours
        weight = weight.view(-1, p, p, 3).permute(0, 3, 1, 2)
    weight = weight if weight.ndim == 5 else weight[:, :, None]
    cells = []
    for tile in tiles:
        for side_px in layout.grid.scales_px:
            scaled = F.interpolate(tile, (side_px, side_px), mode="bicubic", align_corners=False)
            convolved = F.conv3d(scaled.transpose(0, 1), weight, projection.bias, stride=(lasts, p, p))
            cells.append(convolved.flatten(2).permute(1, 2, 0))
    return torch.cat(cells, 1)


def positions(model: Any, layout: FrameLayout, *, joint: bool) -> Tensor:
    """(K · P, …) what every cell's position is: a vector to add, angles, or row and column of the finest grid."""
    rows, columns = (layout.tile_rows, layout.tile_columns) if joint else (1, 1)
    sides = layout.grid.sides
    finest = rows * sides[-1], columns * sides[-1]
    per_scale = [_table(model, rows * side, columns * side, finest=finest) for side in sides]
    cells = []
    for tile in range(layout.num_tiles):
        i, j = divmod(tile, layout.tile_columns) if joint else (0, 0)
        for side, table in zip(sides, per_scale, strict=True):
            cells.append(table[i * side : (i + 1) * side, j * side : (j + 1) * side].flatten(0, 1))
    return torch.cat(cells)


def _table(model: Any, rows: int, columns: int, *, finest: tuple[int, int]) -> Tensor:
    """(rows, columns, …)."""
    name = _name(model)
    row, column = torch.arange(rows) + 0.5, torch.arange(columns) + 0.5
    if name == "VJEPA2Model":
        row, column = row / rows * finest[0] - 0.5, column / columns * finest[1] - 0.5
        return torch.stack(torch.meshgrid(row, column, indexing="ij"), -1)
    if name == "DINOv3ViTModel":
        D = model.config.hidden_size // model.config.num_attention_heads
        speed = model.config.rope_theta ** -(torch.arange(D // 4) / (D // 4))
        share = torch.stack(torch.meshgrid(2 * row / rows - 1, 2 * column / columns - 1, indexing="ij"), -1)
        return (2 * math.pi * share[..., None] * speed).flatten(2).repeat(1, 1, 2)
    embeddings = model.embeddings
    learned = embeddings.position_embedding.weight if hasattr(embeddings, "position_embedding") else None
    learned = embeddings.position_embeddings[0] if learned is None else learned
    learned = learned[len(learned) - math.isqrt(len(learned)) ** 2 :]
    side = math.isqrt(len(learned))
    square = learned.T.view(1, -1, side, side)
    if (rows, columns) != (side, side):
        smooth = name in ("Siglip2VisionModel", "Dinov2WithRegistersModel")
        mode = "bilinear" if name == "Siglip2VisionModel" else "bicubic"
        square = F.interpolate(square, (rows, columns), mode=mode, align_corners=False, antialias=smooth)
    return square[0].permute(1, 2, 0)


def prefix_of(model: Any) -> Tensor:
    """(P, C) class, distillation and register tokens with their positions."""
    name, embeddings, C = _name(model), getattr(model, "embeddings", None), model.config.hidden_size
    if name in ("SiglipVisionModel", "Siglip2VisionModel", "VJEPA2Model"):
        return torch.zeros(0, C)
    if name == "CLIPVisionModel":
        return embeddings.class_embedding[None] + embeddings.position_embedding.weight[:1]
    if name == "DINOv3ViTModel":
        return torch.cat([embeddings.cls_token[0], embeddings.register_tokens[0]])
    if name == "DeiTModel":
        both = torch.cat([embeddings.cls_token[0], embeddings.distillation_token[0]])
        return both + embeddings.position_embeddings[0, :2]
    first = embeddings.cls_token[0] + embeddings.position_embeddings[0, :1]
    return torch.cat([first, embeddings.register_tokens[0]]) if name == "Dinov2WithRegistersModel" else first


def _sequence(
    model: Any,
    everything: Tensor,
    where: Tensor,
    kept: list[tuple[int, int]],
    T: int,
    attention: str,
    class_tokens: str,
) -> tuple[list[Tensor], Tensor | None]:
    """(N, C) hidden states and features of the patches of one sequence, and (T or 1, C) what it makes of the whole."""
    prefix = prefix_of(model)
    tokens, at, frame, starts = [], [], [], {}
    slots = []
    for t in range(T):
        of_frame = [index for when, index in kept if when == t]
        if of_frame and not (starts and class_tokens == "clip"):
            starts[t] = len(frame)
            tokens.append(prefix)
            at.append(where.new_zeros(len(prefix), *where.shape[1:]))
            frame += [t] * len(prefix)
        slots += range(len(frame), len(frame) + len(of_frame))
        tokens.append(everything[t, of_frame])
        at.append(where[of_frame])
        frame += [t] * len(of_frame)
    x, frame_M, where_M = torch.cat(tokens), torch.tensor(frame), torch.cat(at)
    states = [*_layers(model, x, frame_M, where_M, dense_mask(frame_M, attention))]
    last = _leave(model, states[-1])
    if len(prefix):
        pooled = _pooled_tokens(model, last, starts, T)
        pooled = pooled[list(starts) or [0]] if class_tokens == "clip" else pooled
    else:
        pooled = _pooled_patches(model, last[slots], frame_M[slots] if attention == "frame" else None, T)
    return [state[slots] for state in (*states, last)], pooled


def _layers(model: Any, x: Tensor, frame: Tensor, where: Tensor, mask: Tensor) -> list[Tensor]:
    name = _name(model)
    if name == "CLIPVisionModel":
        x = model.pre_layrnorm(x)
    states = [x]
    for layer in _layer_list(model):
        if name == "VJEPA2Model":
            x = _vjepa2_layer(layer, x, (frame, where[:, 0], where[:, 1]), mask)
        else:
            turns = {"position_embeddings": (where.cos(), where.sin())} if name == "DINOv3ViTModel" else {}
            x = layer(x[None], attention_mask=mask[None, None], **turns)[0]
        states.append(x)
    return states


def _vjepa2_layer(layer: Any, x: Tensor, where: tuple[Tensor, ...], mask: Tensor) -> Tensor:
    attention, normed = layer.attention, layer.norm1(x)
    H = attention.num_attention_heads
    parts = attention.query, attention.key, attention.value
    q, k, v = (part(normed).unflatten(1, (H, -1)).transpose(0, 1) for part in parts)
    q, k = _turned(q, where), _turned(k, where)
    seen = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5 + mask).softmax(-1) @ v
    x = x + attention.proj(seen.transpose(0, 1).flatten(1))
    return x + layer.mlp(layer.norm2(x))


def _turned(x_HMD: Tensor, where: tuple[Tensor, ...]) -> Tensor:
    """Time, row and column turn a third of the channels each; angles repeat by halves, pairs are neighbours."""
    width = x_HMD.shape[-1] // 3 // 2 * 2
    parts = []
    for number, at in enumerate(where):
        x = x_HMD[..., number * width : (number + 1) * width]
        speed = 10000.0 ** -(torch.arange(width // 2) / (width // 2))
        angle = (at[:, None] * speed).repeat(1, 2)
        turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
        parts.append(x * angle.cos() + turned * angle.sin())
    return torch.cat([*parts, x_HMD[..., 3 * width :]], -1)


def _leave(model: Any, x: Tensor) -> Tensor:
    name = _name(model)
    if name == "CLIPVisionModel":
        return x
    if name == "VJEPA2Model":
        return model.encoder.layernorm(x)
    norm = next(getattr(model, n) for n in ("post_layernorm", "layernorm", "norm") if hasattr(model, n))
    return norm(x)


def _pooled_patches(model: Any, patches: Tensor, frame: Tensor | None, T: int) -> Tensor | None:
    """(T, C) or, where frames do not matter, (1, C)."""
    if _name(model) == "VJEPA2Model":
        return None
    groups = frame if frame is not None else torch.zeros(len(patches))
    out = torch.full((1 if frame is None else T, model.config.hidden_size), torch.nan)
    for group in {int(number) for number in groups}:
        part = patches[groups == group][None]
        more = (torch.ones(part.shape[:2], dtype=torch.int64),) if _name(model) == "Siglip2VisionModel" else ()
        out[group] = model.head(part, *more)[0]
    return out


def _pooled_tokens(model: Any, last: Tensor, starts: dict[int, int], T: int) -> Tensor:
    """(T, C) of the class token of each frame."""
    out = torch.full((T, model.config.hidden_size), torch.nan)
    for t, start in starts.items():
        token = last[start : start + 1]
        if _name(model) == "CLIPVisionModel":
            token = model.post_layernorm(token)
        elif _name(model) in ("ViTModel", "DeiTModel"):
            token = model.pooler(token[None])
        out[t] = token[0]
    return out


def _projection(model: Any) -> Any:
    name = _name(model)
    if name == "VJEPA2Model":
        return model.encoder.embeddings.patch_embeddings.proj
    if name == "DINOv3ViTModel":
        return model.embeddings.patch_embeddings
    if hasattr(model.embeddings, "patch_embedding"):
        return model.embeddings.patch_embedding
    return model.embeddings.patch_embeddings.projection


def _layer_list(model: Any) -> Any:
    for holder in (model, getattr(model, "model", None), getattr(model, "encoder", None)):
        for name in ("layers", "layer"):
            if hasattr(holder, name):
                return getattr(holder, name)
    raise AssertionError(model)


def _name(model: Any) -> str:
    return type(model).__name__
