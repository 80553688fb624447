"""What must not get lost or pass unsaid in a training run: states, numbers that are none, settings, configurations."""

from __future__ import annotations

import importlib
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from autogaze.algorithms.grpo import discounted_advantages
from autogaze.cli import main
from autogaze.commands.train import WHAT, config_names, describe, load_config
from autogaze.configs import ntp
from autogaze.errors import TrainingError
from autogaze.training import memory, state
from autogaze.training.processes import Processes
from autogaze.training.run_settings import ClipRunSettings
from autogaze.training.state import replace_folder, tidy_folder
from training_samples import all_tensors, events, make_footage, ntp_settings, run, same_tensors, trainer


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_footage(tmp_path_factory.mktemp("footage"))


# States and checkpoints


def test_a_state_that_is_there_is_not_written_again(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 1, "validation_clips": 0, "keep": 1}
    run(ntp_settings(footage, tmp_path, **settings))
    before = all_tensors(tmp_path / "state")

    def full_disk(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "write_tensors", full_disk)
    run(ntp_settings(footage, tmp_path, resume=True, **settings))
    assert len(before) > 10 and same_tensors(before, all_tensors(tmp_path / "state"))
    assert state.has_state(tmp_path)


def test_a_full_disk_leaves_the_last_state(footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(ntp_settings(footage, tmp_path, steps=1, validation_clips=0, keep=1))
    before = load_file(tmp_path / "state" / "step-00000001" / "weights.safetensors")
    with monkeypatch.context() as patched:
        patched.setattr(state, "write_tensors", _full_after(2))
        with pytest.raises(OSError, match="No space left"):
            run(ntp_settings(footage, tmp_path, steps=2, validation_clips=0, keep=1, resume=True))
    one = trainer(ntp_settings(footage, tmp_path, steps=2, validation_clips=0, keep=1, resume=True))
    assert one.step == 1
    assert all(torch.equal(one.stage.module.state_dict()[name], tensor) for name, tensor in before.items())


def _full_after(files: int) -> Any:
    write, left = state.write_tensors, [files]

    def write_some(*arguments: Any) -> None:
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        write(*arguments)

    return write_some


def test_a_state_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    synced: list[set[str]] = []
    new, sync = tmp_path / "step-00000001", state.sync

    def watched(path: Path) -> None:
        sync(path)
        assert not (new / state.PROGRESS_NAME).exists()
        synced.append({file.name for file in path.iterdir()})

    monkeypatch.setattr(state, "sync", watched)
    averaged, progress = state.Averaged(model, decay=0.5), state.Progress(step=1)
    state.save_state(tmp_path, model=model, averaged=averaged, optimizer=optimizer, progress=progress, keep=1)
    names = ("weights", "averaged", "exp_avg", "exp_avg_sq")
    assert synced == [{f"{name}.safetensors" for name in names}]


@pytest.mark.skipif("sys.platform == 'win32'")
def test_two_runs_do_not_write_into_one_folder(footage: Path, tmp_path: Path) -> None:
    one = trainer(ntp_settings(footage, tmp_path, steps=1, validation_clips=0))
    with (
        state.only_run_in(tmp_path),
        pytest.raises(TrainingError, match=r"another run is writing into .*; wait for it"),
    ):
        one.run()
    assert not (tmp_path / "state").exists() and not (tmp_path / "log.jsonl").exists()
    one.run()
    assert state.has_state(tmp_path)


def test_what_a_kill_left_between_two_renames_is_put_back(tmp_path: Path) -> None:
    place = tmp_path / "best"
    with replace_folder(place) as folder:
        (folder / "old").touch()
    # As after a kill: nothing has been cleaned up.
    place.rename(tmp_path / ".best.old.0123")
    (tmp_path / ".best.new.4567").mkdir()
    tidy_folder(place)
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["best", "best/old"]
    (tmp_path / ".best.old.0123").mkdir()
    tidy_folder(place)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


# Numbers that are none


@pytest.mark.parametrize("head", [False, True])
def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights(
    footage: Path, tmp_path: Path, head: bool
) -> None:
    one = trainer(ntp_settings(footage, tmp_path, steps=3, save_steps=1, validation_clips=0))
    model = one.stage.module.gazing_model
    weight = model.gaze_decoder.task_loss_prediction_head.weight if head else model.connector.pos_embed
    before = {name: tensor.clone() for name, tensor in one.stage.module.state_dict().items()}
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"^grad_norm.* is not a number at step 0 .*nothing had been saved yet"):
        one.run()
    assert same_tensors(before, one.stage.module.state_dict())
    assert not state.has_state(tmp_path)


def test_advantages_keep_their_precision_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    reward_BF = torch.randn(4, 3, generator=generator)
    arguments: dict[str, Any] = {
        "kept_BN": torch.rand(4, 30, generator=generator) < 0.8,
        "end_F": torch.tensor([10, 20, 30]),
        "discount": 0.995,
    }
    plain = discounted_advantages(reward_BF, **arguments)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = discounted_advantages(reward_BF, **arguments)
    assert rounded.dtype == torch.float32 and torch.equal(rounded, plain)


# What is said


def test_other_settings_than_before_are_told(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path, steps=1, validation_clips=0))
    run(ntp_settings(footage, tmp_path, steps=1, validation_clips=0, resume=True, log_every=7))
    assert not events(tmp_path, "changed")
    assert len(events(tmp_path, "over")) == 1
    run(ntp_settings(footage, tmp_path, steps=2, batch=4, seed=5, validation_clips=0, resume=True))
    (line,) = events(tmp_path, "changed")
    assert {name: line[name] for name in ("steps", "batch", "seed")} == {
        "steps": "1 → 2",
        "batch": "8 → 4",
        "seed": "0 → 5",
    }
    assert set(line) == {"event", "step", "seconds", "steps", "batch", "seed"}
    assert len(events(tmp_path, "over")) == 1


def test_other_data_and_another_init_than_before_are_told(
    footage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, out = tmp_path / "videos", tmp_path / "run"
    shutil.copytree(footage / "videos", videos)
    changes: dict[str, Any] = {"videos": (videos,), "steps": 1, "validation_clips": 0}
    run(ntp_settings(footage, out, **changes))
    moved = tmp_path / "moved"
    videos.rename(moved)
    run(ntp_settings(footage, out, **{**changes, "videos": (moved,)}, resume=True))
    (line,) = events(out, "changed")
    assert "videos" in line and "video_files" not in line and not events(out, "init_ignored")
    (moved / "train" / "0.mp4").rename(moved / "train" / "9.mp4")
    with (moved / "val" / "2.mp4").open("ab") as file:
        file.write(b"more")
    command = ["train", "ntp", "--out", out, "--videos", moved, "--images", footage / "images", "--batch", 8]
    rest = ["--block", 16, "--steps", 1, "--init", "bundled", "--shape", "tiny", "--resume", "--device", "cpu"]
    shutil.copytree(footage / "init", tmp_path / "other")
    rest[rest.index("bundled")] = tmp_path / "other"
    with pytest.raises(SystemExit, match="0"):
        main([*map(str, command + rest), "--validation-clips", "0"])
    _, line = events(out, "changed")
    before, now = line["video_files"].split(" → ")
    assert before.startswith("3 files, ") and now.startswith("3 files, ") and before != now
    before, now = (int(part.split()[2]) for part in line["validation_files"].split(" → "))
    assert now == before + 4 and "image_files" not in line
    (line,) = events(out, "init_ignored")
    assert line["message"].endswith(f"not from --init {tmp_path / 'other'}; another --out starts from that")
    told = capsys.readouterr().out
    assert "event=changed" in told and "video_files=" in told and "event=init_ignored" in told


def test_settings_that_train_nothing_name_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"ClipRunSettings does not say what it trains; use NTPSettings, .* make_stage"
    ):
        ClipRunSettings(procedural=1.0, steps=1, out=tmp_path).make_stage(
            device=torch.device("cpu"), tell=lambda path, why: None
        )


def test_pictures_are_kept_of_the_newest_and_the_best_step(tmp_path: Path) -> None:
    for step in range(1, 16):
        (tmp_path / f"step-{step:08d}").mkdir()
        state.prune_pictures(tmp_path, best_step=2)
    kept = sorted(int(folder.name[-8:]) for folder in tmp_path.iterdir())
    assert kept == [2, *range(16 - state.PICTURES_KEPT, 16)]


def test_clips_are_kept_in_a_quarter_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", (limit,))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=40 * 2**30))
    assert memory.kept_bytes() == memory.MOST_BYTES
    limit.write_text("max\n")
    assert memory.kept_bytes() == memory.MOST_BYTES
    limit.write_text(f"{2**30}\n")
    assert memory.kept_bytes() == 2**28
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert memory.kept_bytes() == 2**27


_UNION = """
from pathlib import Path
import torch
from autogaze.training.ntp import NTPSettings
from autogaze.training.processes import PATIENCE, Processes
processes = Processes(NTPSettings(procedural=1.0, steps=1, device="cpu"))
backend = torch.distributed.group.WORLD._get_backend(processes.device)
assert backend.options._timeout == PATIENCE, backend.options._timeout
del backend
assert processes.union({str(processes.rank): "broken"}) == {"0": "broken", "1": "broken"}
weight = torch.nn.Parameter(torch.ones(1))
weight.sum().backward()
torch.optim.AdamW([weight]).step()
processes.close()
threads = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in threads if "gloo" in name], threads
"""


def test_processes_wait_for_one_another_tell_unreadable_files_and_end_their_threads(tmp_path: Path) -> None:
    (tmp_path / "union.py").write_text(_UNION)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run([*torchrun, tmp_path / "union.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


_BAR = """
from autogaze import terminal
with terminal.CountBar(visible=True) as bar:
    bar.update("", done=1, total=2, words="words")
    bar._bars.refresh()
    bar.say("said")
"""


def test_a_line_is_said_above_the_bar() -> None:
    outer, inner = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", _BAR], stdout=inner, stderr=inner)
    assert process.wait(60) == 0
    os.close(inner)
    shown = os.read(outer, 2**16).decode()
    os.close(outer)
    # Right after the bar's line has been erased.
    assert "\x1b[2Ksaid" in shown


# Configurations and devices


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def mine(): return undefined", r"mine\.py:mine failed: NameError: name 'undefined'"),
        ("def mine(: pass", r"mine\.py:mine failed: SyntaxError"),
        ("import nowhere\ndef mine(): pass", r"mine\.py:mine failed: ModuleNotFoundError: No module named 'nowhere'"),
        ("def mine(): return 3", r"mine\.py:mine gave 3; `autogaze train ntp` needs NTPSettings"),
    ],
)
def test_a_configuration_that_fails_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(TrainingError, match=message):
        load_config("ntp", f"{tmp_path / 'mine.py'}:mine")
    with pytest.raises(SystemExit) as exited:
        main(["train", "ntp", "--config", f"{tmp_path / 'mine.py'}:mine"])
    assert exited.value.code == 2
    assert "a bug" not in capsys.readouterr().err


@pytest.mark.parametrize("what", WHAT)
def test_every_configuration_is_complete(what: str) -> None:
    names = config_names(importlib.import_module(f"autogaze.configs.{what}"))
    assert {"default", "tiny"} <= set(names)
    # What scripts/train_default.py runs.
    assert what == "stop_head" or "bundled" in names
    for name in names:
        assert load_config(what, name).out.parts[0] == "runs"


def test_a_configuration_may_bring_its_own_settings(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from autogaze.training.ntp import NTPSettings\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Mine(NTPSettings):\n"
        "    extra: int = 3\n"
        "def mine() -> Mine:\n"
        "    return Mine(procedural=1.0, steps=1)\n"
    )
    settings = load_config("ntp", f"{tmp_path / 'mine.py'}:mine")
    assert vars(settings)["extra"] == 3
    assert describe("ntp", "mine.py:mine", settings).startswith("The defaults are those of --config mine.py:mine")


def test_help_tells_of_training_and_its_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["--help"], "autogaze train --help"),
        (["train", "--help"], "reconstructor"),
        (["train", "ntp", "--help"], "--config default; there are bundled, default, finetune, paper, tiny"),
    ):
        with pytest.raises(SystemExit) as exited:
            main(words)
        assert exited.value.code == 0
        assert told in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("nonsense", "--device nonsense is not known; give cpu, cuda"),
        ("cuda:x", "--device cuda:x is not known"),
        ("cuda:99", "--device cuda:99 is not there: torch sees"),
        ("cpu:1", "--device cpu:1 is not there"),
    ],
)
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Processes(ntp.NTPSettings(out=tmp_path, procedural=1.0, steps=1, device=device))
