"""Lessons of ``scripts/polish_gaze.py``: what patches gain, what is said of them, what learns and what stays."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autogaze.datasets.labels import LabelRule, label_clip
from autogaze.datasets.own_labels import OwnLabel, own_labels
from autogaze.datasets.recipes import ClipRecipe
from autogaze.datasets.stream import LabelledClip
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.scoring import Policy
from autogaze.packing import pack
from autogaze.selectors.canvas import Canvas
from small_models import small_config

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import polish_gaze as polish

GROUP = 4


@pytest.fixture(scope="module")
def model() -> AutoGaze:
    model = AutoGaze(small_config(group_size=GROUP)).eval()
    model.gazing_model.init_weights(torch.Generator().manual_seed(0))
    return model


def labelled(model: AutoGaze) -> LabelledClip:
    """Coarse noise that drifts, gazed at down to a small error."""
    large = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    rgb = np.stack([large[3 * t : 3 * t + 64, 5 * t : 5 * t + 64] for t in range(5)])
    rule = LabelRule(threshold=0.05)
    recipe = ClipRecipe(number=3, kind="sprites", seed=0, rule=rule)
    return LabelledClip(recipe=recipe, rgb=rgb, label=label_clip(rgb, rule=rule, grid=model.grid))


@pytest.fixture
def whole_groups(model: AutoGaze, monkeypatch: pytest.MonkeyPatch) -> tuple[polish.Lesson, Gaze, OwnLabel]:
    """A lesson in which every group has all its gazes, the gaze it is about, and the labels of that."""
    gazes, gains = [], polish.gains

    def watched(rgb: np.ndarray, gaze: Gaze, *, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        gazes.append(gaze)
        return gains(rgb, gaze, group=group)

    for name, value in (("WHOLE_GROUPS", 1.0), ("LEAST_GAIN", 0.0), ("gains", watched)):
        monkeypatch.setattr(polish, name, value)
    clip = labelled(model)
    lesson = polish.lesson(model, clip, seed=0, blocks=1)
    assert set((gazes[0].count % GROUP).tolist()) == {0}
    return lesson, gazes[0], own_labels(clip.rgb, gazes[0], group=GROUP)


def test_targets_and_gains_are_those_of_the_search(whole_groups: tuple[polish.Lesson, Gaze, OwnLabel]) -> None:
    lesson, gaze, label = whole_groups
    target_N, known_N = lesson.target_SK.flatten().numpy(), (lesson.target_SK >= 0).flatten().numpy()
    assert np.array_equal(known_N, label.known)
    assert np.array_equal(target_N[known_N], label.target[known_N])
    gain_SP = lesson.gain_SKP[:, 0].float()
    best_S, own_S = gain_SP.amax(1), torch.from_numpy(gaze.index[::GROUP])
    share_S = gain_SP.gather(1, own_S[:, None])[:, 0] / best_S
    # The first gaze of a group is measured from where the group's targets are.
    np.testing.assert_allclose(share_S, label.gain_share[::GROUP].clip(min=0), atol=2e-3)


def test_gains_are_found_by_trying_every_patch() -> None:
    layout = FrameLayout.tiled(PatchGrid(), height_px=224, width_px=224)
    rng = np.random.default_rng(0)
    # Even but for a corner: nobody needs to know what patches of most places gain to find the best.
    rgb = np.full((2, 224, 224, 3), 120, np.uint8)
    rgb[:, :60, :60] = rng.integers(0, 256, (2, 60, 60, 3))
    rgb[1, 100:] += 3
    gaze = Gaze(index=np.array([0, 1, 2, 3, 4, 30]), count=np.array([5, 1]), layout=layout)
    _, gain_SKP = polish.gains(rgb, gaze, group=5)
    canvas = Canvas(layout)
    canvas.paste(rgb[0], gaze[0])
    start, before = canvas.painting.copy(), canvas.quality(rgb[1]).loss[0]
    found = []
    for patch in range(layout.num_patches):
        canvas.painting = start.copy()
        canvas.paste(rgb[1], Gaze(index=np.array([patch]), count=np.array([1]), layout=layout))
        found.append(1000 * max(0.0, before - canvas.quality(rgb[1]).loss[0]))
    np.testing.assert_allclose(gain_SKP[1, 0].float(), found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("blocks", [1, 2])
def test_cross_entropy_is_that_of_the_policy(
    model: AutoGaze, whole_groups: tuple[polish.Lesson, Gaze, OwnLabel], monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    _, gaze, label = whole_groups
    for name, value in (("WHOLE_GROUPS", 1.0), ("LEAST_GAIN", 0.0)):
        monkeypatch.setattr(polish, name, value)
    lesson = polish.lesson(model, labelled(model), seed=0, blocks=blocks)
    packed = pack([gaze])
    frame_N = torch.repeat_interleave(packed.num_gazing_each_frame)
    known_BN = torch.from_numpy(label.known)[None]
    with torch.no_grad():
        scored = model.gazing_model(
            model.preprocess(labelled(model).rgb[None]),
            packed.gazing_pos - frame_N * packed.num_vision_tokens_each_frame,
            ~packed.if_padded_gazing,
            packed.num_gazing_each_frame.tolist(),
            target_BN=torch.from_numpy(label.target)[None],
            known_BN=known_BN,
            policy=Policy(),
        )
        decoder = model.gazing_model.gaze_decoder
        entropy, expected, likeliest, heads = polish.sums(
            decoder, lesson, polish.hidden(decoder, lesson, blocks=blocks)
        )
    assert int(heads) == int(known_BN.sum())
    wanted = -scored.log_probability_BN[known_BN].sum()
    torch.testing.assert_close(entropy, wanted, rtol=2e-3, atol=0.0)  # lessons are kept in half precision
    assert 0 < expected < heads
    assert 0 < likeliest <= heads


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_last_blocks_learn_and_all_else_stays(model: AutoGaze, blocks: int) -> None:
    learner = AutoGaze(model.config).eval()
    learner.load_state_dict(model.state_dict())
    decoder = learner.gazing_model.gaze_decoder
    lesson = polish.lesson(learner, labelled(learner), seed=0, blocks=blocks)
    settings = argparse.Namespace(
        epochs=40, batch=1, lr=3e-3, seed=0, gain_weight=10.0, blocks=blocks, jobs=1, stop_weight=0.0
    )
    before = polish.sums(decoder, lesson, polish.hidden(decoder, lesson, blocks=blocks))[1]
    polish.teach(settings, decoder, [lesson])
    assert polish.sums(decoder, lesson, polish.hidden(decoder, lesson, blocks=blocks))[1] > 1.2 * before
    after = learner.state_dict()
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, after[name])}
    place = "gazing_model.gaze_decoder."
    last = tuple(f"{place}model.layers.{number}." for number in (0, 1)[-blocks:])
    assert changed == {name for name in after if name.startswith(last)} | {
        f"{place}model.norm.weight",
        f"{place}lm_head.weight",
    }


def test_what_the_stop_head_says_is_held(model: AutoGaze) -> None:
    def drift(stop_weight: float) -> float:
        learner = AutoGaze(model.config).eval()
        learner.load_state_dict(model.state_dict())
        decoder = learner.gazing_model.gaze_decoder
        lesson = polish.lesson(learner, labelled(learner), seed=0, blocks=1)
        settings = {"epochs": 40, "batch": 1, "lr": 3e-3, "seed": 0, "gain_weight": 10.0, "blocks": 1, "jobs": 1}
        before = decoder.predicted_losses(polish.hidden(decoder, lesson, blocks=1)).detach()
        polish.teach(argparse.Namespace(**settings, stop_weight=stop_weight), decoder, [lesson])
        after = decoder.predicted_losses(polish.hidden(decoder, lesson, blocks=1))
        return float((after - before).square().mean())

    assert drift(100.0) < 0.1 * drift(0.0)


def test_what_was_gathered_is_not_gathered_again(model: AutoGaze, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "init")
    work = tmp_path / "work"
    words = {
        "videos": [],
        "images": [],
        "procedural": 1.0,
        "work": work,
        "seed": 0,
        "all": False,
        "blocks": 2,
        "also": [],
    }
    words |= {"init": str(tmp_path / "init")}
    first, _ = polish.gather(argparse.Namespace(**words, clips=2, jobs=1))
    teaching, judging = polish.gather(argparse.Namespace(**words, clips=4, jobs=2))
    assert len(teaching) + len(judging) == 4
    assert [path.name for path in sorted(work.glob("*.pt"))] == ["0.pt", "1.pt", "2.pt", "3.pt"]
    for one, again in zip(first, teaching, strict=False):
        assert all(torch.equal(value, getattr(again, name)) for name, value in vars(one).items())
    for name in ("1.pt", "2.pt"):  # one job makes what two made
        (work / name).unlink()
    again, _ = polish.gather(argparse.Namespace(**words, clips=4, jobs=1))
    for one, other in zip(teaching, again, strict=True):
        assert all(torch.equal(value, getattr(other, name)) for name, value in vars(one).items())
    more, _ = polish.gather(argparse.Namespace(**words | {"also": [work], "all": True}, clips=1, jobs=1))
    assert len(more) == 1 + 4


@pytest.mark.parametrize(
    ("role", "change", "words"),
    [
        ("work", {"blocks": 1}, "blocks 2 and not 1"),
        ("work", {"seed": 1}, "seed 0 and not 1"),
        ("work", {"videos": [Path("more")]}, "videos [] and not "),
        ("work", {"init": "other"}, "weights_sha256 "),
        ("also", {"blocks": 1}, "blocks 2 and not 1"),
        ("also", {"seed": 1, "init": "other"}, None),
        ("work", {"clips": 9, "jobs": 3}, None),
    ],
)
def test_a_cache_holds_lessons_that_fit_each_other(
    model: AutoGaze, tmp_path: Path, role: str, change: dict[str, Any], words: str | None
) -> None:
    other = AutoGaze(model.config)
    other.gazing_model.init_weights(torch.Generator().manual_seed(1))
    for name, one in (("init", model), ("other", other)):
        one.save_pretrained(tmp_path / name)
    work, new = tmp_path / "work", tmp_path / "new"
    asked = {"blocks": 2, "seed": 0, "procedural": 1.0, "videos": [], "images": [], "also": [], "work": work}
    asked |= {"init": "init", "clips": 1, "jobs": 1}

    def claim(**words: Any) -> None:
        named = asked | words
        polish.claim_caches(argparse.Namespace(**named | {"init": str(tmp_path / named["init"])}))

    claim()
    before = (work / polish.CLAIM).read_bytes()
    folders = {"work": work} if role == "work" else {"work": new, "also": [work]}
    if words is None:
        claim(**change, **folders)
    else:
        with pytest.raises(SystemExit, match=re.escape(f"{work} holds lessons of {words}")):
            claim(**change, **folders)
        assert not (new / polish.CLAIM).exists()
    assert (work / polish.CLAIM).read_bytes() == before
