"""The refiner as a task: the losses of the reconstructor, gradients for the network alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.losses.pixel import l1
from autogaze.packing import pack
from autogaze.reconstructors import rebuild
from autogaze.tasks.base import load_task
from autogaze.tasks.canvas_refinement import CanvasRefinement
from autogaze.tiling import tile_layout
from test_refiner import GRID, moving, network, some_gaze


def batch() -> tuple[list[Frames], list[Gaze], torch.Tensor]:
    videos = [moving(seed=seed) for seed in range(2)]
    gazes = [some_gaze(tile_layout(GRID), frames=6, seed=seed) for seed in range(2)]
    video = torch.from_numpy(np.stack([frames.rgb for frames in videos])).movedim(-1, 2) / 255
    return videos, gazes, video


def test_its_losses_are_those_of_the_reconstructor() -> None:
    videos, gazes, video = batch()
    task = CanvasRefinement(network(), loss=lambda rebuilt, true: l1(rebuilt.clamp(0, 1), true))
    with torch.no_grad():
        result = task({"video_for_task": video}, gazes, [4, 0, 5])
    for b, (frames, gaze) in enumerate(zip(videos, gazes, strict=True)):
        rebuilt = rebuild(frames, gaze=gaze, reconstructor=task.refiner)
        shown = (result.outputs.reconstruction[b].clamp(0, 1) * 255).round().byte().movedim(1, -1).numpy()
        np.testing.assert_array_equal(shown, rebuilt.rgb[[4, 0, 5]])
        # The reconstructor measures the picture in 8 bits.
        np.testing.assert_allclose(-result.reward[b], rebuilt.loss[[4, 0, 5]], atol=0.5 / 255)
    assert result.metrics["refined_loss"] == result.outputs.loss_each_frame.mean()


def test_untrained_its_loss_is_that_of_the_canvas() -> None:
    videos, gazes, video = batch()
    task = CanvasRefinement(network(trained=False))
    loss = task.forward_output({"video_for_task": video}, pack(gazes), range(6)).loss_each_frame.detach()
    for b in range(2):
        np.testing.assert_allclose(loss[b], rebuild(videos[b], gaze=gazes[b]).loss, atol=0.5 / 255)


def test_training_reaches_every_weight_of_the_refiner() -> None:
    _, gazes, video = batch()
    task = CanvasRefinement(network(), recon_sample_rate=0.5)
    result = task({"video_for_task": video}, gazes, generator=torch.Generator().manual_seed(0))
    assert result.outputs.reconstruction.shape == (2, 3, 3, 64, 64)
    result.loss.mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in task.parameters())


def test_it_is_found_by_name_and_reads_what_its_transform_makes(tmp_path: Path) -> None:
    network().save_pretrained(tmp_path)
    task = load_task("canvas_refinement", refiner=tmp_path)
    frames = moving(height_px=50, width_px=90).rgb
    video = torch.as_tensor(np.stack(task.transform(list(frames)).pixel_values)).reshape(1, 6, 3, 64, 64)
    assert video.min() >= 0 and 0.9 < video.max() <= 1
    result = task({"video_for_task": video}, some_gaze(tile_layout(GRID), frames=6))
    assert result.loss.isfinite().all()
    assert task.gaze_model_kwargs == {"target_scales": [32, 64], "target_patch_size": 16}


def test_frames_of_another_size_are_refused() -> None:
    _, gazes, video = batch()
    with pytest.raises(ValueError, match="frames must be 64 × 64 px, got 64 × 32"):
        CanvasRefinement(network()).forward_output({"video_for_task": video[..., :32]}, gazes)
