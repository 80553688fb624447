"""Frames and their gazes are found again, whatever chose the frames; a gaze of another video never goes unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autogaze
from autogaze.gaze import Gaze
from autogaze.pipeline import Progress, iter_gaze
from autogaze.replay import GazeMismatchError, GazeReplay
from make_video import moving_frames, numbered_frames, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "steady.mp4", moving_frames(40), fps=30)
    write_video(folder / "short.mp4", moving_frames(24), fps=30)
    write_video(folder / "slow.mp4", moving_frames(40), fps=25)
    write_video(folder / "wide.mp4", moving_frames(40, width_px=80), fps=30)
    write_video(folder / "still.mp4", moving_frames(1), fps=30)
    times_ms = np.cumsum([0, *([20, 20, 90] * 20)])[:40].tolist()
    write_video(folder / "uneven.mkv", moving_frames(40), times_ms=times_ms)
    write_video(folder / "late.mkv", moving_frames(4), times_ms=[0, 33, 67, 2000])
    write_video(folder / "pause.mkv", moving_frames(6), times_ms=[0, 20, 40, 60, 80, 2000])
    write_video(folder / "hurry.mkv", moving_frames(6), times_ms=[0, 1000, 2000, 2010, 2020, 2030])
    return folder


def gaze_of(source: Any, **sampling: Any) -> Gaze:
    return autogaze.gaze(source, model="uniform", ratio=0.1, **sampling)


def replayed(source: Any, gaze: Gaze) -> list[tuple[autogaze.Frames, Gaze]]:
    with GazeReplay(source, gaze=gaze, gaze_name="x.gaze") as replay:
        return list(replay)


class TestReplay:
    @pytest.mark.parametrize("name", ["steady.mp4", "uneven.mkv", "late.mkv", "pause.mkv", "hurry.mkv", "still.mp4"])
    @pytest.mark.parametrize(
        "sampling",
        [
            {},
            {"stride": 3},
            {"stride": 7},
            {"fps": 1},
            {"fps": 10},
            {"fps": 12.5},
            {"fps": 1000},
            {"frames": 1},
            {"frames": 5},
        ],
        ids=str,
    )
    def test_gives_the_frames_that_were_gazed_at(self, folder: Path, name: str, sampling: dict[str, Any]) -> None:
        options: dict[str, Any] = {"model": "uniform", "ratio": 0.1, **sampling}
        wanted = list(iter_gaze(folder / name, **options))
        gaze = Gaze.concatenate([gaze for _, gaze in wanted])
        got = replayed(folder / name, gaze)
        for field in ("rgb", "time_seconds", "number"):
            np.testing.assert_array_equal(
                np.concatenate([getattr(frames, field) for frames, _ in got]),
                np.concatenate([getattr(frames, field) for frames, _ in wanted]),
            )
        assert Gaze.concatenate([gaze for _, gaze in got]).equals(gaze)
        assert all(0 < len(frames) == len(part) <= 16 for frames, part in got)

    def test_of_an_array(self) -> None:
        rgb = numbered_frames(20)
        got = replayed(rgb, gaze_of(rgb, stride=4))
        np.testing.assert_array_equal(np.concatenate([frames.rgb for frames, _ in got]), rgb[::4])

    def test_without_times_every_frame_has_its_gaze(self, folder: Path) -> None:
        gaze = gaze_of(folder / "short.mp4")
        bare = Gaze(index=gaze.index, count=gaze.count, layout=gaze.layout)
        assert Gaze.concatenate([part for _, part in replayed(folder / "short.mp4", bare)]).equals(bare)
        with pytest.raises(GazeMismatchError, match=r"x\.gaze ends after 24 frames, steady goes on at 0\.800 s"):
            replayed(folder / "steady.mp4", bare)

    def test_times_that_another_container_rounds_are_the_same(self, folder: Path) -> None:
        gaze = gaze_of(folder / "steady.mp4")
        rounded = Gaze(index=gaze.index, count=gaze.count, layout=gaze.layout, time_seconds=gaze.time_seconds.round(3))
        assert sum(len(frames) for frames, _ in replayed(folder / "steady.mp4", rounded)) == 40

    @pytest.mark.parametrize(
        ("sampling", "fps"), [({}, 30), ({"stride": 3}, 10), ({"fps": 10}, 10), ({"frames": 1}, 30)]
    )
    def test_rate(self, folder: Path, sampling: dict[str, Any], fps: float) -> None:
        with GazeReplay(folder / "steady.mp4", gaze=gaze_of(folder / "steady.mp4", **sampling)) as replay:
            assert replay.fps == pytest.approx(fps)

    def test_progress_is_told(self, folder: Path) -> None:
        gaze, told = gaze_of(folder / "steady.mp4", stride=2), list[Progress]()
        with GazeReplay(folder / "steady.mp4", gaze=gaze, on_progress=told.append) as replay:
            list(replay)
        assert [progress.frames for progress in told] == [8, 16, 20]
        assert told[-1].expected_frames == 20
        assert told[-1].patches_kept == gaze.num_gazes
        assert told[-1].patches_total == gaze.num_patches


class TestMismatch:
    @pytest.mark.parametrize(
        ("of", "sampling", "video", "message"),
        [
            ("wide.mp4", {}, "steady.mp4", "x.gaze is of frames of 80×48 px, steady has 64×48 px; give the gaze"),
            ("steady.mp4", {}, "short.mp4", "x.gaze has 40 frames, short ends after 24 of them at 0.767 s; give"),
            ("short.mp4", {}, "steady.mp4", "x.gaze ends after 24 frames, steady goes on at 0.800 s; give the gaze"),
            ("short.mp4", {"stride": 4}, "steady.mp4", "x.gaze ends after 6 frames, steady goes on at 0.800 s"),
            ("short.mp4", {"fps": 10}, "steady.mp4", "x.gaze ends after 8 frames, steady goes on at 0.800 s"),
            ("slow.mp4", {}, "steady.mp4", "x.gaze has a frame at 0.040 s, where steady has none; give the gaze"),
            ("uneven.mkv", {}, "steady.mp4", "x.gaze has a frame at 0.020 s, where steady has none"),
        ],
    )
    def test_is_one_clear_error(
        self, folder: Path, of: str, sampling: dict[str, Any], video: str, message: str
    ) -> None:
        with pytest.raises(GazeMismatchError) as raised:
            replayed(folder / video, gaze_of(folder / of, **sampling))
        assert message in str(raised.value)

    def test_a_gaze_of_nothing(self, folder: Path) -> None:
        with pytest.raises(GazeMismatchError, match=r"x\.gaze is of no frame; gaze at the video again"):
            replayed(folder / "steady.mp4", gaze_of(folder / "steady.mp4")[:0])

    def test_one_frame_longer_is_seen_too(self) -> None:
        rgb = moving_frames(21)
        for stride in (1, 2, 5):
            with pytest.raises(GazeMismatchError, match="goes on at"):
                replayed(rgb, gaze_of(rgb[:20], stride=stride))
