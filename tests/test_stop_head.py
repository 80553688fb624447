"""The audit of a stop head: bias, curve and violations by hand, intervals that cover, and the files."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from autogaze.evaluation.intervals import share_of, standard_error, wilson
from autogaze.evaluation.rows import ClipRow, FrameRow
from autogaze.evaluation.runner import evaluate
from autogaze.evaluation.settings import settings_of
from autogaze.evaluation.stop_head import after_last_gaze, audit, audit_rows
from autogaze.evaluation.stop_head_files import PICTURE, TABLE, write_stop_head
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.selectors.replenish import Replenish
from autogaze.selectors.uniform_random import Random
from make_video import moving_frames, write_video
from small_models import small_config


class TestIntervals:
    @pytest.mark.parametrize(("above", "count"), [(0, 10), (3, 10), (10, 10), (41, 500)])
    def test_wilson_is_that_of_scipy(self, above: int, count: int) -> None:
        expected = stats.binomtest(above, count).proportion_ci(0.95, method="wilson")
        assert wilson(above / count, count) == pytest.approx((expected.low, expected.high), abs=1e-12)

    def test_standard_error_of_independent_frames_is_the_usual_one(self) -> None:
        values = np.random.default_rng(0).normal(size=50)
        assert standard_error(values, np.arange(50)) == pytest.approx(values.std(ddof=1) / math.sqrt(50))

    def test_clips_of_equal_frames_count_as_one_frame_each(self) -> None:
        values = np.random.default_rng(0).normal(size=20)
        clip = np.repeat(np.arange(20), 16)
        assert standard_error(np.repeat(values, 16), clip) == pytest.approx(values.std(ddof=1) / math.sqrt(20))

    def test_clustered_interval_is_wider_where_clips_go_wrong_together(self) -> None:
        clip = np.repeat(np.arange(25), 16)
        together = share_of(np.repeat(np.arange(25) < 5, 16), clip)
        apart = share_of(np.tile(np.arange(16) < 4, 25), clip)
        assert together.wilson == pytest.approx(wilson(0.2, 400))
        width = together.clustered[1] - together.clustered[0]
        assert width == pytest.approx(np.diff(wilson(0.2, 24))[0])  # one clip fewer, as its mean is not known either
        # No frame counts more than once, however evenly the clips go wrong.
        assert apart.clustered == pytest.approx(apart.wilson)
        assert share_of(np.arange(16) < 4, np.zeros(16, int)).clustered == pytest.approx(wilson(0.25, 1))

    def test_where_nothing_varies_clips_count(self) -> None:
        share = share_of(np.zeros(320, bool), np.repeat(np.arange(20), 16))
        assert share.rate == 0
        assert share.clustered == pytest.approx(wilson(0, 20))
        assert share.wilson[1] < share.clustered[1]

    def test_covers_the_truth_in_about_nineteen_of_twenty_draws(self) -> None:
        rng = np.random.default_rng(0)
        clip = np.repeat(np.arange(60), 16)
        inside = {"wilson": 0, "clustered": 0}
        for _ in range(400):
            rate = rng.beta(0.5, 2.0, 60)  # 0.2 on average
            share = share_of(rng.random(960) < np.repeat(rate, 16), clip)
            for name in inside:
                low, high = getattr(share, name)
                inside[name] += low <= 0.2 <= high
        assert inside["clustered"] / 400 > 0.92
        assert inside["wilson"] / 400 < 0.8  # frames of one clip are not so many witnesses

    def test_no_frame_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one frame"):
            share_of(np.zeros(0, bool), np.zeros(0, np.int64))


def frames_of(clips: int, frames: int = 16) -> dict[str, np.ndarray]:
    return {"clip": np.repeat(np.arange(clips), frames), "position": np.tile(np.arange(frames), clips)}


class TestAudit:
    def test_by_hand(self) -> None:
        one = audit(
            [0.1, 0.2, np.nan, 0.3], [0.2, 0.2, 0.9, 0.5], clip=["a", "a", "b", "b"], position=[0, 1, 0, 1],
            threshold=0.2,
        )  # fmt: skip
        assert (one.frames, one.clips, one.known) == (4, 2, 3)
        assert one.bias == pytest.approx(-0.1)
        assert one.rmse == pytest.approx(math.sqrt((0.01 + 0.04) / 3))
        assert (one.predicted, one.loss) == pytest.approx((0.2, 0.3))
        assert one.correlation == pytest.approx(np.corrcoef([0.1, 0.2, 0.3], [0.2, 0.2, 0.5])[0, 1])
        assert one.violation is not None
        assert one.violation.share.rate == 0.5  # the frame without a prediction counts, that at the threshold does not
        assert one.violation.mean_excess == pytest.approx((0.7 + 0.3) / 2)
        assert [(p.frame_idx, p.frames, p.violation) for p in one.positions] == [(0, 1, 0.5), (1, 2, 0.5)]
        assert [p.bias for p in one.positions] == pytest.approx([-0.1, -0.1])

    def test_a_perfect_head(self) -> None:
        loss = np.random.default_rng(0).random(320)
        one = audit(loss, loss, **frames_of(20), threshold=1.0)
        assert (one.bias, one.rmse) == (0, 0)
        assert one.correlation == pytest.approx(1)
        assert one.violation is not None
        assert (one.violation.share.rate, one.violation.mean_excess) == (0, 0)
        assert all(point.predicted == pytest.approx(point.loss) for point in one.curve)

    def test_the_curve_finds_the_law_behind_the_noise(self) -> None:
        rng = np.random.default_rng(0)
        said = rng.random(16 * 400)
        true = 0.3 + 0.5 * said + rng.normal(0, 0.1, said.size)
        one = audit(said, true, **frames_of(400), bins=8)
        assert [point.frames for point in one.curve] == [800] * 8
        assert sum(p.interval[0] <= 0.3 + 0.5 * p.predicted <= p.interval[1] for p in one.curve) >= 7
        for low, high in zip(one.curve, one.curve[1:], strict=False):
            assert low.high < high.low

    def test_equal_predictions_stay_together(self) -> None:
        one = audit(np.repeat([0.1, 0.2], 8), np.arange(16.0), **frames_of(1), bins=10)
        assert [(point.predicted, point.frames) for point in one.curve] == [
            (pytest.approx(0.1), 8),
            (pytest.approx(0.2), 8),
        ]
        assert one.violation is None
        assert all(place.violation is None for place in one.positions)

    def test_what_does_not_vary_has_no_correlation(self) -> None:
        assert audit(np.full(16, 0.5), np.arange(16.0), **frames_of(1)).correlation is None

    def test_names_of_clips_do_not_matter(self) -> None:
        rng = np.random.default_rng(0)
        said, true, places = rng.random(64), rng.random(64), frames_of(4)
        named = {**places, "clip": np.array(["x", "b", "q", "a"])[places["clip"]]}
        one, other = (audit(said, true, **where, threshold=0.4) for where in (places, named))
        assert one.to_json() == other.to_json()

    @pytest.mark.parametrize(
        ("predicted", "loss", "options", "message"),
        [
            ([0.1, 0.2], [0.1], {}, "must be"),
            ([np.nan], [0.1], {}, "got 0 predictions"),
            ([0.1], [np.inf], {}, "0 finite of 1"),
            ([0.1], [0.1], {"bins": 0}, "0 bins"),
        ],
    )
    def test_refuses(self, predicted: list[float], loss: list[float], options: dict[str, int], message: str) -> None:
        where = {"clip": [0] * len(predicted), "position": [0] * len(predicted)}
        with pytest.raises(ValueError, match=message):
            audit(predicted, loss, **where, **options)  # type: ignore[arg-type]


class TestLastGaze:
    LAYOUT = FrameLayout.tiled(PatchGrid(), height_px=224, width_px=224)

    def test_is_that_of_each_frame(self) -> None:
        gaze = Gaze(
            index=np.arange(6),
            count=np.array([2, 0, 3, 1]),
            layout=self.LAYOUT,
            predicted_loss=np.array([0.5, 0.4, 0.9, 0.8, np.nan, 0.1], np.float32),
        )
        expected = np.array([0.4, np.nan, np.nan, 0.1], np.float32).astype(float)
        np.testing.assert_array_equal(after_last_gaze(gaze), expected)

    def test_nothing_said_is_nothing(self) -> None:
        gaze = Gaze(index=np.arange(2), count=np.array([2]), layout=self.LAYOUT)
        assert np.isnan(after_last_gaze(gaze)).all()

    def test_several_tiles_have_several(self) -> None:
        layout = FrameLayout.tiled(PatchGrid(), height_px=224, width_px=448)
        with pytest.raises(ValueError, match="this gaze is of 2 tiles"):
            after_last_gaze(Gaze(index=np.arange(2), count=np.array([2]), layout=layout))


def frame_row(clip: int, frame: int, *, setting: str, predicted: float | None, loss: float, selector: str) -> FrameRow:
    return FrameRow(
        clip_name=f"clip{clip}",
        clip_start=0,
        setting=setting,
        frame_idx=frame,
        reconstruction_loss=loss,
        non_padded_gazes=3,
        pixel_mae=loss,
        pixel_mse=loss * loss,
        psnr=30.0,
        ssim=0.9,
        selector=selector,
        reconstructor="canvas",
        predicted_loss=predicted,
    )


def clip_row(setting: str, threshold: float | None, selector: str) -> ClipRow:
    return ClipRow(
        clip_name="clip0",
        clip_start=0,
        setting=setting,
        gazing_ratio_arg=None,
        task_loss_requirement_arg=threshold,
        non_padded_gazes=3,
        actual_gaze_ratio=0.1,
        reconstruction_loss=0.1,
        pixel_mae=0.1,
        pixel_mse=0.01,
        psnr=30.0,
        ssim=0.9,
        gaze_seconds=0.1,
        reconstruction_seconds=0.1,
        non_padded_gazes_by_frame=(3,),
        num_gazing_each_frame=(3,),
        selector=selector,
        reconstructor="canvas",
        budget_per="frame",
        video="clip0.mp4",
        frames=16,
        gaze_ratio_of_finest=0.1,
        decode_seconds=0.1,
        peak_memory_mb=1.0,
    )


@pytest.fixture
def rows() -> tuple[list[FrameRow], list[ClipRow]]:
    """A hopeful model at two thresholds and at a ratio, and a selector that says nothing."""
    rng = np.random.default_rng(0)
    frames, clips = [], []
    for setting, threshold in (("task_0.05", 0.05), ("task_0.02", 0.02), ("ratio_0.10", None)):
        clips += [clip_row(setting, threshold, "model"), clip_row(setting, threshold, "random")]
        for clip in range(20):
            hope = rng.normal(1.2, 0.2)
            for frame in range(16):
                said = rng.uniform(0.5, 1.0) * (threshold or 0.03)
                frames.append(
                    frame_row(clip, frame, setting=setting, predicted=said, loss=said * hope, selector="model")
                )
                frames.append(frame_row(clip, frame, setting=setting, predicted=None, loss=0.5, selector="random"))
    return frames, clips


class TestFiles:
    def test_rows_are_audited_as_their_arrays(self, rows: tuple[list[FrameRow], list[ClipRow]]) -> None:
        frames, clips = rows
        audits = audit_rows(frames, clips=clips)
        assert [(one.selector, one.setting) for one in audits] == [
            ("model", "task_0.05"),
            ("model", "task_0.02"),
            ("model", "ratio_0.10"),
        ]
        here = [row for row in frames if row.selector == "model" and row.setting == "task_0.02"]
        expected = audit(
            [row.predicted_loss for row in here],
            [row.reconstruction_loss for row in here],
            clip=[row.clip_name for row in here],
            position=[row.frame_idx for row in here],
            threshold=0.02,
        )
        assert audits[1].audit == expected
        assert audits[2].audit.violation is None

    def test_table(self, rows: tuple[list[FrameRow], list[ClipRow]], tmp_path: Path) -> None:
        frames, clips = rows
        audits = write_stop_head(tmp_path, frames, clips=clips, picture=False)
        with (tmp_path / TABLE).open(newline="") as file:
            table = list(csv.DictReader(file))
        assert len(table) == 3 * (1 + 16 + 10)
        first = table[0]
        assert (first["setting"], first["part"], first["frames"], first["clips"]) == ("task_0.05", "all", "320", "20")
        violation = audits[0].audit.violation
        assert violation is not None
        assert float(first["above_threshold"]) == violation.share.rate
        assert float(first["clustered_high"]) == violation.share.clustered[1]
        assert [row["frame_idx"] for row in table[1:17]] == [str(frame) for frame in range(16)]
        assert not (tmp_path / PICTURE).exists()
        before = (tmp_path / TABLE).read_bytes()
        write_stop_head(tmp_path, frames, clips=clips, picture=False)
        assert (tmp_path / TABLE).read_bytes() == before

    def test_picture(self, rows: tuple[list[FrameRow], list[ClipRow]], tmp_path: Path) -> None:
        frames, clips = rows
        write_stop_head(tmp_path, frames, clips=clips)
        first = (tmp_path / PICTURE).read_bytes()
        with Image.open(tmp_path / PICTURE) as picture:
            assert picture.width > 1000
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100
        write_stop_head(tmp_path, frames, clips=clips)
        assert (tmp_path / PICTURE).read_bytes() == first

    def test_ratios_alone_show_the_bias(self, rows: tuple[list[FrameRow], list[ClipRow]], tmp_path: Path) -> None:
        frames = [row for row in rows[0] if row.setting == "ratio_0.10"]
        (one,) = write_stop_head(tmp_path, frames, clips=rows[1])
        assert one.audit.bias < 0
        assert (tmp_path / PICTURE).stat().st_size > 10_000

    def test_selectors_that_say_nothing_leave_nothing(
        self, rows: tuple[list[FrameRow], list[ClipRow]], tmp_path: Path
    ) -> None:
        silent = [row for row in rows[0] if row.selector == "random"]
        assert write_stop_head(tmp_path, silent, clips=rows[1]) == []
        assert list(tmp_path.iterdir()) == []


def test_an_evaluation_audits_every_selector_that_predicts(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", moving_frames(8, height_px=64, width_px=64))
    model = AutoGaze(small_config()).eval()
    model.gazing_model.init_weights(torch.Generator().manual_seed(0))
    evaluate(
        [video],
        out=tmp_path / "out",
        selectors=[AutoGazeSelector(model, name="model"), Replenish(model.grid), Random(grid=model.grid)],
        settings=settings_of(ratios=(0.3,), thresholds=(0.1,)),
        clip_len=8,
        viz_clips=0,
    )
    with (tmp_path / "out" / TABLE).open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["part"] == "all"]
    assert {row["selector"] for row in table} == {"model", "replenish"}
    for row in table:
        assert row["frames"] == "8"
        assert (row["threshold"] == "0.1") == ("task" in row["setting"])
        if row["selector"] == "replenish":  # it measures what it says
            assert float(row["rmse"]) < 1e-6
            assert row["setting"] != "task_0.10" or row["above_threshold"] == "0.0"
    assert (tmp_path / "out" / PICTURE).exists()
