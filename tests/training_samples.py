"""Footage for training runs, and what a run leaves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.training.ntp import NTPSettings
from autogaze.training.processes import Processes
from autogaze.training.run_settings import RunSettings
from autogaze.training.trainer import Trainer
from make_video import moving_frames, write_video
from small_models import small_config


def make_footage(folder: Path) -> Path:
    """Videos in train/ and val/, one file in each that is none, an image, and a checkpoint with fresh weights."""
    for split, seeds in (("train", (0, 1)), ("val", (2, 3))):
        (folder / "videos" / split).mkdir(parents=True)
        for seed in seeds:
            frames = moving_frames(40, height_px=72, width_px=96, seed=seed)
            write_video(folder / "videos" / split / f"{seed}.mp4", frames)
        (folder / "videos" / split / f"broken-{split}.mp4").write_bytes(b"no video")
    (folder / "images").mkdir()
    Image.fromarray(moving_frames(1, height_px=160, width_px=200)[0]).save(folder / "images" / "a.png")
    model = AutoGaze(replace(small_config(), max_num_frames=4))
    model.gazing_model.init_weights(torch.Generator().manual_seed(0))
    model.save_pretrained(folder / "init")
    return folder


def ntp_settings(footage: Path, out: Path, **changes: Any) -> NTPSettings:
    plain: dict[str, Any] = {
        "out": out,
        "videos": (footage / "videos",),
        "images": (footage / "images",),
        "init": str(footage / "init"),
        "steps": 4,
        "batch": 8,
        "block": 16,
        "warmup_steps": 2,
        "peak_lr": 3e-3,
        "log_every": 1,
        "workers": 0,
        "device": "cpu",
        "validation_clips": 3,
    }
    return NTPSettings(**{**plain, **changes})


def trainer(settings: RunSettings) -> Trainer[Any, Any]:
    processes = Processes(settings)
    return Trainer(settings, processes, settings.make_stage(device=processes.device, tell=lambda path, message: None))


def run(settings: RunSettings) -> Trainer[Any, Any]:
    one = trainer(settings)
    one.run()
    return one


def stop_after(one: Trainer[Any, Any], step: int) -> None:
    """Let a sitting end after a step, as a signal would."""
    take = one._one_step

    def counted(*arguments: Any) -> Any:
        result = take(*arguments)
        one.must_stop = one.step >= step
        return result

    one._one_step = counted  # type: ignore[method-assign]


def events(out: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == name]


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(folder).as_posix()}/{name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def newest(out: Path) -> dict[str, torch.Tensor]:
    """The tensors of the newest state and of the checkpoint."""
    return {**all_tensors(sorted((out / "state").iterdir())[-1]), **all_tensors(out / "checkpoint")}


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def assert_same_gradients(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    """They are equal but for rounding, tensor by tensor, by their length."""
    assert one.keys() == other.keys()
    rounding = 1e-7 * torch.stack([tensor.norm() for tensor in one.values()]).norm()
    for name, tensor in one.items():
        assert (other[name] - tensor).norm() <= 1e-4 * tensor.norm() + rounding, name


def assert_alike(one: Path, other: Path, names: Iterable[str]) -> None:
    """The gradients of two runs' first steps are equal but for rounding, and so is what their logs say.

    Adam's first moments after one step are a fixed share of the gradients; ``--save-steps 1`` keeps them. Weights are
    no measure, and later steps follow less closely: Adam makes a whole step of the sign of a gradient that is nearly 0.
    """
    first, same = (_moments(min((out / "state").iterdir())) for out in (one, other))
    assert len(first) > 10
    assert_same_gradients(first, same)
    for name in names:
        lines = [[line[name] for line in events(out, "step")] for out in (one, other)]
        assert lines[1][0] == pytest.approx(lines[0][0], rel=1e-4), name
        assert lines[1] == pytest.approx(lines[0], rel=1e-2), name


def _moments(state: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in all_tensors(state).items() if "exp_avg.s" in name}
