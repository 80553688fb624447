"""Feature reconstruction: one file, the same task as any, judged by a frozen vision model."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from autogaze.gaze import Gaze
from autogaze.losses import HALF, IMAGENET, PUBLISHED, FrozenVisionModel, PixelSpace
from autogaze.packing import pack
from autogaze.tasks.base import load_task, task_names
from autogaze.tasks.judged import task_batch
from autogaze.tasks.siglip_video_feature_reconstruction import SigLIPVideoFeatureReconstruction
from autogaze.tasks.video_mae_reconstruction import VideoMAEConfig
from small_video_mae import CONFIG, LAYOUT, SIDE_PX, random_gazes, small_video_mae, smooth_video
from small_vision import save_any_size_siglip, save_dinov2, save_siglip, save_whole_siglip


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_siglip(tmp_path_factory.mktemp("siglip"))


def small_task(siglip: Path, **options: Any) -> SigLIPVideoFeatureReconstruction:
    torch.manual_seed(0)
    return SigLIPVideoFeatureReconstruction(small_video_mae(), siglip, **options)


def inputs(video: Tensor | None = None) -> dict[str, Tensor]:
    return {"video_for_task": smooth_video() if video is None else video}


def finest_gazed(gazes: list[Gaze]) -> np.ndarray:
    """(B, T, 16) bool."""
    return np.stack([gaze.mask()[:, 4:] for gaze in gazes])


def test_targets_are_what_the_vision_model_says_of_whole_frames(siglip: Path) -> None:
    outputs = small_task(siglip, normalise_features=False)(inputs(), random_gazes(), [3, 1]).outputs
    model = transformers.SiglipVisionModel.from_pretrained(siglip).eval()
    frames = HALF.from_unit(PUBLISHED.to_unit(smooth_video()[:, [3, 1]])).flatten(0, 1)
    with torch.no_grad():
        expected = model(frames).last_hidden_state
    torch.testing.assert_close(outputs.target.flatten(0, 1), expected, atol=1e-5, rtol=1e-4)
    assert outputs.prediction.shape == outputs.target.shape == (2, 2, 16, 32)
    assert not small_task(siglip).features(smooth_video().requires_grad_()).requires_grad
    normalised = small_task(siglip)(inputs(), random_gazes(), [3, 1]).outputs.target
    assert normalised.mean(-1).abs().max() < 1e-5
    torch.testing.assert_close(normalised.var(-1, unbiased=False), torch.ones(2, 2, 16), atol=1e-3, rtol=0)


def test_pixels_are_those_of_the_network(siglip: Path) -> None:
    network = small_video_mae()
    network.space = IMAGENET
    task = SigLIPVideoFeatureReconstruction(network, siglip)
    assert PixelSpace.of_processor(task.transform) == IMAGENET
    video = PUBLISHED.convert(smooth_video(), to=IMAGENET)
    torch.testing.assert_close(task.features(video), small_task(siglip).features(smooth_video()), atol=1e-4, rtol=1e-4)
    assert small_task(siglip, transform=HALF.processor(side_px=SIDE_PX)).network.space == HALF


@pytest.mark.parametrize("distance", ["mse", "cosine"])
@pytest.mark.parametrize("places", ["ungazed", "all"])
def test_losses_are_their_definition(siglip: Path, distance: str, places: str) -> None:
    gazes = random_gazes()
    outputs = small_task(siglip, distance=distance, places=places)(inputs(), gazes).outputs
    p, t = (values.detach().double().numpy() for values in (outputs.prediction, outputs.target))
    if distance == "mse":
        away = ((p - t) ** 2).mean(-1)
    else:
        away = 1 - (p * t).sum(-1) / np.linalg.norm(p, axis=-1) / np.linalg.norm(t, axis=-1)
    judged = np.ones_like(away, bool) if places == "all" else ~finest_gazed(gazes)
    assert (outputs.judged_places.numpy() == judged).all()
    expected = np.where(judged, away, 0).sum(-1) / judged.sum(-1)
    np.testing.assert_allclose(outputs.loss_each_frame.detach().numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_a_prediction_that_is_right_has_no_loss(siglip: Path, distance: str) -> None:
    class Oracle(SigLIPVideoFeatureReconstruction):
        def predict(self, batch):
            return self.features(batch.video_BT3HW[:, batch.frame_idx])

    task = Oracle(small_video_mae(), siglip, distance=distance)
    torch.testing.assert_close(task(inputs(), random_gazes()).loss, torch.zeros(2), atol=1e-6, rtol=0)


def test_a_frame_without_ungazed_places_has_no_loss(siglip: Path) -> None:
    finest = Gaze(index=np.tile(np.arange(4, 20), 2), count=np.array([16, 16]), layout=LAYOUT)
    result = small_task(siglip)(inputs(smooth_video(1, 2)), finest)
    assert result.loss.tolist() == [0]
    result.loss.sum().backward()
    coarse = Gaze(index=np.tile(np.arange(4), 2), count=np.array([4, 4]), layout=LAYOUT)
    assert small_task(siglip)(inputs(smooth_video(1, 2)), coarse).outputs.judged_places.all()


def test_rewards_targets_and_metrics_are_those_of_every_task(siglip: Path) -> None:
    gazes = random_gazes()
    task = small_task(siglip)
    result = task(inputs(), pack(gazes).to_dict(CONFIG.grid), [1, 4])
    torch.testing.assert_close(result.reward, -result.outputs.loss_each_frame.detach())
    assert (result.reward < 0).all()
    torch.testing.assert_close(result.loss, result.outputs.loss_each_frame.mean(1))
    slots = pack(gazes).num_gazing_each_frame
    assert result.traj_len_each_reward.tolist() == [int(slots[:2].sum()), int(slots.sum())]
    assert result.task_losses_mask.sum() == sum(int(gaze.count[t] > 0) for gaze in gazes for t in (1, 4))
    assert set(result.metrics) == {"feature_loss", "avg_gazing_ratio_per_frame"}
    assert task.gaze_model_kwargs == {"target_scales": [16, 32], "target_patch_size": 8}


def test_what_was_not_gazed_at_reaches_no_prediction(siglip: Path) -> None:
    """Nor do later frames."""
    gazes = [Gaze(index=np.array([4, 5, 4, 5, 4, 5]), count=np.array([2, 2, 2]), layout=LAYOUT)]
    task, video = small_task(siglip), smooth_video(1, 3)
    before = task(inputs(video), gazes, [0, 1])
    changed = video.clone()
    changed[:, :, :, 16:] = torch.randn(1, 3, 3, 16, SIDE_PX)  # cells 4 and 5 are in the upper left
    after = task(inputs(changed), gazes, [0, 1])
    torch.testing.assert_close(after.outputs.prediction, before.outputs.prediction)
    assert not torch.allclose(after.reward, before.reward)
    later = video.clone()
    later[:, 2] = torch.randn(1, 3, SIDE_PX, SIDE_PX)
    torch.testing.assert_close(task(inputs(later), gazes, [0, 1]).reward, before.reward)


def test_padding_changes_nothing(siglip: Path) -> None:
    task, gazes = small_task(siglip), random_gazes()
    alone = [task(inputs(smooth_video()[b : b + 1]), gaze).loss for b, gaze in enumerate(gazes)]
    torch.testing.assert_close(task(inputs(), gazes).loss, torch.cat(alone))


def test_every_weight_that_is_trained_gets_a_gradient_and_the_frozen_none(siglip: Path) -> None:
    task = small_task(siglip).train()
    gaze = Gaze(index=np.tile(np.arange(0, 20, 2), 8), count=np.full(8, 10), layout=LAYOUT)
    task(inputs(smooth_video(1, 8)), gaze).loss.mean().backward()
    for name, weight in task.named_parameters():
        if weight.requires_grad and not name.endswith("key.bias"):
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 1e-8, name
    assert all(weight.grad is None for weight in task.vision_model.model.parameters())
    assert {name.partition(".")[0] for name in task.state_dict()} == {"network"}


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_training_lowers_the_loss(siglip: Path, distance: str) -> None:
    task, gazes = small_task(siglip, distance=distance), random_gazes()
    optimizer = torch.optim.Adam((weight for weight in task.parameters() if weight.requires_grad), lr=5e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = task(inputs(), gazes).loss.mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("save", [save_dinov2, save_whole_siglip, save_any_size_siglip])
def test_other_vision_models_do_and_their_patches_are_the_finest_places(tmp_path: Path, save) -> None:
    task = SigLIPVideoFeatureReconstruction(CONFIG, save(tmp_path))
    outputs = task(inputs(), random_gazes()).outputs
    assert outputs.target.shape == (2, 5, 16, 32)


def test_places_of_features_are_those_of_cells(siglip: Path) -> None:
    """A change in one corner changes the feature there more than in the other corner."""
    task, video = small_task(siglip, normalise_features=False), smooth_video(1, 1)
    changed = video.clone()
    changed[..., -8:, :8] += 1
    moved = (task.features(changed) - task.features(video)).square().mean(-1)[0, 0].view(4, 4)
    assert moved.argmax() == 12


def test_turns_of_the_vision_model_change_nothing(siglip: Path) -> None:
    whole, turns = (small_task(siglip, frame_batch=batch).features(smooth_video()) for batch in (64, 3))
    torch.testing.assert_close(turns, whole)


def test_what_was_given_stays_as_it_was(siglip: Path) -> None:
    mae, vision = small_video_mae(), FrozenVisionModel.from_pretrained(siglip)
    weights = copy.deepcopy(mae.state_dict())
    task = SigLIPVideoFeatureReconstruction(mae, vision)
    assert vision.image_px is None
    assert mae.decoder.decoder_pred.out_features == 3 * 8 * 8
    for name, weight in task.network.state_dict().items():
        if "decoder_pred" not in name:
            assert torch.equal(weight, weights[name]), name


def test_it_is_one_file_found_by_its_name(siglip: Path) -> None:
    assert "siglip_video_feature_reconstruction" in task_names()
    task = load_task("siglip_video_feature_reconstruction", network=CONFIG, vision_model=siglip)
    assert isinstance(task, SigLIPVideoFeatureReconstruction)
    source = Path(task_batch.__code__.co_filename).parents[1]
    others = [path for path in source.rglob("*.py") if path.name != "siglip_video_feature_reconstruction.py"]
    for path in others:
        assert "siglip_video_feature" not in path.read_text(), path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": "l2"}, "distance must be mse or cosine, got 'l2'"),
        ({"places": "some"}, "places must be ungazed or all, got 'some'"),
        ({"recon_sample_rate": 0}, "recon_sample_rate must be above 0 and at most 1, got 0"),
        ({"frame_batch": 0}, "frame_batch must be at least 1, got 0"),
    ],
)
def test_settings_that_are_not_legal_are_refused(siglip: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_task(siglip, **options)


def test_sizes_of_a_new_network_do_as_well(siglip: Path) -> None:
    config: VideoMAEConfig = dataclasses.replace(CONFIG, max_num_frames=3)
    task = SigLIPVideoFeatureReconstruction(config, siglip, recon_sample_rate=0.5)
    assert task(inputs(smooth_video(2, 3)), random_gazes(2, 3)).reward.shape == (2, 1)
    with pytest.raises(ValueError, match="at most 3 frames, got 5"):
        task(inputs(), random_gazes())
