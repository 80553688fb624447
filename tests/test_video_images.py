"""Images, arrays, tensors and lists as videos, and sources found by name."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import autogaze
from autogaze.errors import VideoError
from autogaze.frames import Frames
from autogaze.sampling import Sampling
from autogaze.video import MAX_SIDE_PX, VideoReader, VideoSource, find_sources, open_video
from make_video import numbered_frames, quarters, write_video


def read(source: VideoSource, **options: object) -> tuple[Frames, VideoReader]:
    """All frames of a short source as one window, and the reader after it."""
    with open_video(source, window_frames=256, **options) as reader:  # type: ignore[arg-type]
        (frames,) = list(reader)
    return frames, reader


def save_images(folder: Path, frames: np.ndarray, *, pattern: str = "frame{}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(frames):
        Image.fromarray(picture).save(folder / pattern.format(number))
    return folder


TRUTH = np.random.default_rng(0).integers(0, 256, (12, 20, 30, 3), dtype=np.uint8)


# Images


def test_folder_and_pattern_of_images(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "walk", TRUTH)  # frame10 comes after frame2 here
    (folder / ".hidden.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    for source in (folder, str(folder) + "/", str(folder / "*.png"), str(folder / "frame*")):
        frames, reader = read(source)
        np.testing.assert_array_equal(frames.rgb, TRUTH)
        np.testing.assert_allclose(frames.time_seconds, np.arange(12) / 30)
        assert (reader.name, reader.fps, reader.expected_frames, reader.warnings) == ("walk", 30, 12, [])
    frames, reader = read(folder, sampling=Sampling(count=3))
    assert frames.number.tolist() == [0, 6, 11]
    assert reader.expected_frames == 3


def test_one_image_is_one_frame(tmp_path: Path) -> None:
    Image.fromarray(quarters()).save(tmp_path / "a.png")
    frames, reader = read(tmp_path / "a.png")
    np.testing.assert_array_equal(frames.rgb, quarters()[None])
    assert frames.time_seconds.tolist() == [0] and reader.name == "a" and reader.expected_frames == 1


@pytest.mark.parametrize("suffix", ["webp", "png", "tiff"])
def test_animated_images(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    images = [Image.fromarray(picture) for picture in TRUTH[:5]]
    options = {"lossless": True} if suffix == "webp" else {}
    durations = [100, 200, 50, 100, 100]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, **options)
    frames, reader = read(path)
    np.testing.assert_array_equal(frames.rgb, TRUTH[:5])
    starts = np.arange(5) / 30 if suffix == "tiff" else [0, 0.1, 0.3, 0.35, 0.45]
    np.testing.assert_allclose(frames.time_seconds, starts, atol=1e-6)
    assert reader.expected_frames == 5
    if suffix != "tiff":  # at a tick every 0.2 s the second and third are shown 0.2 and … 0.4
        assert read(path, sampling=Sampling(fps=5))[0].number.tolist() == [0, 1, 3]


def test_kinds_of_pictures(tmp_path: Path) -> None:
    gray16 = (np.arange(20 * 30, dtype=np.uint32).reshape(20, 30) * 65_535 // 599).astype(np.uint16)
    Image.fromarray(gray16).save(tmp_path / "gray16.png")
    rgb = read(tmp_path / "gray16.png")[0].rgb[0]
    np.testing.assert_array_equal(rgb, np.round(gray16 / 257).astype(np.uint8)[..., None].repeat(3, -1))
    rgba = np.dstack([TRUTH[0], np.full((20, 30), 128, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read(tmp_path / "rgba.png")[0].rgb[0], np.round(TRUTH[0] * (128 / 255)))
    Image.fromarray(TRUTH[0]).quantize(256).save(tmp_path / "palette.png")
    assert read(tmp_path / "palette.png")[0].rgb.shape == (1, 20, 30, 3)
    Image.fromarray(TRUTH[0, ..., 0]).save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read(tmp_path / "gray.png")[0].rgb[0, ..., 2], TRUTH[0, ..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown rotated clockwise
    Image.fromarray(TRUTH[0]).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "turned.png")[0].rgb[0], np.rot90(TRUTH[0], -1))


def test_images_of_different_sizes_name_the_odd_one(tmp_path: Path) -> None:
    save_images(tmp_path, TRUTH[:3])
    Image.new("RGB", (31, 20)).save(tmp_path / "frame1.png")
    with pytest.raises(VideoError, match=r"frame1\.png is 31×20 px, but .* starts with 30×20 px"):
        read(tmp_path)


def test_a_damaged_image_is_left_out(tmp_path: Path) -> None:
    save_images(tmp_path, TRUTH[:5])
    whole = (tmp_path / "frame2.png").read_bytes()
    (tmp_path / "frame2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "frame0.png").write_bytes(b"no image")
    frames, reader = read(tmp_path)
    assert frames.number.tolist() == [1, 3, 4]
    np.testing.assert_array_equal(frames.rgb, TRUTH[[1, 3, 4]])
    np.testing.assert_allclose(frames.time_seconds * 30, [1, 3, 4])
    assert len(reader.warnings) == 2 and "frame2.png cannot be read and is left out" in reader.warnings[1]


def test_folders_and_images_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="holds no video and no image"):
        open_video(tmp_path)
    with pytest.raises(VideoError, match="nothing matches"):
        open_video(str(tmp_path / "*.png"))
    for name in ("a.png", "b.webp"):
        (tmp_path / name).write_bytes(b"no image")
        with pytest.raises(VideoError, match=f"{name} (cannot be read as an image|can be read)"):
            open_video(tmp_path / name)
    with pytest.raises(VideoError, match=r"no image of .* can be read"):
        open_video(tmp_path)
    write_video(tmp_path / "c.mp4", numbered_frames(2))
    with pytest.raises(VideoError, match=r"holds 1 videos, which are not one source.*c\.mp4"):
        open_video(tmp_path)


def test_absurdly_large_images_and_arrays(tmp_path: Path) -> None:
    Image.new("1", (MAX_SIDE_PX + 1, 1)).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match="16385×1 px; each side must be 1 to 16,384 px"):
        open_video(tmp_path / "a.png")
    with pytest.raises(VideoError, match="each side must be 1 to 16,384 px"):
        open_video(np.zeros((1, MAX_SIDE_PX + 1, 1, 3), np.uint8))


# Arrays, tensors and lists


def test_arrays() -> None:
    frames, reader = read(TRUTH)
    np.testing.assert_array_equal(frames.rgb, TRUTH)
    np.testing.assert_allclose(frames.time_seconds, np.arange(12) / 30)
    assert reader.name == "array" and reader.expected_frames == 12
    np.testing.assert_array_equal(read(TRUTH[..., 0])[0].rgb, TRUTH[..., :1].repeat(3, -1))
    alpha = np.random.default_rng(1).integers(0, 256, (*TRUTH.shape[:3], 1), dtype=np.uint8)
    expected = np.round(TRUTH * (alpha / 255)).astype(np.uint8)
    np.testing.assert_array_equal(read(np.concatenate([TRUTH, alpha], -1))[0].rgb, expected)
    assert read(TRUTH, sampling=Sampling(fps=10))[0].number.tolist() == [0, 3, 6, 9]


def test_tensors() -> None:
    channels_last = torch.from_numpy(TRUTH)
    channels_first = channels_last.movedim(-1, 1)
    for tensor in (channels_last, channels_first, channels_first / 255, channels_last / 255):
        np.testing.assert_array_equal(read(tensor)[0].rgb, TRUTH)
    assert read(torch.full((1, 3, 2, 2), 0.999))[0].rgb.min() == 255  # to the nearest
    half = (channels_first / 255).bfloat16().requires_grad_()
    assert np.abs(read(half)[0].rgb.astype(int) - TRUTH).max() <= 1


def test_list_of_pil_images() -> None:
    frames, reader = read([Image.fromarray(picture) for picture in TRUTH])
    np.testing.assert_array_equal(frames.rgb, TRUTH)
    assert reader.name == "images"


def test_sources_in_memory_are_not_changed_by_their_readers() -> None:
    array = TRUTH.copy()
    with open_video(array) as reader:
        window = next(reader)
    window.rgb[:] = 0
    np.testing.assert_array_equal(array, TRUTH)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "uint8 of .* got float32 .*astype"),
        (np.zeros((8, 8, 3), np.uint8), "looks like one picture"),
        (np.zeros((2, 3, 8, 8), np.uint8), "moveaxis"),
        (np.zeros((2, 8, 8, 2), np.uint8), r"got uint8 \(2, 8, 8, 2\)"),
        (np.zeros((8, 8), np.uint8), r"got uint8 \(8, 8\)"),
        (torch.zeros(2, 3, 8, 3, dtype=torch.uint8), "could be either"),
        (torch.zeros(2, 8, 8, 8), "a tensor must be"),
        (torch.zeros(3, 8, 8), "a tensor must be"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "got torch.int64"),
        (torch.full((2, 3, 8, 8), 255.0), "floats from 255 to 255"),
        (torch.full((2, 3, 8, 8), -0.1), "floats from -0.1 to -0.1"),
        (torch.full((2, 3, 8, 8), torch.nan), "floats from nan"),
        ([np.zeros((8, 8, 3), np.uint8)], "item 0 of the list is a ndarray"),
        ([Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))], "image 1 is"),
    ],
)
def test_illegal_values(source: VideoSource, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        open_video(source)


@pytest.mark.parametrize(
    "source", [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 0, 8, 3), np.uint8), [], torch.zeros(0, 3, 8, 8)]
)
def test_empty_values(source: VideoSource) -> None:
    with pytest.raises(VideoError, match="empty"):
        open_video(source)


# Names and batches


def test_names() -> None:
    with open_video(TRUTH) as reader:
        assert repr(reader) == "VideoReader(array: 12 frames of 30×20 px, 30.00 a second)"


def test_find_sources(tmp_path: Path) -> None:
    videos = [tmp_path / "clips" / name for name in ("a2.mp4", "a10.mp4", "b.GIF")]
    for video in videos:
        video.parent.mkdir(exist_ok=True)
        video.write_bytes(b"")
    (tmp_path / "clips" / "cover.png").write_bytes(b"")
    (tmp_path / "clips" / "inner").mkdir()
    deep = tmp_path / "clips" / "inner" / "deep.mkv"
    deep.write_bytes(b"")
    images = save_images(tmp_path / "images", TRUTH[:2])
    (tmp_path / "none").mkdir()
    names = [str(video) for video in videos]
    clips = str(tmp_path / "clips")

    assert find_sources([clips]) == names
    assert find_sources([f"{clips}/*.mp4"]) == names[:2]
    assert sorted(find_sources([f"{clips}/**"])) == sorted([*names, str(deep)])
    assert find_sources([str(images)]) == [str(images)]
    assert find_sources([f"{images}/*.png"]) == [f"{images}/*.png"]
    assert sorted(find_sources([f"{tmp_path}/[ci]*"])) == sorted([*names, str(images)])
    assert find_sources([names[1], clips, names[0]]) == [names[1], names[0], names[2]]  # each once
    assert find_sources(["camera:0", "https://host/a.mp4"]) == ["camera:0", "https://host/a.mp4"]
    # what leads nowhere is left for open_video to report, as long as something leads somewhere
    missing = str(tmp_path / "missing.mp4")
    assert find_sources([missing, names[0]]) == [missing, names[0]]
    for patterns in ([], [missing], [str(tmp_path / "none")], [f"{clips}/*.mov"]):
        with pytest.raises(VideoError):
            find_sources(patterns)


def test_a_file_named_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a[1].mp4", numbered_frames(2))
    assert find_sources([str(path)]) == [str(path)]
    assert read(path)[1].name == "a[1]"


def test_relative_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_images(tmp_path / "walk", TRUTH[:2])
    monkeypatch.chdir(folder)
    assert read(".")[1].name == "walk"
    assert read(f"..{os.sep}walk")[1].name == "walk"
    assert read("*.png")[1].name == "images"


def test_one_source_is_no_list_of_sources(tmp_path: Path) -> None:
    for one in ("clip.mp4", tmp_path):
        with pytest.raises(TypeError, match="find_sources takes a list of sources, got one: use "):
            find_sources(one)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["2024-01-01T12:30:45.mp4", "C:x.mp4", "file:x.mp4", "http:x.mp4", "a%03d.mp4"])
def test_a_file_may_have_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", numbered_frames(3)).rename(name)
    assert len(read(name)[0]) == len(read(Path(name), sampling=Sampling(count=3))[0]) == 3
    (tmp_path / "a:b").mkdir()
    autogaze.gaze_to_files(name, "a:b", model="uniform", ratio=0.1, sheet=False)
    assert len(list(Path("a:b").iterdir())) == 3


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".mp4", "x/" * 5000, "x" * 5000 + "*"])
def test_a_name_that_is_too_long(name: str) -> None:
    for look in (open_video, lambda name: find_sources([name]), autogaze.gaze):
        with pytest.raises(VideoError) as error:
            look(name)
        assert len(str(error.value)) < 6000


def test_no_name_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_images(tmp_path, TRUTH[:2])
    monkeypatch.chdir(tmp_path)
    for look in (open_video, lambda name: find_sources([name])):
        with pytest.raises(VideoError, match="empty name"):
            look("")
    assert len(read(".")[0]) == 2


def test_an_image_with_a_damaged_header(tmp_path: Path) -> None:
    save_images(tmp_path, TRUTH[:2])
    whole = (tmp_path / "frame0.png").read_bytes()
    header = b"IHDR" + whole[16:21]  # 5 bytes of 13, with the right checksum
    length, checksum = struct.pack(">I", 5), struct.pack(">I", zlib.crc32(header))
    (tmp_path / "frame0.png").write_bytes(whole[:8] + length + header + checksum + whole[33:])
    with pytest.raises(VideoError, match=r"frame0\.png cannot be read as an image"):
        open_video(tmp_path / "frame0.png")
    assert read(tmp_path)[0].number.tolist() == [1]


# Results beside their sources


def test_results_are_no_sources(tmp_path: Path) -> None:
    folder = save_images(tmp_path / "photos", TRUTH[:3])
    options = {"model": "uniform", "ratio": 0.1}
    first = autogaze.gaze_to_files(folder, folder, **options)
    assert len(list(folder.iterdir())) == 3 + 4
    assert find_sources([str(folder)]) == [str(folder)]
    assert find_sources([f"{folder}/*"]) == [f"{folder}/*"]
    assert len(read(folder)[0]) == len(read(f"{folder}/*.png")[0]) == 3
    assert autogaze.gaze_to_files(folder, folder, **options) == first, "nothing has changed, nothing is done again"
    overlay = str(folder / "photos.overlay.mp4")
    assert find_sources([overlay]) == [overlay], "named by itself it is a video"
    for nothing in (f"{folder}/*.mp4", f"{folder}/**/*.mp4"):
        with pytest.raises(VideoError, match="nothing matches"):
            find_sources([nothing])


def test_a_folder_of_nothing_but_results_is_refused(tmp_path: Path) -> None:
    autogaze.gaze_to_files(TRUTH[:2], tmp_path, model="uniform", ratio=0.1)
    with pytest.raises(VideoError, match=r"holds no video and no image .* results of autogaze do not count"):
        find_sources([str(tmp_path)])


def test_what_only_looks_like_a_result_is_a_source(tmp_path: Path) -> None:
    mine = write_video(tmp_path / "mine.overlay.mp4", numbered_frames(2))
    (tmp_path / "mine.json").write_text('{"label": "cat"}')
    other = write_video(tmp_path / "other.overlay.mp4", numbered_frames(2))
    assert find_sources([str(tmp_path)]) == [str(mine), str(other)]
