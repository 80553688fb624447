"""How far rebuilt frames are from the true ones, judged by what a frozen vision model sees in them.

Shape letters: B clips, F frames of each, H × W pixels.
"""

from __future__ import annotations

import os
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from autogaze.losses.frozen import FrozenVisionModel
from autogaze.losses.pixel import PUBLISHED, PixelSpace, check_frames
from autogaze.models.autogaze.checkpoint import HubOptions


class FeatureLoss(nn.Module):
    """Mean squared difference of the last hidden states of a frozen model: ``(B, F, 3, H, W)`` twice in, (B, F) out.

    The hidden states of the last ``layers`` blocks are compared patch by patch and averaged over patches and
    channels, in the model's own unit: losses under two models cannot be compared. Gradients reach the prediction
    alone; the target is looked at without a graph.
    """

    default_image_px: ClassVar[str | None] = None
    """Entry of the model's configuration that says to which side frames are resized; None: they keep their size."""

    def __init__(
        self, model: FrozenVisionModel, *, space: PixelSpace = PUBLISHED, layers: int = 4, frame_batch: int = 64
    ) -> None:
        """See the class.

        Args:
            model: that looks at the frames.
            space: of the frames.
            layers: how many hidden states are compared.
            frame_batch: frames the model sees at once. More are taken in turns, and then their graph is not kept but
                computed again for the gradient, so that memory stays that of one batch.

        Raises:
            ValueError: ``layers`` or ``frame_batch`` is not in its range.
        """
        super().__init__()
        if not 1 <= layers <= model.num_hidden_layers + 1:
            raise ValueError(f"layers must be 1..{model.num_hidden_layers + 1} with this model, got {layers}")
        if frame_batch < 1:
            raise ValueError(f"frame_batch must be at least 1, got {frame_batch}")
        self.model, self.space, self.layers, self.frame_batch = model, space, layers, frame_batch

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        space: PixelSpace = PUBLISHED,
        image_px: int | None = None,
        layers: int = 4,
        frame_batch: int = 64,
        attn_implementation: str = "sdpa",
        hub: HubOptions | None = None,
    ) -> Self:
        """The loss under the model of a folder or hub id; see the classes for the arguments.

        Raises:
            CheckpointError: see :meth:`FrozenVisionModel.from_pretrained`.
            ImportError: transformers is not installed.
            ValueError: ``layers`` or ``frame_batch`` is not in its range.
        """
        model = FrozenVisionModel.from_pretrained(
            source, image_px=image_px, attn_implementation=attn_implementation, hub=hub
        )
        if image_px is None and cls.default_image_px is not None:
            model.image_px = getattr(model.model.config, cls.default_image_px, None)
        return cls(model, space=space, layers=layers, frame_batch=frame_batch)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(B, F) loss of each frame.

        Raises:
            ValueError: the two are not (B, F, 3, H, W) of one shape.
        """
        check_frames(prediction, target)
        frames_of_turns = (torch.split(frames.flatten(0, 1), self.frame_batch) for frames in (prediction, target))
        turns = list(zip(*frames_of_turns, strict=True))
        again = len(turns) > 1 and prediction.requires_grad and torch.is_grad_enabled()
        losses = []
        for predicted, true in turns:
            with torch.no_grad():
                wanted = self._features(true)
            if again:
                losses.append(checkpoint(self._distance, predicted, wanted, use_reentrant=False))
            else:
                losses.append(self._distance(predicted, wanted))
        return torch.cat(losses).view(prediction.shape[:2])

    def _distance(self, frames: Tensor, wanted: Tensor) -> Tensor:
        return (self._features(frames).float() - wanted.float()).square().mean(dim=(-2, -1))

    def _features(self, frames: Tensor) -> Tensor:
        return self.model.hidden_states(frames, layers=self.layers, space=self.space)


class DINOv2RegLoss(FeatureLoss):
    """:class:`FeatureLoss` under DINOv2 with registers (or without); class and register tokens play no part.

    Frames keep their size, to the next whole number of patches, as in the published loss: 224 px are 16 × 16 patches
    although the model was trained at 518 px.
    """


class SigLIP2Loss(FeatureLoss):
    """:class:`FeatureLoss` under the vision tower of SigLIP 2 or SigLIP.

    Frames are resized to the size the checkpoint was made for; those of any size ("naflex") take them as they are.
    """

    default_image_px = "image_size"
