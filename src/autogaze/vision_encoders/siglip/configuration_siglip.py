"""Configuration of the sparse SigLIP encoder: that of transformers, and which patches there are and what they see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from autogaze.extras import require
from autogaze.grid import PatchGrid

stock = require("transformers.models.siglip.configuration_siglip", extra="hf")

AttentionType: TypeAlias = Literal["block_causal", "causal", "bidirectional"]
"""What patches see of each other, see :data:`autogaze.vision_encoders.windows.Attention`."""
ATTENTION_TYPES: tuple[AttentionType, ...] = get_args(AttentionType)


class SiglipVisionConfig(stock.SiglipVisionConfig):  # type: ignore[misc, name-defined]
    """Configuration of :class:`~autogaze.vision_encoders.siglip.modeling_siglip.SiglipVisionModel`.

    Args:
        scales: sides in pixels at which every frame is seen, joined by plus signs ("32+64+112+224"); a number and a
            sequence of numbers are understood too.
        attn_type: what the patches of a clip see of each other.
        frame_independent_encoding: whether patches see their own frame alone.
        max_embed_batch_size: most clips whose patches are embedded at once, which bounds memory; None: all.
        vision_use_head: whether the model has the head that pools patches.
        options: those of transformers' ``SiglipVisionConfig``.

    Raises:
        ValueError: scales, ``attn_type`` or ``max_embed_batch_size`` are not legal.
    """

    def __init__(
        self,
        *,
        scales: str | int | Sequence[int] = "224",
        attn_type: AttentionType = "block_causal",
        frame_independent_encoding: bool = False,
        max_embed_batch_size: int | None = None,
        vision_use_head: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.scales = scales if isinstance(scales, (str, int)) else "+".join(str(scale) for scale in scales)
        self.attn_type = attn_type
        self.frame_independent_encoding = frame_independent_encoding
        self.max_embed_batch_size = max_embed_batch_size
        self.vision_use_head = vision_use_head
        self.scales = "+".join(str(scale) for scale in Sparsity.of(self).grid.scales_px)


class SiglipConfig(stock.SiglipConfig):  # type: ignore[misc, name-defined]
    """Configuration of both towers of SigLIP, whose ``vision_config`` is a :class:`SiglipVisionConfig`."""

    # Two names of one mapping, for different versions of transformers.
    sub_configs_defaults = {"vision_config": SiglipVisionConfig, "text_config": stock.SiglipTextConfig}  # noqa: RUF012

    def __init__(self, *, vision_config: Any = None, **options: Any) -> None:
        if not isinstance(vision_config, SiglipVisionConfig):
            known = vision_config.to_dict() if hasattr(vision_config, "to_dict") else dict(vision_config or {})
            vision_config = SiglipVisionConfig(**known)
        super().__init__(vision_config=vision_config, **options)


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """What a configuration says of sparse encoding, checked.

    Raises:
        ValueError: something is not legal.
    """

    grid: PatchGrid
    """The patches of a frame."""
    attn_type: AttentionType
    """What the patches of a clip see of each other."""
    frame_independent: bool
    """Whether patches see their own frame alone."""
    most_clips: int | None
    """Most clips whose patches are embedded at once."""

    def __post_init__(self) -> None:
        if self.attn_type not in ATTENTION_TYPES:
            raise ValueError(f"attn_type must be one of {', '.join(ATTENTION_TYPES)}, got {self.attn_type!r}")
        if self.most_clips is not None and self.most_clips < 1:
            raise ValueError(f"max_embed_batch_size must be at least 1 or None, got {self.most_clips}")

    @classmethod
    def of(cls, config: Any) -> Sparsity:
        """Of ours, or of transformers' own, which says nothing of scales and so means those of its images.

        Raises:
            ValueError: the configuration is not that of a sparse encoder.
        """
        scales = getattr(config, "scales", config.image_size)
        patch_px = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
        try:
            scales_px = tuple(sorted(int(part) for part in str(scales).split("+")))
        except ValueError:
            raise ValueError(f'scales must be sides in pixels like "32+64+112+224", got {scales!r}') from None
        return cls(
            grid=PatchGrid(scales_px=scales_px, patch_px=patch_px),
            attn_type=getattr(config, "attn_type", ATTENTION_TYPES[0]),
            frame_independent=getattr(config, "frame_independent_encoding", False),
            most_clips=getattr(config, "max_embed_batch_size", None),
        )
