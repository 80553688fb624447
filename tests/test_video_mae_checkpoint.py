"""Checkpoints of the masked autoencoder: ours, the published pickle, image autoencoders, and damaged ones."""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from autogaze.errors import CheckpointError
from autogaze.models.autogaze.checkpoint import HubOptions
from autogaze.tasks.video_mae_reconstruction.checkpoint_video_mae import deduced_config, read_checkpoint
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VideoMAEConfig, base, large
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE
from video_mae_samples import GRID, clips, gaze_of, random_cells, small_config, small_model

SMALL = Path(__file__).parent / "data" / "videomae_small"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_model().save_pretrained(tmp_path / "mae")
    return tmp_path / "mae"


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors")


def assert_same(one: VideoMAE, other: VideoMAE) -> None:
    wanted = other.state_dict()
    assert one.state_dict().keys() == wanted.keys()
    assert all(torch.equal(weight, wanted[name]) for name, weight in one.state_dict().items())


# Ours


def test_what_is_saved_is_loaded(folder: Path) -> None:
    model = small_model()
    for source in (folder, str(folder), folder / "model.safetensors"):
        loaded = VideoMAE.from_pretrained(source)
        assert loaded.config == model.config
        assert_same(loaded, model)
        assert not loaded.training
        trained = {name for name, weight in loaded.named_parameters() if weight.requires_grad}
        assert trained == {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_a_published_configuration_keeps_its_words(tmp_path: Path) -> None:
    VideoMAE.from_pretrained(SMALL).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored.items() >= json.loads((SMALL / "config.json").read_text()).items()
    assert_same(VideoMAE.from_pretrained(tmp_path), VideoMAE.from_pretrained(SMALL))


@pytest.mark.parametrize("prefix", ["mae.", "module.", "module.mae."])
def test_names_may_carry_the_prefixes_of_wrappers(folder: Path, prefix: str) -> None:
    rewrite(folder, lambda weights: {prefix + name: weight for name, weight in weights.items()})
    assert_same(VideoMAE.from_pretrained(folder), small_model())


def rewrite_config(folder: Path, changes: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "vit_mae", "architectures": ["ViTMAEForPreTraining"], "transformers_version": "4.51.3"},
        {"hidden_act": "gelu", "qkv_bias": True, "num_channels": 3, "norm_pix_loss": True, "mask_ratio": 0.75},
        {"image_size": [32, 32], "patch_size": [16, 16], "loss_weights": 1},
        {"hidden_dropout_prob": 0.0, "torch_dtype": None, "id2label": {"0": "a"}, "initializer_range": None},
    ],
)
def test_what_else_a_configuration_says_does_no_harm(folder: Path, changes: dict[str, Any]) -> None:
    rewrite_config(folder, changes)
    model = VideoMAE.from_pretrained(folder)
    assert_same(model, small_model())
    assert model.config.scales_px == (16, 32)


def test_a_lone_scale_may_be_a_number_and_times_none(tmp_path: Path) -> None:
    model = small_model(scales="32", time_embed=False)
    model.save_pretrained(tmp_path)
    rewrite_config(tmp_path, {"scales": 32, "max_num_frames": None})
    assert_same(VideoMAE.from_pretrained(tmp_path), model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**9}, "2 layers of the encoder instead of 1000000000"),
        ({"decoder_num_hidden_layers": 10**9}, "2 layers of the decoder instead of 1000000000"),
        ({"image_size": 16 * 10**8, "scales": f"{16 * 10**8}"}, r"position_embeddings \(1, 5, 24\) instead of"),
        ({"hidden_size": 10**12}, r"position_embeddings \(1, 5, 24\) instead of"),
        ({"max_num_frames": 10**15}, r"time_embed \(20, 24\) instead of"),
        ({"scale_embed": False}, "not known: decoder.decoder_scale_embed"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a whole number above 0"),
    ],
)
def test_a_configuration_of_another_network_is_refused_before_it_is_built(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    rewrite_config(folder, changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        VideoMAE.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_sizes_are_above_zero() -> None:
    with pytest.raises(ValueError, match="num_attention_heads must be above 0, got 0"):
        small_config(num_attention_heads=0)


def test_device_dtype_and_loss_are_the_callers(folder: Path) -> None:
    model = VideoMAE.from_pretrained(folder, dtype=torch.float64, device="cpu", loss=lambda a, b: torch.ones(1, 1))
    assert {weight.dtype for weight in model.parameters()} == {torch.float64}
    with torch.no_grad():
        assert model(clips(1, 1), gaze_of([[0]])).loss_mean.tolist() == [1.0]


def test_every_wrong_name_and_shape_is_named(folder: Path) -> None:
    def change(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        weights.pop("decoder.mask_token")
        return {**weights, "head.weight": torch.zeros(1), "vit.layernorm.bias": torch.zeros(3)}

    rewrite(folder, change)
    with pytest.raises(CheckpointError) as caught:
        VideoMAE.from_pretrained(folder)
    message = str(caught.value)
    assert "1 missing: decoder.mask_token" in message
    assert "1 not known: head.weight" in message
    assert "vit.layernorm.bias (3,) instead of (24,)" in message
    assert "\n" not in message


def test_a_name_under_two_prefixes_is_refused(folder: Path) -> None:
    rewrite(folder, lambda weights: {**weights, "mae.decoder.mask_token": torch.zeros(1, 1, 16)})
    with pytest.raises(CheckpointError, match=r"names decoder\.mask_token twice"):
        VideoMAE.from_pretrained(folder)


def damage(name: str, content: bytes | None) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage("config.json", None), r"config\.json is missing"),
        (damage("config.json", b"{"), "is not JSON"),
        (damage("config.json", b"[]"), "must hold a JSON object, got list"),
        (damage("config.json", b'{"gaze_model_config": {}}'), "not the configuration of a VideoMAE"),
        (damage("model.safetensors", None), r"model\.safetensors is missing"),
        (damage("model.safetensors", b""), "no safetensors file, or damaged"),
        (damage("model.safetensors", b"x" * 100), "no safetensors file, or damaged"),
        (lambda folder: shutil.rmtree(folder), "no checkpoint at"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        VideoMAE.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_other_files_and_unreachable_ids_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "weights.npz"
    other.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"videomae\.pt.*\.safetensors or \.pt or \.bin file"):
        VideoMAE.from_pretrained(other)
    with pytest.raises(CheckpointError, match="cannot get owner/name from the hub"):
        VideoMAE.from_pretrained("owner/name", local_files_only=True, cache_dir=str(tmp_path))


# The published pickle

PUBLISHED_LIKE = VideoMAEConfig(
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=1,
    intermediate_size=16,
    decoder_hidden_size=64,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=1,
    decoder_intermediate_size=16,
    max_num_frames=3,
)


def published_like() -> VideoMAE:
    model = VideoMAE(PUBLISHED_LIKE)
    model.init_weights(torch.Generator().manual_seed(3))
    return model


def published_weights(model: VideoMAE) -> dict[str, Tensor]:
    """As a distributed trainer stored them, next to the frozen networks of the loss."""
    frozen = {f"module.mae.{name}.weight": torch.ones(2) for name in ("dinov2_reg.embeddings", "siglip2.head")}
    return {**{f"module.mae.{name}": weight for name, weight in model.state_dict().items()}, **frozen}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_the_published_pickle_says_what_network_it_is(
    tmp_path: Path, wrapper: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    model = published_like()
    content: Any = published_weights(model)
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "videomae.pt")
    checkpoint = read_checkpoint(tmp_path, hub=HubOptions())
    assert checkpoint.config == PUBLISHED_LIKE
    assert checkpoint.ignored == ("module.mae.dinov2_reg.embeddings.weight", "module.mae.siglip2.head.weight")
    with caplog.at_level(logging.INFO):
        for source in (tmp_path, tmp_path / "videomae.pt"):
            assert_same(VideoMAE.from_pretrained(source), model)
    assert "2 weights ignored" in caplog.text


@pytest.mark.parametrize("config", [large(), base(), replace(large(), scale_embed=False, scales="224")])
def test_the_shapes_of_real_sizes_tell_all_but_the_loss(config: VideoMAEConfig) -> None:
    with torch.device("meta"):
        weights = VideoMAE(config).state_dict()
    wanted = replace(config, loss_type="l1", loss_weights="1")
    assert deduced_config(weights, path=Path("x.pt")) == wanted


def test_a_configuration_beside_the_pickle_or_given_wins(tmp_path: Path) -> None:
    model = small_model()  # of a shape that says too little
    torch.save(published_weights(model), tmp_path / "videomae.pt")
    with torch.device("meta"):
        two_scales = VideoMAE(replace(PUBLISHED_LIKE, scales="112+224")).state_dict()
    with pytest.raises(CheckpointError, match=r"2 scales of frames of 224 px.*put a config\.json") as caught:
        deduced_config(two_scales, path=tmp_path)
    with pytest.raises(CheckpointError, match="24 channels are not cut into heads of 64"):
        VideoMAE.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    assert_same(VideoMAE.from_pretrained(tmp_path, config=model.config), model)
    model.config.to_json_file(tmp_path / "config.json")
    assert_same(VideoMAE.from_pretrained(tmp_path), model)


def test_safetensors_come_before_pickles(folder: Path) -> None:
    (folder / "videomae.pt").write_bytes(b"never read")
    assert_same(VideoMAE.from_pretrained(folder), small_model())


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_no_code_of_a_pickle_is_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    for write in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))):
        write({"decoder.mask_token": Malicious(trap)}, tmp_path / "videomae.pt")
        with pytest.raises(CheckpointError, match=r"holds other things than weights, which are never run") as caught:
            VideoMAE.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)
        assert not trap.exists()


def spoiled(kind: str, path: Path) -> None:
    torch.save(published_weights(published_like()), path)
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":
        path.write_bytes(content[:200] + bytes(255 - byte for byte in content[200:400]) + content[400:])
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        things: dict[str, Any] = {
            "list": [1, 2],
            "number": 3,
            "names": {"a": {"b": 1}},
            "other": {"a": torch.zeros(1)},
            "wraps itself": {},
            "many layers": {**published_weights(published_like()), "vit.encoder.layer.999999999.a": torch.zeros(1)},
            "no axes": {**published_weights(published_like()), "module.mae.vit.embeddings.scale_embed": torch.ones(())},
        }
        things["wraps itself"]["model"] = things["wraps itself"]
        torch.save(things[kind], path)


@pytest.mark.parametrize(
    "kind",
    [
        *("truncated", "flipped", "text", "empty", "list", "number", "names", "other", "wraps itself"),
        *("many layers", "no axes"),
    ],
)
def test_damaged_pickles_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    spoiled(kind, tmp_path / "videomae.pt")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))) as caught:
        VideoMAE.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


# Image autoencoders

IMAGE_SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 48,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 24,
    "mask_ratio": 0.0,
    "initializer_range": 0.3,
}
STILL = small_config(image_size=48, scales="48", causal=False, decoder_num_hidden_layers=1)


@pytest.fixture(scope="module")
def image_mae() -> Any:
    transformers = pytest.importorskip("transformers")
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**IMAGE_SIZES)).eval()
    with torch.no_grad():
        for table in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
            table.normal_(std=0.3)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(std=0.1)
    torch.set_rng_state(state)
    return model


def as_stored(model: Any, path: Path, kind: str) -> None:
    """As transformers writes it, as the hub has had it for years, and as the modules are called today."""
    model.save_pretrained(path)
    weights = load_file(path / "model.safetensors")
    if kind == "hub":
        old = "decoder.decoder_encoder.layer."
        save_file(
            {name.replace(old, "decoder.decoder_layers."): weight for name, weight in weights.items()},
            path / "model.safetensors",
        )
    elif kind == "modules":
        save_file(
            {name: weight.contiguous() for name, weight in model.state_dict().items()}, path / "model.safetensors"
        )
    elif kind == "pickle":
        (path / "model.safetensors").unlink()
        torch.save(weights, path / "pytorch_model.bin")


@pytest.mark.parametrize("kind", ["transformers", "hub", "modules", "pickle"])
def test_a_still_picture_is_rebuilt_as_by_the_image_autoencoder(image_mae: Any, tmp_path: Path, kind: str) -> None:
    as_stored(image_mae, tmp_path, kind)
    model = VideoMAE.from_pretrained(tmp_path, config=STILL)
    assert model.config.decoder_num_attention_heads == 4  # the checkpoint's, not the given configuration's
    picture = clips(2, 1, side_px=48)
    gazes = [gaze_of([range(9)], grid=model.grid)] * 2
    with torch.no_grad():
        theirs = image_mae(picture[:, 0], noise=torch.arange(9.0).expand(2, -1))
        ours = model(picture, gazes).reconstruction[:, 0]
    torch.testing.assert_close(ours, image_mae.unpatchify(theirs.logits), rtol=1e-5, atol=1e-5)


def test_scales_and_times_start_at_zero(image_mae: Any, tmp_path: Path) -> None:
    image_mae.save_pretrained(tmp_path)
    config = replace(STILL, scales="16+48", causal=True, max_num_frames=7)
    model = VideoMAE.from_pretrained(tmp_path, config=config)
    embeddings, decoder = model.vit.embeddings, model.decoder
    for table in (embeddings.scale_embed, embeddings.time_embed, decoder.decoder_scale_embed, decoder.time_embed):
        assert table is not None and not table.any() and table.requires_grad
    assert model.config.scales_px == (16, 48)
    names = read_checkpoint(tmp_path, hub=HubOptions(), config=config).fresh
    assert set(names) == {
        "vit.embeddings.scale_embed",
        "vit.embeddings.time_embed",
        "decoder.decoder_scale_embed",
        "decoder.time_embed",
    }


def test_tables_are_resized_for_frames_of_another_size(image_mae: Any, tmp_path: Path) -> None:
    image_mae.save_pretrained(tmp_path)
    model = VideoMAE.from_pretrained(tmp_path, config=replace(STILL, image_size=96, scales="96"))
    picture = clips(1, 1, side_px=96)
    with torch.no_grad():
        e = image_mae.vit.embeddings
        hidden = e.patch_embeddings(picture[:, 0])
        hidden = torch.cat([e.cls_token, hidden], dim=1)
        wanted = e.interpolate_pos_encoding(hidden, 96, 96)
    torch.testing.assert_close(model.vit.embeddings.position_embeddings.data, wanted)
    with torch.no_grad():
        assert model(picture, gaze_of([range(36)], grid=model.grid)).reconstruction.shape == (1, 1, 3, 96, 96)


def test_without_a_configuration_the_scales_are_the_frame_or_the_published_ones(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for image_px, scales in ((48, "48"), (224, "32+64+112+224")):
        sizes = {**IMAGE_SIZES, "image_size": image_px}
        transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**sizes)).save_pretrained(tmp_path)
        model = VideoMAE.from_pretrained(tmp_path)
        assert (model.config.scales, model.config.causal) == (scales, True)
        assert model.config.decoder_num_attention_heads == 4


def test_an_encoder_alone_gets_a_fresh_decoder(image_mae: Any, tmp_path: Path) -> None:
    image_mae.vit.save_pretrained(tmp_path)
    model = VideoMAE.from_pretrained(tmp_path, config=STILL)
    wanted = image_mae.vit.embeddings.cls_token
    assert torch.equal(model.vit.embeddings.cls_token, wanted)
    assert model.decoder.decoder_pred.weight.std() > 0.1
    with torch.no_grad():
        output = model(clips(1, 1, side_px=48), gaze_of([range(9)], grid=model.grid))
    assert output.reconstruction.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({"hidden_act": "relu"}, None, "hidden_act must be 'gelu', got 'relu'"),
        ({"qkv_bias": False}, None, "qkv_bias must be True"),
        ({"image_size": [48, 64]}, None, "image_size must be a whole number"),
        ({"num_hidden_layers": 3}, None, "2 layers of the encoder instead of 3"),
        ({}, replace(STILL, hidden_size=32, num_attention_heads=2), "instead of"),
        ({"num_attention_heads": 5}, STILL, "5 heads must divide"),
    ],
)
def test_image_autoencoders_that_do_not_fit_are_refused(
    image_mae: Any, tmp_path: Path, changes: dict[str, Any], config: VideoMAEConfig | None, message: str
) -> None:
    image_mae.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message) as caught:
        VideoMAE.from_pretrained(tmp_path, config=config)
    assert "\n" not in str(caught.value)


def test_a_model_from_images_is_a_model_like_others(image_mae: Any, tmp_path: Path) -> None:
    image_mae.save_pretrained(tmp_path / "image")
    config = replace(STILL, image_size=32, scales="16+32", causal=True)
    model = VideoMAE.from_pretrained(tmp_path / "image", config=config)
    model.save_pretrained(tmp_path / "video")
    assert_same(VideoMAE.from_pretrained(tmp_path / "video"), model)
    assert model.grid == GRID
    with torch.no_grad():
        assert model(clips(1, 3), random_cells(3, seed=1)).loss_mean.isfinite().all()
