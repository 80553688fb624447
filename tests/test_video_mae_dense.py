"""The masked autoencoder against its plain definition: one clip at a time, token by token, under dense masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autogaze.packing import pack
from autogaze.tasks.video_mae_reconstruction.incremental import VideoMAESession
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE
from video_mae_samples import clips, random_cells, small_config

# Shape letters: T frames, P cells of a frame, N tokens, C channels, H heads, S side in pixels.

Weights = dict[str, Tensor]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def layer(w: Weights, name: str, x_NC: Tensor, *, visible_NN: Tensor, heads: int, eps: float) -> Tensor:
    N, C = x_NC.shape
    before = norm(w, f"{name}.layernorm_before", x_NC, eps)
    q, k, v = (
        linear(w, f"{name}.attention.attention.{part}", before).view(N, heads, C // heads).transpose(0, 1)
        for part in ("query", "key", "value")
    )
    score = (q @ k.mT / math.sqrt(C // heads)).masked_fill(~visible_NN, -math.inf)
    x_NC = x_NC + linear(w, f"{name}.attention.output.dense", (score.softmax(-1) @ v).transpose(0, 1).reshape(N, C))
    inner = linear(w, f"{name}.intermediate.dense", norm(w, f"{name}.layernorm_after", x_NC, eps))
    return x_NC + linear(w, f"{name}.output.dense", inner * (1 + torch.erf(inner / math.sqrt(2))) / 2)


def visible(frames: list[int], *, causal: bool) -> Tensor:
    """Who sees whom; the class token is in frame −1."""
    frame = torch.tensor(frames)
    return frame <= frame[:, None] if causal else torch.ones(len(frame), len(frame), dtype=torch.bool)


def tables(model: VideoMAE, w: Weights) -> tuple[list[Tensor], list[Tensor]]:
    """Of each scale: (cells, C) entries of the encoder and of the decoder, for place and scale."""
    grid, encoder, decoder = model.grid, [], []
    for number, side in enumerate(grid.sides):
        place = w["vit.embeddings.position_embeddings"][0, 1:].T.unflatten(1, (grid.sides[-1], -1))[None]
        line = w["decoder.decoder_pos_embed"][0, 1:].T[None, :, None]
        if side != grid.sides[-1]:
            place = F.interpolate(place, size=(side, side), mode="bicubic", align_corners=False)
            line = F.interpolate(line, size=(1, side * side), mode="bicubic", align_corners=False)
        encoder.append(place[0].flatten(1).T)
        decoder.append(line[0, :, 0].T)
        if model.config.scale_embed:
            encoder[-1] = encoder[-1] + w["vit.embeddings.scale_embed"][number]
            decoder[-1] = decoder[-1] + w["decoder.decoder_scale_embed"][number]
    return encoder, decoder


def defined(model: VideoMAE, w: Weights, video: Tensor, cells: list[list[int]], asked: list[int]) -> Tensor:
    """(F, 3, S, S) frames rebuilt from a (T, 3, S, S) clip of which these cells of each frame are gazed at."""
    config, grid, times = model.config, model.grid, range(len(video))
    of_encoder, of_decoder = tables(model, w)
    patches = []
    for scale_px, table in zip(grid.scales_px, of_encoder, strict=True):
        scaled = video
        if scale_px != config.image_size:
            scaled = F.interpolate(video, size=(scale_px, scale_px), mode="bicubic", align_corners=False)
        weight, bias = (w[f"vit.embeddings.patch_embeddings.projection.{name}"] for name in ("weight", "bias"))
        patches.append(F.conv2d(scaled, weight, bias, stride=grid.patch_px).flatten(2).mT + table)
    embedded_TPC, place_PC = torch.cat(patches, 1), torch.cat(of_decoder)
    zero = embedded_TPC.new_zeros(1)

    def time(name: str, t: int) -> Tensor:
        return w[name][t] if config.time_embed else zero

    x, frames, seen = [w["vit.embeddings.cls_token"][0, 0] + w["vit.embeddings.position_embeddings"][0, 0]], [-1], {}
    for t in times:
        for cell in cells[t]:
            seen[t, cell] = len(x)
            x.append(embedded_TPC[t, cell] + time("vit.embeddings.time_embed", t))
            frames.append(t)
    x_NC, mask = torch.stack(x), visible(frames, causal=config.causal)
    options: dict[str, Any] = {"eps": config.layer_norm_eps}
    for number in range(config.num_hidden_layers):
        name = f"vit.encoder.layer.{number}"
        x_NC = layer(w, name, x_NC, visible_NN=mask, heads=config.num_attention_heads, **options)
    x_NC = linear(w, "decoder.decoder_embed", norm(w, "vit.layernorm", x_NC, config.layer_norm_eps))

    y, frames, slot = [x_NC[0] + w["decoder.decoder_pos_embed"][0, 0]], [-1], {}
    for t in times:
        for cell in range(grid.num_patches) if t in asked else sorted(cells[t]):
            slot[t, cell] = len(y)
            token = x_NC[seen[t, cell]] if (t, cell) in seen else w["decoder.mask_token"][0, 0]
            y.append(token + place_PC[cell] + time("decoder.time_embed", t))
            frames.append(t)
    y_NC, mask = torch.stack(y), visible(frames, causal=config.causal)
    for number in range(config.decoder_num_hidden_layers):
        name = f"decoder.decoder_layers.{number}"
        y_NC = layer(w, name, y_NC, visible_NN=mask, heads=config.decoder_num_attention_heads, **options)
    y_NC = linear(w, "decoder.decoder_pred", norm(w, "decoder.decoder_norm", y_NC, config.layer_norm_eps))
    rebuilt, p = torch.zeros_like(video[: len(asked)]), grid.patch_px
    for number, t in enumerate(asked):
        for cell in range(grid.sides[-1] ** 2):
            row, column = divmod(cell, grid.sides[-1])
            patch = y_NC[slot[t, int(grid.offsets[-1]) + cell]].view(p, p, 3).permute(2, 0, 1)
            rebuilt[number, :, row * p : (row + 1) * p, column * p : (column + 1) * p] = patch
    return rebuilt


CASES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [3, 1]),
    ({"scales": "16+32+48", "image_size": 48, "layer_norm_eps": 1e-5}, [0, 1, 2, 3]),
    ({"scales": "48+16+64", "image_size": 64, "time_embed": False, "num_attention_heads": 3}, [2]),
    ({"scale_embed": False, "patch_size": 8, "decoder_num_hidden_layers": 1}, [0, 3]),
    ({"scales": "32", "decoder_num_attention_heads": 4, "num_hidden_layers": 3}, [1, 0]),
    ({"causal": False, "scale_embed": False, "time_embed": False}, [2, 0, 1]),
]


@pytest.mark.parametrize(("changes", "asked"), CASES)
def test_it_is_its_definition(changes: dict[str, Any], asked: list[int]) -> None:
    """Sparse clips of different lengths, any frames in any order; gradients too, and frame by frame."""
    model = VideoMAE(small_config(**changes)).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3, generator=generator)
            weight.requires_grad_(True)
    w = {name: weight.detach().clone().requires_grad_() for name, weight in model.state_dict().items()}
    video = clips(2, 4, side_px=model.config.image_size).double()
    gazes = [random_cells(4, seed=seed, grid=model.grid) for seed in (1, 2)]
    cells = [[np.flatnonzero(mask).tolist() for mask in gaze.mask()] for gaze in gazes]

    output = model(video, pack(gazes), asked)
    wanted = torch.stack([defined(model, w, clip, of_clip, asked) for clip, of_clip in zip(video, cells, strict=True)])
    torch.testing.assert_close(output.reconstruction, wanted, rtol=1e-10, atol=1e-10)
    loss = (wanted - video[:, asked]).abs().mean((2, 3, 4))
    torch.testing.assert_close(output.loss_each_reconstruction_frame, loss, rtol=1e-10, atol=1e-10)
    output.loss_mean.sum().backward()
    loss.mean(1).sum().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, w[name].grad, rtol=1e-8, atol=1e-10, msg=name)

    if model.config.causal:
        session = VideoMAESession(model, batch=2)
        for t in range(4):
            now = [of_clip[t] for of_clip in cells]
            if t in asked:
                rebuilt = session.rebuild(video[:, t], now).reconstruction[:, 0]
                torch.testing.assert_close(rebuilt, wanted[:, asked.index(t)], rtol=1e-10, atol=1e-10)
            else:
                session.add_frame(video[:, t], now)
