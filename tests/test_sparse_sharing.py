"""The model stays as it is, and what happens to it happens to the encoder."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparse_samples as samples
from autogaze.vision_encoders import sparsify
from sparse_definition import define
from sparse_samples import T, close, gazes


@pytest.mark.parametrize("name", samples.FAMILIES)
@torch.no_grad()
def test_the_model_is_unchanged_before_during_and_after(name: str) -> None:
    model, video, chosen = samples.make(name), samples.video(frames=4), [gaze[:4] for gaze in gazes()]
    encoder = sparsify(model)
    weights, config = copy.deepcopy(model.state_dict()), copy.deepcopy(model.config.to_dict())
    chosen_attention, before = model.config._attn_implementation, samples.dense(model, video)
    attributes = {path: sorted(vars(module)) for path, module in model.named_modules()}
    first = encoder(video, chosen)
    during = []

    def dense_within(*_: Any) -> None:
        if not during:
            during.append(None)  # the dense model runs through this hook too
            during[0] = samples.dense(model, video)

    hook = encoder.tower.layers[1].register_forward_hook(dense_within)
    second = encoder(video, chosen)
    hook.remove()
    with ThreadPoolExecutor(2) as threads:
        sparse = [threads.submit(encoder, video, chosen) for _ in range(4)]
        alongside = [samples.dense(model, video) for _ in range(4)]
    assert all(torch.equal(first.features, one.features) for one in (second, *(one.result() for one in sparse)))
    for other in (*during, *alongside, samples.dense(model, video)):
        assert other is not None and torch.equal(before.features, other.features)
    after = model.state_dict()
    assert all(torch.equal(weights[key], after[key]) for key in weights) and len(weights) == len(after)
    assert model.config.to_dict() == config and model.config._attn_implementation == chosen_attention
    assert {path: sorted(vars(module)) for path, module in model.named_modules()} == attributes


def test_training_the_model_trains_the_encoder() -> None:
    model, video, chosen = samples.make("SiglipVisionModel"), samples.video(frames=T), gazes()
    encoder = sparsify(model, attention="causal")
    with torch.no_grad():
        old = encoder(video, chosen).features
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    define(model, video[0], chosen[0], attention="causal").features.square().mean().backward()
    optimiser.step()
    with torch.no_grad():
        new = encoder(video, chosen).clip(0)
        assert not torch.allclose(new, old[: len(new)], atol=1e-3)
        close(new, define(model, video[0], chosen[0], attention="causal").features)


@torch.no_grad()
def test_precision_follows_the_model() -> None:
    model, video, chosen = samples.make("DINOv3ViTModel"), samples.video(frames=T), gazes()
    encoder = sparsify(model)
    single = encoder(video, chosen).features
    model.to(torch.bfloat16)
    half = encoder(video, chosen)
    assert half.features.dtype == torch.bfloat16
    torch.testing.assert_close(half.features.float(), single, atol=0.2, rtol=0.1)
    model.to(torch.float64)
    exact = encoder(video.double(), chosen).features
    assert exact.dtype == torch.float64


@torch.no_grad()
def test_training_mode_follows_the_model() -> None:
    model = samples.make("ViTModel", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    encoder, video, chosen = sparsify(model), samples.video(frames=T), gazes()
    still = encoder(video, chosen).features
    assert torch.equal(still, encoder(video, chosen).features)
    model.train()
    assert not torch.allclose(encoder(video, chosen).features, encoder(video, chosen).features, atol=1e-2)
    encoder.eval()
    assert not model.training and torch.equal(still, encoder(video, chosen).features)


@torch.no_grad()
def test_positions_do_not_move_in_training() -> None:
    model = samples.make("DINOv3ViTModel", pos_embed_rescale=4.0, pos_embed_jitter=2.0, pos_embed_shift=0.5)
    encoder, video, chosen = sparsify(model), samples.video(frames=T), gazes()
    still = encoder(video, chosen).features
    model.train()
    assert torch.equal(still, encoder(video, chosen).features) and model.rope_embeddings.training


def test_gradient_checkpointing_follows_the_model() -> None:
    model, video, chosen = samples.make("ViTModel"), samples.video(frames=T), gazes()
    encoder, runs = sparsify(model, attention="block_causal").train(), []
    encoder.tower.layers[0].attention.register_forward_pre_hook(lambda *_: runs.append(None))

    def gradients() -> list[Tensor]:
        runs.clear()
        loss = encoder(video, chosen).features.square().sum()
        return list(torch.autograd.grad(loss, list(encoder.tower.layers.parameters())))

    plain, once = gradients(), len(runs)
    enable = "activation_checkpointing_enable"  # of late the name of the other
    getattr(model, enable if hasattr(model, enable) else "gradient_checkpointing_enable")()
    again, twice = gradients(), len(runs)
    assert (once, twice) == (1, 2)
    for own, theirs in zip(again, plain, strict=True):
        close(own, theirs, 1e-4)


class Adapter(nn.Module):
    """A linear layer with a small one beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.down = base, nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


@torch.no_grad()
def test_replaced_layers_and_hooks_follow_the_model() -> None:
    model, video, chosen = samples.make("CLIPVisionModel"), samples.video(frames=T), gazes(1)
    encoder = sparsify(model)
    plain = encoder(video[:1], chosen).features
    attention = encoder.tower.layers[1].self_attn
    attention.v_proj = samples.random_weights(Adapter(attention.v_proj), seed=5)
    adapted = encoder(video[:1], chosen).features
    assert not torch.allclose(adapted, plain, atol=1e-2)
    close(adapted, define(model, video[0], chosen[0], attention="frame").features)
    encoder.tower.layers[0].register_forward_hook(lambda _module, _inputs, out: 0.5 * out)
    hooked = encoder(video[:1], chosen).features
    assert not torch.allclose(hooked, adapted, atol=1e-2)
    close(hooked, define(model, video[0], chosen[0], attention="frame").features)


def test_a_copy_has_weights_of_its_own() -> None:
    encoder, video, chosen = sparsify(samples.make("ViTModel")), samples.video(frames=T), gazes()
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        before = encoder(video, chosen).features
        for weight in other.parameters():
            weight.zero_()
        assert torch.equal(encoder(video, chosen).features, before)
        assert not torch.equal(other(video, chosen).features, before)
        other.load_state_dict(encoder.state_dict())
        assert torch.equal(other(video, chosen).features, before)
