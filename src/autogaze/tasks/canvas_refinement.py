"""Refining a canvas as a task: how a :class:`~autogaze.reconstructors.refiner.Refiner` judges a selection, and learns.

Shape letters: B clips, T frames, F frames that are judged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autogaze.frames import Frames
from autogaze.grid import PatchGrid
from autogaze.losses.pixel import UNIT, Loss, l1
from autogaze.packing import unpack
from autogaze.reconstructors.provenance import CanvasRecorder, CanvasView
from autogaze.reconstructors.refiner import CanvasTensors, Refiner
from autogaze.selectors.cells import Pixels
from autogaze.tasks.base import Task, TaskOutput
from autogaze.tasks.judged import Selection, TaskBatch
from autogaze.tiling import tile_layout


@dataclass(frozen=True, kw_only=True, eq=False)
class CanvasRefinementOutput(TaskOutput):
    """Losses, and the frames they are of."""

    reconstruction: Tensor
    """(B, F, 3, S, S) refined frames, colours about 0…1, not clamped."""


class CanvasRefinement(Task):
    """What is left to see once a refiner has corrected the canvas.

    The canvas itself is painted without a graph, in whole colours of 8 bits; training reaches the refiner alone.
    """

    loss_name = "refined_loss"

    def __init__(
        self,
        refiner: Refiner | str | os.PathLike[str],
        *,
        recon_sample_rate: float = 1.0,
        loss: Loss = l1,
    ) -> None:
        """A task around a refiner.

        Args:
            refiner: the network, or where its checkpoint is.
            recon_sample_rate: share of the frames that is judged where nobody says which.
            loss: of frames in 0…1; the mean absolute error is the unit of the canvas too.

        Raises:
            CheckpointError: there is no such checkpoint.
        """
        super().__init__()
        self.refiner = refiner if isinstance(refiner, Refiner) else Refiner.from_pretrained(refiner)
        self.recon_sample_rate = recon_sample_rate
        self.frame_loss = loss
        self.transform = UNIT.processor(side_px=self.refiner.config.grid.scales_px[-1])

    @property
    def grid(self) -> PatchGrid:
        """See :attr:`Task.grid`."""
        return self.refiner.config.grid

    def forward_output(
        self,
        inputs: Mapping[str, Any],
        gaze_outputs: Selection,
        frame_idx_to_reconstruct: Tensor | Sequence[int] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> CanvasRefinementOutput:
        """See :class:`~autogaze.tasks.base.Task`; ``inputs["video_for_task"]`` has colours in 0…1.

        Raises:
            ValueError: video, selection and frames do not fit together or the refiner.
        """
        batch = self.batch(inputs, gaze_outputs, frame_idx_to_reconstruct, generator=generator)
        view = self._painted(batch)
        refined = self.refiner(CanvasTensors.of(view, device=self.refiner.device))
        B, F = len(batch.video_BT3HW), len(batch.frame_idx)
        reconstruction = refined.to(batch.video_BT3HW.device).unflatten(0, (B, F))
        target = batch.video_BT3HW[:, batch.frame_idx].to(reconstruction.dtype)
        return CanvasRefinementOutput(
            loss_each_frame=self.frame_loss(reconstruction, target),
            frame_idx=batch.frame_idx,
            gaze=batch.gaze,
            reconstruction=reconstruction,
        )

    def _painted(self, batch: TaskBatch) -> CanvasView:
        """The canvas of the judged frames of every clip, clip after clip."""
        layout = tile_layout(self.refiner.config.grid)
        height_px, width_px = batch.video_BT3HW.shape[-2:]
        if (height_px, width_px) != (layout.height_px, layout.width_px):
            raise ValueError(f"frames must be {layout.height_px} × {layout.width_px} px, got {height_px} × {width_px}")
        rgb = (batch.video_BT3HW.detach().clamp(0, 1) * 255).round().byte().movedim(2, -1)
        clips: list[Pixels] = list(rgb.contiguous().cpu().numpy())
        frames = batch.frame_idx.cpu().numpy()
        gazes = unpack(batch.gaze, layout)
        return CanvasView.stack(
            [
                CanvasRecorder(layout).step(Frames.from_rgb(clip), gaze)[frames]
                for clip, gaze in zip(clips, gazes, strict=True)
            ]
        )
