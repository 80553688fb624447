"""Frames in, chosen patches out, for a batch of clips: the encoder and the decoding engine together.

Shape letters: B clips, T frames, S side of the frames the encoder reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from autogaze.choosing import FrameGaze, Sampler
from autogaze.engine import DecoderState, Engine
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.models.autogaze.modeling_autogaze import GazeModel


@dataclass(slots=True)
class ClipState:
    """Memory of B clips between frames: last inputs of the convolutions, decoder cache, frames seen."""

    conv: tuple[Tensor, ...] | None
    """What the encoder's blocks need of earlier frames; None before the first."""
    decoder: DecoderState
    """Cache and unfed gazes."""
    frames: int
    """Frames gazed at so far."""

    def snapshot(self) -> ClipState:
        """The state as it is now, for going on from it later; see :meth:`fork`."""
        return ClipState(self.conv, self.decoder.snapshot(), self.frames)

    def fork(self) -> ClipState:
        """An independent copy."""
        return ClipState(self.conv, self.decoder.fork(), self.frames)


class ClipDecoder:
    """Gazes at batches of clips, whole or frame by frame, with equal results."""

    def __init__(self, model: GazeModel, *, engine: Engine) -> None:
        self.model = model
        self.engine = engine

    def start(self, clips: int, *, frames: int, max_gazes: int, memory: ClipState | None = None) -> ClipState:
        """Before the first frame of ``clips`` clips, with room for ``frames`` frames of ``max_gazes`` gazes each.

        ``memory`` is a state that is not needed any more, see :meth:`~autogaze.engine.Engine.start`.
        """
        capacity = frames * (self.model.config.connector_config.num_tokens + max_gazes)
        decoder = self.engine.start(clips, capacity=capacity, memory=None if memory is None else memory.decoder)
        return ClipState(None, decoder, 0)

    @torch.inference_mode()
    def step(
        self,
        state: ClipState,
        video_BTCSS: Tensor,
        *,
        max_gazes_T: Sequence[int],
        threshold: float | None = None,
        sampler: Sampler | None = None,
    ) -> list[list[FrameGaze]]:
        """Gaze at the next frames of every clip; per clip, per frame. ``state`` moves on.

        Args:
            state: from :meth:`start`, or an earlier step of the same clips.
            video_BTCSS: normalised frames on the model's device, in its precision.
            max_gazes_T: most gazes a clip may get in each of these frames, at least 1.
            threshold: predicted loss at which a frame ends; None: it never does.
            sampler: draws gazes; None: the likeliest ones.
        """
        visual_BTPC, state.conv = self.encode(video_BTCSS, state.conv)
        frames = []
        for t, most in enumerate(max_gazes_T):
            frames.append(
                self.engine.decode_frame(
                    state.decoder, visual_BTPC[:, t], max_gazes=most, threshold=threshold, sampler=sampler
                )
            )
            state.frames += 1
        return [list(clip) for clip in zip(*frames, strict=True)]

    def encode(self, video_BTCSS: Tensor, past: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Visual tokens (B, T, P, C), and what the next frames need as ``past``."""
        if video_BTCSS.device.type == "cpu" and len(video_BTCSS) > 1:
            # Clip by clip what lies between two layers stays in the processor's cache.
            pasts = (
                [None] * len(video_BTCSS)
                if past is None
                else list(zip(*(torch.split(p, 1) for p in past), strict=True))
            )
            encoded = [
                self.encode(clip, before) for clip, before in zip(torch.split(video_BTCSS, 1), pasts, strict=True)
            ]
            kept = zip(*(last for _, last in encoded), strict=True)
            return torch.cat([visual for visual, _ in encoded]), tuple(torch.cat(clips) for clips in kept)
        with exact_convolutions(video_BTCSS):
            features, last = self.model.vision_model(video_BTCSS, past)
        visual_BTPC: Tensor = self.model.connector(features)
        return visual_BTPC, last


@contextmanager
def exact_convolutions(like: Tensor) -> Iterator[None]:
    """Convolutions of fp32 tensors in fp32: on NVIDIA devices torch rounds them to TF32 unless told not to."""
    if like.device.type != "cuda" or like.dtype != torch.float32:
        yield
        return
    # Not by ``cudnn.flags``, which fails where somebody has set precisions one by one.
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    usual = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = usual


def as_tensor(array: NDArray[Any] | Tensor) -> Tensor:
    """A tensor of the same values; read-only and reversed arrays are copied, as torch has no such tensors."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"])) if isinstance(array, np.ndarray) else array


def fit(video: Tensor, side_px: int) -> Tensor:
    """Normalised (…, 3, H, W) frames brought to (…, 3, S, S) as the published model does it: bicubic, no antialias."""
    if video.shape[-2:] == (side_px, side_px):
        return video
    frames = video.reshape(-1, *video.shape[-3:]).float()
    resized = F.interpolate(frames, (side_px, side_px), mode="bicubic", align_corners=False)
    return resized.to(video.dtype).view(*video.shape[:-2], side_px, side_px)


def to_gaze(frames: Sequence[FrameGaze], layout: FrameLayout) -> Gaze:
    """The kept gazes of consecutive frames of one clip."""

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(frame, name)[frame.kept_S] for frame in frames])

    return Gaze(
        index=joined("index_S"),
        count=np.array([frame.kept_S.sum() for frame in frames]),
        layout=layout,
        probability=joined("probability_S"),
        predicted_loss=joined("predicted_loss_S"),
    )
