"""The command line does what the functions do, and says what it did."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import autogaze
from autogaze import checks, terminal
from autogaze.cli import VERBS, main
from autogaze.gaze import Gaze
from autogaze.reconstructors.refiner import Refiner, RefinerConfig
from autogaze.selectors import SELECTORS
from autogaze.tasks.video_mae_reconstruction import VideoMAE
from autogaze.video_writer import VideoWriter
from gaze_samples import random_gaze
from small_video_mae import small_video_mae


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def autogaze_says(capsys: pytest.CaptureFixture[str]) -> Iterator["Command"]:
    """Run a command line in this process."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*words: object) -> Said:
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in words])
        assert isinstance(exit_.value.code, int)
        return Said(status=exit_.value.code, **capsys.readouterr()._asdict())

    yield run
    signal.signal(signal.SIGTERM, handler)


Command = type(lambda *words: Said(status=0, out="", err=""))


def write_video(path: Path, *, num_frames: int = 3) -> Path:
    rgb = np.random.default_rng(0).integers(0, 256, (num_frames, 48, 80, 3), np.uint8)
    with VideoWriter(path, fps=10, height_px=48, width_px=80) as writer:
        writer.write(rgb)
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    return write_video(tmp_path / "videos" / "clip.mp4")


class TestGaze:
    def test_writes_what_the_function_returns(self, video: Path, tmp_path: Path, autogaze_says: Command) -> None:
        said = autogaze_says("gaze", video, "--model", "difference", "--ratio", "0.1", "--out", tmp_path / "out")
        assert (said.status, said.err) == (0, "")
        assert Gaze.load(tmp_path / "out/clip.gaze").equals(autogaze.gaze(video, model="difference", ratio=0.1))
        (line,) = said.out.splitlines()
        assert line.startswith(f"{video}: 3 frames, ")
        assert line.endswith(f"→ {tmp_path}/out/clip.{{gaze,overlay.mp4,sheet.png,json}}")

    def test_the_second_time_it_is_skipped(self, video: Path, tmp_path: Path, autogaze_says: Command) -> None:
        words = ("gaze", video, "--model", "uniform", "--ratio", "0.1", "--out", tmp_path / "out", "--no-overlay")
        assert "already complete" not in autogaze_says(*words).out
        assert "already complete, skipped (--overwrite does it again)" in autogaze_says(*words).out
        assert "already complete" not in autogaze_says(*words, "--overwrite").out

    def test_json_is_all_there_is_on_standard_output(self, video: Path, tmp_path: Path, autogaze_says: Command) -> None:
        missing = tmp_path / "missing.mp4"
        said = autogaze_says(
            *("gaze", video, missing, "--json", "--model", "uniform", "--ratio", "0.1", "--out", tmp_path / "out")
        )
        done, failed = json.loads(said.out)
        assert said.status == 2
        assert done["frames"] == 3
        assert done["complete"] is True
        assert done["folder"] == str(tmp_path / "out")
        assert failed["source"] == str(missing)
        assert "missing.mp4" in failed["error"]

    def test_options_reach_the_result(self, video: Path, tmp_path: Path, autogaze_says: Command) -> None:
        said = autogaze_says(
            *("gaze", "--ratio", "0.2,0.1,0.1" + ",0.1" * 13, video, "--model", "uniform", "--resize"),
            *("--stride", 2, "--no-overlay", "--no-sheet", "--out", tmp_path / "out", "--json"),
        )
        (summary,) = json.loads(said.out)
        settings = summary["settings"]
        assert settings["ratio"] == [0.2, *[0.1] * 15]
        assert (settings["mode"], settings["stride"], summary["frames"]) == ("resize", 2, 2)
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.gaze", "clip.json"]

    def test_limits_reach_the_budget(self, video: Path, tmp_path: Path, autogaze_says: Command) -> None:
        said = autogaze_says(
            *("gaze", video, "--psnr", 20, "--threshold", 0.5, "--ratio", 0.3, "--per", "clip"),
            *("--no-overlay", "--no-sheet", "--out", tmp_path / "out", "--json"),
        )
        settings = json.loads(said.out)[0]["settings"]
        assert [settings[name] for name in ("psnr_db", "threshold", "ratio", "per")] == [20, 0.5, 0.3, "clip"]

    def test_quiet_says_nothing(self, video: Path, tmp_path: Path, autogaze_says: Command) -> None:
        said = autogaze_says("gaze", video, "--quiet", "--model", "uniform", "--ratio", "0.1", "--out", tmp_path / "o")
        assert (said.status, said.out, said.err) == (0, "", "")

    def test_a_folder_is_all_its_videos_but_not_their_overlays(
        self, video: Path, tmp_path: Path, autogaze_says: Command
    ) -> None:
        write_video(video.parent / "other.mp4")
        words = ("gaze", video.parent, "--model", "uniform", "--ratio", "0.1", "--out", video.parent, "--json")
        for _ in range(2):
            assert [summary["name"] for summary in json.loads(autogaze_says(*words).out)] == ["clip", "other"]

    def test_a_folder_of_nothing_but_results_is_refused(
        self, video: Path, tmp_path: Path, autogaze_says: Command
    ) -> None:
        words = ("--model", "uniform", "--out", tmp_path / "out")
        assert autogaze_says("gaze", video, *words).status == 0
        said = autogaze_says("gaze", tmp_path / "out", *words)
        assert (said.status, said.out) == (2, "")
        assert "holds no video and no image" in said.err

    def test_one_frame_is_one_frame(self, tmp_path: Path, autogaze_says: Command) -> None:
        source = write_video(tmp_path / "one.mp4", num_frames=1)
        said = autogaze_says("gaze", source, "--model", "uniform", "--out", tmp_path / "out")
        assert said.out.startswith(f"{source}: 1 frame, ")

    def test_help_tells_of_the_version(self, autogaze_says: Command) -> None:
        assert "autogaze --version" in autogaze_says("--help").out

    def test_an_error_names_the_file_that_could_not_be_made(self) -> None:
        error = OSError(21, "Is a directory", "out/.a.x1/a.gaze", None, "out/a.gaze")
        assert terminal.error_line(error) == "out/a.gaze: Is a directory"


class TestInfo:
    def test_of_a_gaze_file(self, video: Path, tmp_path: Path, autogaze_says: Command) -> None:
        gaze = autogaze.gaze(video, model="uniform", ratio=0.1)
        gaze.save(tmp_path / "x.gaze")
        info = json.loads(autogaze_says("info", tmp_path / "x.gaze", "--json").out)
        assert (info["frames"], info["patches_kept"]) == (3, gaze.num_gazes)
        assert sum(info["kept_per_scale"].values()) == gaze.num_gazes
        table = autogaze_says("info", tmp_path / "x.gaze").out
        assert "frames           3\n" in table

    @pytest.mark.parametrize("model", SELECTORS)
    def test_of_every_selector(self, model: str, autogaze_says: Command) -> None:
        said = autogaze_says("info", model, "--json")
        info = json.loads(said.out)
        assert said.status == 0
        assert info["patches_per_tile"] == 265
        assert "`" not in info["kind"]

    def test_of_reconstructors(self, tmp_path: Path, autogaze_says: Command) -> None:
        small_video_mae().save_pretrained(tmp_path / "mae")
        Refiner(RefinerConfig(scales_px=(32, 64), widths=(8, 16))).save_pretrained(tmp_path / "refiner")
        random_gaze(0).save(tmp_path / "refiner" / "x.gaze")
        for target, start, patches, weights in (
            ("canvas", "Rebuilds by pasting", None, False),
            ("refined", "Rebuilds with a Refiner", 265, True),
            (tmp_path / "refiner", "Rebuilds with a Refiner", 20, True),
            (tmp_path / "refiner" / "model.safetensors", "Rebuilds with a Refiner", 20, True),
            (tmp_path / "mae", "Rebuilds the tiles of a frame by a VideoMAE", 20, True),
        ):
            info = json.loads(autogaze_says("info", target, "--json").out)
            assert info["kind"].startswith(start) and info["patches_per_tile"] == patches
            assert (info["parameters"] > 0) == weights and info["loss_unit"]
        assert "frames" in autogaze_says("info", tmp_path / "refiner" / "x.gaze").out
        everything_at_once = VideoMAE(replace(small_video_mae().config, causal=False))
        everything_at_once.save_pretrained(tmp_path / "mae")
        said = autogaze_says("info", tmp_path / "mae")
        assert said.status == 2 and "must be causal" in said.err


class TestChecks:
    def test_pass_here(self, autogaze_says: Command) -> None:
        said = autogaze_says("checks", "--json")
        report = json.loads(said.out)
        assert (said.status, report["ok"]) == (0, True)
        found = {check["name"]: check["found"] for check in report["checks"]}
        assert found["autogaze"] == autogaze.__version__
        assert found["write and read a video"] == "2 of 2 frames came back"
        assert {"python", "torch", "av", "cpu", "pyarrow"} <= set(found)

    def test_fail_without_something_required(self, autogaze_says: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "MIN_PYTHON", (99, 0))
        said = autogaze_says("checks")
        assert said.status == 1
        line = next(line for line in said.out.splitlines() if "python: python" in line)
        assert line.startswith("missing")
        assert line.endswith("install Python 99.0 or newer")

    def test_pass_without_something_optional(self) -> None:
        optional = checks.Check(group="extra", name="x", found="not installed", ok=False, required=False)
        assert checks.Report(checks=(optional,)).ok

    @pytest.mark.parametrize(("package", "minimum", "ok"), [("numpy", "1.26", True), ("numpy", "99.1", False)])
    def test_compare_versions(self, package: str, minimum: str, ok: bool) -> None:
        check = checks._package(package, minimum, group="package", required=True, advice="")
        assert check.ok is ok


class TestProcess:
    """What only a process of its own can show."""

    def start(self, *words: object, cwd: Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "autogaze.cli", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
        )

    def test_version(self, tmp_path: Path) -> None:
        process = self.start("--version", cwd=tmp_path)
        assert process.communicate(timeout=60) == (f"autogaze {autogaze.__version__}\n", "")

    def test_an_interruption_leaves_nothing_half_written(self, tmp_path: Path) -> None:
        write_video(tmp_path / "long.mp4", num_frames=600)
        ends = {
            signal.SIGINT: (130, "autogaze: interrupted; nothing half-written is left\n"),
            signal.SIGTERM: (143, ""),
        }
        words = ("gaze", "long.mp4", "--model", "uniform", "--ratio", "0.5", "--out")
        processes = {sent: self.start(*words, tmp_path / sent.name, cwd=tmp_path) for sent in ends}
        waiting = set(ends)
        while waiting:
            for sent in sorted(waiting):
                begun = list(tmp_path.glob(f"{sent.name}/.long.*/*"))
                if begun or processes[sent].poll() is not None:
                    processes[sent].send_signal(sent)
                    waiting.remove(sent)
            time.sleep(0.01)
        for sent, (status, line) in ends.items():
            assert processes[sent].communicate(timeout=60) == ("", line)
            assert processes[sent].returncode == status
            assert not (tmp_path / sent.name).exists()

    @pytest.mark.parametrize("imported", ["autogaze", "numpy", "tyro", "torch", "a class"])
    def test_an_interruption_while_starting_leaves_no_traceback(self, tmp_path: Path, imported: str) -> None:
        # Where a class is made, Python up to 3.11 turns an interruption into another error.
        code = f"""
import signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == {imported!r}:
            signal.raise_signal(signal.SIGINT)
        if {imported!r} == "a class" and name == "torch":
            class Descriptor:
                def __set_name__(self, owner, name):
                    signal.raise_signal(signal.SIGINT)
            type("Made", (), dict(descriptor=Descriptor()))
sys.meta_path.insert(0, Interrupting())
sys.argv[1:] = ["gaze", "missing.mp4"]
from autogaze_command import main
main()
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (130, "")
        assert done.stderr in ("", "autogaze: interrupted; nothing half-written is left\n")

    @pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
    @pytest.mark.parametrize(
        ("closed", "words", "status"),
        [
            (">&-", "info uniform", 0),
            (">&-", "--version", 0),
            (">&-", "gaze missing.mp4", 2),
            ("2>&-", "gaze missing.mp4", 2),
            (">&- 2>&-", "gaze missing.mp4", 2),
        ],
    )
    def test_closed_streams(self, tmp_path: Path, closed: str, words: str, status: int) -> None:
        command = f"{shlex.quote(sys.executable)} -m autogaze_command {words} {closed}"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
    @pytest.mark.parametrize("num_sources", [1, 2])
    def test_a_reader_that_goes_is_told_what_is_left_to_do(self, video: Path, tmp_path: Path, num_sources: int) -> None:
        if num_sources == 2:
            write_video(video.parent / "other.mp4")
        reader, writer = os.pipe()
        os.close(reader)
        words = ["gaze", video.parent, "--model", "uniform", "--no-overlay", "--no-sheet"]
        done = subprocess.run(
            [sys.executable, "-m", "autogaze_command", *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        os.close(writer)
        rest = "autogaze: 1 of 2 sources are done; the same command does the rest\n"
        assert (done.returncode, done.stderr) == (2, rest if num_sources == 2 else "")

    @pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
    def test_a_usage_error_is_one_line(self, tmp_path: Path, encoding: str) -> None:
        process = subprocess.run(
            [sys.executable, "-m", "autogaze.cli", "gaze", "x.mp4", "--colour", "red"],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONIOENCODING": encoding},
            timeout=60,
        )
        line = "autogaze: Unrecognized options: --colour, red; `autogaze gaze --help` shows what is legal\n"
        assert (process.returncode, process.stdout, process.stderr) == (2, "", line)

    def test_a_full_disk_is_told_in_one_line(self, video: Path, tmp_path: Path) -> None:
        code = """
import resource, sys
from autogaze.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
main(sys.argv[1:])
"""
        process = subprocess.run(
            [sys.executable, "-c", code, "gaze", video, "--model", "uniform", "--ratio", "0.5", "--out", "out"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
        )
        assert process.returncode == 2
        assert len(process.stderr.splitlines()) == 1
        assert process.stderr.endswith("File too large; free some room or choose another --out\n")
        assert "/." not in process.stderr
        assert not (tmp_path / "out").exists()

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
    def test_output_that_cannot_be_written(self, tmp_path: Path) -> None:
        with Path("/dev/full").open("w") as full:
            process = subprocess.run(
                [sys.executable, "-m", "autogaze.cli", "--version"],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
            )
        assert process.returncode == 2
        assert process.stderr.startswith("autogaze: No space left on device")
        assert len(process.stderr.splitlines()) == 1

    def test_a_bar_is_shown_on_a_terminal_and_results_still_go_to_standard_output(
        self, video: Path, tmp_path: Path
    ) -> None:
        pty = pytest.importorskip("pty")
        master, terminal = pty.openpty()
        process = subprocess.run(
            [
                *(sys.executable, "-m", "autogaze.cli", "gaze", video, "--model", "uniform", "--ratio", "0.1"),
                *("--no-overlay", "--no-sheet", "--out", "out"),
            ],
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            cwd=tmp_path,
            timeout=60,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
        )
        os.close(terminal)
        shown = os.read(master, 1_000_000).decode()
        os.close(master)
        assert process.returncode == 0
        assert process.stdout.startswith(f"{video}: 3 frames, ")
        assert "clip" in shown
        assert "frames/s, " in shown
        assert "% kept" in shown


class TestWords:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (
                ("chekcs",),
                f"'chekcs' is no command; there are {', '.join(VERBS)}; `autogaze --help` shows what is legal",
            ),
            (
                ("gaze", "x.mp4", "--threshold", "abc"),
                "--threshold: FLOAT was wanted, got 'abc'; `autogaze gaze --help`",
            ),
            (("gaze", "x.mp4", "--frames", "many"), "--frames: INT was wanted, got 'many'"),
        ],
    )
    def test_that_mean_nothing_are_told_in_one_line(
        self, autogaze_says: "Command", words: tuple[str, ...], message: str
    ) -> None:
        said = autogaze_says(*words)
        assert said.status == 2
        assert message in said.err
        assert said.err.count("\n") == 1
