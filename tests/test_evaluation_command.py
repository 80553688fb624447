"""The command line evaluates as the function does, tells what failed, and survives being killed."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autogaze.cli import main
from autogaze.evaluation.journal import JOURNAL
from autogaze.evaluation.rows import ClipRow
from autogaze.evaluation.tables import CLIPS_CSV, FRAMES_CSV, SUMMARY_CSV, read_rows
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.calibration import weights_fingerprint
from calibration_samples import calibration
from make_video import moving_frames, noisy_frames, write_video
from small_models import small_config

TABLES = (CLIPS_CSV, FRAMES_CSV, SUMMARY_CSV)
QUICK = ("--clip-len", "2", "--viz-clips", "0", "--no-plots", "--no-timings")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of a few frames."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", moving_frames(4))
    write_video(folder / "b.mp4", noisy_frames(3))
    return folder


class Said:
    """What a command left behind."""

    def __init__(self, status: object, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


def says(capsys: pytest.CaptureFixture[str], *words: object) -> Said:
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", *map(str, words)])
    return Said(exit_.value.code, *capsys.readouterr())


class TestEvaluate:
    def test_options_reach_the_result(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = says(
            *(capsys, folder, "--out", tmp_path, *QUICK, "--selectors", "replenish, uniform", "--ratios", "0.02,.01"),
            *("--thresholds", "0.1", "--clip-ratios", "0.03", "--max-clips", 1, "--stride", 2, "--seed", 3),
        )
        assert said.status == 0
        assert said.err == (
            "autogaze: warning: uniform was not measured at task_0.10, ratio_0.02_task_0.10, ratio_0.01_task_0.10: "
            "uniform cannot stop at threshold=0.1: it does not reconstruct frames; "
            "give it a ratio, or use the selector replenish\n"
        )
        assert said.out == f"2 clips of 2 videos, 2 selectors, 18 measurements → {tmp_path}/summary.txt\n"
        rows = read_rows(tmp_path / CLIPS_CSV, ClipRow)
        assert [row.setting for row in rows if row.selector == "replenish"][:6] == [
            *("ratio_0.02", "ratio_0.01", "task_0.10", "ratio_0.02_task_0.10", "ratio_0.01_task_0.10", "clip_0.03"),
        ]
        told = json.loads((tmp_path / "metadata.json").read_text())
        settings = told["settings"]
        assert [settings[name] for name in ("seed", "stride", "clip_len", "max_clips", "side_px", "timings")] == [
            *(3, 2, 2, 1, 224, False),
        ]
        words = shlex.split(told["command"])
        assert words[:3] == ["autogaze", "evaluate", str(folder)]
        assert words[words.index("--ratios") + 1] == "0.02,.01"
        assert "--no-timings" in words

    def test_the_command_in_the_metadata_does_the_same(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        says(capsys, folder / "a.mp4", "--out", tmp_path, *QUICK, "--selectors", "uniform", "--clip-starts", "1,0")
        command = json.loads((tmp_path / "metadata.json").read_text())["command"]
        before = (tmp_path / FRAMES_CSV).read_bytes()
        said = says(capsys, *shlex.split(command)[2:], "--overwrite")
        assert said.status == 0
        assert (tmp_path / FRAMES_CSV).read_bytes() == before

    def test_json_is_all_there_is_on_standard_output(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        missing = tmp_path / "missing.mp4"
        said = says(
            *(capsys, folder / "b.mp4", missing, "--out", tmp_path / "out", *QUICK, "--json"),
            *("--selectors", "random", "--ratios", "0.1"),
        )
        told = json.loads(said.out)
        assert (said.status, told["clips"], told["folder"]) == (2, 1, str(tmp_path / "out"))
        (row,) = told["summary"]
        assert (row["selector"], row["setting"], row["clips"]) == ("random", "ratio_0.10", 1)
        assert [one["video"] for one in told["failures"]] == [str(missing)]
        failed, count = said.err.splitlines()
        assert failed.startswith("autogaze: ")
        assert str(missing) in failed
        assert count == "autogaze: 1 of 2 videos failed; the others are done"

    def test_quiet_says_nothing_but_what_is_wrong(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = says(
            *(capsys, folder / "b.mp4", "--out", tmp_path, *QUICK, "--quiet"),
            *("--selectors", "random,motion-vectors", "--ratios", "0.1"),
        )
        (line,) = said.err.splitlines()
        assert (said.status, said.out) == (0, "")
        assert line.startswith("autogaze: warning: motion-vectors was not measured: motion vectors are of the frames")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--ratios", "0.1,x"), "--ratios must be numbers with commas between them, got '0.1,x'"),
            (("--ratios", "2"), "ratio must be above 0 and at most 1, got 2.0"),
            (("--clip-ratios", "0"), "ratio must be above 0 and at most 1, got 0.0"),
            (("--thresholds", "-1"), "threshold must be at least 0, got -1.0"),
            (("--thresholds", "nan"), "threshold must be a finite number, got nan"),
            (("--selectors", "replenish,,random"), "--selectors must be names with one comma between two of them"),
            (("--selectors", "replenih"), "'replenih' is no model (did you mean replenish?)"),
            (("--reconstructors", "canvsa"), "'canvsa' is no reconstructor (did you mean canvas?)"),
            (("--clip-starts", "1.5"), "--clip-starts must be whole numbers with commas between them, got '1.5'"),
            (("--clip-len", "0"), "clip_len must be at least 1, got 0"),
            (("--device", "abacus", "--selectors", "random"), "device 'abacus' cannot be used on this machine"),
        ],
    )
    def test_what_is_not_legal_is_one_line_and_leaves_nothing(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
    ) -> None:
        said = says(capsys, folder, "--out", tmp_path / "out", *words)
        assert (said.status, said.out) == (2, "")
        assert said.err.startswith("autogaze: ")
        assert message in said.err
        assert said.err.count("\n") == 1
        assert not (tmp_path / "out").exists()

    def test_a_setting_that_was_named_and_left_out_is_a_line(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model = AutoGaze(small_config()).eval()
        model.calibration = calibration((0.4, 0.6), (0.5, 0.8), weights=weights_fingerprint(model))
        model.save_pretrained(tmp_path / "small")
        words = (folder / "b.mp4", *QUICK, "--selectors", tmp_path / "small")
        said = says(capsys, *words, "--out", tmp_path / "out", "--ratios", "0.1,0.2", "--thresholds", "0.5,0.7")
        assert said.status == 0
        (line,) = said.err.splitlines()
        assert line.startswith(
            "autogaze: warning: small was not measured at task_0.50, ratio_0.10_task_0.50, ratio_0.20_task_0.50: "
            "threshold 0.5 is less than this model can promise: "
        )
        told = json.loads((tmp_path / "out" / "metadata.json").read_text())
        assert [one["setting"] for one in told["skipped"]] == [
            *("task_0.50", "ratio_0.10_task_0.50", "ratio_0.20_task_0.50")
        ]
        assert {row.setting for row in read_rows(tmp_path / "out" / CLIPS_CSV, ClipRow)} == {
            *("ratio_0.10", "ratio_0.20", "task_0.70", "ratio_0.10_task_0.70", "ratio_0.20_task_0.70")
        }
        said = says(capsys, *words, "--out", tmp_path / "default")  # knows no share of a clip, which is no news
        assert (said.status, said.err) == (0, "")

    def test_another_request_is_one_line(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = (folder / "b.mp4", "--out", tmp_path, *QUICK, "--selectors", "uniform", "--ratios")
        assert says(capsys, *words, "0.1").status == 0
        said = says(capsys, *words, "0.2")
        assert said.status == 2
        assert said.err == (
            f"autogaze: {tmp_path} holds an evaluation that differs from this one in: operating points; "
            f"--overwrite starts over, another --out keeps what is there\n"
        )


MANY = (*QUICK, "--selectors", "uniform,random", "--ratios", "0.02,0.1,0.2", "--max-clips", "30")


def start(folder: Path, out: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "autogaze_command", "evaluate", str(folder), "--out", str(out), *MANY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def clips_done(out: Path) -> int:
    try:
        return (out / JOURNAL).read_bytes().count(b'{"kind":"clip"')
    except FileNotFoundError:
        return 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_killed_or_interrupted_half_way_the_same_command_gives_the_same_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        write_video(tmp_path / "videos" / f"{name}.mp4", noisy_frames(24, seed=ord(name)))
    sent = (signal.SIGKILL, signal.SIGINT)
    processes = {one: start(tmp_path / "videos", tmp_path / one.name) for one in sent}
    waiting = set(sent)
    while waiting:
        for one in sorted(waiting):
            if clips_done(tmp_path / one.name) or processes[one].poll() is not None:
                processes[one].send_signal(one)
                waiting.remove(one)
        time.sleep(0.005)
    said = {one: process.communicate(timeout=120) for one, process in processes.items()}
    assert processes[signal.SIGKILL].returncode == -signal.SIGKILL
    assert processes[signal.SIGINT].returncode == 130
    out, err = said[signal.SIGINT]
    assert out == ""
    assert err.splitlines()[-1] == "autogaze: interrupted; nothing half-written is left"
    assert len(read_rows(tmp_path / "SIGINT" / CLIPS_CSV, ClipRow)) > 0
    for one in sent:
        assert 0 < clips_done(tmp_path / one.name) < 24
    again = [start(tmp_path / "videos", tmp_path / one.name) for one in sent]
    assert says(capsys, tmp_path / "videos", "--out", tmp_path / "whole", *MANY).status == 0
    for process in again:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert out.startswith("24 clips of 2 videos, 2 selectors, 144 measurements → ")
    for one in sent:
        assert {name: (tmp_path / one.name / name).read_bytes() for name in TABLES} == {
            name: (tmp_path / "whole" / name).read_bytes() for name in TABLES
        }
