"""Writing mp4: what is read back is what was written, and a failure leaves nothing behind."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import numpy as np
import pytest

from autogaze import video_writer
from autogaze.video import open_video
from autogaze.video_writer import VideoWriter
from make_video import moving_frames, numbered_frames, numbers_of, quarters


def write(path: Path, frames: np.ndarray, *, fps: float = 30) -> Path:
    with VideoWriter(path, fps=fps, height_px=frames.shape[1], width_px=frames.shape[2]) as writer:
        for start in range(0, len(frames), 7):
            writer.write(frames[start : start + 7])
    return path


def read(path: Path) -> np.ndarray:
    with open_video(path, window_frames=256) as reader:
        (frames,) = list(reader)
    return frames.rgb


def test_round_trip(tmp_path: Path) -> None:
    truth = numbered_frames(40)
    path = write(tmp_path / "a.mp4", truth, fps=24)
    assert numbers_of(read(path)) == list(range(40))
    with open_video(path) as reader:
        assert reader.fps == pytest.approx(24) and reader.warnings == []
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_quality_and_size(tmp_path: Path) -> None:
    truth = moving_frames(30, height_px=96, width_px=128)
    path = write(tmp_path / "a.mp4", truth)
    error = (read(path).astype(float) - truth).reshape(-1)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 25
    assert path.stat().st_size < truth.nbytes / 20


def test_saturated_colours_survive(tmp_path: Path) -> None:
    picture = quarters()
    back = read(write(tmp_path / "a.mp4", np.stack([picture] * 3)))[1].astype(int)
    for rows in (slice(4, 20), slice(28, 44)):
        for columns in (slice(4, 28), slice(36, 60)):
            assert np.abs(back[rows, columns] - picture[rows, columns]).max() <= 12


@pytest.mark.parametrize(("height_px", "width_px"), [(47, 63), (48, 63), (47, 64), (1, 1)])
def test_odd_sizes_are_padded_with_their_edge(tmp_path: Path, height_px: int, width_px: int) -> None:
    truth = numbered_frames(5, height_px=height_px, width_px=width_px) + 60
    back = read(write(tmp_path / "a.mp4", truth))
    assert back.shape == (5, height_px + height_px % 2, width_px + width_px % 2, 3)
    assert np.abs(back[:, -1, -1].astype(int) - truth[:, -1, -1]).max() <= 4


@pytest.mark.parametrize("fps", [30000 / 1001, 0.5, 12.5, 240, 1 / 3])
def test_rates(tmp_path: Path, fps: float) -> None:
    path = write(tmp_path / "a.mp4", numbered_frames(8), fps=fps)
    with open_video(path) as reader:
        frames = next(reader)
    np.testing.assert_allclose(frames.time_seconds, np.arange(8) / fps, rtol=1e-4, atol=1e-4)


def test_without_an_h264_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_writer.av, "codecs_available", {"mpeg4"})
    for fps in (30000 / 1001, 240):
        path = write(tmp_path / "a.mp4", numbered_frames(8), fps=fps)
        assert numbers_of(read(path)) == list(range(8))
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "mpeg4"


def test_an_exception_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbered_frames(3))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, fps=30, height_px=48, width_px=64) as writer:
        writer.write(numbered_frames(20))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps=30, height_px=48, width_px=64) as writer:
        writer.write(numbered_frames(3))
        assert not (tmp_path / "a.mp4").exists()
    assert len(read(tmp_path / "a.mp4")) == 3


def test_writing_nothing_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="no frame was written"),
        VideoWriter(tmp_path / "a.mp4", fps=30, height_px=48, width_px=64),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk; both make a write fail in the middle."""
    program = """
        import resource, sys
        import numpy as np
        from autogaze.video_writer import VideoWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        noise = np.random.default_rng(0).integers(0, 256, (12, 240, 320, 3), dtype=np.uint8)
        try:
            with VideoWriter(sys.argv[1], fps=30, height_px=240, width_px=320) as writer:
                for _ in range(int(sys.argv[2])):
                    writer.write(noise)
        except OSError as error:
            sys.exit(error.errno)
        sys.exit(1)
    """
    pytest.importorskip("resource")
    for repeats in (1, 8):  # fails when the file is finished, and while frames are written
        command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "a.mp4"), str(repeats)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == errno.EFBIG, result.stderr
        assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), VideoWriter(tmp_path / "no" / "a.mp4", fps=30, height_px=48, width_px=64):
        pass


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_illegal_rates(tmp_path: Path, fps: float) -> None:
    with pytest.raises(ValueError, match="fps must be a finite number above 0"):
        VideoWriter(tmp_path / "a.mp4", fps=fps, height_px=48, width_px=64)


def test_illegal_frames(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1×1 px"):
        VideoWriter(tmp_path / "a.mp4", fps=30, height_px=0, width_px=64)
    with VideoWriter(tmp_path / "a.mp4", fps=30, height_px=48, width_px=64) as writer:
        for frames in (numbered_frames(2)[:, :40], numbered_frames(2)[0], numbered_frames(2).astype(np.float32)):
            with pytest.raises(ValueError, match=r"frames must be uint8 of \(T, 48, 64, 3\)"):
                writer.write(frames)
        writer.write(numbered_frames(1))
    with pytest.raises(RuntimeError, match="not open"):
        writer.write(numbered_frames(1))
