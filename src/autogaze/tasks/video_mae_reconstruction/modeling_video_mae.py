"""The network of the video masked autoencoder, from the leaves up; modules are named as published weights are.

Shape letters: B rows, T frames, F frames asked for, P cells of a frame over all scales, N tokens, M tokens of the
decoder, C channels of the encoder or decoder, H heads, D channels of a head, S side of a frame and p of a patch in
pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autogaze.grid import PatchGrid
from autogaze.tasks.video_mae_reconstruction.block_causal import Attend, FrameTokens
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VideoMAEConfig


class Dense(nn.Module):
    """A linear layer under the name ``dense``."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        out: Tensor = self.dense(x)
        return out


class Projections(nn.Module):
    """Queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three (B, N, H, D)."""
        q, k, v = (linear(x_BNC).unflatten(-1, (self.heads, -1)) for linear in (self.query, self.key, self.value))
        return q, k, v


class SelfAttention(nn.Module):
    """Multi-head attention; who sees whom is the caller's choice."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Projections(width, heads)
        self.output = Dense(width, width)

    def forward(self, x_BNC: Tensor, attend: Attend) -> Tensor:
        """(B, N, C)."""
        out: Tensor = self.output(attend(*self.attention(x_BNC)).flatten(-2))
        return out


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, *, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.intermediate = Dense(width, inner)
        self.output = Dense(inner, width)
        self.layernorm_before = nn.LayerNorm(width, eps=eps)
        self.layernorm_after = nn.LayerNorm(width, eps=eps)

    def forward(self, x_BNC: Tensor, attend: Attend) -> Tensor:
        """(B, N, C)."""
        x_BNC = x_BNC + self.attention(self.layernorm_before(x_BNC), attend)
        out: Tensor = x_BNC + self.output(F.gelu(self.intermediate(self.layernorm_after(x_BNC))))
        return out


def blocks(count: int, *, width: int, heads: int, inner: int, eps: float) -> nn.ModuleList:
    """So many equal layers."""
    return nn.ModuleList(Block(width=width, heads=heads, inner=inner, eps=eps) for _ in range(count))


class PatchEmbeddings(nn.Module):
    """Pixels of a patch → token."""

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, kernel_size=patch_px, stride=patch_px)

    def forward(self, patch_BNK: Tensor) -> Tensor:
        """(B, N, C) of the (B, N, 3 · p · p) pixels of each patch: the convolution at those places alone."""
        return F.linear(
            patch_BNK.to(self.projection.weight.dtype), self.projection.weight.flatten(1), self.projection.bias
        )


class Embeddings(nn.Module):
    """Cells of frames → tokens that know where they lie."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.grid, width = config.grid, config.hidden_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = position_table(self.grid, width)
        self.scale_embed, self.time_embed = scale_and_time(config, width)
        self.patch_embeddings = PatchEmbeddings(width, config.patch_size)

    def class_token(self, batch: int) -> Tensor:
        """(B, 1, C)."""
        return (self.cls_token + self.position_embeddings[:, :1]).expand(batch, -1, -1)

    def forward(self, pixel_values_BT3SS: Tensor, tokens: FrameTokens, *, first_frame: int = 0) -> Tensor:
        """(B, N, C) of the cells of ``tokens`` in frames that are number ``first_frame`` and on of their clip."""
        patch_BSK = scale_patches(pixel_values_BT3SS, self.grid).flatten(1, 2)
        place_BN = tokens.frame_N * self.grid.num_patches + tokens.cell_BN
        patch_BNK = patch_BSK.gather(1, place_BN[..., None].expand(-1, -1, patch_BSK.shape[-1]))
        embedded: Tensor = self.patch_embeddings(patch_BNK)
        table_PC = _cells(self.position_embeddings, self.grid, resized_in_2d) + _of_scales(self.scale_embed, self.grid)
        return _placed(embedded, table_PC, self.time_embed, tokens, first_frame)


class Layers(nn.Module):
    """Transformer layers under the name ``layer``."""

    def __init__(self, layer: nn.ModuleList) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x_BNC: Tensor, attend: Sequence[Attend]) -> Tensor:
        """(B, N, C); ``attend`` has the attention of each layer."""
        return _through(self.layer, x_BNC, attend)


class Encoder(nn.Module):
    """Sees the gazed cells alone."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Layers(
            blocks(
                config.num_hidden_layers,
                width=config.hidden_size,
                heads=config.num_attention_heads,
                inner=config.intermediate_size,
                eps=config.layer_norm_eps,
            )
        )
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x_BNC: Tensor, attend: Sequence[Attend]) -> Tensor:
        """(B, N, C) of embedded tokens; ``attend`` has the attention of each layer."""
        out: Tensor = self.layernorm(self.encoder(x_BNC, attend))
        return out


class Decoder(nn.Module):
    """Fills in what was not gazed at."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.grid, width = config.grid, config.decoder_hidden_size
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = position_table(self.grid, width)
        self.decoder_scale_embed, self.time_embed = scale_and_time(config, width)
        self.decoder_embed = nn.Linear(config.hidden_size, width)
        self.decoder_layers = blocks(
            config.decoder_num_hidden_layers,
            width=width,
            heads=config.decoder_num_attention_heads,
            inner=config.decoder_intermediate_size,
            eps=config.layer_norm_eps,
        )
        self.decoder_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.decoder_pred = nn.Linear(width, 3 * config.patch_size**2)

    def class_token(self, encoded_B1C: Tensor) -> Tensor:
        """(B, 1, C) of the encoder's class token."""
        token_B1C: Tensor = self.decoder_embed(encoded_B1C) + self.decoder_pos_embed[:, :1]
        return token_B1C

    def tokens(self, encoded_BNC: Tensor, *, seen: FrameTokens, decoded: FrameTokens, first_frame: int = 0) -> Tensor:
        """(B, M, C) what goes into the layers for the cells of ``decoded``: encoded where they were seen, else a mask.

        ``encoded_BNC`` has the encoder's tokens of the cells of ``seen``, all of which ``decoded`` has too.
        """
        embedded_BNC = self.decoder_embed(encoded_BNC)
        B, _, C = embedded_BNC.shape
        # Unused slots land in one spare place behind the others.
        masked_BMC = self.mask_token.to(embedded_BNC.dtype).expand(B, decoded.num_slots + 1, C)
        target_BNC = seen.slots_in(decoded)[..., None].expand(-1, -1, C)
        filled_BMC = masked_BMC.scatter(1, target_BNC, embedded_BNC)[:, :-1]
        # Coarse scales: along the flattened table, in one dimension, because that is what published weights expect.
        positions_PC = _cells(self.decoder_pos_embed, self.grid, resized_in_1d)
        table_PC = positions_PC + _of_scales(self.decoder_scale_embed, self.grid)
        return _placed(filled_BMC, table_PC, self.time_embed, decoded, first_frame)

    def forward(self, x_BMC: Tensor, attend: Sequence[Attend]) -> Tensor:
        """(B, M, C); ``attend`` has the attention of each layer."""
        return _through(self.decoder_layers, x_BMC, attend)

    def pixels(self, x_BFPC: Tensor) -> Tensor:
        """(B, F, 3, S, S) frames of decoded tokens of all their cells; coarse scales are not shown."""
        finest_BFPC = x_BFPC[:, :, self.grid.offsets[-1] :]
        patch_BFPK: Tensor = self.decoder_pred(self.decoder_norm(finest_BFPC))
        B, frames = patch_BFPK.shape[:2]
        side, p = self.grid.sides[-1], self.grid.patch_px
        cut = patch_BFPK.reshape(B, frames, side, side, p, p, 3).permute(0, 1, 6, 2, 4, 3, 5)
        return cut.reshape(B, frames, 3, side * p, side * p)


# Pixels and tables


def scale_patches(pixel_values_BT3SS: Tensor, grid: PatchGrid) -> Tensor:
    """(B, T, P, 3 · p · p) the pixels of every cell of every scale (bicubic, not antialiased)."""
    B, T = pixel_values_BT3SS.shape[:2]
    flat, p, parts = pixel_values_BT3SS.flatten(0, 1), grid.patch_px, []
    for scale_px in grid.scales_px:
        scaled = flat
        if scale_px != grid.scales_px[-1]:
            scaled = F.interpolate(flat, size=(scale_px, scale_px), mode="bicubic", align_corners=False)
        side = scale_px // p
        cut = scaled.reshape(B, T, 3, side, p, side, p).permute(0, 1, 3, 5, 2, 4, 6)
        parts.append(cut.reshape(B, T, side * side, 3 * p * p))
    return torch.cat(parts, dim=2)


def position_table(grid: PatchGrid, width: int) -> nn.Parameter:
    """(1, 1 + P of the finest scale, C) sines of the place, zeros for the class token; not trained (He et al. 2021).

    The first half of the channels tells the column, the second the row.
    """
    side, quarter = grid.sides[-1], width // 4
    angle = np.arange(side)[:, None] * 10_000.0 ** -(np.arange(quarter) / quarter)
    waves = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
    shape = (side, side, 2 * quarter)
    table = np.concatenate([np.broadcast_to(waves, shape), np.broadcast_to(waves[:, None], shape)], axis=-1)
    with_class = np.concatenate([np.zeros((1, width)), table.reshape(-1, width)])[None].astype(np.float32)
    # By numpy, because a meta device would load torch's compiler for the sines, for seconds.
    return nn.Parameter(torch.from_numpy(with_class).to(torch.get_default_device()), requires_grad=False)


def scale_and_time(config: VideoMAEConfig, width: int) -> tuple[nn.Parameter | None, nn.Parameter | None]:
    """Entries for each scale and each frame, where the configuration has them."""
    scales = nn.Parameter(torch.zeros(config.grid.num_scales, width)) if config.scale_embed else None
    times = nn.Parameter(torch.zeros(config.max_num_frames, width)) if config.time_embed else None
    return scales, times


def init_weights(module: nn.Module, *, std: float, generator: torch.Generator | None = None) -> None:
    """Draw fresh weights; tables of sines stay as they are."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part.bias is not None:
            nn.init.zeros_(part.bias)
    for weight in module.parameters():
        # On the meta device there is nothing to draw, and trying to would load torch's compiler, for seconds.
        if weight.ndim > 1 and weight.requires_grad and not weight.is_meta:
            nn.init.normal_(weight, std=std, generator=generator)


def _cells(table_1SC: Tensor, grid: PatchGrid, resize: Callable[[Tensor, int], Tensor]) -> Tensor:
    """(P, C) position entries of the cells of every scale, of a table of the class token and the finest scale."""
    finest_SC = table_1SC[0, 1:]
    precise_SC = finest_SC.to(torch.promote_types(finest_SC.dtype, torch.float32))
    parts = [finest_SC if side == grid.sides[-1] else resize(precise_SC, side) for side in grid.sides]
    return torch.cat([part.to(table_1SC.dtype) for part in parts])


def resized_in_2d(table_SC: Tensor, side: int) -> Tensor:
    """(side², C) of a table of the cells of a square, bicubic."""
    cells, channels = table_SC.shape
    square = table_SC.T.reshape(1, channels, math.isqrt(cells), -1)
    return F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)[0].flatten(1).T


def resized_in_1d(table_SC: Tensor, side: int) -> Tensor:
    """(side², C) of a table of the cells of a square, bicubic along its cells row by row, as if they were a line."""
    line = table_SC.T[None, :, None]
    return F.interpolate(line, size=(1, side * side), mode="bicubic", align_corners=False)[0, :, 0].T


def _of_scales(table_KC: Tensor | None, grid: PatchGrid) -> Tensor | float:
    """(P, C) the entry of each cell's scale; 0 if there are none."""
    if table_KC is None:
        return 0.0
    return torch.cat([row.expand(count, -1) for row, count in zip(table_KC, grid.patches_per_scale, strict=True)])


def _placed(x_BNC: Tensor, table_PC: Tensor, time_TC: Tensor | None, tokens: FrameTokens, first_frame: int) -> Tensor:
    """Tokens plus the entries of their cells and of their frames."""
    x_BNC = x_BNC + table_PC[tokens.cell_BN]
    return x_BNC if time_TC is None else x_BNC + time_TC[tokens.frame_N + first_frame]


def _through(layers: nn.ModuleList, x: Tensor, attend: Sequence[Attend]) -> Tensor:
    for layer, one in zip(layers, attend, strict=True):
        x = layer(x, one)
    return x
