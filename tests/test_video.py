"""Reading video: every kind of coded source, in the right order, at the right time, upright, and damaged ones."""

from __future__ import annotations

import csv
import gc
import platform
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from autogaze.errors import VideoError
from autogaze.frames import Frames
from autogaze.sampling import Sampling
from autogaze.video import MAX_SIDE_PX, MOTION_VECTOR_DTYPE, VideoReader, VideoSource, open_video
from make_video import moving_frames, noisy_frames, numbered_frames, numbers_of, quarters, write_silence, write_video

SHARED_VIDEOS = Path(__file__).parents[2] / "shared" / "videos"


def read(source: VideoSource, **options: object) -> tuple[Frames, VideoReader]:
    """All frames of a short source as one window, and the reader after it."""
    with open_video(source, window_frames=256, **options) as reader:  # type: ignore[arg-type]
        (frames,) = list(reader)
    return frames, reader


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 numbered frames at 30 a second, h264 with B-frames."""
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", numbered_frames(40))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """40 numbered frames at 30 a second in three formats."""
    folder = tmp_path_factory.mktemp("sampled")
    vp8 = {"crf": "4", "b": "4M", "cpu-used": "8", "deadline": "realtime"}
    return {
        "mp4": write_video(folder / "a.mp4", numbered_frames(40)),
        "mkv": write_video(folder / "a.mkv", numbered_frames(40)),
        "webm": write_video(folder / "a.webm", numbered_frames(40), codec="libvpx", options=vp8),
    }


# Formats


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mov", "mpeg4", "yuv420p"),
        ("mkv", "libx264", "yuv420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("avi", "libx264", "yuv420p"),
        ("ts", "libx264", "yuv420p"),
        ("gif", "gif", "rgb8"),
        ("mkv", "ffv1", "gray"),
        ("mkv", "libx264", "yuv420p10le"),
        ("mp4", "libx264", "yuv444p"),
    ],
)
def test_every_frame_of_every_format(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    truth = numbered_frames(20)
    path = write_video(tmp_path / f"a.{suffix}", truth, codec=codec, pix_fmt=pix_fmt, fps=25)
    frames, reader = read(path)
    assert frames.number.tolist() == list(range(20))
    np.testing.assert_allclose(frames.time_seconds, np.arange(20) / 25, atol=0.0006)
    # rgb8 of gif has few grays
    assert mean_difference(frames.rgb, truth) < (20 if codec == "gif" else 2)
    assert (reader.name, reader.height_px, reader.width_px, reader.warnings) == ("a", 48, 64, [])
    assert reader.fps == pytest.approx(25, rel=0.02)
    assert reader.expected_frames == pytest.approx(20, abs=1)
    assert reader.decode_seconds > 0


def test_colours_survive(tmp_path: Path) -> None:
    truth = np.stack([quarters()] * 3)
    for name, pix_fmt, options in (
        ("limited", "yuv420p", {}),
        ("full", "yuvj420p", {}),
        ("ten_bit", "yuv420p10le", {}),
    ):
        path = write_video(tmp_path / f"{name}.mp4", truth, pix_fmt=pix_fmt, options={"crf": "5", **options})
        inside = (slice(None), slice(4, -4), slice(4, 28))  # away from the borders, which 4:2:0 blurs
        frames, _ = read(path)
        assert np.abs(frames.rgb[inside][:, :16].astype(int) - truth[inside][:, :16]).max() <= 6, name


def test_raw_stream_without_time_stamps(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", numbered_frames(12), container="h264", fps=30)
    frames, reader = read(path)
    assert numbers_of(frames.rgb) == list(range(12))
    np.testing.assert_allclose(frames.time_seconds, np.arange(12) / 30, atol=1e-3)
    assert reader.warnings == []


def test_odd_sizes(tmp_path: Path) -> None:
    truth = numbered_frames(5, height_px=31, width_px=45)
    for suffix, codec, pix_fmt in (
        ("mkv", "ffv1", "bgr0"),
        ("mp4", "libx264", "yuv444p"),
        ("webm", "libvpx-vp9", "yuv420p"),
    ):
        frames, reader = read(write_video(tmp_path / f"a.{suffix}", truth, codec=codec, pix_fmt=pix_fmt))
        assert frames.rgb.shape == (5, 31, 45, 3) and (reader.height_px, reader.width_px) == (31, 45)
        assert mean_difference(frames.rgb, truth) < 2


# Windows and sampling


@pytest.mark.parametrize("window_frames", [1, 7, 16, 40, 41])
def test_windows_are_full_but_the_last(clip: Path, window_frames: int) -> None:
    with open_video(clip, window_frames=window_frames) as reader:
        windows = list(reader)
        assert next(reader, None) is None
    assert [len(window) for window in windows[:-1]] == [window_frames] * (len(windows) - 1)
    assert 1 <= len(windows[-1]) <= window_frames
    assert [number for window in windows for number in numbers_of(window.rgb)] == list(range(40))
    assert np.concatenate([window.number for window in windows]).tolist() == list(range(40))
    # windows stay what they were when the next are read
    assert numbers_of(windows[0].rgb) == list(range(min(window_frames, 40)))


@pytest.mark.parametrize(
    ("sampling", "numbers", "fps"),
    [
        (Sampling(), list(range(40)), 30),
        (Sampling(stride=7), [0, 7, 14, 21, 28, 35], 30 / 7),
        (Sampling(fps=10), list(range(0, 40, 3)), 10),
        (Sampling(fps=30), list(range(40)), 30),
        (Sampling(fps=15), list(range(0, 40, 2)), 15),
        (Sampling(fps=120), list(range(40)), 30),
        (Sampling(count=5), [0, 10, 20, 29, 39], 5 * 30 / 40),
        (Sampling(count=1), [0], 30 / 40),
        (Sampling(count=99), list(range(40)), 30),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_sampling_of_a_file(
    sampled: dict[str, Path], suffix: str, sampling: Sampling, numbers: list[int], fps: float
) -> None:
    frames, reader = read(sampled[suffix], sampling=sampling)
    assert frames.number.tolist() == numbers == numbers_of(frames.rgb)
    np.testing.assert_allclose(frames.time_seconds, np.array(numbers) / 30, atol=0.0006)
    assert reader.fps == pytest.approx(fps, rel=0.02)
    if sampling.count is not None:
        assert reader.expected_frames == len(numbers)
    else:
        assert reader.expected_frames == pytest.approx(len(numbers), abs=1)


def test_variable_rate(tmp_path: Path) -> None:
    times_ms = [0, 40, 80, 500, 520, 1500, 1533, 3000]
    for suffix in ("mp4", "mkv"):
        path = write_video(tmp_path / f"a.{suffix}", numbered_frames(8), times_ms=times_ms)
        frames, reader = read(path)
        np.testing.assert_allclose(frames.time_seconds * 1000, times_ms, atol=0.6)
        assert reader.warnings == []
        # shown at 0, 0.25, 0.5, …: frame 2 lasts over 0.25, frame 4 from 0.52 to 1.5, frame 6 over 1.75 … 2.75
        frames, _ = read(path, sampling=Sampling(fps=4))
        assert frames.number.tolist() == [0, 2, 3, 4, 5, 6, 7]


def test_a_pause_in_a_variable_rate_is_no_damage(tmp_path: Path) -> None:
    times_ms = [0, 30, 70, 150, 180, 220, 300, 320, 390, 430, 470, 3000, 3040]
    frames, reader = read(write_video(tmp_path / "a.mkv", numbered_frames(13), times_ms=times_ms))
    assert len(frames) == 13 and reader.warnings == []


def test_count_where_the_file_tells_no_length(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", numbered_frames(40), container="h264")
    frames, reader = read(path, sampling=Sampling(count=5))
    assert frames.number.tolist() == [0, 10, 20, 29, 39] and reader.expected_frames == 5


def test_count_of_vp8_with_a_frame_that_is_never_shown(tmp_path: Path) -> None:
    shown = write_video(tmp_path / "shown.webm", moving_frames(41), codec="libvpx", keyframe_every=60)
    path = tmp_path / "a.webm"
    with av.open(str(shown)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if not packet.size:
                continue
            data = bytearray(bytes(packet))
            if number == 20:
                data[0] &= ~0x10  # the bit of the frame header that says to show it
            copy = av.Packet(bytes(data))
            copy.stream, copy.pts, copy.dts, copy.time_base = stream, packet.pts, packet.dts, packet.time_base
            copy.is_keyframe = packet.is_keyframe
            output.mux(copy)
    frames, _ = read(path, sampling=Sampling(count=5))
    assert frames.number.tolist() == [0, 10, 20, 29, 39]


def test_times_start_at_the_start_of_the_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", numbered_frames(4), times_ms=[5000, 5040, 5080, 5120])
    frames, _ = read(path)
    np.testing.assert_allclose(frames.time_seconds, [0, 0.04, 0.08, 0.12], atol=0.0006)


def test_times_never_run_back(tmp_path: Path) -> None:
    """Two transport streams in one file: the clock starts anew in the middle."""
    part = write_video(tmp_path / "part.ts", numbered_frames(60))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 2)
    frames, _ = read(joined)
    assert len(frames) >= 110
    steps = np.diff(frames.time_seconds)
    assert (steps > 0).all() and steps.max() < 0.5
    assert frames.time_seconds[-1] == pytest.approx(4, abs=0.2)


def test_closing_early_and_the_longest_windows(clip: Path) -> None:
    reader = open_video(clip)
    next(reader)
    reader.close()
    assert next(reader, None) is None
    with pytest.raises(ValueError, match="window_frames must be at least 1"):
        open_video(clip, window_frames=0)


@pytest.mark.parametrize("motion_vectors", [False, True])
def test_memory_does_not_wait_for_the_garbage_collector(clip: Path, motion_vectors: bool) -> None:
    """Decoded frames die as soon as they are read; in reference cycles they would pile up by the gigabyte."""

    def decoded() -> int:
        return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

    gc.collect()
    before = decoded()
    gc.disable()
    try:
        with open_video(clip, window_frames=4, motion_vectors=motion_vectors) as reader:
            assert sum(len(window) for window in reader) == 40
        assert decoded() - before <= 1
    finally:
        gc.enable()


# Pictures


def test_rotation_metadata_is_applied(tmp_path: Path) -> None:
    picture = quarters()
    for degrees in (0, 90, 180, 270):
        path = write_video(tmp_path / f"{degrees}.mp4", np.stack([picture] * 2), rotation=degrees, options={"crf": "5"})
        frames, reader = read(path)
        upright = np.rot90(picture, degrees // 90)  # counterclockwise, like the metadata
        assert frames.rgb.shape[1:] == upright.shape == (reader.height_px, reader.width_px, 3)
        assert mean_difference(frames.rgb[0], upright) < 8, degrees


def test_flips_in_the_display_matrix_are_applied(tmp_path: Path) -> None:
    picture = quarters()
    one = 1 << 16
    for name, matrix, upright in (
        ("mirror", [-one, 0, 0, 0, one, 0, 64 * one, 0, 1 << 30], picture[:, ::-1]),
        ("transpose", [0, one, 0, one, 0, 0, 0, 0, 1 << 30], picture.swapaxes(0, 1)),
    ):
        path = tmp_path / f"{name}.mp4"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=30, options={"crf": "5"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.set_display_matrix(matrix)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode(None))
        assert mean_difference(read(path)[0].rgb[0], upright) < 8, name


def test_transparency_lies_over_black(tmp_path: Path) -> None:
    picture = np.full((48, 64, 4), 200, np.uint8)
    picture[:, :32, 3], picture[:, 32:, 3] = 255, 0
    picture[:24, 32:, 3] = 128
    for suffix, codec, pix_fmt, options in (
        ("webm", "libvpx-vp9", "yuva420p", {}),
        ("webm", "libvpx", "yuva420p", {"auto-alt-ref": "0"}),
        ("mov", "png", "rgba", {}),
        ("mov", "prores_ks", "yuva444p10le", {}),
    ):
        path = tmp_path / f"{codec}.{suffix}"
        write_video(path, np.stack([picture] * 3), codec=codec, pix_fmt=pix_fmt, options=options)
        frames, _ = read(path)
        left, half, clear = frames.rgb[1, :, 4:28], frames.rgb[1, 4:20, 36:], frames.rgb[1, 28:, 36:]
        assert abs(left.mean() - 200) < 4 and abs(half.mean() - 100) < 4 and clear.mean() < 4, codec


def test_transparent_gif(tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((20, 30, 4), (250, 0, 0, 255), np.uint8))
    picture.paste((0, 0, 0, 0), (0, 0, 10, 20))
    picture.save(tmp_path / "a.gif", save_all=True, append_images=[picture], duration=100, disposal=2)
    frames, _ = read(tmp_path / "a.gif")
    assert frames.rgb[0, :, :10].max() == 0 and (frames.rgb[0, :, 10:] == (250, 0, 0)).all()


def test_a_change_of_size_is_rescaled_with_a_warning(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.h264", np.stack([quarters()] * 6), container="h264")
    large = write_video(tmp_path / "large.h264", np.stack([quarters(height_px=96, width_px=160)] * 6), container="h264")
    joined = tmp_path / "joined.h264"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    frames, reader = read(joined)
    assert frames.rgb.shape == (12, 48, 64, 3)
    assert mean_difference(frames.rgb[-1], quarters()) < 12
    (warning,) = reader.warnings
    assert warning.startswith("the size changes at frame 6 (0.200 s)")


# Motion vectors


def test_motion_vectors_of_a_real_clip(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4", moving_frames(24, height_px=96, width_px=128), options={"bf": "0"}, keyframe_every=12
    )
    frames, _ = read(path, motion_vectors=True)
    assert frames.motion_vectors is not None and len(frames.motion_vectors) == 24
    assert all(vectors.dtype == MOTION_VECTOR_DTYPE for vectors in frames.motion_vectors)
    empty = [t for t, vectors in enumerate(frames.motion_vectors) if not len(vectors)]
    assert empty == [0, 12]  # key frames
    for t in (5, 17):
        vectors = frames.motion_vectors[t]
        moved = (vectors["dst_x"] - vectors["src_x"])[vectors["dst_x"] > 24]
        assert np.median(moved) == 2 and (np.abs(vectors["dst_y"] - vectors["src_y"]) <= 1).mean() > 0.9
    assert read(path)[0].motion_vectors is None
    with av.open(str(path)) as container:  # the layout is the one PyAV gives
        container.streams.video[0].codec_context.options = {"flags2": "+export_mvs"}
        container.streams.video[0].thread_type = "SLICE"
        exported = [frame.side_data.get("MOTION_VECTORS") for frame in container.decode(video=0)]
    assert exported[5].to_ndarray().dtype == MOTION_VECTOR_DTYPE
    np.testing.assert_array_equal(exported[5].to_ndarray(), frames.motion_vectors[5])


def test_no_motion_vector_is_lost_to_threads(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", noisy_frames(60, height_px=240, width_px=320), keyframe_every=30)
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.options = {"flags2": "+export_mvs"}
        container.streams.video[0].thread_type = "NONE"
        expected = [len(frame.side_data.get("MOTION_VECTORS") or ()) for frame in container.decode(video=0)]
    frames, _ = read(path, motion_vectors=True)
    assert frames.motion_vectors is not None
    assert [len(vectors) for vectors in frames.motion_vectors] == expected


def test_motion_vectors_turn_with_the_frame(tmp_path: Path) -> None:
    still = moving_frames(6, height_px=96, width_px=128)
    straight, _ = read(write_video(tmp_path / "0.mp4", still), motion_vectors=True)
    turned, _ = read(write_video(tmp_path / "90.mp4", still, rotation=90), motion_vectors=True)
    assert straight.motion_vectors is not None and turned.motion_vectors is not None
    a, b = straight.motion_vectors[3], turned.motion_vectors[3]
    assert len(a) == len(b) > 0
    # counterclockwise: what was x from the left is now y from the bottom, what was y from the top is x
    np.testing.assert_array_equal(b["dst_x"], a["dst_y"])
    np.testing.assert_array_equal(b["dst_y"], 128 - a["dst_x"])
    np.testing.assert_array_equal(b["src_y"], 128 - a["src_x"])
    np.testing.assert_array_equal(b["motion_y"], -a["motion_x"])
    np.testing.assert_array_equal(b["motion_x"], a["motion_y"])
    np.testing.assert_array_equal(b["w"], a["h"])


def test_sources_without_motion_vectors_say_so(tmp_path: Path) -> None:
    coded = write_video(tmp_path / "a.webm", numbered_frames(3), codec="libvpx-vp9")
    with pytest.raises(VideoError, match="coded as vp9, which tells no motion vectors"):
        open_video(coded, motion_vectors=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match=r"a\.png is made of images"):
        open_video(tmp_path / "a.png", motion_vectors=True)
    with pytest.raises(VideoError, match="array, tensor or list of images has none"):
        open_video(numbered_frames(2), motion_vectors=True)


# Damage


def test_a_cut_off_video_gives_what_is_there(tmp_path: Path) -> None:
    for suffix in ("mkv", "avi"):
        path = write_video(tmp_path / f"a.{suffix}", noisy_frames(60))
        intact, _ = read(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        frames, reader = read(path)
        assert 10 < len(frames) < 50
        np.testing.assert_array_equal(frames.rgb[:9], intact.rgb[:9])
        if suffix == "avi":  # cut off inside a picture
            assert (
                "the picture is incomplete" in reader.warnings[0] and f"frame {len(frames) - 1} (" in reader.warnings[0]
            )
        assert any(
            f"ends after {len(frames)} frames" in warning and "of 2.000 s" in warning for warning in reader.warnings
        )


def test_a_cut_off_mp4_with_its_index_in_front(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for picture in noisy_frames(60):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, reader = read(path)
    assert 5 < len(frames) < 55
    assert any("the rest is missing" in warning for warning in reader.warnings)
    # a count is spread over what the index promises, and ends with the last frame there is
    counted, _ = read(path, sampling=Sampling(count=10))
    assert len(counted) <= 10 and counted.number[-1] == frames.number[-1]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_a_hole_in_the_middle(tmp_path: Path, suffix: str) -> None:
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    path = write_video(tmp_path / f"a.{suffix}", noisy_frames(60), codec=codec)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 20] = np.random.default_rng(0).bytes(len(data) // 20)
    path.write_bytes(data)
    frames, reader = read(path)
    assert len(frames) > 30 and frames.time_seconds[-1] > 1.8  # it goes on after the hole
    assert reader.warnings and all(warning.startswith("damaged at ") for warning in reader.warnings)
    assert len(reader.warnings) == len(set(reader.warnings)) <= 4


def test_packets_that_cannot_be_decoded_are_skipped(tmp_path: Path) -> None:
    """Every picture of a series of PNGs stands alone: one broken, all the others come out."""
    path = write_video(tmp_path / "a.mov", numbered_frames(9), codec="png", pix_fmt="rgb24")
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    data[places[4] : places[4] + 32] = bytes(32)
    path.write_bytes(data)
    frames, reader = read(path)
    assert numbers_of(frames.rgb) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert frames.number.tolist() == list(range(8))
    np.testing.assert_allclose(frames.time_seconds * 30, [0, 1, 2, 3, 5, 6, 7, 8], atol=0.01)
    assert reader.warnings and "damaged at frame 4 (0.133 s)" in reader.warnings[0]


def test_intact_videos_give_no_warning(clip: Path, tmp_path: Path) -> None:
    assert read(clip)[1].warnings == []
    sounding = write_video(tmp_path / "sound.mkv", numbered_frames(20), audio=True)
    frames, reader = read(sounding)
    assert len(frames) == 20 and reader.warnings == []


# Bad input


def one_line(error: pytest.ExceptionInfo[VideoError]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"there is no file or folder .*nope\.mp4") as error:
        open_video(tmp_path / "nope.mp4")
    one_line(error)


@pytest.mark.parametrize("content", [b"", b"hello\n" * 100, bytes(5000)])
def test_not_a_video_at_all(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"cannot be opened as a video|nothing in") as error:
        open_video(tmp_path / "a.mp4")
    one_line(error)


def test_text_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello\n" * 100)
    with pytest.raises(VideoError, match="holds text, not a video"):
        open_video(tmp_path / "a.txt")


def test_mp4_without_its_index(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes()[:1500])
    with pytest.raises(VideoError, match="may be incomplete"):
        open_video(tmp_path / "a.mp4")


def test_sound_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as output:
        write_silence(output, output.add_stream("aac", rate=48_000))
    with pytest.raises(VideoError, match="holds no video, only audio"):
        open_video(path)


def test_zero_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        output.start_encoding()
    with pytest.raises(VideoError, match=r"nothing in .* can be decoded|cannot be opened|holds no video"):
        open_video(path)


def test_nothing_decodable(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mov", numbered_frames(3), codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"nothing in .* can be decoded") as error:
        open_video(path)
    one_line(error)


def test_absurd_sizes(tmp_path: Path) -> None:
    wide = write_video(tmp_path / "a.mkv", np.zeros((1, 2, MAX_SIDE_PX + 2, 3), np.uint8), codec="ffv1", pix_fmt="bgr0")
    with pytest.raises(VideoError, match="16386×2 px; each side must be 1 to 16,384 px"):
        open_video(wide)
    widest = write_video(tmp_path / "b.mkv", np.zeros((1, 2, MAX_SIDE_PX, 3), np.uint8), codec="ffv1", pix_fmt="bgr0")
    assert read(widest)[0].width_px == MAX_SIDE_PX


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems name cameras otherwise")
def test_absent_camera() -> None:
    with pytest.raises(VideoError, match=r"camera:97: there is no /dev/video97; cameras present: "):
        open_video("camera:97")


def test_unreachable_address() -> None:
    with pytest.raises(VideoError, match=r"http://127\.0\.0\.1:9/a\.mp4 cannot be opened"):
        open_video("http://127.0.0.1:9/a.mp4")


def test_other_things_are_no_video() -> None:
    with pytest.raises(TypeError, match="a video must be a path"):
        open_video(7)  # type: ignore[arg-type]


# Real clips


@pytest.mark.skipif(not SHARED_VIDEOS.exists(), reason="needs the shared clips")
def test_real_clips_have_the_frames_they_should() -> None:
    with (SHARED_VIDEOS / "SOURCES.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["split"] == "val"][::6]
    for row in rows:
        with open_video(SHARED_VIDEOS / row["file"]) as reader:
            count = sum(len(window) for window in reader)
        assert count == int(row["frames"]) == reader.expected_frames and not reader.warnings, row["file"]
        assert (reader.width_px, reader.height_px) == (int(row["width"]), int(row["height"]))
        assert reader.fps == pytest.approx(float(row["fps"]), abs=0.01)
