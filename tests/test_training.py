"""Next-token training from videos to a checkpoint, on a small model."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from autogaze.datasets.stream import ClipShape, LabelledClip
from autogaze.errors import CheckpointError
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.selectors.base import Budget
from autogaze.training import ntp, refiner
from autogaze.training.batch import collate, mirrored
from autogaze.training.ntp import Run
from autogaze.training.objective import score
from autogaze.training.pool import ClipPool
from autogaze.training.settings import NTPSettings, TrainingError
from make_video import moving_frames, write_video
from small_models import small_config
from test_stream import SHAPE, small_clips


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, one file that is none, an image, and a checkpoint with fresh weights."""
    folder = tmp_path_factory.mktemp("footage")
    (folder / "videos").mkdir()
    (folder / "images").mkdir()
    for seed in range(2):
        write_video(folder / "videos" / f"{seed}.mp4", moving_frames(40, height_px=72, width_px=96, seed=seed))
    (folder / "videos" / "broken.mp4").write_bytes(b"no video")
    Image.fromarray(moving_frames(1, height_px=160, width_px=200)[0]).save(folder / "images" / "a.png")
    config = small_config()
    config = replace(config, max_num_frames=4)
    model = AutoGaze(config)
    model.gazing_model.init_weights(torch.Generator().manual_seed(0))
    model.save_pretrained(folder / "init")
    return folder


def settings(footage: Path, out: Path, **changes: Any) -> NTPSettings:
    plain: dict[str, Any] = {
        "out": out,
        "videos": footage / "videos",
        "images": footage / "images",
        "init": str(footage / "init"),
        "steps": 4,
        "minutes": 5.0,
        "batch": 8,
        "pool": 24,
        "warmup_steps": 2,
        "peak_lr": 3e-3,
        "log_every": 1,
        "workers": 0,
        "device": "cpu",
    }
    return NTPSettings(**{**plain, **changes})


def events(out: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == name]


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.parent.name}/{file.name}/{name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def test_learns_and_leaves_a_checkpoint(footage: Path, tmp_path: Path) -> None:
    Run(settings(footage, tmp_path, steps=40, val=footage / "videos", loss_weight=0.1)).train()
    steps = events(tmp_path, "step")
    assert len(steps) == 40
    gaze = [step["gaze"] for step in steps]
    loss = [step["loss"] for step in steps]
    assert np.mean(gaze[-5:]) < 0.9 * np.mean(gaze[:5])
    assert np.mean(loss[-5:]) < 0.5 * np.mean(loss[:5])
    assert [line["path"].rpartition("/")[2] for line in events(tmp_path, "unreadable")] == ["broken.mp4"]
    assert {line["weights"] for line in events(tmp_path, "validation")} == {"averaged", "latest"}
    model = AutoGaze.from_pretrained(tmp_path / "checkpoint")
    assert model.config.positions == "true"
    assert model.gaze(np.zeros((4, 64, 64, 3), np.uint8), ratio=0.3).num_frames == 4


@pytest.mark.parametrize("pool", [16, 64])
def test_four_steps_are_two_and_two(footage: Path, tmp_path: Path, pool: int) -> None:
    # The small pool has lost its first clips when the run stops; the large one has not.
    Run(settings(footage, tmp_path / "whole", pool=pool)).train()
    first = Run(settings(footage, tmp_path / "parts", pool=pool))
    log = first._log_step

    def stop_after_two(*values: Any) -> Any:
        first.must_stop = first.step == 2
        return log(*values)

    first._log_step = stop_after_two  # type: ignore[method-assign]
    first.train()
    Run(settings(footage, tmp_path / "parts", pool=pool, resume=True)).train()
    whole, parts = all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert len({name.split("/")[1] for name in whole}) == 5  # checkpoint, weights, average, two moments
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    for name in ("gaze", "loss", "grad_norm", "lr"):
        assert [e[name] for e in events(tmp_path / "whole", "step")] == [
            e[name] for e in events(tmp_path / "parts", "step")
        ]


def test_fresh_models_have_the_published_shape_and_stop_at_losses_of_the_labels(footage: Path, tmp_path: Path) -> None:
    models = [Run(settings(footage, tmp_path, init=None, seed=seed)).model for seed in (0, 0, 1)]
    assert sum(parameter.numel() for parameter in models[0].parameters()) == 3_258_240
    first, same, other = (model.gazing_model.connector.pos_embed for model in models)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert models[0].budget(None, None, frames=16) == Budget(ratio=0.75, threshold=0.025)
    models[0].save_pretrained(tmp_path / "fresh")
    loaded = AutoGaze.from_pretrained(tmp_path / "fresh")
    assert loaded.config.positions == "true"
    assert loaded.budget(None, None, frames=16) == Budget(ratio=0.75, threshold=0.025)


def test_a_finished_run_does_nothing_more(footage: Path, tmp_path: Path) -> None:
    Run(settings(footage, tmp_path, steps=2)).train()
    before = all_tensors(tmp_path)
    Run(settings(footage, tmp_path, steps=2, resume=True)).train()
    after = all_tensors(tmp_path)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert len(events(tmp_path, "step")) == 2


def test_a_state_is_not_replaced_by_a_new_run(footage: Path, tmp_path: Path) -> None:
    Run(settings(footage, tmp_path, steps=1)).train()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(TrainingError, match=r"holds the state of a run; --resume goes on, another --out starts anew"):
        Run(settings(footage, tmp_path, steps=1))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_files_have_the_permissions_of_new_ones(footage: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        Run(settings(footage, tmp_path, steps=1)).train()
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"config.json", "model.safetensors", "weights.safetensors"}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(0o640)}


def test_sigterm_saves(footage: Path, tmp_path: Path) -> None:
    from autogaze.training.stopping import stopping_on_sigterm

    run = Run(settings(footage, tmp_path, steps=1000))
    log = run._log_step

    def terminate(*values: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return log(*values)

    run._log_step = terminate  # type: ignore[method-assign]
    before = signal.getsignal(signal.SIGTERM)
    with stopping_on_sigterm(run):
        run.train()
    assert json.loads(next((tmp_path / "state").glob("*/progress.json")).read_text())["step"] == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_loss_that_is_no_number_stops_and_loses_nothing(footage: Path, tmp_path: Path) -> None:
    Run(settings(footage, tmp_path, steps=1)).train()
    before = all_tensors(tmp_path)
    run = Run(settings(footage, tmp_path, steps=4, resume=True))
    with torch.no_grad():
        run.model.gazing_model.connector.pos_embed.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"not a number at step 2.*--resume"):
        run.train()
    after = all_tensors(tmp_path)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_damaged_state_is_named(footage: Path, tmp_path: Path) -> None:
    Run(settings(footage, tmp_path, steps=1)).train()
    (weights,) = (tmp_path / "state").glob("*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"step-00000001 is damaged"):
        Run(settings(footage, tmp_path, resume=True))


@pytest.mark.parametrize("command", [ntp, refiner])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--videos", "gone"], "there is no file or folder gone"),
        (["--images", "gone"], "gone: No such file or directory"),
        ([], "nothing to train on; give a folder of --videos, of --images, or both"),
        (["--videos", "gone", "--out", "file"], "file: File exists"),
    ],
)
def test_commands_tell_errors_in_one_line(
    command: ModuleType,
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["training", "--out", "out", "--device", "cpu", *options])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"autogaze: {message}\n"


def test_only_unreadable_videos_end_the_run(tmp_path: Path, footage: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(TrainingError, match=r"none of 100 clips.*broken\.mp4"):
        Run(settings(footage, tmp_path / "out", videos=folder, images=None)).train()


def test_the_loss_is_scored_relative_to_what_it_is(footage: Path, tmp_path: Path) -> None:
    chosen = settings(footage, tmp_path)
    model = AutoGaze.from_pretrained(footage / "init")
    with torch.no_grad():
        model.gazing_model.gaze_decoder.task_loss_prediction_head.weight.zero_()
    clips = small_clips(4)
    batch = collate(torch.from_numpy(np.stack([clip.rgb for clip in clips])), [clip.label for clip in clips])
    target = torch.cat([torch.from_numpy(clip.label.gaze.predicted_loss) for clip in clips])
    relative = target / (target + chosen.loss_floor)
    terms = score(model, batch, chosen)
    torch.testing.assert_close(terms.loss, relative.square().mean())
    torch.testing.assert_close(terms.loss_bias, -relative.mean())


def test_slips_are_read_but_not_learned(footage: Path, tmp_path: Path) -> None:
    model = AutoGaze.from_pretrained(footage / "init")
    (clip,) = small_clips(1)
    rgb = torch.from_numpy(clip.rgb)[None]
    best = np.arange(clip.label.gaze.num_gazes) % 3 > 0
    batch = collate(rgb, [replace(clip.label, best=best)])
    scored = model.score(rgb, [clip.label.gaze])
    terms = score(model, batch, settings(footage, tmp_path))
    torch.testing.assert_close(terms.gaze, -scored.log_probability_BN[0, torch.from_numpy(best)].mean())


def test_learning_rate_warms_up_and_decays_to_its_end(tmp_path: Path) -> None:
    s = NTPSettings(out=tmp_path, images=tmp_path, peak_lr=1e-3, final_lr=1e-5, warmup_steps=10, total_minutes=20)
    assert s.learning_rate(step=0, share=0.0) == pytest.approx(1e-4)
    assert s.learning_rate(step=9, share=0.0) == pytest.approx(1e-3)
    assert s.learning_rate(step=500, share=1.0) == pytest.approx(1e-5)
    assert s.share_done(step=0, seconds=600) == 0.5
    assert s.share_done(step=0, seconds=2000) == 1
    assert replace(s, steps=40).share_done(step=10, seconds=1e9) == 0.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "nothing to train on"),
        ({"batch": 0}, "batch must be above 0, got 0"),
        ({"reuse": 0.5}, "reuse must be at least 1"),
        ({"pool": 8, "batch": 9}, "pool of 8 clips is too small for batches of 9"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        NTPSettings(**{"out": tmp_path, "images": tmp_path, **changes})


# The pool


def test_a_pool_keeps_the_last_clips_and_draws_each_once() -> None:
    pool = ClipPool(4, SHAPE, device="cpu")
    with pytest.raises(ValueError, match="empty"):
        pool.draw(1, np.random.default_rng(0))
    clips = small_clips(6)
    for clip in clips:
        pool.add(clip)
    assert (len(pool), pool.added, pool.oldest_recipe) == (4, 6, clips[2].recipe.number)
    batch = pool.draw(4, np.random.default_rng(1))
    drawn = sorted(int(rgb.long().sum()) for rgb in batch.rgb_BTSSC)
    assert drawn == sorted(int(clip.rgb.astype(int).sum()) for clip in clips[2:])


def test_a_batch_holds_the_labels() -> None:
    clips = small_clips(5)
    batch = collate(torch.from_numpy(np.stack([clip.rgb for clip in clips])), [clip.label for clip in clips])
    frame_N = np.repeat(np.arange(SHAPE.frames), batch.count_T)
    for b, clip in enumerate(clips):
        kept = batch.kept_BN[b].numpy()
        assert np.array_equal(batch.index_BN[b].numpy()[kept], clip.label.gaze.index)
        assert np.array_equal(frame_N[kept], clip.label.gaze.frame)
        assert np.array_equal(batch.loss_BN[b].numpy()[kept], clip.label.gaze.predicted_loss)
        assert np.array_equal(batch.best_BN[b].numpy(), kept & batch.best_BN[b].numpy())
        assert np.array_equal(batch.best_BN[b].numpy()[kept], clip.label.best)


def test_mirroring_twice_changes_nothing_and_moves_columns() -> None:
    grid = SHAPE.grid
    once = mirrored(grid)
    assert np.array_equal(once[once], np.arange(grid.num_patches))
    scale, row, column = grid.locate(np.arange(grid.num_patches))
    other_scale, other_row, other_column = grid.locate(once)
    assert np.array_equal(scale, other_scale) and np.array_equal(row, other_row)
    assert np.array_equal(column + other_column, np.asarray(grid.sides)[scale] - 1)


def test_mirrored_batches_are_labelled_as_mirrored_clips_are() -> None:
    from autogaze.datasets.labels import label_clip

    (clip,) = small_clips(1)
    pool = ClipPool(1, SHAPE, device="cpu")
    pool.add(clip)
    batches = [pool.draw(1, np.random.default_rng(seed)) for seed in range(8)]
    turned = [b for b in batches if not np.array_equal(b.rgb_BTSSC[0].numpy(), clip.rgb)]
    assert 0 < len(turned) < 8
    expected = label_clip(np.ascontiguousarray(clip.rgb[:, :, ::-1]), rule=clip.recipe.rule, grid=SHAPE.grid)
    assert np.array_equal(turned[0].rgb_BTSSC[0].numpy(), clip.rgb[:, :, ::-1])
    assert np.array_equal(turned[0].index_BN[0].numpy(), expected.gaze.index)
    np.testing.assert_allclose(turned[0].loss_BN[0].numpy(), expected.gaze.predicted_loss, atol=2e-4)


def test_a_pool_needs_room() -> None:
    with pytest.raises(ValueError, match="at least 1 clip, got 0"):
        ClipPool(0, ClipShape(grid=SHAPE.grid, frames=1), device="cpu")
    assert isinstance(small_clips(1)[0], LabelledClip)
