"""A reconstruction in files is the one in memory, of any source, made once, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import autogaze
from autogaze.errors import AutoGazeError, CheckpointError, GazeFileError, VideoError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.reconstruct_summary import ReconstructionSummary
from autogaze.reconstructors import CanvasReconstructor, Reconstruction, rebuild
from autogaze.reconstructors.video_mae import VideoMAEReconstructor
from autogaze.replay import GazeMismatchError
from autogaze.results import OutputError
from autogaze.summary import ForeignFileError, SummaryFileError
from autogaze.video import find_sources, open_video
from make_video import moving_frames, quarters, write_video
from picture_samples import random_gaze
from video_mae_samples import GRID as SMALL_GRID
from video_mae_samples import small_model

ENDINGS = [".reconstruction.json", ".reconstruction.mp4", ".side-by-side.mp4"]
OPTIONS: dict[str, Any] = {"model": "difference", "ratio": 0.1}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than one window of frames."""
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", moving_frames(20), fps=10)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    source = write_video(folder / "clip.mp4", moving_frames(3), fps=10)
    autogaze.gaze_to_files(source, folder / "g", overlay=False, sheet=False, **OPTIONS)
    autogaze.reconstruct_to_files(source, folder / "out", gaze=folder / "g")
    return folder


@pytest.fixture
def done(made: Path, tmp_path: Path) -> Path:
    """A folder with a source, its gaze and its reconstruction."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def decoded(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def whole(source: Any) -> Frames:
    with open_video(source, window_frames=1000) as reader:
        (frames,) = reader
    return frames


class TestResult:
    def test_is_that_in_memory(self, video: Path, tmp_path: Path) -> None:
        summary = autogaze.reconstruct_to_files(video, tmp_path, **OPTIONS)
        frames, gaze = whole(video), autogaze.gaze(video, **OPTIONS)
        wanted = rebuild(frames, gaze=gaze)
        squared = np.square(frames.rgb.astype(float) - wanted.rgb).mean((1, 2, 3))
        assert summary.loss_per_frame == tuple(wanted.loss)
        assert summary.loss_mean == pytest.approx(wanted.loss.mean())
        assert (summary.loss_worst, summary.worst_frame) == (wanted.loss.max(), wanted.loss.argmax())
        assert summary.psnr_db_per_frame == pytest.approx(10 * np.log10(255**2 / squared))
        assert summary.psnr_db == pytest.approx(10 * np.log10(255**2 / squared.mean()))
        assert summary.kept_per_frame == tuple(gaze.count.tolist())
        assert (summary.reconstructor, summary.loss_unit) == ("canvas", CanvasReconstructor.loss_unit)
        assert listed(tmp_path) == sorted(summary.files) == [f"clip{ending}" for ending in ENDINGS]
        pictures = decoded(tmp_path / "clip.reconstruction.mp4")
        assert pictures.shape == wanted.rgb.shape
        assert np.abs(pictures.astype(int) - wanted.rgb).mean() < 6
        assert len(decoded(tmp_path / "clip.side-by-side.mp4")) == 20

    def test_is_the_same_from_a_model_a_file_a_folder_and_an_object(self, done: Path) -> None:
        gazes: dict[str, Any] = {
            "model": None,
            "file": done / "g/clip.gaze",
            "folder": str(done / "g"),
            "object": Gaze.load(done / "g/clip.gaze"),
        }
        for name, gaze in gazes.items():
            options = OPTIONS if gaze is None else {}
            summary = autogaze.reconstruct_to_files(done / "clip.mp4", done / name, gaze=gaze, **options)
            settings = summary.settings
            assert (settings.selector is None, settings.gaze_fingerprint is None) == (name != "model", name == "model")
            assert settings.gaze_file == (str(done / "g/clip.gaze") if name in ("file", "folder") else None)
            for ending in ENDINGS[1:]:
                one, other = (decoded(done / folder / f"clip{ending}") for folder in (name, "model"))
                difference = one.astype(np.int16) - other
                assert np.abs(difference).mean() < 1, "but for how the encoder's threads ran"

    def test_seconds_add_up(self, video: Path, tmp_path: Path) -> None:
        seconds = autogaze.reconstruct_to_files(video, tmp_path, **OPTIONS).seconds
        parts = (seconds.decode, seconds.gaze, seconds.reconstruct, seconds.write)
        assert all(part > 0 for part in parts)
        assert sum(parts) <= seconds.total

    def test_summary_comes_back_from_its_file(self, video: Path, tmp_path: Path) -> None:
        summary = autogaze.reconstruct_to_files(video, tmp_path, **OPTIONS | {"ratio": [0.1] * 16})
        assert ReconstructionSummary.load(tmp_path / "clip.reconstruction.json") == summary
        data = json.loads((tmp_path / "clip.reconstruction.json").read_text())
        assert (data["format"], data["complete"]) == ("autogaze-reconstruction", True)
        assert data["settings"]["selector"]["ratio"] == [0.1] * 16

    def test_an_exact_reconstruction_has_no_psnr(self, tmp_path: Path) -> None:
        rgb = np.full((3, 40, 40, 3), 128, np.uint8)
        layout = FrameLayout.tiled(autogaze.PatchGrid(), height_px=40, width_px=40)
        gaze = Gaze.from_mask(np.broadcast_to(layout.inside, (3, layout.num_indices)), layout)
        summary = autogaze.reconstruct_to_files(rgb, tmp_path, gaze=gaze)
        assert (summary.psnr_db, summary.psnr_db_per_frame, summary.loss_mean) == (None, (None,) * 3, 0)
        assert ", exact, mean loss 0.0000 (canvas)" in summary.headline()
        assert "Infinity" not in (tmp_path / "video.reconstruction.json").read_text()

    def test_without_the_side_by_side_video(self, video: Path, tmp_path: Path) -> None:
        summary = autogaze.reconstruct_to_files(video, tmp_path, side_by_side=False, **OPTIONS)
        assert listed(tmp_path) == sorted(summary.files) == ["clip.reconstruction.json", "clip.reconstruction.mp4"]

    def test_by_a_network(self, tmp_path: Path) -> None:
        layout = FrameLayout.tiled(SMALL_GRID, height_px=50, width_px=70)
        frames = Frames.from_rgb(np.random.default_rng(0).integers(0, 256, (18, 50, 70, 3), dtype=np.uint8))
        gaze = random_gaze(layout, num_frames=18, share=0.3)
        reconstructor = VideoMAEReconstructor(small_model(), name="small")
        summary = autogaze.reconstruct_to_files(
            frames.rgb,
            tmp_path,
            gaze=Gaze(index=gaze.index, count=gaze.count, layout=layout),
            reconstructor=reconstructor,
        )
        wanted = rebuild(frames, gaze=gaze, reconstructor=reconstructor)
        assert summary.loss_per_frame == pytest.approx(wanted.loss, abs=1e-5)
        assert summary.reconstructor == "small"


class TestSources:
    @pytest.mark.parametrize(("height_px", "width_px"), [(49, 65), (96, 40), (16, 16), (2, 230), (230, 2)])
    def test_of_odd_and_tall_frames(self, tmp_path: Path, height_px: int, width_px: int) -> None:
        rgb = np.random.default_rng(0).integers(0, 256, (3, height_px, width_px, 3), dtype=np.uint8)
        summary = autogaze.reconstruct_to_files(rgb, tmp_path, **OPTIONS)
        assert (summary.height_px, summary.width_px, summary.frames) == (height_px, width_px, 3)
        pictures = decoded(tmp_path / "video.reconstruction.mp4")
        assert pictures.shape == (3, height_px + height_px % 2, width_px + width_px % 2, 3)

    def test_of_one_frame(self, tmp_path: Path) -> None:
        summary = autogaze.reconstruct_to_files(moving_frames(1), tmp_path, **OPTIONS)
        assert summary.headline().startswith("1 frame, ")
        assert len(decoded(tmp_path / "video.side-by-side.mp4")) == 1

    def test_resized(self, video: Path, tmp_path: Path) -> None:
        summary = autogaze.reconstruct_to_files(video, tmp_path, mode="resize", **OPTIONS)
        assert (summary.tile_rows, summary.tile_columns, summary.frames) == (1, 1, 20)

    def test_that_is_turned_stands_upright(self, tmp_path: Path) -> None:
        source = write_video(tmp_path / "turned.mp4", [quarters()] * 3, rotation=90)
        autogaze.gaze_to_files(source, tmp_path / "g", overlay=False, sheet=False, model="replenish", ratio=1)
        autogaze.reconstruct_to_files(source, tmp_path / "out", gaze=tmp_path / "g")
        pictures = decoded(tmp_path / "out/turned.reconstruction.mp4")
        assert pictures.shape[1:] == (64, 48, 3)
        assert np.abs(pictures[-1].astype(int) - whole(source).rgb[-1]).mean() < 10

    def test_of_a_variable_rate_with_sound(self, tmp_path: Path) -> None:
        times_ms = [0, 20, 140, 160, 300, 320, 330, 500, 1000, 1020]
        source = write_video(tmp_path / "uneven.mkv", moving_frames(10), times_ms=times_ms, audio=True)
        autogaze.gaze_to_files(source, tmp_path / "g", overlay=False, sheet=False, stride=3, **OPTIONS)
        summary = autogaze.reconstruct_to_files(source, tmp_path / "out", gaze=tmp_path / "g")
        assert (summary.frames, summary.last_seconds) == (4, 1.02)
        assert summary.fps == pytest.approx(3 / 1.02)
        decoded(tmp_path / "out/uneven.reconstruction.mp4")  # looks for sound

    def test_results_are_no_sources(self, done: Path) -> None:
        shutil.copy(done / "clip.mp4", done / "out/other.mp4")
        assert find_sources([str(done / "out")]) == [str(done / "out/other.mp4")]
        (done / "out/clip.reconstruction.json").unlink()
        assert len(find_sources([str(done / "out")])) == 3, "without their summary they are videos like others"

    def test_of_images_are_the_same_after_results_came_among_them(self, tmp_path: Path) -> None:
        from PIL import Image

        for number, rgb in enumerate(moving_frames(3)):
            Image.fromarray(rgb).save(tmp_path / f"{number}.png")
        for skipped in (False, True):
            (outcome,) = autogaze.reconstruct_many([tmp_path], tmp_path, **OPTIONS)
            assert (outcome.error, outcome.skipped) == (None, skipped)


class TestSkipping:
    def again(self, done: Path, **options: Any) -> bool:
        """Whether the result was made anew."""
        options = {"gaze": done / "g"} | options
        (outcome,) = autogaze.reconstruct_many([done / "clip.mp4"], done / "out", **options)
        if outcome.error is not None:
            raise outcome.error
        return not outcome.skipped

    def test_what_is_complete_is_not_done_again(self, done: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in (done / "out").iterdir()}
        assert not self.again(done)
        assert {path: path.stat().st_mtime_ns for path in (done / "out").iterdir()} == before
        assert self.again(done, overwrite=True)

    def test_another_gaze_does_it_again(self, done: Path) -> None:
        autogaze.gaze_to_files(done / "clip.mp4", done / "g", overlay=False, sheet=False, model="uniform", ratio=0.2)
        assert self.again(done)
        assert not self.again(done)
        assert self.again(done, gaze=None, **OPTIONS)
        assert not self.again(done, gaze=None, **OPTIONS)
        assert self.again(done, gaze=None, **OPTIONS | {"ratio": 0.2})

    def test_a_gaze_that_was_moved_is_the_same(self, done: Path) -> None:
        (done / "g").rename(done / "h")
        assert not self.again(done, gaze=done / "h/clip.gaze")

    def test_objects_are_never_the_same(self, done: Path) -> None:
        assert self.again(done, reconstructor=CanvasReconstructor())
        assert self.again(done, reconstructor=CanvasReconstructor())
        assert self.again(done, gaze=Gaze.load(done / "g/clip.gaze"))

    def test_another_reconstructor_does_it_again(self, done: Path) -> None:
        small = {"reconstructor": _Grey()}
        assert self.again(done, **small)
        assert ReconstructionSummary.load(done / "out/clip.reconstruction.json").reconstructor == "grey"
        assert self.again(done)

    @pytest.mark.parametrize("ending", ENDINGS[1:])
    def test_a_file_that_is_gone_does_it_again(self, done: Path, ending: str) -> None:
        (done / f"out/clip{ending}").unlink()
        assert self.again(done)

    def test_a_video_that_is_not_asked_for_goes(self, done: Path) -> None:
        assert not self.again(done, side_by_side=False)
        assert self.again(done, side_by_side=False, overwrite=True)
        assert "clip.side-by-side.mp4" not in listed(done / "out")
        assert self.again(done)
        assert len(listed(done / "out")) == 3

    def test_lives_beside_the_gaze(self, done: Path) -> None:
        autogaze.reconstruct_to_files(done / "clip.mp4", done / "g", gaze=done / "g")
        assert listed(done / "g") == sorted(["clip.gaze", "clip.json", *(f"clip{ending}" for ending in ENDINGS)])
        (outcome,) = autogaze.gaze_many([done / "clip.mp4"], done / "g", overlay=False, sheet=False, **OPTIONS)
        assert outcome.skipped

    def test_files_of_others_are_kept(self, done: Path) -> None:
        for ending in ENDINGS[1:]:
            folder = done / f"mine{ending}"
            folder.mkdir()
            (folder / f"clip{ending}").write_text("my own")
            with pytest.raises(OutputError, match="there already and no result of autogaze; --overwrite replaces"):
                autogaze.reconstruct_to_files(done / "clip.mp4", folder, gaze=done / "g")
            assert (folder / f"clip{ending}").read_text() == "my own"

    def test_a_json_file_of_another_program_is_kept(self, done: Path) -> None:
        path = done / "out/clip.reconstruction.json"
        for text in ('{"label": "cat"}', (done / "g/clip.json").read_text()):
            path.write_text(text)
            with pytest.raises(OutputError, match=r"reconstruction\.json: not a reconstruction of autogaze; --over"):
                self.again(done)
            with pytest.raises(ForeignFileError):
                ReconstructionSummary.load(path)
            assert path.read_text() == text

    def test_a_damaged_summary_does_it_again(self, done: Path) -> None:
        path = done / "out/clip.reconstruction.json"
        data = json.loads(path.read_text())
        for change in ({"version": 0}, {"settings": {"gaze_file": 1}}, {"seconds": None}):
            path.write_text(json.dumps(data | change))
            with pytest.raises(SummaryFileError):
                ReconstructionSummary.load(path)
            assert self.again(done)


class _Grey:
    """Rebuilds everything as grey; fails at some step if it is told to."""

    name, loss_unit = "grey", "none"

    def __init__(self, error: BaseException | None = None, *, at_step: int = 2) -> None:
        self._error, self._at_step = error, at_step

    def open(self, layout: FrameLayout) -> _Grey:
        self.layout, self._steps = layout, 0
        return self

    def step(self, frames: Frames, gaze: Gaze) -> Reconstruction:
        self._steps += 1
        if self._error is not None and self._steps == self._at_step:
            raise self._error
        return Reconstruction(rgb=np.full_like(frames.rgb, 128), loss=np.zeros(len(frames)))


class TestFailure:
    @pytest.mark.parametrize("error", [AutoGazeError("x"), OSError(28, "No space left on device"), KeyboardInterrupt()])
    def test_leaves_nothing(self, video: Path, tmp_path: Path, error: BaseException) -> None:
        with pytest.raises(type(error)):
            autogaze.reconstruct_to_files(video, tmp_path / "a/b", reconstructor=_Grey(error), **OPTIONS)
        assert listed(tmp_path) == []

    def test_keeps_an_earlier_result(self, done: Path) -> None:
        before = {path: path.read_bytes() for path in (done / "out").iterdir()}
        with pytest.raises(AutoGazeError):
            autogaze.reconstruct_to_files(
                done / "clip.mp4", done / "out", gaze=done / "g", reconstructor=_Grey(AutoGazeError("x"), at_step=1)
            )
        assert {path: path.read_bytes() for path in (done / "out").iterdir()} == before

    def test_a_gaze_of_another_video_leaves_nothing(self, video: Path, tmp_path: Path) -> None:
        short = autogaze.gaze(moving_frames(18), **OPTIONS)
        bare = Gaze(index=short.index, count=short.count, layout=short.layout)
        with pytest.raises(GazeMismatchError, match=r"the gaze ends after 18 frames, clip goes on at 1\.800 s"):
            autogaze.reconstruct_to_files(video, tmp_path / "out", gaze=bare)
        assert listed(tmp_path) == []

    def test_a_gaze_of_another_file_of_equal_times_is_told(self, done: Path) -> None:
        copy = shutil.copyfile(done / "clip.mp4", done / "copy.mp4")
        gaze = done / "g" / "clip.gaze"
        assert autogaze.reconstruct_to_files(copy, done / "again", gaze=gaze).warnings == ()
        other = write_video(done / "other.mp4", moving_frames(3, seed=9), fps=10)
        (warning,) = autogaze.reconstruct_to_files(other, done / "again", gaze=gaze).warnings
        then, now = (f"1 files, {path.stat().st_size} bytes" for path in (copy, other))
        assert warning.startswith(f"{gaze} was made of ") and f"clip.mp4 ({then}), this source has {now};" in warning
        (done / "g" / "clip.json").unlink()
        assert autogaze.reconstruct_to_files(other, done / "bare", gaze=gaze).warnings == ()

    def test_the_others_are_done(self, done: Path) -> None:
        other = write_video(done / "other.mp4", moving_frames(3))
        wide = write_video(done / "wide.mp4", moving_frames(3, width_px=80), fps=10)
        shutil.copy(done / "g/clip.gaze", done / "g/wide.gaze")
        (done / "g/text.gaze").write_text("no gaze")
        text = write_video(done / "text.mp4", moving_frames(3))
        sources = [done / "missing.mp4", other, wide, text, done / "clip.mp4"]
        shutil.copy(done / "g/clip.gaze", done / "g/missing.gaze")
        seen: list[str] = []
        outcomes = autogaze.reconstruct_many(
            sources, done / "many", gaze=done / "g", on_outcome=lambda outcome: seen.append(outcome.name)
        )
        assert seen == ["missing", "other", "wide", "text", "clip"]
        errors = [type(outcome.error) for outcome in outcomes]
        assert errors == [VideoError, GazeFileError, GazeMismatchError, GazeFileError, type(None)]
        assert str(outcomes[1].error).startswith(f"there is no gaze {done}/g/other.gaze; `autogaze gaze {other} --out")
        assert listed(done / "many") == [f"clip{ending}" for ending in ENDINGS]

    def test_gazes_in_a_folder_are_named_as_their_results_are(self, video: Path, tmp_path: Path) -> None:
        sources = [tmp_path / "a/x.mp4", tmp_path / "b/x.mp4"]
        for number, source in enumerate(sources):
            source.parent.mkdir()
            write_video(source, moving_frames(3, seed=number))
        autogaze.gaze_many(sources, tmp_path / "g", overlay=False, sheet=False, **OPTIONS)
        outcomes = autogaze.reconstruct_many(sources, tmp_path / "out", gaze=tmp_path / "g", side_by_side=False)
        assert [outcome.error for outcome in outcomes] == [None, None]
        assert [outcome.summary.settings.gaze_file for outcome in outcomes if outcome.summary] == [
            str(tmp_path / "g/a-x.gaze"),
            str(tmp_path / "g/b-x.gaze"),
        ]


class TestBadInput:
    def test_options_beside_a_gaze(self, done: Path) -> None:
        with pytest.raises(ValueError, match="with a gaze nothing is left to choose, got also ratio, fps; leave one"):
            autogaze.reconstruct_to_files(done / "clip.mp4", done / "o", gaze=done / "g", ratio=0.1, fps=3)
        autogaze.reconstruct_to_files(done / "clip.mp4", done / "o", gaze=done / "g", device="cpu")

    @pytest.mark.parametrize("gaze", ["g/clip.gaze", Gaze])
    def test_one_gaze_for_several_sources(self, done: Path, gaze: Any) -> None:
        given = Gaze.load(done / "g/clip.gaze") if gaze is Gaze else done / gaze
        with pytest.raises(ValueError, match="one gaze is of one source, got 2 sources; give the folder of their"):
            autogaze.reconstruct_many([done / "clip.mp4"] * 2, done / "o", gaze=given)

    def test_a_gaze_that_is_not_there(self, video: Path, tmp_path: Path) -> None:
        with pytest.raises(
            GazeFileError, match=r"there is no gaze file or folder .*/none; `autogaze gaze` writes them"
        ):
            autogaze.reconstruct_many([video, video], tmp_path, gaze=tmp_path / "none")

    def test_a_reconstructor_that_is_not_there(self, video: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="'canvass' is no reconstructor"):
            autogaze.reconstruct_many([video], tmp_path, reconstructor="canvass", **OPTIONS)

    def test_a_grid_that_does_not_suit_the_reconstructor(self, video: Path, tmp_path: Path) -> None:
        (outcome,) = autogaze.reconstruct_many([video], tmp_path / "out", reconstructor=small_model(), **OPTIONS)
        assert isinstance(outcome.error, ValueError)
        assert listed(tmp_path) == []

    def test_a_device_that_is_not_there(self, done: Path) -> None:
        with pytest.raises(AutoGazeError, match="device 'cuda:99' cannot be used"):
            autogaze.reconstruct_to_files(done / "clip.mp4", done / "o", gaze=done / "g", device="cuda:99")

    def test_one_source_where_many_belong(self, video: Path, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match=r"reconstruct_many takes a list of sources, got one: use \[.*clip"):
            autogaze.reconstruct_many(str(video), tmp_path)

    @pytest.mark.parametrize("name", ["", "..", "a/b"])
    def test_a_name_that_is_no_file_name(self, video: Path, tmp_path: Path, name: str) -> None:
        with pytest.raises(OutputError, match="name must be a plain file name, got"):
            autogaze.reconstruct_to_files(video, tmp_path, name=name, **OPTIONS)

    def test_a_folder_that_is_a_file(self, video: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="is a file; results need a folder"):
            autogaze.reconstruct_to_files(video, tmp_path / "file", **OPTIONS)
