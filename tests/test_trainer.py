"""The training loop: what a run leaves, going on, stopping, several processes, errors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autogaze.errors import CheckpointError, TrainingError
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.training.ntp import NTPSettings
from autogaze.training.stopping import stopping_on_signals
from small_models import small_config
from training_samples import (
    all_tensors,
    assert_alike,
    events,
    make_footage,
    newest,
    ntp_settings,
    run,
    same_tensors,
    stop_after,
    trainer,
)

AUTOGAZE = [sys.executable, "-m", "autogaze.cli"]


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_footage(tmp_path_factory.mktemp("footage"))


def words(footage: Path, out: Path, *more: str) -> list[str]:
    """The command line of :func:`ntp_settings`."""
    plain = ["--out", out, "--videos", footage / "videos", "--init", footage / "init", "--batch", 8, "--block", 16]
    rest = ["--warmup-steps", 2, "--peak-lr", 3e-3, "--log-every", 1, "--workers", 0, "--device", "cpu"]
    return ["train", "ntp", *map(str, [*plain, *rest]), *more]


# What a run leaves


def test_a_run_leaves_checkpoints_states_pictures_and_a_log(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path, steps=7, save_steps=2, keep=2))
    for name in ("checkpoint", "best"):
        model = AutoGaze.from_pretrained(tmp_path / name)
        assert model.config.max_num_frames == 4
    assert [folder.name for folder in sorted((tmp_path / "state").iterdir())] == ["step-00000006", "step-00000007"]
    pictures = sorted(path.name for path in (tmp_path / "pictures" / "step-00000007").iterdir())
    assert pictures == ["000-2.canvas.png", "000-2.png", "001-3.canvas.png", "001-3.png"]
    assert [line["step"] for line in events(tmp_path, "step")] == [1, 2, 3, 4, 5, 6, 7]
    assert {line["weights"] for line in events(tmp_path, "validation")} == {"averaged", "latest"}
    assert [line["step"] for line in events(tmp_path, "validation")] == [2, 2, 4, 4, 6, 6, 7, 7]
    assert [Path(line["path"]).name for line in events(tmp_path, "unreadable")] == ["broken-train.mp4"]
    (start,) = events(tmp_path, "start")
    assert start["settings"]["batch"] == 8 and start["processes"] == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_files_have_the_permissions_of_new_ones(footage: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        run(ntp_settings(footage, tmp_path, steps=1))
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"config.json", "model.safetensors", "weights.safetensors"}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(0o640)}


def test_the_best_checkpoint_is_that_of_the_best_validation(footage: Path, tmp_path: Path) -> None:
    # A rate at which it cannot but get worse.
    one = run(ntp_settings(footage, tmp_path, steps=4, save_steps=1, peak_lr=3e-1, average=0.0, warmup_steps=1))
    losses = [line["own_loss"] for line in events(tmp_path, "validation") if line["weights"] == "averaged"]
    assert one.best == min(losses)
    if losses.index(min(losses)) < len(losses) - 1:
        assert not same_tensors(all_tensors(tmp_path / "best"), all_tensors(tmp_path / "checkpoint"))


# Going on


@pytest.mark.parametrize("changes", [{}, {"block": 64, "passes": 3}, {"save_steps": 1}])
def test_four_steps_are_two_and_two(footage: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    run(ntp_settings(footage, tmp_path / "whole", **changes))
    first = trainer(ntp_settings(footage, tmp_path / "parts", **changes))
    stop_after(first, 2)
    first.run()
    run(ntp_settings(footage, tmp_path / "parts", **changes, resume=True))
    assert same_tensors(newest(tmp_path / "whole"), newest(tmp_path / "parts"))
    for name in ("gaze", "head", "grad_norm", "lr", "share"):
        whole, parts = ([line[name] for line in events(tmp_path / part, "step")] for part in ("whole", "parts"))
        assert whole == parts


def test_a_finished_run_does_nothing_more(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path, steps=2))
    before = newest(tmp_path)
    run(ntp_settings(footage, tmp_path, steps=2, resume=True))
    assert same_tensors(before, newest(tmp_path))
    assert len(events(tmp_path, "step")) == 2


def test_a_state_is_not_replaced_by_a_new_run(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path, steps=1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(TrainingError, match=r"holds the state of a run; --resume goes on, another --out starts anew"):
        trainer(ntp_settings(footage, tmp_path, steps=1))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_state_of_another_network_is_refused(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path / "run", steps=1))
    AutoGaze(small_config(group_size=2)).save_pretrained(tmp_path / "other")
    told = r"step-00000001 is damaged or of another model: weights.safetensors .*: 2 of another shape: [^;]*; remove it"
    with pytest.raises(CheckpointError, match=told):
        trainer(ntp_settings(footage, tmp_path / "run", init=str(tmp_path / "other"), resume=True))


def test_a_damaged_state_is_named(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path, steps=2, save_steps=1, validation_clips=0))
    for step, advice in ((2, "remove it to go on from step-00000001"), (1, "remove it to start anew")):
        state = tmp_path / "state" / f"step-{step:08d}"
        weights = state / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(CheckpointError, match=rf"step-{step:08d} is damaged.*{advice}"):
            trainer(ntp_settings(footage, tmp_path, resume=True))
        shutil.rmtree(state)


# Stopping


def test_a_loss_that_is_no_number_stops_and_loses_nothing(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path, steps=1))
    before = newest(tmp_path)
    one = trainer(ntp_settings(footage, tmp_path, steps=4, resume=True))
    with torch.no_grad():
        one.stage.module.gazing_model.connector.pos_embed.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss, .* is not a number at step 1 \(clips of .*\.mp4.*--resume"):
        one.run()
    assert same_tensors(before, newest(tmp_path))
    (line,) = events(tmp_path, "stopped")
    assert line["not_a_number"][0] == "loss"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_run_save_and_a_second_run_ends_it(footage: Path, tmp_path: Path, number: int) -> None:
    command = [*AUTOGAZE, *words(footage, tmp_path / "parts", "--steps", "100000", "--validation-clips", "0")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=_default_interrupts)
    assert process.stdout is not None
    for line in process.stdout:
        if "event=step step=3" in line:
            process.send_signal(number)
            break
    assert "stopped after step" in process.stdout.read()
    assert process.wait(60) == 0
    (progress,) = (tmp_path / "parts" / "state").glob("*/progress.json")
    step = json.loads(progress.read_text())["step"]
    assert step >= 3


def test_a_killed_run_goes_on_from_its_last_state(footage: Path, tmp_path: Path) -> None:
    options = ["--steps", "6", "--save-steps", "1", "--validation-clips", "0"]
    process = subprocess.Popen(
        [*AUTOGAZE, *words(footage, tmp_path / "parts", *options)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "event=step step=3" in line:
            process.kill()
            break
    process.wait(60)
    subprocess.run([*AUTOGAZE, *words(footage, tmp_path / "parts", *options, "--resume", "--quiet")], check=True)
    subprocess.run([*AUTOGAZE, *words(footage, tmp_path / "whole", *options, "--quiet")], check=True)
    assert same_tensors(newest(tmp_path / "whole"), newest(tmp_path / "parts"))


def _default_interrupts() -> None:
    """What a shell's foreground job has; tests may run in the background, where Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_signals_are_given_back() -> None:
    class Run:
        must_stop = False

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with stopping_on_signals(one := Run()):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert one.must_stop
        assert signal.getsignal(signal.SIGTERM) == before[0]  # a second one ends it at once
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


# Several processes


def assert_the_same_run(one: Path, other: Path) -> None:
    assert_alike(one, other, ("loss", "gaze", "head", "head_bias", "grad_norm"))
    weights, same = all_tensors(one / "checkpoint"), all_tensors(other / "checkpoint")
    assert all(float((tensor - same[name]).abs().mean()) < 1e-4 for name, tensor in weights.items())


def test_two_processes_are_one(footage: Path, tmp_path: Path) -> None:
    options = ["--steps", "3", "--passes", "2", "--images", str(footage / "images"), "--save-steps", "1", "--keep", "9"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*torchrun, "-m", "autogaze.cli", *words(footage, tmp_path / "two", *options)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    run(ntp_settings(footage, tmp_path / "one", steps=3, save_steps=1, keep=9))
    (start,) = events(tmp_path / "two", "start")
    assert start["processes"] == 2
    assert_the_same_run(tmp_path / "one", tmp_path / "two")


def test_passes_change_nothing(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path / "one", save_steps=1, keep=9))
    run(ntp_settings(footage, tmp_path / "five", passes=5, save_steps=1, keep=9))
    assert_the_same_run(tmp_path / "one", tmp_path / "five")


# Log


def test_trackers_get_what_the_log_gets(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path, steps=2, trackers=("tensorboard",)))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = next(path.parent for path in tmp_path.rglob("events.out.tfevents.*"))
    read = EventAccumulator(str(folder))
    read.Reload()
    values = [event.value for event in read.Scalars("step/gaze")]
    assert values == pytest.approx([line["gaze"] for line in events(tmp_path, "step")])


def test_an_unknown_tracker_is_refused(footage: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--trackers nothing is not known; known are .*tensorboard"):
        trainer(ntp_settings(footage, tmp_path, trackers=("nothing",)))


# Settings


def test_learning_rate_warms_up_and_decays_to_its_end(tmp_path: Path) -> None:
    s = NTPSettings(procedural=1.0, peak_lr=1e-3, final_lr=1e-5, warmup_steps=10, total_minutes=20)
    assert s.learning_rate(step=0, share=0.0) == pytest.approx(1e-4)
    assert s.learning_rate(step=9, share=0.0) == pytest.approx(1e-3)
    assert s.learning_rate(step=500, share=0.5) == pytest.approx((1e-3 + 1e-5) / 2)
    assert s.learning_rate(step=500, share=1.0) == pytest.approx(1e-5)
    cosine = replace(s, decay="cosine")
    assert cosine.learning_rate(step=500, share=0.25) > s.learning_rate(step=500, share=0.25)
    assert cosine.learning_rate(step=500, share=1.0) == pytest.approx(1e-5)
    assert s.share_done(step=0, seconds=600) == 0.5
    assert s.share_done(step=0, seconds=2000) == 1
    assert replace(s, total_minutes=None, minutes=5, steps=40).share_done(step=10, seconds=1e9) == 0.25
    assert not replace(s, total_minutes=None, minutes=5, steps=40).by_clock
    both = replace(s, steps=40)
    assert both.by_clock
    assert both.share_done(step=10, seconds=60) == 0.25
    assert both.share_done(step=10, seconds=600) == 0.5
    assert replace(s, total_minutes=None, minutes=5).share_done(step=9, seconds=30) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"procedural": 0.0}, "nothing to train on; give folders of --videos"),
        ({"labels": Path("a.json")}, "--labels are of videos; give their folders"),
        (
            {"videos": (Path("a"),)},
            "--procedural 1 draws every clip, and nothing would be learned from --videos",
        ),
        ({"steps": None}, "a run needs an end; give --steps, --minutes or --total-minutes"),
        ({"steps": 0}, "--steps must be above 0 and finite, got 0"),
        ({"batch": 0}, "--batch must be above 0 and finite, got 0"),
        ({"peak_lr": float("nan")}, "--peak-lr must be above 0 and finite, got nan"),
        ({"passes": 65}, "65 passes of a step of 64 clips"),
        ({"reuse": 0}, "--reuse must be at least 1"),
        ({"average": 1.0}, "--average must be at least 0 and below 1"),
        ({"scans": 1.5}, "--scans must be a share"),
        ({"workers": -1}, "--workers must be at least 0"),
        ({"loss_floor": 0.0}, "--loss-floor must be above 0"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"seed": 10**23}, "--seed must be at least 0 and below"),
        ({"peak_lr": float("inf")}, "--peak-lr must be above 0 and finite, got inf"),
        ({"cache_gb": float("inf")}, "--cache-gb must be at least 0 and finite, got inf"),
        ({"cache_gb": float("nan")}, "--cache-gb must be at least 0 and finite, got nan"),
        ({"loss_weight": -1.0}, "--loss-weight must be at least 0 and finite, got -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        NTPSettings(**{"procedural": 1.0, "steps": 1, **changes})
