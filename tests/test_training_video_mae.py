"""Training of a video masked autoencoder from videos to a checkpoint, on a toy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.labels import LabelRule
from autogaze.datasets.recipes import ClipRecipe
from autogaze.datasets.stream import LabelledClip
from autogaze.errors import CheckpointError, TrainingError
from autogaze.gaze import Gaze
from autogaze.losses.pixel import IMAGENET, PUBLISHED
from autogaze.losses.weighted import make_loss
from autogaze.reconstructors import load_reconstructor
from autogaze.reconstructors.loading import BUNDLED_REFINER
from autogaze.reconstructors.video_mae import VideoMAEReconstructor
from autogaze.tasks.video_mae_reconstruction import VideoMAE, VideoMAEConfig
from autogaze.training.stage import Moment
from autogaze.training.video_mae import GazeLabeller, VideoMAEStage
from autogaze.training.video_mae_networks import SHAPES, TOY, video_mae_network
from make_video import moving_frames
from reconstructor_samples import make_colours, make_waves, video_mae_settings
from training_samples import events, newest, run, same_tensors, stop_after, trainer

L1: dict[str, Any] = {"seed": 0, "loss": "l1", "loss_weights": "1"}


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_waves(tmp_path_factory.mktemp("footage"))


def recipe(number: int) -> ClipRecipe:
    return ClipRecipe(number=number, kind="sprites", seed=0, rule=LabelRule(threshold=0.02))


def clip(number: int = 0) -> LabelledClip[Any]:
    rgb = np.ascontiguousarray(moving_frames(8, height_px=64, width_px=64, seed=number))
    gaze = GazeLabeller(grid=TOY.grid, random_gazes=0.5)(rgb, recipe(number))
    return LabelledClip(recipe=recipe(number), rgb=rgb, label=gaze)


def make_stage(footage: Path, out: Path, **changes: Any) -> VideoMAEStage:
    settings = video_mae_settings(footage, out, validation_clips=0, **changes)
    return settings.make_stage(device=torch.device("cpu"), tell=lambda path, message: None)


def save_vit_mae(folder: Path, *, image_px: int = 64) -> str:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=image_px,
        patch_size=16,
        decoder_hidden_size=24,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=40,
    )
    model = transformers.ViTMAEForPreTraining(config)
    # Fresh ones are 0, and the gradient of a layer norm at 0 is without bound; those of trained models are not.
    torch.nn.init.normal_(model.vit.embeddings.cls_token, std=0.02)
    model.save_pretrained(folder)
    return str(folder)


# A run


def test_learns_and_leaves_a_reconstructor(tmp_path: Path) -> None:
    colours = make_colours(tmp_path / "colours")
    changes: dict[str, Any] = {"videos": (colours,), "images": (), "peak_lr": 1e-2, "warmup_steps": 10}
    run(video_mae_settings(tmp_path, tmp_path, **changes, steps=80, block=32, reuse=40))
    losses = [line["loss"] for line in events(tmp_path, "step")]
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    _, averaged = events(tmp_path, "validation")
    assert averaged["loss"] == pytest.approx(averaged["l1"] + averaged["gradient"])
    # Colours it was not trained on, which nothing but the gazes tells: the mean of all would give 10 dB.
    assert averaged["psnr"] > 12
    loaded = load_reconstructor(tmp_path / "checkpoint")
    assert isinstance(loaded, VideoMAEReconstructor)
    assert loaded.model.config == replace(TOY, loss_type="l1+gradient", loss_weights="1+1")
    assert loaded.model.space == PUBLISHED
    pictures = sorted(path.name for path in (tmp_path / "pictures" / "step-00000080").iterdir())
    assert pictures == ["000-0.png", "001-1.png", "002-2.png", "003-3.png"]


def test_four_steps_are_two_and_two(footage: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"passes": 2, "validation_clips": 0}
    run(video_mae_settings(footage, tmp_path / "whole", **changes))
    first = trainer(video_mae_settings(footage, tmp_path / "parts", **changes))
    stop_after(first, 2)
    first.run()
    run(video_mae_settings(footage, tmp_path / "parts", **changes, resume=True))
    assert same_tensors(newest(tmp_path / "whole"), newest(tmp_path / "parts"))
    whole, parts = ([line["loss"] for line in events(tmp_path / name, "step")] for name in ("whole", "parts"))
    assert whole == parts and len(whole) == 4


def test_a_loss_through_a_vision_model_trains_and_is_not_saved(footage: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
    transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**sizes)).save_pretrained(
        tmp_path / "dinov2"
    )
    changes: dict[str, Any] = {"loss": "l1+dinov2_reg", "loss_weights": "1+0.3", "dinov2_reg": str(tmp_path / "dinov2")}
    run(video_mae_settings(footage, tmp_path / "run", steps=2, validation_clips=1, **changes))
    first, _ = events(tmp_path / "run", "step")
    assert first["loss"] == pytest.approx(first["l1"] + 0.3 * first["dinov2_reg"], rel=1e-5)
    assert first["dinov2_reg"] > 0
    assert not [name for name in newest(tmp_path / "run") if "dinov2" in name]
    assert load_reconstructor(tmp_path / "run" / "checkpoint").loss_unit.startswith("mean absolute error")


# Passes


def test_the_loss_is_that_of_the_model_over_the_frames_of_the_step(footage: Path, tmp_path: Path) -> None:
    stage = make_stage(footage, tmp_path, loss="l1+gradient", loss_weights="1+0.5")
    clips = [clip(number) for number in range(3)]
    batch = stage.prepare(clips, Moment(step=3, share=0.0))
    terms = stage.terms(batch, stage.units(batch))
    stage.mae.loss = make_loss("l1+gradient", "1+0.5")
    wanted = []
    for one in clips:
        video = stage.mae.space.from_unit(torch.from_numpy(one.rgb).movedim(-1, 1)[None] / 255)
        wanted.append(stage.mae(video, one.label, batch.frame_idx).loss_mean)
    assert terms.total.item() == pytest.approx(torch.cat(wanted).mean().item(), rel=1e-5)
    assert terms.total.item() == pytest.approx(float(terms.values @ torch.tensor([1.0, 0.5])), rel=1e-5)
    # In parts it is the sum of the parts.
    parts = [stage.prepare(part, Moment(step=3, share=0.5)) for part in (clips[:1], clips[1:])]
    units = sum(stage.units(part) for part in parts)
    assert isinstance(units, torch.Tensor)
    total = sum(stage.terms(part, units).total.item() for part in parts)
    assert total == pytest.approx(terms.total.item(), rel=1e-5)


def test_every_step_draws_its_frames_by_its_number_alone(footage: Path, tmp_path: Path) -> None:
    stage = make_stage(footage, tmp_path, frame_share=0.25)
    other = make_stage(footage, tmp_path, frame_share=0.25, seed=1)
    drawn = [
        [made.prepare([clip()], Moment(step=step, share=0.0)).frame_idx for step in range(20)]
        for made in (stage, stage, other)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {len(frames) for frames in drawn[0]} == {2}
    assert {t for frames in drawn[0] for t in frames} == set(range(8))


def test_gazes_are_greedy_or_by_chance_as_the_recipe_says() -> None:
    rgb, search = clip().rgb, GreedyLabeller(grid=TOY.grid)
    rows = []
    for share in (0.0, 0.5, 1.0):
        labeller = GazeLabeller(grid=TOY.grid, random_gazes=share)
        rows.append([labeller(rgb, recipe(number)) for number in range(8)])
        assert gazes_of(labeller(rgb, recipe(3))) == gazes_of(rows[-1][3])
    greedy, mixed, random = ([gazes_of(gaze) for gaze in row] for row in rows)
    assert greedy == [gazes_of(search(rgb, recipe(number)).gaze) for number in range(8)]
    assert 0 < sum(gaze == other for gaze, other in zip(mixed, greedy, strict=True)) < 8
    assert all((a == b) != (a == c) for a, b, c in zip(mixed, greedy, random, strict=True))
    assert all(frame and len({*frame}) == len(frame) for gaze in random for frame in gaze)


def gazes_of(gaze: Gaze) -> list[list[int]]:
    return [one.index.tolist() for one in gaze]


# Settings and networks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": (), "images": ()}, "nothing to train on"),
        ({"random_gazes": -0.1}, "--random-gazes must be a share from 0 to 1, got -0.1"),
        ({"frame_share": 0.0}, "--frame-share must be above 0 and at most 1, got 0.0"),
    ],
)
def test_settings_that_are_not_legal(footage: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        video_mae_settings(footage, tmp_path, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": "huge"}, "--shape 'huge' is neither toy, tiny, base, large nor the path of a config.json"),
        ({"loss": "l3"}, "--loss l3 --loss-weights 1.1: 'l3' is no loss; legal are l1, gradient, ssim, "),
        ({"loss": "l1"}, "--loss l1 --loss-weights 1.1: weights must be one number for each of 1 terms"),
        ({"loss": "l1+siglip2"}, "siglip2 looks through a vision model.*--siglip2 name the models"),
        ({"siglip2": "folder"}, "models names 'siglip2', which is not a term of l1.gradient"),
    ],
)
def test_stages_that_cannot_be_made(footage: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        make_stage(footage, tmp_path, **change)


def test_a_network_comes_from_a_checkpoint_a_shape_or_both(tmp_path: Path) -> None:
    fresh = [video_mae_network(init=None, shape="toy", **{**L1, "seed": seed}) for seed in (0, 0, 1)]
    first, same, other = (mae.decoder.decoder_pred.weight for mae in fresh)
    assert torch.equal(first, same) and not torch.equal(first, other)
    fresh[2].save_pretrained(tmp_path / "init")
    for shape in (None, "toy", str(tmp_path / "init" / "config.json")):
        mae = video_mae_network(init=str(tmp_path / "init"), shape=shape, **L1)
        assert torch.equal(mae.decoder.decoder_pred.weight, other)
    assert video_mae_network(init=str(tmp_path / "init"), shape=None, **{**L1, "loss": "ssim"}).config == replace(
        TOY, loss_type="ssim", loss_weights="1"
    )


def test_an_image_autoencoder_grows_into_a_reconstructor(footage: Path, tmp_path: Path) -> None:
    init = save_vit_mae(tmp_path / "mae")
    plain = video_mae_network(init=init, shape=None, **L1)
    assert plain.config.scales == "64" and plain.space == IMAGENET
    shape = replace(plain.config, scales="32+64", max_num_frames=8)
    shape.to_json_file(tmp_path / "config.json")
    run(
        video_mae_settings(
            footage, tmp_path / "run", init=init, shape=str(tmp_path / "config.json"), steps=2, validation_clips=1
        )
    )
    loaded = load_reconstructor(tmp_path / "run" / "checkpoint")
    assert isinstance(loaded, VideoMAEReconstructor)
    assert loaded.model.config.scales == "32+64" and loaded.model.space == IMAGENET
    with pytest.raises(CheckpointError, match="does not fit its configuration: "):
        video_mae_network(init=init, shape="toy", **L1)


def test_checkpoints_that_do_not_fit(footage: Path, tmp_path: Path) -> None:
    heads = replace(TOY, num_attention_heads=2, scales="16+64")
    VideoMAE(heads).save_pretrained(tmp_path / "heads")
    # Neither leaves a trace in the shapes of the weights.
    with pytest.raises(
        TrainingError,
        match=r"is not of --shape toy: it has num_attention_heads 2 and not 4, scales 16\+64 and not 32\+64; leave",
    ):
        make_stage(footage, tmp_path / "run", init=str(tmp_path / "heads"))
    with pytest.raises(CheckpointError, match="is not the configuration of a VideoMAE"):
        make_stage(footage, tmp_path / "run", init=str(BUNDLED_REFINER), shape=None)
    with pytest.raises(CheckpointError):
        make_stage(footage, tmp_path / "run", init=str(tmp_path / "nowhere"), shape=None)
    replace(TOY, causal=False).to_json_file(tmp_path / "config.json")
    with pytest.raises(TrainingError, match=r"config.json is not causal, and a reconstructor must be"):
        make_stage(footage, tmp_path / "run", shape=str(tmp_path / "config.json"))


def test_shapes_are_of_the_sizes_they_are_named_for() -> None:
    assert list(SHAPES) == ["toy", "tiny", "base", "large"]
    assert all(isinstance(config, VideoMAEConfig) and config.causal for config in SHAPES.values())
    assert sum(p.numel() for p in VideoMAE(TOY).parameters()) < 300_000
