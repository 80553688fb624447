"""``autogaze calibrate`` on a small model and small videos: what it measures, what it writes, and what it refuses."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from autogaze.cli import main
from autogaze.errors import CheckpointError, VideoError
from autogaze.evaluation.calibrate import LevelRun, calibrate, first_levels, promises_of, run_level
from autogaze.evaluation.calibration_clips import ClipSet, read_clips
from autogaze.evaluation.conformal import CalibrationError, promised_thresholds
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.calibration import CALIBRATION_NAME, Calibration, rounded_up, weights_fingerprint
from autogaze.reconstructors import rebuild
from autogaze.tiling import tile_layout
from make_video import moving_frames, write_video
from small_models import small_config

VIDEOS = 10


@dataclass(frozen=True, kw_only=True)
class Said:
    status: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def autogaze_says(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    handler = signal.getsignal(signal.SIGTERM)

    def run(*words: object) -> Said:
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in words])
        assert isinstance(exit_.value.code, int)
        return Said(status=exit_.value.code, **capsys.readouterr()._asdict())

    yield run
    signal.signal(signal.SIGTERM, handler)


def small(seed: int = 0) -> AutoGaze:
    model = AutoGaze(small_config()).eval()
    model.gazing_model.init_weights(torch.Generator().manual_seed(seed))
    return model


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(VIDEOS):
        frames = moving_frames(6 + seed, height_px=80, width_px=96, seed=seed)
        write_video(folder / f"clip{seed}.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    small().save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def sources(videos: Path) -> list[str]:
    return [str(videos / f"clip{seed}.mkv") for seed in range(VIDEOS)]


@pytest.fixture(scope="module")
def clips(videos: Path) -> ClipSet:
    return read_clips(sources(videos), grid=small().grid, clip_frames=8)


class TestClips:
    def test_a_window_of_each_video_brought_to_one_tile(self, clips: ClipSet) -> None:
        assert [clip.rgb.shape for clip in clips.clips] == [(min(8, 6 + n), 64, 64, 3) for n in range(VIDEOS)]
        assert clips.num_frames == 6 + 7 + 8 * 8

    def test_the_seed_decides(self, videos: Path, clips: ClipSet) -> None:
        def read(seed: int) -> ClipSet:
            return read_clips(sources(videos), grid=small().grid, clip_frames=3, seed=seed)

        assert read(1).sha256() == read(1).sha256()
        assert len({read(seed).sha256() for seed in range(4)}) == 4

    def test_windows_are_drawn_evenly(self, videos: Path) -> None:
        drawn = [
            int(read_clips([str(videos / "clip9.mkv")], grid=small().grid, clip_frames=3, seed=seed).clips[0].number[0])
            for seed in range(60)
        ]
        counts = np.bincount(drawn, minlength=15)
        assert counts[::3].sum() == 60
        assert (counts[::3] >= 5).all()  # of 12 expected

    def test_several_of_one_video_are_different_and_in_order(self, videos: Path) -> None:
        drawn = read_clips([str(videos / "clip9.mkv")], grid=small().grid, clip_frames=3, clips_per_video=4)
        starts = [int(clip.number[0]) for clip in drawn.clips]
        assert starts == sorted(set(starts))
        assert len(starts) == 4
        every = read_clips([str(videos / "clip9.mkv")], grid=small().grid, clip_frames=3, clips_per_video=99)
        assert [int(clip.number[0]) for clip in every.clips] == [0, 3, 6, 9, 12]

    def test_no_more_than_asked_for(self, videos: Path) -> None:
        some = read_clips(sources(videos), grid=small().grid, clip_frames=8, max_clips=4)
        assert len(some) == 4
        lengths = {len(read_clips(sources(videos), grid=small().grid, clip_frames=99, max_clips=1, seed=s).clips[0])
                   for s in range(8)}  # fmt: skip
        assert len(lengths) > 2  # a video has its own length here

    def test_a_tile_is_cut_pixel_for_pixel(self, videos: Path) -> None:
        grid = small().grid
        whole = moving_frames(14, height_px=80, width_px=96, seed=8)
        shapes = set()
        for seed in range(12):
            tiles = read_clips(sources(videos)[8:9], grid=grid, clip_frames=8, mode="tiles", seed=seed)
            clip = tiles.clips[0]
            first = int(clip.number[0])
            corners = [
                whole[first : first + len(clip), top : top + 64, left : left + 64]
                for top in (0, 64)
                for left in (0, 64)
            ]
            assert any(np.array_equal(clip.rgb, corner) for corner in corners)
            shapes.add(clip.rgb.shape[1:3])
            assert tiles.layout(clip, grid).num_tiles == 1
        assert shapes == {(64, 64), (64, 32), (16, 64), (16, 32)}

    def test_what_cannot_be_read_is_told_and_the_rest_is_used(self, videos: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"no video")
        told: list[str] = []
        read = read_clips(
            [str(broken), *sources(videos)[:2]], grid=small().grid, on_error=lambda source, _: told.append(source)
        )
        assert (len(read), told) == (2, [str(broken)])
        with pytest.raises(VideoError):
            read_clips([str(broken)], grid=small().grid)
        with pytest.raises(CalibrationError, match="no clip to calibrate on"):
            read_clips([str(broken)], grid=small().grid, on_error=lambda *_: None)

    @pytest.mark.parametrize("name", ["clips_per_video", "max_clips"])
    def test_numbers_below_1_are_refused(self, name: str) -> None:
        with pytest.raises(CalibrationError, match=f"{name} must be at least 1, got 0"):
            read_clips([], grid=small().grid, **{name: 0})


class TestRuns:
    def test_is_gazing_at_a_threshold_and_rebuilding(self, clips: ClipSet) -> None:
        model = small()
        level = first_levels(model, clips, count=3)[1]
        run = run_level(model, clips, level=level, ratio=0.6)
        for clip, loss, predicted, kept in zip(clips.clips, run.loss, run.predicted, run.kept, strict=True):
            gaze = model.gaze(clip.rgb, threshold=level, ratio=0.6)
            np.testing.assert_array_equal(loss, rebuild(clip, gaze=gaze).loss)
            np.testing.assert_array_equal(kept, gaze.count)
            assert gaze.predicted_loss is not None
            last = gaze.predicted_loss[np.cumsum(gaze.count) - 1]
            np.testing.assert_array_equal(predicted, last.astype(float))

    def test_a_calibration_of_the_model_plays_no_part(self, clips: ClipSet) -> None:
        model = small()
        level = first_levels(model, clips, count=3)[0]
        before = run_level(model, clips, level=level)
        model.calibration = calibrate(model, clips, levels=2, alpha=0.2)
        assert all(map(np.array_equal, before.loss, run_level(model, clips, level=level).loss))

    def test_levels_span_what_the_head_says(self, clips: ClipSet) -> None:
        model = small()
        levels = first_levels(model, clips, count=5)
        assert levels == sorted(set(levels))
        runs = [run_level(model, clips, level=level) for level in (levels[0], levels[-1])]
        kept = [sum(int(count.sum()) for count in run.kept) for run in runs]
        assert kept[0] > 1.5 * kept[1]

    def test_a_head_that_always_says_the_same_is_refused(self, clips: ClipSet) -> None:
        model = small()
        torch.nn.init.zeros_(model.gazing_model.gaze_decoder.task_loss_prediction_head.weight)
        with pytest.raises(CalibrationError, match="says 0 wherever it is asked"):
            first_levels(model, clips, count=3)

    def test_promises_by_hand(self) -> None:
        """Three clips, α = 0.5: the risks may sum to one."""
        strict = LevelRun(
            level=0.1,
            loss=(np.array([0.1, 0.2]), np.array([0.05, 0.05]), np.array([0.3, 0.3])),
            predicted=(np.array([0.1, np.nan]), np.array([0.05, 0.05]), np.array([0.2, 0.0])),
            kept=(np.array([5, 1]), np.array([1, 1]), np.array([2, 2])),
            patches=(10, 10, 10),
        )
        (promise,) = promises_of([strict], alpha=0.5)
        assert (promise.threshold, promise.level) == (0.2, 0.1)
        assert promise.kept_share == pytest.approx(12 / 60)
        assert promise.predicted == pytest.approx(0.4 / 5)
        assert promise.loss == pytest.approx(1.0 / 6)
        assert promise.above_level == pytest.approx(3 / 6)
        assert promise.above_threshold == pytest.approx(2 / 6)


class TestCalibrate:
    def test_promises_hold_on_the_clips_they_were_fitted_on(self, clips: ClipSet) -> None:
        model = small()
        runs: list[LevelRun] = []
        fitted = calibrate(model, clips, alpha=0.3, levels=4, on_run=lambda run, most: runs.append(run))
        assert [promise.level for promise in fitted.promises] == sorted(run.level for run in runs)
        assert fitted.weights == weights_fingerprint(model)
        assert (fitted.clips, fitted.frames) == (10, clips.num_frames)
        runs.sort(key=lambda run: run.level)
        losses = [np.stack(levels) for levels in zip(*(run.loss for run in runs), strict=True)]
        assert [promise.threshold for promise in fitted.promises] == promised_thresholds(losses, alpha=0.3).tolist()
        for promise, run in zip(fitted.promises, runs, strict=True):
            risk = np.mean([(loss > promise.threshold).mean() for loss in run.loss])
            assert (10 * risk + 1) / 11 <= 0.3 + 1e-9

    def test_wanted_thresholds_are_met_more_closely(self, clips: ClipSet) -> None:
        coarse = calibrate(small(), clips, alpha=0.3, levels=2)
        low, high = coarse.lowest_threshold, coarse.highest_threshold
        asked = low + 0.7 * (high - low)
        fine = calibrate(small(), clips, alpha=0.3, levels=6, wanted=(asked,))
        nearest = [min(abs(p.threshold - asked) for p in one.promises) for one in (coarse, fine)]
        assert nearest[1] < 0.3 * nearest[0]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"alpha": 0.05}, "alpha 0.05 can be promised from 19 clips on, got 10"),
            ({"alpha": 1.5}, "alpha must be above 0 and below 1"),
            ({"levels": 1}, "levels must be at least 2, got 1"),
            ({"wanted": (0.1, -0.2)}, "thresholds must be above 0, got 0.1, -0.2"),
        ],
    )
    def test_refuses(self, options: dict[str, object], message: str, clips: ClipSet) -> None:
        with pytest.raises(CalibrationError, match=message):
            calibrate(small(), clips, **options)  # type: ignore[arg-type]


class TestCommand:
    def test_a_calibrated_checkpoint_keeps_its_threshold(
        self, checkpoint: Path, videos: Path, tmp_path: Path, autogaze_says: Command
    ) -> None:
        said = autogaze_says("calibrate", videos, "--model", checkpoint, "--alpha", 0.3, "--levels", 4)
        assert (said.status, said.err) == (0, "")
        assert "4 of 4 at most: stopping at a predicted" in said.out
        assert "10 clips: at most 0.3 of the frames end above a threshold from" in said.out
        assert f"→ {checkpoint}/calibration.json" in said.out
        table = Calibration.load(checkpoint)
        assert table is not None

        # The command line takes it from there.
        asked = table.promises[1].threshold
        words = ("gaze", videos / "clip5.mkv", "--model", checkpoint, "--resize", "--no-overlay", "--no-sheet")
        assert autogaze_says(*words, "--threshold", asked, "--out", tmp_path / "out").status == 0
        frames = Frames.from_rgb(moving_frames(11, height_px=80, width_px=96, seed=5))
        bare = AutoGaze.from_pretrained(checkpoint, calibrated=False)
        expected = [bare.gaze(part, threshold=table.promises[1].level) for part in (frames.rgb[:8], frames.rgb[8:])]
        got = Gaze.load(tmp_path / "out/clip5.gaze")
        assert np.array_equal(got.index, np.concatenate([gaze.index for gaze in expected]))

        between = float(np.sqrt(table.promises[1].threshold * table.promises[2].threshold))
        level = table.level(between)
        assert table.promises[1].level < level < table.promises[2].level
        assert autogaze_says(*words, "--threshold", between, "--out", tmp_path / "out1").status == 0
        expected = [bare.gaze(part, threshold=level) for part in (frames.rgb[:8], frames.rgb[8:])]
        got = Gaze.load(tmp_path / "out1/clip5.gaze")
        assert np.array_equal(got.index, np.concatenate([gaze.index for gaze in expected]))

        refused = autogaze_says(*words, "--threshold", 0.9 * table.lowest_threshold, "--out", tmp_path / "out2")
        assert refused.status == 2
        assert refused.err.count("\n") == 1
        assert "the least that at most 0.3 of the frames pass is" in refused.err
        assert f"lowest_threshold: {rounded_up(table.lowest_threshold):.4g}" in autogaze_says("info", checkpoint).out

    def test_another_use_is_warned_of_in_one_line(
        self, checkpoint: Path, videos: Path, tmp_path: Path, autogaze_says: Command
    ) -> None:
        words = ("--model", checkpoint, "--no-overlay", "--no-sheet", "--quiet", "--threshold")
        some = [videos / "clip1.mkv", videos / "clip2.mkv"]
        assert autogaze_says("calibrate", videos, "--model", checkpoint, "--alpha", 0.3, "--levels", 2).err == ""
        table = Calibration.load(checkpoint)
        assert table is not None
        asked = table.lowest_threshold
        said = autogaze_says("gaze", *some, *words, asked, "--out", tmp_path / "tiles")
        assert said.status == 0
        assert said.err.count("\n") == 1
        assert said.err.startswith("autogaze: warning: the threshold of this model is calibrated for whole frames")
        assert "`autogaze calibrate --tiles`" in said.err
        assert autogaze_says("gaze", *some, *words, asked, "--out", tmp_path / "whole", "--resize").err == ""
        said = autogaze_says("gaze", *some, *words, 9, "--out", tmp_path / "large", "--resize")
        assert (said.status, said.err.count("\n")) == (0, 1)
        assert "warning: threshold 9 is more than this model was calibrated for" in said.err

    def test_out_is_a_complete_copy_and_the_checkpoint_stays_as_it_was(
        self, checkpoint: Path, videos: Path, tmp_path: Path, autogaze_says: Command
    ) -> None:
        words = ("calibrate", videos, "--model", checkpoint / "model.safetensors", "--alpha", 0.3, "--levels", 2)
        out = tmp_path / "new" / "copy"
        said = autogaze_says(*words, "--out", out, "--json")
        assert said.status == 0
        assert sorted(path.name for path in out.iterdir()) == [CALIBRATION_NAME, "config.json", "model.safetensors"]
        assert json.loads(said.out) == json.loads((out / CALIBRATION_NAME).read_text())
        for name in ("config.json", "model.safetensors"):
            assert (out / name).read_bytes() == (checkpoint / name).read_bytes()
        assert not (checkpoint / CALIBRATION_NAME).exists()
        assert AutoGaze.from_pretrained(out).calibration == Calibration.load(out)

        again = autogaze_says(*words, "--out", out)
        assert (again.status, again.out) == (2, "")
        assert "holds calibration.json and config.json and model.safetensors already; --overwrite" in again.err
        before = (out / CALIBRATION_NAME).read_bytes()
        assert autogaze_says(*words, "--out", out, "--overwrite", "--quiet").out == ""
        assert (out / CALIBRATION_NAME).read_bytes() == before  # the same clips, the same seed

    def test_one_bad_video_is_one_line_and_the_rest_is_used(
        self, checkpoint: Path, videos: Path, tmp_path: Path, autogaze_says: Command
    ) -> None:
        (tmp_path / "broken.mp4").write_bytes(b"no video")
        said = autogaze_says(
            *("calibrate", videos, tmp_path / "broken.mp4", "--model", checkpoint, "--alpha", 0.3, "--levels", 2),
            "--quiet",
        )
        assert (said.status, said.out) == (2, "")
        assert said.err.count("\n") == 1
        assert "broken.mp4" in said.err
        table = Calibration.load(checkpoint)
        assert table is not None
        assert table.clips == 10

    def test_tiles_clips_and_thresholds_reach_the_file(
        self, checkpoint: Path, videos: Path, autogaze_says: Command
    ) -> None:
        said = autogaze_says(
            *("calibrate", videos, "--model", checkpoint, "--alpha", 0.4, "--levels", 3, "--tiles", "--seed", 3),
            *("--clips-per-video", 2, "--max-clips", 5, "--thresholds", "0.2,0.3", "--ratio", 0.5, "--json"),
        )
        data = json.loads(said.out)
        assert [data[name] for name in ("alpha", "mode", "seed", "clips", "ratio")] == [0.4, "tiles", 3, 5, 0.5]
        assert data["reconstructor"] == "canvas"
        assert data["versions"]["autogaze"]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--model", "replenish"), "replenish is no gaze model: it has no stop head"),
            (("--model", "bundled"), "bundled belongs to a package or to the hub's store; name a folder with --out"),
            (("--model", "nowhere"), "no checkpoint at nowhere"),
            (("--alpha", "0.01"), "alpha 0.01 can be promised from 99 clips on, got 10 videos"),
            (("--alpha", "2"), "alpha must be above 0 and below 1, got 2"),
            (("--thresholds", "a"), "--thresholds must be numbers with commas between them, got 'a'"),
            (("--tiles", "--resize"), "--tiles and --resize exclude each other"),
            (("--seed", "-1"), "--seed must be at least 0"),
            (("--levels", "1"), "levels must be at least 2, got 1"),
            (("--ratio", "0"), "ratio must be above 0 and at most 1"),
            (("--reconstructor", "canvass"), "'canvass' is no reconstructor"),
            (("--clips-per-video", "0"), "clips_per_video must be at least 1, got 0"),
            (("--device", "abacus"), "device 'abacus' cannot be used on this machine"),
            pytest.param(
                *(("--device", "cuda"), "device 'cuda' cannot be used on this machine"),
                marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has one"),
            ),
        ],
    )
    def test_bad_words_are_one_line(
        self, words: tuple[str, ...], message: str, checkpoint: Path, videos: Path, autogaze_says: Command
    ) -> None:
        model = () if "--model" in words else ("--model", checkpoint)
        said = autogaze_says("calibrate", videos, *model, *words)
        assert (said.status, said.out) == (2, "")
        assert said.err.count("\n") == 1
        assert any(part in said.err for part in message.split("|"))
        assert not (checkpoint / CALIBRATION_NAME).exists()

    def test_a_foreign_calibration_is_refused_by_every_verb(
        self, checkpoint: Path, videos: Path, tmp_path: Path, autogaze_says: Command
    ) -> None:
        assert autogaze_says("calibrate", videos, "--model", checkpoint, "--alpha", 0.3, "--levels", 2).status == 0
        table = (checkpoint / CALIBRATION_NAME).read_text()
        small(seed=1).save_pretrained(checkpoint)
        (checkpoint / CALIBRATION_NAME).write_text(table)
        for words in (("info", checkpoint), ("gaze", videos, "--model", checkpoint, "--out", tmp_path / "out")):
            said = autogaze_says(*words)
            assert said.status == 2
            assert "calibration.json was fitted for other weights than those beside it" in said.err
        with pytest.raises(CheckpointError):
            AutoGaze.from_pretrained(checkpoint)
        again = autogaze_says("calibrate", videos, "--model", checkpoint, "--alpha", 0.3, "--levels", 2, "--overwrite")
        assert again.status == 0
        assert AutoGaze.from_pretrained(checkpoint).calibration is not None


def test_gaze_layout_of_a_resized_clip_is_one_tile(clips: ClipSet) -> None:
    grid = small().grid
    assert {clips.layout(clip, grid) for clip in clips.clips} == {tile_layout(grid)}
