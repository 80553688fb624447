"""Sparse encoders against the definition, and what must not change them."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

import sparse_samples as samples
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.packing import unpack
from autogaze.vision_encoders import SparseFeatures, Tower, pixels, sparsify
from sparse_definition import define
from sparse_samples import GRID, LAYOUT, Largest, T, close, gazes

# Shape letters: B clips, T frames, N patches, C channels.

KINDS = {
    "frame": {"attention": "frame"},
    "block causal": {"attention": "block_causal"},
    "causal": {"attention": "causal"},
    "bidirectional": {"attention": "bidirectional"},
    "tokens of a clip": {"attention": "bidirectional", "class_tokens": "clip"},
}
SHAPES = ("SiglipVisionModel", "ViTModel", "DINOv3ViTModel", "VJEPA2Model")
"""Without class token, with one, with registers and turned positions, with patches of two frames."""


@cache
def shared(name: str) -> Any:
    """A model that tests only read."""
    return samples.make(name)


def same(own: SparseFeatures, expected: SparseFeatures) -> None:
    close(own.features, expected.features)
    assert own.hidden_states is not None and expected.hidden_states is not None
    for state, theirs in zip(own.hidden_states, expected.hidden_states, strict=True):
        close(state, theirs)
    assert (own.pooled is None) == (expected.pooled is None)
    if own.pooled is not None:
        close(own.pooled, expected.pooled)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", samples.FAMILIES)
@torch.no_grad()
def test_several_scales_are_the_definition(name: str, kind: dict[str, str]) -> None:
    model, video, chosen = shared(name), samples.video(frames=T), gazes()
    out = sparsify(model, **kind)(video, chosen, hidden_states=True)
    expected = [define(model, clip, gaze, **kind) for clip, gaze in zip(video, chosen, strict=True)]
    close(out.features, torch.cat([clip.features for clip in expected]))
    assert out.hidden_states is not None
    for number, state in enumerate(out.hidden_states):
        close(
            state, torch.cat([clip.hidden_states[number] for clip in expected]), 3e-5
        )  # before the norm: larger numbers
    assert len(out.hidden_states) == len(expected[0].hidden_states) == model.config.num_hidden_layers + 1
    if expected[0].pooled is None:
        assert out.pooled is None
    else:
        close(out.pooled, torch.cat([clip.pooled for clip in expected if clip.pooled is not None]))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ["ViTModel", "VJEPA2Model"])
@torch.no_grad()
def test_back_ends_agree(name: str) -> None:
    video, chosen = samples.video(frames=T), gazes()
    for kind in (KINDS["block causal"], KINDS["tokens of a clip"]):
        usual, flex = (
            sparsify(shared(name), backend=backend, **kind)(video, chosen, hidden_states=True)
            for backend in ("sdpa", "flex")
        )
        same(flex, usual)


@torch.no_grad()
def test_a_tower_of_your_own() -> None:
    config = transformers.ViTMSNConfig(**samples.FAMILIES["ViTModel"][1])
    model, video = samples.random_weights(transformers.ViTMSNModel(config)), samples.video()
    gaze = samples.everything(PatchGrid(scales_px=(32,), patch_px=samples.PATCH_PX), frames=4)
    out, dense = sparsify(model, tower=Tower)(video, [gaze, gaze]), model(video.flatten(0, 1)).last_hidden_state
    close(out.features, dense[:, 1:].flatten(0, 1))
    assert out.pooled is not None
    close(out.pooled.flatten(0, 1), dense[:, 0])


# Invariances


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_the_order_of_gazes_changes_nothing_but_for_causal_attention(name: str) -> None:
    video, gaze = samples.video(clips=1, frames=T), gazes(1)[0]
    for kind in KINDS.values():
        encoder = sparsify(shared(name), **kind)
        given, sorted_ = encoder(video, gaze), encoder(video, gaze.in_order())
        own = by_patch(given)
        assert own.keys() == by_patch(sorted_).keys()
        worst = max((own[key] - row).abs().max().item() for key, row in by_patch(sorted_).items())
        assert (worst > 1e-2) if kind["attention"] == "causal" else (worst < 1e-5)


def by_patch(out: SparseFeatures) -> dict[tuple[int, int], Tensor]:
    (gaze,) = out.gazes
    return dict(zip(zip(gaze.frame.tolist(), gaze.index.tolist(), strict=True), out.features, strict=True))


@torch.no_grad()
def test_padding_is_at_the_end_of_frames_and_carries_nothing() -> None:
    encoder, video, chosen = sparsify(shared("ViTModel")), samples.video(frames=T), gazes()
    out = encoder(video, chosen)
    features, padded = out.padded()
    assert features.shape == (*padded.if_padded_gazing.shape, out.features.shape[1])
    assert padded.num_gazing_each_frame.tolist() == np.maximum(*(gaze.count for gaze in chosen)).tolist()
    assert not features[padded.if_padded_gazing].any()
    for clip, gaze in enumerate(chosen):
        kept = ~padded.if_padded_gazing[clip]
        assert torch.equal(features[clip, kept], out.clip(clip))
        frame, index = np.divmod(padded.gazing_pos[clip, kept].numpy(), GRID.num_patches)
        assert np.array_equal(frame, gaze.frame) and np.array_equal(index, gaze.index)
    assert torch.equal(encoder(video, unpack(padded, LAYOUT)).features, out.features)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_neither_batch_nor_chunks_change_anything(
    name: str, kind: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    video, chosen = samples.video(clips=3, frames=T), gazes(3)
    chosen[1] = Gaze(index=np.arange(0), count=np.zeros(T, int), layout=LAYOUT)
    together = sparsify(shared(name), **kind)(video, chosen, hidden_states=True)
    alone = [sparsify(shared(name), **kind)(video[b : b + 1], chosen[b], hidden_states=True) for b in range(3)]
    close(together.features, torch.cat([one.features for one in alone]))
    if together.pooled is not None:
        close(together.pooled, torch.cat([one.pooled for one in alone if one.pooled is not None]))
    for most in (1, 40):
        same(sparsify(shared(name), max_tokens=most, **kind)(video, chosen, hidden_states=True), together)
    same(sparsify(shared(name), embed_clips=1, **kind)(video, chosen, hidden_states=True), together)
    monkeypatch.setattr(pixels, "CHUNK_BYTES", 2 * video[0, 0].nbytes)
    same(sparsify(shared(name), **kind)(video, chosen, hidden_states=True), together)


@torch.no_grad()
def test_no_more_tokens_at_once_than_asked_but_never_part_of_a_sequence() -> None:
    model, video, chosen = samples.make("ViTModel"), samples.video(clips=3, frames=T), gazes(3)
    rows: list[int] = []
    sparsify(model).tower.layers[0].register_forward_pre_hook(lambda _layer, inputs: rows.append(inputs[0].shape[1]))
    frames = np.concatenate([gaze.count + (gaze.count > 0) for gaze in chosen])  # with their class tokens
    for attention, sequences in (("frame", frames), ("causal", frames.reshape(3, T).sum(1))):
        for most in (1, 30, 60, 10**6):
            rows.clear()
            sparsify(model, max_tokens=most, attention=attention)(video, chosen)
            parts = np.split(sequences, np.searchsorted(np.cumsum(sequences), np.cumsum(rows))[:-1] + 1)
            assert [part.sum() for part in parts] == rows  # whole sequences
            assert all(part.sum() <= most or np.count_nonzero(part) == 1 for part in parts)
            assert all(one + other > most for one, other in pairwise(rows))  # no more parts than needed


@torch.no_grad()
def test_no_more_clips_are_embedded_at_once_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, chosen = sparsify(shared("ViTModel"), attention="causal", embed_clips=2), gazes(3)
    embed, rows = encoder.tower.embed, []

    def noted(pixels: Tensor) -> Tensor:
        rows.append(len(pixels))
        return embed(pixels)

    monkeypatch.setattr(encoder.tower, "embed", noted)
    encoder(samples.video(clips=3, frames=T), chosen)
    assert rows == [chosen[0].num_gazes + chosen[1].num_gazes, chosen[2].num_gazes]


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_pixels_of_dropped_patches_are_not_looked_at(name: str) -> None:
    video, finest = samples.video(frames=4), PatchGrid(scales_px=(32,), patch_px=samples.PATCH_PX)
    layout = FrameLayout.resized(finest, height_px=32, width_px=32)
    chosen = [samples.some(layout, frames=4, seed=seed) for seed in (1, 2)]
    if name == "VJEPA2Model":  # a patch lasts two frames
        chosen = [Gaze.from_mask(gaze.mask().reshape(2, 2, -1).any(1).repeat(2, 0), layout) for gaze in chosen]
    blind = torch.full_like(video, torch.nan)
    for clip, gaze in enumerate(chosen):
        for frame, (left, top, right, bottom) in zip(gaze.frame, gaze.boxes_px, strict=True):
            blind[clip, frame, :, top:bottom, left:right] = video[clip, frame, :, top:bottom, left:right]
    assert blind.isnan().any()
    encoder = sparsify(shared(name), attention="bidirectional")
    assert torch.equal(encoder(blind, chosen).features, encoder(video, chosen).features)


@torch.no_grad()
def test_scales_nobody_looks_at_are_not_looked_at() -> None:
    gaze = Gaze(index=np.array([0, 3, 1]), count=np.array([1, 0, 2]), layout=LAYOUT)
    video = samples.video(clips=1, frames=3)
    video[0, 1] = torch.nan
    assert not sparsify(shared("ViTModel"))(video, gaze).features.isnan().any()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@torch.no_grad()
def test_a_pass_makes_no_matrix_of_tokens_against_tokens(kind: dict[str, str]) -> None:
    gaze = Gaze.from_mask(np.ones((10, GRID.num_patches), bool), LAYOUT)
    with Largest() as largest:
        out = sparsify(shared("ViTModel"), **kind)(samples.video(clips=1, frames=10), gaze)
    assert len(out.features) == 300 and largest.most < 300 * 300 * 4


# Gradients


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", ["Siglip2VisionModel", "Dinov2WithRegistersModel", "VJEPA2Model"])
def test_gradients_are_those_of_the_definition(name: str, kind: dict[str, str]) -> None:
    model, gaze = shared(name), gazes(1)[0]
    video = samples.video(clips=1, frames=T).requires_grad_()
    out = sparsify(model, **kind)(video, gaze).features
    expected = define(model, video[0], gaze, **kind).features
    towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)) / out.numel()
    weights = [*model.parameters(), video]
    own = torch.autograd.grad((out * towards).sum(), weights, allow_unused=True)
    theirs = torch.autograd.grad((expected * towards).sum(), weights, allow_unused=True)
    assert own[-1] is not None and own[-1].any()
    assert sum(part is not None for part in own) > len(weights) / 3
    for one, other in zip(own, theirs, strict=True):
        close(*(torch.zeros(()) if part is None or not part.any() else part for part in (one, other)))


# What is empty


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", samples.FAMILIES)
@torch.no_grad()
def test_no_gazes_at_all_give_no_features(name: str, kind: dict[str, str]) -> None:
    nothing, video = Gaze(index=np.arange(0), count=np.zeros(4, int), layout=LAYOUT), samples.video(frames=4)
    encoder = sparsify(shared(name), **kind)
    out, one = encoder(video, [nothing] * 2, hidden_states=True), encoder(video, gazes_of_four())
    C = shared(name).config.hidden_size
    assert out.features.shape == (0, C) and out.features.dtype == torch.float32
    layers = len(encoder.tower.layers)
    assert out.hidden_states is not None and [tuple(one.shape) for one in out.hidden_states] == [(0, C)] * (layers + 1)
    assert out.padded()[0].shape == (2, 0, C) and out.clip(1).shape == (0, C)
    assert (out.pooled is None) == (one.pooled is None)
    if out.pooled is not None and one.pooled is not None:
        assert out.pooled.shape == one.pooled.shape and out.pooled.isnan().all()


def gazes_of_four() -> list[Gaze]:
    return [gaze[:4] for gaze in gazes()]
