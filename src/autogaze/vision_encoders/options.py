"""How kept patches are encoded."""

from __future__ import annotations

from dataclasses import dataclass

from autogaze.vision_encoders.attending import BACKENDS, Backend
from autogaze.vision_encoders.places import CLASS_TOKENS, TILES, ClassTokens, Tiles
from autogaze.vision_encoders.windows import ATTENTIONS, Attention


@dataclass(frozen=True, kw_only=True)
class SparseOptions:
    """How kept patches are encoded.

    Raises:
        ValueError: a choice is not one of those named, or two do not go together.
    """

    attention: Attention = "frame"
    """What patches see of each other, see :data:`~autogaze.vision_encoders.windows.Attention`."""
    tiles: Tiles = "separate"
    """What the tiles of large frames are to each other, see :data:`~autogaze.vision_encoders.places.Tiles`."""
    class_tokens: ClassTokens = "frame"
    """Whether each frame has class and register tokens, or each clip; per clip needs bidirectional attention."""
    backend: Backend | None = None
    """What computes attention; None: what suits the device."""
    max_tokens: int = 65_536
    """Most tokens computed at once, which bounds memory; a clip (a frame, if frames are independent) is never cut."""
    embed_clips: int | None = None
    """Most clips whose patches are cut out and embedded at once, which bounds memory further; None: all of these."""
    antialias: bool = False
    """Whether frames are smoothed when they are made smaller. The published encoder does not."""

    def __post_init__(self) -> None:
        for name, legal in (("attention", ATTENTIONS), ("tiles", TILES), ("class_tokens", CLASS_TOKENS)):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name} must be one of {', '.join(legal)}, got {getattr(self, name)!r}")
        if self.backend is not None and self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)} or None, got {self.backend!r}")
        if self.class_tokens == "clip" and self.attention != "bidirectional":
            raise ValueError(
                f'class_tokens="clip" needs attention="bidirectional", got {self.attention!r}: a token that sees the '
                "whole clip and is seen by all would tell earlier frames of later ones"
            )
        if not _counts(self.max_tokens):
            raise ValueError(f"max_tokens must be a whole number of at least 1, got {self.max_tokens!r}")
        if self.embed_clips is not None and not _counts(self.embed_clips):
            raise ValueError(f"embed_clips must be a whole number of at least 1 or None, got {self.embed_clips!r}")


def _counts(number: object) -> bool:
    return isinstance(number, int) and number >= 1
