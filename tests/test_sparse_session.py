"""A stream gives what the whole clip gives."""

from __future__ import annotations

import pytest
import torch

import sparse_samples as samples
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.vision_encoders import sparsify

GRID = PatchGrid(scales_px=(16, samples.SIDE_PX), patch_px=samples.PATCH_PX)
ONE = FrameLayout.resized(GRID, height_px=samples.SIDE_PX, width_px=samples.SIDE_PX)
TILED = FrameLayout.tiled(GRID, height_px=40, width_px=70)
STREAMED = ["frame", "block_causal", "causal"]


@pytest.mark.parametrize("attention", STREAMED)
@pytest.mark.parametrize("name", samples.FAMILIES)
def test_steps_give_what_the_whole_clip_gives(name: str, attention: str) -> None:
    encoder = sparsify(samples.make(name), attention=attention)
    video, gaze = samples.video(clips=1, frames=6), samples.some(ONE, frames=6, seed=3)
    session = encoder.open(ONE)
    parts = [session.step(video[0, part], gaze[part], hidden_states=True) for part in (slice(0, 2), slice(2, 6))]
    with torch.no_grad():
        whole = encoder(video, gaze, hidden_states=True)
    torch.testing.assert_close(torch.cat([part.features for part in parts]), whole.features, atol=1e-5, rtol=1e-5)
    for number, states in enumerate(whole.hidden_states or ()):
        torch.testing.assert_close(
            torch.cat([(part.hidden_states or ())[number] for part in parts]), states, atol=1e-5, rtol=1e-5
        )
    assert session.frames == 6


@pytest.mark.parametrize("tiles", ["separate", "joint"])
@pytest.mark.parametrize("attention", STREAMED)
def test_tiles_are_streamed_too(attention: str, tiles: str) -> None:
    encoder = sparsify(samples.make("Dinov2WithRegistersModel"), attention=attention, tiles=tiles)
    gaze = samples.some(TILED, frames=5, seed=4)
    video = torch.randn(1, 5, 3, 40, 70, generator=torch.Generator().manual_seed(0))
    session = encoder.open(TILED)
    parts = [session.step(video[0, t : t + 1], gaze[t]) for t in range(5)]
    with torch.no_grad():
        whole = encoder(video, gaze)
    torch.testing.assert_close(torch.cat([part.features for part in parts]), whole.features, atol=1e-5, rtol=1e-5)
    pooled = torch.cat([part.pooled for part in parts if part.pooled is not None], dim=1)
    torch.testing.assert_close(pooled, whole.pooled, atol=1e-5, rtol=1e-5, equal_nan=True)


def test_earlier_tokens_are_remembered_and_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = samples.make("ViTModel")
    encoder = sparsify(model, attention="block_causal")
    gaze, video = samples.some(ONE, frames=4, seed=5), samples.video(clips=1)
    seen: list[int] = []
    model.layernorm.register_forward_hook(lambda _module, inputs, _out: seen.append(len(inputs[0])))
    session = encoder.open(ONE)
    for t in range(4):
        session.step(video[0, t : t + 1], gaze[t])
    tokens = [int(count) + bool(count) for count in gaze.count]
    assert seen == tokens
    assert session.tokens == sum(tokens)
    assert encoder_keeps_nothing_for_independent_frames(model) == 0


def encoder_keeps_nothing_for_independent_frames(model: torch.nn.Module) -> int:
    session = sparsify(model).open(ONE)
    session.step(samples.video(clips=1)[0], samples.some(ONE, frames=4, seed=5))
    return session.tokens


class TestRefused:
    def test_attention_to_later_frames(self) -> None:
        with pytest.raises(ValueError, match="cannot be streamed"):
            sparsify(samples.make("ViTModel"), attention="bidirectional").open(ONE)

    def test_a_gaze_of_another_layout(self) -> None:
        session = sparsify(samples.make("ViTModel")).open(ONE)
        with pytest.raises(ValueError, match="the session is of"):
            session.step(samples.video()[0], samples.some(TILED, frames=4, seed=1))

    def test_other_frames_than_the_gaze_has(self) -> None:
        session = sparsify(samples.make("ViTModel")).open(ONE)
        with pytest.raises(ValueError, match="T = 3 as in the gaze, got"):
            session.step(samples.video()[0], samples.some(ONE, frames=3, seed=1))

    def test_half_a_patch_in_time(self) -> None:
        session = sparsify(samples.make("VJEPA2Model")).open(ONE)
        with pytest.raises(ValueError, match="a multiple of 2, got"):
            session.step(samples.video()[0, :3], samples.some(ONE, frames=3, seed=1))
