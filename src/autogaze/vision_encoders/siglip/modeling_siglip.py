"""SigLIP's vision tower over the gazed patches of a clip, called as published; the work is that of ``SparseEncoder``.

Shape letters: B clips, T frames, C channels, H × W pixels, P patches of a frame, N slots of a clip, D hidden size, K
kept patches of all clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from autogaze.extras import require
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.packing import PaddedGaze, unpack
from autogaze.vision_encoders.attending import Backend
from autogaze.vision_encoders.encoder import SparseEncoder
from autogaze.vision_encoders.features import SparseFeatures, scatter, undefined
from autogaze.vision_encoders.options import SparseOptions
from autogaze.vision_encoders.siglip.configuration_siglip import SiglipVisionConfig, Sparsity
from autogaze.vision_encoders.towers.siglip import SiglipTower
from autogaze.vision_encoders.windows import Attention

stock = require("transformers.models.siglip.modeling_siglip", extra="hf")
outputs = require("transformers.modeling_outputs", extra="hf")

KEYS = ("gazing_pos", "if_padded_gazing", "num_gazing_each_frame")
"""What is read of ``gazing_info``."""


class SiglipVisionTransformer(nn.Module):
    """The parts of SigLIP's vision tower, under the names that its weights have in every version of transformers."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.embeddings = stock.SiglipVisionEmbeddings(config)
        self.encoder = stock.SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if getattr(config, "vision_use_head", True):
            self.head = stock.SiglipMultiheadAttentionPoolingHead(config)


class SiglipPreTrainedModel(stock.SiglipPreTrainedModel):  # type: ignore[misc, name-defined]
    """Loads, saves and initialises weights as transformers does; every name of an attention can be asked for."""

    config_class = SiglipVisionConfig
    base_model_prefix = "vision_model"
    main_input_name = "pixel_values"
    # Tokens are packed once for all layers, so these stay on one device.
    _no_split_modules: ClassVar[list[str]] = ["SiglipVisionTransformer"]
    # The rest of a whole SigLIP, and the head where the configuration wants none.
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [
        r"^text_model\.",
        r"^logit_scale$",
        r"^logit_bias$",
        r"^vision_model\.head\.",
    ]

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *_: Any, **__: Any) -> str:
        return self.get_correct_attn_implementation(attn_implementation)

    def get_correct_attn_implementation(self, requested_attention: str | None, *_: Any, **__: Any) -> str:
        """The same name; none of them needs a package of its own, since all are computed by torch.

        Raises:
            ValueError: there is no such attention.
        """
        name = requested_attention or "sdpa"
        if name not in ("eager", "sdpa", "flex_attention") and "flash" not in name:
            raise ValueError(
                f"attn_implementation must be eager, sdpa, flex_attention or flash_attention_2, got {name!r}"
            )
        return name


class SiglipVisionModel(SiglipPreTrainedModel):
    """SigLIP's vision tower, which embeds and computes only the patches that were gazed at."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        Sparsity.of(config)  # what is not legal is told before there are weights
        self.vision_model = SiglipVisionTransformer(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The convolution that embeds patches."""
        embedding: nn.Module = self.vision_model.embeddings.patch_embedding
        return embedding

    def forward(
        self,
        pixel_values: Tensor,
        gazing_info: Mapping[str, Any] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool = True,
        return_dict: bool | None = None,
    ) -> Any:
        """Features of the gazed patches.

        Args:
            pixel_values: (B, T, C, H, W) floating point frames, normalised as SigLIP wants them. They are resized to
                every scale, whatever their size.
            gazing_info: what the gaze model returns, or any mapping with :data:`KEYS`: (B, N) int64 positions
                ``frame · P + patch``, (B, N) bool that are true where a slot is padding, and (T,) int64 slots of each
                frame. None: all patches.
            output_attentions: must not be asked for.
            output_hidden_states: whether to return embeddings and the output of every layer; None: as configured.
            interpolate_pos_encoding: whether positions are resized for scales other than the trained size.
            return_dict: whether to return no plain tuple; None: as configured.

        Returns:
            transformers' ``BaseModelOutputWithPooling``: ``last_hidden_state`` (B, N, D) in the order of
            ``gazing_info``, zeros where a slot is padding; ``pooler_output`` (B, D) of each clip's kept patches, not a
            number where there are none, None without a head; ``hidden_states`` like the former, before the last norm.

        Raises:
            KeyError: ``gazing_info`` lacks one of its keys.
            ValueError: frames, gazes and grid do not fit each other, or attention weights are asked for.
        """
        config, sparsity = self.config, Sparsity.of(self.config)
        if config.output_attentions if output_attentions is None else output_attentions:
            raise ValueError("attention weights are not kept; leave output_attentions out")
        states = bool(config.output_hidden_states if output_hidden_states is None else output_hidden_states)
        if not interpolate_pos_encoding:
            self._check_sides(sparsity.grid)
        padded, gazes = self._read(pixel_values, gazing_info, sparsity.grid)
        out = self._encode(pixel_values, gazes, sparsity, hidden_states=states)
        hidden = out.hidden_states
        result = outputs.BaseModelOutputWithPooling(
            last_hidden_state=scatter(out.features, padded),
            pooler_output=self._pooled(out.features, gazes),
            hidden_states=None if hidden is None else tuple(scatter(state, padded) for state in hidden),
        )
        return result if (config.return_dict if return_dict is None else return_dict) else result.to_tuple()

    def _read(
        self, pixel_values: Tensor, info: Mapping[str, Any] | None, grid: PatchGrid
    ) -> tuple[PaddedGaze, list[Gaze]]:
        """The slots, on the model's device, and the gazes in them."""
        if pixel_values.ndim != 5:
            raise ValueError(
                f"pixel_values must be (B, T, C, H, W), got {tuple(pixel_values.shape)}; images are clips of one "
                "frame: pixel_values[:, None]"
            )
        (B, T, _, height_px, width_px), P = pixel_values.shape, grid.num_patches
        if info is None:
            info = {
                "gazing_pos": torch.arange(T * P).expand(B, -1),
                "if_padded_gazing": torch.zeros(B, T * P, dtype=torch.bool),
                "num_gazing_each_frame": torch.full((T,), P),
            }
        missing = [key for key in KEYS if key not in info]
        if missing:
            raise KeyError(f"gazing_info lacks {', '.join(missing)}; it has {', '.join(info) or 'nothing'}")
        clips, frames = len(info["gazing_pos"]), len(info["num_gazing_each_frame"])
        if (clips, frames) != (B, T):
            raise ValueError(
                f"pixel_values are {B} clips of {T} frames, gazing_info is of {clips} clips of {frames} frames"
            )
        padded = PaddedGaze(
            gazing_pos=info["gazing_pos"],
            if_padded_gazing=info["if_padded_gazing"].to(self.device),
            num_gazing_each_frame=info["num_gazing_each_frame"],
            num_vision_tokens_each_frame=P,
        )
        return padded, unpack(padded, FrameLayout.resized(grid, height_px=height_px, width_px=width_px))

    def _check_sides(self, grid: PatchGrid) -> None:
        """Whether every scale has as many patches as there are positions."""
        positions = len(self.vision_model.embeddings.position_embedding.weight)
        wrong = [side for side in grid.sides if side * side != positions]
        if wrong:
            raise ValueError(
                f"interpolate_pos_encoding=False needs scales of {positions} patches each, got one of {wrong[0] ** 2}"
            )

    def _encode(
        self, pixel_values: Tensor, gazes: list[Gaze], sparsity: Sparsity, *, hidden_states: bool
    ) -> SparseFeatures:
        attention: Attention = sparsity.attn_type
        if sparsity.frame_independent and attention == "causal":  # each frame is a clip of its own
            gazes = [gaze[frame : frame + 1] for gaze in gazes for frame in range(gaze.num_frames)]
            pixel_values = pixel_values.flatten(0, 1)[:, None]
        elif sparsity.frame_independent:
            attention = "frame"
        options = SparseOptions(attention=attention, backend=self._backend(), embed_clips=sparsity.most_clips)
        encoder = SparseEncoder(_ClipTower(self.vision_model), options)
        features: SparseFeatures = encoder(pixel_values, gazes, hidden_states=hidden_states)
        return features

    def _backend(self) -> Backend | None:
        """What computes attention; None: what suits the device, which is torch's packed kernel where it can be."""
        name = self.config._attn_implementation
        if name == "eager" or (self.training and self.config.attention_dropout):
            return "sdpa"  # the one that knows dropout
        # Off CUDA torch only interprets flex attention, without gradients.
        interpreted = self.device.type != "cuda"
        return "flex" if name == "flex_attention" and not (interpreted and torch.is_grad_enabled()) else None

    def _pooled(self, features_KD: Tensor, gazes: Sequence[Gaze]) -> Tensor | None:
        """(B, D) what the head makes of each clip."""
        head = getattr(self.vision_model, "head", None)
        if head is None:
            return None
        nothing = undefined((1, features_KD.shape[1]), features_KD)
        clips = torch.split(features_KD, [gaze.num_gazes for gaze in gazes])
        return torch.cat([head(clip[None]) if len(clip) else nothing for clip in clips])


class _ClipTower(SiglipTower):
    """SigLIP without its head, which pools clips here, also where the encoder would pool frames."""

    def pool_patches(self, patches_1NC: Tensor) -> Tensor | None:
        """None."""
        return None
