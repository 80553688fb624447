"""What every task is: choosing frames, reading selections, rewards, loss targets, and finding tasks by name."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze.processing_autogaze import AutoGazeImageProcessor
from autogaze.packing import PaddedGaze, pack
from autogaze.tasks.base import Task, TaskOutput, load_task, task_names
from autogaze.tasks.judged import kept_at, last_gaze_targets, padded_gaze, sample_frames

GRID = PatchGrid(scales_px=(8, 16), patch_px=4)  # 4 + 16 patches
LAYOUT = FrameLayout.resized(GRID, height_px=16, width_px=16)


def random_gazes(*, clips: int = 3, frames: int = 5, most: int = 6, seed: int = 0) -> list[Gaze]:
    """Gazes with 0 to ``most`` patches a frame."""
    random = np.random.default_rng(seed)
    gazes = []
    for _ in range(clips):
        count = random.integers(0, most + 1, frames)
        index = np.concatenate([random.permutation(GRID.num_patches)[:n] for n in count])
        gazes.append(Gaze(index=index, count=count, layout=LAYOUT))
    return gazes


def scattered(gazes: list[Gaze], *, seed: int = 0) -> PaddedGaze:
    """The gazes with twice the slots they need, padding anywhere in a frame and pointing anywhere."""
    random = torch.Generator().manual_seed(seed)
    tight, T = pack(gazes), gazes[0].num_frames
    position, padded, count = [], [], []
    for t, (old, hidden) in enumerate(
        zip(
            *(
                part.split(tight.num_gazing_each_frame.tolist(), 1)
                for part in (tight.gazing_pos, tight.if_padded_gazing)
            ),
            strict=True,
        )
    ):
        n = 2 * old.shape[1] + 1
        new = torch.randint(0, 10_000, (len(gazes), n), generator=random)
        mask = torch.ones(len(gazes), n, dtype=torch.bool)
        for b in range(len(gazes)):
            place = torch.randperm(n, generator=random)[: int((~hidden[b]).sum())].sort().values
            new[b, place], mask[b, place] = old[b][~hidden[b]], False
        position.append(new), padded.append(mask), count.append(n)
        assert t < T
    return PaddedGaze(
        gazing_pos=torch.cat(position, 1),
        if_padded_gazing=torch.cat(padded, 1),
        num_gazing_each_frame=torch.tensor(count),
        num_vision_tokens_each_frame=GRID.num_patches,
    )


class MeanColour(Task):
    """Judges frames by how far their mean is from a number that is learned."""

    loss_name = "distance"

    def __init__(self, *, sample_rate: float = 1.0) -> None:
        super().__init__()
        self.recon_sample_rate = sample_rate
        self.level = torch.nn.Parameter(torch.zeros(()))
        self.transform = AutoGazeImageProcessor(size=(16, 16))

    @property
    def grid(self) -> PatchGrid:
        return GRID

    def forward_output(self, inputs, gaze_outputs, frame_idx_to_reconstruct=None, *, generator=None) -> TaskOutput:
        batch = self.batch(inputs, gaze_outputs, frame_idx_to_reconstruct, generator=generator)
        mean_BF = batch.video_BT3HW[:, batch.frame_idx].mean((2, 3, 4))
        return TaskOutput(loss_each_frame=(mean_BF - self.level).abs(), frame_idx=batch.frame_idx, gaze=batch.gaze)


def video(*, clips: int = 3, frames: int = 5) -> Tensor:
    return torch.rand(clips, frames, 3, 16, 16, generator=torch.Generator().manual_seed(0))


# Frames


@pytest.mark.parametrize(
    ("frames", "rate", "count"), [(16, 0.125, 2), (16, 1, 16), (16, 0.01, 1), (1, 0.5, 1), (100, 0.29, 29), (3, 0.5, 1)]
)
def test_sampled_frames_are_different_ones_in_order(frames: int, rate: float, count: int) -> None:
    chosen = sample_frames(frames, rate, generator=torch.Generator().manual_seed(1)).tolist()
    assert len(chosen) == count
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(frames))


def test_every_frame_is_sampled_equally_often_and_a_seed_repeats_it() -> None:
    random = torch.Generator().manual_seed(0)
    draws = torch.stack([sample_frames(16, 0.125, generator=random) for _ in range(2000)])
    times = torch.bincount(draws.flatten(), minlength=16)
    assert times.sum() == 4000
    assert ((times - 250).abs() < 5 * 250**0.5).all()
    again = sample_frames(16, 0.125, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, draws[0])


@pytest.mark.parametrize("rate", [0, -0.5, 1.01, float("nan")])
def test_a_share_of_frames_is_above_zero_and_at_most_one(rate: float) -> None:
    with pytest.raises(ValueError, match="share of frames must be above 0 and at most 1"):
        sample_frames(16, rate)


def test_nothing_cannot_be_sampled() -> None:
    with pytest.raises(ValueError, match="at least one frame, got 0"):
        sample_frames(0, 1.0)


# Selections


def test_every_kind_of_selection_is_the_same_padded_one() -> None:
    gazes = random_gazes()
    expected = pack(gazes)
    for selection in (gazes, tuple(gazes), expected, expected.to_dict(GRID)):
        got = padded_gaze(selection, device="cpu")
        for name in ("gazing_pos", "if_padded_gazing", "num_gazing_each_frame"):
            assert torch.equal(getattr(got, name), getattr(expected, name)), name
    alone = padded_gaze(gazes[0], device="cpu")
    assert torch.equal(alone.gazing_pos, pack(gazes[:1]).gazing_pos)


def test_a_selection_goes_to_the_device_of_the_video() -> None:
    filled = dataclasses.replace(
        pack(random_gazes()), probability=torch.ones(3, pack(random_gazes()).gazing_pos.shape[1])
    )
    moved = padded_gaze(filled, device="meta")
    assert {moved.gazing_pos.device.type, moved.num_gazing_each_frame.device.type} == {"meta"}
    assert moved.probability is not None
    assert moved.probability.device.type == "meta"
    assert padded_gaze(random_gazes(), device="meta").gazing_pos.device.type == "meta"


def test_what_is_no_selection_is_refused() -> None:
    published = pack(random_gazes()).to_dict(GRID)
    with pytest.raises(ValueError, match="lacks 'if_padded_gazing'; give all that the gaze model returns"):
        padded_gaze({name: published[name] for name in published if name != "if_padded_gazing"}, device="cpu")
    with pytest.raises(ValueError, match="frame_sampling_rate must be 1, got 2"):
        padded_gaze({**published, "frame_sampling_rate": 2}, device="cpu")
    for wrong in (3, ["gaze"], "gaze"):
        with pytest.raises(TypeError, match=f"a Gaze or a list of them, got {type(wrong).__name__}"):
            padded_gaze(wrong, device="cpu")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "must be .B, T, 3, H, W. floats, got NoneType"),
        (
            {"video_for_task": torch.zeros(3, 5, 3, 16, 16, dtype=torch.uint8)},
            "floats, got .3, 5, 3, 16, 16. torch.uint8",
        ),
        ({"video_for_task": torch.zeros(3, 3, 16, 16)}, "floats, got .3, 3, 16, 16. torch.float32"),
        ({"video_for_task": torch.zeros(2, 5, 3, 16, 16)}, "2 clips of 5 frames, the selection 3 of 5"),
        ({"video_for_task": torch.zeros(3, 4, 3, 16, 16)}, "3 clips of 4 frames, the selection 3 of 5"),
    ],
)
def test_videos_that_do_not_fit_are_refused(inputs: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeanColour()(inputs, random_gazes())


def test_a_selection_of_another_grid_is_refused_and_says_what_to_do() -> None:
    layout = FrameLayout.resized(PatchGrid(scales_px=(16,), patch_px=4), height_px=16, width_px=16)
    gazes = [Gaze(index=np.zeros(1, np.int64), count=np.array([1, 0, 0, 0, 0]), layout=layout)] * 3
    with pytest.raises(ValueError, match="has 16 patches, one of the task 20; call the gaze model with the task's"):
        MeanColour()({"video_for_task": video()}, gazes)


@pytest.mark.parametrize("frames", [[], [0, 0], [5], [-1], [[1]]])
def test_frames_to_judge_are_different_ones_of_the_video(frames: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"different ones of 0\.\.4, at least one"):
        MeanColour()({"video_for_task": video()}, random_gazes(), frames)


# Rewards and targets


@pytest.mark.parametrize("frame_idx", [[0, 1, 2, 3, 4], [3, 1], [4]])
@pytest.mark.parametrize("padding", ["tight", "scattered"])
def test_rewards_and_targets_are_their_definitions(frame_idx: list[int], padding: str) -> None:
    gazes = random_gazes()
    selection = pack(gazes) if padding == "tight" else scattered(gazes)
    result = MeanColour()({"video_for_task": video()}, selection, torch.tensor(frame_idx))
    loss_BF = video()[:, frame_idx].mean((2, 3, 4))
    torch.testing.assert_close(result.loss, loss_BF.mean(1))
    torch.testing.assert_close(result.reward, -loss_BF)
    assert not result.reward.requires_grad
    assert not result.task_losses.requires_grad
    assert result.loss.requires_grad

    slots = selection.num_gazing_each_frame.tolist()
    assert result.traj_len_each_reward.tolist() == [sum(slots[: t + 1]) for t in frame_idx]
    expected, mask = torch.zeros(3, sum(slots)), torch.zeros(3, sum(slots), dtype=torch.bool)
    for b in range(3):
        for i, t in enumerate(frame_idx):
            real = [n for n in range(sum(slots[:t]), sum(slots[: t + 1])) if not selection.if_padded_gazing[b, n]]
            assert kept_at(selection, torch.tensor(frame_idx))[b, i] == len(real) == gazes[b].count[t]
            if real:
                expected[b, real[-1]], mask[b, real[-1]] = loss_BF[b, i], True
    assert torch.equal(result.task_losses_mask, mask)
    torch.testing.assert_close(result.task_losses, expected)


def test_a_target_is_at_the_last_gaze_that_is_not_padding() -> None:
    """Where the published code marks padding too, and stores losses as whole numbers."""
    padded = torch.tensor([[False, False, True, True, True, True]])
    gaze = PaddedGaze(
        gazing_pos=torch.arange(6)[None],
        if_padded_gazing=padded,
        num_gazing_each_frame=torch.tensor([4, 2]),
        num_vision_tokens_each_frame=20,
    )
    targets = last_gaze_targets(gaze, frame_idx=torch.tensor([0, 1]), loss_BF=torch.tensor([[0.7, 0.9]]))
    assert targets.mask_BN.tolist() == [[False, True, False, False, False, False]]
    torch.testing.assert_close(targets.loss_BN, torch.tensor([[0, 0.7, 0, 0, 0, 0]]))


def test_metrics_count_gazes_and_not_padding() -> None:
    gazes = random_gazes()
    for selection in (pack(gazes), scattered(gazes)):
        result = MeanColour()({"video_for_task": video()}, selection)
        kept = sum(len(gaze.index) for gaze in gazes)
        assert result.metrics["avg_gazing_ratio_per_frame"].item() == pytest.approx(kept / (3 * 5 * 20))
        assert result.metrics["distance"].item() == pytest.approx(video().mean().item(), rel=1e-5)
        assert not any(value.requires_grad for value in result.metrics.values())


def test_a_selection_of_nothing_has_no_target_and_the_reward_of_what_was_seen() -> None:
    gazes = [Gaze(index=np.zeros(0, np.int64), count=np.zeros(5, np.int64), layout=LAYOUT)] * 3
    result = MeanColour()({"video_for_task": video()}, gazes)
    assert result.task_losses.shape == result.task_losses_mask.shape == (3, 0)
    assert result.traj_len_each_reward.tolist() == [0] * 5
    assert result.reward.shape == (3, 5)


def test_frames_are_drawn_from_the_generator() -> None:
    task = MeanColour(sample_rate=0.4)
    draws = [
        task(
            {"video_for_task": video()}, random_gazes(), generator=torch.Generator().manual_seed(seed)
        ).outputs.frame_idx
        for seed in (0, 0, 1, 2, 3)
    ]
    assert len(draws[0]) == 2
    assert torch.equal(draws[0], draws[1])
    assert len({tuple(draw.tolist()) for draw in draws}) > 1


def test_results_can_be_had_by_their_published_names() -> None:
    result = MeanColour()({"video_for_task": video()}, random_gazes())
    for name in ("outputs", "loss", "reward", "traj_len_each_reward", "task_losses", "task_losses_mask", "metrics"):
        assert result[name] is getattr(result, name)
    assert result["outputs"]["frame_idx"] is result.outputs.frame_idx
    for name in ("rewards", "__class__"):
        with pytest.raises(KeyError, match=name):
            result[name]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.loss = torch.zeros(3)


# A new task is one new file


NEW_TASK = """
    from autogaze.tasks.base import Task, TaskOutput


    class {name}(Task):
        transform = None

        grid = None

        def __init__(self, *, grid):
            super().__init__()
            type(self).grid = grid

        def forward_output(self, inputs, gaze_outputs, frame_idx_to_reconstruct=None, *, generator=None):
            batch = self.batch(inputs, gaze_outputs, frame_idx_to_reconstruct, generator=generator)
            loss = batch.video_BT3HW[:, batch.frame_idx].square().mean((2, 3, 4))
            return TaskOutput(loss_each_frame=loss, frame_idx=batch.frame_idx, gaze=batch.gaze)
"""


def check_new_task(task: Task) -> None:
    result = task({"video_for_task": video()}, random_gazes(), [2])
    torch.testing.assert_close(result.loss, video()[:, 2].square().mean((1, 2, 3)))


def test_a_new_file_anywhere_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_tasks.py").write_text(textwrap.dedent(NEW_TASK.format(name="Squares")))
    monkeypatch.syspath_prepend(tmp_path)
    check_new_task(load_task("my_own_tasks:Squares", grid=GRID))
    with pytest.raises(
        ValueError, match=r"'my_own_tasks:Circles' names no class that derives from autogaze.tasks.base"
    ):
        load_task("my_own_tasks:Circles")
    with pytest.raises(ValueError, match="'my_own_tasks:TaskOutput' names no class that derives"):
        load_task("my_own_tasks:TaskOutput")


def test_a_new_file_beside_the_others_is_a_task_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import autogaze.tasks

    (tmp_path / "pixel_squares.py").write_text(textwrap.dedent(NEW_TASK.format(name="PixelSQUARES")))
    (tmp_path / "of_another_name.py").write_text(textwrap.dedent(NEW_TASK.format(name="PixelSquares")))
    monkeypatch.setattr(autogaze.tasks, "__path__", [*autogaze.tasks.__path__, str(tmp_path)])
    assert "pixel_squares" in task_names()
    check_new_task(load_task("pixel_squares", grid=GRID))
    with pytest.raises(ValueError, match="'of_another_name' names no class that derives"):
        load_task("of_another_name", grid=GRID)
    for name in ("pixel_squares", "of_another_name"):
        monkeypatch.delattr(autogaze.tasks, name)
        del sys.modules[f"autogaze.tasks.{name}"]


def test_a_task_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no task 'captions'; legal are .*video_mae_reconstruction, or module:Class"):
        load_task("captions")
    with pytest.raises(ValueError, match=r"no module 'no_such_module.below' to take task 'Captions' from"):
        load_task("no_such_module.below:Captions")


def test_what_a_task_fails_to_import_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_what_is_not_there.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load_task("needs_what_is_not_there:Anything")
