"""The masked autoencoder of whole clips: published outputs, what a loss depends on, and training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from autogaze.errors import CheckpointError
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze.processing_autogaze import IMAGE_MEAN, IMAGE_STD
from autogaze.packing import PaddedGaze, pack, unpack
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VideoMAEConfig, base, large, tiny
from autogaze.tasks.video_mae_reconstruction.modeling_video_mae import position_table, scale_patches
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE
from autogaze.tiling import tile_layout
from video_mae_samples import GRID, LargestTensor, clips, gaze_of, random_cells, small_config, small_model

SMALL = Path(__file__).parent / "data" / "videomae_small"
PUBLISHED_KEYS = Path(__file__).parents[2] / "shared" / "golden" / "videomae_official_keys.tsv"
CASES = list(json.loads((SMALL / "index.json").read_text()))
P = GRID.num_patches


def golden(case: str) -> tuple[Tensor, dict[str, Tensor]]:
    """(B, T, 3, 64, 64) normalised, and what belongs to it."""
    stored = load_file(SMALL / f"{case}.safetensors")
    colours = stored["frames"] / 255
    return ((colours - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)).movedim(-1, 2), stored


def padded(stored: dict[str, Tensor]) -> PaddedGaze:
    return PaddedGaze.from_dict({**stored, "num_vision_tokens_each_frame": 20})


# Published outputs


@pytest.mark.parametrize("kind", ["mapping", "padded", "gazes"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_published_implementation(case: str, kind: str) -> None:
    model = VideoMAE.from_pretrained(SMALL)
    video, stored = golden(case)
    gazing: Any = {name: stored[name] for name in ("gazing_pos", "if_padded_gazing", "num_gazing_each_frame")}
    if kind != "mapping":
        gazing = padded(stored)
    if kind == "gazes":
        gazing = unpack(gazing, tile_layout(model.grid))
    with torch.no_grad():
        output = model(video, gazing_info=gazing, frame_idx_to_reconstruct=stored["frame_idx_to_reconstruct"])
    for name in ("reconstruction", "loss_each_reconstruction_frame", "loss_mean", "frame_idx_to_reconstruct"):
        torch.testing.assert_close(getattr(output, name), stored[name], rtol=0, atol=1e-4)


@pytest.mark.skipif(not PUBLISHED_KEYS.exists(), reason="the list of published names is not here")
def test_large_has_the_published_weights() -> None:
    with torch.device("meta"):
        model = VideoMAE(large())
    lines = [line.split("\t") for line in PUBLISHED_KEYS.read_text().splitlines() if line]
    published = {name: json.loads(shape) for name, shape in lines}
    assert {f"mae.{name}": list(weight.shape) for name, weight in model.state_dict().items()} == published


@pytest.mark.parametrize(("config", "millions"), [(tiny(), 6.55), (base(), 112), (large(), 330)])
def test_presets_have_the_sizes_they_say(config: VideoMAEConfig, millions: float) -> None:
    with torch.device("meta"):
        count = sum(weight.numel() for weight in VideoMAE(config).parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.02)


# A dense forward without any gathering, as the definition of a clip in which every cell is gazed at


def dense_forward(model: VideoMAE, video: Tensor) -> Tensor:
    """(B, T, 3, S, S) with every cell seen and every frame rebuilt."""
    config = model.config
    B, T = video.shape[:2]
    places = torch.arange(T).repeat_interleave(P)
    frame = torch.cat([torch.tensor([-1]), places])
    visible = frame[None] <= frame[:, None] if config.causal else torch.ones(len(frame), len(frame), dtype=torch.bool)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads_first = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        return F.scaled_dot_product_attention(*heads_first, visible).transpose(1, 2)

    def entries(positions: Tensor, scales: Tensor | None, times: Tensor | None, *, line: bool) -> Tensor:
        square = positions[0, 1:].T.reshape(1, -1, 2, 2)
        square = square.flatten(2)[:, :, None] if line else square
        coarse = F.interpolate(square, size=(1, 1), mode="bicubic", align_corners=False)
        table = torch.cat([coarse.flatten(1), positions[0, 1:]])
        if scales is not None:
            table = table + scales[[0, 1, 1, 1, 1]]
        table = table.repeat(T, 1)
        return table if times is None else table + times[places]

    e = model.vit.embeddings
    small = F.interpolate(video.flatten(0, 1), size=(16, 16), mode="bicubic", align_corners=False)
    parts = [e.patch_embeddings.projection(x).flatten(2).transpose(1, 2) for x in (small, video.flatten(0, 1))]
    x = torch.cat(parts, dim=1).reshape(B, T * P, -1)
    x = x + entries(e.position_embeddings, e.scale_embed, e.time_embed, line=False)
    x = torch.cat([(e.cls_token + e.position_embeddings[:, :1]).expand(B, -1, -1), x], dim=1)
    x = model.vit(x, [attend] * config.num_hidden_layers)
    d = model.decoder
    y = d.decoder_embed(x)
    table = entries(d.decoder_pos_embed, d.decoder_scale_embed, d.time_embed, line=True)
    y = y + torch.cat([d.decoder_pos_embed[0, :1], table])
    y = d.decoder_pred(d.decoder_norm(d(y, [attend] * config.decoder_num_hidden_layers)))
    finest = y[:, 1:].reshape(B, T, P, 16, 16, 3)[:, :, 1:].reshape(B, T, 2, 2, 16, 16, 3)
    return finest.permute(0, 1, 6, 2, 4, 3, 5).reshape(B, T, 3, 32, 32)


@pytest.mark.parametrize(
    "changes", [{}, {"causal": False}, {"scale_embed": False}, {"time_embed": False}, {"max_num_frames": 3}]
)
def test_keeping_all_equals_a_dense_forward(changes: dict[str, Any]) -> None:
    model, video = small_model(**changes), clips(2, 3)
    every, rng = gaze_of([range(P)] * 3), torch.Generator().manual_seed(7)
    with torch.no_grad():
        # Sines are so regular that many a mistake would not show.
        for table in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
            table.normal_(generator=rng)
        got = model(video, [every, every]).reconstruction
        torch.testing.assert_close(got, dense_forward(model, video), rtol=1e-5, atol=3e-5)


# What a loss depends on


def run(model: VideoMAE, video: Tensor, gazes: Any, frames: Any = None) -> Tensor:
    with torch.no_grad():
        return model(video, gazes, frames).loss_each_reconstruction_frame


def test_later_frames_do_not_change_earlier_losses() -> None:
    model, video = small_model(), clips(1, 5)
    whole = run(model, video, random_cells(5, seed=1))
    changed = video.clone()
    changed[:, 3:] = 7 * torch.randn(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    other = random_cells(5, seed=2)
    joined = gaze_of([(random_cells(5, seed=1) if t < 3 else other)[t].index for t in range(5)])
    torch.testing.assert_close(run(model, changed, joined)[:, :3], whole[:, :3], rtol=0, atol=1e-6)
    assert not torch.allclose(run(model, changed, joined)[:, 3:], whole[:, 3:])
    torch.testing.assert_close(run(model, video[:, :3], random_cells(5, seed=1)[:3]), whole[:, :3], rtol=0, atol=1e-6)


def test_without_causality_later_frames_change_earlier_losses() -> None:
    model, video = small_model(causal=False), clips(1, 3)
    gaze = gaze_of([[1, 2], [0], [3, 4]])
    whole, changed = run(model, video, gaze), video.clone()
    changed[:, 2] *= 3
    assert not torch.allclose(run(model, changed, gaze)[:, :2], whole[:, :2], atol=1e-3)


def test_every_gazed_cell_matters_and_no_other() -> None:
    model, video = small_model(), clips(1, 2)
    gaze = gaze_of([[2], [4]])  # cells of the finest scale: row 0 column 1, and row 1 column 1
    with torch.no_grad():
        before = model(video, gaze).reconstruction
    unseen, seen = video.clone(), video.clone()
    unseen[:, 0, :, 16:] += 1
    unseen[:, 0, :, :16, :16] += 1
    seen[:, 0, :, :16, 16:] += 1
    with torch.no_grad():
        torch.testing.assert_close(model(unseen, gaze).reconstruction, before, rtol=0, atol=0)
        assert ((model(seen, gaze).reconstruction - before).abs().amax(dim=(0, 2, 3, 4)) > 1e-3).all()


def test_frames_that_are_not_rebuilt_count_by_their_gazes_alone() -> None:
    model, video = small_model(), clips(1, 4)
    gaze = random_cells(4, seed=8)
    some = run(model, video, gaze, [1, 3])
    assert not torch.allclose(run(model, video, gaze)[:, 3], some[:, 1], atol=1e-6)
    torch.testing.assert_close(run(model, video, gaze, [3, 1, 3]), some[:, [1, 0, 1]], rtol=0, atol=1e-6)
    torch.testing.assert_close(run(model, video, gaze, torch.tensor([1, 3])), some, rtol=0, atol=0)


def test_padded_slots_change_nothing_whatever_they_hold() -> None:
    model, video = small_model(), clips(2, 3)
    gazes = [gaze_of([[0, 3], [1], [2, 4, 0]]), gaze_of([[4], [], [1]])]
    plain = pack(gazes)
    wanted = run(model, video, plain)
    for rubbish in (-1, 10**6, 0, 3 * P):
        position = plain.gazing_pos.masked_fill(plain.if_padded_gazing, rubbish)
        changed = {
            "gazing_pos": position,
            "if_padded_gazing": plain.if_padded_gazing,
            "num_gazing_each_frame": plain.num_gazing_each_frame,
        }
        torch.testing.assert_close(run(model, video, changed), wanted, rtol=0, atol=0)
    # More padding, in the middle of a frame.
    position = torch.cat([plain.gazing_pos[:, :1], torch.full((2, 2), 99), plain.gazing_pos[:, 1:]], dim=1)
    hidden = F.pad(plain.if_padded_gazing[:, 1:], (2, 0), value=True)
    more = PaddedGaze(
        gazing_pos=position,
        if_padded_gazing=torch.cat([plain.if_padded_gazing[:, :1], hidden], dim=1),
        num_gazing_each_frame=plain.num_gazing_each_frame + torch.tensor([2, 0, 0]),
        num_vision_tokens_each_frame=P,
    )
    torch.testing.assert_close(run(model, video, more), wanted, rtol=0, atol=0)


def test_order_and_repetition_of_gazes_mean_nothing() -> None:
    model, video = small_model(), clips(1, 2)
    one, other = gaze_of([[0, 2, 4], [1, 3]]), gaze_of([[4, 0, 2, 4], [3, 1, 1]])
    assert torch.equal(run(model, video, one), run(model, video, other))


def test_a_batch_equals_its_clips() -> None:
    model, video = small_model(), clips(4, 5)
    gazes = [random_cells(5, seed=seed) for seed in range(4)]
    with torch.no_grad():
        together = model(video, gazes, [0, 2, 4])
        for b, gaze in enumerate(gazes):
            alone = model(video[b : b + 1], gaze, [0, 2, 4])
            torch.testing.assert_close(alone.reconstruction[0], together.reconstruction[b], rtol=0, atol=1e-5)
            torch.testing.assert_close(alone.loss_mean[0], together.loss_mean[b], rtol=0, atol=1e-6)


def test_a_clip_without_gazes_is_rebuilt_from_nothing() -> None:
    model = small_model()
    empty = gaze_of([[], []])
    with torch.no_grad():
        one, other = (model(clips(1, 2, seed=seed), empty).reconstruction for seed in (1, 2))
    assert torch.equal(one, other)
    assert one.isfinite().all()


def test_a_gaze_of_a_resized_video_of_any_size_fits() -> None:
    model, video = small_model(), clips(1, 1)
    layout = FrameLayout.resized(GRID, height_px=45, width_px=80)
    gaze = gaze_of([[0, 3]])
    assert torch.equal(
        run(model, video, Gaze(index=gaze.index, count=gaze.count, layout=layout)), run(model, video, gaze)
    )


@pytest.mark.parametrize("ragged", [True, False])
def test_memory_is_linear_in_frames(ragged: bool) -> None:
    model = small_model(time_embed=False)
    largest = []
    for frames in (50, 100):
        gazes = [gaze_of([range(t % P) if ragged else [0, 1] for t in range(b, frames + b)]) for b in range(2)]
        with LargestTensor() as seen:
            model(clips(2, frames), gazes).loss_mean.sum().backward()
        largest.append(seen.numel)
    assert largest[1] <= 2.05 * largest[0]


# Pieces


def test_patches_are_those_of_a_convolution() -> None:
    model, video = small_model(), clips(2, 2)
    projection = model.vit.embeddings.patch_embeddings.projection
    wanted = projection(video.flatten(0, 1)).flatten(2).transpose(1, 2).reshape(2, 2, 4, -1)
    got = model.vit.embeddings.patch_embeddings(scale_patches(video, GRID)[:, :, 1:])
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_positions_are_the_sines_of_image_autoencoders() -> None:
    table = position_table(PatchGrid(scales_px=(48,)), 24)
    assert not table.requires_grad
    assert table.shape == (1, 10, 24)
    assert not table[0, 0].any()
    for row in range(3):
        for column in range(3):
            waves = [10_000 ** (-i / 6) for i in range(6)]
            wanted = [
                wave(place * speed) for place in (column, row) for wave in (math.sin, math.cos) for speed in waves
            ]
            torch.testing.assert_close(table[0, 1 + 3 * row + column], torch.tensor(wanted))


# Training and precision


def test_gradients_are_finite_and_reach_every_weight() -> None:
    model = small_model()
    gazes = [random_cells(4, seed=seed) for seed in (3, 4)]
    model(clips(2, 4), gazes, [1, 3]).loss_mean.sum().backward()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            assert name in ("vit.embeddings.position_embeddings", "decoder.decoder_pos_embed")
            continue
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        # A key's bias moves all scores of a query alike.
        assert name.endswith("key.bias") or weight.grad.abs().max() > 0, name


def test_gradients_of_the_batch_are_those_of_its_clips() -> None:
    model, video = small_model(), clips(2, 3)
    gazes = [random_cells(3, seed=seed) for seed in (5, 6)]
    together = torch.autograd.grad(model(video, gazes).loss_mean.sum(), model.decoder.mask_token)[0]
    alone = sum(
        torch.autograd.grad(model(video[b : b + 1], gazes[b]).loss_mean.sum(), model.decoder.mask_token)[0]
        for b in range(2)
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_ten_steps_of_training_reduce_the_loss() -> None:
    model, video = small_model(initializer_range=0.05), clips(2, 3)
    gazes = [random_cells(3, seed=seed) for seed in (1, 2)]
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    losses = []
    for _ in range(11):
        loss = model(video, gazes).loss_mean.mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_half_precision_is_close_and_trains() -> None:
    model, video = small_model(initializer_range=0.1), clips(2, 3)
    gazes = [random_cells(3, seed=seed) for seed in (1, 2)]
    wanted = run(model, video, gazes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(video, gazes)
    torch.testing.assert_close(output.loss_each_reconstruction_frame, wanted, rtol=0.03, atol=0.03)
    output.loss_mean.sum().backward()
    half = small_model(initializer_range=0.1).to(torch.bfloat16)
    got = run(half, video, gazes)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=0.05, atol=0.05)


# The loss


def test_the_default_loss_is_the_weighted_mean_absolute_error() -> None:
    model, video = small_model(loss_type="dinov2_reg+l1", loss_weights="0.3+2"), clips(1, 2)
    with torch.no_grad():
        output = model(video, random_cells(2, seed=1))
    error = (output.reconstruction - video).abs().mean((2, 3, 4))
    torch.testing.assert_close(output.loss_each_reconstruction_frame, 2 * error)
    torch.testing.assert_close(output.loss_mean, output.loss_each_reconstruction_frame.mean(1))
    assert model.loss_unit.startswith("2 × mean absolute error")


def test_a_given_loss_judges_and_is_no_part_of_the_model() -> None:
    class Judge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(3.0))

        def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
            return self.weight * torch.ones(prediction.shape[:2])

    model = VideoMAE(small_config(), loss=Judge())
    assert run(model, clips(1, 2), random_cells(2, seed=1)).tolist() == [[3.0, 3.0]]
    assert model.state_dict().keys() == small_model().state_dict().keys()
    model.loss = lambda prediction, target: torch.zeros(prediction.shape[:2])
    assert run(model, clips(1, 2), random_cells(2, seed=1)).tolist() == [[0.0, 0.0]]


# Wrong input


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (torch.zeros(1, 2, 3, 64, 64), r"must be \(B, T, 3, 32, 32\), got \(1, 2, 3, 64, 64\).*autogaze.tiling.split"),
        (torch.zeros(1, 2, 3, 32, 48), "must be"),
        (torch.zeros(2, 3, 32, 32), "must be"),
        (torch.zeros(1, 0, 3, 32, 32), "must be"),
        (torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8), "normalised floating-point colours, got torch.uint8"),
        (torch.zeros(1, 21, 3, 32, 32), "at most 20 frames, got 21"),
    ],
)
def test_videos_that_do_not_fit_are_refused(video: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model()(video, random_cells(2, seed=1))


def test_without_time_entries_a_clip_may_be_of_any_length() -> None:
    model = small_model(time_embed=False, max_num_frames=1)
    assert run(model, clips(1, 4), random_cells(4, seed=1)).shape == (1, 4)


def info(**changes: Any) -> dict[str, Any]:
    return {
        "gazing_pos": torch.tensor([[0, 4, 5]]),
        "if_padded_gazing": torch.zeros(1, 3, dtype=torch.bool),
        "num_gazing_each_frame": torch.tensor([2, 1]),
        **changes,
    }


@pytest.mark.parametrize(
    ("gazes", "error", "message"),
    [
        (random_cells(3, seed=1), ValueError, "clip's 2 frames, got 3"),
        ([random_cells(2, seed=1)] * 2, ValueError, "each of 1 clips, got 2"),
        (random_cells(2, seed=1, grid=PatchGrid(scales_px=(32,))), ValueError, "one tile of PatchGrid"),
        (
            Gaze(index=[0], count=[1, 0], layout=FrameLayout.tiled(GRID, height_px=64, width_px=32)),
            ValueError,
            "autogaze.tiling.tile",
        ),
        ("0 1 2", TypeError, "got str"),
        ([1, 2], TypeError, "got list"),
        ({"gazing_pos": torch.zeros(1, 3)}, ValueError, "lacks 'if_padded_gazing'"),
        (info(num_vision_tokens_each_frame=265), ValueError, "frames of 265 patches, the grid has 5"),
        (info(num_gazing_each_frame=torch.tensor([2, 0])), ValueError, r"sum to 3 slots, got \[2, 0\]"),
        (info(num_gazing_each_frame=torch.tensor([3])), ValueError, "must have 2 numbers"),
        (info(gazing_pos=torch.tensor([[0, 4, 10]])), ValueError, r"position 10 of clip 0 .* frame 1.*5\.\.9"),
        (info(gazing_pos=torch.tensor([[0, 7, 8]])), ValueError, r"position 7 of clip 0 .* frame 0.*0\.\.4"),
        (info(gazing_pos=torch.tensor([[0, -1, 8]])), ValueError, "position -1"),
    ],
)
def test_gazes_that_do_not_fit_are_refused(gazes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_model()(clips(1, 2), gazes)


@pytest.mark.parametrize("frames", [[], [2], [-1], [0.5], torch.zeros(2, 1, dtype=torch.int64)])
def test_frames_that_do_not_exist_are_refused(frames: Any) -> None:
    with pytest.raises(ValueError, match="frame_idx_to_reconstruct must"):
        small_model()(clips(1, 2), random_cells(2, seed=1), frames)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "5 heads must divide 24 channels"),
        ({"hidden_size": 26, "num_attention_heads": 13}, "multiple of 4"),
        ({"image_size": 40, "scales": "40"}, "must divide image_size"),
        ({"scales": "16+64"}, r"finest of scales 16\+64 must be image_size \(32 px\)"),
        ({"scales": "24+32"}, "multiples of patch_size"),
        ({"scales": "a+b"}, "invalid literal"),
        ({"loss_weights": "1+1"}, "one number for each term"),
        ({"loss_weights": "x"}, "loss_weights must be numbers joined by"),
        ({"hidden_size": 0}, "hidden_size must be a whole number above 0, got 0"),
        ({"hidden_size": "24"}, "hidden_size must be a whole number"),
        ({"causal": 1}, "causal must be true or false, got 1"),
        ({"hidden_act": "relu"}, "hidden_act must be 'gelu'"),
    ],
)
def test_configurations_that_make_no_network_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        VideoMAEConfig.from_dict({**small_config().to_dict(), **changes})


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    config = VideoMAEConfig.from_dict({**small_config().to_dict(), "norm_pix_loss": False})
    config.to_json_file(tmp_path / "config.json")
    assert VideoMAEConfig.from_json_file(tmp_path / "config.json") == config
    assert config.extra == {"norm_pix_loss": False}
