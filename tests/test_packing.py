"""Ragged ↔ padded: nothing lost, nothing invented."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.packing import PaddedGaze, pack, unpack
from gaze_samples import RESIZED, SMALL, TILED, random_gaze

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"


@given(
    st.integers(0, 2**32 - 8),
    st.integers(1, 4),
    st.integers(0, 5),
    st.sampled_from([SMALL, RESIZED, TILED]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_unpack_undoes_pack(seed: int, B: int, T: int, layout: FrameLayout, numbers: bool):
    gazes = [random_gaze(seed + b, layout=layout, num_frames=T, numbers=numbers) for b in range(B)]
    padded = pack(gazes)
    times = [gaze.time_seconds for gaze in gazes]
    for before, after in zip(gazes, unpack(padded, layout, time_seconds=times), strict=True):
        assert after.equals(before)
    P = layout.num_indices
    counts = np.stack([gaze.count for gaze in gazes])
    assert padded.num_gazing_each_frame.tolist() == counts.max(0).tolist()
    assert padded.gazing_pos.shape == (B, counts.max(0).sum())
    assert (~padded.if_padded_gazing).sum() == counts.sum()
    frame = torch.repeat_interleave(padded.num_gazing_each_frame)
    local = padded.gazing_pos - frame * P
    assert ((local >= 0) & (local < P)).all(), "every slot can be gathered with, and belongs to its frame"
    assert (local[padded.if_padded_gazing] == 0).all()


def test_a_batch_by_hand():
    layout = FrameLayout.resized(PatchGrid(scales_px=(4,), patch_px=2), height_px=8, width_px=8)
    a = Gaze(index=np.array([3, 1, 2]), count=np.array([2, 0, 1]), layout=layout, probability=np.array([0.5, 0.25, 1]))
    b = Gaze(index=np.array([0, 1]), count=np.array([1, 0, 1]), layout=layout, probability=np.array([0.125, 0.5]))
    padded = pack([a, b])
    assert padded.gazing_pos.tolist() == [[3, 1, 10], [0, 0, 9]]
    assert padded.if_padded_gazing.tolist() == [[False, False, False], [False, True, False]]
    assert padded.num_gazing_each_frame.tolist() == [2, 0, 1]
    assert padded.num_vision_tokens_each_frame == 4
    assert padded.probability is not None and padded.probability.tolist() == [[0.5, 0.25, 1], [0.125, 1, 0.5]]
    assert padded.predicted_loss is None
    assert pack([a, replace(b, probability=None)]).probability is None


def test_padding_may_sit_anywhere_and_hold_anything():
    gazes = [random_gaze(seed, num_frames=4) for seed in range(3)]
    padded = pack(gazes)
    rng = torch.Generator().manual_seed(0)
    # Widen every frame by two slots of rubbish and move the gazes about, keeping their order.
    wide = padded.num_gazing_each_frame + 2
    position = torch.randint(-(10**6), 10**6, (3, int(wide.sum())), generator=rng)
    empty = torch.ones_like(position, dtype=torch.bool)
    start = 0
    for t, slots in enumerate(wide.tolist()):
        for b, gaze in enumerate(gazes):
            index = torch.as_tensor(gaze[t].index)
            where = start + torch.randperm(slots, generator=rng)[: len(index)].sort().values
            position[b, where] = t * SMALL.num_indices + index
            empty[b, where] = False
        start += slots
    moved = PaddedGaze(
        gazing_pos=position,
        if_padded_gazing=empty,
        num_gazing_each_frame=wide,
        num_vision_tokens_each_frame=SMALL.num_indices,
    )
    for before, after in zip(gazes, unpack(moved, SMALL), strict=True):
        assert after.equals(replace(before, probability=None, predicted_loss=None, time_seconds=None))


def test_nothing_gazed_gives_no_slots():
    gaze = random_gaze(0, num_frames=3, most=0)
    padded = pack([gaze, gaze])
    assert padded.gazing_pos.shape == (2, 0) and padded.num_gazing_each_frame.tolist() == [0, 0, 0]
    assert [after.num_frames for after in unpack(padded, SMALL)] == [3, 3]
    masks = pack([random_gaze(0, layout=RESIZED, num_frames=3, most=0)]).masks(PatchGrid())
    assert not any(mask.any() for mask in masks)


def test_published_names():
    gazes = [random_gaze(seed, layout=RESIZED, num_frames=3) for seed in range(2)]
    info = pack(gazes).to_dict(PatchGrid())
    assert info["scales"] == [32, 64, 112, 224] and info["num_vision_tokens_each_frame"] == 265
    assert [mask.shape for mask in info["gazing_mask"]] == [(2, 3, n) for n in (4, 16, 49, 196)]
    for b, gaze in enumerate(gazes):
        mask = torch.cat([mask[b] for mask in info["gazing_mask"]], dim=-1)
        np.testing.assert_array_equal(mask.numpy(), gaze.mask())
    back = unpack(PaddedGaze.from_dict(info), RESIZED, time_seconds=[gaze.time_seconds for gaze in gazes])
    for before, after in zip(gazes, back, strict=True):
        assert replace(after, probability=before.probability).equals(before)
        np.testing.assert_allclose(after.probability, before.probability, rtol=1e-5)
    bare = pack([random_gaze(0, layout=RESIZED, numbers=False)]).to_dict(PatchGrid())
    assert bare["log_action_probs"] is None and bare["task_loss_prediction"] is None
    with pytest.raises(ValueError, match="grid of 5 patches does not fit frames of 265"):
        pack(gazes).masks(PatchGrid(scales_px=(1, 2), patch_px=1))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the published results are not on this machine")
@pytest.mark.parametrize(
    "case", ["true_ratio_threshold_clip0", "reference_ratio_per_frame_clip0", "true_ratio_100_two_frames"]
)
def test_published_results_round_trip(case: str):
    from safetensors.torch import load_file

    info = load_file(GOLDEN / "gaze_official_shape" / f"{case}.safetensors")
    layout = FrameLayout.resized(PatchGrid(), height_px=224, width_px=224)
    padded = PaddedGaze.from_dict(info | {"num_vision_tokens_each_frame": 265})
    (gaze,) = unpack(padded, layout)
    again = pack([gaze])
    kept = ~padded.if_padded_gazing
    assert torch.equal(again.gazing_pos[~again.if_padded_gazing], padded.gazing_pos[kept])
    for scale, mask in enumerate(again.masks(PatchGrid())):
        assert torch.equal(mask, info[f"gazing_mask_{scale}"])


def test_what_cannot_be_packed():
    with pytest.raises(ValueError, match="at least one gaze"):
        pack([])
    with pytest.raises(ValueError, match="equally many frames, got 3 and 4"):
        pack([random_gaze(0, num_frames=3), random_gaze(0, num_frames=4)])
    with pytest.raises(ValueError, match="one layout"):
        pack([random_gaze(0, layout=SMALL), random_gaze(0, layout=TILED)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gazing_pos": torch.zeros(4, dtype=torch.int64)}, r"gazing_pos must be \(B, N\) int64, got \(4,\)"),
        ({"gazing_pos": torch.zeros(2, 4)}, "int64, got .* torch.float32"),
        ({"if_padded_gazing": torch.zeros(2, 3, dtype=torch.bool)}, r"must be \(2, 4\) bool"),
        ({"if_padded_gazing": torch.zeros(2, 4)}, "bool like gazing_pos, got .*float32"),
        ({"num_gazing_each_frame": torch.ones(2, 2, dtype=torch.int64)}, r"must be \(T,\) int64"),
        ({"num_gazing_each_frame": torch.ones(4)}, "int64, got .*float32"),
        ({"probability": torch.ones(2, 3)}, r"probability must be \(2, 4\)"),
        ({"predicted_loss": torch.ones(4)}, r"predicted_loss must be \(2, 4\)"),
    ],
)
def test_impossible_tensors(change: dict, message: str):
    legal = {
        "gazing_pos": torch.zeros(2, 4, dtype=torch.int64),
        "if_padded_gazing": torch.zeros(2, 4, dtype=torch.bool),
        "num_gazing_each_frame": torch.tensor([4]),
        "num_vision_tokens_each_frame": 265,
    }
    PaddedGaze(**legal)
    with pytest.raises(ValueError, match=message):
        PaddedGaze(**(legal | change))


def test_what_cannot_be_unpacked():
    padded = pack([random_gaze(1, layout=RESIZED, num_frames=3), random_gaze(2, layout=RESIZED, num_frames=3)])
    with pytest.raises(ValueError, match="layout has 1590 patches a frame, the gazes 265"):
        unpack(padded, TILED)
    with pytest.raises(ValueError, match="must sum to the"):
        unpack(replace(padded, num_gazing_each_frame=padded.num_gazing_each_frame + 1), RESIZED)
    with pytest.raises(ValueError, match="an entry for each of 2 clips, got 1"):
        unpack(padded, RESIZED, time_seconds=[None])
    frame_local = padded.gazing_pos % 265
    with pytest.raises(
        ValueError, match=r"is in a slot of frame 1, whose positions are 265\.\.529: frame · 265 \+ patch"
    ):
        unpack(replace(padded, gazing_pos=frame_local), RESIZED)
