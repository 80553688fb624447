"""Next-token training on a small model: what is learned, from labels and from the model's own gazes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autogaze.datasets.label_entries import LabelFileError
from autogaze.datasets.own_labels import own_labels
from autogaze.errors import TrainingError
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.selectors.base import Budget
from autogaze.training.batch import Batch, collate
from autogaze.training.networks import TINY, gaze_model
from autogaze.training.ntp import NTPStage
from autogaze.training.own_gazes import OwnBatch
from autogaze.training.stage import Moment, Share, Terms
from clip_samples import small_clips
from training_samples import events, make_footage, newest, ntp_settings, run, same_tensors, stop_after, trainer

START = Moment(step=0, share=0.0)


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_footage(tmp_path_factory.mktemp("footage"))


def stage(footage: Path, **changes: Any) -> NTPStage:
    settings = ntp_settings(footage, Path("unused"), **{"validation_clips": 0, **changes})
    return NTPStage(settings, device=torch.device("cpu"), tell=lambda path, message: None)


def terms(of: NTPStage, batch: Batch) -> Terms:
    return of.terms(batch, of.units(batch))


def test_learns(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path, steps=60, block=64, reuse=8, log_every=1, average=0.9))
    steps = events(tmp_path, "step")
    gaze, head = ([step[name] for step in steps] for name in ("gaze", "head"))
    assert np.mean(gaze[-5:]) < 0.93 * np.mean(gaze[:5])
    assert np.mean(head[-5:]) < 0.5 * np.mean(head[:5])
    (last,) = [line for line in events(tmp_path, "validation") if line["weights"] == "averaged"]
    assert last["label_loss"] < last["own_loss"]  # the search looks, the model guesses


def test_learns_from_its_own_gazes(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path, steps=60, block=64, reuse=8, own=1.0))
    gaze = [step["gaze"] for step in events(tmp_path, "step")]
    assert np.mean(gaze[-5:]) < 0.93 * np.mean(gaze[:5])


def test_own_gazes_go_on_bit_for_bit(footage: Path, tmp_path: Path) -> None:
    run(ntp_settings(footage, tmp_path / "whole", own=0.5))
    first = trainer(ntp_settings(footage, tmp_path / "parts", own=0.5))
    stop_after(first, 2)
    first.run()
    run(ntp_settings(footage, tmp_path / "parts", own=0.5, resume=True))
    assert same_tensors(newest(tmp_path / "whole"), newest(tmp_path / "parts"))


def test_own_batches_hold_the_models_gazes_and_the_searchs_targets(footage: Path) -> None:
    one = stage(footage, own=1.0)
    group = one.model.gazing_model.gaze_decoder.group_size
    with one.feed(Share()) as feed:
        clips = feed.step()[:3]
    batch = one.prepare(clips, START)
    assert isinstance(batch, OwnBatch)
    count_T = torch.tensor(batch.count_T)
    frame_N = torch.repeat_interleave(count_T)
    for b, clip in enumerate(clips):
        kept = batch.kept_BN[b]
        count = torch.bincount(frame_N[kept], minlength=len(count_T)).numpy()
        assert np.array_equal(count, clip.label.gaze.count.clip(1))
        gaze = replace(
            clip.label.gaze,
            index=batch.index_BN[b][kept].numpy(),
            count=count,
            predicted_loss=None,
            probability=None,
        )
        label = own_labels(batch.rgb_BTSSC[b].numpy(), gaze, group=group)
        known = batch.best_BN[b][kept].numpy()
        assert np.array_equal(known, label.known)
        assert np.array_equal(batch.target_BN[b][kept].numpy()[known], label.target[known])
        np.testing.assert_array_equal(batch.loss_BN[b][kept].numpy(), label.gaze.predicted_loss)
    again = one.prepare(clips, START)
    assert torch.equal(batch.index_BN, again.index_BN)


def test_the_predicted_loss_is_scored_relative_to_the_true_one(footage: Path) -> None:
    one = stage(footage)
    with torch.no_grad():
        one.model.gazing_model.gaze_decoder.task_loss_prediction_head.weight.zero_()
    clips = small_clips(4)
    batch = collate(torch.from_numpy(np.stack([clip.rgb for clip in clips])), [clip.label for clip in clips])
    target = torch.cat([torch.from_numpy(clip.label.gaze.predicted_loss) for clip in clips])
    relative = target / (target + one.settings.loss_floor)
    _, head, bias = terms(one, batch).values
    torch.testing.assert_close(head, relative.square().mean())
    torch.testing.assert_close(bias, -relative.mean())


def test_slips_are_read_but_not_learned(footage: Path) -> None:
    one = stage(footage)
    (clip,) = small_clips(1)
    rgb = torch.from_numpy(clip.rgb)[None]
    best = np.arange(clip.label.gaze.num_gazes) % 3 > 0
    batch = collate(rgb, [replace(clip.label, best=best)])
    scored = one.model.score(rgb, [clip.label.gaze])
    expected = -scored.log_probability_BN[0, torch.from_numpy(best)].mean()
    torch.testing.assert_close(terms(one, batch).values[0], expected.detach())


def test_parts_of_a_batch_add_up_to_the_whole(footage: Path) -> None:
    one = stage(footage)
    clips = small_clips(4)
    whole, *parts = (
        collate(torch.from_numpy(np.stack([clip.rgb for clip in some])), [clip.label for clip in some])
        for some in (clips, clips[:1], clips[1:])
    )
    units = one.units(whole)
    torch.testing.assert_close(sum(one.units(part) for part in parts), units)
    total = sum(one.terms(part, units).values for part in parts)
    torch.testing.assert_close(total, one.terms(whole, units).values)


def test_fresh_models_have_the_published_shape_and_stop_at_losses_of_the_labels(tmp_path: Path) -> None:
    models = [gaze_model(init=None, shape="published", seed=seed) for seed in (0, 0, 1)]
    assert sum(parameter.numel() for parameter in models[0].parameters()) == 3_258_240
    first, same, other = (model.gazing_model.connector.pos_embed for model in models)
    assert torch.equal(first, same) and not torch.equal(first, other)
    models[0].save_pretrained(tmp_path / "fresh")
    loaded = AutoGaze.from_pretrained(tmp_path / "fresh")
    assert loaded.config.positions == "true"
    assert loaded.budget(None, None, frames=16) == Budget(ratio=0.75, threshold=0.025)


def test_a_shape_can_be_a_file_and_must_be_something(tmp_path: Path) -> None:
    AutoGaze(TINY).save_pretrained(tmp_path)
    assert gaze_model(init=None, shape=str(tmp_path / "config.json"), seed=0).grid.num_patches == 20
    with pytest.raises(TrainingError, match=r"--shape 'large' is neither published, tiny nor the path"):
        gaze_model(init=None, shape="large", seed=0)


def test_a_share_of_own_gazes_is_a_share(footage: Path) -> None:
    with pytest.raises(TrainingError, match="--own must be a share from 0 to 1, got 2"):
        ntp_settings(footage, Path("out"), own=2.0)


def test_only_unreadable_videos_end_the_run(tmp_path: Path, footage: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(TrainingError, match=r"no step had a clip to learn from: .*broken\.mp4"):
        run(ntp_settings(footage, tmp_path / "out", videos=(folder,), images=()))
    assert not (tmp_path / "out" / "checkpoint").exists()


# Label files


def write_labels(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_labels_can_come_from_a_file(footage: Path, tmp_path: Path) -> None:
    frames = ", ".join(["[0, 1]"] * 4), ", ".join(["[0.2, 0.1]"] * 4)
    key = "/".join((footage / "videos" / "train" / "0.mp4").parts[-3:])
    labels = write_labels(
        tmp_path / "labels.json", f'{{"{key}": {{"gazing_pos": [{frames[0]}], "task_losses": [{frames[1]}]}}}}'
    )
    one = stage(footage, labels=labels, images=())
    with one.feed(Share()) as feed:
        clips = feed.step()
    assert len(clips) == 8
    for clip in clips:
        assert clip.label.gaze.index.tolist() == [0, 1] * 4
        np.testing.assert_allclose(clip.label.gaze.predicted_loss, [0.2, 0.1] * 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a/b/other.mp4": {"gazing_pos": [[0]], "task_losses": [[0.1]]}}', "other.mp4"),
        ('{"videos/train/0.mp4": {"gazing_pos": [[99]], "task_losses": [[0.1]]}}', "99"),
        ('{"videos/train/0.mp4": {"gazing_pos": [[0]], "task_losses": [[NaN]]}}', "0.mp4"),
    ],
)
def test_labels_that_do_not_fit_are_refused(footage: Path, tmp_path: Path, text: str, message: str) -> None:
    labels = write_labels(tmp_path / "labels.json", text)
    with pytest.raises(LabelFileError, match=message), stage(footage, labels=labels, images=()).feed(Share()) as feed:
        feed.step()
