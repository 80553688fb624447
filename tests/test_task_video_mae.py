"""Rebuilding as a task: what it says of a selection, how it learns, and how published callers meet it."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from autogaze.errors import CheckpointError
from autogaze.gaze import Gaze
from autogaze.losses import HALF, IMAGENET, PUBLISHED, UNIT, PixelSpace, l1, make_loss
from autogaze.models.autogaze.processing_autogaze import AutoGazeImageProcessor
from autogaze.packing import pack
from autogaze.tasks.base import load_task
from autogaze.tasks.video_mae_reconstruction import VideoMAE, VideoMAEReconstruction
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import large
from autogaze.utils import UnNormalize
from small_video_mae import CONFIG, LAYOUT, SIDE_PX, random_gazes, small_video_mae, smooth_video
from small_vision import save_dinov2, save_siglip

KEYS = Path(__file__).parents[2] / "shared" / "golden" / "videomae_official_keys.tsv"


def small_task(**options: Any) -> VideoMAEReconstruction:
    return VideoMAEReconstruction(small_video_mae(), **options)


def inputs(video: Tensor | None = None) -> dict[str, Tensor]:
    return {"video_for_task": smooth_video() if video is None else video}


# What it says


def test_outputs_are_what_the_autoencoder_rebuilds() -> None:
    task, gazes = small_task(), random_gazes()
    result = task(inputs(), gazes, [3, 1])
    rebuilt = task.mae(smooth_video(), gazes, [3, 1])
    torch.testing.assert_close(result.outputs.reconstruction, rebuilt.reconstruction)
    torch.testing.assert_close(result.outputs.loss_each_frame, rebuilt.loss_each_reconstruction_frame)
    torch.testing.assert_close(result.outputs.loss_each_frame, l1(rebuilt.reconstruction, smooth_video()[:, [3, 1]]))
    torch.testing.assert_close(result.loss, rebuilt.loss_mean)
    torch.testing.assert_close(result.reward, -rebuilt.loss_each_reconstruction_frame.detach())


def test_results_have_their_published_names_and_shapes() -> None:
    task, gazes = small_task(), random_gazes()
    outputs = task(inputs(), gazes, [3, 1])["outputs"]
    N = pack(gazes).gazing_pos.shape[1]
    shapes = {
        "reconstruction": (2, 2, 3, SIDE_PX, SIDE_PX),
        "reconstruction_loss": (2,),
        "reconstruction_loss_each_reconstruction_frame": (2, 2),
        "reconstruction_loss_each_gazing_token": (2, N),
        "reconstruction_loss_each_gazing_token_mask": (2, N),
        "num_gazing_before_each_reconstruction_frame": (2,),
        "num_non_padded_gazing_at_each_reconstruction_frame": (2, 2),
        "frame_idx_to_reconstruct": (2,),
    }
    for name, shape in shapes.items():
        assert tuple(outputs[name].shape) == shape, name
    assert outputs["frame_idx_to_reconstruct"].tolist() == [3, 1]
    slots = pack(gazes).num_gazing_each_frame
    before = [int(slots[:4].sum()), int(slots[:2].sum())]
    assert outputs["num_gazing_before_each_reconstruction_frame"].tolist() == before
    kept = [[int(gaze.count[3]), int(gaze.count[1])] for gaze in gazes]
    assert outputs["num_non_padded_gazing_at_each_reconstruction_frame"].tolist() == kept
    assert (outputs["image_mean"], outputs["scales"]) == (IMAGENET.mean, (16, 32))
    assert outputs["reconstruction_loss_each_gazing_token_mask"].sum() == sum(
        count > 0 for row in kept for count in row
    )


def test_targets_are_the_losses_of_frames_at_their_last_gaze() -> None:
    task, gazes = small_task(), random_gazes()
    result = task(inputs(), gazes, [1, 4])
    slots, loss = pack(gazes).num_gazing_each_frame, result.outputs.loss_each_frame
    assert result.task_losses.dtype == loss.dtype
    for b, gaze in enumerate(gazes):
        for i, t in enumerate((1, 4)):
            last = int(slots[:t].sum()) + int(gaze.count[t]) - 1
            if gaze.count[t]:
                assert result.task_losses_mask[b, last]
                assert result.task_losses[b, last] == loss[b, i]
    assert result.task_losses_mask.sum() == sum(int(gaze.count[t] > 0) for gaze in gazes for t in (1, 4))


def test_every_kind_of_selection_gives_the_same() -> None:
    task, gazes = small_task(), random_gazes()
    expected = task(inputs(), gazes)
    for selection in (pack(gazes), pack(gazes).to_dict(CONFIG.grid)):
        torch.testing.assert_close(task(inputs(), selection).loss, expected.loss)
    one = task(inputs(smooth_video()[:1]), gazes[0])
    torch.testing.assert_close(one.loss, expected.loss[:1])


def test_frames_in_another_order_are_the_same_frames() -> None:
    task, gazes = small_task(), random_gazes()
    forth, back = (task(inputs(), gazes, frames) for frames in ([1, 2, 4], [4, 1, 2]))
    torch.testing.assert_close(back.outputs.loss_each_frame, forth.outputs.loss_each_frame[:, [2, 0, 1]])
    assert torch.equal(back.task_losses_mask, forth.task_losses_mask)
    torch.testing.assert_close(back.task_losses, forth.task_losses)
    assert back.traj_len_each_reward.tolist() == forth.traj_len_each_reward[[2, 0, 1]].tolist()


def test_padding_changes_nothing() -> None:
    task, gazes = small_task(), random_gazes()
    alone = [task(inputs(smooth_video()[b : b + 1]), gaze) for b, gaze in enumerate(gazes)]
    together = task(inputs(), gazes)
    torch.testing.assert_close(together.loss, torch.cat([one.loss for one in alone]))
    for b, one in enumerate(alone):
        real = ~pack(gazes).if_padded_gazing[b]
        torch.testing.assert_close(together.task_losses[b, real], one.task_losses[0])


def test_later_frames_change_no_earlier_loss() -> None:
    task, gazes = small_task(), random_gazes()
    before = task(inputs(), gazes, [0, 2])
    changed = smooth_video()
    changed[:, 3:] = torch.randn(2, 2, 3, SIDE_PX, SIDE_PX)
    after = task(inputs(changed), gazes, [0, 2])
    torch.testing.assert_close(after.reward, before.reward)


def test_metrics_are_the_published_ones() -> None:
    task, gazes = small_task(), random_gazes()
    result = task(inputs(), gazes)
    kept = sum(len(gaze.index) for gaze in gazes)
    assert set(result.metrics) == {"reconstruction_loss", "avg_gazing_ratio_per_frame"}
    assert result.metrics["avg_gazing_ratio_per_frame"].item() == pytest.approx(kept / (2 * 5 * 20))
    torch.testing.assert_close(result.metrics["reconstruction_loss"], result.loss.mean())


def test_a_share_of_the_frames_is_judged() -> None:
    task = small_task(recon_sample_rate=0.4)
    result = task(inputs(), random_gazes(), generator=torch.Generator().manual_seed(0))
    assert result.reward.shape == (2, 2)
    with pytest.raises(ValueError, match="recon_sample_rate must be above 0 and at most 1, got 0"):
        small_task(recon_sample_rate=0)


def test_a_video_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pixel_values must be \(B, T, 3, 32, 32\), got"):
        small_task()(inputs(torch.zeros(2, 5, 3, 24, 32)), random_gazes())


def test_half_precision_is_the_callers() -> None:
    task, gazes = small_task(), random_gazes()
    expected = task(inputs(), gazes).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(task(inputs(), gazes).loss, expected, rtol=0.02, atol=0.02)
    doubled = task.double()(inputs(smooth_video().double()), gazes)
    assert doubled.loss.dtype == torch.float64
    torch.testing.assert_close(doubled.loss.float(), expected)


# Training the autoencoder


def test_every_weight_that_is_trained_gets_a_gradient() -> None:
    task = small_task().train()
    everything = Gaze(
        index=np.tile(np.arange(0, 20, 2), 8), count=np.full(8, 10), layout=LAYOUT
    )  # of both scales, and all frames there are entries for
    result = task(inputs(smooth_video(1, 8)), everything)
    task.loss(result.outputs).mean().backward()
    for name, weight in task.mae.named_parameters():
        if not weight.requires_grad:
            assert "position" in name or "pos_embed" in name
        elif name.endswith("key.bias"):  # adding one number to all scores of a query changes no attention
            assert weight.grad is not None
        else:
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 1e-8, name


def test_training_lowers_the_loss() -> None:
    task, gazes = small_task(), random_gazes()
    optimizer = torch.optim.Adam((weight for weight in task.parameters() if weight.requires_grad), lr=5e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = task(inputs(), gazes).loss.mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# The loss


def test_a_loss_of_ones_own_judges_and_moves_along(tmp_path: Path) -> None:
    loss = make_loss("l1+ssim+siglip2", "1+0.5+0.3", models={"siglip2": save_siglip(tmp_path)})
    task = small_task(loss=loss)
    outputs = task(inputs(), random_gazes()).outputs
    torch.testing.assert_close(outputs.loss_each_frame, loss(outputs.reconstruction, smooth_video()))
    assert set(task.state_dict()) == set(small_task().state_dict())
    assert {name for name, _ in task.named_parameters()} == {name for name, _ in small_task().named_parameters()}
    task.double()
    assert loss.modules_of_terms[0].model.model.dtype == torch.float64
    copied = copy.deepcopy(task)
    assert copied.mae.loss is copied.frame_loss
    result = copied(inputs(smooth_video().double()), random_gazes())
    torch.testing.assert_close(result.loss.float(), outputs.loss, rtol=1e-4, atol=1e-4)


def test_a_loss_trains_through_its_vision_model(tmp_path: Path) -> None:
    task = small_task(loss=make_loss("siglip2", models={"siglip2": save_siglip(tmp_path)}))
    task(inputs(), random_gazes()).loss.mean().backward()
    assert task.mae.decoder.decoder_pred.weight.grad.abs().sum() > 0


# Names of weights


@pytest.mark.skipif(not KEYS.is_file(), reason="the published list of weights is not here")
def test_weights_are_those_of_the_published_checkpoint(tmp_path: Path) -> None:
    loss = make_loss("l1+siglip2", "1+0.3", models={"siglip2": save_siglip(tmp_path)})
    with torch.device("meta"):
        mae = VideoMAE(large())
    task = VideoMAEReconstruction(mae, loss=loss)
    expected = dict(line.split("\t") for line in KEYS.read_text().splitlines() if line.startswith("mae."))
    assert {name: str(list(weight.shape)) for name, weight in task.state_dict().items()} == expected


def test_published_weights_load_with_the_vision_models_they_carry() -> None:
    source, task = VideoMAEReconstruction(small_video_mae(seed=1)), small_task()
    weights = source.state_dict()
    weights["mae.dinov2_reg.embeddings.cls_token"] = torch.zeros(1)
    weights["mae.siglip2.vision_model.head.probe"] = torch.zeros(1)
    task.load_state_dict(weights, strict=True)
    assert "mae.siglip2.vision_model.head.probe" in weights
    torch.testing.assert_close(task(inputs(), random_gazes()).loss, source(inputs(), random_gazes()).loss)
    with pytest.raises(RuntimeError, match=r"mae\.dinov3"):
        task.load_state_dict({**weights, "mae.dinov3.weight": torch.zeros(1)})


# Pixels


def test_the_transform_makes_what_the_task_sees() -> None:
    task = small_task()
    rgb = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    video = task.transform(list(rgb), return_tensors="pt").pixel_values
    assert video.shape == (1, 5, 3, SIDE_PX, SIDE_PX)
    outputs = task({"video_for_task": video}, random_gazes(1)).outputs
    colours = UnNormalize(outputs.image_mean, outputs.image_std, outputs.rescale_factor)(video)
    torch.testing.assert_close(colours, PUBLISHED.to_unit(video), atol=1e-5, rtol=0)
    assert 0 <= colours.min() < colours.max() <= 1


def test_gaze_models_are_called_for_this_grid() -> None:
    assert small_task().gaze_model_kwargs == {"target_scales": [16, 32], "target_patch_size": 8}


# From checkpoints


def test_a_checkpoint_folder_is_a_task(tmp_path: Path) -> None:
    task = small_task()
    task.mae.save_pretrained(tmp_path)
    loaded = VideoMAEReconstruction.from_pretrained(tmp_path, recon_sample_rate=0.5)
    assert loaded.recon_sample_rate == 0.5
    assert not loaded.training
    torch.testing.assert_close(loaded(inputs(), random_gazes(), [1]).loss, task(inputs(), random_gazes(), [1]).loss)
    by_name = load_task("video_mae_reconstruction", recon_model=loaded.mae)
    assert isinstance(by_name, VideoMAEReconstruction)
    with pytest.raises(CheckpointError, match="nowhere"):
        VideoMAEReconstruction.from_pretrained("nowhere")


def test_the_loss_of_a_checkpoint_needs_its_models_or_another_loss(tmp_path: Path) -> None:
    import dataclasses

    config = dataclasses.replace(CONFIG, loss_type="l1+siglip2", loss_weights="1+0.3")
    VideoMAE(config).save_pretrained(tmp_path / "mae")
    with pytest.raises(ValueError, match="siglip2 looks through a vision model: give its folder or hub id"):
        VideoMAEReconstruction.from_pretrained(tmp_path / "mae")
    assert VideoMAEReconstruction.from_pretrained(tmp_path / "mae", loss=l1).frame_loss is l1
    models = {"siglip2": save_siglip(tmp_path / "siglip")}
    task = VideoMAEReconstruction.from_pretrained(tmp_path / "mae", models=models)
    assert task.frame_loss.unit == "l1 + 0.3·siglip2"


def save_vit_mae(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=SIDE_PX,
        patch_size=8,
        decoder_hidden_size=24,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=40,
    )
    transformers.ViTMAEForPreTraining(config).save_pretrained(folder)
    return folder


def test_the_published_call_makes_the_published_task(tmp_path: Path) -> None:
    models = {"dinov2_reg": save_dinov2(tmp_path / "d"), "siglip2": save_siglip(tmp_path / "s")}
    config = {
        "scale_embed": True,
        "max_num_frames": 6,
        "time_embed": True,
        "causal": True,
        "loss_type": "l1+dinov2_reg+siglip2",
        "loss_weights": "1+0.3+0.3",
        "l1_loss_config": {},
        "dinov2_reg_loss_config": {"model": str(models["dinov2_reg"])},
        "siglip2_loss_config": {"model": str(models["siglip2"])},
    }
    task = VideoMAEReconstruction(
        recon_model=str(save_vit_mae(tmp_path / "mae")),
        recon_model_config=config,
        scales="16+32",
        recon_sample_rate=0.125,
        attn_mode="sdpa",
    )
    assert task.scales == [16, 32]
    assert task.mae.config.max_num_frames == 6
    assert (task.mae.config.loss_type, task.mae.config.loss_weights) == ("l1+dinov2_reg+siglip2", "1+0.3+0.3")
    assert set(task.state_dict()) == set(small_task().state_dict())
    outputs = task(inputs(), pack(random_gazes()).to_dict(CONFIG.grid))["outputs"]
    assert outputs["reconstruction"].shape == (2, 1, 3, SIDE_PX, SIDE_PX)  # an eighth of 5 frames is one
    expected = make_loss("l1+dinov2_reg+siglip2", "1+0.3+0.3", models=models)
    target = smooth_video()[:, outputs["frame_idx_to_reconstruct"]]
    torch.testing.assert_close(
        outputs["reconstruction_loss_each_reconstruction_frame"], expected(outputs["reconstruction"], target)
    )


def test_the_published_call_takes_another_size_and_a_lone_weight(tmp_path: Path) -> None:
    source = save_vit_mae(tmp_path)
    task = VideoMAEReconstruction(source, {"loss_type": "l1", "loss_weights": 2}, "24+48", 1.0, "sdpa")
    assert task.transform.size == {"height": 48, "width": 48}
    assert task.mae.grid.sides == (3, 6)
    assert task.frame_loss.unit == "2·l1"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"revision": "main"}, "cannot have revision; legal are scale_embed, max_num_frames"),
        ({"loss_type": "l1+siglip2", "loss_weights": "1+1"}, "siglip2 looks through a vision model"),
        (
            {"loss_type": "siglip2", "siglip2_loss_config": {"model": "x", "revision": "y"}},
            "siglip2_loss_config may name a model alone, got revision too",
        ),
        ({"loss_type": "l2"}, "'l2' is no loss"),
    ],
)
def test_published_settings_that_mean_nothing_are_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoMAEReconstruction(save_vit_mae(tmp_path), config, "16+32", 1.0, "sdpa")


def test_an_autoencoder_has_its_configuration() -> None:
    with pytest.raises(ValueError, match="are for making a VideoMAE, and this one is made"):
        VideoMAEReconstruction(small_video_mae(), {"causal": True})


def test_another_transform_is_another_space_of_the_published_loss(tmp_path: Path) -> None:
    transform = AutoGazeImageProcessor(size=(SIDE_PX, SIDE_PX), rescale_factor=1 / 255, offset=False)
    assert PixelSpace.of_processor(transform) == IMAGENET
    models = {"siglip2": save_siglip(tmp_path / "s")}
    config = {"loss_type": "siglip2", "siglip2_loss_config": {"model": models["siglip2"]}}
    task = VideoMAEReconstruction(save_vit_mae(tmp_path / "m"), config, "16+32", transform=transform)
    outputs = task(inputs(), random_gazes()).outputs
    expected = make_loss("siglip2", models=models, space=PixelSpace.of_processor(transform))
    torch.testing.assert_close(outputs.loss_each_frame, expected(outputs.reconstruction, smooth_video()))


def test_the_transform_is_that_of_the_autoencoder(tmp_path: Path) -> None:
    mae = small_video_mae()
    assert PixelSpace.of_processor(VideoMAEReconstruction(mae).transform) == PUBLISHED
    mae.space = IMAGENET
    assert PixelSpace.of_processor(VideoMAEReconstruction(mae).transform) == IMAGENET
    transform = HALF.processor(side_px=SIDE_PX)
    task = VideoMAEReconstruction(mae, transform=transform)
    assert task.transform is transform and mae.space == HALF
    mae.save_pretrained(tmp_path)
    assert PixelSpace.of_processor(VideoMAEReconstruction.from_pretrained(tmp_path).transform) == HALF
    assert VideoMAEReconstruction.from_pretrained(tmp_path, transform=UNIT.processor(side_px=SIDE_PX)).mae.space == UNIT
    assert VideoMAEReconstruction.from_pretrained(tmp_path, space=UNIT).mae.space == UNIT


def test_an_image_autoencoder_has_the_space_of_images_until_it_is_published(tmp_path: Path) -> None:
    folder = save_vit_mae(tmp_path)
    assert VideoMAE.from_pretrained(folder).space == IMAGENET
    HALF.processor(side_px=SIDE_PX).save_pretrained(folder)
    assert VideoMAE.from_pretrained(folder).space == HALF
    assert VideoMAEReconstruction(folder, {}, "16+32").mae.space == PUBLISHED
    # From an autoencoder of its own it is kept.
    assert VideoMAEReconstruction(VideoMAE.from_pretrained(folder)).mae.space == HALF


# Importing


def test_importing_the_package_is_cheap_and_brings_what_is_asked_for() -> None:
    code = """
import sys, autogaze.tasks.video_mae_reconstruction as package
assert "torch" not in sys.modules and "transformers" not in sys.modules
from autogaze.tasks.video_mae_reconstruction import VideoMAE, VideoMAEConfig, VideoMAEOutput, VideoMAEReconstruction
from autogaze.tasks.video_mae_reconstruction.task import VideoMAEReconstruction as same
assert same is VideoMAEReconstruction and "transformers" not in sys.modules
try:
    package.Nothing
except AttributeError as error:
    print(error)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "module 'autogaze.tasks.video_mae_reconstruction' has no attribute 'Nothing'"
