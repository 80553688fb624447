"""Windows, stills, cuts and rides."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from autogaze.datasets.footage import Footage
from autogaze.datasets.motion import cut_clip, scan, window
from autogaze.datasets.recipes import Kind
from clip_samples import recipe
from make_video import moving_frames, noisy_frames


@pytest.mark.parametrize("kind", ["video", "still", "cut", "scan", "whole"])
def test_a_clip_depends_on_seed_and_number_alone(kind: Kind) -> None:
    footage = Footage(rgb=moving_frames(50, height_px=72, width_px=96), fps=30)

    def made(number: int) -> np.ndarray:
        return cut_clip(recipe(kind, number), footage, frames=4, side_px=64)

    assert made(1).shape == (4, 64, 64, 3) and made(1).dtype == np.uint8
    assert np.array_equal(made(1), made(1))
    assert np.array_equal(made(1), made(2)) == (kind == "whole")


def test_still_clips_hold_still_up_to_noise() -> None:
    footage = Footage(rgb=noisy_frames(50, height_px=72, width_px=96), fps=30)
    exact = 0
    for number in range(12):
        clip = cut_clip(recipe("still", number), footage, frames=4, side_px=64).astype(int)
        exact += (clip == clip[0]).all()
        assert np.abs(clip - clip[0]).mean() < 8
    assert 0 < exact < 12


def test_cut_clips_are_cut_once() -> None:
    rgb = np.zeros((200, 64, 64, 3), np.uint8)
    rgb += np.arange(200, dtype=np.uint8)[:, None, None, None]
    for number in range(8):
        levels = cut_clip(recipe("cut", number), Footage(rgb=rgb, fps=5), frames=16, side_px=64).mean((1, 2, 3))
        assert (np.abs(np.diff(levels)) > 3).sum() <= 1


def test_windows_keep_time_in_order_and_leave_frames_out_only_of_fast_videos() -> None:
    rgb = np.zeros((200, 16, 16, 3), np.uint8)
    rgb += np.arange(200, dtype=np.uint8)[:, None, None, None]
    for fps, expected in ((30, {1, 2, 3, 4}), (12, {1, 2}), (5, {1})):
        seen = set()
        for seed in range(40):
            levels = window(Footage(rgb=rgb, fps=fps), np.random.default_rng(seed), frames=16, side_px=16)[:, 0, 0, 0]
            seen |= set(np.diff(levels.astype(int)).tolist())
        assert seen == expected


def test_short_videos_run_back_and_forth() -> None:
    rgb = np.zeros((3, 16, 16, 3), np.uint8)
    rgb += 10 * np.arange(3, dtype=np.uint8)[:, None, None, None]
    clip = cut_clip(recipe("whole"), Footage(rgb=rgb, fps=30), frames=7, side_px=16)
    assert (clip[:, 0, 0, 0] // 10).tolist() == [0, 1, 2, 1, 0, 1, 2]
    one = cut_clip(recipe("whole"), Footage(rgb=rgb[:1], fps=30), frames=3, side_px=16)
    assert one.shape == (3, 16, 16, 3) and not one.any()


def test_whole_clips_are_the_beginning_of_the_video() -> None:
    rgb = moving_frames(40, height_px=72, width_px=96)
    clip = cut_clip(recipe("whole"), Footage(rgb=rgb, fps=30), frames=16, side_px=64)
    for made, source in zip(clip, rgb[::2], strict=False):
        assert np.array_equal(made, np.asarray(Image.fromarray(source).resize((64, 64), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("size", [(40, 300), (300, 40), (64, 64)])
def test_scans_stay_inside_images_of_any_shape(size: tuple[int, int]) -> None:
    rgb = np.full((*size, 3), 200, np.uint8)
    for seed in range(10):
        assert (scan(rgb, np.random.default_rng(seed), frames=5, side_px=32) == 200).all()


def test_scans_move() -> None:
    rgb = moving_frames(1, height_px=400, width_px=400)[0]
    moved = [
        not np.array_equal(*scan(rgb, np.random.default_rng(seed), frames=8, side_px=32)[[0, -1]]) for seed in range(10)
    ]
    assert sum(moved) >= 8
