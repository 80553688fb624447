"""Losses under frozen vision models: what they measure, what moves, what stays out of the owner's weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from autogaze.errors import CheckpointError
from autogaze.losses import (
    HALF,
    IMAGENET,
    PUBLISHED,
    UNIT,
    DINOv2RegLoss,
    FeatureLoss,
    FrozenVisionModel,
    PixelSpace,
    SigLIP2Loss,
    make_loss,
)
from small_vision import (
    save_any_size_siglip,
    save_dinov2,
    save_siglip,
    save_whole_siglip,
    write_settings,
)


def frames(side_px: int, *, seed: int = 0, clips: int = 2) -> list[Tensor]:
    """Two (B, 3, 3, S, S) of the published space."""
    random = torch.Generator().manual_seed(seed)
    colours = torch.rand(2, clips, 3, 3, side_px, side_px, generator=random)
    return list(PUBLISHED.from_unit(colours))


def definition(model, prediction: Tensor, target: Tensor, *, drop: int, space: PixelSpace, **options) -> Tensor:
    """The published definition: last four hidden states side by side, squared difference, mean."""

    def features(clips: Tensor) -> Tensor:
        inputs = space.from_unit(PUBLISHED.to_unit(clips)).flatten(0, 1)
        with torch.no_grad():
            states = model(inputs, output_hidden_states=True, **options).hidden_states
        return torch.cat([state[:, drop:] for state in states[-4:]], dim=-1)

    return (features(prediction) - features(target)).pow(2).mean((1, 2)).view(prediction.shape[:2])


@pytest.mark.parametrize("side_px", [56, 28, 42])
def test_dinov2_loss_is_its_definition_and_keeps_the_size_of_frames(tmp_path: Path, side_px: int) -> None:
    save_dinov2(tmp_path)
    model = transformers.Dinov2WithRegistersModel.from_pretrained(tmp_path).eval()
    prediction, target = frames(side_px)
    value = DINOv2RegLoss.from_pretrained(tmp_path)(prediction, target)
    expected = definition(model, prediction, target, drop=1 + 3, space=IMAGENET)
    assert (expected > 1e-3).all()
    torch.testing.assert_close(value, expected)


def test_class_and_register_tokens_play_no_part(tmp_path: Path) -> None:
    model = FrozenVisionModel.from_pretrained(save_dinov2(tmp_path))
    images = frames(56)[0].flatten(0, 1)
    assert model.hidden_states(images, layers=4, space=PUBLISHED).shape == (6, 16, 4 * 32)
    assert model.last_hidden_state(images, space=PUBLISHED).shape == (6, 16, 32)


def test_hidden_states_are_what_the_blocks_give(tmp_path: Path) -> None:
    """By forward hooks on the blocks: nothing is normalised after the last of them."""
    model = FrozenVisionModel.from_pretrained(save_siglip(tmp_path))
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        for block in model.model.encoder.layers
    ]
    images = frames(32)[0].flatten(0, 1)
    states = model.hidden_states(images, layers=4, space=PUBLISHED)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(states, torch.cat(seen[-4:], dim=-1))
    last = model.last_hidden_state(images, space=PUBLISHED)
    torch.testing.assert_close(last, model.model.post_layernorm(seen[-1]))


@pytest.mark.parametrize("save", [save_siglip, save_whole_siglip])
def test_siglip_loss_is_its_definition_with_and_without_a_text_tower(tmp_path: Path, save) -> None:
    save(tmp_path)
    model = transformers.SiglipVisionModel.from_pretrained(tmp_path).eval()
    prediction, target = frames(32)
    value = SigLIP2Loss.from_pretrained(tmp_path)(prediction, target)
    expected = definition(model, prediction, target, drop=0, space=HALF)
    assert (expected > 1e-3).all()
    torch.testing.assert_close(value, expected)


def test_frames_of_another_size_are_brought_to_that_of_siglip(tmp_path: Path) -> None:
    save_siglip(tmp_path)
    prediction, target = frames(64)
    small = [
        nn.functional.interpolate(clips.flatten(0, 1), (32, 32), mode="bilinear", antialias=True).view(2, 3, 3, 32, 32)
        for clips in (prediction, target)
    ]
    loss = SigLIP2Loss.from_pretrained(tmp_path)
    torch.testing.assert_close(loss(prediction, target), loss(*small), atol=1e-5, rtol=1e-4)


def test_a_size_can_be_asked_for_and_positions_are_interpolated(tmp_path: Path) -> None:
    save_siglip(tmp_path)
    model = transformers.SiglipVisionModel.from_pretrained(tmp_path).eval()
    prediction, target = frames(48)
    loss = SigLIP2Loss.from_pretrained(tmp_path, image_px=48)
    expected = definition(model, prediction, target, drop=0, space=HALF, interpolate_pos_encoding=True)
    torch.testing.assert_close(loss(prediction, target), expected)


def test_siglip_of_any_size_reads_the_patches_its_processor_cuts(tmp_path: Path) -> None:
    save_any_size_siglip(tmp_path)
    model = transformers.Siglip2VisionModel.from_pretrained(tmp_path).eval()
    processor = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=24, do_resize=False)
    rgb = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inputs = processor([image.movedim(0, -1).numpy() for image in rgb], return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    ours = FrozenVisionModel.from_pretrained(tmp_path).hidden_states(rgb / 255, layers=4, space=UNIT)
    torch.testing.assert_close(ours, torch.cat(states[-4:], dim=-1), atol=1e-4, rtol=1e-4)
    assert SigLIP2Loss.from_pretrained(tmp_path)(*frames(40)).shape == (2, 3)


def test_frames_are_brought_to_whole_patches(tmp_path: Path) -> None:
    save_dinov2(tmp_path)
    loss = DINOv2RegLoss.from_pretrained(tmp_path)
    assert loss(*frames(50)).shape == (2, 3)
    assert loss.model.hidden_states(frames(50)[0][0], layers=1, space=PUBLISHED).shape == (3, 16, 32)
    assert loss.model.hidden_states(frames(3)[0][0], layers=1, space=PUBLISHED).shape == (3, 1, 32)


# Spaces


@pytest.mark.parametrize("space", [UNIT, HALF, IMAGENET])
def test_the_space_of_the_frames_changes_nothing(tmp_path: Path, space: PixelSpace) -> None:
    save_siglip(tmp_path)
    expected = SigLIP2Loss.from_pretrained(tmp_path)(*frames(32))
    inside = [PUBLISHED.convert(clips, to=space) for clips in frames(32)]
    torch.testing.assert_close(SigLIP2Loss.from_pretrained(tmp_path, space=space)(*inside), expected)


def test_the_settings_of_a_checkpoint_go_before_those_of_its_family(tmp_path: Path) -> None:
    save_siglip(tmp_path)
    assert FrozenVisionModel.from_pretrained(tmp_path).space == HALF
    write_settings(tmp_path, do_center_crop=True, size={"height": 32})
    assert FrozenVisionModel.from_pretrained(tmp_path).space == HALF
    write_settings(tmp_path, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], rescale_factor=1 / 255)
    expected = PixelSpace(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    got = FrozenVisionModel.from_pretrained(tmp_path).space
    assert got.mean == pytest.approx(expected.mean)
    assert got.std == pytest.approx(expected.std)
    write_settings(tmp_path, image_mean=[0.1], image_std=[0.4])
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json does not hold legal settings: mean and std"):
        FrozenVisionModel.from_pretrained(tmp_path)


# Gradients and memory


def test_gradients_reach_the_prediction_and_neither_target_nor_model(tmp_path: Path) -> None:
    loss = DINOv2RegLoss.from_pretrained(save_dinov2(tmp_path))
    prediction, target = (clips.requires_grad_() for clips in frames(28))
    loss(prediction, target).sum().backward()
    assert prediction.grad is not None
    assert (prediction.grad.flatten(2).abs().sum(-1) > 0).all()
    assert target.grad is None
    assert all(weight.grad is None and not weight.requires_grad for weight in loss.model.model.parameters())


@pytest.mark.parametrize("frame_batch", [1, 4, 6, 64])
def test_turns_change_neither_loss_nor_gradient(tmp_path: Path, frame_batch: int) -> None:
    model = FrozenVisionModel.from_pretrained(save_dinov2(tmp_path))
    results = []
    for batch in (64, frame_batch):
        prediction, target = frames(28)
        value = FeatureLoss(model, frame_batch=batch)(prediction.requires_grad_(), target)
        value.square().sum().backward()
        results.append((value.detach(), prediction.grad))
    torch.testing.assert_close(results[0], results[1])


def test_turns_keep_no_graph_of_the_model(tmp_path: Path) -> None:
    """With turns, what autograd keeps does not grow with the depth of the model."""
    model = FrozenVisionModel.from_pretrained(save_dinov2(tmp_path))

    def kept_numbers(frame_batch: int) -> int:
        kept = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        prediction, target = frames(28)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            FeatureLoss(model, frame_batch=frame_batch)(prediction.requires_grad_(), target)
        return kept

    assert kept_numbers(2) < kept_numbers(64) / 5


def test_equal_frames_have_no_loss(tmp_path: Path) -> None:
    loss = DINOv2RegLoss.from_pretrained(save_dinov2(tmp_path))
    clips = frames(28)[0]
    torch.testing.assert_close(loss(clips, clips), torch.zeros(2, 3))
    assert (loss(clips, clips + 0.1) > 0).all()


# The owner's weights


class Owner(nn.Module):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.own = nn.Linear(2, 2)
        self.loss = loss


def test_frozen_weights_move_with_their_owner_and_are_not_its_own(tmp_path: Path) -> None:
    loss = make_loss("l1+siglip2", "1+0.3", models={"siglip2": save_siglip(tmp_path)})
    owner = Owner(loss)
    assert set(owner.state_dict()) == {"own.weight", "own.bias"}
    assert {name for name, _ in owner.named_parameters()} == {"own.weight", "own.bias"}
    owner.load_state_dict(Owner(nn.Identity()).state_dict(), strict=True)
    hidden = loss.modules_of_terms[0].model.model
    before = {name: weight.clone() for name, weight in hidden.state_dict().items()}

    owner.train()
    assert not any(module.training for module in hidden.modules())
    owner.double()
    assert {weight.dtype for weight in hidden.parameters()} == {torch.float64}
    clips = [clip.double() for clip in frames(32)]
    assert loss(*clips).dtype == torch.float64
    owner.to("meta")
    assert {weight.device.type for weight in hidden.parameters()} == {"meta"}
    assert before.keys() == hidden.state_dict().keys()


def test_an_optimizer_of_the_owner_leaves_the_frozen_model_alone(tmp_path: Path) -> None:
    loss = SigLIP2Loss.from_pretrained(save_siglip(tmp_path))
    picture = nn.Parameter(frames(32)[0])
    before = copy.deepcopy(loss.model.model.state_dict())
    target = frames(32)[1]
    optimizer = torch.optim.SGD([picture, *loss.parameters()], lr=5.0)
    first = loss(picture, target).sum()
    for _ in range(3):
        optimizer.zero_grad()
        loss(picture, target).sum().backward()
        optimizer.step()
    assert loss(picture, target).sum() < first
    for name, weight in loss.model.model.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_copies_and_half_precision_work(tmp_path: Path) -> None:
    loss = DINOv2RegLoss.from_pretrained(save_dinov2(tmp_path))
    clips = frames(50)
    value = loss(*clips)
    torch.testing.assert_close(copy.deepcopy(loss)(*clips), value)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = loss(*clips)
    assert under.dtype == torch.float32
    torch.testing.assert_close(under, value, rtol=0.1, atol=0)
    torch.testing.assert_close(copy.deepcopy(loss).bfloat16()(*clips), value, rtol=0.2, atol=0)


def test_the_published_strings_make_the_published_sum(tmp_path: Path) -> None:
    models = {"dinov2_reg": save_dinov2(tmp_path / "d"), "siglip2": save_siglip(tmp_path / "s")}
    loss = make_loss("l1+dinov2_reg+siglip2", "1+0.3+0.3", models=models)
    prediction, target = frames(56)
    expected = (
        (prediction - target).abs().mean((-3, -2, -1))
        + 0.3 * DINOv2RegLoss.from_pretrained(models["dinov2_reg"])(prediction, target)
        + 0.3 * SigLIP2Loss.from_pretrained(models["siglip2"])(prediction, target)
    )
    torch.testing.assert_close(loss(prediction, target), expected)
    assert loss.unit == "l1 + 0.3·dinov2_reg + 0.3·siglip2"


# What can go wrong


def test_loading_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_whole_siglip(tmp_path)
    transformers.utils.logging.set_verbosity_warning()
    capfd.readouterr()
    SigLIP2Loss.from_pretrained(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == transformers.utils.logging.WARNING


@pytest.mark.parametrize("source", ["nowhere", "./no/where", "a/b/c", "/no/where"])
def test_a_source_that_is_not_there_is_named(source: str) -> None:
    with pytest.raises(CheckpointError, match=f"no vision model at {source}: there is no such folder"):
        SigLIP2Loss.from_pretrained(source)


def test_a_hub_id_that_cannot_be_had_says_that_a_folder_works(tmp_path: Path) -> None:
    from autogaze.models.autogaze.checkpoint import HubOptions

    hub = HubOptions(cache_dir=str(tmp_path), local_files_only=True)
    with pytest.raises(CheckpointError, match=r"cannot get some/model from the hub .* a local folder works offline"):
        SigLIP2Loss.from_pretrained("some/model", hub=hub)
    with pytest.raises(CheckpointError, match="neither a folder nor a legal hub id"):
        SigLIP2Loss.from_pretrained("some--thing/..", hub=hub)


def test_broken_folders_are_named_and_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config.json is missing; a checkpoint is config.json and"):
        SigLIP2Loss.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json is not JSON"):
        SigLIP2Loss.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must hold a JSON object, got list"):
        SigLIP2Loss.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="'llama', which cannot be used; legal are dinov2, dinov2_with_registers"):
        SigLIP2Loss.from_pretrained(tmp_path)


def test_weights_that_are_missing_or_damaged_are_an_error(tmp_path: Path) -> None:
    save_siglip(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-1000])
    with pytest.raises(CheckpointError, match="cannot be read as a SiglipVisionModel"):
        SigLIP2Loss.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read as a SiglipVisionModel"):
        SigLIP2Loss.from_pretrained(tmp_path)
    save_siglip(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 6}))
    with pytest.raises(CheckpointError, match=r"lacks weights of a SiglipVisionModel.*encoder.layers.5.*more"):
        SigLIP2Loss.from_pretrained(tmp_path)


def test_a_model_of_another_family_is_refused() -> None:
    model = transformers.ViTModel(transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(ValueError, match="type 'vit' cannot be used; legal are dinov2"):
        FrozenVisionModel(model, space=HALF)


def test_a_model_that_is_in_training_is_frozen(tmp_path: Path) -> None:
    config = transformers.SiglipVisionConfig.from_pretrained(save_siglip(tmp_path), attention_dropout=0.5)
    model = transformers.SiglipVisionModel(config).train()
    frozen = FrozenVisionModel(model, space=HALF)
    clips = frames(32)
    torch.testing.assert_close(FeatureLoss(frozen)(*clips), FeatureLoss(frozen.train())(*clips))
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, r"layers must be 1\.\.6 with this model, got 0"),
        ({"layers": 7}, r"layers must be 1\.\.6"),
        ({"frame_batch": 0}, "frame_batch must be at least 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SigLIP2Loss.from_pretrained(save_siglip(tmp_path), **options)


def test_frames_must_be_pairs(tmp_path: Path) -> None:
    loss = SigLIP2Loss.from_pretrained(save_siglip(tmp_path))
    with pytest.raises(ValueError, match=r"must be \(B, F, 3, H, W\) of one shape"):
        loss(frames(32)[0], frames(24)[0])
