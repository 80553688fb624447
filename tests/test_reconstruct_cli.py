"""``autogaze reconstruct`` does what the function does, and says what it did."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import autogaze
from autogaze.cli import main
from autogaze.video_writer import VideoWriter
from make_video import moving_frames, write_video


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command left behind."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``autogaze reconstruct`` in this process."""

    def run(*words: object) -> Said:
        with pytest.raises(SystemExit) as exit_:
            main(["reconstruct", *map(str, words)])
        assert isinstance(exit_.value.code, int)
        return Said(status=exit_.value.code, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two videos and their gazes."""
    (tmp_path / "videos").mkdir()
    for seed, name in enumerate(("a", "b")):
        write_video(tmp_path / f"videos/{name}.mp4", moving_frames(3, seed=seed), fps=10)
    sources = sorted((tmp_path / "videos").iterdir())
    autogaze.gaze_many(sources, tmp_path / "gazes", overlay=False, sheet=False, model="difference", ratio=0.1)
    return tmp_path


class TestReconstruct:
    def test_says_what_it_wrote(self, folder: Path, says: Command) -> None:
        said = says(folder / "videos/a.mp4", "--model", "difference", "--ratio", 0.1, "--out", folder / "out")
        assert (said.status, said.err) == (0, "")
        summary = autogaze.reconstruct_to_files(folder / "videos/a.mp4", folder / "out", model="difference", ratio=0.1)
        (line,) = said.out.splitlines()
        assert line.startswith(f"{folder}/videos/a.mp4: 3 frames, {summary.patches_kept} of {summary.patches_total} ")
        assert f"PSNR {summary.psnr_db:.1f} dB, mean loss {summary.loss_mean:.4f} (canvas), " in line
        assert line.endswith(f"→ {folder}/out/a.{{reconstruction.mp4,side-by-side.mp4,reconstruction.json}}")

    def test_a_folder_of_gazes_serves_a_folder_of_videos(self, folder: Path, says: Command) -> None:
        words = (folder / "videos", "--gaze", folder / "gazes", "--no-side-by-side", "--out", folder / "out", "--json")
        done = json.loads(says(*words).out)
        assert [summary["settings"]["gaze_file"] for summary in done] == [
            str(folder / f"gazes/{name}.gaze") for name in ("a", "b")
        ]
        assert [summary["skipped"] for summary in done] == [False, False]
        assert len(list((folder / "out").iterdir())) == 4
        assert [summary["skipped"] for summary in json.loads(says(*words).out)] == [True, True]
        assert "already complete, skipped" in says(*words[:-1]).out
        assert [summary["skipped"] for summary in json.loads(says(*words, "--overwrite").out)] == [False, False]

    def test_one_failure_is_one_line_and_the_others_are_done(self, folder: Path, says: Command) -> None:
        (folder / "gazes/a.gaze").unlink()
        said = says(folder / "videos", "--gaze", folder / "gazes", "--no-side-by-side", "--out", folder / "out")
        assert said.status == 2
        assert len(said.out.splitlines()) == 1
        error, count = said.err.splitlines()
        assert error.startswith(
            f"autogaze: there is no gaze {folder}/gazes/a.gaze; `autogaze gaze {folder}/videos/a.mp4 "
        )
        assert count == "autogaze: 1 of 2 sources failed; the others are done"

    def test_a_gaze_of_another_video_is_one_line(self, folder: Path, says: Command) -> None:
        write_video(folder / "long.mp4", moving_frames(5), fps=10)
        said = says(folder / "long.mp4", "--gaze", folder / "gazes/a.gaze", "--out", folder / "out")
        assert (said.status, said.out) == (2, "")
        (line,) = said.err.splitlines()
        assert "a.gaze ends after 3 frames, long goes on at 0.300 s; give the gaze of this video" in line
        assert not (folder / "out").exists()

    def test_quiet_says_nothing(self, folder: Path, says: Command) -> None:
        said = says(
            *(folder / "videos/a.mp4", "--gaze", folder / "gazes", "--quiet", "--no-side-by-side"),
            *("--out", folder / "out"),
        )
        assert said == Said(status=0, out="", err="")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--gaze", "gazes", "--model", "uniform", "--fps", 3), "leave out --model and --fps, or --gaze"),
            (("--gaze", "gazes", "--resize"), "leave out --resize, or --gaze"),
            (("--gaze", "nowhere"), "there is no gaze file or folder nowhere; `autogaze gaze` writes them"),
            (("--gaze", "gazes/a.gaze"), "one gaze is of one source, got 2 sources; give the folder of their gazes"),
            (("--reconstructor", "canvass"), "'canvass' is no reconstructor (did you mean canvas?)"),
            (("--tiles", "--resize"), "--tiles and --resize exclude each other"),
            (("--psnr", "nan"), "--psnr must be a finite number"),
            (("--gaze", "gazes", "--device", "cuda:77"), "device 'cuda:77' cannot be used on this machine"),
        ],
    )
    def test_words_that_do_not_fit_are_one_line(
        self,
        folder: Path,
        says: Command,
        monkeypatch: pytest.MonkeyPatch,
        words: tuple[object, ...],
        message: str,
    ) -> None:
        monkeypatch.chdir(folder)
        said = says("videos", *words)
        assert (said.status, said.out) == (2, "")
        assert message in said.err
        assert said.err.count("\n") == 1
        assert not (folder / "reconstructions").exists()

    def test_debug_shows_where_an_error_comes_from(self, folder: Path, says: Command) -> None:
        said = says(folder / "none.mp4", folder / "videos/a.mp4", "--debug", "--no-side-by-side", "--out", folder / "o")
        assert said.status == 2
        assert "Traceback" in said.err


class TestProcess:
    def test_an_interruption_leaves_nothing_half_written(self, tmp_path: Path) -> None:
        rgb = np.random.default_rng(0).integers(0, 256, (8, 48, 80, 3), np.uint8)
        with VideoWriter(tmp_path / "long.mp4", fps=10, height_px=48, width_px=80) as writer:
            for _ in range(75):
                writer.write(rgb)
        ends = {
            signal.SIGINT: (130, "autogaze: interrupted; nothing half-written is left\n"),
            signal.SIGTERM: (143, ""),
        }
        words = ("reconstruct", "long.mp4", "--model", "uniform", "--ratio", "0.5", "--out")
        processes = {
            sent: subprocess.Popen(
                [sys.executable, "-m", "autogaze.cli", *words, sent.name],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
            )
            for sent in ends
        }
        waiting = set(ends)
        while waiting:
            for sent in sorted(waiting):
                if list(tmp_path.glob(f"{sent.name}/.long.*/.*side-by-side*")) or processes[sent].poll() is not None:
                    processes[sent].send_signal(sent)
                    waiting.remove(sent)
            time.sleep(0.01)
        for sent, (status, line) in ends.items():
            assert processes[sent].communicate(timeout=60) == ("", line)
            assert processes[sent].returncode == status
            assert not (tmp_path / sent.name).exists()

    def test_help_needs_no_torch(self) -> None:
        code = """
import contextlib, io, sys
sys.argv = ["autogaze", "reconstruct", "--help"]
from autogaze.cli import main
told = io.StringIO()
try:
    with contextlib.redirect_stdout(told):
        main()
finally:
    print("torch" in sys.modules, "--reconstructor" in told.getvalue())
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.stdout == "False True\n"
