"""Keeping everything gives what the dense model gives, for every supported family."""

from __future__ import annotations

import pytest
import torch

import sparse_samples as samples
from autogaze.grid import PatchGrid
from autogaze.vision_encoders import TOWERS, sparsify

GRID = PatchGrid(scales_px=(samples.SIDE_PX,), patch_px=samples.PATCH_PX)


def test_every_family_is_tested() -> None:
    assert set(samples.FAMILIES) == set(TOWERS)


@pytest.mark.parametrize("name", samples.FAMILIES)
@pytest.mark.parametrize("side_px", [32, 48])
def test_keeping_everything_is_the_dense_model(name: str, side_px: int) -> None:
    options = {"crop_size": side_px} if name == "VJEPA2Model" else {}
    model, video = samples.make(name, **options), samples.video(side_px=side_px)
    gaze = samples.everything(PatchGrid(scales_px=(side_px,), patch_px=samples.PATCH_PX), frames=video.shape[1])
    attention = "bidirectional" if name == "VJEPA2Model" else "frame"
    with torch.no_grad():
        sparse = sparsify(model, attention=attention)(video, [gaze, gaze], hidden_states=True)
    dense = samples.dense(model, video)
    torch.testing.assert_close(sparse.features, dense.features.flatten(0, 2), atol=3e-5, rtol=1e-5)
    assert sparse.hidden_states is not None and len(sparse.hidden_states) >= len(dense.hidden_states) - 1
    for own, theirs in zip(sparse.hidden_states[-4:], dense.hidden_states[-4:], strict=True):
        torch.testing.assert_close(own, theirs.flatten(0, 2), atol=3e-5, rtol=1e-5)
    if dense.pooled is None:
        assert sparse.pooled is None
    else:
        assert sparse.pooled is not None
        torch.testing.assert_close(sparse.pooled, dense.pooled, atol=3e-5, rtol=1e-5)
