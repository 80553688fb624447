"""The published helpers that read a clip."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from autogaze.datasets.video_utils import read_video_pyav, transform_video_for_pytorch
from autogaze.errors import VideoError
from make_video import moving_frames, numbered_frames, numbers_of, write_silence, write_video


def test_frames_by_number(tmp_path: Path) -> None:
    for suffix, codec, pix_fmt in (("mp4", "libx264", "yuv420p"), ("mkv", "ffv1", "gray"), ("mov", "png", "rgb24")):
        path = write_video(tmp_path / f"a.{suffix}", numbered_frames(30), codec=codec, pix_fmt=pix_fmt)
        with av.open(str(path)) as container:
            for indices in (range(30), [0], [29], [3, 10, 11, 25], np.array([4, 9]), [7, 2], [5, 5, 6]):
                rgb = read_video_pyav(container, indices)
                assert rgb.dtype == np.uint8 and rgb.shape[1:] == (48, 64, 3)
                assert numbers_of(rgb) == list(indices)
            assert numbers_of(read_video_pyav(container=container, indices=list(range(25, 40)))) == [25, 26, 27, 28, 29]


def test_frames_of_a_gif(tmp_path: Path) -> None:
    images = [Image.fromarray(np.full((20, 30, 3), 40 * t, np.uint8)) for t in range(5)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100)
    with av.open(str(tmp_path / "a.gif")) as container:
        assert read_video_pyav(container, [1, 3]).mean((1, 2, 3)).tolist() == [40, 120]


def test_illegal_requests(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(3))
    with av.open(str(path)) as container:
        for indices in ([], [-1, 2]):
            with pytest.raises(ValueError, match="frame numbers of at least 0"):
                read_video_pyav(container, indices)
        with pytest.raises(VideoError, match="ends before frame 7"):
            read_video_pyav(container, [7, 8])
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        write_silence(output, output.add_stream("aac", rate=48_000))
    with av.open(str(tmp_path / "sound.mp4")) as container, pytest.raises(VideoError, match="holds no video"):
        read_video_pyav(container, [0])


def test_without_a_transform_values_stay() -> None:
    video = moving_frames(4)
    for source in (video, list(video), [Image.fromarray(frame) for frame in video]):
        clip = transform_video_for_pytorch(source)
        assert clip.dtype == torch.uint8 and clip.shape == (4, 3, 48, 64)
        np.testing.assert_array_equal(clip.movedim(1, -1).numpy(), video)


def test_a_clip_that_is_three_pixels_wide() -> None:
    video = moving_frames(4)[:, :, :3]
    np.testing.assert_array_equal(transform_video_for_pytorch(video).movedim(1, -1).numpy(), video)


@pytest.mark.parametrize("nesting", ["videos", "frames", "array", "tensors", "batch", "channels_last"])
def test_whatever_the_transform_returns(nesting: str) -> None:
    """A list over videos of a list over frames is the published form; others are taken too."""
    video = moving_frames(4)

    def transform(frames: list[np.ndarray]) -> SimpleNamespace:
        assert len(frames) == 4 and frames[0].shape == (48, 64, 3)
        pixels = [(frame.transpose(2, 0, 1) / 127.5 - 1).astype(np.float32) for frame in frames]
        values = {
            "videos": [pixels],
            "frames": pixels,
            "array": np.stack(pixels),
            "tensors": [[torch.from_numpy(frame) for frame in pixels]],
            "batch": torch.from_numpy(np.stack(pixels))[None],
            "channels_last": [[frame.transpose(1, 2, 0) for frame in pixels]],
        }
        return SimpleNamespace(pixel_values=values[nesting])

    clip = transform_video_for_pytorch(video, transform)
    assert clip.dtype == torch.float32
    np.testing.assert_allclose(clip.movedim(1, -1).numpy(), video / 127.5 - 1, atol=1e-6)


def test_illegal_clips() -> None:
    with pytest.raises(ValueError, match=r"a clip must be \(T, H, W, 3\)"):
        transform_video_for_pytorch(np.zeros((4, 48, 64), np.uint8))
    with pytest.raises(ValueError, match="holds no frame"):
        transform_video_for_pytorch([])
    with pytest.raises(ValueError, match=r"the transform must give \(T, 3, H, W\)"):
        transform_video_for_pytorch(moving_frames(2), lambda _: SimpleNamespace(pixel_values=np.zeros((2, 5, 8, 8))))
