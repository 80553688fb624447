"""Pictures show exactly what was gazed at: nothing elsewhere, at every size, streaming or not."""

from __future__ import annotations

import itertools

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from autogaze.captions import clock, drawable, font, percent, shortened
from autogaze.drawing import Backdrop, GazePainter
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.overlay import MAX_WIDTH_PX, OverlayPage
from autogaze.visualize import ContactSheet, OverlayWriter, overlay_frame, scale_colors
from picture_samples import GRID, is_color, noise, random_gaze, video

ODD_GRID = PatchGrid(scales_px=(20, 50, 100), patch_px=16)  # leaves pixels that belong to no patch
TRACK = (44, 48, 58)


def layouts() -> list[FrameLayout]:
    sizes = ((336, 448), (90, 160), (300, 130), (1, 64), (64, 1), (1, 1), (225, 449))
    made = [
        make(grid, height_px=height, width_px=width)
        for height, width in sizes
        for grid in (GRID, ODD_GRID)
        for make in (FrameLayout.tiled, FrameLayout.resized)
    ]
    return [layout for layout in made if layout.num_patches]


def one_gaze(layout: FrameLayout, *, scale: int, row: int, column: int) -> Gaze:
    index = layout.index(np.array([scale]), np.array([row]), np.array([column]))
    return Gaze(index=index, count=np.array([1]), layout=layout)


def backdrop_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Backdrop().apply(Image.fromarray(rgb)))


# A frame and its gaze


@pytest.mark.parametrize(
    "layout", layouts(), ids=lambda x: f"{x.width_px}x{x.height_px}-{x.num_tiles}-{x.grid.patch_px}"
)
def test_only_gazed_pixels_differ_from_the_backdrop(layout):
    for seed in range(3):
        gaze, rgb = random_gaze(layout, seed=seed), noise(layout)
        differs = (overlay_frame(rgb, gaze) != backdrop_of(rgb)).any(-1)
        assert not (differs & (gaze.coverage(0) == 0)).any()


@pytest.mark.parametrize("make", [FrameLayout.tiled, FrameLayout.resized])
def test_gazed_pixels_are_bright_and_all_others_are_dim(make):
    layout = make(GRID, height_px=336, width_px=448)
    gaze, rgb = random_gaze(layout, share=0.15), noise(layout, low=220)
    bright = overlay_frame(rgb, gaze).max(-1) > Backdrop().brightness * 255 + 1
    assert np.array_equal(bright, gaze.coverage(0) > 0)


def test_finest_patches_of_tiles_are_the_source_pixel_for_pixel():
    layout = FrameLayout.tiled(GRID, height_px=250, width_px=300)
    rgb = noise(layout)
    shown = overlay_frame(rgb, one_gaze(layout, scale=3, row=2, column=15))
    assert np.array_equal(shown[33:47, 241:255], rgb[33:47, 241:255])
    edge = shown[32, 240:256].astype(int)
    assert np.abs(edge - scale_colors(4)[3]).max() <= 0.06 * 255
    assert not np.array_equal(shown[31], shown[32])


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_coarse_patches_look_like_their_scale(scale):
    layout = FrameLayout.tiled(GRID, height_px=224, width_px=224)
    rgb, scale_px = noise(layout), GRID.scales_px[scale]
    small = np.asarray(Image.fromarray(rgb).resize((scale_px, scale_px), Image.Resampling.BILINEAR))
    sample = (2 * np.arange(224) + 1) * scale_px // 448
    seen = small[sample][:, sample]
    shown = overlay_frame(rgb, one_gaze(layout, scale=scale, row=1, column=0))
    side = 16 * 224 // scale_px
    inside = (slice(side + 1, 2 * side - 1), slice(1, side - 1))
    assert np.array_equal(shown[inside], seen[inside])


def test_a_finer_patch_is_seen_on_top_of_a_coarse_one():
    layout = FrameLayout.tiled(GRID, height_px=224, width_px=224)
    rgb = noise(layout)
    coarse, fine = one_gaze(layout, scale=0, row=0, column=0), one_gaze(layout, scale=3, row=2, column=2)
    both = Gaze(index=np.concatenate([fine.index, coarse.index]), count=np.array([2]), layout=layout)
    shown = overlay_frame(rgb, both)
    assert np.array_equal(shown[33:47, 33:47], rgb[33:47, 33:47])
    assert np.array_equal(shown[60:, 60:], overlay_frame(rgb, coarse)[60:, 60:])


def test_each_scale_is_outlined_in_its_own_color():
    layout = FrameLayout.tiled(GRID, height_px=224, width_px=224)
    rgb = np.full((224, 224, 3), 30, np.uint8)
    for scale in range(4):
        shown = overlay_frame(rgb, one_gaze(layout, scale=scale, row=1, column=1))
        found = [bool(is_color(shown, color).any()) for color in scale_colors(4)]
        assert found == [other == scale for other in range(4)]


def test_no_gaze_leaves_the_backdrop_and_drawing_leaves_its_input():
    layout = FrameLayout.resized(GRID, height_px=90, width_px=160)
    rgb = noise(layout)
    before = rgb.copy()
    assert np.array_equal(overlay_frame(rgb, random_gaze(layout, share=0)), backdrop_of(rgb))
    overlay_frame(rgb, random_gaze(layout))
    assert np.array_equal(rgb, before)


def test_gazes_in_the_padding_draw_nothing():
    layout = FrameLayout.tiled(GRID, height_px=100, width_px=100)
    rgb = noise(layout)
    gaze = Gaze(index=np.flatnonzero(~layout.inside), count=np.array([(~layout.inside).sum()]), layout=layout)
    assert np.array_equal(overlay_frame(rgb, gaze), backdrop_of(rgb))


def test_a_backdrop_is_dimmer_and_greyer():
    red = np.full((2, 2, 3), (200, 20, 20), np.uint8)
    dim = backdrop_of(red)[0, 0].astype(int)
    assert dim.max() < 0.5 * 200
    assert 0 < dim[0] - dim[1] < 0.2 * 180
    kept = np.asarray(Backdrop(brightness=1, saturation=1).apply(Image.fromarray(red)))
    assert np.array_equal(kept, red)


def test_overlay_frame_refuses_what_does_not_belong_together():
    layout = FrameLayout.resized(GRID, height_px=90, width_px=160)
    with pytest.raises(ValueError, match=r"\(90, 160, 3\) uint8"):
        overlay_frame(np.zeros((160, 90, 3), np.uint8), random_gaze(layout))
    with pytest.raises(ValueError, match="uint8"):
        overlay_frame(np.zeros((90, 160, 3), np.float32), random_gaze(layout))
    with pytest.raises(ValueError, match="one frame"):
        overlay_frame(noise(layout), random_gaze(layout, num_frames=2))
    painter = GazePainter(layout, height_px=90, width_px=160)
    other = FrameLayout.tiled(GRID, height_px=90, width_px=160)
    with pytest.raises(ValueError, match="one frame of"):
        painter.paint(painter.show(noise(layout)), random_gaze(other), backdrop=Backdrop())


# Colours and words


def test_the_finest_scale_always_has_the_same_color():
    assert len({scale_colors(n)[-1] for n in range(1, 12)}) == 1
    assert len(set(scale_colors(8))) == 8
    assert scale_colors(9)[0] == scale_colors(1)[0]


# Severe cases of Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision
# deficiency" (2009), in linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protan": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "deutan": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "tritan": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}


@pytest.mark.parametrize("sight", SIGHT)
def test_scale_colors_stay_apart_for_colorblind_eyes(sight):
    def lab(color: tuple[int, int, int]) -> NDArray[np.float64]:
        value = np.array(color) / 255
        linear = SIGHT[sight] @ np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        to_xyz = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]])
        f = np.cbrt(to_xyz @ np.clip(linear, 0.01, 1))
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    for a, b in itertools.combinations(scale_colors(4), 2):
        assert np.linalg.norm(lab(a) - lab(b)) > 14


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0:00.00"),
        (3.254, "0:03.25"),
        (59.996, "1:00.00"),
        (754.1, "12:34.10"),
        (3661, "1:01:01.00"),
        (-1.5, "-0:01.50"),
    ],
)
def test_clock(seconds, words):
    assert clock(seconds) == words


@pytest.mark.parametrize(("share", "words"), [(0, "0.0%"), (0.0007, "0.07%"), (0.0556, "5.6%"), (1, "100.0%")])
def test_percent(share, words):
    assert percent(share) == words


def test_names_are_made_drawable_and_short_enough():
    assert drawable("café 7\n日.mp4") == "cafe 7??.mp4"
    assert shortened("short", size_px=20, width_px=300) == "short"
    cut = shortened("a long name " * 30, size_px=20, width_px=300)
    assert cut.startswith("a long name") and cut.endswith("...") and font(20).getlength(cut) <= 300


# The overlay video


@pytest.mark.parametrize(
    ("height_px", "width_px"),
    [
        (360, 640),
        (1080, 1920),
        (2160, 3840),
        (2400, 1080),
        (224, 224),
        (1, 4000),
        (1, 1),
        (16, 9),
        (481, 853),
        (1000, 1),
    ],
)
@pytest.mark.parametrize("make", [FrameLayout.tiled, FrameLayout.resized])
def test_pages_of_all_sizes_are_even_and_fit(make, height_px, width_px):
    page = OverlayPage(make(GRID, height_px=height_px, width_px=width_px))
    rgb = noise(page.layout)
    drawn = page.draw(rgb, random_gaze(page.layout), time_seconds=1.0, mean_share=0.5)
    assert drawn.shape == (page.height_px, page.width_px, 3) and drawn.dtype == np.uint8
    assert page.width_px % 2 == page.height_px % 2 == 0
    assert 300 <= page.width_px <= MAX_WIDTH_PX and page.height_px <= 1080
    if min(height_px, width_px) >= 224:
        shape, panel = height_px / width_px, page.panel_height_px / page.panel_width_px
        assert panel == pytest.approx(shape, rel=0.01)


def test_a_page_is_the_source_beside_its_gaze():
    layout = FrameLayout.tiled(GRID, height_px=360, width_px=640)
    rgb, gaze, page = noise(layout), random_gaze(layout), OverlayPage(layout)
    drawn = page.draw(rgb, gaze, time_seconds=0.0, mean_share=0.1)
    assert np.array_equal(drawn[:360, :640], rgb)
    assert np.array_equal(drawn[:360, -640:], overlay_frame(rgb, gaze))


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_gauge_is_filled_as_far_as_patches_were_kept(share):
    layout = FrameLayout.resized(GRID, height_px=360, width_px=640)
    gaze, page = random_gaze(layout, share=share), OverlayPage(layout)
    gauge = page.draw(noise(layout), gaze, time_seconds=0.0, mean_share=0.1)[362, -640:]
    for scale, color in enumerate(scale_colors(4)):
        kept = (gaze.scale_px == GRID.scales_px[scale]).sum() / 265
        assert is_color(gauge, color, within=0).mean() == pytest.approx(kept, abs=1.1 / 640)
    assert is_color(gauge, TRACK, within=0).mean() == pytest.approx(1 - gaze.ratio, abs=1.1 / 640)


def test_time_and_shares_are_written_below():
    layout = FrameLayout.resized(GRID, height_px=360, width_px=640)
    page, rgb, gaze = OverlayPage(layout), noise(layout), random_gaze(layout)

    def caption(**numbers: float) -> NDArray[np.uint8]:
        return page.draw(rgb, gaze, **numbers)[370:]

    before = caption(time_seconds=1.0, mean_share=0.1)
    later, more = caption(time_seconds=2.0, mean_share=0.1), caption(time_seconds=1.0, mean_share=0.3)
    changed_by_time, changed_by_mean = (np.flatnonzero((x != before).any((0, 2))) for x in (later, more))
    assert 0 < changed_by_time.min() < changed_by_time.max() < 320
    assert 960 < changed_by_mean.min() < changed_by_mean.max() < page.width_px


@pytest.mark.parametrize(("height_px", "width_px"), [(90, 160), (1, 50), (200, 90)])
def test_the_written_video_has_every_frame_at_its_time(tmp_path, height_px, width_px):
    layout = FrameLayout.tiled(GRID, height_px=height_px, width_px=width_px)
    frames, gaze = video(layout, num_frames=7), random_gaze(layout, num_frames=7)
    path = tmp_path / "overlay.mp4"
    with OverlayWriter(path, layout=layout, fps=10) as writer:
        writer.write(frames[:3], gaze[:3])
        writer.write(frames[3:], gaze[3:])
    page = OverlayPage(layout)
    with av.open(str(path)) as file:
        decoded = list(file.decode(video=0))
    assert [frame.time for frame in decoded] == pytest.approx([t / 10 for t in range(7)])
    shown = decoded[4].to_ndarray(format="rgb24").astype(float)
    mean_share = gaze[:5].ratio
    drawn = page.draw(frames.rgb[4], gaze[4], time_seconds=0.4, mean_share=mean_share)
    assert shown.shape == drawn.shape
    assert np.abs(shown - drawn).mean() < 25  # noise, compressed; another frame is three times as far
    dark = np.abs(shown - drawn)[page.panel_height_px + 8 :]
    assert dark.mean() < 6


def test_the_mean_is_of_all_frames_so_far(tmp_path):
    layout = FrameLayout.resized(GRID, height_px=360, width_px=640)
    counts = (265, 0, 50)
    gaze = Gaze(index=np.concatenate([np.arange(n) for n in counts]), count=np.array(counts), layout=layout)
    frames = Frames.from_rgb(np.zeros((3, 360, 640, 3), np.uint8), fps=10)
    with OverlayWriter(tmp_path / "overlay.mp4", layout=layout, fps=10) as writer:
        for t in range(3):
            writer.write(frames[t : t + 1], gaze[t : t + 1])
    with av.open(str(tmp_path / "overlay.mp4")) as file:
        last = list(file.decode(video=0))[-1].to_ndarray(format="rgb24").astype(float)
    page = OverlayPage(layout)

    def distance(mean_share: float) -> float:
        drawn = page.draw(frames.rgb[2], gaze[2], time_seconds=0.2, mean_share=mean_share)
        return float(np.abs(last - drawn)[370:, 1200:].mean())  # where the mean stands

    assert distance(gaze.ratio) < 0.7 * min(distance(share) for share in (50 / 265, 50 / 265 / 3, 0.0))


def test_a_video_that_fails_leaves_nothing(tmp_path):
    layout = FrameLayout.resized(GRID, height_px=90, width_px=160)
    with pytest.raises(RuntimeError, match="stop"), OverlayWriter(tmp_path / "a.mp4", layout=layout, fps=10) as writer:
        writer.write(video(layout, num_frames=2), random_gaze(layout, num_frames=2))
        raise RuntimeError("stop")
    with pytest.raises(ValueError, match="fps"):
        OverlayWriter(tmp_path / "a.mp4", layout=layout, fps=0)
    with pytest.raises(OSError), OverlayWriter(tmp_path / "none" / "a.mp4", layout=layout, fps=10):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("use", ["overlay", "sheet"])
def test_frames_and_gaze_must_belong_together(tmp_path, use):
    layout = FrameLayout.resized(GRID, height_px=90, width_px=160)
    tiled = FrameLayout.tiled(GRID, height_px=90, width_px=160)
    small = FrameLayout.resized(GRID, height_px=45, width_px=80)
    add = ContactSheet(layout=layout).add
    if use == "overlay":
        add = OverlayWriter(tmp_path / "a.mp4", layout=layout, fps=10).write
    with pytest.raises(ValueError, match="2 frames and 3"):
        add(video(layout, num_frames=2), random_gaze(layout, num_frames=3))
    with pytest.raises(ValueError, match="begin new ones"):
        add(video(layout, num_frames=2), random_gaze(tiled, num_frames=2))
    with pytest.raises(ValueError, match=r"160 × 90 px .* got 80 × 45"):
        add(video(small, num_frames=2), random_gaze(layout, num_frames=2))
