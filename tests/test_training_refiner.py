"""Training of a refiner from videos to a checkpoint, on a small network."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from autogaze.cli import main
from autogaze.commands.train import config_names, find_config
from autogaze.configs import reconstructor as configs
from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.labels import LabelRule
from autogaze.datasets.recipes import ClipRecipe
from autogaze.errors import CheckpointError, TrainingError
from autogaze.grid import PatchGrid
from autogaze.reconstructors import load_reconstructor
from autogaze.reconstructors.refiner import Refiner, RefinerConfig
from autogaze.training.refiner import (
    SHAPES,
    CanvasLabeller,
    RefinerSettings,
    as_many_at_random,
    canvas_view,
    errors_left,
    refiner_network,
)
from autogaze.training.run_settings import RunSettings
from make_video import moving_frames
from reconstructor_samples import make_waves, refiner_settings, video_mae_settings
from training_samples import assert_alike, events, newest, run, same_tensors, stop_after, trainer

GRID = PatchGrid(scales_px=(32, 64))
VALIDATED = {"refiner": "refined_loss", "video-mae": "loss"}


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_waves(tmp_path_factory.mktemp("footage"))


def recipe(number: int) -> ClipRecipe:
    return ClipRecipe(number=number, kind="sprites", seed=0, rule=LabelRule(threshold=0.02))


def clip() -> np.ndarray:
    return np.ascontiguousarray(moving_frames(16, height_px=64, width_px=64))


# A run


def test_the_checkpoint_is_a_reconstructor_and_better_than_the_canvas(footage: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"steps": 60, "peak_lr": 1e-2, "images": (), "random_gazes": 0.0, "reuse": 4}
    run(refiner_settings(footage, tmp_path, **changes))
    assert load_reconstructor(tmp_path / "checkpoint").name == "checkpoint"
    assert load_reconstructor(tmp_path / "best").loss_unit == load_reconstructor("refined").loss_unit
    for load in (load_reconstructor, Refiner.from_pretrained):
        with pytest.raises(CheckpointError, match=r"config.json is missing; .*; did you mean .*/checkpoint\?$"):
            load(tmp_path)
    _, averaged = events(tmp_path, "validation")
    assert averaged["refined_loss"] < 0.97 * averaged["canvas_loss"]
    assert averaged["refined_psnr"] > averaged["canvas_psnr"]
    assert {Path(event["path"]).name for event in events(tmp_path, "unreadable")} == {"broken-train.mp4"}
    pictures = sorted((tmp_path / "pictures" / "step-00000060").iterdir())
    assert [path.name for path in pictures] == ["000-2.png", "001-3.png"]
    assert Image.open(pictures[0]).size == (4 * 232 + 8, 44 + 4 * 255)


def test_four_steps_are_two_and_two(footage: Path, tmp_path: Path) -> None:
    run(refiner_settings(footage, tmp_path / "whole"))
    first = trainer(refiner_settings(footage, tmp_path / "parts"))
    stop_after(first, 2)
    first.run()
    run(refiner_settings(footage, tmp_path / "parts", resume=True))
    assert same_tensors(newest(tmp_path / "whole"), newest(tmp_path / "parts"))
    whole, parts = ([line["loss"] for line in events(tmp_path / name, "step")] for name in ("whole", "parts"))
    assert whole == parts and len(whole) == 4


def test_two_processes_are_one(footage: Path, tmp_path: Path) -> None:
    def runs(name: str) -> list[RunSettings]:
        changes: dict[str, Any] = {"steps": 3, "save_steps": 1, "keep": 9, "peak_lr": 3e-4, "batch": 5}
        return [
            refiner_settings(footage, tmp_path / name / "refiner", **changes),
            video_mae_settings(footage, tmp_path / name / "video-mae", **changes),
        ]

    (tmp_path / "runs").write_bytes(pickle.dumps(runs("two")))
    train_in_two_processes(tmp_path / "runs")
    for settings in runs("one"):
        run(settings)
        one, two = settings.out, tmp_path / "two" / settings.out.name
        (start,) = events(two, "start")
        assert start["processes"] == 2
        assert_alike(one, two, ("loss", "grad_norm"))
        validated = [[line[VALIDATED[out.name]] for line in events(out, "validation")] for out in (one, two)]
        assert validated[1] == pytest.approx(validated[0], rel=1e-2)


def train_in_two_processes(runs: Path) -> None:
    """As torchrun would, which takes longer to start than they do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    plain = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, Path(__file__).with_name("train_in_processes.py"), runs]
    processes = [
        subprocess.Popen(command, env={**os.environ, **plain, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE)
        for rank in "01"
    ]
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], b"".join(told).decode()


def test_a_loss_that_is_no_number_stops_and_loses_nothing(footage: Path, tmp_path: Path) -> None:
    run(refiner_settings(footage, tmp_path, steps=1))
    before = newest(tmp_path)
    one = trainer(refiner_settings(footage, tmp_path, resume=True))
    with torch.no_grad():
        one.stage.module.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"not a number at step 1 .*--resume"):
        one.run()
    assert same_tensors(before, newest(tmp_path))


def test_the_optimiser_is_as_the_settings_say(footage: Path, tmp_path: Path) -> None:
    groups = trainer(refiner_settings(footage, tmp_path, beta2=0.5, weight_decay=0.25)).optimizer.param_groups
    assert {(group["betas"], group["weight_decay"]) for group in groups} == {((0.9, 0.5), 0.25), ((0.9, 0.5), 0.0)}


def test_a_run_without_validation_clips_draws_nothing(footage: Path, tmp_path: Path) -> None:
    run(refiner_settings(footage, tmp_path, steps=1, validation_clips=0))
    assert not events(tmp_path, "validation") and not (tmp_path / "pictures").exists()
    assert Refiner.from_pretrained(tmp_path / "checkpoint").config == SHAPES["tiny"]


# The loss


def test_the_loss_is_what_is_left_of_each_frames_errors() -> None:
    refined = torch.rand(3, 3, 4, 5)
    canvas, target = (torch.randint(0, 256, (3, 4, 5, 3), dtype=torch.uint8) for _ in range(2))
    canvas[2] = target[2]  # nothing to win
    wanted = []
    for b in range(3):
        before = (canvas[b].double() - target[b].double()).numpy() / 255
        after = refined[b].permute(1, 2, 0).double().numpy() - target[b].double().numpy() / 255
        squared = (after**2).mean() / ((before**2).mean() + 255**-2)
        wanted.append(squared + np.abs(after).mean() / (np.abs(before).mean() + 1 / 255) / 2)
    left = errors_left(refined, canvas_BHWC=canvas, target_BHWC=target)
    assert left.loss_B.tolist() == pytest.approx(wanted, rel=1e-5)
    assert not errors_left(target.movedim(-1, 1) / 255, canvas_BHWC=canvas, target_BHWC=target).loss_B.any()
    unrefined = errors_left(canvas[:2].movedim(-1, 1) / 255, canvas_BHWC=canvas[:2], target_BHWC=target[:2])
    assert unrefined.loss_B.tolist() == pytest.approx([1.5, 1.5], rel=0.02)


# Clips


def test_random_gazes_are_as_many_but_others() -> None:
    rgb = clip()
    greedy = GreedyLabeller(grid=GRID)(rgb, recipe(0)).gaze
    random = as_many_at_random(greedy, np.random.default_rng(0))
    np.testing.assert_array_equal(random.count, greedy.count)
    assert not np.array_equal(np.sort(random.index), np.sort(greedy.index))
    assert all(len({*one.index.tolist()}) == len(one.index) for one in random)
    views = [canvas_view(rgb, gaze) for gaze in (greedy, random)]
    error = [np.abs(view.canvas.astype(int) - view.target).mean() for view in views]
    assert error[0] < error[1]


def test_a_clip_is_shown_as_its_recipe_says_and_no_other_way() -> None:
    rgb = clip()
    labellers = [CanvasLabeller(grid=GRID, frames=3, random_gazes=share) for share in (0.0, 0.5, 1.0)]
    views = [[labeller(rgb, recipe(number)) for number in range(6)] for labeller in labellers]
    again = [labeller(rgb, recipe(0)) for labeller in labellers]
    for (first, *_), same in zip(views, again, strict=True):
        np.testing.assert_array_equal(first.canvas, same.canvas)
    whole = canvas_view(rgb, GreedyLabeller(grid=GRID)(rgb, recipe(0)).gaze)
    greedy, mixed, random = ([view.scale.tobytes() for view in row] for row in views)
    for view in views[0]:
        assert len(view) == 3
        shown = [next(t for t in range(16) if np.array_equal(whole.target[t], one)) for one in view.target]
        assert shown == sorted(shown)
        np.testing.assert_array_equal(view.canvas, whole.canvas[shown])
    # The share decides whose gazes; the frames are others too, because more was drawn before them.
    assert sum(a == b for a, b in zip(mixed, greedy, strict=True)) in range(1, 6)
    assert all((a == b) != (a == c) for a, b, c in zip(mixed, greedy, random, strict=True))
    assert len({view.target.tobytes() for view in views[0]}) > 3


# Settings and networks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": (), "images": ()}, "nothing to train on"),
        ({"frames": 0}, "--frames must be from 1 to 16, the frames of a clip, got 0"),
        ({"frames": 17}, "--frames must be from 1 to 16, the frames of a clip, got 17"),
        ({"random_gazes": 1.5}, "--random-gazes must be a share from 0 to 1, got 1.5"),
        ({"beta2": 1.0}, "--beta2 must be at least 0 and below 1, got 1.0"),
    ],
)
def test_settings_that_are_not_legal(footage: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        refiner_settings(footage, tmp_path, **change)


def test_a_network_comes_from_a_checkpoint_a_shape_or_both(tmp_path: Path) -> None:
    fresh = [refiner_network(init=None, shape="tiny", seed=seed) for seed in (0, 0, 1)]
    first, same, other = (network.stem.weight for network in fresh)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert refiner_network(init=None, shape=None, seed=0).config == RefinerConfig()
    fresh[2].save_pretrained(tmp_path / "init")
    for shape in (None, "tiny", str(tmp_path / "init" / "config.json")):
        assert torch.equal(refiner_network(init=str(tmp_path / "init"), shape=shape, seed=0).stem.weight, other)
    bundled = refiner_network(init="refined", shape="default", seed=0)
    assert torch.equal(bundled.head.weight, refiner_network(init="bundled", shape=None, seed=1).head.weight)


def test_shapes_and_checkpoints_that_do_not_fit(footage: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--shape 'huge' is neither default, tiny nor the path of a config.json"):
        trainer(refiner_settings(footage, tmp_path, shape="huge"))
    with pytest.raises(TrainingError, match=r"--init refined is not of --shape tiny: .*widths \(32, 64, 96, 128\)"):
        trainer(refiner_settings(footage, tmp_path, init="refined"))
    with pytest.raises(CheckpointError, match=r"model_type is .*, a refiner's is 'autogaze_refiner'"):
        trainer(refiner_settings(footage, tmp_path, init=str(Path(configs.__file__).parents[1] / "checkpoints/gaze")))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "autogaze_refiner", "widths": []}))
    with pytest.raises(CheckpointError, match=r"config.json: .*widths of a refiner must be whole numbers above 0"):
        refiner_network(init=None, shape=str(tmp_path / "config.json"), seed=0)
    assert not (tmp_path / "state").exists()


# Configurations


def test_every_configuration_is_complete_and_legal() -> None:
    names = config_names(configs)
    assert names == ["bundled", "default", "paper", "tiny", "tiny_video_mae", "video_mae"]
    outs = {find_config("reconstructor", name)().out for name in names}
    assert len(outs) == len(names)


def test_the_default_is_the_recipe_of_the_bundled_refiner() -> None:
    settings = configs.default()
    assert isinstance(settings, RefinerSettings)
    assert refiner_network(init=settings.init, shape=settings.shape, seed=0).config == (
        Refiner.from_pretrained(Path(configs.__file__).parents[1] / "checkpoints/refiner").config
    )
    assert (settings.batch, settings.frames, settings.random_gazes, settings.reuse) == (4, 3, 0.15, 1)
    assert (settings.weight_decay, settings.beta2, settings.average, settings.clip_norm) == (1e-4, 0.999, 0.998, 1.0)
    # What the rate was when it was trained, all along.
    rates = [settings.learning_rate(step=step, share=share) for step, share in ((0, 0.0), (99, 0.0), (999, 0.5))]
    assert rates == pytest.approx([1e-5, 1e-3, (1e-3 + 1e-5) / 2])


def test_the_tiny_configuration_trains_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "reconstructor", "--config", "tiny", "--steps", "3", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 0
    assert load_reconstructor(tmp_path / "run" / "checkpoint").name == "checkpoint"
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main([*words, "--frames", "40"])
    (line,) = capsys.readouterr().err.splitlines()
    assert done.value.code == 2 and "--frames must be from 1 to 16" in line
