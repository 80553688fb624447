"""The behaviour analyses of real videos: what is measured, written, drawn and said."""

import csv
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from autogaze.cli import main
from autogaze.errors import AutoGazeError
from autogaze.evaluation.behaviour import Behaviour, measure_behaviour, measure_clip, stretched
from autogaze.evaluation.behaviour_files import (
    PICTURES,
    RESULT,
    TABLES,
    check_ready,
    save_behaviour,
    summary_line,
    to_json,
)
from autogaze.evaluation.behaviour_plots import PLOTS, save_plot
from autogaze.evaluation.clips import Cutting
from autogaze.frames import Frames
from autogaze.pipeline import Progress, Recipe, make_recipe
from autogaze.results import OutputError
from autogaze.video import open_video
from make_video import moving_frames, write_video

FILES = (RESULT, *TABLES, *PICTURES)
CUTTING = Cutting(clip_len=4, max_clips=2)


def recipes(*models: str) -> list[Recipe]:
    return [make_recipe(model=model, ratio=0.05, mode="resize") for model in models]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three videos of 9 frames and one of 3."""
    folder = tmp_path_factory.mktemp("videos")
    lengths = {"a": 9, "b": 9, "c": 9, "short": 3}
    return [
        write_video(folder / f"{name}.mp4", moving_frames(length, seed=seed, height_px=96, width_px=128))
        for seed, (name, length) in enumerate(lengths.items())
    ]


@pytest.fixture(scope="module")
def behaviour(videos: list[Path]) -> Behaviour:
    return measure_behaviour(videos, recipes=recipes("difference", "random"), cutting=CUTTING, draws=50)


@pytest.fixture(scope="module")
def saved(behaviour: Behaviour, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results."""
    folder = tmp_path_factory.mktemp("saved")
    save_behaviour(behaviour, folder)
    return folder


class TestMeasuring:
    def test_every_selector_sees_the_same_clips(self, behaviour: Behaviour) -> None:
        names = [f"{name}_start_{start:04d}" for name in "abc" for start in (0, 4)]
        assert behaviour.clips == (*names, "short_start_0000")
        assert behaviour.short_clips == ("short_start_0000",)
        for found, selector in zip(behaviour.selectors, ("difference", "random"), strict=True):
            assert (found.selector, found.clips, found.frames) == (selector, 7, 27)
            assert found.gazes == 27 * 13
        one, other = behaviour.selectors
        assert [row.patches for row in one.flow] == [row.patches for row in other.flow]

    def test_it_is_what_its_clips_say(self, videos: list[Path], behaviour: Behaviour) -> None:
        with open_video(videos[1], window_frames=4) as reader:
            frames = next(reader)
        (alone,) = measure_clip(frames, recipes=recipes("difference"), name="b_start_0000")
        again = measure_behaviour([videos[1]], recipes=recipes("difference"), cutting=replace(CUTTING, max_clips=1))
        (found,) = again.selectors
        assert [row.gazes for row in found.scale_shares] == alone.gazes_TS.sum(0).tolist()
        assert [row.patches for row in found.flow] == alone.moved_SB.reshape(-1).tolist()

    def test_the_order_of_videos_changes_nothing(self, videos: list[Path], behaviour: Behaviour) -> None:
        again = measure_behaviour(videos[::-1], recipes=recipes("difference", "random"), cutting=CUTTING, draws=50)
        assert again.selectors == behaviour.selectors
        assert again.clips == behaviour.clips

    def test_who_follows_motion_gazes_at_what_moves(self, behaviour: Behaviour) -> None:
        difference, random = (found.flow_trends[-1].gazed_moves_faster for found in behaviour.selectors)
        assert difference is not None
        assert random is not None
        assert difference > random

    def test_a_video_that_fails_is_told_and_the_others_are_done(self, videos: list[Path], tmp_path: Path) -> None:
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"no video at all")
        told: list[Progress] = []
        ends = []
        found = measure_behaviour(
            [broken, videos[0]],
            recipes=recipes("uniform"),
            cutting=CUTTING,
            draws=5,
            on_progress=told.append,
            on_source=lambda: ends.append(None),
        )
        assert [failure.source for failure in found.failures] == [str(broken)]
        assert "broken.mp4" in str(found.failures[0].error)
        assert found.clips == ("a_start_0000", "a_start_0004")
        assert [(progress.frames, progress.expected_frames) for progress in told] == [(4, 8), (8, 8)]
        assert told[-1].patches_total == 8 * 265
        assert len(ends) == 2

    def test_nothing_but_failures_is_no_selector(self, tmp_path: Path) -> None:
        found = measure_behaviour([tmp_path / "missing.mp4"], recipes=recipes("uniform"))
        assert (found.selectors, found.clips, len(found.failures)) == ((), (), 1)
        with pytest.raises(ValueError, match="nothing to write"):
            save_behaviour(found, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_motion_vectors_are_read_where_the_codec_stored_them(self, videos: list[Path]) -> None:
        (found,) = measure_behaviour(videos[:1], recipes=recipes("motion-vectors"), cutting=CUTTING).selectors
        assert found.gazes == 8 * 13

    def test_a_single_picture_has_detail_but_no_motion(self, tmp_path: Path) -> None:
        Image.fromarray(moving_frames(1)[0]).save(tmp_path / "one.png")
        (found,) = measure_behaviour([tmp_path / "one.png"], recipes=recipes("detail")).selectors
        assert {row.patches for row in found.flow} == {0}
        assert found.scale_and_detail.gazes == 13

    def test_selectors_that_cannot_be_told_apart_are_refused(self) -> None:
        with pytest.raises(AutoGazeError, match="selector random is named twice"):
            measure_behaviour([], recipes=recipes("random", "uniform", "random"))
        with pytest.raises(AutoGazeError, match="no selector was named"):
            measure_behaviour([], recipes=[])

    def test_frames_are_stretched_as_pillow_does_it(self) -> None:
        rgb = moving_frames(2, height_px=60, width_px=90)
        square = stretched(Frames.from_rgb(rgb), side_px=224)
        expected = Image.fromarray(rgb[1]).resize((224, 224), Image.Resampling.BILINEAR)
        assert np.array_equal(square.rgb[1], np.asarray(expected))


class TestFiles:
    def test_two_runs_write_the_same_bytes(
        self, videos: list[Path], behaviour: Behaviour, saved: Path, tmp_path: Path
    ) -> None:
        again = measure_behaviour(videos, recipes=recipes("difference", "random"), cutting=CUTTING, draws=50)
        written = save_behaviour(replace(again, seconds=behaviour.seconds), tmp_path)
        assert {str(path.relative_to(tmp_path)) for path in written} == set(FILES)
        for file in FILES:
            assert (saved / file).read_bytes() == (tmp_path / file).read_bytes(), file

    def test_tables_hold_every_row_exactly(self, behaviour: Behaviour, saved: Path) -> None:
        for file, rows_of in (
            ("behaviour_flow.csv", "flow"),
            ("behaviour_detail.csv", "detail"),
            ("behaviour_frames.csv", "frame_shares"),
            ("behaviour_scales.csv", "scale_shares"),
        ):
            rows = [row for found in behaviour.selectors for row in getattr(found, rows_of)]
            with (saved / file).open(newline="") as table:
                cells = list(csv.DictReader(table))
            assert [list(cell.values()) for cell in cells] == [
                ["" if value is None else str(value) for value in astuple(row)] for row in rows
            ]
            assert next(iter(cells[0])) == "selector"

    def test_the_json_tells_everything(self, behaviour: Behaviour, saved: Path) -> None:
        told = json.loads((saved / RESULT).read_text())
        assert told == to_json(behaviour)
        assert told["format"] == "autogaze-behaviour"
        assert told["settings"]["cutting"]["clip_len"] == 4
        assert [settings["model"] for settings in told["settings"]["selectors"]] == ["difference", "random"]
        assert told["settings"]["selectors"][0]["ratio"] == 0.05
        assert {"autogaze", "torch", "scipy", "opencv-python-headless"} <= told["versions"].keys()
        assert any("first frame of a clip has no flow" in note for note in told["notes"])
        assert len(told["results"][1]["flow"]) == 4 * 9
        assert told["results"][0]["scale_and_detail"]["gazes"] == 27 * 13

    def test_what_is_there_is_kept_unless_told_otherwise(self, behaviour: Behaviour, tmp_path: Path) -> None:
        check_ready(tmp_path / "new", overwrite=False)
        check_ready(tmp_path, overwrite=False)
        (tmp_path / "plots").mkdir()
        (tmp_path / PICTURES[0]).touch()
        with pytest.raises(OutputError, match=r"behaviour_flow.png: there already; --overwrite replaces"):
            check_ready(tmp_path, overwrite=False)
        check_ready(tmp_path, overwrite=True)
        with pytest.raises(OutputError, match="is a file"):
            check_ready(tmp_path / PICTURES[0], overwrite=True)

    def test_a_missing_package_is_told_before_any_work(
        self, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "cv2", None)
        for work in (
            lambda: check_ready(tmp_path, overwrite=True),
            lambda: measure_behaviour(videos[:1], recipes=recipes("uniform"), cutting=CUTTING),
        ):
            with pytest.raises(ImportError, match=r"cv2 is not installed; run: pip install 'autogaze\[evaluate\]'"):
                work()

    def test_a_line_for_those_who_read_no_files(self, behaviour: Behaviour) -> None:
        line = summary_line(behaviour.selectors[0])
        assert line.startswith("difference: 351 gazes in 7 clips (4.9% kept, 26% of them in first frames); ")
        assert "at 32, 64, 112, 224 px; scale against detail ρ = " in line
        still = replace(behaviour.selectors[0].scale_and_detail, rho=None)
        assert "one scale or one detail" in summary_line(replace(behaviour.selectors[0], scale_and_detail=still))


def ink(path: Path) -> NDArray[np.bool_]:
    return np.asarray(Image.open(path).convert("L")) < 250


class TestPlots:
    @pytest.mark.parametrize("file", PICTURES)
    def test_nothing_is_cut_off(self, file: str, saved: Path) -> None:
        marked = ink(saved / file)
        assert min(marked.shape) > 400
        assert 0.01 < marked.mean() < 0.5
        assert not np.concatenate([marked[:2].ravel(), marked[-2:].ravel(), marked[:, :2].ravel()]).any()

    @pytest.mark.parametrize("name", PLOTS)
    def test_selectors_may_gaze_at_nothing_or_have_other_scales(
        self, name: str, behaviour: Behaviour, tmp_path: Path
    ) -> None:
        only, other = behaviour.selectors
        blank = replace(
            only,
            selector="a_$b^c_" * 12,
            gazes=0,
            flow=tuple(replace(row, patches=0, gazed=0, gaze_rate=None, clips_low=None) for row in only.flow),
            flow_trends=tuple(replace(trend, gazed_moves_faster=None, over_clips=None) for trend in only.flow_trends),
            detail=tuple(replace(row, gazes=0, mean=None, sem=None, clips_low=None) for row in only.detail),
            scale_and_detail=replace(only.scale_and_detail, rho=None),
            frame_shares=tuple(replace(row, gazes=0, share_mean=None, share_sd=None) for row in only.frame_shares),
            scale_shares=tuple(replace(row, gazes=0, share_mean=None, share_sd=None) for row in only.scale_shares),
        )
        coarse = replace(
            other,
            flow=tuple(row for row in other.flow if row.scale_px < 224),
            flow_trends=other.flow_trends[:3],
            detail=tuple(row for row in other.detail if row.scale_px != 224),
            scale_shares=other.scale_shares[:3],
        )
        save_plot(name, [blank, coarse], tmp_path / "both.png")
        assert ink(tmp_path / "both.png").any()

    def test_nothing_is_no_picture(self, behaviour: Behaviour, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="at least one selector"):
            save_plot("behaviour_flow", [], tmp_path / "x.png")
        with pytest.raises(KeyError):
            save_plot("behaviour_tea", behaviour.selectors, tmp_path / "x.png")


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def autogaze_says(capsys: pytest.CaptureFixture[str]) -> Iterator["Command"]:
    handler = signal.getsignal(signal.SIGTERM)

    def run(*words: object) -> Said:
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in words])
        assert isinstance(exit_.value.code, int)
        return Said(status=exit_.value.code, **capsys.readouterr()._asdict())

    yield run
    signal.signal(signal.SIGTERM, handler)


Command = type(lambda *words: Said(status=0, out="", err=""))
QUICK = MappingProxyType({"--ratio": "0.05", "--clip-len": "4", "--max-clips": "1"})


def quick(*words: object) -> list[object]:
    return ["evaluate", "behaviour", *words, *(word for pair in QUICK.items() for word in pair)]


class TestCommandLine:
    def test_writes_what_the_functions_write(self, videos: list[Path], tmp_path: Path, autogaze_says: Command) -> None:
        said = autogaze_says(*quick(*videos[:2], "--selectors", "difference, random", "--out", tmp_path / "out"))
        assert (said.status, said.err) == (0, "")
        first, second = said.out.splitlines()
        assert first.startswith("difference: 104 gazes in 2 clips")
        assert second.endswith(f"→ {tmp_path}/out/behaviour.json")
        assert all((tmp_path / "out" / file).is_file() for file in FILES)
        cutting = Cutting(clip_len=4, max_clips=1)
        expected = measure_behaviour(videos[:2], recipes=recipes("difference", "random"), cutting=cutting)
        told = json.loads((tmp_path / "out" / RESULT).read_text())
        assert told["results"] == to_json(expected)["results"]

    def test_json_is_all_there_is_and_a_failure_is_one_line(
        self, videos: list[Path], tmp_path: Path, autogaze_says: Command
    ) -> None:
        missing = tmp_path / "missing.mp4"
        words = quick(videos[0], missing, "--model", "uniform", "--out", tmp_path / "out", "--json")
        said = autogaze_says(*words)
        told = json.loads(said.out)
        assert said.status == 2
        assert [failed["source"] for failed in told["failed"]] == [str(missing)]
        assert told == json.loads((tmp_path / "out" / RESULT).read_text())
        line, total = said.err.splitlines()
        assert line.startswith("autogaze: ")
        assert "missing.mp4" in line
        assert total == "autogaze: 1 of 2 sources failed; the others are done"
        said = autogaze_says(*words)
        assert said.status == 2
        assert "there already; --overwrite replaces them, another --out keeps them" in said.err

    def test_where_all_fail_nothing_is_written(self, tmp_path: Path, autogaze_says: Command) -> None:
        for name in ("a.mp4", "b.mp4"):
            (tmp_path / name).write_bytes(b"no video")
        said = autogaze_says(*quick(tmp_path / "a.mp4", tmp_path / "b.mp4", "--out", tmp_path / "out"))
        assert said.status == 2
        assert said.err.splitlines()[-1] == "autogaze: 2 of 2 sources failed; nothing was written"
        assert not (tmp_path / "out").exists()

    def test_short_videos_are_told_of_quiet_is_quiet_and_overwrite_overwrites(
        self, videos: list[Path], tmp_path: Path, autogaze_says: Command
    ) -> None:
        (tmp_path / RESULT).write_text("not what is written now")
        words = quick(videos[3], "--model", "uniform", "--out", tmp_path)
        said = autogaze_says(*words, "--quiet", "--overwrite")
        assert (said.status, said.out) == (0, "")
        assert "warning: 1 of 1 clips have fewer than 4 frames" in said.err
        assert json.loads((tmp_path / RESULT).read_text())["short_clips"] == ["short_start_0000"]

    def test_help_and_pointers_name_both_words(self, autogaze_says: Command) -> None:
        said = autogaze_says("evaluate", "behaviour", "--help")
        assert said.status == 0
        assert said.out.startswith("usage: autogaze evaluate behaviour ")
        assert "VIDEO..." in said.out
        wrong = autogaze_says("evaluate", "behaviour", "x", "--nope")
        assert wrong.status == 2
        assert wrong.err == (
            "autogaze: Unrecognized options: --nope; `autogaze evaluate behaviour --help` shows what is legal\n"
        )

    def test_a_folder_of_that_name_is_given_with_its_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autogaze_says: Command
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "behaviour").mkdir()
        said = autogaze_says("evaluate", "./behaviour", "--nope")
        assert said.status == 2
        assert "`autogaze evaluate --help`" in said.err
        inside = autogaze_says("evaluate", "behaviour", "./behaviour")
        assert "behaviour holds no video and no image" in inside.err

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (("--model", "random", "--selectors", "uniform"), "--model and --selectors exclude each other"),
            (("--selectors", "random,,uniform"), "--selectors must be names with one comma between"),
            (("--selectors", "random,random", "--ratio", "0.1"), "selector random is named twice"),
            (("--selectors", "replenish,random", "--psnr", "30"), "random cannot stop at --psnr"),
            (("--selectors", "random,rondom"), "rondom"),
            (("--ratio", "1.5"), "ratio must be above 0 and at most 1"),
            (("--ratio", "much"), "--ratio must be a number"),
            (("--clip-len", "0"), "--clip-len must be at least 1, got 0"),
            (("--max-clips", "0"), "--max-clips must be at least 1, got 0"),
            (("--stride", "0"), "--stride must be at least 1, got 0"),
            (("--seed", "-1"), "--seed must be at least 0, got -1"),
        ],
    )
    def test_what_is_not_legal_is_one_line(
        self, words: tuple[str, ...], line: str, videos: list[Path], tmp_path: Path, autogaze_says: Command
    ) -> None:
        said = autogaze_says("evaluate", "behaviour", videos[0], "--out", tmp_path / "out", *words)
        assert (said.status, said.out) == (2, "")
        (told,) = said.err.splitlines()
        assert line in told
        assert not (tmp_path / "out").exists()
