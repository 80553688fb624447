"""A contact sheet shows a video evenly and completely, whatever its length, in bounded memory."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.sheet import MAX_WIDTH_PX as MAX_SHEET_WIDTH_PX
from autogaze.visualize import ContactSheet, scale_colors, sheet
from picture_samples import GRID, is_color, random_gaze, video


def painted(layout: FrameLayout, *, num_frames: int, first: int = 0) -> Frames:
    """Frames whose number can be read off their colour."""
    number = np.arange(first, first + num_frames)
    colors = np.stack([number % 256, 120 + number // 256, np.full(num_frames, 250)], -1).astype(np.uint8)
    rgb = np.broadcast_to(colors[:, None, None], (num_frames, layout.height_px, layout.width_px, 3)).copy()
    return Frames(rgb=rgb, time_seconds=number / 10, number=number)


def shown_numbers(image: Image.Image) -> list[int]:
    """Numbers of the :func:`painted` frames in the first row, left to right."""
    pixels = np.asarray(image)
    source = pixels[..., 2] == 250
    row = np.flatnonzero(source.any(1))[0] + 2
    numbers = pixels[row, source[row]].astype(int)
    return [int(n) for n, _ in itertools.groupby((numbers[:, 1] - 120) * 256 + numbers[:, 0])]


LANDSCAPE = FrameLayout.tiled(GRID, height_px=36, width_px=64)


@pytest.mark.parametrize(("num_frames", "columns"), [(1, 8), (2, 8), (8, 8), (9, 8), (200, 8), (1000, 5), (70, 1)])
def test_columns_are_spread_evenly_over_the_video(num_frames, columns):
    image = sheet(
        painted(LANDSCAPE, num_frames=num_frames), random_gaze(LANDSCAPE, num_frames=num_frames), columns=columns
    )
    numbers = shown_numbers(image)
    assert len(numbers) == min(num_frames, columns)
    assert numbers[0] == 0
    if len(numbers) > 1:
        step = (num_frames - 1) / (len(numbers) - 1)
        assert numbers == pytest.approx([i * step for i in range(len(numbers))], abs=max(1, step / 4))


def test_a_row_shows_the_patches_of_its_scale_alone():
    frames = Frames.from_rgb(np.full((3, 36, 64, 3), 30, np.uint8))
    gaze = Gaze.from_mask(np.tile(LANDSCAPE.inside, (3, 1)), LANDSCAPE)
    pixels = np.asarray(sheet(frames, gaze))[:, 260:]  # right of the labels
    rows = [np.flatnonzero(is_color(pixels, color, within=20).any(1)) for color in scale_colors(4)]
    assert all(len(row) for row in rows)
    for above, below in itertools.pairwise(rows):
        assert above.max() < below.min()


def test_more_scales_and_frames_make_a_larger_sheet_within_its_width():
    def size(layout: FrameLayout, num_frames: int) -> tuple[int, int]:
        return sheet(video(layout, num_frames=num_frames), random_gaze(layout, num_frames=num_frames)).size

    two_scales = FrameLayout.tiled(PatchGrid(scales_px=(112, 224)), height_px=36, width_px=64)
    assert size(LANDSCAPE, 8)[0] > size(LANDSCAPE, 4)[0]
    assert size(LANDSCAPE, 4)[1] > size(two_scales, 4)[1]
    for height_px, width_px in ((90, 160), (240, 108), (1, 300), (300, 1), (1, 1)):
        assert size(FrameLayout.tiled(GRID, height_px=height_px, width_px=width_px), 8)[0] <= MAX_SHEET_WIDTH_PX
    long_title = sheet(video(LANDSCAPE, num_frames=1), random_gaze(LANDSCAPE), title="name " * 200)
    assert long_title.width <= MAX_SHEET_WIDTH_PX


def test_frames_may_come_in_any_pieces():
    frames, gaze = video(LANDSCAPE, num_frames=150), random_gaze(LANDSCAPE, num_frames=150)
    whole = sheet(frames, gaze, title="clip.mp4")
    contact = ContactSheet(layout=LANDSCAPE, title="clip.mp4")
    for start, end in itertools.pairwise((0, 1, 17, 18, 90, 150)):
        contact.add(frames[start:end], gaze[start:end])
    assert contact.image().tobytes() == whole.tobytes()


def test_memory_does_not_grow_with_the_video():
    contact = ContactSheet(layout=LANDSCAPE)
    kept = []
    for first in range(0, 3000, 250):
        contact.add(painted(LANDSCAPE, num_frames=250, first=first), random_gaze(LANDSCAPE, num_frames=250))
        kept.append(len(contact._samples))
    assert max(kept) <= 64 and min(kept[1:]) >= 16
    numbers = shown_numbers(contact.image())
    assert numbers == pytest.approx([i * 2999 / 7 for i in range(8)], abs=60)


def test_the_counts_of_a_sheet_are_of_the_whole_video():
    few, many = (Gaze.concatenate([random_gaze(LANDSCAPE, share=s)] * 90) for s in (0.1, 0.9))
    frames = painted(LANDSCAPE, num_frames=90)
    labels = [np.asarray(sheet(frames, gaze))[:, :250] for gaze in (few, many)]
    assert not np.array_equal(*labels)


def test_a_sheet_is_saved_whole_or_not_at_all(tmp_path):
    contact = ContactSheet(layout=LANDSCAPE)
    with pytest.raises(ValueError, match="at least one frame"):
        contact.save(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
    contact.add(video(LANDSCAPE, num_frames=2), random_gaze(LANDSCAPE, num_frames=2))
    contact.save(tmp_path / "a.png")
    saved = (tmp_path / "a.png").read_bytes()
    assert Image.open(io.BytesIO(saved)).convert("RGB").tobytes() == contact.image().tobytes()
    with pytest.raises(OSError):
        contact.save(tmp_path / "none" / "a.png")


def test_a_disk_that_fills_up_leaves_the_sheet_that_was_there(tmp_path, monkeypatch):
    def fill_up(image: Image.Image, path: Path, **_: object) -> None:
        path.write_bytes(b"half a picture")
        raise OSError("no space left on device")

    contact = ContactSheet(layout=LANDSCAPE)
    contact.add(video(LANDSCAPE, num_frames=2), random_gaze(LANDSCAPE, num_frames=2))
    contact.save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(Image.Image, "save", fill_up)
    with pytest.raises(OSError, match="no space"):
        contact.save(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize("columns", [0, -1, 9])
def test_columns_are_between_1_and_8(columns):
    with pytest.raises(ValueError, match="between 1 and 8"):
        ContactSheet(layout=LANDSCAPE, columns=columns)
