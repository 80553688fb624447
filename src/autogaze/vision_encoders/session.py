"""Streaming: the next frames of a clip in, their features out; earlier frames are remembered, not computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.vision_encoders.encoding import EncoderPass
from autogaze.vision_encoders.features import SparseFeatures, merge_frames
from autogaze.vision_encoders.pixels import PixelSource
from autogaze.vision_encoders.places import Places, Sequences
from autogaze.vision_encoders.stream_keys import Past

if TYPE_CHECKING:
    from autogaze.vision_encoders.encoder import SparseEncoder

# Shape letters: T frames of a step, H × W pixels.


class SparseSession:
    """One clip on its way through a :class:`SparseEncoder`; made by :meth:`SparseEncoder.open`.

    The features of a step are those that encoding the whole clip at once gives these frames. Keys and values of all
    layers are kept for every patch so far; start a new session to forget them. For inference: no gradients.
    """

    def __init__(self, encoder: SparseEncoder, layout: FrameLayout) -> None:
        """Before the first frame of a clip of this layout.

        Raises:
            ValueError: frames of the encoder's attention see later ones, or one set of class tokens sees them all.
        """
        options = encoder.options
        if options.attention == "bidirectional":
            raise ValueError(
                'attention="bidirectional" sees later frames and cannot be streamed; use "block_causal", "causal" or '
                '"frame"'
            )
        self.layout = layout
        self.frames = 0
        """Frames so far."""
        self._encoder = encoder
        self._tiles = layout.num_tiles if options.tiles == "separate" else 1
        layers = len(encoder.tower.layers)
        self._pasts = [Past.empty(layers) for _ in range(self._tiles)] if options.attention != "frame" else None

    @property
    def tokens(self) -> int:
        """Tokens remembered, class and register tokens included."""
        return sum(past.tokens for past in self._pasts or ())

    @torch.no_grad()
    def step(self, frames: Tensor, gaze: Gaze, *, hidden_states: bool = False) -> SparseFeatures:
        """Features of the next frames.

        Args:
            frames: (T, 3, H, W), see :meth:`SparseEncoder.forward`; as many as one patch lasts, or a multiple.
            gaze: of these frames, in the session's layout.
            hidden_states: whether to return embeddings and the output of every layer too.

        Raises:
            ValueError: frames and gaze do not fit each other, the layout or the model.
        """
        encoder, last = self._encoder, self._encoder.tower.frames_per_patch
        encoder.check((gaze,))
        if gaze.layout != self.layout:
            raise ValueError(f"the session is of {self.layout}, the gaze of {gaze.layout}")
        if frames.ndim != 4 or len(frames) != gaze.num_frames or len(frames) % last:
            raise ValueError(
                f"frames must be (T, 3, H, W) with T = {gaze.num_frames} as in the gaze"
                f"{f', a multiple of {last}' if last > 1 else ''}, got {tuple(frames.shape)}"
            )
        source = PixelSource(video=frames[None], layout=self.layout, antialias=encoder.options.antialias)
        merged = gaze if last == 1 else merge_frames(gaze, last)
        places = Places.of((merged,))
        sequences = Sequences.of(places, clips=1, frames=len(merged), tiles=self._tiles)
        work = EncoderPass(
            encoder.tower,
            encoder.options,
            source,
            places,
            hidden_states=hidden_states,
            pasts=self._pasts,
            past_frames=self.frames // last,
        )
        shape = sequences.count_ST.shape
        work.encode(sequences if self._pasts is not None else sequences.frame_by_frame())
        self.frames += len(frames)
        return work.result((merged,), shape)
