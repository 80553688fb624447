"""Videos are cut into clips as asked, one at a time, and nothing is decoded in vain."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autogaze.errors import VideoError
from autogaze.evaluation.clips import Clip, ClipReader, Cutting, clip_name
from autogaze.video import open_video
from make_video import moving_frames, numbered_frames, numbers_of, write_video

FRAMES = 22


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "v.mp4", numbered_frames(FRAMES), options={"crf": "0"})


def read(video: Path, cutting: Cutting) -> tuple[list[Clip], ClipReader]:
    with ClipReader(video, name="v", cutting=cutting) as reader:
        return list(reader), reader


def starts(video: Path, **options: object) -> list[int]:
    return [clip.start for clip in read(video, Cutting(**options))[0]]  # type: ignore[arg-type]


class TestCutting:
    def test_one_clip_follows_the_other(self, video: Path) -> None:
        clips, _ = read(video, Cutting(clip_len=5))
        assert [clip.name for clip in clips] == [f"v_start_{start:04d}" for start in (0, 5, 10, 15)]
        assert [numbers_of(clip.frames.rgb) for clip in clips] == [list(range(s, s + 5)) for s in (0, 5, 10, 15)]
        assert clips[1].frames.number.tolist() == [5, 6, 7, 8, 9]
        assert clips[1].frames.time_seconds == pytest.approx(np.arange(5, 10) / 30)

    def test_what_the_end_cuts_short_counts_only_if_it_is_all_there_is(self, video: Path) -> None:
        assert starts(video, clip_len=11) == [0, 11]
        assert starts(video, clip_len=12) == [0]
        clips, _ = read(video, Cutting(clip_len=30))
        assert [(clip.start, len(clip.frames)) for clip in clips] == [(0, FRAMES)]

    def test_reads_no_further_than_the_last_clip(self, video: Path) -> None:
        clips, reader = read(video, Cutting(clip_len=4, max_clips=2))
        assert [clip.start for clip in clips] == [0, 4]
        assert reader.frames_read == 8

    def test_all_of_them(self, video: Path) -> None:
        assert starts(video, clip_len=2, max_clips=None) == list(range(0, 22, 2))
        assert starts(video, clip_len=2) == [0, 2, 4, 6]

    def test_every_third_frame(self, video: Path) -> None:
        clips, _ = read(video, Cutting(clip_len=3, stride=3))
        assert [numbers_of(clip.frames.rgb) for clip in clips] == [[0, 3, 6], [9, 12, 15]]

    def test_named_starts_may_overlap_and_need_no_multiple_of_the_stride(self, video: Path) -> None:
        clips, reader = read(video, Cutting(clip_len=3, stride=2, clip_starts=(7, 3, 4, 7), max_clips=1))
        assert [numbers_of(clip.frames.rgb) for clip in clips] == [[3, 5, 7], [4, 6, 8], [7, 9, 11]]
        assert (reader.notes, reader.frames_read) == ([], 12)

    def test_named_starts_that_are_not_there_are_told(self, video: Path) -> None:
        clips, reader = read(video, Cutting(clip_len=6, clip_starts=(2, 20, 90)))
        assert [clip.start for clip in clips] == [2]
        assert reader.notes == [f"no clip from frame {start} on: the video ends after 22 frames" for start in (20, 90)]

    def test_a_named_start_near_the_end_is_better_than_nothing(self, video: Path) -> None:
        clips, reader = read(video, Cutting(clip_len=6, clip_starts=(20, 21)))
        assert [(clip.start, len(clip.frames)) for clip in clips] == [(20, 2)]
        assert reader.notes == ["no clip from frame 21 on: the video ends after 22 frames"]

    def test_no_start_before_the_end_is_an_error(self, video: Path) -> None:
        with pytest.raises(VideoError, match="v has 22 frames, and every clip is to start after them"):
            read(video, Cutting(clip_starts=(22,)))

    @pytest.mark.parametrize(
        ("options", "clips"),
        [({"clip_len": 5}, 4), ({"clip_len": 2}, 4), ({"clip_len": 40}, 1), ({"clip_len": 3, "stride": 3}, 2)],
    )
    def test_how_many_there_will_be(self, video: Path, options: dict[str, int], clips: int) -> None:
        with ClipReader(video, name="v", cutting=Cutting(**options)) as reader:
            assert reader.expected_clips() == clips == len(list(reader))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"clip_len": 0}, "clip_len must be at least 1, got 0"),
            ({"max_clips": 0}, "max_clips must be at least 1"),
            ({"stride": -1}, "stride must be at least 1"),
            ({"clip_starts": (-1, 3)}, "from 0 on"),
            ({"clip_starts": ()}, "from 0 on"),
        ],
    )
    def test_illegal_numbers(self, options: dict[str, int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Cutting(**options)  # type: ignore[arg-type]


def test_names_have_four_digits_at_least() -> None:
    assert (clip_name("a", 7), clip_name("a", 12345)) == ("a_start_0007", "a_start_12345")


def test_frames_are_resized_as_pillow_does(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", moving_frames(3, height_px=80, width_px=144))
    clips, _ = read(source, Cutting(clip_len=3, side_px=64))
    with open_video(source) as reader:
        original = next(reader).rgb
    expected = [np.asarray(Image.fromarray(rgb).resize((64, 64), Image.Resampling.BILINEAR)) for rgb in original]
    assert np.array_equal(clips[0].frames.rgb, np.stack(expected))
    assert clips[0].decode_seconds > 0


def test_motion_vectors_come_along(tmp_path: Path) -> None:
    source = write_video(tmp_path / "v.mp4", moving_frames(5))
    clips, _ = read(source, Cutting(clip_len=5, motion_vectors=True))
    vectors = clips[0].frames.motion_vectors
    assert vectors is not None
    assert len(vectors) == 5
    assert [len(of_frame) > 0 for of_frame in vectors] == [False, True, True, True, True]


def test_a_named_clip_is_expected_as_soon_as_its_last_frame_is_there() -> None:
    cutting = Cutting(clip_len=4, stride=2, clip_starts=(0, 3))  # the second one ends with frame 9
    assert [cutting.expected(frames) for frames in (6, 9, 10, None)] == [1, 1, 2, 2]
