"""The comparison at equal loss of ``benchmarks/``, and what is measured for it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.reconstructors import load_reconstructor, rebuild
from autogaze.selectors import make_selector
from autogaze.selectors.base import Budget
from make_video import moving_frames, write_video
from small_models import small_config

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import ablation_runs
import chosen
import equal_loss
import stage_ablation
from chosen import AT_COUNTS, Chosen, Job, Judged, Setting, Store
from equal_loss import Curve, compare, needed_by_clip, needed_by_mean

LAYOUT = FrameLayout.resized(PatchGrid(), height_px=224, width_px=224)


def power_law(factor: float, *, clips: int = 6) -> Curve:
    """kept = factor · c / loss for clip c, at five limits."""
    loss_LC = np.array([0.1, 0.05, 0.03, 0.02, 0.01])[:, None] * np.ones(clips)
    kept_LC = factor * np.linspace(1, 2, clips) / loss_LC
    return Curve(kept_LC=kept_LC, loss_LC=loss_LC)


def row(rows: list[equal_loss.Needed], *, by: str, selector: str, loss: float) -> equal_loss.Needed:
    (found,) = (one for one in rows if (one.by, one.selector, one.loss) == (by, selector, loss))
    return found


@pytest.mark.parametrize("loss", [0.1, 0.07, 0.025, 0.01])
def test_a_power_law_is_read_off_exactly_by_clip_and_by_mean(loss: float) -> None:
    curve = power_law(0.001)
    needed = needed_by_clip(curve, loss)
    assert needed.kept_C == pytest.approx(0.001 * np.linspace(1, 2, 6) / loss)
    assert not needed.misses_C.any()
    assert needed.at_once_C.all() == (loss == 0.1)
    (by_mean,) = needed_by_mean(curve, (loss,), weight_RC=np.full((1, 6), 1 / 6))
    assert by_mean == pytest.approx([0.0015 / loss])


def test_a_clip_that_never_gets_there_needs_everything_and_the_mean_has_no_value() -> None:
    curve = power_law(0.001)
    needed = needed_by_clip(curve, 0.009)
    assert needed.misses_C.all()
    assert (needed.kept_C == 1).all()
    rows = compare({"a": curve}, losses=(0.009, 0.2), baselines=("a",))
    missed = row(rows, by="mean", selector="a", loss=0.009)
    assert missed.kept is None
    assert missed.times == {"a": None}
    sparse = row(rows, by="clip", selector="a", loss=0.2)
    assert sparse.clips_at_once == 6
    assert sparse.kept == pytest.approx(0.001 * 1.5 / 0.1)
    assert row(rows, by="mean", selector="a", loss=0.2).kept is None


def test_limits_that_others_beat_play_no_part_and_neither_does_their_order() -> None:
    curve = power_law(0.001)
    worse = Curve(
        kept_LC=np.concatenate([curve.kept_LC[::-1], curve.kept_LC * 1.5]),
        loss_LC=np.concatenate([curve.loss_LC[::-1], curve.loss_LC * 1.01]),
    )
    assert needed_by_clip(worse, 0.025).kept_C == pytest.approx(needed_by_clip(curve, 0.025).kept_C)


def test_a_multiple_is_told_with_an_interval_that_shrinks_to_it_where_all_clips_agree() -> None:
    rows = compare({"a": power_law(0.001), "b": power_law(0.003)}, losses=(0.025,), baselines=("a", "b", "gone"))
    for by in ("clip", "mean"):
        times = row(rows, by=by, selector="b", loss=0.025).times["a"]
        fewer = row(rows, by=by, selector="a", loss=0.025).fewer["b"]
        assert times == fewer
        assert times is not None
        assert (times.value, times.low, times.high) == pytest.approx((3, 3, 3))
    assert "gone" not in rows[0].times


def test_an_interval_holds_the_value_where_clips_differ() -> None:
    a, b = power_law(0.001, clips=20), power_law(0.001, clips=20)
    b = replace(b, kept_LC=b.kept_LC * np.random.default_rng(0).uniform(1, 3, 20))
    times = row(compare({"a": a, "b": b}, losses=(0.025,), baselines=("a",)), by="clip", selector="b", loss=0.025).times
    one = times["a"]
    assert one is not None
    assert one.low is not None
    assert one.high is not None
    assert one.low < one.value < one.high


def test_clips_must_be_the_same() -> None:
    with pytest.raises(ValueError, match=r"same clips, got \[5, 6\]"):
        compare({"a": power_law(1, clips=5), "b": power_law(1, clips=6)}, losses=(0.1,), baselines=())
    with pytest.raises(ValueError, match="one shape"):
        Curve(kept_LC=np.ones((2, 3)), loss_LC=np.ones((3, 2)))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "moving.mp4"
    write_video(path, moving_frames(40, height_px=96, width_px=128))
    return path


SETTINGS = (
    Setting(selector="replenish", threshold=0.05),
    Setting(selector=AT_COUNTS, threshold=0.05),
    Setting(selector="motion-vectors", ratio=0.02),
)


def test_what_was_measured_is_what_the_package_measures(video: Path) -> None:
    job = Job(path=video, long=False, settings=SETTINGS, reconstructors=("canvas",), known={})
    keys, found = chosen.keys_of(job), chosen.measure(job)
    frames = chosen.read_clip(video)
    gaze = make_selector("replenish").open(LAYOUT, Budget(threshold=0.05)).step(frames)
    mine = found[keys[SETTINGS[0]]]
    assert mine.index == tuple(gaze.index.tolist())
    assert mine.kept == gaze.ratio
    rebuilt = rebuild(frames, gaze=gaze, reconstructor=load_reconstructor("canvas"))
    assert mine.judged["canvas"].loss == tuple(rebuilt.loss.tolist())
    assert mine.stated == pytest.approx(rebuilt.loss, abs=1e-6)  # replenish says what it reaches
    assert mine.judged["canvas"].mse == pytest.approx(
        np.square(rebuilt.rgb / 255 - frames.rgb / 255).mean(axis=(1, 2, 3)), rel=1e-5
    )
    assert found[keys[SETTINGS[1]]].count == mine.count
    assert found[keys[SETTINGS[1]]].index != mine.index
    assert set(found[keys[SETTINGS[2]]].count) == {5}
    assert len(chosen.read_long(video)) == 40


def test_a_short_memory_costs_patches_from_the_second_clip_on(video: Path) -> None:
    settings = tuple(Setting(selector=name, threshold=0.02) for name in ("replenish", chosen.ANEW))
    job = Job(path=video, long=True, settings=settings, reconstructors=(), known={})
    keys, found = chosen.keys_of(job), chosen.measure(job)
    whole, anew = (found[keys[setting]] for setting in settings)
    assert anew.count[:16] == whole.count[:16]
    assert anew.count[16] > whole.count[16]


def test_what_is_known_is_not_measured_again_and_another_judge_needs_no_new_gazes(video: Path, tmp_path: Path) -> None:
    job = Job(path=video, long=False, settings=SETTINGS[:1], reconstructors=(), known={})
    (key,) = chosen.keys_of(job).values()
    other = Chosen(index=(7, 7, 7), count=(1,) * 3 + (0,) * 13, stated=(None,) * 16, judged={})
    store = Store(tmp_path / "store.jsonl")
    store.add({key: other})
    with store.path.open("a") as file:
        file.write('["torn')
    known = Store(store.path).of([key])
    assert known == {key: other}
    found = chosen.measure(replace(job, known=known, reconstructors=("canvas",)))[key]
    assert replace(found, judged={}) == other
    judged = {**known, key: replace(other, judged={"canvas": Judged(loss=(1.0,), mse=(2.0,))})}
    assert chosen.measure(replace(job, known=judged, reconstructors=("canvas",))) == judged


def test_a_changed_video_is_another_clip(video: Path) -> None:
    job = Job(path=video, long=False, settings=SETTINGS, reconstructors=(), known={})
    before = set(chosen.keys_of(job).values())
    assert len(before | set(chosen.keys_of(replace(job, long=True)).values())) == 6
    write_video(video, moving_frames(40, height_px=96, width_px=128, seed=1))
    assert before.isdisjoint(chosen.keys_of(job).values())


def test_shapes_of_an_ablation_are_networks_that_gaze() -> None:
    config = small_config()
    for changed, gazes, patches in (
        (ablation_runs.with_gazes_per_pass(config, 7), 7, config.grid.num_patches),
        (ablation_runs.with_finest_scale_alone(config), 4, config.grid.patches_per_scale[-1]),
    ):
        model = AutoGaze(changed).eval()
        assert changed.gaze_model_config.gaze_decoder_config.num_multi_token_pred == gazes
        side_px = changed.grid.scales_px[-1]
        gaze = model.gaze(np.zeros((2, side_px, side_px, 3), np.uint8), ratio=1.0)
        assert gaze.count.tolist() == [patches, patches]


def test_a_network_is_measured_at_the_counts_of_the_greedy_search() -> None:
    config = small_config()
    clips = stage_ablation.held_clips(config, folder=None, count=3, loss=0.05)
    model = AutoGaze(config).eval()
    for clip in clips:
        counts = clip.label.gaze.count
        own = model.gaze(np.array(clip.rgb), ratio=stage_ablation.ratios(clip.label.gaze, config.grid.num_patches))
        assert own.count.tolist() == np.maximum(counts, 1).tolist()
    measured = stage_ablation.measure(model, clips, loss=0.05)
    found = stage_ablation.baselines(clips, loss=0.05)
    assert found["greedy_loss"] <= min(0.05, measured.loss_at_counts)
    assert found["greedy_kept"] < measured.kept_by_clip <= 1


def test_a_stage_is_trained_once_and_anew_by_another_command(tmp_path: Path) -> None:
    tiny = ("--config", "tiny", "--batch", "2", "--block", "8", "--device", "cpu", "--validation-clips", "0")
    words = ablation_runs.Words(ntp=tiny, grpo=(), both=(), further=(), ntp_steps=1, grpo_steps=1)
    trainer = ablation_runs.Trainer(folder=tmp_path, words=words)
    make = partial(trainer.make, config=small_config(), name="net", seed=0)
    none, ntp = make("none"), make("NTP")
    written = [(path / "model.safetensors").stat().st_mtime_ns for path in (none, ntp)]
    assert (make("none"), make("NTP")) == (none, ntp)
    assert written == [(path / "model.safetensors").stat().st_mtime_ns for path in (none, ntp)]
    other = replace(trainer, words=replace(words, ntp=(*tiny, "--nonsense")))
    with pytest.raises(RuntimeError, match="--nonsense"):
        other.make("NTP", config=small_config(), name="net", seed=0)
    assert not ntp.exists()


def test_gazes_survive_the_store() -> None:
    gaze = Gaze(index=np.array([3, 264, 0]), count=np.array([2, 0, 1]), layout=LAYOUT)
    kept = Chosen.of(gaze)
    again = Chosen.from_json(json.loads(json.dumps(asdict(kept))))
    assert again == kept
    assert again.gaze(LAYOUT).index.tolist() == [3, 264, 0]
    assert again.stated == (None, None, None)
