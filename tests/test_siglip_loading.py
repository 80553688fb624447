"""Configurations and weights of sparse SigLIP: saved, loaded, taken from transformers, part of another model."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import siglip_samples as samples
import small_vision
import sparse_samples
from autogaze.vision_encoders.siglip import SiglipConfig, SiglipPreTrainedModel, SiglipVisionConfig, SiglipVisionModel
from autogaze.vision_encoders.siglip.configuration_siglip import Sparsity

CHOICES = {"attn_type": "causal", "frame_independent_encoding": True, "max_embed_batch_size": 7}


def same(one: Any, other: Any) -> None:
    """Whether two models are of the same weights and results."""
    video = sparse_samples.video()
    torch.testing.assert_close(one.state_dict(), other.state_dict(), atol=0, rtol=0)
    info = samples.info(one)
    first, second = (samples.run(model.eval(), video, info).last_hidden_state for model in (one, other))
    assert torch.equal(first, second)


# Configurations


def test_the_published_names_and_defaults() -> None:
    config = SiglipVisionConfig()
    assert isinstance(config, transformers.SiglipVisionConfig) and config.model_type == "siglip_vision_model"
    assert (config.scales, config.attn_type) == ("224", "block_causal")
    assert config.frame_independent_encoding is False and config.max_embed_batch_size is None
    assert issubclass(SiglipVisionModel, SiglipPreTrainedModel) and SiglipVisionModel.config_class is SiglipVisionConfig


@pytest.mark.parametrize("scales", ["16+32", "32+16", [16, 32], (16, 32)])
def test_scales_however_they_are_written(scales: Any) -> None:
    config = samples.config(scales=scales)
    assert config.scales == "16+32" and Sparsity.of(config).grid.scales_px == (16, 32)
    assert samples.config(scales=32).scales == samples.config(scales="32").scales == "32"


def test_a_configuration_goes_through_files_and_dictionaries(tmp_path: Path) -> None:
    config = samples.config(**CHOICES, vision_use_head=False, mine=3)
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["scales"] == "16+32" and written["model_type"] == "siglip_vision_model"
    for again in (
        SiglipVisionConfig.from_pretrained(tmp_path),
        SiglipVisionConfig.from_dict(config.to_dict()),
        SiglipVisionConfig(**config.to_dict()),
        pickle.loads(pickle.dumps(config)),
        copy.deepcopy(config),
    ):
        assert again.to_dict() | {"transformers_version": None} == config.to_dict() | {"transformers_version": None}
        assert (again.vision_use_head, again.mine) == (False, 3)
    changed = SiglipVisionConfig.from_pretrained(tmp_path, scales="8+16", attn_type="bidirectional")
    assert (changed.scales, changed.attn_type, changed.max_embed_batch_size) == ("8+16", "bidirectional", 7)


def test_the_configuration_of_both_towers(tmp_path: Path) -> None:
    config = SiglipConfig(
        vision_config=samples.SIZES | {"scales": "112+224", **CHOICES}, text_config={"num_hidden_layers": 2}
    )
    config.save_pretrained(tmp_path)
    for one in (config, SiglipConfig.from_pretrained(tmp_path), SiglipConfig(vision_config=config.vision_config)):
        assert type(one.vision_config) is SiglipVisionConfig and one.vision_config.scales == "112+224"
        assert one.vision_config.attn_type == "causal" and one.vision_config.hidden_size == 32
    assert SiglipConfig.from_pretrained(tmp_path).text_config.num_hidden_layers == 2
    assert SiglipVisionConfig.from_pretrained(tmp_path).scales == "112+224"
    assert SiglipConfig(vision_config=transformers.SiglipVisionConfig(hidden_size=96)).vision_config.hidden_size == 96
    assert SiglipConfig().vision_config.scales == "224"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": "16x32"}, "scales must be sides in pixels like \"32\\+64\\+112\\+224\", got '16x32'"),
        ({"scales": "4+32"}, "scale 4 px is smaller than one patch of 8 px"),
        ({"scales": "32+32"}, "strictly increasing"),
        ({"attn_type": "full"}, "attn_type must be one of block_causal, causal, bidirectional, got 'full'"),
        ({"max_embed_batch_size": 0}, "max_embed_batch_size must be at least 1 or None, got 0"),
    ],
)
def test_configurations_that_are_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samples.config(**options)
    config = samples.config()
    for name, value in options.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=message):
        SiglipVisionModel(config)


# Weights


@pytest.mark.parametrize("options", [{}, {"vision_use_head": False, **CHOICES}])
def test_a_model_goes_through_files(tmp_path: Path, options: dict[str, Any]) -> None:
    model = samples.model(**options)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert set(weights) == set(model.state_dict()) and all(name.startswith("vision_model.") for name in weights)
    assert any(".head." in name for name in weights) is ("vision_use_head" not in options)
    again = SiglipVisionModel.from_pretrained(tmp_path)
    assert again.config.attn_type == model.config.attn_type
    same(model, again)
    same(model, copy.deepcopy(model))
    half = SiglipVisionModel.from_pretrained(tmp_path, dtype=torch.bfloat16, scales="8+16")
    assert half.dtype == torch.bfloat16 and half.config.scales == "8+16"
    assert half(sparse_samples.video()).last_hidden_state.shape == (2, 4 * 5, 32)


def test_weights_have_the_names_of_published_files() -> None:
    model = SiglipVisionModel(SiglipVisionConfig.from_pretrained(samples.GOLDEN, scales="32+64"))
    published = load_file(samples.GOLDEN / "model.safetensors")
    model.load_state_dict(published, strict=True)


@pytest.mark.parametrize("save", [small_vision.save_siglip, small_vision.save_whole_siglip])
def test_checkpoints_of_transformers(tmp_path: Path, save: Any) -> None:
    save(tmp_path)
    model, told = SiglipVisionModel.from_pretrained(tmp_path, scales="32", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    stock = transformers.SiglipVisionModel.from_pretrained(tmp_path)
    images = sparse_samples.video(clips=1)[0]
    with torch.no_grad():
        want = stock(images)
    got = samples.run(model, images[:, None], None)
    torch.testing.assert_close(got.last_hidden_state, want.last_hidden_state, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got.pooler_output, want.pooler_output, atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path / "ours")  # and back
    back = transformers.SiglipVisionModel.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(back.state_dict(), stock.state_dict(), atol=0, rtol=0)


def test_names_without_a_prefix_are_read(tmp_path: Path) -> None:
    model = samples.model()
    model.config.save_pretrained(tmp_path)
    save_file(
        {name: weight.clone() for name, weight in model.vision_model.state_dict().items()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    same(model, SiglipVisionModel.from_pretrained(tmp_path))


def test_a_head_that_is_not_wanted_is_left_out(tmp_path: Path) -> None:
    samples.model().save_pretrained(tmp_path)
    model, told = SiglipVisionModel.from_pretrained(tmp_path, vision_use_head=False, output_loading_info=True)
    assert not told["unexpected_keys"] and model(sparse_samples.video()).pooler_output is None


def test_the_configuration_of_transformers_will_do() -> None:
    stock = transformers.SiglipVisionConfig(**samples.SIZES, image_size=32, patch_size=8)
    assert SiglipVisionModel(stock)(sparse_samples.video()).last_hidden_state.shape == (2, 4 * 16, 32)
    stock.scales, stock.attn_type, stock.frame_independent_encoding = "16+32", "causal", True
    same(
        samples.model(attn_type="causal", frame_independent_encoding=True),
        sparse_samples.random_weights(SiglipVisionModel(stock)),
    )


# In another model


class OuterConfig(transformers.PreTrainedConfig):
    model_type = "outer"
    sub_configs = {"vision_config": SiglipVisionConfig}  # noqa: RUF012

    def __init__(self, vision_config: Any = None, **options: Any) -> None:
        if not isinstance(vision_config, SiglipVisionConfig):
            vision_config = SiglipVisionConfig(**(vision_config or {}))
        self.vision_config = vision_config
        super().__init__(**options)


class Outer(transformers.PreTrainedModel):
    config_class = OuterConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(self, config: OuterConfig) -> None:
        super().__init__(config)
        self.vision_tower = SiglipVisionModel(config.vision_config)
        self.mm_projector = nn.Linear(config.vision_config.hidden_size, 5)
        self.post_init()

    def forward(self, video: Tensor, gazing_info: Any) -> Tensor:
        states = self.vision_tower(video, gazing_info=gazing_info, output_hidden_states=True).hidden_states
        features: Tensor = self.mm_projector(states[-2])
        return features


def test_a_tower_in_another_model(tmp_path: Path) -> None:
    outer, video = Outer(OuterConfig(vision_config=samples.config())).eval(), sparse_samples.video()
    info = samples.info(outer.vision_tower)
    with torch.no_grad():
        want = outer(video, info)
    outer.save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "vision_tower.vision_model.encoder.layers.2.mlp.fc1.weight" in names and names == set(outer.state_dict())
    again, told = Outer.from_pretrained(tmp_path, attn_implementation="eager", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert again.vision_tower.config._attn_implementation == "eager"
    with torch.no_grad():
        torch.testing.assert_close(again(video, info), want)
    again.train().gradient_checkpointing_enable()
    again(video, info).sum().backward()
    assert again.vision_tower.vision_model.encoder.layers[0].mlp.fc1.weight.grad.any()
    assert Outer.from_pretrained(tmp_path, dtype=torch.bfloat16)(video, info).dtype == torch.bfloat16
    assert "SiglipVisionTransformer" in outer.vision_tower._no_split_modules


# Names of attention


@pytest.mark.parametrize("name", [*samples.IMPLEMENTATIONS, "flash_attention_3"])
def test_every_name_of_an_attention_can_be_asked_for(tmp_path: Path, name: str) -> None:
    samples.model().save_pretrained(tmp_path)
    model = SiglipVisionModel.from_pretrained(tmp_path, attn_implementation=name)
    assert model.config._attn_implementation == name
    model = samples.model()
    model.set_attn_implementation(name)
    assert model.config._attn_implementation == name
    outer = Outer(OuterConfig(vision_config=samples.config()))
    outer.vision_tower.set_attn_implementation(name)
    assert outer.vision_tower.config._attn_implementation == name


def test_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match="must be eager, sdpa, flex_attention or flash_attention_2, got 'fast'"):
        samples.model(attn_implementation="fast")


def test_without_transformers_the_extra_is_named() -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name == "transformers":
            raise ModuleNotFoundError("no transformers", name=name)
sys.meta_path.insert(0, Absent())
import autogaze.vision_encoders.siglip
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'autogaze[hf]'" in done.stderr


def test_what_computes_attention() -> None:
    for name, backend in {"eager": "sdpa", "sdpa": None, "flash_attention_2": None, "flex_attention": None}.items():
        assert samples.model(attn_implementation=name)._backend() == backend
    with torch.no_grad():
        model = samples.model(attn_implementation="flex_attention", attention_dropout=0.5)
        assert model._backend() == "flex"
        model.train()
        assert model._backend() == "sdpa"
        video = sparse_samples.video()
        assert not torch.equal(model(video).last_hidden_state, model(video).last_hidden_state)
