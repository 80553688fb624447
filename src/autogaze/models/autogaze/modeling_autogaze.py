"""The gaze network, to be read from top to bottom: encoder, connector, decoder, heads.

Shape letters: B clips, T frames, P visual tokens of a frame, L tokens of a sequence, C channels,
H query heads, G key/value heads, D channels of a head, K gazes one pass proposes, V vocabulary.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autogaze.attention import any_length
from autogaze.models.autogaze.configuration_autogaze import (
    ConnectorConfig,
    GazeDecoderConfig,
    GazeModelConfig,
    RopeScaling,
    VisionModelConfig,
)
from autogaze.models.autogaze.scoring import Policy, Slots, log_probability


class CausalConvBlock(nn.Module):
    """A 3-D convolution that sees its own and earlier frames, then ReLU."""

    def __init__(self, config: VisionModelConfig) -> None:
        super().__init__()
        space, self.time = config.trunk_spatial_kernel_size, config.trunk_temporal_kernel_size
        self.conv3d = nn.Conv3d(
            config.hidden_dim,
            config.hidden_dim,
            (self.time, space, space),
            padding=(0, space // 2, space // 2),
        )

    def forward(self, x_BCThw: Tensor, past_BCThw: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs of the given frames, and the last inputs, which the next call needs as ``past_BCThw``."""
        if past_BCThw is None:
            B, C, _, h, w = x_BCThw.shape
            past_BCThw = x_BCThw.new_zeros(B, C, self.time - 1, h, w)
        seen = torch.cat([past_BCThw, x_BCThw], dim=2)
        return F.relu(self._convolve(seen)), seen[:, :, seen.shape[2] - (self.time - 1) :]

    def _convolve(self, seen_BCThw: Tensor) -> Tensor:
        if seen_BCThw.shape[2] > self.time:
            convolved: Tensor = self.conv3d(seen_BCThw)
            return convolved
        # One frame is a sum over channels and times alike: an image of C · T channels, for which processors are faster.
        weight, padding = self.conv3d.weight.flatten(1, 2), self.conv3d.padding[1:]
        return F.conv2d(seen_BCThw.flatten(1, 2), weight, self.conv3d.bias, padding=padding)[:, :, None]


class VisionModel(nn.Module):
    """Patch convolution, norm, causal blocks, projection: one vector for every 16 × 16 pixels."""

    def __init__(self, config: VisionModelConfig) -> None:
        super().__init__()
        self.temporal_conv = nn.Conv3d(
            3,
            config.hidden_dim,
            (1, config.kernel_size, config.kernel_size),
            (1, config.kernel_size, config.kernel_size),
        )
        self.norm = nn.LayerNorm(config.hidden_dim, eps=1e-5)
        self.blocks = nn.ModuleList(CausalConvBlock(config) for _ in range(config.depth))
        self.out_proj = nn.Conv3d(config.hidden_dim, config.out_dim, 1)

    def forward(self, video_BTCHW: Tensor, past: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Features (B, C, T, h, w) of normalised frames, and what the frames after them need as ``past``."""
        x = self.temporal_conv(video_BTCHW.transpose(1, 2))
        x = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        kept = []
        for number, block in enumerate(self.blocks):
            x, last = block(x, None if past is None else past[number])
            kept.append(last)
        return self.out_proj(x), tuple(kept)


class Connector(nn.Module):
    """Adds a learned position to every visual token of a frame."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(config.num_tokens, config.hidden_dim))

    def forward(self, features_BCThw: Tensor) -> Tensor:
        """Visual tokens (B, T, P, C)."""
        return features_BCThw.flatten(3).permute(0, 2, 3, 1) + self.pos_embed


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in fp32 (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Same shape and dtype as ``x``."""
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype) * self.weight


def rotary_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> Tensor:
    """(D / 2,) fp32 radians per position (Su et al. 2021), with Llama-3 scaling if asked for."""
    frequency = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if scaling is None:
        return frequency
    wavelength = 2 * math.pi / frequency
    stretched = frequency / scaling.factor
    share = (scaling.original_max_position_embeddings / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    between = (1 - share) * stretched + share * frequency
    long = wavelength > scaling.original_max_position_embeddings / scaling.low_freq_factor
    short = wavelength < scaling.original_max_position_embeddings / scaling.high_freq_factor
    return torch.where(long, stretched, torch.where(short, frequency, between))


def rotate(x_LHD: Tensor, cos_L1D: Tensor, sin_L1D: Tensor) -> Tensor:
    """Rotate channel pairs (d, d + D/2) of every head by the angle of its position."""
    first, second = x_LHD.chunk(2, dim=-1)
    return x_LHD * cos_L1D + torch.cat([-second, first], dim=-1) * sin_L1D


class Attention(nn.Module):
    """The projections of grouped-query attention; who may see whom is the caller's affair."""

    def __init__(self, config: GazeDecoderConfig) -> None:
        super().__init__()
        assert config.head_dim is not None
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.num_attention_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.num_key_value_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.num_key_value_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * self.head_dim, config.hidden_size, bias=False)

    def forward(self, x_BLC: Tensor, cos_BL1D: Tensor, sin_BL1D: Tensor, visible_B1LL: Tensor | None) -> Tensor:
        """Attention among the given tokens, (B, L, C); without ``visible`` each sees itself and those before."""
        heads = (*x_BLC.shape[:2], -1, self.head_dim)
        q = rotate(self.q_proj(x_BLC).view(heads), cos_BL1D, sin_BL1D).transpose(1, 2)
        k = rotate(self.k_proj(x_BLC).view(heads), cos_BL1D, sin_BL1D).transpose(1, 2)
        v = self.v_proj(x_BLC).view(heads).transpose(1, 2)
        out = F.scaled_dot_product_attention(
            q, k, v, visible_B1LL, is_causal=visible_B1LL is None, enable_gqa=q.shape[1] != k.shape[1]
        )
        projected: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return projected


class MLP(nn.Module):
    """SwiGLU feed-forward layer (Shazeer 2020)."""

    def __init__(self, config: GazeDecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as ``x``."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class DecoderLayer(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: GazeDecoderConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x_BLC: Tensor, cos_BL1D: Tensor, sin_BL1D: Tensor, visible_B1LL: Tensor | None) -> Tensor:
        """Same shape as ``x_BLC``."""
        x_BLC = x_BLC + self.self_attn(self.input_layernorm(x_BLC), cos_BL1D, sin_BL1D, visible_B1LL)
        out: Tensor = x_BLC + self.mlp(self.post_attention_layernorm(x_BLC))
        return out


class DecoderModel(nn.Module):
    """Gaze embedding, blocks and final norm."""

    def __init__(self, config: GazeDecoderConfig) -> None:
        super().__init__()
        assert config.head_dim is not None
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._rope = (config.head_dim, config.rope_theta, config.rope_scaling)

    @property
    def blocks(self) -> list[DecoderLayer]:
        """The layers, typed."""
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def rotary(self, position_BL: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine (B, L, 1, D) of the angle of every position."""
        # Computed here and not kept in a buffer: half-precision models would round the frequencies.
        frequency = rotary_frequencies(*self._rope).to(position_BL.device)
        angle = position_BL.float()[..., None, None] * frequency
        angle = torch.cat([angle, angle], dim=-1)
        return angle.cos().to(dtype), angle.sin().to(dtype)

    def forward(self, x_BLC: Tensor, position_BL: Tensor, visible_BLL: Tensor | None = None) -> Tensor:
        """Normed output (B, L, C) of token embeddings.

        ``visible`` is true where a row may see a column; without it a row sees itself and those before.
        """
        cos, sin = self.rotary(position_BL, x_BLC.dtype)
        visible_B1LL = None if visible_BLL is None else visible_BLL[:, None]
        with any_length():
            for layer in self.layers:
                x_BLC = layer(x_BLC, cos, sin, visible_B1LL)
        out: Tensor = self.norm(x_BLC)
        return out


class GazeDecoder(nn.Module):
    """The decoder with its two heads."""

    def __init__(self, config: GazeDecoderConfig) -> None:
        super().__init__()
        self.group_size = config.num_multi_token_pred
        self.vocab_size = config.vocab_size
        self.model = DecoderModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.num_multi_token_pred * config.vocab_size, bias=False)
        self.task_loss_prediction_head = nn.Linear(config.hidden_size, config.num_multi_token_pred, bias=False)

    def read_out(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (…, K, V) of the next K gazes and the K losses (…, K) predicted before each, computed in fp32.

        Rounded to half precision, the best two of 266 logits are often equal.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            logits = F.linear(hidden.float(), self.lm_head.weight.float())
            return logits.view(*hidden.shape[:-1], self.group_size, self.vocab_size), self.predicted_losses(hidden)

    def predicted_losses(self, hidden: Tensor) -> Tensor:
        """The K losses (…, K) predicted before each of the next K gazes, computed in fp32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), self.task_loss_prediction_head.weight.float())


class TeacherForcing(NamedTuple):
    """What the model says about given gazes. N slots of all frames."""

    log_probability_BN: Tensor
    """Log of the probability of each target: under the policy asked for or, without one, among all V entries at
    temperature 1, nothing masked."""
    predicted_loss_BN: Tensor
    """Predicted reconstruction loss of the frame after each gaze."""


class GazeModel(nn.Module):
    """Encoder, connector and decoder."""

    def __init__(self, config: GazeModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionModel(config.vision_model_config)
        self.connector = Connector(config.connector_config)
        self.gaze_decoder = GazeDecoder(config.gaze_decoder_config)
        self.init_weights()

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Fresh weights: normal with the configured deviation, zero biases, unit norms."""
        std = self.config.gaze_decoder_config.initializer_range
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std, generator=generator)
            elif isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.connector.pos_embed, std=std, generator=generator)

    def forward(
        self,
        video_BTCHW: Tensor,
        index_BN: Tensor,
        kept_BN: Tensor,
        count_T: Tensor | list[int],
        *,
        target_BN: Tensor | None = None,
        known_BN: Tensor | None = None,
        policy: Policy | None = None,
    ) -> TeacherForcing:
        """Score given gazes in one parallel pass (teacher forcing), differentiably.

        Args:
            video_BTCHW: normalised frames of the side the encoder reads; or fewer clips than there are rows of gazes:
                then the clips are those of rows 0, 1, …, and again of the rows that follow, as in a group of
                several gazes of each clip.
            index_BN: int64 patch index of each gaze inside its own frame; frame by frame. These are read.
            kept_BN: bool, false where a slot is padding; what stands there changes nothing.
            count_T: slots of each frame; they sum to N.
            target_BN: int64 patch index that is scored in place of each gaze, by the same head; None: the gaze.
            known_BN: bool, false where there is no target, whatever stands there; None: where there is no gaze. Targets
                may also be known where a slot is padding, past a frame's last gaze in its last group.
            policy: the distribution that targets are scored under: at each head, the end token, the gazes of the
                frame's earlier groups and the targets of the group's earlier heads cannot be chosen. None: as
                published, all entries can be, at temperature 1, although nobody draws from that distribution.

        Returns:
            What it says at each slot. A target that the policy could not choose has a log-probability of
            :data:`~autogaze.models.autogaze.scoring.IMPOSSIBLE`, about.

        Raises:
            ValueError: the rows of gazes are not a multiple of the clips.
        """
        features_BCThw, _ = self.vision_model(video_BTCHW)
        visual_BTPC = self.connector(features_BCThw)
        if len(index_BN) != len(visual_BTPC):
            if len(index_BN) % len(visual_BTPC):
                raise ValueError(f"{len(index_BN)} rows of gazes are not a multiple of {len(visual_BTPC)} clips")
            visual_BTPC = visual_BTPC.repeat(len(index_BN) // len(visual_BTPC), 1, 1, 1)
        return self.score(
            visual_BTPC, index_BN, kept_BN, count_T, target_BN=target_BN, known_BN=known_BN, policy=policy
        )

    def score(
        self,
        visual_BTPC: Tensor,
        index_BN: Tensor,
        kept_BN: Tensor,
        count_T: Tensor | list[int],
        *,
        target_BN: Tensor | None = None,
        known_BN: Tensor | None = None,
        policy: Policy | None = None,
    ) -> TeacherForcing:
        """The decoder's half of :meth:`forward`, given visual tokens."""
        counts = [int(count) for count in count_T]
        decoder = self.gaze_decoder
        V = decoder.vocab_size
        # Padding may hold anything, an end token included; what is read there is thrown away.
        index_BN = index_BN.clamp(0, V - 1)
        target_BN = index_BN if target_BN is None else target_BN.clamp(0, V - 1)
        known_BN = kept_BN if known_BN is None else known_BN
        hidden_BLC = self._read_sequence(visual_BTPC, index_BN, kept_BN, counts)
        P = visual_BTPC.shape[2]
        slots = Slots.of(counts, visual_tokens=P, group_size=decoder.group_size, device=visual_BTPC.device)
        logits_BSKV, loss_BSK = decoder.read_out(hidden_BLC[:, slots.before_S])
        taken_BSKV = None
        if policy is not None:
            taken_BSKV = slots.taken(index_BN, kept_BN, target_BN=target_BN, known_BN=known_BN, vocab_size=V)
        chosen_BSK = log_probability(
            logits_BSKV,
            slots.by_head(target_BN),
            taken_BSKV=taken_BSKV,
            temperature=1.0 if policy is None else policy.temperature,
        )
        # The loss after gaze r of a group is what head r + 1 said before the group; after the last gaze of a
        # full group it is what head 0 says once that gaze has been read.
        own_loss_BN = decoder.predicted_losses(hidden_BLC[:, slots.own_N])[..., 0]
        next_loss_BN = slots.by_slot(loss_BSK.roll(-1, dims=2))
        after_BN = torch.where(slots.rank_N < decoder.group_size - 1, next_loss_BN, own_loss_BN)
        return TeacherForcing(slots.by_slot(chosen_BSK), after_BN)

    def stop_features(
        self, visual_BTPC: Tensor, index_BN: Tensor, kept_BN: Tensor, count_T: Tensor | list[int]
    ) -> tuple[Tensor, Tensor]:
        """What the stop head reads of given gazes; the arguments are those of :meth:`score`.

        Returns:
            (B, N, C) features, and (N,) the row of the stop head's weight whose product with them is the loss predicted
            after each gaze.
        """
        counts, K = [int(count) for count in count_T], self.gaze_decoder.group_size
        hidden_BLC = self._read_sequence(
            visual_BTPC, index_BN.clamp(0, self.gaze_decoder.vocab_size - 1), kept_BN, counts
        )
        slots = Slots.of(counts, visual_tokens=visual_BTPC.shape[2], group_size=K, device=visual_BTPC.device)
        is_last_N1 = (slots.rank_N == K - 1)[:, None]
        before_BNC = hidden_BLC[:, slots.before_S][:, slots.group_N]
        return torch.where(is_last_N1, hidden_BLC[:, slots.own_N], before_BNC), (slots.rank_N + 1) % K

    def _read_sequence(self, visual_BTPC: Tensor, index_BN: Tensor, kept_BN: Tensor, counts: list[int]) -> Tensor:
        """Decoder output (B, L, C) of the visual tokens of each frame followed by its gazes."""
        B, _, P, _ = visual_BTPC.shape
        embedded = self.gaze_decoder.model.embed_tokens(index_BN)
        tokens, kept = [], []
        for t, (gazes, keep) in enumerate(
            zip(torch.split(embedded, counts, 1), torch.split(kept_BN, counts, 1), strict=True)
        ):
            tokens += [visual_BTPC[:, t], gazes]
            kept += [keep.new_ones(B, P), keep]
        return self._hidden(torch.cat(tokens, 1), torch.cat(kept, 1))

    def _hidden(self, x_BLC: Tensor, kept_BL: Tensor) -> Tensor:
        """Decoder output (B, L, C) at every kept token; anything finite at the others."""
        # Padding moves behind everything kept, where causality hides it: plain causal attention is then exact, needs
        # no mask of L × L, and the positions are simply 0, 1, 2, …
        longest = int(kept_BL.sum(1).max())
        order_BM = kept_BL.byte().argsort(dim=1, descending=True, stable=True)[:, :longest]
        packed_BMC = x_BLC.gather(1, order_BM[..., None].expand(-1, -1, x_BLC.shape[2]))
        hidden_BMC: Tensor = self.gaze_decoder.model(packed_BMC, torch.arange(longest, device=x_BLC.device)[None])
        place_BL = (kept_BL.cumsum(1) - 1).clamp(min=0)
        return hidden_BMC.gather(1, place_BL[..., None].expand(-1, -1, x_BLC.shape[2]))
