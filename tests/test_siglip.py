"""The published call of sparse SigLIP: published results, and what gazes and padding may change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

import siglip_samples as samples
import sparse_samples
from autogaze.vision_encoders import sparsify
from autogaze.vision_encoders.siglip import SiglipVisionModel
from autogaze.vision_encoders.towers.siglip import SiglipTower

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.mark.parametrize("implementation", samples.IMPLEMENTATIONS)
@pytest.mark.parametrize("name", samples.CASES)
def test_published_results(name: str, implementation: str) -> None:
    options = {key: value for key, value in samples.CASES[name].items() if key != "note"}
    model = SiglipVisionModel.from_pretrained(
        samples.GOLDEN, attn_implementation=implementation, dtype=torch.float32, **options
    )
    want = load_file(samples.GOLDEN / f"{name}.safetensors")
    video = want["frames"].movedim(-1, -3) / 127.5 - 1
    out = samples.run(model, video, want, output_hidden_states=True)
    kept = ~want["if_padded_gazing"]
    assert not kept.all()
    torch.testing.assert_close(out.last_hidden_state[kept], want["last_hidden_state"][kept], atol=1e-5, rtol=0)
    torch.testing.assert_close(out.hidden_states[-2][kept], want["penultimate_hidden_state"][kept], atol=1e-5, rtol=0)


@pytest.mark.parametrize("frame_independent", [False, True])
@pytest.mark.parametrize("attn_type", ["block_causal", "causal", "bidirectional"])
@pytest.mark.parametrize("implementation", ["sdpa", "flex_attention"])
def test_dense_layers_under_a_mask(implementation: str, attn_type: str, frame_independent: bool) -> None:
    model = samples.model(
        attn_type=attn_type, frame_independent_encoding=frame_independent, attn_implementation=implementation
    )
    video, info = sparse_samples.video(), samples.info(model)
    out = samples.run(model, video, info, output_hidden_states=True)
    model.set_attn_implementation("sdpa")  # the dense layers are called with a mask as a tensor
    features, states = samples.dense(model, video, info)
    kept = ~info["if_padded_gazing"]
    torch.testing.assert_close(out.last_hidden_state[kept], features[kept], **CLOSE)
    assert len(out.hidden_states) == len(states) == 4
    for got, want in zip(out.hidden_states, states, strict=True):
        torch.testing.assert_close(got[kept], want[kept], **CLOSE)
        assert not got[~kept].any()
    assert not out.last_hidden_state[~kept].any()


@pytest.mark.parametrize("side_px", [32, 48])
def test_keeping_everything_is_the_model_of_transformers(side_px: int) -> None:
    model = samples.model(scales=side_px, frame_independent_encoding=True)
    stock = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**samples.config().to_dict())).eval()
    prefix = "vision_model." if "vision_model.post_layernorm.bias" in stock.state_dict() else ""
    stock.load_state_dict({prefix + name: weight for name, weight in model.vision_model.state_dict().items()})
    video = sparse_samples.video(side_px=side_px)
    with torch.no_grad():
        want = stock(video.flatten(0, 1), interpolate_pos_encoding=True)
    got = samples.run(model, video, None)
    torch.testing.assert_close(
        got.last_hidden_state.view(want.last_hidden_state.shape), want.last_hidden_state, **CLOSE
    )
    one = samples.run(model, video.flatten(0, 1)[:, None], None, interpolate_pos_encoding=side_px != 32)
    torch.testing.assert_close(one.pooler_output, want.pooler_output, **CLOSE)


def test_frames_of_any_size_are_resized_to_every_scale() -> None:
    model, video = samples.model(), torch.randn(1, 2, 3, 40, 56)
    resized = [torch.nn.functional.interpolate(video[0], (side, side), mode="bicubic")[None] for side in (16, 32)]
    want = torch.cat(
        [
            samples.run(_with_scales(model, side), frames, None, output_hidden_states=True)
            .hidden_states[0]
            .unflatten(1, (2, -1))
            for side, frames in zip((16, 32), resized, strict=True)
        ],
        dim=2,
    )
    got = samples.run(_with_scales(model, "16+32"), video, None, output_hidden_states=True).hidden_states[0]
    torch.testing.assert_close(got, want.flatten(1, 2), **CLOSE)


def _with_scales(model: Any, scales: Any) -> Any:
    model.config.scales = scales
    return model


def test_padding_changes_nothing_wherever_and_however_much_it_is() -> None:
    model, video = samples.model(), sparse_samples.video()
    info = samples.info(model)
    kept = ~info["if_padded_gazing"]
    want = samples.run(model, video, info, output_hidden_states=True)
    rng = torch.Generator().manual_seed(5)
    slots, order = [], []  # every frame gets three more padded slots, then slots change places, kept ones in order
    for index in torch.arange(kept.shape[1]).split(info["num_gazing_each_frame"].tolist()):
        place = torch.randperm(len(index) + 3, generator=rng).argsort()[: len(index)].sort().values
        order.append(sum(len(part) for part in slots) + place)
        slots.append(torch.zeros(len(index) + 3))
    new, length = torch.cat(order), sum(len(part) for part in slots)
    more = {
        "gazing_pos": torch.randint(-99, 999, (2, length), generator=rng).index_copy(1, new, info["gazing_pos"]),
        "if_padded_gazing": torch.ones(2, length, dtype=torch.bool).index_copy(1, new, info["if_padded_gazing"]),
        "num_gazing_each_frame": info["num_gazing_each_frame"] + 3,
    }
    got = samples.run(model, video, more, output_hidden_states=True)
    torch.testing.assert_close(got.last_hidden_state[:, new][kept], want.last_hidden_state[kept], **CLOSE)
    torch.testing.assert_close(got.hidden_states[-2][:, new][kept], want.hidden_states[-2][kept], **CLOSE)
    torch.testing.assert_close(got.pooler_output, want.pooler_output, **CLOSE)
    assert not got.last_hidden_state[more["if_padded_gazing"]].any()


@pytest.mark.parametrize("attn_type", ["block_causal", "bidirectional", "causal"])
def test_the_order_of_gazes_inside_a_frame(attn_type: str) -> None:
    model, video = samples.model(attn_type=attn_type), sparse_samples.video()
    info = samples.info(model)
    new = torch.cat(
        [
            part.flip(0)
            for part in torch.arange(info["gazing_pos"].shape[1]).split(info["num_gazing_each_frame"].tolist())
        ]
    )
    turned = {
        "gazing_pos": info["gazing_pos"][:, new],
        "if_padded_gazing": info["if_padded_gazing"][:, new],
        "num_gazing_each_frame": info["num_gazing_each_frame"],
    }
    want, got = samples.run(model, video, info), samples.run(model, video, turned)
    same = torch.allclose(got.last_hidden_state, want.last_hidden_state[:, new], atol=1e-5)
    assert same is (attn_type != "causal")


def test_a_clip_is_alone_in_its_batch() -> None:
    model, video = samples.model(), sparse_samples.video()
    info = samples.info(model)
    both = samples.run(model, video, info)
    for clip in range(2):
        one = {key: value if value.ndim == 1 else value[clip : clip + 1] for key, value in info.items()}
        alone = samples.run(model, video[clip : clip + 1], one)
        torch.testing.assert_close(alone.last_hidden_state, both.last_hidden_state[clip : clip + 1], **CLOSE)
        torch.testing.assert_close(alone.pooler_output, both.pooler_output[clip : clip + 1], **CLOSE)


def test_the_head_sees_the_kept_patches_of_a_clip() -> None:
    for independent in (False, True):
        model, video = samples.model(frame_independent_encoding=independent), sparse_samples.video()
        info = samples.info(model)
        out = samples.run(model, video, info)
        for clip in range(2):
            kept = out.last_hidden_state[clip][~info["if_padded_gazing"][clip]]
            torch.testing.assert_close(out.pooler_output[clip], model.vision_model.head(kept[None])[0], **CLOSE)
    assert samples.run(samples.model(vision_use_head=False), video, info).pooler_output is None


def test_a_clip_without_gazes() -> None:
    model, video = samples.model(), sparse_samples.video()
    info = samples.info(model)
    info["if_padded_gazing"][1] = True
    out = samples.run(model, video, info)
    assert not out.last_hidden_state[1].any() and out.pooler_output[1].isnan().all()
    assert out.pooler_output[0].isfinite().all()
    nothing = {
        "gazing_pos": torch.zeros(2, 0, dtype=torch.int64),
        "if_padded_gazing": torch.zeros(2, 0, dtype=torch.bool),
        "num_gazing_each_frame": torch.zeros(4, dtype=torch.int64),
    }
    out = samples.run(model, video, nothing, output_hidden_states=True)
    assert out.last_hidden_state.shape == (2, 0, 32) and out.pooler_output.isnan().all()


@pytest.mark.parametrize("most", [1, 2, 100])
@pytest.mark.parametrize("options", [{}, {"attn_type": "causal", "frame_independent_encoding": True}])
def test_embedding_few_clips_at_once_changes_nothing(most: int, options: dict[str, Any]) -> None:
    model, video = samples.model(**options), sparse_samples.video(clips=3)
    info = samples.info(model, clips=3)
    want = samples.run(model, video, info).last_hidden_state
    model.config.max_embed_batch_size = most
    torch.testing.assert_close(samples.run(model, video, info).last_hidden_state, want, **CLOSE)


def test_no_more_clips_are_embedded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, video = samples.model(max_embed_batch_size=2), sparse_samples.video(clips=5)
    seen: list[int] = []
    embed = SiglipTower.embed

    def counted(tower: SiglipTower, pixels: Tensor) -> Tensor:
        seen.append(len(pixels))
        return embed(tower, pixels)

    monkeypatch.setattr(SiglipTower, "embed", counted)
    samples.run(model, video, None)
    assert seen == [2 * 4 * 20, 2 * 4 * 20, 4 * 20]


def test_gradients_and_checkpointing() -> None:
    model, video = samples.model().train(), sparse_samples.video()
    info = samples.info(model)
    found: list[dict[str, Tensor]] = []
    calls: list[nn.Module] = []
    model.vision_model.encoder.layers[0].mlp.fc1.register_forward_hook(lambda module, *_: calls.append(module))
    for step in ("plain", "checkpointing"):
        if step == "checkpointing":
            model.gradient_checkpointing_enable()
        model.zero_grad()
        out = model(video, gazing_info=info, output_hidden_states=True)
        (out.pooler_output.square().sum() + out.hidden_states[-2].sum()).backward()
        found.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
    assert len(calls) == 1 + 2  # once, and then once more in the backward pass
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0 or "k_proj.bias" in name or "in_proj" in name, name
        torch.testing.assert_close(found[1][name], gradient, **CLOSE)


def test_flex_attention_can_be_trained_on_a_cpu() -> None:
    model, video = samples.model(attn_implementation="flex_attention"), sparse_samples.video()
    model(video).last_hidden_state.sum().backward()
    assert model.vision_model.embeddings.patch_embedding.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(dtype: torch.dtype) -> None:
    model, video = samples.model(), sparse_samples.video()
    info = samples.info(model)
    want = samples.run(model, video, info).last_hidden_state
    for frames in (video, video.to(dtype)):  # frames may be of another precision than the weights
        got = samples.run(model.to(dtype), frames, info, output_hidden_states=True)
        assert got.last_hidden_state.dtype == got.hidden_states[0].dtype == got.pooler_output.dtype == dtype
        error = (got.last_hidden_state.float() - want).norm() / want.norm()
        assert error < 0.05


def test_mixed_precision_is_close() -> None:
    model, video = samples.model(), sparse_samples.video()
    want = samples.run(model, video, samples.info(model)).last_hidden_state
    with torch.autocast("cpu", torch.bfloat16):
        got = samples.run(model, video, samples.info(model)).last_hidden_state
    assert (got.float() - want).norm() / want.norm() < 0.05


def test_what_is_asked_for_is_returned() -> None:
    model, video = samples.model(), sparse_samples.video()
    out = samples.run(model, video, None)
    assert isinstance(out, transformers.modeling_outputs.BaseModelOutputWithPooling)
    assert out.hidden_states is None and out.attentions is None
    plain = samples.run(model, video, None, return_dict=False)
    assert isinstance(plain, tuple) and len(plain) == 2 and torch.equal(plain[0], out.last_hidden_state)
    model.config.output_hidden_states = True
    assert len(samples.run(model, video, None).hidden_states) == 4
    assert samples.run(model, video, None, output_hidden_states=False).hidden_states is None


def test_it_can_be_made_sparse_like_the_model_of_transformers() -> None:
    model, video = samples.model(frame_independent_encoding=True, scales=32), sparse_samples.video()
    grid = samples.Sparsity.of(model.config).grid
    gaze = sparse_samples.everything(grid, frames=4)
    with torch.no_grad():
        out = sparsify(model)(video, [gaze, gaze])
    torch.testing.assert_close(out.features, samples.run(model, video, None).last_hidden_state.flatten(0, 1), **CLOSE)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another grid": ({"gazing_pos": torch.tensor([[79, 80]] * 2), "n": [2, 0, 0, 0]}, "position 79 of clip 0"),
    "negative": ({"gazing_pos": torch.tensor([[0, -1]] * 2), "n": [2, 0, 0, 0]}, "position -1"),
    "counted inside frames": ({"gazing_pos": torch.tensor([[3, 3]] * 2), "n": [1, 1, 0, 0]}, "frame · 20 \\+ patch"),
    "wrong counts": ({"gazing_pos": torch.tensor([[3, 4]] * 2), "n": [1, 0, 0, 0]}, "must sum to the 2 slots"),
    "wrong dtype": ({"gazing_pos": torch.zeros(2, 2), "n": [2, 0, 0, 0]}, "must be \\(B, N\\) int64"),
    "other clips": ({"gazing_pos": torch.tensor([[3, 4]]), "n": [2, 0, 0, 0]}, "is of 1 clips of 4 frames"),
    "other frames": ({"gazing_pos": torch.tensor([[3, 4]] * 2), "n": [2, 0]}, "is of 2 clips of 2 frames"),
}


@pytest.mark.parametrize("name", WRONG)
def test_gazes_that_do_not_fit(name: str) -> None:
    gaze, message = WRONG[name]
    info = {
        "gazing_pos": gaze["gazing_pos"],
        "if_padded_gazing": torch.zeros(gaze["gazing_pos"].shape, dtype=torch.bool),
        "num_gazing_each_frame": torch.tensor(gaze["n"]),
    }
    for options in ({}, {"attn_type": "causal", "frame_independent_encoding": True}):
        with pytest.raises(ValueError, match=message):
            samples.model(**options)(sparse_samples.video(), gazing_info=info)


def test_calls_that_are_wrong() -> None:
    model, video = samples.model(), sparse_samples.video()
    info = samples.info(model)
    with pytest.raises(KeyError, match="gazing_info lacks if_padded_gazing; it has gazing_pos, num_gazing_each_frame"):
        model(video, gazing_info={key: value for key, value in info.items() if key != "if_padded_gazing"})
    with pytest.raises(ValueError, match="if_padded_gazing must be"):
        model(video, gazing_info=info | {"if_padded_gazing": info["if_padded_gazing"].long()})
    with pytest.raises(ValueError, match=r"num_gazing_each_frame must be \(T,\) int64"):
        model(video, gazing_info=info | {"num_gazing_each_frame": info["num_gazing_each_frame"].expand(4, -1)})
    with pytest.raises(ValueError, match=r"pixel_values must be \(B, T, C, H, W\).*pixel_values\[:, None\]"):
        model(video[:, 0])
    with pytest.raises(ValueError, match="floating point frames"):
        model(video.to(torch.uint8))
    with pytest.raises(ValueError, match="attention weights are not kept"):
        model(video, output_attentions=True)
    with pytest.raises(ValueError, match="needs scales of 16 patches each, got one of 4"):
        model(video, interpolate_pos_encoding=False)
