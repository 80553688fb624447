"""Decoded sources, in memory and on disk."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autogaze.datasets.footage import MAX_FRAMES, ExactFrames, WholeSource
from autogaze.datasets.footage_cache import ABANDONED_SECONDS, FootageCache, FootageFolder
from autogaze.errors import VideoError
from clip_samples import write_sources, write_unreadable
from make_video import moving_frames, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("clips"))


# Reading


def test_large_videos_are_shrunk_and_long_ones_shortened(tmp_path: Path) -> None:
    write_video(tmp_path / "large.mp4", moving_frames(70, height_px=400, width_px=480))
    large = WholeSource(path=tmp_path / "large.mp4")
    assert large.read().rgb.shape == (70, 320, 384, 3)
    assert large.max_frames == MAX_FRAMES > 40
    assert len(replace(large, max_frames=40).read().rgb) == 40


def test_images_are_videos_of_one_frame(tmp_path: Path) -> None:
    pixels = moving_frames(1, height_px=40, width_px=50)[0]
    Image.fromarray(pixels).save(tmp_path / "x.PNG")
    assert np.array_equal(WholeSource(path=tmp_path / "x.PNG").read().rgb, pixels[None])


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    for path in [*write_unreadable(tmp_path / "videos"), *tmp_path.glob("*.png"), tmp_path / "gone.mp4"]:
        with pytest.raises(VideoError, match=path.name):
            WholeSource(path=path).read()


def test_exact_frames_are_the_ones_asked_for(folder: Path) -> None:
    every = ExactFrames(path=folder / "0.mp4", start=0, frames=24, side_px=64).read().rgb
    assert every.shape == (24, 64, 64, 3)
    some = ExactFrames(path=folder / "0.mp4", start=5, frames=4, side_px=64).read().rgb
    assert np.array_equal(some, every[5:9])
    with pytest.raises(VideoError, match="24 frames, too few"):
        ExactFrames(path=folder / "0.mp4", start=21, frames=4, side_px=64).read()


# In memory


def test_the_cache_forgets_what_was_unused_for_longest(folder: Path) -> None:
    zero, one, two = (WholeSource(path=folder / f"{name}.mp4") for name in (0, 1, 2))
    cache = FootageCache(2 * 24 * 72 * 96 * 3)
    first = cache.get(zero)
    cache.get(one)
    assert cache.get(zero) is first
    cache.get(two)
    assert cache.get(zero) is first
    second = cache.get(one)
    assert second is cache.get(one)


def test_what_was_broken_is_not_tried_again(tmp_path: Path) -> None:
    video = WholeSource(path=tmp_path / "x.mp4")
    video.path.write_text("no video")
    cache, messages = FootageCache(10**9), []
    for _ in range(2):
        with pytest.raises(VideoError, match=r"x\.mp4") as failure:
            cache.get(video)
        messages.append(str(failure.value))
        write_video(video.path, moving_frames(8))
    assert messages[0] == messages[1]
    assert len(FootageCache(10**9).get(video).rgb) == 8


# On disk


def test_footage_on_disk_is_what_was_decoded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [WholeSource(path=folder / name) for name in ("0.mp4", "1.mp4", "page.png")]
    readings.append(WholeSource(path=folder / "0.mp4", shorter_side_px=40))
    plain = [reading.read() for reading in readings]
    assert len({footage.rgb.shape for footage in plain}) == 3

    def equal(cache: FootageCache) -> bool:
        found = [cache.get(reading) for reading in readings]
        return all(np.array_equal(a.rgb, b.rgb) and a.fps == b.fps for a, b in zip(found, plain, strict=True))

    assert equal(FootageCache(10**9, folder=tmp_path / "cache"))
    monkeypatch.delattr(WholeSource, "read")
    assert equal(FootageCache(10**9, folder=tmp_path / "cache"))


def test_changed_files_are_decoded_again(tmp_path: Path) -> None:
    video, cache = tmp_path / "x.mp4", tmp_path / "cache"
    write_video(video, moving_frames(8, seed=1))
    before = FootageCache(10**9, folder=cache).get(WholeSource(path=video)).rgb.copy()
    write_video(video, moving_frames(8, seed=2))
    os.utime(video, ns=(0, 0))
    after = FootageCache(10**9, folder=cache).get(WholeSource(path=video)).rgb
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "no pixels", "no json", "empty json", "other shape"])
def test_damaged_footage_is_decoded_again(folder: Path, tmp_path: Path, damage: str) -> None:
    reading = WholeSource(path=folder / "0.mp4")
    expected = FootageCache(10**9, folder=tmp_path).get(reading).rgb
    (pixels,), (said,) = tmp_path.glob("*.npy"), tmp_path.glob("*.json")
    content = pixels.read_bytes()
    pixels.unlink()  # the map above still looks at the old file
    if damage == "truncated":
        pixels.write_bytes(content[:-1])
    elif damage == "garbage":
        pixels.write_bytes(b"x" * len(content))
    elif damage == "other shape":
        np.save(pixels, expected.reshape(48, 36, 96, 3))
    elif damage != "no pixels":
        pixels.write_bytes(content)
        said.unlink()
        if damage == "empty json":
            said.touch()
    assert FootageFolder(tmp_path).load(reading) is None
    assert np.array_equal(FootageCache(10**9, folder=tmp_path).get(reading).rgb, expected)
    assert FootageFolder(tmp_path).load(reading) is not None


def test_a_killed_writer_leaves_no_half_footage(folder: Path, tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from autogaze.datasets import footage_cache
def half(file, rgb, allow_pickle):
    file.write(bytes(rgb.nbytes // 2))
    file.flush()
    print("half", flush=True)
    time.sleep(60)
footage_cache.np.save = half
reading = footage_cache.WholeSource = __import__("autogaze.datasets.footage", fromlist=["x"]).WholeSource
footage_cache.FootageCache(10**9, folder=sys.argv[2]).get(reading(path=Path(sys.argv[1])))
"""
    video = folder / "1.mp4"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(video), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "half\n"
        writer.kill()
    (half,) = tmp_path.iterdir()
    assert half.name.startswith(".")
    reading = WholeSource(path=video)
    assert FootageFolder(tmp_path).load(reading) is None and half.exists()
    assert np.array_equal(FootageCache(10**9, folder=tmp_path).get(reading).rgb, reading.read().rgb)
    old = time.time() - ABANDONED_SECONDS - 1
    os.utime(half, (old, old))
    assert FootageFolder(tmp_path).load(reading) is not None
    assert not half.exists() and len(list(tmp_path.iterdir())) == 2


def test_several_may_write_the_same_footage_at_once(folder: Path, tmp_path: Path) -> None:
    reading = WholeSource(path=folder / "2.mp4")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: FootageCache(10**9, folder=tmp_path).get(reading).rgb, range(8)))
    assert all(np.array_equal(rgb, reading.read().rgb) for rgb in found)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".npy"]


def test_a_full_disk_is_told_of_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    cache = FootageCache(10**9, folder=tmp_path)
    monkeypatch.setattr("numpy.save", full)
    with caplog.at_level(logging.WARNING):
        for name in ("0.mp4", "1.mp4"):
            assert len(cache.get(WholeSource(path=folder / name)).rgb) == 24
    assert len(caplog.records) == 1 and "No space left" in caplog.text
    assert not list(tmp_path.iterdir())
