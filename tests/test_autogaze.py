"""The model class: loading, saving, modern and published calls, and what they refuse."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from autogaze.errors import BudgetError, CheckpointError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze import AutoGaze, AutoGazeConfig
from autogaze.models.autogaze.autogaze import IMAGENET_MEAN, IMAGENET_STD, normalised
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.selectors.base import Budget
from autogaze.tiling import split
from golden import SMALL, normalise
from small_models import small_config


@pytest.fixture(scope="module")
def model() -> AutoGaze:
    return AutoGaze.from_pretrained(SMALL)


@pytest.fixture
def folder(tmp_path):
    """A copy of the small checkpoint that a test may damage."""
    copy = tmp_path / "checkpoint"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(SMALL / name, copy / name)
    return copy


def frames(count: int = 8, side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


class TestCheckpoints:
    def test_save_and_load_is_the_identity(self, model, tmp_path):
        model.save_pretrained(tmp_path / "saved")
        again = AutoGaze.from_pretrained(tmp_path / "saved")
        assert again.config == model.config
        assert {name: weight.dtype for name, weight in again.state_dict().items()} == {
            name: weight.dtype for name, weight in model.state_dict().items()
        }
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, again.state_dict()[name])

    def test_a_weights_file_finds_its_config(self, model, folder):
        again = AutoGaze.from_pretrained(folder / "model.safetensors")
        assert torch.equal(again.gazing_model.connector.pos_embed, model.gazing_model.connector.pos_embed)

    def test_unknown_keys_survive(self, folder):
        config = AutoGazeConfig.from_json_file(folder / "config.json")
        assert config.extra["attn_mode"] == "sdpa"
        config.to_json_file(folder / "config.json")
        assert AutoGazeConfig.from_json_file(folder / "config.json").extra["attn_mode"] == "sdpa"

    def test_our_own_configs_record_true_positions(self, tmp_path):
        AutoGaze(small_config()).save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["positions"] == "true"
        assert AutoGaze.from_pretrained(tmp_path).config.positions == "true"
        assert AutoGaze.from_pretrained(tmp_path, positions="reference").config.positions == "reference"

    def test_missing_and_unknown_weights_are_named(self, folder):
        weights = load_file(folder / "model.safetensors")
        weights["gazing_model.stray"] = torch.zeros(1)
        del weights["gazing_model.connector.pos_embed"]
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(
            CheckpointError, match=r"1 missing: gazing_model\.connector\.pos_embed; 1 not known: gazing_model\.stray"
        ):
            AutoGaze.from_pretrained(folder)

    def test_weights_of_another_shape_are_named(self, folder):
        weights = load_file(folder / "model.safetensors")
        weights["gazing_model.connector.pos_embed"] = torch.zeros(3, 32)
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"pos_embed \(3, 32\) instead of \(16, 32\)"):
            AutoGaze.from_pretrained(folder)

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_missing_file(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=f"{name} is missing"):
            AutoGaze.from_pretrained(folder)

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_damaged_file(self, folder, name):
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
        with pytest.raises(CheckpointError, match=name):
            AutoGaze.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"scales": "32+48"}, "finest scale"),
            ({"scales": "48+64"}, "vocab_size must be"),
            ({"scales": "a+b"}, "not a AutoGazeConfig"),
            ({"scales": 7}, "scales must be text"),
            ({"gaze_model_config": None}, "gaze_model_config must be an object"),
            ({"gaze_model_config": {"input_img_size": "64"}}, "input_img_size must be a whole number above 0"),
            ({"gaze_model_config": {"vision_model_config": {"kernel_size": 0}}}, "kernel_size must be a whole number"),
            (
                {"gaze_model_config": {"gaze_decoder_config": {"rope_theta": "x"}}},
                "rope_theta must be a number above 0",
            ),
            ({"gaze_model_config": {"gaze_decoder_config": {"rope_scaling": "x"}}}, "rope_scaling must be an object"),
            ({"positions": "wrong"}, "positions must be"),
            ({"max_num_frames": 0}, "max_num_frames"),
        ],
    )
    def test_a_config_that_does_not_fit(self, folder, change, message):
        data = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(data | change))
        with pytest.raises(CheckpointError, match=message):
            AutoGaze.from_pretrained(folder)

    def test_a_network_too_large_to_build(self, folder):
        data = json.loads((folder / "config.json").read_text())
        data["gaze_model_config"]["gaze_decoder_config"]["intermediate_size"] = 10**14
        (folder / "config.json").write_text(json.dumps(data))
        with pytest.raises(CheckpointError, match="no network that can be built"):
            AutoGaze.from_pretrained(folder)

    def test_reference_positions_need_as_many_tokens_as_a_group(self):
        with pytest.raises(ValueError, match='"reference" need at least 40 visual tokens'):
            replace(small_config(group_size=40), positions="reference")

    @pytest.mark.parametrize("text", ["[]", "{}", '{"model_type": "llama"}', "[" * 100_000])
    def test_a_foreign_config(self, folder, text):
        (folder / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            AutoGaze.from_pretrained(folder)

    @pytest.mark.parametrize("source", ["nowhere", "./nowhere", "no/such/thing", "missing.safetensors"])
    def test_nothing_there(self, source):
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            AutoGaze.from_pretrained(source)

    def test_a_hub_id_that_was_never_fetched(self, tmp_path):
        with pytest.raises(CheckpointError, match="cannot get owner/name from the hub"):
            AutoGaze.from_pretrained("owner/name", local_files_only=True, cache_dir=str(tmp_path))

    def test_a_file_that_is_no_checkpoint(self, tmp_path):
        (tmp_path / "model.bin").write_bytes(b"x")
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            AutoGaze.from_pretrained(tmp_path / "model.bin")

    def test_pushing_to_an_illegal_name(self, model):
        with pytest.raises(CheckpointError, match="cannot push"):
            model.push_to_hub("not a legal name!", token="none")

    def test_configs_are_not_shared_or_changed(self):
        data = json.loads((SMALL / "config.json").read_text())
        before = json.dumps(data)
        first, second = AutoGazeConfig.from_dict(data), AutoGazeConfig.from_dict(data)
        assert json.dumps(data) == before
        assert first == second
        assert AutoGazeConfig().extra is not AutoGazeConfig().extra


class TestModernCall:
    def test_a_batch_equals_single_calls(self, model):
        videos = np.stack([frames(seed=seed) for seed in range(7)])
        batch = model.gaze_batch(videos, ratio=0.5, threshold=-1.2)
        assert len({gaze.num_gazes for gaze in batch}) > 1
        for video, gaze in zip(videos, batch, strict=True):
            alone = model.gaze(video, ratio=0.5, threshold=-1.2)
            assert np.array_equal(alone.index, gaze.index)
            assert np.array_equal(alone.count, gaze.count)
            np.testing.assert_allclose(alone.probability, gaze.probability, rtol=1e-4)

    def test_a_long_video_is_cut_into_clips(self, model):
        video = frames(20)
        whole = model.gaze(video, ratio=0.3)
        parts = [model.gaze(video[start : start + 8], ratio=0.3) for start in (0, 8, 16)]
        joined = Gaze.concatenate(parts)
        assert np.array_equal(whole.index, joined.index)
        assert np.array_equal(whole.count, joined.count)

    def test_frames_of_another_size_are_resized_and_mapped_back(self, model):
        video = np.random.default_rng(0).integers(0, 256, (4, 90, 150, 3), dtype=np.uint8)
        gaze = model.gaze(video, ratio=0.2)
        layout = FrameLayout.resized(model.grid, height_px=90, width_px=150)
        assert gaze.layout == layout
        assert np.array_equal(gaze.index, model.gaze(split(video, layout)[0], ratio=0.2).index)
        assert gaze.boxes_px[:, 2].max() <= 150
        assert gaze.boxes_px[:, 3].max() <= 90

    def test_ratio_is_a_ceiling_per_frame(self, model):
        ratios = [0.05, 0.1, 0.3, 1.0, 0.049, 0.99, 0.5, 0.15]
        assert model.gaze(frames(), ratio=ratios).count.tolist() == [1, 2, 6, 20, 1, 19, 10, 3]

    def test_without_limits_the_config_decides(self, model):
        assert model.gaze(frames()).count.tolist() == [10] * 8  # its fixed ratio is one half

    def test_greedy_gazing_draws_nothing(self, model):
        state = torch.get_rng_state()
        model.gaze(frames(2))
        model.gaze(frames(2), ratio=0.1)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("ratio", [np.float32(0.2), np.float64(0.2), torch.tensor(0.2), [0.2] * 8, np.full(8, 0.2)])
    def test_numbers_of_any_library(self, model, ratio):
        assert model.gaze(frames(), ratio=ratio).count.tolist() == [4] * 8

    @pytest.mark.parametrize("optimizer", [torch.optim.SGD, partial(torch.optim.AdamW, fused=True)])
    def test_weights_changed_behind_versions_back_are_seen(self, optimizer):
        model = AutoGaze(small_config()).eval()
        gaze = model.gaze(frames(2), ratio=0.5)
        steps = optimizer(model.parameters(), lr=0.5)
        model.score(frames(2)[None], [gaze]).log_probability_BN.sum().backward()
        steps.step()
        for parameter in model.parameters():
            parameter.data.mul_(-1.5)
        fresh = AutoGaze(model.config).eval()
        fresh.load_state_dict(model.state_dict())
        assert np.array_equal(model.gaze(frames(2), ratio=0.5).index, fresh.gaze(frames(2), ratio=0.5).index)

    def test_sampling_is_repeatable(self, model):
        def draw(seed: int) -> list[int]:
            generator = torch.Generator().manual_seed(seed)
            return model.gaze(frames(), ratio=0.5, temperature=1.0, generator=generator).index.tolist()

        assert draw(1) == draw(1)
        assert draw(1) != draw(2)

    def test_a_batch_of_generators(self, model):
        videos = np.stack([frames(seed=1), frames(seed=2)])

        def generators(*seeds: int) -> list[torch.Generator]:
            return [torch.Generator().manual_seed(seed) for seed in seeds]

        batch = model.gaze_batch(videos, ratio=0.5, temperature=1.0, generator=generators(3, 4))
        alone = model.gaze_batch(videos[1:], ratio=0.5, temperature=1.0, generator=generators(4))
        assert np.array_equal(batch[1].index, alone[0].index)

    @pytest.mark.parametrize(
        "options",
        [
            {"ratio": 0},
            {"ratio": -1},
            {"ratio": 7},
            {"ratio": float("nan")},
            {"threshold": float("nan")},
            {"ratio": []},
        ],
    )
    def test_illegal_limits(self, model, options):
        with pytest.raises(BudgetError):
            model.gaze(frames(), **options)

    def test_too_few_ratios(self, model):
        with pytest.raises(BudgetError, match="one for each of 8 frames of a clip, got 3"):
            model.gaze(frames(), ratio=[0.1, 0.2, 0.3])

    @pytest.mark.parametrize(
        "video",
        [
            np.zeros((8, 64, 64), np.uint8),
            np.zeros((8, 64, 64, 4), np.uint8),
            np.zeros((0, 64, 64, 3), np.uint8),
            np.zeros((8, 64, 64, 3), np.float32),
            np.zeros((8, 3, 64, 64), np.int64),
        ],
    )
    def test_illegal_videos(self, model, video):
        with pytest.raises(ValueError, match="uint8"):
            model.gaze(video, ratio=0.1)

    def test_preprocessing_is_the_published_formula(self, model):
        video = frames(2)
        torch.testing.assert_close(model.preprocess(video), normalise(torch.from_numpy(video)))
        with pytest.raises(ValueError, match="uint8"):
            model.preprocess(video.astype(np.float32))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_preprocessing_does_the_same_steps_to_every_frame(self, model, dtype):
        colours = torch.arange(256, dtype=torch.uint8)
        video = torch.stack([colours, colours.flip(0), colours.roll(7)], -1).view(1, 16, 16, 3)
        video = torch.stack([video.roll(t, 1) for t in range(6)]).view(2, 3, 1, 16, 16, 3)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        whole = (video.movedim(-1, -3).float() / 127.5 - 1 - mean) / std
        before, half = video.clone(), AutoGaze(model.config).to(dtype)
        seen = half.preprocess(video)
        assert torch.equal(seen, whole.to(dtype))
        assert seen.stride() == whole.stride()
        assert torch.equal(half.preprocess(video.transpose(0, 1)), whole.transpose(0, 1).to(dtype))
        assert torch.equal(half.preprocess(video[0, 0, 0]), whole[0, 0, 0].to(dtype))
        assert half.preprocess(video[:0]).shape == (0, 3, 1, 3, 16, 16)
        assert torch.equal(normalised(video), whole)
        assert torch.equal(video, before), "the argument is left alone"

    def test_half_precision(self):
        half = AutoGaze.from_pretrained(SMALL, dtype=torch.bfloat16)
        assert half.dtype == torch.bfloat16
        gaze = half.gaze(frames(), ratio=0.25)
        assert gaze.count.tolist() == [5] * 8
        assert np.isfinite(gaze.probability).all()

    def test_read_only_and_reversed_arrays(self, model):
        video = frames()
        locked = video.copy()
        locked.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert model.gaze(locked, ratio=0.2).equals(model.gaze(video, ratio=0.2))
            assert model.gaze(video[:, ::-1], ratio=0.2).equals(model.gaze(video[:, ::-1].copy(), ratio=0.2))

    def test_published_shorthands(self, model):
        assert model.scales == [32, 64]
        assert model.num_vision_tokens_each_frame == 20
        assert model.num_vision_tokens_each_scale_each_frame == [4, 16]
        assert model.frame_sampling_rate == 1
        assert model.attn_mode == "sdpa"


class TestScore:
    def test_scores_are_the_decoders_probabilities(self, model):
        """Generation masks what was gazed before; undoing that must give what teacher forcing says."""
        true = AutoGaze.from_pretrained(SMALL, positions="true")
        video = frames()
        gaze = true.gaze(video, ratio=0.2)  # one full group of 4 a frame: only the first gaze has nothing masked
        scored = true.score(video[None], [gaze])
        first = gaze.order == 0
        probability = scored.log_probability_BN.exp()[0].detach().numpy()[first]
        # At the first gaze only the end token is masked.
        assert (gaze.probability[first] >= probability - 1e-6).all()
        np.testing.assert_allclose(gaze.probability[first], probability, rtol=0.2)
        known = np.isfinite(gaze.predicted_loss)
        np.testing.assert_allclose(
            gaze.predicted_loss[known], scored.predicted_loss_BN[0].detach().numpy()[known], atol=1e-4
        )

    def test_padding_changes_nothing_and_gets_no_gradient(self, model):
        videos = np.stack([frames(seed=1), frames(seed=2)])
        gazes = [model.gaze(videos[0], ratio=0.1), model.gaze(videos[1], ratio=0.6)]
        both = model.score(videos, gazes)
        alone = model.score(videos[:1], gazes[:1])
        slots = np.concatenate([np.arange(2) + 12 * t for t in range(8)])
        torch.testing.assert_close(both.log_probability_BN[0, slots], alone.log_probability_BN[0])
        torch.testing.assert_close(both.predicted_loss_BN[0, slots], alone.predicted_loss_BN[0])
        model.zero_grad()
        both.log_probability_BN[0, slots].sum().backward()
        gradient = model.gazing_model.gaze_decoder.model.embed_tokens.weight.grad
        unused = np.setdiff1d(np.arange(21), gazes[0].index)
        assert gradient is not None
        assert gradient[torch.from_numpy(unused)].abs().max() == 0
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())

    def test_clips_without_a_gaze(self, model):
        nothing = replace(model.gaze(frames(2), ratio=0.1)[:0], count=np.zeros(2, np.int64), time_seconds=None)
        assert model.score(frames(2)[None], [nothing]).log_probability_BN.shape == (1, 0)

    def test_gazes_of_another_grid(self, model):
        layout = FrameLayout.resized(PatchGrid(), height_px=64, width_px=64)
        gaze = Gaze(index=np.array([250]), count=np.array([1]), layout=layout)
        with pytest.raises(ValueError, match="must be of one tile of"):
            model.score(frames(1)[None], [gaze])

    def test_gazes_of_another_video(self, model):
        with pytest.raises(ValueError, match="one gaze of 8 frames for each of 1 clips"):
            model.score(frames()[None], [model.gaze(frames(4), ratio=0.1)])


class TestPublishedCall:
    def test_a_batch_equals_single_calls(self, model):
        video = normalise(torch.from_numpy(np.stack([frames(seed=seed) for seed in range(3)])))
        options = {"gazing_ratio": 0.75, "task_loss_requirement": -1.0}
        batch = model({"video": video}, **options)
        P = batch["num_vision_tokens_each_frame"]
        for b in range(3):
            alone = model({"video": video[b : b + 1]}, **options)
            kept, kept_alone = ~batch["if_padded_gazing"][b], ~alone["if_padded_gazing"][0]
            assert torch.equal(batch["gazing_pos"][b][kept], alone["gazing_pos"][0][kept_alone])
            torch.testing.assert_close(
                batch["log_action_probs"][b][kept], alone["log_action_probs"][0][kept_alone], atol=1e-4, rtol=1e-4
            )
        frame = torch.repeat_interleave(batch["num_gazing_each_frame"])
        assert (batch["gazing_pos"] // P == frame).all(), "padding must stay inside its frame too"

    def test_scoring_is_differentiable_and_generation_can_be_left_out(self, model):
        video = normalise(torch.from_numpy(frames()))[None]
        out = model({"video": video}, gazing_ratio=0.2, generate_only=True)
        assert out["log_action_probs"] is None
        scored = model({"video": video}, gazing_info=out)
        assert scored["log_action_probs"].requires_grad
        assert torch.equal(scored["gazing_pos"], out["gazing_pos"])

    def test_going_on_twice_from_the_same_past(self, model):
        video = normalise(torch.from_numpy(frames()))[None]
        options = {"gazing_ratio": 0.4, "use_cache": True, "generate_only": True}
        first = model({"video": video[:, :3]}, **options)
        past = {"past_key_values": first["past_key_values"]}
        one = model({"video": video[:, 3:5]}, **options, **past)
        model({"video": video[:, 5:7]}, **options, **past)
        two = model({"video": video[:, 3:5]}, **options, **past)
        assert torch.equal(one["gazing_pos"], two["gazing_pos"])
        whole = model({"video": video[:, :5]}, **options)
        P = whole["num_vision_tokens_each_frame"]
        tail = whole["gazing_pos"][:, first["gazing_pos"].shape[1] :]
        assert torch.equal(one["gazing_pos"] + 3 * P, tail)

    def test_a_past_of_another_batch(self, model):
        video = normalise(torch.from_numpy(frames()))[None]
        past = model({"video": video[:, :1]}, gazing_ratio=0.1, use_cache=True)["past_key_values"]
        with pytest.raises(ValueError, match="the past is of 1 clips, the video of 2"):
            model({"video": video[:, :1].expand(2, -1, -1, -1, -1)}, gazing_ratio=0.1, past_key_values=past)

    def test_training_mode_draws(self):
        model = AutoGaze.from_pretrained(SMALL).train()
        video = normalise(torch.from_numpy(frames()))[None]
        torch.manual_seed(0)
        draws = {tuple(model({"video": video}, gazing_ratio=0.3)["gazing_pos"][0].tolist()) for _ in range(4)}
        assert len(draws) > 1

    def test_a_frame_with_nothing_left_is_empty(self, model):
        """A target grid of one cell a side crops all that the model may have gazed at elsewhere."""
        video = normalise(torch.from_numpy(frames(side=31)))[None]
        out = model(
            {"video": video}, gazing_ratio=0.05, target_scales=[16, 31], target_patch_size=16, generate_only=True
        )
        assert out["num_vision_tokens_each_frame"] == 2
        assert len(out["num_gazing_each_frame"]) == 8
        assert int(out["num_gazing_each_frame"].sum()) == out["gazing_pos"].shape[1]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"target_scales": [96], "target_patch_size": 16}, "must name 2 scales"),
            ({"target_scales": [48, 80], "target_patch_size": 16}, "must be 80 × 80 px, got 64 × 64"),
            ({"gazing_ratio": [0.1, 0.2]}, "one for each of 8 frames, got 2"),
            ({"gazing_ratio": 0}, "above 0"),
            ({"target_scales": [32, 64], "target_patch_size": 8, "gazing_info": {}}, "own grid"),
        ],
    )
    def test_illegal_calls(self, model, options, message):
        with pytest.raises(ValueError, match=message):
            model({"video": normalise(torch.from_numpy(frames()))[None]}, **options)

    @pytest.mark.parametrize(
        "video",
        [
            torch.zeros(8, 3, 64, 64),
            torch.zeros(1, 0, 3, 64, 64),
            torch.zeros(0, 8, 3, 64, 64),
            torch.zeros(1, 8, 3, 64, 64, dtype=torch.uint8),
        ],
        ids=["no batch", "no frames", "no clips", "not normalised"],
    )
    def test_illegal_video(self, model, video):
        with pytest.raises(ValueError, match=r"must be \(B, T, 3, H, W\)"):
            model({"video": video}, gazing_ratio=0.1)

    def test_arguments_may_be_given_by_place(self, model):
        video = normalise(torch.from_numpy(frames(4, side=96)))[None]
        by_place = model({"video": video}, [48, 96], 16, gazing_ratio=0.2)
        by_name = model({"video": video}, target_scales=[48, 96], target_patch_size=16, gazing_ratio=0.2)
        assert torch.equal(by_place["gazing_pos"], by_name["gazing_pos"])

    def test_non_square_frames_are_resized(self, model):
        video = torch.randn(1, 3, 3, 64, 100, generator=torch.Generator().manual_seed(0))
        squeezed = torch.nn.functional.interpolate(video[0], (64, 64), mode="bicubic", align_corners=False)[None]
        out, wanted = model({"video": video}, gazing_ratio=0.2), model({"video": squeezed}, gazing_ratio=0.2)
        assert torch.equal(out["gazing_pos"], wanted["gazing_pos"])

    def test_threshold_as_a_tensor(self, model):
        video = normalise(torch.from_numpy(frames()))[None]
        number = model({"video": video}, task_loss_requirement=-1.0)
        tensor = model({"video": video}, task_loss_requirement=torch.full((1, 8), -1.0))
        assert torch.equal(number["gazing_pos"], tensor["gazing_pos"])
        assert tensor["task_loss_requirement"].shape == (1, 8)
        with pytest.raises(ValueError, match="one number for all"):
            model({"video": video}, task_loss_requirement=torch.arange(8.0)[None])


class TestDrawnBudgets:
    def draw(self, seed: int = 0, **changes: object) -> Budget:
        from autogaze.models.autogaze.budgets import draw_budget

        config = replace(small_config(), **changes)
        return draw_budget(config, frames=8, generator=torch.Generator().manual_seed(seed))

    def test_fixed(self):
        config = {"sample_strategy_during_inference": "fixed", "fixed": {"gazing_ratio": 0.3}}
        assert self.draw(gazing_ratio_config=config) == Budget(ratio=0.3)

    @pytest.mark.parametrize("strategy", ["uniform", "exponential"])
    def test_drawn_between_limits(self, strategy):
        settings = {"gazing_ratio_min": 0.02, "gazing_ratio_max": 0.2, "lambda": 10}
        config = {"sample_strategy_during_inference": strategy, strategy: settings}
        draws = [self.draw(seed, gazing_ratio_config=config).ratio for seed in range(200)]
        assert 0.02 <= min(draws) < 0.04
        assert 0.15 < max(draws) <= 0.2
        mean = 0.11 if strategy == "uniform" else 0.0836  # of the exponential restricted to [0.02, 0.2]
        assert np.mean(draws) == pytest.approx(mean, abs=0.012)

    def test_dirichlet_keeps_the_mean(self):
        fixed = {"sample_strategy_during_inference": "fixed", "fixed": {"gazing_ratio": 0.05}}
        spread = {"sample_strategy_during_inference": "dirichlet", "dirichlet": {"alpha": [10] + [3] * 7}}
        budgets = [
            self.draw(seed, gazing_ratio_config=fixed, gazing_ratio_each_frame_config=spread).ratio
            for seed in range(100)
        ]
        assert np.mean(budgets) == pytest.approx(0.05, rel=0.02)
        means = np.mean(budgets, axis=0)
        assert means[0] == pytest.approx(10 / 31 * 8 * 0.05, rel=0.1)

    def test_threshold(self):
        budget = self.draw(
            has_task_loss_requirement_during_inference=True,
            task_loss_requirement_config={
                "sample_strategy_during_inference": "fixed",
                "fixed": {"task_loss_requirement": 0.6},
            },
        )
        assert budget.threshold == 0.6

    @pytest.mark.parametrize("name", ["gazing_ratio_config", "gazing_ratio_each_frame_config"])
    def test_an_unknown_strategy(self, name):
        with pytest.raises(CheckpointError, match='"magic"'):
            self.draw(**{name: {"sample_strategy_during_inference": "magic"}})


class TestSelector:
    def gaze(self, model: AutoGaze, video: np.ndarray, cuts: list[int], *, tile_batch: int) -> Gaze:
        layout = FrameLayout.tiled(model.grid, height_px=video.shape[1], width_px=video.shape[2])
        selector = AutoGazeSelector(model, tile_batch=tile_batch)
        session = selector.open(layout, Budget(ratio=0.5, threshold=-1.0))
        everything = Frames.from_rgb(video)
        ends = np.cumsum(cuts)
        return Gaze.concatenate([session.step(everything[e - c : e]) for c, e in zip(cuts, ends, strict=True)])

    @pytest.mark.parametrize("tile_batch", [1, 4, 100])
    @pytest.mark.parametrize("cuts", [[1] * 19, [8, 8, 3], [5, 5, 5, 4], [19]])
    def test_cuts_and_tile_batches_change_nothing(self, model, cuts, tile_batch):
        video = np.random.default_rng(0).integers(0, 256, (19, 100, 150, 3), dtype=np.uint8)
        whole = self.gaze(model, video, [19], tile_batch=100)
        gaze = self.gaze(model, video, cuts, tile_batch=tile_batch)
        assert np.array_equal(gaze.index, whole.index)
        assert np.array_equal(gaze.count, whole.count)
        assert np.array_equal(gaze.time_seconds, whole.time_seconds)

    @pytest.mark.parametrize("cuts", [[19], [1] * 19])
    def test_every_clip_starts_afresh(self, model, cuts):
        video = frames(19)
        tiled = self.gaze(model, video, cuts, tile_batch=4)
        assert np.array_equal(tiled.index, model.gaze(video, ratio=0.5, threshold=-1.0).index)
        last = model.gaze(video[16:], ratio=0.5, threshold=-1.0)
        assert np.array_equal(tiled[16:].index, last.index)

    def test_each_tile_is_gazed_at_on_its_own(self, model):
        video = np.random.default_rng(1).integers(0, 256, (8, 100, 150, 3), dtype=np.uint8)
        gaze = self.gaze(model, video, [8], tile_batch=4)
        assert gaze.layout.inside[gaze.index].all()
        one = model.gaze(video[:, :64, 64:128], ratio=0.5, threshold=-1.0)
        of_tile = gaze.index // model.grid.num_patches == 1
        assert np.array_equal(gaze.index[of_tile] - model.grid.num_patches, one.index)

    def test_one_tile_equals_the_plain_call(self, model):
        video = frames()
        tiled = self.gaze(model, video, [8], tile_batch=1)
        plain = model.gaze(video, ratio=0.5, threshold=-1.0)
        assert replace(tiled, time_seconds=None).equals(plain)

    @pytest.mark.parametrize(
        ("budget", "message"),
        [
            (Budget(psnr_db=30), "not decibels"),
            (Budget(ratio=0.1, per="clip"), "not per clip"),
            (Budget(ratio=(0.1, 0.2)), "one number or 8"),
        ],
    )
    def test_budgets_it_cannot_keep(self, model, budget, message):
        layout = FrameLayout.tiled(model.grid, height_px=64, width_px=64)
        with pytest.raises(BudgetError, match=message):
            AutoGazeSelector(model).open(layout, budget)

    def test_a_foreign_grid(self, model):
        layout = FrameLayout.tiled(PatchGrid(), height_px=64, width_px=64)
        with pytest.raises(ValueError, match="the layout is of"):
            AutoGazeSelector(model).open(layout, Budget(ratio=0.1))

    def test_a_frame_of_another_size_is_refused_and_forgotten(self, model):
        video = frames(6)
        layout = FrameLayout.tiled(model.grid, height_px=64, width_px=64)
        session = AutoGazeSelector(model).open(layout, Budget(ratio=0.5))
        first = session.step(Frames.from_rgb(video[:3]))
        with pytest.raises(ValueError, match="frames must be 64 × 64 px, got 32 × 64"):
            session.step(Frames.from_rgb(video[:1, :32]))
        joined = Gaze.concatenate([first, session.step(Frames.from_rgb(video[3:]))])
        assert np.array_equal(joined.index, model.gaze(video, ratio=0.5).index)

    def test_default_budget(self, model):
        assert AutoGazeSelector(model).default_budget == Budget(ratio=0.75, threshold=0.7)
        limits = {"sample_strategy_during_inference": "fixed"}
        config = replace(
            small_config(),
            has_task_loss_requirement_during_inference=True,
            gazing_ratio_config=limits | {"fixed": {"gazing_ratio": 0.5}},
            task_loss_requirement_config=limits | {"fixed": {"task_loss_requirement": 0.025}},
        )
        assert AutoGazeSelector(AutoGaze(config)).default_budget == Budget(ratio=0.5, threshold=0.025)
        own = Budget(ratio=0.1)
        assert AutoGazeSelector(AutoGaze(config), budget=own).default_budget == own

    def test_an_illegal_tile_batch(self, model):
        with pytest.raises(ValueError, match="tile_batch must be at least 1"):
            AutoGazeSelector(model, tile_batch=0)
