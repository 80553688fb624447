"""Whatever is wrong: exit code 2, one line that says what was got and what to do, and nothing written."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from autogaze.cli import main
from autogaze.video_writer import VideoWriter

Complaint = Callable[..., str]


@pytest.fixture
def complaint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Complaint]:
    """Run a command line that must fail in an orderly way; returns the one line it says."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert exit_.value.code == 2, err
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("autogaze: ")
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        return line.removeprefix("autogaze: ")

    yield run
    signal.signal(signal.SIGTERM, handler)


def write_video(path: Path, *, num_frames: int = 3, height_px: int = 48, width_px: int = 80) -> Path:
    rgb = np.random.default_rng(0).integers(0, 256, (num_frames, height_px, width_px, 3), np.uint8)
    with VideoWriter(path, fps=10, height_px=height_px, width_px=width_px) as writer:
        writer.write(rgb)
    return path


def write_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode(None)])


class TestSources:
    def test_missing(self, complaint: Complaint) -> None:
        assert "missing.mp4" in complaint("gaze", "missing.mp4")

    def test_a_name_of_two_lines(self, complaint: Complaint) -> None:
        assert "a b.mp4" in complaint("gaze", "a\nb.mp4")

    def test_none(self, complaint: Complaint) -> None:
        assert "no source" in complaint("gaze")

    def test_text_renamed_to_mp4(self, tmp_path: Path, complaint: Complaint) -> None:
        (tmp_path / "text.mp4").write_text("hello\n" * 100)
        assert "text.mp4" in complaint("gaze", "text.mp4")

    def test_an_empty_file(self, tmp_path: Path, complaint: Complaint) -> None:
        (tmp_path / "empty.mp4").touch()
        assert "empty.mp4" in complaint("gaze", "empty.mp4")

    def test_audio_only(self, tmp_path: Path, complaint: Complaint) -> None:
        write_audio(tmp_path / "sound.mp4")
        assert "sound.mp4" in complaint("gaze", "sound.mp4")

    def test_no_frames(self, tmp_path: Path, complaint: Complaint) -> None:
        whole = write_video(tmp_path / "whole.mp4").read_bytes()
        # The index is in front; all that it points to is gone.
        (tmp_path / "cut.mp4").write_bytes(whole[: whole.index(b"mdat") + 8])
        assert "cut.mp4" in complaint("gaze", "cut.mp4")

    def test_an_empty_folder(self, tmp_path: Path, complaint: Complaint) -> None:
        (tmp_path / "folder").mkdir()
        assert "folder" in complaint("gaze", "folder")

    def test_a_name_that_is_too_long(self, complaint: Complaint) -> None:
        complaint("gaze", "x" * 5000 + ".mp4")

    def test_images_of_different_sizes(self, tmp_path: Path, complaint: Complaint) -> None:
        (tmp_path / "images").mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / "images" / "1.png")
        Image.new("RGB", (30, 20)).save(tmp_path / "images" / "2.png")
        assert "2.png" in complaint("gaze", "images")

    @pytest.mark.parametrize(("height_px", "width_px"), [(1, 1), (2, 4000), (3000, 1)])
    def test_absurd_sizes_are_done_if_they_can_be(self, tmp_path: Path, height_px: int, width_px: int) -> None:
        Image.new("RGB", (width_px, height_px)).save(tmp_path / "thin.png")
        with pytest.raises(SystemExit) as exit_:
            main(["gaze", str(tmp_path / "thin.png"), "--out", str(tmp_path), "--model", "uniform", "--ratio", ".1"])
        assert exit_.value.code == 0
        assert {"thin.gaze", "thin.json", "thin.overlay.mp4"} <= {path.name for path in tmp_path.iterdir()}

    def test_a_damaged_video_gives_what_can_be_decoded(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole = write_video(tmp_path / "whole.mp4", num_frames=40).read_bytes()
        (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
        with pytest.raises(SystemExit) as exit_:
            words = ["--model", "uniform", "--ratio", ".1", "--no-overlay", "--no-sheet"]
            main(["gaze", str(tmp_path / "cut.mp4"), "--out", str(tmp_path / "out"), *words])
        assert exit_.value.code == 0
        summary = json.loads((tmp_path / "out" / "cut.json").read_text())
        assert 10 < summary["frames"] < 40
        assert summary["warnings"]
        assert capsys.readouterr().err.startswith("autogaze: warning: ")

    def test_a_bad_one_among_others(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_video(tmp_path / "good.mp4")
        (tmp_path / "bad.mp4").write_text("text")
        with pytest.raises(SystemExit) as exit_:
            main(
                [
                    *("gaze", f"{tmp_path}/bad.mp4", f"{tmp_path}/good.mp4", "--out", f"{tmp_path}/out"),
                    *("--model", "uniform", "--ratio", "0.1"),
                ]
            )
        out, err = capsys.readouterr()
        assert exit_.value.code == 2
        assert out.startswith(f"{tmp_path}/good.mp4: 3 frames")
        complaint, total = err.splitlines()
        assert f"{tmp_path}/bad.mp4" in complaint
        assert total == "autogaze: 1 of 2 sources failed; the others are done"


class TestOptions:
    @pytest.mark.parametrize("ratio", ["0", "-1", "7", "nan", "0.1,0", "-inf"])
    def test_a_ratio_out_of_range(self, tmp_path: Path, complaint: Complaint, ratio: str) -> None:
        write_video(tmp_path / "good.mp4")
        assert "ratio must be above 0 and at most 1, got" in complaint("gaze", "good.mp4", "--ratio", ratio)

    @pytest.mark.parametrize("ratio", ["", "a", "0.1,", "1/2"])
    def test_a_ratio_that_is_no_number(self, complaint: Complaint, ratio: str) -> None:
        line = complaint("gaze", "x.mp4", f"--ratio={ratio}")
        assert "--ratio must be a number above 0 and at most 1, or several" in line
        assert repr(ratio) in line

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--threshold", "nan"], "threshold must be a finite number, got nan"),
            (["--psnr", "inf"], "--psnr must be a finite number, got inf"),
            (["--model", "uniform", "--psnr", "30"], "cannot stop at --psnr=30.0"),
            (["--model", "nothing"], "'nothing' is no model; legal are replenish, random"),
            (["--model", "good.mp4"], "good.mp4 is no checkpoint"),
            (["--ratio", "0.1,0.2,0.3"], "ratio must be one number or 16, one for each frame of a clip, got 3"),
            (["--model", "detail", "--ratio", "0.1,0.2,0.3"], "ratio must be one number or 16"),
            (["--device", "cpu:99"], "device 'cpu:99' cannot be used on this machine"),
            (["--device", "teapot"], "device 'teapot' cannot be used on this machine"),
            (["--fps", "0"], "fps must be a finite number above 0"),
            (["--frames", "0"], "frames must be a whole number of at least 1, got 0"),
            (["--stride", "-3"], "stride must be a whole number of at least 1, got -3"),
            (["--fps", "1", "--stride", "2"], "give one of stride, fps and frames"),
            (["--tiles", "--resize"], "--tiles and --resize exclude each other"),
            (["--per", "day"], "'day'"),
            (["--fps", "fast"], "--fps"),
            (["--frames", "1.5"], "--frames"),
            (["--colour", "red"], "Unrecognized options: --colour, red"),
            (["--ratio"], "--ratio"),
            (["--out", "good.mp4"], "good.mp4 is a file; results need a folder"),
        ],
    )
    def test_are_refused(self, tmp_path: Path, complaint: Complaint, words: list[str], told: str) -> None:
        write_video(tmp_path / "good.mp4")
        assert told in complaint("gaze", "good.mp4", *words)

    @pytest.mark.parametrize("words", [["look"], ["info"], ["gaze", "--help-me"], ["--json"]])
    def test_words_that_are_no_command(self, complaint: Complaint, words: list[str]) -> None:
        assert "--help` shows what is legal" in complaint(*words)


class TestModelFiles:
    def test_a_folder_without_a_checkpoint(self, tmp_path: Path, complaint: Complaint) -> None:
        (tmp_path / "folder").mkdir()
        write_video(tmp_path / "good.mp4")
        assert "folder" in complaint("gaze", "good.mp4", "--model", "folder")

    def test_a_damaged_checkpoint(self, tmp_path: Path, complaint: Complaint) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "config.json").write_text("{}")
        (tmp_path / "folder" / "model.safetensors").write_bytes(b"\xff" * 100)
        write_video(tmp_path / "good.mp4")
        complaint("gaze", "good.mp4", "--model", "folder")
        complaint("gaze", "good.mp4", "--model", "folder/model.safetensors")

    def test_a_damaged_gaze_file(self, tmp_path: Path, complaint: Complaint) -> None:
        (tmp_path / "x.gaze").write_bytes(b"PK\x03\x04 no more")
        assert "x.gaze is not a gaze file, or damaged" in complaint("info", "x.gaze")
        assert "there is no file y.gaze" in complaint("info", "y.gaze")


def test_a_traceback_is_shown_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("text")
    for words in (["gaze", str(tmp_path / "text.mp4")], ["gaze", str(tmp_path / "missing.mp4")], ["info", "nothing"]):
        with pytest.raises(SystemExit) as exit_:
            main([*words, "--debug"])
        assert exit_.value.code == 2
        assert "Traceback (most recent call last)" in capsys.readouterr().err
