"""Training by reward: roll-outs, what they are credited with, and runs of a small model."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from autogaze.cli import main
from autogaze.datasets.labels import LabelRule, label_clip
from autogaze.datasets.recipes import ClipRecipe
from autogaze.datasets.stream import LabelledClip
from autogaze.errors import CheckpointError, TrainingError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.scoring import Policy
from autogaze.selectors.canvas import quality
from autogaze.training.batch import is_mirrored
from autogaze.training.groups import GroupBatch, advantages, relative_errors
from autogaze.training.grpo import CountLabeller, GRPOSettings, GRPOStage
from autogaze.training.rollouts import Limits, Rollouts, limited, member_generator
from autogaze.training.stage import Moment
from make_video import moving_frames
from small_models import small_config
from training_samples import (
    assert_alike,
    assert_same_gradients,
    events,
    make_footage,
    newest,
    run,
    same_tensors,
    stop_after,
    trainer,
)

LOSSES = Path(__file__).parent / "data" / "losses"
LIMITS = Limits(threshold=0.02, max_ratio=0.75, max_gazes=1024)
START = Moment(step=0, share=0.0)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_footage(tmp_path_factory.mktemp("footage"))


def grpo_settings(footage: Path, out: Path, **changes: Any) -> GRPOSettings:
    plain: dict[str, Any] = {
        "out": out,
        "videos": (footage / "videos",),
        "init": str(footage / "init"),
        "steps": 4,
        "batch": 4,
        "block": 8,
        "warmup_steps": 2,
        "peak_lr": 3e-3,
        "log_every": 1,
        "workers": 0,
        "device": "cpu",
        "validation_clips": 1,
        "group": 3,
    }
    return GRPOSettings(**{**plain, **changes})


def words(footage: Path, out: Path, *more: str) -> list[str]:
    """The command line of :func:`grpo_settings`."""
    plain = ["--out", out, "--videos", footage / "videos", "--init", footage / "init", "--batch", 4, "--block", 8]
    rest = ["--warmup-steps", 2, "--peak-lr", 3e-3, "--log-every", 1, "--workers", 0, "--device", "cpu", "--group", 3]
    return ["train", "grpo", *map(str, [*plain, *rest, "--validation-clips", 1, "--passes", 1]), *more]


def status(*words: str) -> object:
    """The exit status of a command line in this process."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            main(["train", "grpo", *words])
    finally:
        signal.signal(signal.SIGTERM, handler)
    return end.value.code


def stage(footage: Path, out: Path, **changes: Any) -> GRPOStage:
    settings = grpo_settings(footage, out, **changes)
    return settings.make_stage(device=torch.device("cpu"), tell=lambda path, message: None)


def clip(number: int, counts: list[int] | None = None) -> LabelledClip[Any]:
    recipe = ClipRecipe(number=number, kind="sprites", seed=0, rule=LabelRule(threshold=0.02))
    rgb = moving_frames(4, height_px=64, width_px=64, seed=number)
    return LabelledClip(recipe=recipe, rgb=rgb, label=None if counts is None else np.array(counts))


def model(positions: Any = "true") -> AutoGaze:
    one = AutoGaze(replace(small_config(), max_num_frames=4, positions=positions))
    one.gazing_model.init_weights(torch.Generator().manual_seed(0))
    return one


def generators(numbers: range, members: range, step: int = 0) -> list[torch.Generator]:
    return [member_generator(seed=0, step=step, number=n, member=m) for m in members for n in numbers]


def pixels(numbers: range) -> torch.Tensor:
    return torch.from_numpy(np.stack([clip(number).rgb for number in numbers]))


# Roll-outs


@pytest.mark.parametrize("positions", ["true", "reference"])
def test_groups_have_the_counts_asked_for_and_the_probabilities_that_are_scored(positions: Any) -> None:
    gazer, count_BT = model(positions), np.array([[7, 1, 3, 5], [2, 6, 6, 1]])
    rollouts = Rollouts(gazer, pixels(range(2)), temperature=0.7)
    gazes = rollouts.draw(count_BT, generators=generators(range(2), range(3)))
    assert [gaze.count.tolist() for gaze in gazes] == 3 * count_BT.tolist()
    assert len({tuple(gaze.index.tolist()) for gaze in gazes}) == 6
    with torch.no_grad():
        scored = gazer.score(pixels(range(2)).repeat(3, 1, 1, 1, 1), gazes, policy=Policy(temperature=0.7))
    first_T = np.cumsum(count_BT.max(0)) - count_BT.max(0)
    for row, gaze in enumerate(gazes):
        assert all(len(set(one.index.tolist())) == len(one.index) for one in gaze)
        slot = first_T[gaze.frame] + gaze.order
        assert scored.log_probability_BN[row, slot].exp().numpy() == pytest.approx(gaze.probability, abs=1e-4)


def test_what_a_member_draws_depends_on_seed_step_recipe_and_member_alone() -> None:
    gazer, count_BT = model(), np.array([[7, 1, 3, 5], [2, 6, 6, 1]])
    together = Rollouts(gazer, pixels(range(2)), temperature=1.0).draw(
        count_BT, generators=generators(range(2), range(3))
    )
    (alone,) = Rollouts(gazer, pixels(range(1, 2)), temperature=1.0).draw(
        count_BT[1:], generators=generators(range(1, 2), range(2, 3))
    )
    assert np.array_equal(alone.index, together[5].index)
    draws = {
        float(torch.rand((), generator=member_generator(seed=a, step=b, number=c, member=d)))
        for a, b, c, d in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    }
    assert len(draws) == 5


def test_counts_follow_the_stop_head_within_the_limits() -> None:
    gazer = model()
    rollouts = Rollouts(gazer, pixels(range(2)), temperature=1.0)

    def counts(threshold: float, **changes: Any) -> np.ndarray:
        limits = Limits(threshold=threshold, **{"max_ratio": 0.75, "max_gazes": 1024, **changes})
        return rollouts.counts(limits, generators=generators(range(2), range(1)))

    assert np.array_equal(counts(1e9), np.ones((2, 4)))
    assert np.array_equal(counts(-1e9), np.full((2, 4), 15))
    assert np.array_equal(counts(-1e9, max_gazes=20), np.full((2, 4), 5))
    drawn = gazer.gaze_batch(
        pixels(range(2)), ratio=0.75, threshold=0.0, temperature=1.0, generator=generators(range(2), range(1))
    )
    assert np.array_equal(counts(0.0), [gaze.count for gaze in drawn])
    assert 1 < counts(0.0).mean() < 15


def test_limited_counts_keep_their_proportions_and_one_gaze() -> None:
    count_BT = np.array([[0, 10, 40, 50], [1, 2, 3, 4]])
    fewer = limited(count_BT, replace(LIMITS, max_gazes=20))
    assert fewer.tolist() == [[1, 1, 7, 9], [1, 2, 3, 4]]
    assert limited(count_BT, replace(LIMITS, max_gazes=1)).tolist() == [[1, 1, 1, 1]] * 2


def test_counts_of_the_greedy_search() -> None:
    labeller = CountLabeller(grid=small_config().grid, thresholds=(0.03, 0.03), limits=LIMITS)
    labeller = pickle.loads(pickle.dumps(labeller))
    one = clip(3)
    expected = label_clip(one.rgb, rule=LabelRule(threshold=0.03), grid=small_config().grid)
    assert np.array_equal(labeller(one.rgb, one.recipe), expected.gaze.count.clip(1))
    labelled = replace(one.recipe, label=label_clip(one.rgb, rule=LabelRule(threshold=0.2), grid=small_config().grid))
    assert labelled.label is not None
    assert np.array_equal(labeller(one.rgb, labelled), labelled.label.gaze.count.clip(1))
    with pytest.raises(ValueError, match="label the videos again for these"):
        labeller(one.rgb[:3], labelled)
    spread = replace(labeller, thresholds=(0.005, 0.2))
    assert len({tuple(spread(one.rgb, replace(one.recipe, number=n)).tolist()) for n in range(6)}) > 1


# Credit


def golden_batch() -> tuple[GroupBatch, dict[str, torch.Tensor], float]:
    """The published implementation's case, as frames that are rewarded among others that are not."""
    info, tensors = json.loads((LOSSES / "index.json").read_text()), load_file(LOSSES / "losses.safetensors")
    G, B, count_T = info["group_size"], info["batch"], tensors["num_gazing_each_frame"]
    loss_RT = torch.rand(G * B, len(count_T), generator=torch.Generator().manual_seed(0))
    loss_RT[:, tensors["reward_frames"]] = -tensors["reward"]
    rewarded_BT = torch.zeros(B, len(count_T), dtype=torch.bool)
    rewarded_BT[:, tensors["reward_frames"]] = True
    batch = GroupBatch(
        rgb_BTSSC=torch.zeros(B, len(count_T), 64, 64, 3, dtype=torch.uint8),
        index_RN=tensors["gazing_pos"],
        kept_RN=~tensors["if_padded_gazing"],
        count_T=tuple(count_T.tolist()),
        temperature=1.0,
        loss_GBT=loss_RT.view(G, B, -1),
        rewarded_BT=rewarded_BT,
    )
    return batch, tensors, info["discount_factor"]


def test_gazes_are_credited_as_published() -> None:
    batch, tensors, discount = golden_batch()
    credit_RN = advantages(batch, discount=discount)
    torch.testing.assert_close(credit_RN, -tensors["grpo_grad_log_action_probs"], atol=1e-5, rtol=1e-5)


def test_clips_may_be_rewarded_for_different_frames() -> None:
    batch, _, _ = golden_batch()
    first, second = batch.rewarded_BT.clone(), batch.rewarded_BT.clone()
    first[1], second[0] = False, False
    parts = [advantages(replace(batch, rewarded_BT=mask_BT), discount=0.9) for mask_BT in (first, second)]
    torch.testing.assert_close(sum(parts), advantages(batch, discount=0.9))
    assert not parts[0][1::2].any() and not parts[1][0::2].any()


def test_losses_are_predicted_at_the_last_gaze_of_rewarded_frames() -> None:
    batch, _, _ = golden_batch()
    G, B, T = batch.loss_GBT.shape
    predicted_RN = torch.full(batch.kept_RN.shape, torch.nan)
    expected_RN = torch.zeros(batch.kept_RN.shape)
    ends = np.cumsum(batch.count_T)
    for row in range(G * B):
        for t in range(T):
            kept = [n for n in range(ends[t] - batch.count_T[t], ends[t]) if batch.kept_RN[row, n]]
            if kept and batch.rewarded_BT[row % B, t]:
                true = batch.loss_GBT[row // B, row % B, t]
                predicted_RN[row, kept[-1]] = 2.0
                expected_RN[row, kept[-1]] = (2.0 - true) / (true + 0.5)
    torch.testing.assert_close(relative_errors(batch, predicted_RN, floor=0.5), expected_RN)


# A pass


def gradients(one: GRPOStage, batch: GroupBatch, units: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    one.module.zero_grad()
    one.terms(batch, one.units(batch) if units is None else units).total.backward()
    return {name: p.grad.clone() for name, p in one.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("scoring", ["policy", "published"])
def test_the_gradient_is_that_of_the_definition(footage: Path, tmp_path: Path, scoring: Any) -> None:
    """Row by row, gaze by gaze: each log-probability times what the gaze is credited with."""
    one = stage(footage, tmp_path, counts="label", scoring=scoring, loss_weight=0.0, first_temperature=0.8)
    batch = one.prepare([clip(0, [3, 1, 2, 4]), clip(1, [1, 4, 2, 2])], START)
    got = gradients(one, batch)
    G, B, T = batch.loss_GBT.shape
    frame_N = np.repeat(np.arange(T), batch.count_T)
    loss = torch.zeros(())
    for row in range(G * B):
        kept = batch.kept_RN[row]
        scored = one.model.gazing_model(
            one.model.preprocess(batch.rgb_BTSSC[row % B][None]),
            batch.index_RN[row, kept][None],
            kept[kept][None],
            [int(kept[frame_N == t].sum()) for t in range(T)],
            policy=Policy(temperature=0.8) if scoring == "policy" else None,
        )
        frame = frame_N[kept.numpy()]
        for gaze, log in enumerate(scored.log_probability_BN[0]):
            for t in range(frame[gaze], T):
                better = batch.loss_GBT[:, row % B, t].mean() - batch.loss_GBT[row // B, row % B, t]
                following = int((frame[gaze + 1 :] <= t).sum())
                loss = loss - log * better / 0.01 * 0.995**following / (G * B)
    one.module.zero_grad()
    loss.backward()
    expected = {name: p.grad for name, p in one.module.named_parameters() if name in got and p.grad is not None}
    assert_same_gradients(expected, {name: got[name] for name in expected})
    assert max(float(value.abs().max()) for value in got.values()) > 0.1


def test_padding_and_other_clips_change_nothing(footage: Path, tmp_path: Path) -> None:
    one = stage(footage, tmp_path, counts="label")
    clips = [clip(0, [3, 1, 2, 4]), clip(1, [1, 4, 2, 2])]
    both = one.prepare(clips, START)
    assert not both.kept_RN.all()
    alone = [one.prepare([single], START) for single in clips]
    assert all(single.kept_RN.all() for single in alone)
    units = one.units(both)
    assert torch.equal(units, sum(one.units(single) for single in alone))
    whole = gradients(one, both)
    parts = [gradients(one, single, units) for single in alone]
    junk = both.index_RN.masked_scatter(~both.kept_RN, torch.arange(10**6, 10**6 + both.kept_RN.numel()))
    padded = gradients(one, replace(both, index_RN=junk))
    assert_same_gradients(whole, {name: parts[0][name] + parts[1][name] for name in whole})
    assert_same_gradients(whole, padded)


def test_a_group_of_equals_teaches_no_gazes(footage: Path, tmp_path: Path) -> None:
    # Two, of which the mean is exact.
    one = stage(footage, tmp_path, counts="label", loss_weight=0.0, group=2)
    batch = one.prepare([clip(0, [3, 1, 2, 4])], START)
    equal = replace(batch, loss_GBT=batch.loss_GBT[:1].expand_as(batch.loss_GBT))
    assert not any(value.any() for value in gradients(one, equal).values())


def test_values_are_what_they_are_called(footage: Path, tmp_path: Path) -> None:
    one = stage(footage, tmp_path, counts="label", rewarded_frames=2)
    batch = one.prepare([clip(0, [3, 1, 2, 4]), clip(1, [1, 4, 2, 2])], START)
    values = dict(zip(one.value_names, one.terms(batch, one.units(batch)).values.tolist(), strict=True))
    loss_GBF = torch.stack([batch.loss_GBT[:, b, mask] for b, mask in enumerate(batch.rewarded_BT)], 1)
    assert loss_GBF.shape == (3, 2, 2)
    assert values["reward"] == pytest.approx(-float(loss_GBF.mean()), rel=1e-5)
    assert values["reward_spread"] == pytest.approx(float(loss_GBF.numpy().std(axis=0).mean()), rel=1e-5)
    assert values["kept"] == pytest.approx(19 / (2 * 4 * 20))
    assert 0 < values["entropy"] < np.log(20)


# What is prepared


def test_rewarded_frames_are_drawn_for_each_clip_and_step(footage: Path, tmp_path: Path) -> None:
    one, clips = stage(footage, tmp_path, rewarded_frames=2), [clip(number) for number in range(4)]
    masks = [one.prepare(clips, Moment(step=step, share=0.0)).rewarded_BT for step in (0, 0, 1)]
    assert all(torch.equal(mask.sum(1), torch.full((4,), 2)) for mask in masks)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert len({tuple(row) for row in masks[0].tolist()}) > 1
    assert stage(footage, tmp_path).prepare(clips[:1], START).rewarded_BT.all()


def test_rows_are_judged_on_the_frames_they_saw(footage: Path, tmp_path: Path) -> None:
    """Also those of half of the steps, which are mirrored."""
    one, clips = stage(footage, tmp_path, counts="label"), [clip(0, [3, 1, 2, 4]), clip(1, [1, 4, 2, 2])]
    layout = FrameLayout.resized(one.model.grid, height_px=64, width_px=64)
    mirrored = [is_mirrored(seed=0, step=step) for step in range(4)]
    assert any(mirrored) and not all(mirrored)
    for step in range(4):
        batch = one.prepare(clips, Moment(step=step, share=0.0))
        for row in range(6):
            single = clips[row % 2]
            shown = single.rgb[:, :, ::-1] if mirrored[step] else single.rgb
            index = batch.index_RN[row, batch.kept_RN[row]].numpy()
            assert np.array_equal(batch.rgb_BTSSC[row % 2].numpy(), shown)
            loss_T = quality(Frames.from_rgb(shown), gaze=Gaze(index=index, count=single.label, layout=layout)).loss
            assert batch.loss_GBT[row // 2, row % 2].numpy() == pytest.approx(loss_T, rel=1e-6)


def test_the_temperature_falls_by_the_same_factor() -> None:
    settings = GRPOSettings(procedural=1.0, steps=1, first_temperature=3.0, last_temperature=0.3)
    assert settings.temperature(0.0) == 3.0
    assert settings.temperature(1.0) == pytest.approx(0.3)
    assert settings.temperature(0.5) == pytest.approx((3.0 * 0.3) ** 0.5)


# Runs


def test_the_reward_rises(footage: Path, tmp_path: Path) -> None:
    run(
        grpo_settings(
            footage, tmp_path, steps=30, block=4, reuse=100, counts="label", group=8, validation_clips=0, peak_lr=5e-3
        )
    )
    reward = [line["reward"] for line in events(tmp_path, "step")]
    assert np.mean(reward[-5:]) > 0.8 * np.mean(reward[:5])  # both are below 0
    assert AutoGaze.from_pretrained(tmp_path / "checkpoint").config.max_num_frames == 4


@pytest.mark.parametrize("changes", [{}, {"counts": "label", "rewarded_frames": 2, "passes": 2, "save_steps": 1}])
def test_four_steps_are_two_and_two(footage: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    run(grpo_settings(footage, tmp_path / "whole", **changes))
    first = trainer(grpo_settings(footage, tmp_path / "parts", **changes))
    stop_after(first, 2)
    first.run()
    run(grpo_settings(footage, tmp_path / "parts", **changes, resume=True))
    assert same_tensors(newest(tmp_path / "whole"), newest(tmp_path / "parts"))
    for name in ("reward", "entropy", "head", "grad_norm"):
        whole, parts = ([line[name] for line in events(tmp_path / part, "step")] for part in ("whole", "parts"))
        assert whole == parts


def test_two_processes_are_one(footage: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    options = ["--steps", "2", "--save-steps", "1", "--keep", "9"]
    command = [*torchrun, "-m", "autogaze.cli", *words(footage, tmp_path / "two", *options)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    run(grpo_settings(footage, tmp_path / "one", steps=2, save_steps=1, keep=9))
    (start,) = events(tmp_path / "two", "start")
    assert start["processes"] == 2
    assert_alike(tmp_path / "one", tmp_path / "two", ("reward", "kept", "entropy", "head", "grad_norm"))


def test_the_tiny_configuration_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--out", str(tmp_path), "--steps", "2", "--log-every", "1", "--counts", "model", "--device", "cpu"]
    assert status("--config", "tiny", *options) == 0
    assert f"checkpoint: {tmp_path / 'checkpoint'}" in capsys.readouterr().out
    assert [line["step"] for line in events(tmp_path, "step")] == [1, 2]
    assert AutoGaze.from_pretrained(tmp_path / "checkpoint").grid.num_patches == 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "none"], "--config 'none' is not there; grpo has bundled, default, finetune, paper, tiny"),
        (["--config", "tiny", "--group", "1"], "--group must be at least 2"),
        (["--config", "tiny", "--judge", "nothing"], "'nothing' is no reconstructor"),
    ],
)
def test_errors_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*words, "--out", str(tmp_path)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


# Errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": 1}, "--group must be at least 2, got 1: rewards are compared within it"),
        ({"discount": 0.0}, "--discount must be above 0 and at most 1, got 0.0"),
        ({"discount": 1.1}, "--discount must be above 0 and at most 1"),
        ({"max_ratio": 1.5}, "--max-ratio must be above 0 and at most 1, got 1.5"),
        ({"first_temperature": 0.0}, "--first-temperature must be above 0, got 0.0"),
        ({"last_temperature": float("nan")}, "--last-temperature must be above 0, got nan"),
        ({"reward_unit": 0.0}, "--reward-unit must be above 0"),
        ({"rewarded_frames": 0}, "--rewarded-frames must be above 0"),
        ({"thresholds": (0.06, 0.012)}, "--thresholds must be two losses above 0, the lower one first"),
        ({"thresholds": (0.0, 0.1)}, "--thresholds must be two losses above 0"),
        ({"steps": None}, "a run needs an end"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        GRPOSettings(**{"procedural": 1.0, "steps": 1, **changes})


def test_what_does_not_fit_the_model_is_refused(footage: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--rewarded-frames must be at most 4, those of a clip, got 5"):
        stage(footage, tmp_path, rewarded_frames=5)
    with pytest.raises(TrainingError, match=r"--judge refined cannot judge clips of 4 frames at scales \(32, 64\)"):
        stage(footage, tmp_path, judge="refined")
    with pytest.raises(CheckpointError, match="'nothing' is no reconstructor"):
        stage(footage, tmp_path, judge="nothing")
