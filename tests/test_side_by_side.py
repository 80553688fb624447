"""Four panels show what they say, at every size, and errors have colours whose order is seen."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from autogaze.drawing import Backdrop, GazePainter
from autogaze.error_map import FULL_LEVELS, color_table, colors_of, error_map
from autogaze.frames import Frames
from autogaze.grid import FrameLayout
from autogaze.picture_error import PictureError, psnr_db
from autogaze.reconstructors import Reconstruction
from autogaze.side_by_side import MAX_WIDTH_PX, Arrangement, SideBySidePage, SideBySideWriter
from picture_samples import GRID, noise, random_gaze, video

SIZES = [(360, 640), (640, 360), (224, 224), (1080, 1920), (2160, 3840), (3840, 2160), (480, 640), (90, 1600)]
ODD_SIZES = [(1, 1), (1, 64), (64, 1), (225, 449), (17, 5)]


def tiled(height_px: int, width_px: int) -> FrameLayout:
    return FrameLayout.tiled(GRID, height_px=height_px, width_px=width_px)


def page_of(layout: FrameLayout) -> SideBySidePage:
    return SideBySidePage(layout, reconstructor="canvas", loss_unit="mean absolute error of a colour, from 0 to 1")


def panels(page: SideBySidePage, picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    found = []
    for number in range(4):
        left, top = page._panel_px(number)
        height_px, width_px = page.arrangement.panel_height_px, page.arrangement.panel_width_px
        found.append(picture[top : top + height_px, left : left + width_px])
    return found


class TestArrangement:
    @pytest.mark.parametrize(("height_px", "width_px"), SIZES)
    def test_fits_the_page_and_keeps_the_shape_of_frames(self, height_px: int, width_px: int) -> None:
        layout = tiled(height_px, width_px)
        arrangement = Arrangement.of(layout)
        assert arrangement.rows * arrangement.columns == 4
        panel_shape = arrangement.panel_height_px / arrangement.panel_width_px
        assert panel_shape == pytest.approx(height_px / width_px, rel=0.03)
        page = page_of(layout)
        assert page.width_px <= MAX_WIDTH_PX
        assert page.height_px <= 1400
        assert page.width_px % 2 == page.height_px % 2 == 0

    @pytest.mark.parametrize(
        ("height_px", "width_px", "columns"),
        [(360, 640, 2), (1080, 1920, 2), (2160, 3840, 2), (640, 360, 4), (3840, 2160, 4), (160, 90, 4), (224, 224, 2)],
    )
    def test_wide_frames_stand_two_by_two_and_tall_ones_in_a_row(
        self, height_px: int, width_px: int, columns: int
    ) -> None:
        assert Arrangement.of(tiled(height_px, width_px)).columns == columns

    def test_small_frames_are_enlarged(self) -> None:
        assert Arrangement.of(tiled(48, 64)).panel_width_px == 640


class TestPage:
    @pytest.mark.parametrize(("height_px", "width_px"), [(360, 640), (300, 130), (225, 449)])
    def test_panels_are_source_kept_patches_reconstruction_and_error(self, height_px: int, width_px: int) -> None:
        layout = tiled(height_px, width_px)
        rgb, rebuilt, gaze = noise(layout), noise(layout, seed=2), random_gaze(layout)
        page = page_of(layout)
        picture = page.draw(rgb, gaze, rebuilt, time_seconds=1.5, loss=0.1)
        assert picture.shape == (page.height_px, page.width_px, 3) and picture.dtype == np.uint8
        size = {"height_px": page.arrangement.panel_height_px, "width_px": page.arrangement.panel_width_px}
        painter = GazePainter(layout, **size)
        shown = painter.show(rgb)
        expected = (
            shown.picture,
            painter.paint(shown, gaze, backdrop=Backdrop()),
            painter.show(rebuilt).picture,
            error_map(PictureError.between(rgb, rebuilt).absolute, **size),
        )
        for panel, wanted in zip(panels(page, picture), expected, strict=True):
            np.testing.assert_array_equal(panel, np.asarray(wanted))

    @pytest.mark.parametrize(("height_px", "width_px"), ODD_SIZES)
    def test_frames_of_any_size(self, height_px: int, width_px: int) -> None:
        layout = tiled(height_px, width_px)
        page = page_of(layout)
        picture = page.draw(
            noise(layout), random_gaze(layout), noise(layout, seed=2), time_seconds=0, loss=float("nan")
        )
        assert picture.shape == (page.height_px, page.width_px, 3)

    def test_what_is_exact_has_no_error(self) -> None:
        layout = tiled(100, 200)
        page = page_of(layout)
        picture = page.draw(noise(layout), random_gaze(layout), noise(layout), time_seconds=0, loss=0)
        np.testing.assert_array_equal(panels(page, picture)[3], np.broadcast_to(color_table()[0], (320, 640, 3)))

    def test_numbers_change_their_own_captions_alone(self) -> None:
        layout = tiled(360, 640)
        page, gaze, rgb = page_of(layout), random_gaze(layout), noise(layout)
        first = page.draw(rgb, gaze, rgb, time_seconds=1.0, loss=0.1)
        changed = {
            "time": page.draw(rgb, gaze, rgb, time_seconds=2.0, loss=0.1),
            "loss": page.draw(rgb, gaze, rgb, time_seconds=1.0, loss=0.2),
        }
        for number, name in ((0, "time"), (2, "loss")):
            left, top = page._cell_px(number)
            differs = np.argwhere((changed[name] != first).any(-1))
            assert len(differs)
            assert (differs >= (top + page.arrangement.panel_height_px, left)).all()
            assert (differs < (top + page._cell_height_px, left + page._cell_width_px)).all()

    def test_captions_have_room_beside_thin_panels(self) -> None:
        page = page_of(tiled(2000, 20))
        assert page._cell_width_px >= page._caption_width_px(15) > page.arrangement.panel_width_px

    def test_a_long_name_is_cut(self) -> None:
        layout = tiled(360, 640)
        long = SideBySidePage(layout, reconstructor="checkpoint-" * 20, loss_unit="what the model was given " * 20)
        assert (long.width_px, long.height_px) == (page_of(layout).width_px, page_of(layout).height_px)

    def test_a_unit_is_told_whole_or_not_at_all(self) -> None:
        layout = tiled(360, 640)
        unit = "mean absolute error of a colour, in half standard deviations of ImageNet's colours"
        shown = [
            SideBySidePage(layout, reconstructor="x", loss_unit=told)._told(2.4665)
            for told in ("levels", unit, f"{unit}, and more words than fit beside it")
        ]
        assert shown == ["loss 2.4665: levels", "loss 2.4665", "loss 2.4665"]


class TestWriter:
    def test_writes_a_page_a_frame(self, tmp_path: Path) -> None:
        layout = tiled(100, 200)
        frames, gaze = video(layout, num_frames=5), random_gaze(layout, num_frames=5)
        rebuilt = Reconstruction(rgb=frames.rgb[::-1], loss=np.zeros(5))
        path = tmp_path / "x.mp4"
        with SideBySideWriter(path, layout=layout, fps=10, reconstructor="canvas", loss_unit="?") as writer:
            writer.write(frames[:2], gaze[:2], Reconstruction(rgb=rebuilt.rgb[:2], loss=rebuilt.loss[:2]))
            writer.write(frames[2:], gaze[2:], Reconstruction(rgb=rebuilt.rgb[2:], loss=rebuilt.loss[2:]))
        with av.open(str(path)) as container:
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        page = page_of(layout)
        assert len(decoded) == 5
        assert decoded[0].shape == (page.height_px, page.width_px, 3)
        drawn = page.draw(frames.rgb[2], gaze[2], rebuilt.rgb[2], time_seconds=0.2, loss=0)
        assert np.abs(decoded[2].astype(int) - drawn).mean() < 12  # noise is hard to encode

    def test_what_does_not_belong_together_leaves_no_file(self, tmp_path: Path) -> None:
        layout, other = tiled(100, 200), tiled(100, 201)
        frames, gaze = video(layout, num_frames=2), random_gaze(layout, num_frames=2)
        good = Reconstruction(rgb=frames.rgb, loss=np.zeros(2))
        wrong: list[tuple[Frames, object, Reconstruction, str]] = [
            (frames, gaze[:1], good, "a gaze for each frame"),
            (frames, random_gaze(other, num_frames=2), good, "begin new ones"),
            (frames, gaze, Reconstruction(rgb=frames.rgb[:1], loss=np.zeros(1)), "the reconstruction must be"),
        ]
        for these, one, rebuilt, message in wrong:
            path = tmp_path / "x.mp4"
            with (
                pytest.raises(ValueError, match=message),
                SideBySideWriter(path, layout=layout, fps=10, reconstructor="canvas", loss_unit="?") as writer,
            ):
                writer.write(these, one, rebuilt)
            assert not list(tmp_path.iterdir())


class TestErrorMap:
    def test_lightness_grows_in_equal_steps(self) -> None:
        linear = np.where((share := color_table() / 255) <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        luminance = linear @ (0.2126, 0.7152, 0.0722)
        lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)  # CIE 1976
        assert (np.diff(lightness) >= -0.35).all()  # eight bits a channel
        assert lightness[0] < 3 and lightness[-1] > 90
        np.testing.assert_allclose(lightness[::16], np.linspace(lightness[0], lightness[-1], 256)[::16], atol=7)

    def test_is_of_the_mean_of_the_channels_on_one_scale(self) -> None:
        error = np.zeros((1, 5, 3), np.uint8)
        error[0, :, 0] = (0, 12, 48, 192, 255)
        colors = np.asarray(error_map(error, height_px=1, width_px=5))[0]
        np.testing.assert_array_equal(colors, colors_of(np.array([0, 4, 16, 64, 85])))
        np.testing.assert_array_equal(colors[[0, 3, 4]], color_table()[[0, 255, 255]])
        np.testing.assert_array_equal(colors_of(np.array(FULL_LEVELS / 4)), color_table()[128])

    def test_a_smaller_picture_shows_means(self) -> None:
        error = np.zeros((40, 40, 3), np.uint8)
        error[::2, ::2] = 64
        small = np.asarray(error_map(error, height_px=10, width_px=20))
        np.testing.assert_array_equal(small, np.broadcast_to(colors_of(np.array(16)), (10, 20, 3)))

    def test_a_larger_picture_shows_the_same_pixels(self) -> None:
        error = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        large = error_map(error, height_px=50, width_px=70)
        np.testing.assert_array_equal(
            np.asarray(large)[::10, ::10], np.asarray(error_map(error, height_px=5, width_px=7))
        )


class TestPictureError:
    def test_is_that_of_the_definition(self) -> None:
        layout = tiled(50, 70)
        true, rebuilt = noise(layout), noise(layout, seed=2)
        error = PictureError.between(true, rebuilt)
        difference = true.astype(float) - rebuilt
        assert error.squared_sum == np.square(difference).sum()
        assert error.mean_levels == pytest.approx(np.abs(difference).mean())
        assert error.psnr_db == pytest.approx(10 * np.log10(255**2 / np.square(difference).mean()))

    def test_nothing_and_everything(self) -> None:
        black, white = np.zeros((300, 300, 3), np.uint8), np.full((300, 300, 3), 255, np.uint8)
        assert PictureError.between(black, black).psnr_db == float("inf")
        assert PictureError.between(black, white).psnr_db == 0
        assert psnr_db(0, 5) == float("inf")

    def test_needs_one_shape(self) -> None:
        with pytest.raises(ValueError, match=r"must have one shape, got \(2, 2, 3\) and \(2, 3, 3\)"):
            PictureError.between(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8))


def test_enlarged_errors_keep_their_edges() -> None:
    error = np.zeros((2, 2, 3), np.uint8)
    error[0, 0] = 255
    assert len({tuple(color) for color in np.asarray(error_map(error, height_px=20, width_px=20)).reshape(-1, 3)}) == 2
    assert isinstance(error_map(error, height_px=2, width_px=2), Image.Image)
