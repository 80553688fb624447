"""A benchmark measures what it says, comes back from its file, and its naive loop gazes as the engine does."""

from __future__ import annotations

import importlib
import itertools
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import autogaze
from autogaze.benching import bench, candidates, clip, load_report, plot, run
from autogaze.benching.files import JSON, PICTURE
from autogaze.benching.memory import Job, MemoryProcessError, measure_memory
from autogaze.benching.naive import NaiveEngine, naively
from autogaze.benching.plot import milliseconds, write_plot
from autogaze.benching.report import BenchFileError, BenchReport
from autogaze.benching.rows import STAGES, Memory, Row, Spread
from autogaze.benching.stages import go_through
from autogaze.benching.table import comparisons, limit, stage_table, time_table
from autogaze.cli import main
from autogaze.errors import AutoGazeError, BudgetError, CheckpointError, VideoError
from autogaze.frames import Frames
from autogaze.grid import FrameLayout
from autogaze.models.autogaze.configuration_autogaze import Positions
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.pipeline import GazeStream, make_recipe
from autogaze.selectors.base import Budget
from make_video import moving_frames, write_video

ROOT = Path(__file__).parents[1]
SMALL = ROOT / "tests" / "data" / "gaze_small"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    """40 frames: two whole clips and the beginning of a third."""
    frames = moving_frames(40, height_px=72, width_px=104)
    return str(write_video(tmp_path_factory.mktemp("bench") / "moving.mp4", frames))


@pytest.fixture(scope="module")
def report(video: str) -> BenchReport:
    """The real thing, memory in processes of its own included."""
    return bench(video, models=["replenish", SMALL], repeats=2, frames=20, threads=1)


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the processes, which take seconds to start."""
    monkeypatch.setattr(run, "measure_memory", lambda *_, **__: None)


class TestNaiveLoop:
    @pytest.mark.parametrize("positions", ["true", "reference"])
    @pytest.mark.parametrize(
        "budget", [Budget(ratio=0.5), Budget(ratio=1.0), Budget(ratio=0.8, threshold=0.45), Budget(threshold=0.3)]
    )
    def test_gazes_as_the_engine_does(self, positions: Positions, budget: Budget) -> None:
        selector = AutoGazeSelector.from_pretrained(SMALL, positions=positions)
        frames = Frames.from_rgb(moving_frames(11, height_px=72, width_px=104, seed=2))
        for make in (FrameLayout.tiled, FrameLayout.resized):
            layout = make(selector.grid, height_px=72, width_px=104)
            fast = selector.open(layout, budget).step(frames)
            slow = naively(selector).open(layout, budget).step(frames)
            np.testing.assert_array_equal(slow.index, fast.index)
            np.testing.assert_array_equal(slow.count, fast.count)
            np.testing.assert_allclose(slow.probability, fast.probability, atol=1e-5)
            np.testing.assert_allclose(slow.predicted_loss, fast.predicted_loss, atol=1e-5)

    def test_these_budgets_end_frames_early(self) -> None:
        selector = AutoGazeSelector.from_pretrained(SMALL)
        frames = Frames.from_rgb(moving_frames(11, height_px=72, width_px=104, seed=2))
        layout = FrameLayout.tiled(selector.grid, height_px=72, width_px=104)
        for threshold in (0.45, 0.3):
            gaze = selector.open(layout, Budget(ratio=0.8, threshold=threshold)).step(frames)
            assert gaze.num_gazes < selector.open(layout, Budget(ratio=0.8)).step(frames).num_gazes
            assert len(set(gaze.count.tolist())) > 1

    def test_leaves_the_selector_as_it_was_and_shares_its_weights(self) -> None:
        selector = AutoGazeSelector.from_pretrained(SMALL, name="small")
        engine = selector.model.decoder.engine
        slow = naively(selector)
        assert selector.model.decoder.engine is engine
        assert isinstance(slow.model.decoder.engine, NaiveEngine)
        shared = zip(selector.model.parameters(), slow.model.parameters(), strict=True)
        assert all(one is other for one, other in shared)
        assert (slow.name, slow.default_budget) == ("small, naive loop", selector.default_budget)

    def test_takes_one_clip_at_a_time(self) -> None:
        engine = naively(AutoGazeSelector.from_pretrained(SMALL)).model.decoder.engine
        with pytest.raises(ValueError, match="one clip at a time, got 2"):
            engine.start(2, capacity=10)

    def test_every_pass_embeds_the_whole_sequence_and_copies_the_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        selector = naively(AutoGazeSelector.from_pretrained(SMALL))
        decoder, network = selector.model.decoder, selector.model.gazing_model.gaze_decoder
        embedded: list[int] = []
        read_out: list[int] = []
        masks: list[tuple[int, ...]] = []
        attend = torch.nn.functional.scaled_dot_product_attention

        def watched(query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
            masks.append(tuple(mask.shape))
            return attend(query, key, value, mask, **options)

        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
        network.model.embed_tokens.register_forward_hook(lambda _, __, out: embedded.append(len(out)))
        read = network.read_out
        monkeypatch.setattr(network, "read_out", lambda hidden: (read_out.append(len(hidden)), read(hidden))[1])
        state = decoder.start(1, frames=1, max_gazes=20)
        pixels = selector.model.preprocess(moving_frames(1, height_px=64, width_px=64)[None])
        masks.clear()
        decoder.step(state, pixels, max_gazes_T=[9])  # groups of four: fed are the frame and two of them
        tokens = selector.model.config.gaze_model_config.connector_config.num_tokens
        assert embedded == [0, *(0, 4), *(0, 4, 4)], "nothing unfed before the frame, then one group, then two"
        assert read_out == [tokens, 4, 4], "all that is fed is read out"
        layers = len(network.model.blocks)
        assert masks[-3 * layers :: layers] == [(1, 1, tokens, tokens), (1, 1, 4, tokens + 4), (1, 1, 4, tokens + 8)]
        assert state.decoder.length == [tokens + 8]
        assert all(keys.shape[2] == tokens + 8 for keys in state.decoder.keys)


class TestClip:
    def test_is_the_same_every_time_and_moves(self) -> None:
        drawn = clip.draw()
        assert drawn.shape == (clip.DRAWN_FRAMES, clip.HEIGHT_PX, clip.WIDTH_PX, 3)
        np.testing.assert_array_equal(drawn, clip.draw())
        assert all((one != other).mean() > 0.1 for one, other in itertools.pairwise(drawn))

    def test_plays_forwards_and_backwards(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        gray = np.arange(0, 200, 50, dtype=np.uint8)[:, None, None, None]
        drawn = np.broadcast_to(gray, (4, clip.HEIGHT_PX, clip.WIDTH_PX, 3))
        monkeypatch.setattr(clip, "draw", lambda: drawn)
        clip.write_clip(tmp_path / "clip.mp4", frames=9)
        with autogaze.open_video(tmp_path / "clip.mp4") as reader:
            (frames,) = reader
        assert [round(float(rgb.mean()) / 50) for rgb in frames.rgb] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
        assert reader.fps == clip.FPS


class TestPass:
    @pytest.mark.parametrize(("model", "preprocesses"), [("replenish", False), ("random", False), (SMALL, True)])
    def test_stages_add_up_to_no_more_than_all_of_it(
        self, video: str, tmp_path: Path, model: str, preprocesses: bool
    ) -> None:
        recipe = make_recipe(model=model)
        passed = go_through(video, recipe=recipe, clips=9, folder=tmp_path)
        stages = [getattr(passed.times, f"{stage}_seconds") for stage in STAGES]
        assert min(stages) >= 0
        assert sum(stages) <= passed.times.total_seconds
        assert (passed.times.preprocess_seconds > 0) == preprocesses
        chosen = passed.times.gaze_seconds + passed.times.preprocess_seconds
        assert 0 < sum(passed.times.clip_seconds) < chosen, "the last 8 frames are no whole clip"
        assert len(passed.times.clip_seconds) == 2
        assert passed.gaze.equals(autogaze.gaze(video, model=model))

    def test_ends_after_so_many_clips(self, video: str, tmp_path: Path) -> None:
        recipe = make_recipe(model="uniform")
        passed = go_through(video, recipe=recipe, clips=1, folder=tmp_path)
        assert passed.gaze.equals(autogaze.gaze(video, model="uniform")[:16])
        assert autogaze.Gaze.load(tmp_path / "bench.gaze").equals(passed.gaze)

    def test_a_video_shorter_than_a_clip_is_one(self, tmp_path: Path) -> None:
        short = write_video(tmp_path / "short.mp4", moving_frames(5))
        passed = go_through(str(short), recipe=make_recipe(model="uniform"), clips=2, folder=tmp_path)
        assert (len(passed.times.clip_seconds), passed.gaze.num_frames) == (1, 5)

    def test_the_stream_tells_preprocessing_apart(self, video: str) -> None:
        with GazeStream(video, recipe=make_recipe(model=SMALL)) as stream:
            assert stream.preprocess_seconds == 0
            next(iter(stream))
            assert 0 < stream.preprocess_seconds < stream.gaze_seconds


class TestBench:
    def test_has_a_row_for_each_selector_and_each_loop(self, report: BenchReport) -> None:
        assert [(row.name, row.naive) for row in report.rows] == [
            ("replenish", False),
            (str(SMALL), False),
            (f"{SMALL}, naive loop", True),
        ]
        assert [row.same_gazes for row in report.rows] == [None, None, True]
        assert [row.tiles for row in report.rows] == [1, 4, 4]
        assert all(len(row.passes) == report.repeats == 2 for row in report.rows)
        assert all(row.frames == report.video.frames == 32 for row in report.rows), "20 are two clips"
        assert all(0 < row.patches_kept <= row.patches_total for row in report.rows)
        assert all(len(one.clip_seconds) == 2 for row in report.rows for one in row.passes)

    def test_says_on_what(self, report: BenchReport, video: str) -> None:
        assert report.machine.processor
        assert (report.machine.device, report.machine.torch_threads) == ("cpu", 1)
        assert report.versions["torch"] == torch.__version__
        assert (report.video.name, report.video.is_procedural, report.video.fps) == (video, False, 30)
        assert (report.video.height_px, report.video.width_px) == (72, 104)
        assert report.headline().startswith("moving.mp4, 104×72 px, 32 frames · ")

    def test_memory_is_of_a_process_of_its_own(self, report: BenchReport) -> None:
        for row in report.rows:
            assert row.memory is not None
            assert 0 < row.memory.base_mb < row.memory.peak_mb
            assert row.memory.accelerator_mb is None
            assert row.memory.over_base_mb == row.memory.peak_mb - row.memory.base_mb

    def test_numbers_are_read_off_the_samples(self, report: BenchReport) -> None:
        for row in report.rows:
            clips = sorted(1e3 * seconds for one in row.passes for seconds in one.clip_seconds)
            assert row.clip_ms.least == clips[0]
            assert row.clip_ms.median == pytest.approx((clips[1] + clips[2]) / 2)
            assert row.tile_clip_ms == row.clip_ms.median / row.tiles
            assert row.fps.median == pytest.approx(np.mean([32 / one.total_seconds for one in row.passes]))
            assert row.real_time == row.fps.median / 30
            assert tuple(row.stage_shares()) == STAGES
            assert 0 < sum(row.stage_shares().values()) <= 1

    @pytest.mark.usefixtures("no_memory")
    def test_selectors_take_turns_after_a_warm_up(self, video: str) -> None:
        steps: list[tuple[str, int, int]] = []
        report = bench(
            video,
            models=["uniform", "random", "uniform"],
            mode="resize",
            ratio=0.5,
            repeats=2,
            frames=1,
            on_progress=lambda *step: steps.append(step),
        )
        what = ["warming up", "pass 1 of 2", "pass 2 of 2", "memory"]
        assert [words for words, _, _ in steps] == [f"{name}: {w}" for w in what for name in ("uniform", "random")]
        assert [(done, total) for _, done, total in steps] == [(number, 8) for number in range(8)]
        assert [(row.name, row.tiles, row.settings.ratio) for row in report.rows] == [
            ("uniform", 1, 0.5),
            ("random", 1, 0.5),
        ]
        assert [row.memory for row in report.rows] == [None, None]

    @pytest.mark.usefixtures("no_memory")
    def test_threads_are_given_back(self, video: str) -> None:
        before = torch.get_num_threads()
        report = bench(video, models=["uniform"], repeats=1, frames=1, threads=before + 1)
        assert (report.machine.torch_threads, torch.get_num_threads()) == (before + 1, before)

    def test_threads_are_those_of_opencv_too(self) -> None:
        opencv = pytest.importorskip("cv2")
        before, of_torch = opencv.getNumThreads(), torch.get_num_threads()
        with run.working_threads(before + 1):
            assert opencv.getNumThreads() == before + 1
        with run.working_threads(None):
            assert opencv.getNumThreads() == of_torch
        assert opencv.getNumThreads() == before

    @pytest.mark.usefixtures("no_memory")
    def test_of_a_damaged_video_warns(self, tmp_path: Path) -> None:
        cut = tmp_path / "cut.mp4"
        cut.write_bytes((ROOT / "examples" / "sample.mp4").read_bytes()[:-100_000])
        report = bench(cut, models=["uniform", "random"], repeats=1, frames=1000)
        (line,) = (line for line in report.warnings if "ends after" in line)
        assert line.startswith(f"{cut}: ends after ")

    @pytest.mark.usefixtures("no_memory")
    @pytest.mark.parametrize(("frames", "words"), [(1, "1 frame"), (5, "5 frames")])
    def test_a_video_shorter_than_a_clip_is_told_as_what_it_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int, words: str
    ) -> None:
        short = write_video(tmp_path / "short.mp4", moving_frames(frames))
        report = bench(short, models=["uniform"], repeats=1)
        assert report.clip_frames == frames
        assert [column.header for column in time_table(report).columns][2] == words
        monkeypatch.syspath_prepend(ROOT / "docs")
        costs = importlib.import_module("bench_figures").costs(report.to_json())
        assert f"| kept | {words} |" in costs.splitlines()[0]
        left, right = axes_of(report, monkeypatch)
        assert f"a clip of {words} " in right.get_title(loc="left")
        assert f"dashed: {words} at 30" in right.get_xlabel()
        (dashed,) = (line for line in right.lines if len(line.get_xdata()) == 2 and list(line.get_ydata()) == [0, 1])
        assert dashed.get_xdata()[0] == pytest.approx(1e3 * frames / 30)
        assert left.get_xlim() == (0, 1)

    @pytest.mark.usefixtures("no_memory")
    def test_without_naive_a_gaze_model_has_one_row(self, video: str) -> None:
        report = bench(video, models=[SMALL], naive=False, repeats=1, frames=1)
        assert [row.naive for row in report.rows] == [False]
        assert comparisons(report) == []

    def test_what_needs_a_missing_package_is_left_out_unless_it_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(candidates, "DEFAULT_MODELS", ("uniform", "flow"))
        monkeypatch.setitem(sys.modules, "cv2", None)
        found = candidates.find_candidates(None, naive=True, options={})
        assert [one.name for one in found.all] == ["uniform"]
        (warning,) = found.warnings
        assert warning.startswith("flow was not measured: cv2 is not installed; run: ")
        with pytest.raises(ImportError, match="cv2 is not installed"):
            candidates.find_candidates(["flow"], naive=True, options={})

    def test_the_default_is_every_selector_that_works_on_any_video(self) -> None:
        assert candidates.DEFAULT_MODELS[:2] == ("replenish", "bundled")
        assert len(set(candidates.DEFAULT_MODELS)) == len(candidates.DEFAULT_MODELS) == 8

    def test_a_busy_machine_is_told(self) -> None:
        assert run._busy(None, cores=2) == run._busy(1.0, cores=2) == run._busy(1.0, cores=None) == []
        (line,) = run._busy(1.1, cores=2)
        assert "1.1 processes for 2 CPUs" in line

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"repeats": 0}, AutoGazeError, "repeats must be at least 1, got 0"),
            ({"frames": 0}, AutoGazeError, "frames must be at least 1, got 0"),
            ({"threads": 0}, AutoGazeError, "threads must be at least 1, got 0"),
            ({"models": []}, AutoGazeError, "name at least one model"),
            ({"models": ["replenich"]}, CheckpointError, "did you mean replenish?"),
            ({"ratio": 2.0}, BudgetError, "ratio must be above 0 and at most 1"),
            ({"device": "abacus"}, AutoGazeError, "device 'abacus' cannot be used"),
            ({"video": "camera:0"}, VideoError, "camera:0 never shows the same twice"),
            ({"video": "missing.mp4"}, VideoError, "missing.mp4"),
        ],
    )
    def test_refuses(self, video: str, options: dict[str, Any], error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words.replace("?", r"\?")):
            bench(**{"video": video, "models": ["uniform"], **options})


class TestFiles:
    def test_come_back(self, report: BenchReport, tmp_path: Path) -> None:
        report.save(tmp_path / "bench.json")
        assert load_report(tmp_path / "bench.json") == report
        told = json.loads((tmp_path / "bench.json").read_text())
        assert (told["format"], told["version"]) == ("autogaze-bench", 1)
        for values, row in zip(told["rows"], report.rows, strict=True):
            assert values["summary"]["clip_ms"]["median"] == row.clip_ms.median
            assert values["summary"]["stage_shares"] == row.stage_shares()
            assert [one["clip_seconds"] for one in values["passes"]] == [list(one.clip_seconds) for one in row.passes]

    def test_of_rows_without_memory_come_back(self, report: BenchReport) -> None:
        bare = replace(report, rows=(replace(report.rows[0], memory=None),), warnings=("busy",))
        assert BenchReport.from_json(json.loads(json.dumps(bare.to_json()))) == bare

    def test_of_a_version_with_fewer_options_come_back(self, report: BenchReport) -> None:
        told = report.to_json()
        for row in told["rows"]:
            del row["settings"]["cascade"]
        assert BenchReport.from_json(told) == report

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"video": {"name": "x"}}, "damaged"),
            ({"format": "autogaze-summary"}, "not a benchmark of autogaze"),
            ({"version": 2}, "version 2, this autogaze reads version 1"),
            ({"rows": [{}]}, "damaged"),
            ({"machine": None}, "damaged"),
        ],
    )
    def test_that_are_something_else_are_refused(
        self, report: BenchReport, tmp_path: Path, change: dict[str, Any], words: str
    ) -> None:
        (tmp_path / "bench.json").write_text(json.dumps({**report.to_json(), **change}))
        with pytest.raises(BenchFileError, match=rf"bench\.json: .*{words}"):
            load_report(tmp_path / "bench.json")

    def test_that_are_no_json_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "bench.json").write_text("{")
        with pytest.raises(BenchFileError, match="is not JSON"):
            load_report(tmp_path / "bench.json")

    def test_make_a_table_of_the_readme(self, report: BenchReport, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(ROOT / "docs")
        lines = importlib.import_module("bench_figures").costs(report.to_json()).splitlines()
        assert [line.split(" | ")[0] for line in lines[2:5]] == [
            "| `replenish`",
            f"| `{SMALL}`",
            f"| `{SMALL}`, naive loop",
        ]
        assert {line.count("|") for line in lines[:5]} == {12}
        limits = [limit(threshold=row.settings.threshold, ratio=row.settings.ratio) for row in report.rows[:3]]
        assert [line.split(" | ")[1] for line in lines[2:5]] == limits
        assert lines[-1].startswith("`moving.mp4` of 104×72 px, 32 frames, on 1 thread of ")

    def test_equal_benchmarks_give_equal_pictures(self, report: BenchReport, tmp_path: Path) -> None:
        write_plot(tmp_path / "one.png", report=report)
        write_plot(tmp_path / "other.png", report=report)
        assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
        picture = np.asarray(Image.open(tmp_path / "one.png").convert("RGB"))
        assert {(0x00, 0x72, 0xB2), (0xA9, 0xB1, 0xBB)} <= set(map(tuple, picture.reshape(-1, 3).tolist()))


@pytest.mark.parametrize(
    ("threshold", "ratio", "word"),
    [(0.03865, 0.75, "≤ 0.0386"), (None, 0.1, "10.0%"), (None, (0.5, 0.05), "50.0%"), (None, None, "100.0%")],
)
def test_a_limit_in_a_word(threshold: float | None, ratio: float | tuple[float, ...] | None, word: str) -> None:
    assert limit(threshold=threshold, ratio=ratio) == word


def test_spread() -> None:
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(median=3, quartile_low=2, quartile_high=4, least=1)


def test_durations_have_three_digits() -> None:
    told = [milliseconds(value).replace("\N{NO-BREAK SPACE}", " ") for value in (0.617, 9.99, 48.72, 999.4, 25_200)]
    assert told == ["0.62 ms", "9.99 ms", "48.7 ms", "999 ms", "25.2 s"]


def test_a_naive_loop_is_compared_with_the_engine_before_it(report: BenchReport) -> None:
    _, engine, naive = report.rows
    twice = replace(engine, naive=True, same_gazes=False, passes=tuple(_slower(engine)))
    assert comparisons(replace(report, rows=(engine, twice))) == [
        f"{SMALL}: the naive loop takes 2.00 times as long for a clip, other gazes: rounding tips near ties"
    ]
    assert comparisons(report)[0].endswith("the same gazes")
    assert naive.settings == engine.settings


@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit_a_terminal_and_names_give_way(report: BenchReport, width: int) -> None:
    console = Console(width=width)
    for table in (time_table(report), stage_table(report)):
        with console.capture() as captured:
            console.print(table)
        told = captured.get()
        assert max(map(len, told.splitlines())) <= width
        assert "…" not in told
        letters = "".join(line.split(" ")[0] for line in told.splitlines()[1:])
        assert letters.startswith(f"replenish{SMALL}")


def test_every_model_has_a_style_of_its_own(report: BenchReport, monkeypatch: pytest.MonkeyPatch) -> None:
    _, engine, naive = report.rows
    names = [f"/models/{number}" for number in range(5)]
    rows = [replace(engine, name=name, settings=replace(engine.settings, model=name)) for name in names]
    rows.append(replace(naive, settings=rows[-1].settings))
    _, right = axes_of(replace(report, rows=tuple(rows)), monkeypatch)
    points = [line for line in right.lines if line.get_marker() not in ("None", None, "")]
    looks = [(line.get_marker(), line.get_color()) for line in points]
    assert len(set(looks[:5])) == 5
    assert looks[5] == looks[4]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False] * 5 + [True]


def axes_of(report: BenchReport, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Both halves of the picture, before they are pixels."""
    figures: list[Any] = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, _: figures.append(figure))
    write_plot("nowhere.png", report=report)
    left, right = figures[0].axes
    return left, right


def _slower(row: Row) -> Iterator[Any]:
    for one in row.passes:
        yield replace(one, clip_seconds=tuple(2 * seconds for seconds in one.clip_seconds))


class TestCommand:
    def says(self, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["bench", *map(str, words)])
        said = capsys.readouterr()
        return int(exit_.value.code or 0), said.out, said.err

    @pytest.mark.usefixtures("no_memory")
    def test_needs_no_video_and_writes_what_it_prints(
        self, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ("--model", "uniform,random", "--frames", 16, "--repeats", 1, "--out", tmp_path / "out")
        status, out, _ = self.says(capsys, *options)
        assert status == 0
        report = load_report(tmp_path / "out" / JSON)
        assert report.video.is_procedural
        assert [row.name for row in report.rows] == ["uniform", "random"]
        lines = out.splitlines()
        assert lines[0] == report.headline()
        words = [line.split()[0] for line in lines[1:-1]]
        assert words == ["selector", "uniform", "random"] * 2
        assert max(map(len, lines[1:-1])) <= 80
        assert lines[-1] == f"→ {tmp_path / 'out' / JSON} {tmp_path / 'out' / PICTURE}"
        assert Image.open(tmp_path / "out" / PICTURE).size[0] == 1560
        assert self.says(capsys, *options)[0] == 2, "what is there is not replaced unasked"
        status, out, _ = self.says(capsys, video, *options, "--overwrite", "--json")
        assert status == 0
        assert BenchReport.from_json(json.loads(out)) == load_report(tmp_path / "out" / JSON) != report

    @pytest.mark.usefixtures("no_memory")
    def test_without_matplotlib_the_numbers_are_there(
        self, video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / PICTURE).write_bytes(b"of an earlier benchmark")

        class Missing:
            def find_spec(self, name: str, *_: object) -> None:
                if name.split(".")[0] == "matplotlib":
                    raise ModuleNotFoundError(f"No module named {name!r}", name="matplotlib")

        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
        words = (video, "--model", "uniform", "--frames", 1, "--repeats", 1, "--out", tmp_path, "--overwrite")
        status, out, err = self.says(capsys, *words)
        assert status == 0
        assert out.splitlines()[-1] == f"→ {tmp_path / JSON}"
        (line,) = (line for line in err.splitlines() if PICTURE in line)
        assert line.startswith("autogaze: warning: bench.png was left out: matplotlib")
        assert line.endswith(" is not installed; run: pip install 'autogaze[evaluate]'")
        assert (tmp_path / JSON).exists()
        assert not (tmp_path / PICTURE).exists()

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--repeats", "0"], "repeats must be at least 1"),
            (["--threads", "-1"], "threads must be at least 1"),
            (["--model", "no-such"], "'no-such' is no model"),
            (["--model", "uniform,,random"], "--model must be names with one comma"),
            (["--tiles", "--resize"], "exclude each other"),
            (["--ratio", "x"], "--ratio must be a number"),
            (["missing.mp4", "--model", "uniform"], "missing.mp4"),
        ],
    )
    def test_refuses_in_one_line_and_writes_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
    ) -> None:
        status, out, err = self.says(capsys, *words, "--out", tmp_path / "out")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert told in err
        assert not (tmp_path / "out").exists()

    def test_refuses_a_file_as_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "out").write_text("")
        status, _, err = self.says(capsys, "--out", tmp_path / "out")
        assert status == 2
        assert "is a file" in err


class TestMemory:
    def job(self, video: str, make: Any) -> Job:
        return Job(video=video, make=make, clips=1, threads=1, device=None)

    def test_what_breaks_is_told_and_costs_no_times(self, video: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(_: Job) -> Memory:
            raise MemoryProcessError("memory could not be measured: it rains")

        monkeypatch.setattr(run, "measure_memory", broken)
        report = bench(video, models=["uniform"], repeats=1, frames=1)
        assert report.rows[0].memory is None
        assert report.warnings[0] == "uniform: memory could not be measured: it rains"

    def test_a_process_that_fails_says_why(self, video: str) -> None:
        with pytest.raises(MemoryProcessError, match=r"not be measured: ZeroDivisionError: "):
            measure_memory(self.job(video, partial(divmod, 1, 0)))

    def test_a_process_that_is_ended_is_missed(self, video: str) -> None:
        with pytest.raises(MemoryProcessError, match=r"ended with code -9; is there enough\?"):
            measure_memory(self.job(video, partial(signal.raise_signal, signal.SIGKILL)))
