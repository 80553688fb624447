"""One pass over a video: the same gaze in memory and in files, whole or in windows, and nothing half-written."""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import autogaze
from autogaze import results
from autogaze.errors import AutoGazeError, BudgetError, CheckpointError, VideoError
from autogaze.files import OutputError, check_out
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.loading import load_selector
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.calibration import weights_fingerprint
from autogaze.pipeline import GazeStream, Progress, iter_gaze, make_recipe
from autogaze.sampling import Sampling
from autogaze.selectors import make_selector
from autogaze.selectors.base import Budget
from autogaze.summary import Summary, SummaryFileError
from autogaze.video_writer import VideoWriter
from autogaze.visualize import ContactSheet
from calibration_samples import calibration
from small_models import small_config

ENDINGS = [".gaze", ".json", ".overlay.mp4", ".sheet.png"]


def write_video(path: Path, *, num_frames: int = 20, height_px: int = 48, width_px: int = 80, seed: int = 0) -> Path:
    """A small bright square on its way over noise that stands still."""
    rgb = np.random.default_rng(seed).integers(0, 128, (1, height_px, width_px, 3), np.uint8).repeat(num_frames, 0)
    for t in range(num_frames):
        rgb[t, 8:24, 2 * t : 2 * t + 16] = 255
    path.parent.mkdir(exist_ok=True)
    with VideoWriter(path, fps=10, height_px=height_px, width_px=width_px) as writer:
        writer.write(rgb)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "square.mp4")


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestGaze:
    def test_is_what_the_selector_says(self, video: Path) -> None:
        gaze = autogaze.gaze(video, model="difference", ratio=0.1)
        with autogaze.open_video(video, sampling=Sampling(), window_frames=100) as reader:
            (frames,) = reader
        selector = make_selector("difference")
        layout = FrameLayout.tiled(selector.grid, height_px=48, width_px=80)
        assert gaze.equals(selector.open(layout, Budget(ratio=0.1)).step(frames))
        assert gaze.time_seconds is not None
        assert np.allclose(gaze.time_seconds, np.arange(20) / 10, atol=1e-3)

    def test_windows_are_parts_of_the_whole(self, video: Path) -> None:
        windows = list(iter_gaze(video, model="difference", ratio=0.1))
        assert [len(frames) for frames, _ in windows] == [16, 4]
        assert Gaze.concatenate([gaze for _, gaze in windows]).equals(
            autogaze.gaze(video, model="difference", ratio=0.1)
        )

    def test_a_source_can_be_an_array(self) -> None:
        rgb = np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)
        gaze = autogaze.gaze(rgb, model="uniform", ratio=0.1)
        assert (gaze.num_frames, gaze.layout.height_px, gaze.layout.width_px) == (3, 40, 60)

    def test_needs_no_options(self, video: Path) -> None:
        gaze = autogaze.gaze(str(video))
        default = make_selector("replenish").default_budget
        assert gaze.num_frames == 20
        assert gaze.num_gazes > 0
        assert make_recipe().budget == default

    def test_modes_lay_the_grid_differently(self, tmp_path: Path) -> None:
        wide = write_video(tmp_path / "wide.mp4", num_frames=2, width_px=300)
        tiled = autogaze.gaze(wide, model="uniform", ratio=0.1)
        resized = autogaze.gaze(wide, model="uniform", ratio=0.1, mode="resize")
        assert (tiled.layout.num_tiles, resized.layout.num_tiles) == (2, 1)
        assert resized.layout.tile_width_px == 300

    @pytest.mark.parametrize(
        ("sampling", "seconds"),
        [({"stride": 5}, [0, 0.5, 1, 1.5]), ({"fps": 2.0}, [0, 0.5, 1, 1.5]), ({"frames": 2}, [0, 1.9])],
    )
    def test_sampling_chooses_the_frames(self, video: Path, sampling: dict[str, int], seconds: list[float]) -> None:
        gaze = autogaze.gaze(video, model="uniform", ratio=0.1, **sampling)
        assert gaze.time_seconds is not None
        assert np.allclose(gaze.time_seconds, seconds, atol=1e-3)

    def test_a_ratio_for_each_frame(self, video: Path) -> None:
        ratios = [0.2, *[0.05] * 15]
        gaze = autogaze.gaze(video, model="uniform", ratio=ratios)
        layout = gaze.layout
        assert gaze.count.tolist() == [int(layout.num_patches * (ratios * 2)[t]) for t in range(20)]

    def test_progress_counts_to_the_end(self, video: Path) -> None:
        seen: list[Progress] = []
        gaze = autogaze.gaze(video, model="uniform", ratio=0.1, on_progress=seen.append)
        assert [progress.frames for progress in seen] == [16, 20]
        assert seen[-1].expected_frames == 20
        assert (seen[-1].patches_kept, seen[-1].patches_total) == (gaze.num_gazes, gaze.num_patches)

    def test_a_limit_replaces_the_default_budget(self) -> None:
        assert make_recipe(model="replenish", ratio=0.02).budget == Budget(ratio=0.02)
        assert make_recipe(model="replenish", psnr_db=30).budget == Budget(psnr_db=30)
        assert make_recipe(model="uniform", per="clip").budget.per == "clip"

    def test_a_selector_that_is_at_hand_is_used(self, video: Path) -> None:
        selector = make_selector("uniform")
        assert load_selector(selector) is selector
        gaze = autogaze.gaze(video, model=selector, ratio=0.1)
        assert gaze.equals(autogaze.gaze(video, model="uniform", ratio=0.1))

    def test_reading_ahead_of_an_accelerator_changes_nothing(
        self, video: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = make_recipe(model="uniform", ratio=0.1)
        wanted = autogaze.gaze(video, model="uniform", ratio=0.1)
        monkeypatch.setattr("autogaze.pipeline.on_accelerator", lambda selector: True)
        with GazeStream(video, recipe=recipe) as stream:
            got = Gaze.concatenate([gazed for _, gazed in stream])
        assert got.equals(wanted)
        with GazeStream(video, recipe=recipe) as stream:
            windows = iter(stream)
            next(windows)
        assert not [thread for thread in threading.enumerate() if thread.name == "autogaze reader"]

    def test_frames_are_read_where_no_memory_can_be_pinned(self, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = autogaze.gaze(video, model="uniform", ratio=0.1)
        monkeypatch.setattr("autogaze.pipeline.on_accelerator", lambda selector: True)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

        def empty(*args, pin_memory=False, **kwargs):
            assert pin_memory
            raise RuntimeError("CUDA error: out of memory")

        monkeypatch.setattr(torch, "empty", empty)
        with GazeStream(video, recipe=make_recipe(model="uniform", ratio=0.1)) as stream:
            assert Gaze.concatenate([gazed for _, gazed in stream]).equals(wanted)

    @pytest.mark.parametrize("ahead", [False, True])
    def test_who_leaves_off_goes_on_with_the_next_window(
        self, video: Path, monkeypatch: pytest.MonkeyPatch, ahead: bool
    ) -> None:
        monkeypatch.setattr("autogaze.pipeline.on_accelerator", lambda selector: ahead)
        recipe = make_recipe(model="uniform", ratio=0.1)
        with GazeStream(np.zeros((60, 32, 32, 3), np.uint8), recipe=recipe) as stream:
            frames, _ = next(iter(stream))
            time.sleep(0.05)  # what is ahead is ready
            numbers = [*frames.number, *(n for frames, _ in stream for n in frames.number)]
        assert numbers == list(range(60))

    def test_the_source_is_closed_when_the_selector_fails(self, video: Path) -> None:
        with GazeStream(video, recipe=make_recipe(model="uniform", ratio=0.1)) as stream:
            reader = stream.reader
            next(iter(stream))
        assert next(reader, None) is None


class TestErrors:
    def test_a_slip_of_the_pen_gets_a_hint(self) -> None:
        with pytest.raises(CheckpointError, match=r"'bundeld' is no model \(did you mean bundled\?\)"):
            load_selector("bundeld")
        with pytest.raises(CheckpointError, match=r"'\./nowhere' is no model and no such file or folder exists"):
            load_selector("./nowhere")

    @pytest.mark.parametrize("ratio", [0, -1, 7, float("nan"), [0.1, 0.0], []])
    def test_a_ratio_out_of_range(self, video: Path, ratio: float) -> None:
        with pytest.raises(BudgetError, match="ratio must"):
            autogaze.gaze(video, ratio=ratio)

    def test_options_are_checked_before_the_source(self) -> None:
        with pytest.raises(BudgetError):
            iter_gaze("missing.mp4", ratio=7)
        with pytest.raises(BudgetError):  # one that only this selector refuses
            iter_gaze("missing.mp4", model="uniform", psnr_db=30)

    def test_a_mode_that_is_none(self, video: Path) -> None:
        with pytest.raises(ValueError, match='"tiles" or "resize", got \'crop\''):
            autogaze.gaze(video, mode="crop")  # type: ignore[arg-type]

    def test_two_ways_of_sampling(self, video: Path) -> None:
        with pytest.raises(ValueError, match="give one of stride, fps and frames"):
            autogaze.gaze(video, stride=2, fps=1)

    def test_a_missing_source(self) -> None:
        with pytest.raises(VideoError, match=r"missing\.mp4"):
            autogaze.gaze("missing.mp4")

    @pytest.mark.parametrize("model", ["nothing", "", "replenish ", "./no/such/folder", "a/b/c", "\0", "x" * 5000])
    def test_a_model_that_is_none(self, model: str) -> None:
        with pytest.raises(CheckpointError, match=r"is no model.*; legal are replenish, random.*bundled.*hub id"):
            load_selector(model)

    def test_a_file_that_is_no_checkpoint(self, video: Path) -> None:
        with pytest.raises(CheckpointError, match=r"square\.mp4 is no checkpoint; legal is a folder"):
            load_selector(str(video))

    def test_nothing_is_bundled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("autogaze.loading.BUNDLED_FOLDER", tmp_path / "none")
        with pytest.raises(
            CheckpointError, match="no checkpoint is bundled with this version of autogaze; use replenish"
        ):
            load_selector("bundled")

    @pytest.mark.parametrize("device", ["teapot", "cuda:99", "meta", "cpu:99"])
    def test_a_device_that_is_none(self, device: str) -> None:
        with pytest.raises(AutoGazeError, match=f"device '{device}'"):
            load_selector("replenish", device=device)


class TestFiles:
    def test_hold_what_gaze_returns(self, video: Path, tmp_path: Path) -> None:
        out = tmp_path / "new" / "folder"
        summary = autogaze.gaze_to_files(video, out, model="difference", ratio=0.1)
        assert listed(out) == sorted("square" + ending for ending in ENDINGS) == sorted(summary.files)
        gaze = autogaze.gaze(video, model="difference", ratio=0.1)
        assert Gaze.load(out / "square.gaze").equals(gaze)
        assert Summary.load(out / "square.json") == summary
        assert (summary.frames, summary.width_px, summary.height_px, summary.fps) == (20, 80, 48, 10)
        assert (summary.patches_kept, summary.patches_total) == (gaze.num_gazes, gaze.num_patches)
        assert summary.kept_per_frame == tuple(gaze.count.tolist())
        assert summary.settings.model == "difference"
        assert summary.settings.ratio == 0.1
        assert 0 < summary.seconds.decode + summary.seconds.gaze + summary.seconds.write <= summary.seconds.total
        with autogaze.open_video(out / "square.overlay.mp4", sampling=Sampling()) as overlay:
            assert sum(len(frames) for frames in overlay) == 20
            assert overlay.fps == pytest.approx(10)

    def test_the_summary_is_plain_json(self, video: Path, tmp_path: Path) -> None:
        autogaze.gaze_to_files(video, tmp_path, model="uniform", ratio=[0.1] * 16, overlay=False, sheet=False)
        data = json.loads((tmp_path / "square.json").read_text())
        assert data["complete"] is True
        assert data["settings"]["ratio"] == [0.1] * 16
        assert Summary.from_json(data).to_json() == data

    def test_pictures_can_be_left_out(self, video: Path, tmp_path: Path) -> None:
        summary = autogaze.gaze_to_files(video, tmp_path, model="uniform", ratio=0.1, overlay=False, sheet=False)
        assert listed(tmp_path) == ["square.gaze", "square.json"] == sorted(summary.files)

    def test_the_pictures_change_nothing(self, video: Path, tmp_path: Path) -> None:
        autogaze.gaze_to_files(video, tmp_path / "a", model="difference", ratio=0.1)
        autogaze.gaze_to_files(video, tmp_path / "b", model="difference", ratio=0.1, overlay=False, sheet=False)
        assert Gaze.load(tmp_path / "a/square.gaze").equals(Gaze.load(tmp_path / "b/square.gaze"))

    @pytest.mark.parametrize("name", ["", "a/b", "..", "/a", "a\\b", "a\0b"])
    def test_a_name_that_is_a_path_is_refused(self, video: Path, tmp_path: Path, name: str) -> None:
        with pytest.raises(OutputError, match="name must be a plain file name, got"):
            autogaze.gaze_to_files(video, tmp_path / "out", name=name)
        assert listed(tmp_path) == []

    def test_numbers_of_numpy_and_torch_are_numbers(self, video: Path, tmp_path: Path) -> None:
        options = {"ratio": np.float32(0.5), "stride": np.int64(2), "threshold": torch.tensor(0.25)}
        summary = autogaze.gaze_to_files(video, tmp_path, overlay=False, sheet=False, **options)
        assert summary == autogaze.gaze_to_files(
            video, tmp_path, overlay=False, sheet=False, ratio=0.5, stride=2, threshold=0.25
        )
        assert Summary.load(tmp_path / "square.json") == summary
        with pytest.raises(BudgetError, match=r"ratio must be a number, got '0\.1'"):
            autogaze.gaze(video, ratio="0.1")  # type: ignore[arg-type]

    @pytest.mark.parametrize("one", ["v/a.mp4", Path("v/a.mp4")])
    def test_one_source_is_no_list_of_sources(self, tmp_path: Path, one: str) -> None:
        with pytest.raises(TypeError, match="gaze_many takes a list of sources, got one: use "):
            autogaze.gaze_many(one, tmp_path / "out")

    def test_the_sheet_is_titled_with_name_and_selector(self, video: Path, tmp_path: Path) -> None:
        autogaze.gaze_to_files(video, tmp_path, name="mine", model="uniform", ratio=0.1)
        with GazeStream(video, recipe=make_recipe(model="uniform", ratio=0.1)) as stream:
            sheet = ContactSheet(layout=stream.layout, title="mine (uniform)")
            for frames, gaze in stream:
                sheet.add(frames, gaze)
        sheet.save(tmp_path / "expected.png")
        assert (tmp_path / "mine.sheet.png").read_bytes() == (tmp_path / "expected.png").read_bytes()

    def test_files_can_be_read_by_others(self, video: Path, tmp_path: Path) -> None:
        autogaze.gaze_to_files(video, tmp_path, model="uniform", ratio=0.1)
        umask = os.umask(0)
        os.umask(umask)
        for name in listed(tmp_path):
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask, name


class TestSkipping:
    @pytest.fixture
    def done(self, tmp_path: Path) -> Path:
        write_video(tmp_path / "square.mp4", num_frames=3)
        self.again(tmp_path)
        return tmp_path

    def again(self, folder: Path, **options: object) -> bool:
        """Gaze once more; whether anything was written."""
        summary = folder / "out/square.json"
        before = summary.stat().st_mtime_ns if summary.exists() else None
        chosen = {"model": "uniform", "ratio": 0.1} | options
        autogaze.gaze_to_files(folder / "square.mp4", folder / "out", **chosen)  # type: ignore[arg-type]
        return summary.stat().st_mtime_ns != before

    def test_what_is_complete_is_not_done_again(self, done: Path) -> None:
        assert not self.again(done)

    def test_overwriting_does_it_again(self, done: Path) -> None:
        assert self.again(done, overwrite=True)

    @pytest.mark.parametrize(
        "other",
        [
            {"ratio": 0.2},
            {"model": "random"},
            {"mode": "resize"},
            {"stride": 2},
            {"per": "clip"},
            {"ratio": [0.2] * 16},
        ],
    )
    def test_other_settings_do_it_again(self, done: Path, other: dict[str, object]) -> None:
        assert self.again(done, **other)
        assert not self.again(done, **other)

    @pytest.mark.parametrize("named", ["", "model.safetensors"])
    def test_a_calibration_or_a_configuration_that_changed_does_it_again(self, done: Path, named: str) -> None:
        model = AutoGaze(small_config()).eval()
        model.save_pretrained(done / "small")
        options = {"model": done / "small" / named, "threshold": 0.7}
        assert self.again(done, **options)
        assert not self.again(done, **options)
        fitted = calibration((0.4, 0.6), weights=weights_fingerprint(model))
        fitted.save(done / "small")
        assert self.again(done, **options)
        assert not self.again(done, **options)
        config = done / "small/config.json"
        config.write_text(config.read_text() + "\n")
        assert self.again(done, **options)
        assert not self.again(done, **options)

    @pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != ".json"])
    def test_a_file_that_is_gone_does_it_again(self, done: Path, ending: str) -> None:
        (done / f"out/square{ending}").unlink()
        assert self.again(done)

    def test_a_file_that_is_not_asked_for_may_be_gone(self, done: Path) -> None:
        (done / "out/square.sheet.png").unlink()
        assert not self.again(done, sheet=False)

    def test_a_changed_source_does_it_again(self, done: Path) -> None:
        write_video(done / "square.mp4", num_frames=3, seed=1)
        assert self.again(done)

    def test_a_summary_of_another_version_does_it_again(self, done: Path) -> None:
        path = done / "out/square.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
        with pytest.raises(SummaryFileError, match="summary version 0"):
            Summary.load(path)
        assert self.again(done)

    def test_a_json_file_of_another_program_is_kept(self, done: Path) -> None:
        path = done / "out/square.json"
        path.write_text('{"label": "cat"}')
        with pytest.raises(OutputError, match=r"square\.json: not a summary of autogaze; --overwrite replaces"):
            self.again(done)
        assert path.read_text() == '{"label": "cat"}'
        assert self.again(done, overwrite=True)

    def test_a_source_that_was_moved_is_the_same(self, done: Path) -> None:
        (done / "elsewhere").mkdir()
        moved = (done / "square.mp4").rename(done / "elsewhere/square.mp4")
        before = listed(done / "out"), (done / "out/square.json").stat()
        autogaze.gaze_to_files(moved, done / "out", model="uniform", ratio=0.1)
        assert (listed(done / "out"), (done / "out/square.json").stat()) == before

    def test_a_source_named_by_another_path_is_the_same(self, done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(done)
        write_video(done / "square.mp4", num_frames=3, seed=1)
        summary = autogaze.gaze_to_files("square.mp4", done / "out", model="uniform", ratio=0.1)
        assert summary.source == "square.mp4"

    @pytest.mark.parametrize("many", [False, True])
    def test_the_result_of_another_source_is_kept(self, done: Path, many: bool) -> None:
        (done / "b").mkdir()
        other = write_video(done / "b/square.mp4", num_frames=3, seed=1)
        before = {path: path.read_bytes() for path in (done / "out").iterdir()}
        with pytest.raises(
            OutputError, match=r"square\.json is the result of .*/square\.mp4; --overwrite replaces what"
        ):
            if many:
                (outcome,) = autogaze.gaze_many([other], done / "out", model="uniform", ratio=0.1)
                assert outcome.error is not None
                raise outcome.error
            autogaze.gaze_to_files(other, done / "out", model="uniform", ratio=0.1)
        assert {path: path.read_bytes() for path in (done / "out").iterdir()} == before
        again = autogaze.gaze_to_files(other, done / "out", model="uniform", ratio=0.1, overwrite=True)
        assert again.source == str(other)

    @pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != ".json"])
    @pytest.mark.parametrize("source", ["square.mp4", None])
    def test_files_of_others_are_kept(self, video: Path, tmp_path: Path, ending: str, source: str | None) -> None:
        given = np.zeros((2, 20, 20, 3), np.uint8) if source is None else video
        mine = tmp_path / f"square{ending}"
        mine.write_text("my own")
        with pytest.raises(OutputError, match=f"square{ending}: there already and no result of autogaze"):
            autogaze.gaze_to_files(given, tmp_path, name="square", model="uniform", ratio=0.1)
        assert listed(tmp_path) == [mine.name] and mine.read_text() == "my own"
        autogaze.gaze_to_files(given, tmp_path, name="square", model="uniform", ratio=0.1, overwrite=True)
        assert len(listed(tmp_path)) == 4

    def test_a_picture_that_is_not_of_the_result_is_kept(self, done: Path) -> None:
        assert self.again(done, overlay=False, overwrite=True)
        mine = done / "out/square.overlay.mp4"
        assert not mine.exists(), "the overlay of the result that was replaced"
        mine.write_text("my own")
        assert not self.again(done, overlay=False)
        with pytest.raises(OutputError, match=r"square\.overlay\.mp4: there already and no result"):
            self.again(done)

    def test_pictures_can_be_added_later(self, done: Path) -> None:
        assert self.again(done, ratio=0.2, overlay=False, sheet=False)
        assert listed(done / "out") == ["square.gaze", "square.json"]
        assert self.again(done, ratio=0.2)
        assert len(listed(done / "out")) == 4

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_folder_where_a_file_goes(self, video: Path, tmp_path: Path, overwrite: bool) -> None:
        (tmp_path / "square.sheet.png").mkdir()
        with pytest.raises(OutputError, match=r"square\.sheet\.png is a folder"):
            autogaze.gaze_to_files(video, tmp_path, model="uniform", ratio=0.1, overwrite=overwrite)
        assert listed(tmp_path) == ["square.sheet.png"]

    @pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
    def test_two_runs_at_once_do_not_mix(self, video: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        with ThreadPoolExecutor() as pool:
            with results.alone_in(out):  # as another run does while it moves its files
                running = pool.submit(autogaze.gaze_to_files, video, out, model="uniform", ratio=0.1)
                while not list(out.glob(".square.*/square.json")):
                    assert not running.done()
                    time.sleep(0.01)
                time.sleep(0.1)
                assert not running.done() and not list(out.glob("square*"))
            summary = running.result(timeout=60)
        assert listed(out) == sorted(summary.files)


class _Failing:
    """A real selector until the second window."""

    def __init__(self, error: BaseException) -> None:
        self._selector, self._error = make_selector("uniform"), error
        self.name, self.grid = "failing", self._selector.grid
        self.default_budget, self.needs_motion_vectors = Budget(ratio=0.1), False

    def open(self, layout: FrameLayout, budget: Budget) -> "_Failing":
        self.layout, self._session, self._steps = layout, self._selector.open(layout, budget), 0
        return self

    def step(self, frames: Frames) -> Gaze:
        self._steps += 1
        if self._steps == 2:
            raise self._error
        return self._session.step(frames)


class TestFailure:
    @pytest.mark.parametrize("error", [VideoError("x"), OSError(28, "No space left on device"), KeyboardInterrupt()])
    def test_leaves_nothing(self, video: Path, tmp_path: Path, error: BaseException) -> None:
        with pytest.raises(type(error)):
            autogaze.gaze_to_files(video, tmp_path / "a" / "b", model=_Failing(error))
        assert listed(tmp_path) == []

    def test_keeps_an_earlier_result(self, video: Path, tmp_path: Path) -> None:
        summary = autogaze.gaze_to_files(video, tmp_path, model="uniform", ratio=0.1)
        with pytest.raises(VideoError):
            autogaze.gaze_to_files(video, tmp_path, model=_Failing(VideoError("x")))
        assert listed(tmp_path) == sorted(summary.files)
        assert Summary.load(tmp_path / "square.json") == summary

    def test_the_others_are_done(self, video: Path, tmp_path: Path) -> None:
        broken = tmp_path / "text.mp4"
        broken.write_text("not a video")
        missing = tmp_path / "missing.mp4"
        seen: list[str] = []
        outcomes = autogaze.gaze_many(
            [missing, broken, video],
            tmp_path / "out",
            on_outcome=lambda outcome: seen.append(outcome.name),
            model="uniform",
            ratio=0.1,
            overlay=False,
            sheet=False,
        )
        assert seen == ["missing", "text", "square"]
        assert [type(outcome.error) for outcome in outcomes] == [VideoError, VideoError, type(None)]
        assert listed(tmp_path / "out") == ["square.gaze", "square.json"]
        again = autogaze.gaze_many([video], tmp_path / "out", model="uniform", ratio=0.1, overlay=False, sheet=False)
        assert [outcome.skipped for outcome in again] == [True]

    def test_a_full_disk_ends_a_batch(self, video: Path, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="No space"):
            autogaze.gaze_many([video, video], tmp_path, model=_Failing(OSError(28, "No space left on device")))

    def test_a_folder_that_is_a_file(self, video: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for out in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(OutputError, match="file is a file; results need a folder"):
                autogaze.gaze_many([video], out)
            with pytest.raises(OutputError, match="is a file"):
                autogaze.gaze_to_files(video, out)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(OutputError, match="no permission"):
            check_out(tmp_path / "out")
