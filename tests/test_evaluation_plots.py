"""Plots and grids of an evaluation: the same bytes every time, whatever the rows are, and truthful labels."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from autogaze.evaluation import time_plot
from autogaze.evaluation.curves import METRICS, psnr_of, settings
from autogaze.evaluation.frame_plots import write_gaze_heatmap
from autogaze.evaluation.grids import MAX_WIDTH_PX, TITLE_KEY, error_map, evenly, grid_image, write_grid
from autogaze.evaluation.labels import Label, place_labels
from autogaze.evaluation.plots import write_plots
from autogaze.evaluation.style import new_figure, plain, selector_styles, share, shortened
from autogaze.evaluation.time_plot import timed, write_time
from autogaze.evaluation.tradeoff import draw_panel, panel_curves
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.reconstructors import rebuild
from autogaze.reconstructors.base import Reconstruction
from autogaze.selectors import SELECTORS
from evaluation_samples import POINTS, RATIOS, Rows, make_rows, summarised, with_error
from picture_samples import GRID, random_gaze, video

LAYOUT = FrameLayout.resized(GRID, height_px=224, width_px=224)
NAMES = ["tradeoff_curves.png", "per_frame_curves.png", "gaze_heatmap.png", "time.png"]


def written(folder, rows: Rows) -> list[str]:
    return [path.name for path in write_plots(folder, frames=rows.frames, clips=rows.clips, summary=rows.summary)]


@pytest.mark.filterwarnings("error")  # a letter the font lacks, an axis without a range, a layout that does not fit
@pytest.mark.parametrize(
    "rows",
    [
        make_rows({"only": 1.0}, points=RATIOS[:1], videos=1, num_frames=1),
        make_rows({"a": 1.0, "b": 2.0}, reconstructors=("canvas", "refined"), videos=5),
        with_error(make_rows({"exact": 1.0}, points=RATIOS[:1]), 0.0),
        make_rows({f"selector-{i}": 1 + 0.3 * i for i in range(12)}, points=RATIOS[:1], videos=1, num_frames=2),
        make_rows(
            {"$x_1$ \\frac{": 1.0, "日本語 ünï": 1.5, "<b>&amp;": 2.0, "n" * 150: 3.0, "a\nb": 1.1, "\udc80": 1.2},
            reconstructors=("$\\alpha$ & <co>",),
            points=RATIOS[:1],
            num_frames=1,
        ),
        make_rows({"long": 1.0}, points=RATIOS[:2], videos=1, num_frames=40),
    ],
    ids=["one of each", "two reconstructors", "exact", "many selectors", "odd names", "long clips"],
)
def test_every_plot_is_drawn(tmp_path, rows):
    assert written(tmp_path / "new" / "plots", rows) == NAMES
    for name in NAMES:
        with Image.open(tmp_path / "new" / "plots" / name) as image:
            assert min(image.size) > 100
            assert max(image.size) < 8000
            assert "Software" not in image.info


def test_equal_rows_give_equal_bytes_in_any_thread(tmp_path):
    rows = make_rows({"$odd": 2.0}, points=POINTS[-2:], videos=1, num_frames=2)
    folders = [tmp_path / str(i) for i in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda folder: written(folder, rows), folders))
    for name in NAMES:
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name


def test_without_timings_there_is_no_plot_of_time(tmp_path):
    rows = make_rows({"a": 1.0}, points=RATIOS[:1], videos=1, num_frames=1, seconds=None)
    (tmp_path / "time.png").write_text("of an earlier run")
    assert written(tmp_path, rows) == NAMES[:3]
    assert not (tmp_path / "time.png").exists()
    with pytest.raises(ValueError, match="timings"):
        write_time(tmp_path / "time.png", summary=rows.summary)


@pytest.mark.parametrize("seconds", [None, math.nan, math.inf, 0.0])
def test_what_is_no_time_is_not_drawn(seconds):
    rows = make_rows({"a": 1.0}, seconds=0.2)
    assert len(timed(rows.summary)) == len(rows.summary)
    assert timed([replace(row, gaze_seconds=seconds) for row in rows.summary]) == []


@pytest.mark.parametrize("reconstructor", ["canvas", "a-reconstructor-" * 4])
def test_titles_of_the_plot_of_time_lie_within_it_and_clear_of_the_legend(tmp_path, monkeypatch, reconstructor):
    figures = []
    monkeypatch.setattr(time_plot, "save_figure", lambda figure, path: figures.append(figure))
    wastes = {f"selector-{number}": 1.0 + number for number in range(8)}
    write_time(tmp_path / "time.png", summary=make_rows(wastes, reconstructors=(reconstructor,)).summary)
    (figure,) = figures
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    titles = figure.findobj(lambda one: isinstance(one, Text) and "is better)" in one.get_text())
    assert len(titles) == 2
    for title in titles:
        extent = title.get_window_extent()
        assert extent.x1 <= figure.bbox.x1
        assert extent.y1 <= legend.y0 + 1


def test_no_rows_no_plots(tmp_path):
    assert write_plots(tmp_path / "plots", frames=[], clips=[], summary=[]) == []
    assert not (tmp_path / "plots").exists()


def test_plots_need_no_display_and_leave_pyplot_alone(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})
from pathlib import Path
from autogaze.evaluation.plots import write_plots
from evaluation_samples import RATIOS, make_rows
rows = make_rows({{"a": 1.0}}, points=RATIOS[:1], videos=1, num_frames=1)
write_plots(Path({str(tmp_path)!r}), frames=rows.frames, clips=rows.clips, summary=rows.summary)
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"MPLBACKEND": "tkagg", "MPLCONFIGDIR": str(tmp_path)})


def panel(rows: Rows, field: str):
    axes = new_figure(width_in=6, height_in=5).subplots()
    metric = next(metric for metric in METRICS if metric.field == field)
    known = settings(rows.clips)
    curves = panel_curves("canvas", selector_styles(["s"]), clips=rows.clips, summary=rows.summary, known=known)
    return axes, draw_panel(axes, curves, metric, known)


def lines_with(axes, **properties):
    return [line for line in axes.lines if all(getattr(line, f"get_{k}")() == v for k, v in properties.items())]


@pytest.mark.parametrize("field", ["pixel_mse", "reconstruction_loss", "pixel_mae", "ssim"])
def test_lines_join_the_front_alone(field):
    rows = make_rows({"s": 1.0}, gains={"ratio_0.25": -9.0})  # worse than ratio_0.10
    axes, _ = panel(rows, field)
    joined = sorted({x for line in lines_with(axes, marker="None", alpha=None) for x in line.get_xdata()})
    beaten = {row.actual_gaze_ratio for row in rows.summary if row.setting == "ratio_0.25"}
    assert joined == sorted({row.actual_gaze_ratio for row in rows.summary} - beaten)
    (faint,) = [
        line for line in axes.lines if line.get_marker() != "None" and line.get_alpha() and len(line.get_xdata())
    ]
    assert set(faint.get_xdata()) == beaten


def test_what_is_far_apart_is_joined_by_dots():
    rows = make_rows({"s": 1.0}, points=(RATIOS[0], RATIOS[3]))
    axes, _ = panel(rows, "pixel_mse")
    assert [line.get_linestyle() for line in lines_with(axes, marker="None", alpha=None)] == [":"]


def test_whiskers_span_the_middle_half_of_the_clips():
    rows = make_rows({"s": 1.0}, points=RATIOS[:1], videos=5)
    axes, _ = panel(rows, "pixel_mse")
    (whisker,) = [line for line in axes.lines if line.get_alpha() == 0.22]
    psnr = sorted(psnr_of(row.pixel_mse) for row in rows.clips)
    assert sorted(whisker.get_ydata()) == pytest.approx([psnr[1], psnr[3]])
    few = make_rows({"s": 1.0}, points=RATIOS[:1], videos=3)
    assert not [line for line in panel(few, "pixel_mse")[0].lines if line.get_alpha() == 0.22]


def test_only_thresholds_are_labelled():
    _, labels = panel(make_rows({"s": 1.0}), "pixel_mse")
    assert [label.text for label in labels] == ["≤ 0.025"]


def test_labels_hide_neither_points_nor_each_other():
    figure = new_figure(width_in=5, height_in=4)
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    points = rng.random((60, 2))
    axes.plot(*points.T, "o", markersize=6)
    figure.draw_without_rendering()
    place_labels(axes, [Label(x=x, y=y, text=f"≤ {x:.3f}", color="#000000") for x, y in [*points, *points]])
    boxes = [text.get_window_extent() for text in axes.texts]
    assert 5 < len(boxes) < 60
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    for x, y in axes.transData.transform(points):
        assert not any(box.contains(x, y) for box in boxes)


def test_a_frame_position_without_rows_is_no_number(tmp_path):
    rows = make_rows({"s": 1.0}, points=RATIOS[:1], videos=1)
    frames = [row for row in rows.frames if row.frame_idx != 1]
    write_gaze_heatmap(tmp_path / "heat.png", frames=frames, clips=rows.clips, summary=rows.summary)
    assert (tmp_path / "heat.png").stat().st_size


# Style


def test_a_selector_looks_the_same_whoever_is_beside_it():
    alone = {name: selector_styles([name])[name] for name in SELECTORS}
    together = selector_styles([*SELECTORS, "another", "autogaze"])
    assert all(together[name] == alone[name] for name in SELECTORS)
    others = [f"model-{i}" for i in range(5)]
    styles = selector_styles([*SELECTORS, "autogaze", *others])
    assert len(set(styles.values())) == len(styles)
    assert len({style.color for style in styles.values()}) == len(styles)
    assert len({style.marker for style in styles.values()}) == len(styles)
    assert selector_styles(reversed([*others, *SELECTORS])).items() <= styles.items()


@pytest.mark.parametrize("number", [6, 30])
def test_any_number_of_selectors_has_styles(number):
    assert len(selector_styles(f"m{i}" for i in range(number))) == number


def test_plain_words_start_no_formula():
    assert plain("a$b$c_d") == r"a\$b\$c_d"
    assert plain("日x\n") == "?x?"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 %"),
        (0.0054, "0.54 %"),
        (0.063, "6.3 %"),
        (0.0994, "9.9 %"),
        (0.0996, "10 %"),
        (0.25, "25 %"),
        (1, "100 %"),
    ],
)
def test_shares_have_two_digits(value, words):
    assert share(value).replace("\N{NO-BREAK SPACE}", " ") == words


def test_long_names_keep_both_ends():
    assert shortened("abcdefghij", most=5) == "ab…ij"
    assert shortened("abcde", most=5) == "abcde"


# Grids


def clip(*, num_frames: int = 16, layout: FrameLayout = LAYOUT) -> tuple[Frames, Gaze, Reconstruction]:
    frames, gaze = video(layout, num_frames=num_frames), random_gaze(layout, num_frames=num_frames)
    return frames, gaze, rebuild(frames, gaze=gaze)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (8, 8), (9, 8), (16, 8), (100, 8)])
def test_columns_are_spread_evenly_from_the_first_frame_to_the_last(count, columns):
    chosen = evenly(count, most=8)
    assert len(chosen) == columns == len(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, count - 1)
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_an_error_map_is_black_where_nothing_differs_and_white_from_a_quarter_on():
    rgb = np.full((4, 256, 3), 0, np.uint8)
    rebuilt = np.repeat(np.tile(np.arange(256, dtype=np.uint8), (4, 1))[..., None], 3, -1)
    light = np.asarray(error_map(rgb, rebuilt)).astype(int).sum(-1)[0]
    assert light[0] == 0
    assert (light[64:] == light[255]).all()
    assert light[255] > 700
    assert (np.diff(light[:65]) >= 0).all()
    assert np.array_equal(np.asarray(error_map(rgb, rebuilt)), np.asarray(error_map(rebuilt, rgb)))


@pytest.mark.parametrize(("height_px", "width_px"), [(224, 224), (60, 700), (700, 60), (1, 1)])
@pytest.mark.parametrize("num_frames", [1, 16])
def test_grids_of_any_shape_have_a_bounded_size(height_px, width_px, num_frames):
    layout = FrameLayout.resized(GRID, height_px=height_px, width_px=width_px)
    frames, gaze = video(layout, num_frames=num_frames), random_gaze(layout, num_frames=num_frames)
    image = grid_image(frames, gaze=gaze, reconstruction=_grey(frames), title="a title" * 50)
    assert image.width <= MAX_WIDTH_PX
    assert image.height < 2000


def test_a_grid_shows_source_reconstruction_and_error():
    frames = Frames.from_rgb(np.full((2, 224, 224, 3), (0, 200, 0), np.uint8))
    nothing = Gaze.from_mask(np.zeros((2, LAYOUT.num_indices), bool), LAYOUT)
    rebuilt = Reconstruction(rgb=np.full((2, 224, 224, 3), (200, 0, 0), np.uint8), loss=np.array([0.5, 0.5]))
    pixels = np.asarray(grid_image(frames, gaze=nothing, reconstruction=rebuilt, title=""))
    rows = [
        np.flatnonzero((np.abs(pixels.astype(int) - color).max(-1) <= 2).sum(1) > 400)
        for color in ((0, 200, 0), (200, 0, 0), (255, 255, 235))
    ]
    assert all(len(row) > 200 for row in rows)
    assert rows[0].max() < rows[1].min()
    assert rows[1].max() < rows[2].min()


def test_a_grid_is_the_same_every_time_and_knows_its_title(tmp_path):
    frames, gaze, rebuilt = clip(num_frames=3)
    for name, title in (("a", "日本 · é"), ("b", "日本 · é"), ("c", "\udc80 no text")):
        write_grid(tmp_path / f"{name}.png", frames=frames, gaze=gaze, reconstruction=rebuilt, title=title)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.info[TITLE_KEY] == "日本 · é"
    with Image.open(tmp_path / "c.png") as image:
        assert image.info[TITLE_KEY] == "\\udc80 no text"


def test_a_grid_needs_parts_of_one_clip(tmp_path):
    frames, gaze, rebuilt = clip(num_frames=3)
    with pytest.raises(ValueError, match="one clip"):
        write_grid(tmp_path / "x.png", frames=frames[:2], gaze=gaze[:2], reconstruction=rebuilt, title="")
    with pytest.raises(ValueError, match="gaze for each frame"):
        write_grid(tmp_path / "x.png", frames=frames, gaze=gaze[:2], reconstruction=rebuilt, title="")
    assert not list(tmp_path.iterdir())


def _grey(frames: Frames) -> Reconstruction:
    return Reconstruction(rgb=np.full_like(frames.rgb, 128), loss=np.full(len(frames), 0.25))


def test_a_setting_that_keeps_nothing_has_no_place_on_a_logarithmic_axis(tmp_path):
    rows = make_rows({"s": 1.0}, points=RATIOS[:2])
    none = [
        replace(row, non_padded_gazes=0, actual_gaze_ratio=0.0, gaze_ratio_of_finest=0.0)
        for row in rows.clips
        if row.setting == "ratio_0.10"
    ]
    clips = [*none, *(row for row in rows.clips if row.setting != "ratio_0.10")]
    assert written(tmp_path, Rows(frames=rows.frames, clips=clips, summary=summarised(clips))) == NAMES
