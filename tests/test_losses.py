"""Losses by pixels and their weighted sum: definitions, invariances, other people's code."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from autogaze.errors import CheckpointError
from autogaze.losses import (
    HALF,
    IMAGENET,
    PUBLISHED,
    TERMS,
    UNIT,
    PixelSpace,
    WeightedLoss,
    l1,
    make_loss,
    multi_scale_gradient,
    ssim,
    ssim_loss,
)
from autogaze.models.autogaze.processing_autogaze import AutoGazeImageProcessor


def pair(*, height_px: int = 24, width_px: int = 20, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Two related pairs of colours, (2, 3, 3, H, W)."""
    random = torch.Generator().manual_seed(seed)
    target = torch.rand(2, 3, 3, height_px, width_px, generator=random, dtype=dtype)
    target = torch.nn.functional.avg_pool2d(target.flatten(0, 1), 3, 1, 1).view(target.shape)
    noise = torch.randn(target.shape, generator=random, dtype=dtype)
    return [(target + 0.1 * noise).clamp(0, 1), target]


PIXEL_LOSSES = [l1, multi_scale_gradient, ssim_loss]


@pytest.mark.parametrize("loss", PIXEL_LOSSES)
def test_a_loss_is_zero_for_equal_frames_alone_and_one_number_a_frame(loss) -> None:
    prediction, target = pair()
    value = loss(prediction, target)
    assert value.shape == (2, 3)
    assert (value > 0.01).all()
    torch.testing.assert_close(loss(target, target), torch.zeros(2, 3), atol=2e-6, rtol=0)


@pytest.mark.parametrize("loss", PIXEL_LOSSES)
def test_a_frame_has_its_own_loss(loss) -> None:
    prediction, target = pair()
    whole = loss(prediction, target)
    prediction[1, 2] = 0
    changed = loss(prediction, target)
    assert changed[1, 2] != whole[1, 2]
    changed[1, 2] = whole[1, 2]
    torch.testing.assert_close(changed, whole)


@pytest.mark.parametrize("loss", PIXEL_LOSSES)
def test_gradients_are_those_of_finite_differences(loss) -> None:
    prediction, target = pair(height_px=13, width_px=12, dtype=torch.float64)
    prediction, target = prediction[:1, :1], target[:1, :1]
    direction = torch.randn(prediction.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    prediction.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(prediction, target).sum(), prediction)
    step = 1e-7
    with torch.no_grad():
        ahead, behind = (loss(prediction + sign * step * direction, target).sum() for sign in (1, -1))
    assert ((ahead - behind) / (2 * step)).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


@pytest.mark.parametrize("loss", PIXEL_LOSSES)
def test_frames_that_do_not_fit_are_refused(loss) -> None:
    prediction, target = pair()
    for wrong in (target[0], target[:1], target[..., :-1], target[:, :, :2]):
        with pytest.raises(ValueError, match=r"must be \(B, F, 3, H, W\) of one shape"):
            loss(prediction if wrong.shape[2] == 3 or wrong.ndim < 5 else wrong, wrong)


def test_l1_is_the_mean_absolute_difference() -> None:
    prediction, target = pair()
    expected = np.abs(prediction.numpy() - target.numpy()).reshape(2, 3, -1).mean(-1)
    np.testing.assert_allclose(l1(prediction, target).numpy(), expected, rtol=1e-5)


def test_gradient_is_its_definition() -> None:
    prediction, target = (frames.double().numpy() for frames in pair(height_px=16, width_px=8))
    total = np.zeros((2, 3))
    for level in range(3):  # 16 × 8, 8 × 4, 4 × 2; after that a side has one pixel
        for axis in (-1, -2):
            wrong = np.abs(np.diff(prediction, axis=axis) - np.diff(target, axis=axis))
            total += wrong.mean(axis=(-3, -2, -1)) / 2
        if level < 2:
            shape = (*prediction.shape[:3], prediction.shape[3] // 2, 2, prediction.shape[4] // 2, 2)
            prediction, target = (frames.reshape(shape).mean(axis=(4, 6)) for frames in (prediction, target))
    value = multi_scale_gradient(*pair(height_px=16, width_px=8))
    np.testing.assert_allclose(value.numpy(), total / 3, rtol=1e-5)


def test_gradient_does_not_see_a_constant_and_is_linear_in_contrast() -> None:
    prediction, target = pair(dtype=torch.float64)
    value = multi_scale_gradient(prediction, target)
    torch.testing.assert_close(multi_scale_gradient(prediction + 0.3, target - 0.2), value)
    torch.testing.assert_close(multi_scale_gradient(3 * prediction, 3 * target), 3 * value)


def test_gradient_sees_blur_at_the_level_where_it_is() -> None:
    """Stripes of one pixel vanish from every level but the first."""
    stripes = torch.zeros(1, 1, 3, 16, 16)
    stripes[..., ::2] = 1
    grey = torch.full_like(stripes, 0.5)
    assert multi_scale_gradient(stripes, grey, levels=1).item() == pytest.approx(0.5)
    assert multi_scale_gradient(stripes, grey, levels=3).item() == pytest.approx(0.5 / 3)


@pytest.mark.parametrize(("side_px", "legal"), [(2, True), (1, False)])
def test_gradient_needs_two_pixels(side_px: int, legal: bool) -> None:
    frames = torch.rand(1, 1, 3, side_px, 5)
    if legal:
        assert multi_scale_gradient(frames, frames * 2).isfinite().all()
    else:
        with pytest.raises(ValueError, match="at least 2 × 2 px, got 1 × 5"):
            multi_scale_gradient(frames, frames)
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        multi_scale_gradient(torch.rand(1, 1, 3, 4, 4), torch.rand(1, 1, 3, 4, 4), levels=0)


@pytest.mark.parametrize("size_px", [(11, 11), (24, 20), (37, 53)])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim_is_that_of_scikit_image_and_torchmetrics(size_px: tuple[int, int], data_range: float) -> None:
    prediction, target = (data_range * frames for frames in pair(height_px=size_px[0], width_px=size_px[1]))
    value = ssim(prediction, target, data_range=data_range)
    for b in range(2):
        for f in range(3):
            expected = structural_similarity(
                prediction[b, f].double().numpy(),
                target[b, f].double().numpy(),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=data_range,
                channel_axis=0,
            )
            assert value[b, f].item() == pytest.approx(expected, abs=1e-5)
    # torchmetrics mirrors the frame past its border and averages over all of it; inside, the two are one.
    _, everywhere = structural_similarity_index_measure(
        prediction.flatten(0, 1),
        target.flatten(0, 1),
        data_range=data_range,
        reduction="none",
        return_full_image=True,
    )
    inside = everywhere[..., 5:-5, 5:-5].mean((1, 2, 3))
    torch.testing.assert_close(value.flatten(), inside, atol=1e-4, rtol=0)


def test_ssim_is_symmetric_and_one_at_most_and_ssim_loss_is_what_is_missing() -> None:
    prediction, target = pair()
    torch.testing.assert_close(ssim(prediction, target), ssim(target, prediction))
    assert (ssim(prediction, target) < 1).all()
    torch.testing.assert_close(ssim_loss(prediction, target), 1 - ssim(prediction, target))
    torch.testing.assert_close(ssim(target, 1 - target) < 0, torch.ones(2, 3, dtype=torch.bool))


def test_ssim_keeps_its_precision_under_autocast_and_in_half_precision() -> None:
    prediction, target = pair()
    value = ssim(prediction, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(ssim(prediction, target), value)
    rounded = [frames.bfloat16() for frames in (prediction, target)]
    torch.testing.assert_close(ssim(*rounded), ssim(*(frames.float() for frames in rounded)))


def test_ssim_needs_a_window() -> None:
    with pytest.raises(ValueError, match="at least 11 × 11 px, got 10 × 30"):
        ssim(torch.rand(1, 1, 3, 10, 30), torch.rand(1, 1, 3, 10, 30))


# Spaces


@pytest.mark.parametrize("space", [UNIT, HALF, IMAGENET, PUBLISHED])
def test_a_space_and_back_is_the_identity(space: PixelSpace) -> None:
    colours = pair(dtype=torch.float64)[0]
    torch.testing.assert_close(space.to_unit(space.from_unit(colours)), colours)
    for other in (UNIT, HALF, IMAGENET, PUBLISHED):
        torch.testing.assert_close(space.convert(space.from_unit(colours), to=other), other.from_unit(colours))


def test_spaces_are_what_their_processors_make() -> None:
    rgb = torch.randint(0, 256, (16, 18, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    colours = torch.from_numpy(rgb).movedim(-1, 0) / 255
    for space, settings in (
        (PUBLISHED, {}),
        (IMAGENET, {"rescale_factor": 1 / 255, "offset": False}),
        (HALF, {"rescale_factor": 1 / 127.5, "offset": True, "do_normalize": False}),
        (HALF, {"rescale_factor": 1 / 255, "offset": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}),
    ):
        made = AutoGazeImageProcessor(do_resize=False, **settings)([rgb], return_tensors="pt").pixel_values[0, 0]
        torch.testing.assert_close(space.from_unit(colours), made, atol=1e-5, rtol=1e-5)
    settings = AutoGazeImageProcessor().to_dict()
    names = ("image_mean", "image_std", "rescale_factor", "offset")
    assert PixelSpace.from_settings(**{name: settings[name] for name in names}) == PUBLISHED


def test_a_space_needs_three_numbers_of_each_and_spread() -> None:
    for mean, std in (((0.5,), (0.5, 0.5, 0.5)), ((0.5, 0.5, 0.5), (0.5, 0.0, 0.5))):
        with pytest.raises(ValueError, match="three numbers each, std above 0"):
            PixelSpace(mean=mean, std=std)


@pytest.mark.parametrize("settings", [{"rescale_factor": 0}, {"image_mean": [math.nan, 0, 0]}, {"image_std": [1, 1]}])
def test_settings_that_make_no_space_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"rescale_factor must be above 0|three numbers each"):
        PixelSpace.from_settings(**settings)


RAW = PixelSpace(mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
SPREAD = {"image_mean": list(IMAGENET.mean), "image_std": list(IMAGENET.std)}


@pytest.mark.parametrize(
    ("stored", "of_video_model", "of_image_model"),
    [
        ({}, PUBLISHED, HALF),
        ({"size": 224}, PUBLISHED, HALF),
        (SPREAD, PUBLISHED, IMAGENET),
        ({**SPREAD, "feature_extractor_type": "ViTFeatureExtractor"}, IMAGENET, IMAGENET),
        ({**SPREAD, "image_processor_type": "ViTImageProcessor"}, IMAGENET, IMAGENET),
        ({**SPREAD, "image_processor_type": "VivitImageProcessor"}, PUBLISHED, PUBLISHED),
        (AutoGazeImageProcessor().to_dict(), PUBLISHED, PUBLISHED),
        ({**SPREAD, "rescale_factor": 1 / 255, "offset": False}, IMAGENET, IMAGENET),
        ({**SPREAD, "do_normalize": False, "rescale_factor": 1 / 255, "offset": False}, UNIT, UNIT),
        ({**SPREAD, "do_rescale": False, "do_normalize": False}, RAW, RAW),
    ],
)
def test_a_checkpoint_says_its_space(
    tmp_path: Path, stored: dict[str, Any], of_video_model: PixelSpace, of_image_model: PixelSpace
) -> None:
    path = tmp_path / "preprocessor_config.json"
    assert PixelSpace.from_file(path, default=PUBLISHED) == PUBLISHED
    path.write_text(json.dumps(stored))
    assert PixelSpace.from_file(path, default=PUBLISHED) == of_video_model
    assert PixelSpace.from_file(path, default=HALF) == of_image_model


@pytest.mark.parametrize(
    "content", ["[]", "{", *(json.dumps(SPREAD | wrong) for wrong in ({"image_mean": 1}, {"rescale_factor": "x"}))]
)
def test_a_checkpoint_with_illegal_settings_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json") as caught:
        PixelSpace.from_file(path, default=PUBLISHED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("space", [UNIT, HALF, IMAGENET, PUBLISHED, PixelSpace(mean=(0, 0, 0), std=(1, 2, 3))])
def test_a_processor_makes_its_space_and_keeps_it_on_disk(tmp_path: Path, space: PixelSpace) -> None:
    processor = space.processor(side_px=32)
    assert processor.size == {"height": 32, "width": 32}
    assert PixelSpace.of_processor(processor) == space
    processor.save_pretrained(tmp_path)
    assert PixelSpace.from_file(tmp_path / "preprocessor_config.json", default=HALF) == space


def test_a_loss_of_colours_sees_colours() -> None:
    prediction, target = pair()
    inside = [PUBLISHED.from_unit(frames) for frames in (prediction, target)]
    torch.testing.assert_close(PUBLISHED.on_colours(ssim_loss)(*inside), ssim_loss(prediction, target))


# Weighted sums


def test_a_weighted_loss_is_the_sum_of_its_terms() -> None:
    prediction, target = (PUBLISHED.from_unit(frames) for frames in pair())
    loss = make_loss("l1+gradient+ssim", "1+0.5+0.25")
    terms = loss.per_term(prediction, target)
    assert list(terms) == ["l1", "gradient", "ssim"]
    torch.testing.assert_close(terms["l1"], l1(prediction, target))
    torch.testing.assert_close(terms["gradient"], multi_scale_gradient(prediction, target))
    torch.testing.assert_close(terms["ssim"], ssim_loss(*pair()))
    expected = terms["l1"] + 0.5 * terms["gradient"] + 0.25 * terms["ssim"]
    torch.testing.assert_close(loss(prediction, target), expected)
    assert loss.unit == "l1 + 0.5·gradient + 0.25·ssim"


def test_the_default_loss_is_l1_and_has_no_state() -> None:
    loss = make_loss()
    torch.testing.assert_close(loss(*pair()), l1(*pair()))
    assert not loss.state_dict()
    torch.testing.assert_close(copy.deepcopy(loss)(*pair()), l1(*pair()))


def test_any_callable_is_a_term_and_modules_among_them_move() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Buffer(torch.ones(()), persistent=False)

        def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
            return self.scale * l1(prediction, target)

    scaled = Scaled()
    loss = WeightedLoss({"squared": (2, lambda p, t: (p - t).square().mean((-3, -2, -1))), "scaled": (1, scaled)})
    prediction, target = pair()
    expected = 2 * (prediction - target).square().mean((-3, -2, -1)) + l1(prediction, target)
    torch.testing.assert_close(loss(prediction, target), expected)
    assert loss.unit == "2·squared + scaled"
    loss.double()
    assert scaled.scale.dtype == torch.float64


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_is_a_finite_number_of_at_least_zero(weight: float) -> None:
    with pytest.raises(ValueError, match="the weight of l1 must be a finite number of at least 0"):
        WeightedLoss({"l1": (weight, l1)})


def test_a_loss_needs_a_term() -> None:
    with pytest.raises(ValueError, match="at least one term, got none"):
        WeightedLoss({})


def test_a_term_of_another_shape_is_named() -> None:
    loss = WeightedLoss({"l1": (1, l1), "mean": (1, lambda p, t: l1(p, t).mean(1))})
    with pytest.raises(ValueError, match=r"term mean gave \(2,\), those before it \(2, 3\)"):
        loss(*pair())


@pytest.mark.parametrize(
    ("types", "weights", "models", "message"),
    [
        ("l1+lpips", "1+1", {}, "'lpips' is no loss; legal are l1, gradient, ssim, dinov2_reg, siglip2"),
        ("", "1", {}, "'' is no loss"),
        ("l1+l1", "1+1", {}, "may be named once"),
        ("l1+ssim", "1", {}, "one number for each of 2 terms"),
        ("l1", "much", {}, "numbers joined by +"),
        ("l1", "1", {"siglip2": "somewhere"}, "models names 'siglip2', which is not a term of l1"),
        ("siglip2", "1", {}, 'models={"siglip2": "google/siglip2-base-patch16-224"}'),
        ("l1+dinov2_reg", "1+1", {}, 'models={"dinov2_reg": "facebook/dinov2-with-registers-base"}'),
    ],
)
def test_strings_that_name_no_loss_are_refused(types: str, weights: str, models: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError) as error:
        make_loss(types, weights, models=models)
    assert message in str(error.value)


def test_published_names_are_known() -> None:
    assert {"l1", "dinov2_reg", "siglip2"} <= set(TERMS)
