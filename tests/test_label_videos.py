"""Many videos are labelled once each, the same in any order and number of processes, and what fails is told."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autogaze.cli import main
from autogaze.datasets.label_clip import read_clip_anywhere, read_label_clip
from autogaze.datasets.label_file import read_labels
from autogaze.datasets.labels import label_counts
from autogaze.errors import AutoGazeError, AutoGazeWarning, CheckpointError, VideoError
from autogaze.grid import PatchGrid
from autogaze.labelling.budgets import DrawnBudget, ThresholdBudget, clip_rng
from autogaze.labelling.runner import LabelProgress, LabelRun, journal_path, label_videos
from autogaze.labelling.settings import BUDGET, LabelSettings
from autogaze.results import OutputError
from autogaze.video import find_sources
from label_samples import video_folder
from make_video import numbered_frames, numbers_of, write_video
from small_video_mae import small_video_mae

SETTINGS = LabelSettings(frames=3)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return video_folder(tmp_path_factory.mktemp("videos"))


def sources(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.iterdir())


def label(folder: Path, out: Path, **options: object) -> LabelRun:
    return label_videos(sources(folder), out=out, **{"settings": SETTINGS, **options})  # type: ignore[arg-type]


class TestClips:
    def test_frames_are_consecutive_and_square(self, tmp_path: Path) -> None:
        video = write_video(tmp_path / "v.mp4", numbered_frames(20), options={"crf": "0"})
        clip = read_label_clip(video, start=5, frames=4, side_px=32)
        assert clip.shape == (4, 32, 32, 3)
        assert numbers_of(clip) == [5, 6, 7, 8]

    def test_random_clips_start_anywhere_and_end_inside(self, tmp_path: Path) -> None:
        video = write_video(tmp_path / "v.mp4", numbered_frames(20), options={"crf": "0"})
        for place, first in ((0.0, 0), (0.5, 8), (0.999, 16)):
            clip, start = read_clip_anywhere(video, place=place, frames=4, side_px=32)
            assert start == first
            assert numbers_of(clip) == list(range(first, first + 4))

    def test_a_video_that_promises_more_frames_than_it_has(self, tmp_path: Path) -> None:
        whole = write_video(tmp_path / "whole.mkv", numbered_frames(60), container="matroska", keyframe_every=1)
        cut = tmp_path / "cut.mkv"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
        clip, start = read_clip_anywhere(cut, place=0.99, frames=4, side_px=32)
        assert numbers_of(clip) == list(range(start, start + 4))
        assert start < 56

    def test_short_videos_are_refused(self, tmp_path: Path) -> None:
        video = write_video(tmp_path / "v.mp4", numbered_frames(3))
        with pytest.raises(VideoError, match="has 3 frames, too few for a clip of 4"):
            read_label_clip(video, frames=4)
        with pytest.raises(VideoError, match="has 3 frames, too few for a clip of 4"):
            read_clip_anywhere(video, place=0.5, frames=4)


class TestRuns:
    def test_labels_are_those_of_the_clips(self, videos: Path, tmp_path: Path) -> None:
        run = label(videos, tmp_path / "labels.json")
        assert (run.made, run.found, run.failures, run.evaluations) == (4, 0, (), 0)
        labels = read_labels(tmp_path / "labels.json")
        assert list(labels) == [f"set/train/clip-{number}.mp4" for number in range(4)]
        for video in sources(videos):
            key = "/".join(Path(video).parts[-3:])
            counts = DrawnBudget().limits(clip_rng(0, key, BUDGET), frames=3, num_patches=265).counts
            expected = label_counts(read_label_clip(video, frames=3), counts=counts).gaze
            assert labels[key].gaze.equals(expected)
            assert run.labels[key].gaze.equals(expected)
            assert labels[key].gaze.count.min() >= 1

    def test_order_and_processes_change_nothing(self, videos: Path, tmp_path: Path) -> None:
        label(videos, tmp_path / "a.json")
        label_videos(sources(videos)[::-1], out=tmp_path / "b.json", settings=SETTINGS, jobs=2)
        label_videos(sources(videos)[2:], out=tmp_path / "c.json", settings=SETTINGS)
        label_videos(sources(videos)[:3], out=tmp_path / "c.json", settings=SETTINGS)
        contents = {(tmp_path / name).read_bytes() for name in ("a.json", "b.json", "c.json")}
        assert len(contents) == 1

    def test_seeds_thresholds_and_starts_change_labels(self, videos: Path, tmp_path: Path) -> None:
        def content(name: str, settings: LabelSettings) -> bytes:
            label(videos, tmp_path / f"{name}.json", settings=settings)
            return (tmp_path / f"{name}.json").read_bytes()

        budget = ThresholdBudget(threshold=0.03)
        contents = [
            content("first", SETTINGS),
            content("seed", LabelSettings(frames=3, seed=1)),
            content("threshold", LabelSettings(frames=3, budget=budget)),
            content("random", LabelSettings(frames=3, start="random")),
        ]
        assert len(set(contents)) == 4
        gaze = next(iter(read_labels(tmp_path / "threshold.json").values())).gaze
        assert gaze.predicted_loss is not None
        ends = np.cumsum(gaze.count)
        assert (gaze.predicted_loss[ends - 1] <= 0.03).all()
        assert (np.delete(gaze.predicted_loss, ends - 1) > 0.03).all()
        starts = {one.start for one in read_labels(tmp_path / "random.json").values()}
        assert len(starts) > 1 and max(starts) <= 15

    def test_a_second_run_does_what_is_missing(self, videos: Path, tmp_path: Path) -> None:
        out, seen = tmp_path / "labels.json", list[LabelProgress]()
        label_videos(sources(videos)[:2], out=out, settings=SETTINGS)
        run = label(videos, out, on_progress=seen.append)
        assert (run.made, run.found) == (2, 2)
        assert [(one.done, one.total) for one in seen] == [(3, 4), (4, 4)]
        again = label(videos, out)
        assert (again.made, again.found) == (0, 4)
        assert again.labels.keys() == run.labels.keys()

    def test_a_video_that_changed_is_labelled_again(self, tmp_path: Path) -> None:
        folder, out = video_folder(tmp_path / "in", count=2), tmp_path / "labels.json"
        before = label(folder, out).labels
        write_video(folder / "clip-1.mp4", numbered_frames(18))
        run = label(folder, out)
        assert (run.made, run.found) == (1, 1)
        keys = list(run.labels)
        assert run.labels[keys[0]].gaze.equals(before[keys[0]].gaze)
        assert not run.labels[keys[1]].gaze.equals(before[keys[1]].gaze)

    def test_parquet_has_the_labels_and_where_they_come_from(self, videos: Path, tmp_path: Path) -> None:
        label(videos, tmp_path / "labels.json")
        for name in ("labels.parquet", "labels"):
            label(videos, tmp_path / name, shard_clips=3)
            found, expected = read_labels(tmp_path / name), read_labels(tmp_path / "labels.json")
            assert list(found) == list(expected)
            assert all(found[key].gaze.equals(expected[key].gaze) for key in expected)
            assert found.origin is not None
            assert (found.origin.reconstructor, found.origin.search, found.origin.frames) == ("canvas", "exhaustive", 3)
            assert found.origin.budget == DrawnBudget().to_json()
        assert len(list((tmp_path / "labels").iterdir())) == 2

    def test_sizes_survive_an_interruption(self, videos: Path, tmp_path: Path) -> None:
        out = tmp_path / "labels.parquet"
        label_videos(sources(videos)[:2], out=out, settings=SETTINGS)
        label(videos, out)
        sizes = [Path(video).stat().st_size for video in sources(videos)]
        assert [one.video_bytes for one in read_labels(out).values()] == sizes

    @pytest.mark.parametrize("search", ["exhaustive", "lazy"])
    def test_a_learned_reconstructor(self, videos: Path, tmp_path: Path, search: str) -> None:
        small_video_mae().save_pretrained(tmp_path / "mae")
        budget = DrawnBudget(low=0.1)
        settings = LabelSettings(
            reconstructor=str(tmp_path / "mae"),
            search=search,  # type: ignore[arg-type]
            candidates=3,
            frames=3,
            budget=budget,
        )
        run = label(videos, tmp_path / "labels.parquet", settings=settings)
        labels = read_labels(tmp_path / "labels.parquet")
        assert labels.grid == PatchGrid(scales_px=(16, 32), patch_px=8)
        assert labels.origin is not None and labels.origin.search == search
        gazes = sum(one.gaze.num_gazes for one in labels.values())
        assert run.evaluations > (10 * gazes if search == "exhaustive" else gazes)
        if search == "lazy":
            # A picture and 3 tries for each gaze, a loss for each frame, and the first two gazes of each clip.
            assert run.evaluations <= 4 * gazes + 4 * 3 + 4 * (20 + 5)

    def test_unreadable_videos_are_named_and_the_others_done(self, tmp_path: Path) -> None:
        folder = video_folder(tmp_path / "in", count=2)
        (folder / "empty.mp4").touch()
        (folder / "text.mp4").write_text("no video")
        write_video(folder / "short.mp4", numbered_frames(2))
        run = label(folder, tmp_path / "labels.json", jobs=2)
        failed = {Path(failure.video).name: str(failure.error) for failure in run.failures}
        assert set(failed) == {"empty.mp4", "text.mp4", "short.mp4"}
        assert "2 frames, too few" in failed["short.mp4"]
        assert len(read_labels(tmp_path / "labels.json")) == 2

    def test_two_videos_of_one_key(self, videos: Path, tmp_path: Path) -> None:
        twin = tmp_path / "other" / "set" / "train"
        twin.mkdir(parents=True)
        (twin / "clip-0.mp4").symlink_to(videos / "clip-0.mp4")
        run = label_videos(
            [*sources(videos), str(twin / "clip-0.mp4")], out=tmp_path / "labels.json", settings=SETTINGS
        )
        (failure,) = run.failures
        assert "the same key 'set/train/clip-0.mp4'" in str(failure.error)
        assert len(run.labels) == 4

    def test_nothing_is_written_when_nothing_can_be_labelled(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").touch()
        run = label_videos([str(tmp_path / "a.mp4")], out=tmp_path / "labels.json")
        assert len(run.failures) == 1
        assert not (tmp_path / "labels.json").exists()

    def test_settings_of_a_run_that_did_nothing_bind_nobody(self, videos: Path, tmp_path: Path) -> None:
        out = tmp_path / "labels.json"
        assert len(label(videos, out, settings=LabelSettings(frames=99)).failures) == 4
        assert label(videos, out).made == 4
        with pytest.raises(OutputError, match="differ from these in: frames"):
            label(videos, out, settings=LabelSettings(frames=4))

    def test_a_device_that_is_not_there(self, videos: Path, tmp_path: Path) -> None:
        for device in ("nope", "cuda:99"):
            with pytest.raises(AutoGazeError, match=f"device '{device}' cannot be used"):
                label(videos, tmp_path / "labels.json", device=device)


class TestRefusals:
    def test_labels_made_otherwise(self, videos: Path, tmp_path: Path) -> None:
        out = tmp_path / "labels.json"
        label(videos, out)
        before = out.read_bytes()
        for settings, told in (
            (LabelSettings(frames=3, seed=1), "in: seed;"),
            (LabelSettings(frames=4), "in: frames;"),
            (LabelSettings(frames=3, budget=ThresholdBudget(threshold=0.02)), "in: budget;"),
        ):
            with pytest.raises(OutputError, match=rf"labels.json holds labels that differ from these {told} --over"):
                label(videos, out, settings=settings)
        assert out.read_bytes() == before
        run = label(videos, out, settings=LabelSettings(frames=3, seed=1), overwrite=True)
        assert run.made == 4
        assert out.read_bytes() != before

    def test_files_of_somebody_else(self, videos: Path, tmp_path: Path) -> None:
        (tmp_path / "labels.json").write_text("{}")
        with pytest.raises(OutputError, match="no journal beside it"):
            label(videos, tmp_path / "labels.json")
        label(videos, tmp_path / "labels.json", overwrite=True)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "diary.txt").touch()
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"diary.txt is there already"):
                label(videos, tmp_path / "folder", overwrite=overwrite)
        with pytest.raises(OutputError, match=r"labels go into a \.json file"):
            label(videos, tmp_path / "labels.csv")
        with pytest.raises(OutputError, match="is a folder"):
            (tmp_path / "f.json").mkdir()
            label(videos, tmp_path / "f.json")
        with pytest.raises(OutputError, match="is a file; results need a folder"):
            label(videos, tmp_path / "labels.json" / "more.json")

    def test_damaged_journals(self, videos: Path, tmp_path: Path) -> None:
        out = tmp_path / "labels.json"
        label(videos, out)
        journal = journal_path(out)
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[:3]) + lines[3][:50])  # as after a power cut
        assert label(videos, out).made == 2
        journal.write_bytes(lines[0] + lines[1].replace(b'"gazing_pos":[[', b'"gazing_pos":[[999,') + lines[2])
        with pytest.raises(OutputError, match=r"line 2 of .* is damaged"):
            label(videos, out)
        journal.write_bytes(b"{}\n")
        with pytest.raises(OutputError, match="is no journal of labels"):
            label(videos, out)

    def test_overwriting_loses_nothing_before_it_begins(self, videos: Path, tmp_path: Path) -> None:
        out = tmp_path / "labels.json"
        label(videos, out)
        before = journal_path(out).read_bytes()
        with pytest.raises(CheckpointError):
            label(videos, out, settings=LabelSettings(reconstructor="nothing"), overwrite=True)
        with journal_path(out).open("ab") as other, pytest.raises(OutputError, match="another run is writing"):
            fcntl.flock(other, fcntl.LOCK_EX)
            label(videos, out, overwrite=True)
        assert journal_path(out).read_bytes() == before
        assert label(videos, out, overwrite=True).found == 0

    def test_illegal_settings(self, videos: Path, tmp_path: Path) -> None:
        for wrong, told in (
            (lambda: LabelSettings(frames=0), "frames must be at least 1"),
            (lambda: LabelSettings(seed=-1), "seed must be at least 0"),
            (lambda: LabelSettings(search="lazy"), "the canvas tries every patch"),
            (lambda: LabelSettings(reconstructor="refined", candidates=0), "candidates must be at least 1"),
            (lambda: LabelSettings().trying(4), "the canvas tries every patch"),
            (lambda: LabelSettings(reconstructor="refined", search="exhaustive").trying(4), "exhaustive"),
            (lambda: LabelSettings(start="last"), "start must be first or random"),  # type: ignore[arg-type]
            (lambda: label(videos, tmp_path / "l.json", jobs=0), "jobs must be at least 1"),
        ):
            with pytest.raises(AutoGazeError, match=told):
                wrong()
        with pytest.raises(CheckpointError, match="no reconstructor"):
            label(videos, tmp_path / "l.json", settings=LabelSettings(reconstructor="nothing"))
        with pytest.raises(TypeError, match="a list of videos"):
            label_videos("a.mp4", out=tmp_path / "l.json")
        assert not list(tmp_path.iterdir())


class TestCommand:
    def say(self, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
        handler = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as exit_:
            main(["label", *map(str, words)])
        signal.signal(signal.SIGTERM, handler)
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, *capsys.readouterr()

    def test_labels_a_folder(self, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "labels.json"
        status, told, complaints = self.say(capsys, videos, "--out", out, "--clip-len", 3)
        assert (status, complaints) == (0, "")
        assert told.startswith("4 videos labelled; ") and told.endswith(f"→ {out} (4 clips)\n")
        label(videos, tmp_path / "same.json")
        assert out.read_bytes() == (tmp_path / "same.json").read_bytes()
        status, told, _ = self.say(capsys, videos, "--out", out, "--clip-len", 3, "--json")
        assert status == 0
        assert json.loads(told) | {"read_seconds": 0, "search_seconds": 0} == {
            "path": str(out),
            "clips": 4,
            "made": 0,
            "found": 4,
            "evaluations": 0,
            "read_seconds": 0,
            "search_seconds": 0,
            "failures": [],
        }

    def test_folders_are_searched_with_those_inside_and_pipes_passed_over(
        self, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for place in ("a.mp4", "b/a.mp4", "b/c/a.mp4", "b/c/.hidden/a.mp4"):
            (tmp_path / "all" / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(videos / "clip-0.mp4", tmp_path / "all" / place)
        os.mkfifo(tmp_path / "all" / "b" / "pipe.mp4")
        folder, out = str(tmp_path / "all"), tmp_path / "labels.json"
        with pytest.raises(SystemExit, match="0"):
            main(["label", folder, str(videos / "clip-1.mp4"), "--clip-len", "3", "--out", str(out)])
        keys = [str(tmp_path.name) + "/all/a.mp4", "all/b/a.mp4", "b/c/a.mp4", "set/train/clip-1.mp4"]
        assert list(read_labels(out)) == sorted(keys)
        assert f"{folder}/b/pipe.mp4 is a pipe, socket or device and no file" in capsys.readouterr().err
        with pytest.warns(AutoGazeWarning, match=r"pipe\.mp4 is a pipe"):
            assert find_sources([f"{folder}/b"]) == [f"{folder}/b/a.mp4"]
        with pytest.raises(SystemExit, match="2"):
            main(["label", "", "--out", str(out)])
        assert "empty name" in capsys.readouterr().err

    def test_failures_are_told_in_one_line_each(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = video_folder(tmp_path / "in", count=1)
        (folder / "empty.mp4").touch()
        status, _, complaints = self.say(capsys, folder, "--out", tmp_path / "l.json", "--clip-len", 3)
        first, last = complaints.splitlines()
        assert status == 2
        assert "empty.mp4" in first
        assert last == "autogaze: 1 of 2 videos failed; the others are done"

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--max-ratio", "0.5"], "--max-ratio limits what --threshold takes"),
            (["--threshold", "-1"], "threshold must be a finite number of at least 0"),
            (["--threshold", "0.1", "--max-ratio", "2"], "above 0 and at most 1"),
            (["--search", "lazy"], "the canvas tries every patch"),
            (["--candidates", "4"], "the canvas tries every patch"),
            (["--jobs", "0"], "--jobs must be at least 1"),
            (["--shard-clips", "0"], "--shard-clips must be at least 1"),
            (["--clip-len", "0"], "--clip-len must be at least 1"),
            (["--seed", "-1"], "--seed must be at least 0"),
            (["--start", "last"], "start"),
            (["--reconstructor", "nothing"], "'nothing' is no reconstructor"),
        ],
    )
    def test_illegal_options(
        self, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
    ) -> None:
        status, _, complaints = self.say(capsys, videos, "--out", tmp_path / "l.json", *words)
        assert status == 2
        assert told in complaints and complaints.count("\n") == 1
        assert not list(tmp_path.iterdir())

    def test_a_run_that_is_stopped_goes_on(self, tmp_path: Path) -> None:
        folder, out = video_folder(tmp_path / "in", count=30), tmp_path / "labels.json"
        words = [sys.executable, "-m", "autogaze.cli", "label", str(folder), "--out", str(out), "--clip-len", "16"]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if journal_path(out).exists() and journal_path(out).read_bytes().count(b"\n") > 3:
                break
            time.sleep(0.005)
        process.terminate()
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "the same command does the rest" in complaints
        assert not out.exists()
        run = label_videos(sources(folder), out=out)
        assert run.found >= 3 and run.made + run.found == 30
        label_videos(sources(folder), out=tmp_path / "at-once.json")
        assert out.read_bytes() == (tmp_path / "at-once.json").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".json") == [
            "at-once.json",
            "labels.json",
        ]
