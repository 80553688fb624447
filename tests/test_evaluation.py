"""An evaluation measures what it says, gives equal tables however often it was interrupted, and names what failed."""

import fcntl
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autogaze.errors import AutoGazeError, BudgetError, CheckpointError
from autogaze.evaluation.clips import ClipReader, Cutting
from autogaze.evaluation.journal import JOURNAL
from autogaze.evaluation.metrics import picture_metrics
from autogaze.evaluation.outputs import Evaluation
from autogaze.evaluation.rows import PSNR_CEILING_DB, ClipRow, FrameRow, SummaryRow
from autogaze.evaluation.runner import Progress, evaluate
from autogaze.evaluation.settings import OperatingPoint, settings_of
from autogaze.evaluation.tables import CLIPS_CSV, FRAMES_CSV, SUMMARY_CSV, read_rows
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.reconstructors import CanvasReconstructor
from autogaze.reconstructors.base import Reconstruction
from autogaze.results import OutputError
from autogaze.selectors import make_selector
from autogaze.selectors.replenish import Replenish
from calibration_samples import calibration
from make_video import moving_frames, noisy_frames, write_video
from small_models import small_config

TABLES = (CLIPS_CSV, FRAMES_CSV, SUMMARY_CSV)
SMALL = PatchGrid(scales_px=(32, 64))
"""Little work: frames of 64 px with 4 + 16 patches."""
POINTS = settings_of(ratios=(0.2,), thresholds=(0.05,), clip_ratios=(0.1,))
CLIP_LEN = 3


class Grey:
    """Rebuilds every frame as mid-grey, on some grids only."""

    name = "grey"
    loss_unit = "nothing"

    def __init__(self, *, refuses: PatchGrid | None = None) -> None:
        self._refuses = refuses

    def open(self, layout: FrameLayout) -> "Grey":
        if layout.grid == self._refuses:
            raise ValueError("grey does not like this grid")
        return self

    def step(self, frames: Frames, gaze: Gaze) -> Reconstruction:
        return Reconstruction(rgb=np.full_like(frames.rgb, 128), loss=np.full(len(frames), 0.25))


def small_random(seed: int = 0) -> Any:
    from autogaze.selectors.uniform_random import Random

    return Random(grid=SMALL, seed=seed)


def run(videos: Sequence[Path], out: Path, **options: Any) -> Evaluation:
    defaults: dict[str, Any] = {
        "selectors": (Replenish(SMALL), small_random()),
        "settings": POINTS,
        "clip_len": CLIP_LEN,
        "viz_clips": 0,
        "timings": False,
        "plots": False,
    }
    return evaluate(videos, out=out, **{**defaults, **options})


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three clips of noise, two of something smooth that moves."""
    folder = tmp_path_factory.mktemp("videos")
    return [
        write_video(folder / "noise.mp4", noisy_frames(9, height_px=80, width_px=96)),
        write_video(folder / "smooth.mp4", moving_frames(7)),
    ]


@pytest.fixture(scope="module")
def whole(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Everything that an evaluation writes, under two reconstructors."""
    return run(
        videos,
        tmp_path_factory.mktemp("whole") / "out",
        reconstructors=("canvas", Grey()),
        viz_clips=1,
        timings=True,
        plots=True,
    )


@pytest.fixture(scope="module")
def plain(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Tables alone, without timings."""
    return run(videos, tmp_path_factory.mktemp("plain") / "out")


class TestRows:
    def test_there_is_one_for_everything_measured(self, whole: Evaluation) -> None:
        names = ["noise_start_0000", "noise_start_0003", "noise_start_0006", "smooth_start_0000", "smooth_start_0003"]
        # Replenishment knows all four settings, random has no means to keep the two with a threshold.
        points = [
            *(("replenish", name) for name in ("ratio_0.20", "task_0.05", "ratio_0.20_task_0.05", "clip_0.10")),
            *(("random", name) for name in ("ratio_0.20", "clip_0.10")),
        ]
        expected = [(clip, *point, judge) for clip in names for point in points for judge in ("canvas", "grey")]
        assert [(row.clip_name, row.selector, row.setting, row.reconstructor) for row in whole.clips] == expected
        assert [(row.clip_name, row.frame_idx) for row in whole.frames[:4]] == [
            *((names[0], t) for t in range(3)),
            (names[0], 0),
        ]
        assert len(whole.frames) == CLIP_LEN * len(expected)
        assert [(row.selector, row.setting, row.reconstructor) for row in whole.summary] == [
            (*point, judge) for point in points for judge in ("canvas", "grey")
        ]
        assert {row.clips for row in whole.summary} == {5}

    def test_are_what_selector_reconstructor_and_metrics_say(self, whole: Evaluation, videos: list[Path]) -> None:
        with ClipReader(videos[0], name="noise", cutting=Cutting(clip_len=CLIP_LEN, side_px=64)) as reader:
            frames = list(reader)[1].frames
        layout = FrameLayout.resized(SMALL, height_px=64, width_px=64)
        gaze = Replenish(SMALL).open(layout, POINTS[-1].budget).step(frames)
        rebuilt = CanvasReconstructor().open(layout).step(frames, gaze)
        metrics = picture_metrics(rebuilt.rgb, frames.rgb)
        rows = [
            row
            for row in whole.frames
            if (row.clip_name, row.selector, row.setting, row.reconstructor)
            == ("noise_start_0003", "replenish", "clip_0.10", "canvas")
        ]
        assert [row.frame_idx for row in rows] == [0, 1, 2]
        assert [row.clip_start for row in rows] == [3, 3, 3]
        assert [row.non_padded_gazes for row in rows] == gaze.count.tolist()
        assert [row.reconstruction_loss for row in rows] == rebuilt.loss.tolist()
        assert [row.pixel_mae for row in rows] == metrics.mae.tolist()
        assert [row.pixel_mse for row in rows] == metrics.mse.tolist()
        assert [row.psnr for row in rows] == metrics.psnr_db.tolist()
        assert [row.ssim for row in rows] == metrics.ssim.tolist()
        for row, one in zip(rows, gaze, strict=True):
            expected = None if not one.num_gazes else float(one.predicted_loss[-1])  # type: ignore[index]
            assert row.predicted_loss == expected

    def test_of_clips_are_means_of_frames_and_shares_of_patches(self, whole: Evaluation, videos: list[Path]) -> None:
        for place, row in enumerate(whole.clips):
            frames = whole.frames[place * CLIP_LEN : (place + 1) * CLIP_LEN]
            for name in ("reconstruction_loss", "pixel_mae", "pixel_mse", "ssim"):
                assert getattr(row, name) == pytest.approx(np.mean([getattr(frame, name) for frame in frames]))
            assert row.psnr == pytest.approx(np.mean([min(frame.psnr, PSNR_CEILING_DB) for frame in frames]))
            assert row.non_padded_gazes_by_frame == tuple(frame.non_padded_gazes for frame in frames)
            assert row.non_padded_gazes == sum(row.non_padded_gazes_by_frame)
            assert row.actual_gaze_ratio == row.non_padded_gazes / (CLIP_LEN * 20)
            assert row.gaze_ratio_of_finest == row.non_padded_gazes / (CLIP_LEN * 16)
            assert (row.frames, row.video) == (CLIP_LEN, str(videos[row.clip_name.startswith("smooth")]))
        arguments = {
            row.setting: (row.gazing_ratio_arg, row.task_loss_requirement_arg, row.budget_per) for row in whole.clips
        }
        assert arguments == {
            "ratio_0.20": (0.2, None, "frame"),
            "task_0.05": (None, 0.05, "frame"),
            "ratio_0.20_task_0.05": (0.2, 0.05, "frame"),
            "clip_0.10": (0.1, None, "clip"),
        }

    def test_are_measured_where_timings_are_wanted(self, whole: Evaluation, plain: Evaluation) -> None:
        names = ("gaze_seconds", "reconstruction_seconds", "decode_seconds", "peak_memory_mb")
        for name in names:
            assert all(getattr(row, name) > 0 for row in (*whole.clips, *whole.summary))
            assert all(getattr(row, name) is None for row in (*plain.clips, *plain.summary))
        empty = dict.fromkeys(names)
        judged = [row for row in whole.clips if row.reconstructor == "canvas"]
        assert [replace(row, **empty) for row in judged] == list(plain.clips)  # type: ignore[arg-type]

    def test_exactly_rebuilt_frames_are_infinite_and_count_as_the_ceiling(
        self, videos: list[Path], tmp_path: Path
    ) -> None:
        found = run(videos[1:], tmp_path, settings=settings_of(ratios=(1.0,)), max_clips=1)
        assert {row.psnr for row in found.frames} == {math.inf}
        assert {row.psnr for row in (*found.clips, *found.summary)} == {PSNR_CEILING_DB}
        assert b",inf,1.0," in (tmp_path / FRAMES_CSV).read_bytes()


class TestFiles:
    def test_have_their_names(self, whole: Evaluation) -> None:
        found = {str(path.relative_to(whole.folder)) for path in whole.folder.rglob("*") if path.is_file()}
        assert {*TABLES, "metadata.json", "summary.txt", "report.html"} <= found
        assert {f"plots/{name}.png" for name in ("tradeoff_curves", "per_frame_curves", "gaze_heatmap")} <= found
        grids = sorted(name for name in found if name.startswith("visualizations/"))
        assert len(grids) == 12
        assert "visualizations/noise_start_0000_random_clip_0.10_grey.png" in grids
        assert whole.warnings == ()

    def test_tables_hold_the_rows(self, whole: Evaluation) -> None:
        assert tuple(read_rows(whole.folder / CLIPS_CSV, ClipRow)) == whole.clips
        assert tuple(read_rows(whole.folder / FRAMES_CSV, FrameRow)) == whole.frames
        assert tuple(read_rows(whole.folder / SUMMARY_CSV, SummaryRow)) == whole.summary

    def test_one_reconstructor_needs_no_name_in_a_grid(self, videos: list[Path], tmp_path: Path) -> None:
        run(videos, tmp_path, viz_clips=2, max_clips=1, settings=POINTS[-1:], selectors=(Replenish(SMALL),))
        assert sorted(path.name for path in (tmp_path / "visualizations").iterdir()) == [
            "noise_start_0000_replenish_clip_0.10.png",
            "smooth_start_0000_replenish_clip_0.10.png",
        ]

    def test_metadata_tell_what_the_figures_depend_on(self, whole: Evaluation, videos: list[Path]) -> None:
        told = json.loads((whole.folder / "metadata.json").read_text())
        assert {"autogaze", "torch", "numpy", "python", "av", "opencv"} <= told["versions"].keys()
        assert {"processor", "cores", "torch_threads"} <= told["machine"].keys()
        assert (told["settings"]["seed"], told["settings"]["side_px"], told["settings"]["clip_len"]) == (0, 64, 3)
        assert [one["name"] for one in told["selectors"]] == ["replenish", "random"]
        assert told["selectors"][0]["grid"] == {"scales_px": [32, 64], "patch_px": 16}
        assert [one["loss_unit"] for one in told["reconstructors"]] == [CanvasReconstructor.loss_unit, "nothing"]
        assert [(one["video"], one["frames_read"], one["clip_starts"]) for one in told["videos"]] == [
            (str(videos[0]), 9, [0, 3, 6]),
            (str(videos[1]), 7, [0, 3]),
        ]
        assert (told["videos"][0]["width_px"], told["videos"][0]["height_px"], told["videos"][0]["fps"]) == (96, 80, 30)
        assert {(one["selector"], one["setting"]) for one in told["skipped"]} == {
            ("random", "task_0.05"),
            ("random", "ratio_0.20_task_0.05"),
        }
        assert told["failures"] == []
        assert told["seconds_of_last_run"] > 0

    def test_without_timings_metadata_are_the_same_every_time(
        self, plain: Evaluation, videos: list[Path], tmp_path: Path
    ) -> None:
        again = run(videos, tmp_path)
        assert (again.folder / "metadata.json").read_bytes() == (plain.folder / "metadata.json").read_bytes()

    def test_summary_is_text_for_people(self, whole: Evaluation) -> None:
        text = (whole.folder / "summary.txt").read_text()
        assert text.startswith("Means over 5 clips of at most 3 frames from 2 videos, resized to 64 × 64 px; seed 0\n")
        assert f"Rebuilt by canvas; loss: {CanvasReconstructor.loss_unit}" in text
        assert text.count("clip_0.10") == 4

    def test_a_missing_package_costs_the_plots_alone(
        self, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Missing:
            def find_spec(self, name: str, *_: object) -> None:
                if name.split(".")[0] == "matplotlib":
                    raise ModuleNotFoundError(f"No module named {name!r}", name="matplotlib")

        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
        found = run(videos, tmp_path, plots=True, max_clips=1)
        (warning,) = found.warnings
        assert "matplotlib" in warning
        assert warning.endswith("is not installed; run: pip install 'autogaze[evaluate]'")
        assert all((tmp_path / name).exists() for name in TABLES)


class TestRepetition:
    def test_gives_the_same_bytes(self, plain: Evaluation, videos: list[Path], tmp_path: Path) -> None:
        run(videos, tmp_path)
        assert tables(tmp_path) == tables(plain.folder)

    def test_the_order_of_videos_changes_no_row(self, plain: Evaluation, videos: list[Path], tmp_path: Path) -> None:
        found = run(videos[::-1], tmp_path)
        assert found.clips[0].clip_name == "smooth_start_0000"
        assert set(found.clips) == set(plain.clips)
        assert set(found.frames) == set(plain.frames)

    def test_the_seed_changes_what_is_drawn_by_lot_and_nothing_else(
        self, plain: Evaluation, videos: list[Path], tmp_path: Path
    ) -> None:
        found = run(videos, tmp_path, seed=1)
        for before, after in zip(plain.clips, found.clips, strict=True):
            assert (before == after) == (before.selector == "replenish")

    def test_every_clip_has_its_own_lot(self, tmp_path: Path) -> None:
        class Watched(type(small_random())):  # type: ignore[misc]
            seeds: list[int] = []  # noqa: RUF012

            def scorer(self, layout: FrameLayout) -> Any:
                self.seeds.append(self.seed)
                return super().scorer(layout)

        source = write_video(tmp_path / "v.mp4", moving_frames(6))
        selector = Watched(grid=SMALL, seed=7)
        run([source], tmp_path / "out", selectors=(selector,), settings=settings_of(ratios=(0.2, 0.4)))
        *_, a, b, c, d = Watched.seeds  # the first were asked whether they can keep the settings
        assert a == b
        assert c == d
        assert a != c
        assert selector.seed == 7

    def test_what_is_done_is_not_done_again(self, videos: list[Path], tmp_path: Path) -> None:
        steps: list[Progress] = []
        first = run(videos, tmp_path, on_progress=steps.append)
        assert len(steps) == 5 * 6
        assert (steps[0].clip_name, steps[0].clips, steps[0].measurements) == ("noise_start_0000", 0, 1)
        assert (steps[-1].clips, steps[-1].expected_clips) == (4, 5)
        assert {step.measurements_of_clip for step in steps} == {6}
        again = run(videos, tmp_path, on_progress=steps.append)
        assert len(steps) == 30
        assert (again.clips, again.frames, again.summary) == (first.clips, first.frames, first.summary)

    @pytest.mark.parametrize("after", [1, 9, 13, 27])
    def test_an_interrupted_one_goes_on(
        self, plain: Evaluation, videos: list[Path], tmp_path: Path, after: int
    ) -> None:
        steps: list[Progress] = []

        def interrupt(step: Progress) -> None:
            steps.append(step)
            if len(steps) == after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(videos, tmp_path, on_progress=interrupt)
        done = (after - 1) // 6
        assert len(read_rows(tmp_path / CLIPS_CSV, ClipRow)) == 6 * done
        run(videos, tmp_path, on_progress=steps.append)
        assert len(steps) == after + 30 - 6 * done
        assert tables(tmp_path) == tables(plain.folder)

    def test_a_video_that_is_done_is_not_opened_again(self, tmp_path: Path) -> None:
        source = write_video(tmp_path / "v.mp4", moving_frames(3))
        first = run([source], tmp_path / "out")
        stat = source.stat()
        source.write_bytes(b"x" * stat.st_size)
        os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        again = run([source], tmp_path / "out")
        assert (again.clips, again.failures) == (first.clips, ())

    def test_plots_can_be_added_later(self, videos: list[Path], tmp_path: Path) -> None:
        steps: list[Progress] = []
        run(videos[1:], tmp_path, max_clips=1)
        assert not (tmp_path / "report.html").exists()
        run(videos[1:], tmp_path, max_clips=1, plots=True, on_progress=steps.append)
        assert (tmp_path / "report.html").exists()
        assert steps == []


class TestFolder:
    @pytest.mark.parametrize(
        ("options", "names"),
        [
            ({"seed": 5}, "seed"),
            ({"clip_len": 2}, "clip len"),
            ({"timings": True}, "timings"),
            ({"settings": POINTS[:1]}, "operating points"),
            ({"selectors": (Replenish(SMALL),)}, "selectors, operating points"),
            ({"reconstructors": (Grey(),)}, "reconstructors"),
        ],
    )
    def test_of_another_request_is_refused(
        self, plain: Evaluation, videos: list[Path], options: dict[str, Any], names: str
    ) -> None:
        before = tables(plain.folder)
        with pytest.raises(OutputError, match=f"differs from this one in: {names}; --overwrite starts over, another"):
            run(videos, plain.folder, **options)
        assert tables(plain.folder) == before

    def test_pictures_of_somebody_else_are_never_removed(self, videos: list[Path], tmp_path: Path) -> None:
        (tmp_path / "plots").mkdir()
        (tmp_path / "plots" / "mine.png").write_bytes(b"dear to me")
        with pytest.raises(OutputError, match=r"plots/mine\.png is a picture of no evaluation"):
            run(videos[:1], tmp_path, overwrite=True)
        assert (tmp_path / "plots" / "mine.png").read_bytes() == b"dear to me"

    def test_starting_over_leaves_an_evaluation_that_is_running(self, videos: list[Path], tmp_path: Path) -> None:
        run(videos[:1], tmp_path)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with (tmp_path / JOURNAL).open("rb") as running:
            fcntl.flock(running, fcntl.LOCK_EX)
            with pytest.raises(OutputError, match="another evaluation is writing into"):
                run(videos[:1], tmp_path, overwrite=True)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before

    def test_starts_over_if_asked(self, videos: list[Path], tmp_path: Path) -> None:
        run(videos, tmp_path, viz_clips=1)
        (tmp_path / "notes.txt").write_text("mine")
        found = run(videos[1:], tmp_path, overwrite=True)
        assert {row.clip_name for row in found.clips} == {"smooth_start_0000", "smooth_start_0003"}
        assert list((tmp_path / "visualizations").iterdir()) == []
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_of_files_from_elsewhere_is_refused(self, videos: list[Path], tmp_path: Path) -> None:
        (tmp_path / "summary.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"summary.txt: there already and of no evaluation"):
            run(videos, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["summary.txt"]

    def test_that_is_a_file_is_refused(self, videos: list[Path], tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(OutputError, match="is a file; results need a folder"):
            run(videos, tmp_path / "out")


class TestVideos:
    def test_that_cannot_be_read_are_named_and_the_others_done(
        self, plain: Evaluation, videos: list[Path], tmp_path: Path
    ) -> None:
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"no video")
        missing = tmp_path / "missing.mp4"
        found = run([broken, videos[0], missing, videos[1]], tmp_path / "out")
        assert [failure.video for failure in found.failures] == [str(broken), str(missing)]
        assert tables(tmp_path / "out") == tables(plain.folder)
        told = json.loads((tmp_path / "out/metadata.json").read_text())
        assert [one["video"] for one in told["failures"]] == [str(broken), str(missing)]

    def test_count_once_they_can_be_read(self, videos: list[Path], tmp_path: Path) -> None:
        late = tmp_path / "late.mp4"
        steps: list[Progress] = []
        assert len(run([videos[1], late], tmp_path / "a").failures) == 1
        write_video(late, moving_frames(4, seed=3))
        found = run([videos[1], late], tmp_path / "a", on_progress=steps.append)
        assert {step.clip_name for step in steps} == {"late_start_0000"}
        assert found.failures == ()
        run([videos[1], late], tmp_path / "b")
        assert tables(tmp_path / "a") == tables(tmp_path / "b")

    def test_that_have_changed_are_measured_anew(self, videos: list[Path], tmp_path: Path) -> None:
        source = write_video(tmp_path / "v.mp4", moving_frames(6))
        run([source, videos[1]], tmp_path / "a")
        write_video(source, noisy_frames(3))
        steps: list[Progress] = []
        found = run([source, videos[1]], tmp_path / "a", on_progress=steps.append)
        assert {step.clip_name for step in steps} == {"v_start_0000"}
        assert {row.clip_name for row in found.clips} == {"v_start_0000", "smooth_start_0000", "smooth_start_0003"}
        run([source, videos[1]], tmp_path / "b")
        assert tables(tmp_path / "a") == tables(tmp_path / "b")

    def test_all_of_them_may_fail(self, tmp_path: Path) -> None:
        found = run([tmp_path / "a.mp4", tmp_path / "b.mp4"], tmp_path / "out", plots=True)
        assert (len(found.failures), found.clips, found.summary) == (2, (), ())
        assert read_rows(tmp_path / "out" / CLIPS_CSV, ClipRow) == []

    def test_of_one_name_are_told_apart(self, videos: list[Path], tmp_path: Path) -> None:
        sources = []
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            sources.append(write_video(tmp_path / folder / "v.mp4", moving_frames(3, seed=ord(folder))))
        found = run(sources, tmp_path / "out")
        assert list(dict.fromkeys(row.clip_name for row in found.clips)) == ["a-v_start_0000", "b-v_start_0000"]

    def test_clips_that_are_not_there_are_noted(self, videos: list[Path], tmp_path: Path) -> None:
        found = run(videos[1:], tmp_path, clip_starts=(1, 90))
        assert [row.clip_start for row in found.clips] == [1] * 6
        assert found.videos[0].notes == ("no clip from frame 90 on: the video ends after 7 frames",)


class TestTiles:
    def test_frames_keep_their_size(self, videos: list[Path], tmp_path: Path) -> None:
        found = run(videos[:1], tmp_path, mode="tiles", max_clips=1)
        with ClipReader(videos[0], name="noise", cutting=Cutting(clip_len=CLIP_LEN)) as reader:
            frames = next(iter(reader)).frames
        layout = FrameLayout.tiled(SMALL, height_px=80, width_px=96)
        gaze = Replenish(SMALL).open(layout, POINTS[0].budget).step(frames)
        rebuilt = CanvasReconstructor().open(layout).step(frames, gaze)
        row = found.clips[0]
        assert row.ssim == pytest.approx(picture_metrics(rebuilt.rgb, frames.rgb).ssim.mean())
        # Of 80 × 96 px, 5 × 6 patches of the finest scale show something, and 3 × 3 of the coarse one.
        assert row.gaze_ratio_of_finest == gaze.num_gazes / (CLIP_LEN * 30)
        assert row.actual_gaze_ratio == gaze.num_gazes / (CLIP_LEN * 39)
        assert {row.predicted_loss for row in found.frames} == {None}

    def test_motion_vectors_are_of_frames_as_coded(self, videos: list[Path], tmp_path: Path) -> None:
        selectors = ("motion-vectors", "random")
        points = settings_of(ratios=(0.1,))
        found = run(videos[1:], tmp_path / "a", mode="tiles", selectors=selectors, settings=points, max_clips=1)
        assert [row.selector for row in found.clips] == ["motion-vectors", "random"]
        found = run(videos[1:], tmp_path / "b", selectors=selectors, settings=points, max_clips=1)
        assert [row.selector for row in found.clips] == ["random"]
        assert [(one.selector, one.setting) for one in found.skipped] == [("motion-vectors", None)]
        with pytest.raises(AutoGazeError, match="nothing that can be measured: motion-vectors: motion vectors are of"):
            run(videos[1:], tmp_path / "c", selectors=selectors[:1], settings=points)

    def test_frames_smaller_than_the_window_are_told(self, videos: list[Path], tmp_path: Path) -> None:
        tiny = write_video(tmp_path / "tiny.mp4", moving_frames(3, height_px=8, width_px=32))
        found = run([tiny, videos[1]], tmp_path / "out", mode="tiles", max_clips=1)
        (failure,) = found.failures
        assert failure.video == str(tiny)
        assert "SSIM needs pictures of at least 11 × 11 px, got 32 × 8" in str(failure.error)
        assert {row.clip_name for row in found.clips} == {"smooth_start_0000"}

    def test_grids_of_different_sizes_are_compared_in_tiles_alone(self, videos: list[Path], tmp_path: Path) -> None:
        selectors = (Replenish(SMALL), make_selector("random"))
        with pytest.raises(AutoGazeError, match=r"cannot be compared \(replenish 64 px, random 224 px\); .* use tiles"):
            run(videos, tmp_path / "a", selectors=selectors)
        found = run(videos[1:], tmp_path / "b", selectors=selectors, mode="tiles", max_clips=1)
        assert {row.selector for row in found.clips} == {"replenish", "random"}


class TestSelectors:
    def test_a_gaze_model_and_its_weights_are_part_of_the_request(self, videos: list[Path], tmp_path: Path) -> None:
        import torch

        model = AutoGaze(small_config()).eval()
        selector = AutoGazeSelector(model, name="small")
        points = settings_of(ratios=(0.2,), thresholds=(0.7,), clip_ratios=(0.1,))
        options: dict[str, Any] = {"selectors": (selector,), "settings": points, "max_clips": 1}
        found = run(videos[1:], tmp_path, **options)
        assert [row.setting for row in found.clips] == ["ratio_0.20", "task_0.70", "ratio_0.20_task_0.70"]
        assert [(one.setting, "not per clip" in one.reason) for one in found.skipped] == [("clip_0.10", True)]
        told = json.loads((tmp_path / "metadata.json").read_text())["selectors"][0]
        assert len(told["weights_sha256"]) == 64
        assert told["configuration"] == {"config": json.loads(json.dumps(model.config.to_dict()))}
        run(videos[1:], tmp_path, **options)
        model.calibration = calibration((0.4, 0.6))
        with pytest.raises(OutputError, match="differs from this one in: selectors"):
            run(videos[1:], tmp_path, **options)
        model.calibration = None
        with torch.no_grad():
            next(model.parameters()).add_(1)
        with pytest.raises(OutputError, match="differs from this one in: selectors"):
            run(videos[1:], tmp_path, **options)

    def test_of_one_name_are_told_apart(self, videos: list[Path], tmp_path: Path) -> None:
        found = run(videos[1:], tmp_path, selectors=(small_random(), small_random()), max_clips=1)
        assert list(dict.fromkeys(row.selector for row in found.clips)) == ["random", "random-2"]

    def test_of_long_names_are_drawn(self, videos: list[Path], tmp_path: Path) -> None:
        selectors = [small_random(), small_random()]
        for number, selector in enumerate(selectors):
            selector.name = "n" * 240 + str(number)
        found = run(videos[1:], tmp_path, selectors=selectors, max_clips=1, viz_clips=1, plots=True)
        assert len(list((tmp_path / "visualizations").glob("*.png"))) == len(found.clips) == 4
        report = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert report.count('src="data:image/webp') == 4

    def test_whose_grid_a_reconstructor_refuses_are_judged_by_the_others(
        self, videos: list[Path], tmp_path: Path
    ) -> None:
        picky = Grey(refuses=SMALL)
        found = run(videos[1:], tmp_path / "a", reconstructors=("canvas", picky), max_clips=1)
        assert {row.reconstructor for row in found.clips} == {"canvas"}
        refused = [one for one in found.skipped if one.setting is None]
        assert [(one.selector, one.reconstructor) for one in refused] == [("replenish", "grey"), ("random", "grey")]
        with pytest.raises(AutoGazeError, match="replenish: grey does not like this grid"):
            run(videos[1:], tmp_path / "b", reconstructors=(picky,))


class TestArguments:
    @pytest.mark.parametrize("what", ["selectors", "reconstructors"])
    def test_what_is_named_twice_is_refused(self, videos: list[Path], tmp_path: Path, what: str) -> None:
        name = {"selectors": "uniform", "reconstructors": "canvas"}[what]
        options: dict[str, Any] = {what: (name, name)}
        with pytest.raises(AutoGazeError, match=f"{name} is named twice; name each once"):
            run(videos[1:], tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"selectors": ("nonsense",)}, CheckpointError, "'nonsense' is no model"),
            ({"reconstructors": ("nonsense",)}, CheckpointError, "'nonsense' is no reconstructor"),
            ({"selectors": "replenish"}, ValueError, "selectors must be a list of at least one, got 'replenish'"),
            ({"reconstructors": ()}, ValueError, r"reconstructors must be a list of at least one, got \(\)"),
            ({"mode": "stretch"}, ValueError, 'mode must be "resize" or "tiles"'),
            ({"seed": -1}, ValueError, "at least 0, got 0 and -1"),
            ({"clip_len": 0}, ValueError, "clip_len must be at least 1"),
            ({"clip_starts": ()}, ValueError, "clip_starts must name frames"),
            ({"device": "nowhere"}, AutoGazeError, "device 'nowhere' cannot be used"),
            ({"settings": ()}, AutoGazeError, "nothing that can be measured"),
        ],
    )
    def test_that_are_not_legal_are_told_before_anything_is_made(
        self, videos: list[Path], tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        chosen = {"selectors": ("replenish",), **options} if "device" in options else options
        with pytest.raises(error, match=message):
            run(videos, tmp_path / "out", **chosen)
        assert not (tmp_path / "out").exists()

    def test_a_threshold_out_of_range(self, videos: list[Path], tmp_path: Path) -> None:
        from autogaze.selectors.base import Budget

        points = [OperatingPoint(name="never", budget=Budget(threshold=-1.0))]
        with pytest.raises(BudgetError, match="no frame reaches a threshold of -1"):
            run(videos, tmp_path / "out", settings=points)
        assert not (tmp_path / "out").exists()

    def test_one_video_is_a_list_of_one(self, videos: list[Path], tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="evaluate takes a list of videos, got one"):
            evaluate(str(videos[0]), out=tmp_path)
        with pytest.raises(ValueError, match="at least one video, got none"):
            evaluate([], out=tmp_path)


def test_the_package_gives_its_public_names() -> None:
    import autogaze.evaluation as package

    for name in package.__all__:
        assert getattr(package, name).__module__.startswith("autogaze.evaluation.")
    assert package.evaluate is evaluate
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        package.nonsense  # noqa: B018
