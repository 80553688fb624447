"""Training of a refiner from videos to a checkpoint, on a small network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from autogaze.datasets.clips import ClipRecipe
from autogaze.datasets.labellers import no_label
from autogaze.datasets.labels import LabelRule
from autogaze.datasets.stream import ClipMaker, ClipShape, LabelledClip
from autogaze.errors import CheckpointError
from autogaze.grid import PatchGrid
from autogaze.reconstructors import load_reconstructor
from autogaze.reconstructors.refiner import Refiner
from autogaze.training.refiner import RefinerSettings, Run, canvas_view, refiner_loss
from autogaze.training.settings import TrainingError
from make_video import moving_frames, write_video


def waves(frames: int) -> np.ndarray:
    """Smooth waves that drift: what a canvas shows as blocks and a network soon learns to smooth."""
    time, row, column = np.meshgrid(np.arange(frames), np.arange(72), np.arange(96), indexing="ij")
    phase = np.stack([row / 9 + time / 3, column / 11 - time / 4, (row + column) / 13], axis=-1)
    return ((np.sin(phase) + 1) * 127).astype(np.uint8)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    (folder / "videos").mkdir()
    (folder / "images").mkdir()
    write_video(folder / "videos" / "a.mp4", waves(24))
    (folder / "videos" / "broken.mp4").write_bytes(b"no video")
    Image.fromarray(moving_frames(1, height_px=160, width_px=200)[0]).save(folder / "images" / "a.png")
    return folder


def settings(footage: Path, out: Path, **changes: Any) -> RefinerSettings:
    plain: dict[str, Any] = {
        "out": out,
        "videos": footage / "videos",
        "images": footage / "images",
        "steps": 4,
        "minutes": 5.0,
        "widths": (4, 6),
        "clips": 1,
        "frames": 2,
        "warmup_steps": 2,
        "log_every": 1,
        "random_gazes": 0.5,
        "device": "cpu",
    }
    return RefinerSettings(**{**plain, **changes})


def events(out: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == name]


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{file.stem}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def clip() -> LabelledClip:
    recipe = ClipRecipe(number=0, path=Path("none"), kind="video", seed=0, rule=LabelRule(threshold=0.02))
    maker = ClipMaker(ClipShape(grid=PatchGrid(), frames=3), labeller=no_label, cache_bytes=0)
    from autogaze.datasets.labels import label_clip

    rgb = np.ascontiguousarray(moving_frames(3, height_px=224, width_px=224))
    return LabelledClip(recipe=recipe, rgb=rgb, label=label_clip(rgb, rule=recipe.rule, grid=maker.shape.grid))


def test_four_steps_are_two_and_two(footage: Path, tmp_path: Path) -> None:
    Run(settings(footage, tmp_path / "whole")).train()
    Run(settings(footage, tmp_path / "parts", steps=2)).train()
    # The learning rate follows the steps asked for, so ask for all of them and stop half-way.
    halves = Run(settings(footage, tmp_path / "halves"))
    one_step = halves._one_step

    def twice(stream: Any) -> float:
        halves.must_stop = halves.step == 1
        return one_step(stream)

    halves._one_step = twice  # type: ignore[method-assign]
    halves.train()
    assert halves.step == 2
    Run(settings(footage, tmp_path / "halves", resume=True)).train()
    whole, resumed = all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "halves")
    assert whole.keys() == resumed.keys() and whole
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert [e["loss"] for e in events(tmp_path / "whole", "step")] == [
        e["loss"] for e in events(tmp_path / "halves", "step")
    ]


def test_a_state_is_not_replaced_by_a_new_run(footage: Path, tmp_path: Path) -> None:
    Run(settings(footage, tmp_path, steps=1)).train()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(TrainingError, match=r"holds the state of a run; --resume goes on, another --out starts anew"):
        Run(settings(footage, tmp_path, steps=1))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / "state" / "step-00000001" / "progress.json").unlink()  # without it there is nothing to go on from
    Run(settings(footage, tmp_path, steps=1))


def test_the_checkpoint_is_a_reconstructor_and_better_than_the_canvas(footage: Path, tmp_path: Path) -> None:
    changes = {"steps": 40, "peak_lr": 3e-3, "average": 0.5, "images": None, "random_gazes": 0.0}
    run = settings(footage, tmp_path, val=footage / "videos", **changes)
    Run(run).train()
    assert load_reconstructor(tmp_path / "checkpoint").name == "checkpoint"
    for load in (load_reconstructor, Refiner.from_pretrained):
        with pytest.raises(CheckpointError, match=r"config.json is missing; .*; did you mean .*/checkpoint\?$"):
            load(tmp_path)
    (validation,) = events(tmp_path, "validation")
    assert validation["refined_loss"] < validation["canvas_loss"]
    assert {event["path"] for event in events(tmp_path, "unreadable")} == {str(footage / "videos" / "broken.mp4")}


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
    loss = refiner_loss(refined, canvas_BHWC=canvas, target_BHWC=target).item()
    assert loss == pytest.approx(np.mean(wanted), rel=1e-5)
    assert refiner_loss(target.movedim(-1, 1) / 255, canvas_BHWC=canvas, target_BHWC=target) == 0
    unrefined = refiner_loss(canvas[:2].movedim(-1, 1) / 255, canvas_BHWC=canvas[:2], target_BHWC=target[:2])
    assert unrefined.item() == pytest.approx(1.5, rel=0.02)


def test_random_gazes_are_as_many_but_others() -> None:
    made, rng = clip(), np.random.default_rng(0)
    greedy, random = (canvas_view(made, random=choice, rng=rng) for choice in (False, True))
    np.testing.assert_array_equal(greedy.target, random.target)
    assert (greedy.scale != random.scale).any()
    error = [np.abs(view.canvas.astype(int) - view.target).mean() for view in (greedy, random)]
    assert error[0] < error[1]


def test_a_loss_that_is_no_number_stops_and_loses_nothing(footage: Path, tmp_path: Path) -> None:
    Run(settings(footage, tmp_path, steps=1)).train()
    before = all_tensors(tmp_path)
    run = Run(settings(footage, tmp_path, resume=True))
    with torch.no_grad():
        run.refiner.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"not a number at step 2.*--resume"):
        run.train()
    after = all_tensors(tmp_path)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_nothing_readable_ends_the_run(footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autogaze.training.refiner.MAX_UNREADABLE", 3)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(TrainingError, match="none of 3 clips in a row"):
        Run(settings(footage, tmp_path / "out", videos=tmp_path / "videos", images=None)).train()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": None, "images": None}, "nothing to train on"),
        ({"clips": 0}, "clips must be above 0, got 0"),
        ({"random_gazes": 1.5}, "random_gazes must be a share from 0 to 1, got 1.5"),
    ],
)
def test_settings_that_are_not_legal(footage: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        settings(footage, tmp_path, **change)
