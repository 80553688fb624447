"""The published implementation's outputs come out of the public API."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from autogaze.frames import Frames
from autogaze.grid import FrameLayout
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.selectors.base import Budget
from autogaze.streaming import GazeSession
from golden import FOLDERS, OFFICIAL, Case, cases, kept_per_frame, normalise


@lru_cache
def model_of(folder: Path, positions: str | None) -> AutoGaze:
    return AutoGaze.from_pretrained(folder, positions=positions)


def arguments(case: Case) -> dict[str, object]:
    """The published arguments as the modern call names them."""
    names = {"gazing_ratio": "ratio", "task_loss_requirement": "threshold"}
    return {names[name]: value for name, value in case.info["args"].items() if name in names}


def test_a_config_without_positions_means_the_published_ones():
    assert model_of(FOLDERS[0], None).config.positions == "reference"


@pytest.mark.parametrize("case", cases("whole"), ids=str)
def test_published_call(case):
    out = model_of(case.folder, case.info["positions"])(
        {"video": case.video()}, **case.info["args"], generate_only=True
    )
    expected = case.expected
    kept = ~expected["if_padded_gazing"]
    assert torch.equal(out["num_gazing_each_frame"], expected["num_gazing_each_frame"])
    assert torch.equal(out["if_padded_gazing"], expected["if_padded_gazing"])
    assert torch.equal(out["gazing_pos"][kept], expected["gazing_pos"][kept])
    for scale, mask in enumerate(out["gazing_mask"]):
        assert torch.equal(mask, expected[f"gazing_mask_{scale}"])


@pytest.mark.parametrize("case", cases("whole"), ids=str)
def test_modern_call(case):
    model = model_of(case.folder, case.info["positions"])
    expected = case.expected
    per_frame = kept_per_frame(
        expected["gazing_pos"][0], expected["if_padded_gazing"][0], expected["num_gazing_each_frame"]
    )
    for video in (case.frames(), case.frames().numpy(), case.video()[0]):
        gaze = model.gaze(video, **arguments(case))
        offsets = [t * model.grid.num_patches for t in range(len(gaze))]
        assert [(frame.index + offset).tolist() for frame, offset in zip(gaze, offsets, strict=True)] == per_frame
        assert gaze.num_gazes == case.info["gazed"]


@pytest.mark.parametrize("case", cases("streaming"), ids=str)
def test_published_streaming(case):
    model, expected = model_of(case.folder, case.info["positions"]), case.expected
    past: dict[str, object] = {}
    index, padded, count = [], [], []
    for frame in case.video().unbind(1):
        out = model({"video": frame[:, None]}, **case.info["args"], generate_only=True, use_cache=True, **past)
        past = {
            "past_key_values": out["past_key_values"],
            "past_inputs_embeds": out["past_input_embeds"],
            "past_attention_mask": out["past_attention_mask"],
            "past_conv_values": out["past_conv_values"],
        }
        index.append(out["gazing_pos"])
        padded.append(out["if_padded_gazing"])
        count.append(out["num_gazing_each_frame"])
    kept = ~expected["if_padded_gazing"]
    assert torch.equal(torch.cat(count), expected["num_gazing_each_frame"])
    assert torch.equal(torch.cat(padded, 1), expected["if_padded_gazing"])
    assert torch.equal(torch.cat(index, 1)[kept], expected["gazing_pos_in_frame"][kept])


@pytest.mark.parametrize("case", cases("streaming"), ids=str)
def test_modern_streaming(case):
    model, expected, frames = model_of(case.folder, case.info["positions"]), case.expected, case.frames()
    args = case.info["args"]
    budget = Budget(ratio=args["gazing_ratio"], threshold=args["task_loss_requirement"])
    layout = FrameLayout.resized(model.grid, height_px=frames.shape[1], width_px=frames.shape[2])
    session = GazeSession(AutoGazeSelector(model).open(layout, budget))
    steps = [session.step(frame) for frame in frames]
    per_frame = kept_per_frame(
        expected["gazing_pos_in_frame"][0], expected["if_padded_gazing"][0], expected["num_gazing_each_frame"]
    )
    assert [step.index.tolist() for step in steps] == per_frame
    whole = AutoGazeSelector(model).open(layout, budget).step(Frames.from_rgb(frames.numpy()))
    assert [frame.index.tolist() for frame in whole] == per_frame


@pytest.mark.parametrize("case", cases("target"), ids=str)
def test_published_call_for_another_transformer(case):
    model, expected = model_of(case.folder, case.info["positions"]), case.expected
    out = model({"video": case.video()}, **case.info["args"])
    kept = ~expected["if_padded_gazing"]
    assert out["num_vision_tokens_each_frame"] == case.info["num_vision_tokens_each_frame"]
    assert out["scales"] == case.info["args"]["target_scales"]
    assert torch.equal(out["num_gazing_each_frame"], expected["num_gazing_each_frame"])
    assert torch.equal(out["if_padded_gazing"], expected["if_padded_gazing"])
    assert torch.equal(out["gazing_pos"][kept], expected["gazing_pos"][kept])
    for scale, mask in enumerate(out["gazing_mask"]):
        assert torch.equal(mask, expected[f"gazing_mask_{scale}"])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_teacher_forcing(folder):
    model = model_of(folder, None)
    video = normalise(load_file(folder / "frames.safetensors")["frames"][:2])
    expected = load_file(folder / "teacher_forcing.safetensors")
    info = {name: expected[name] for name in ("gazing_pos", "if_padded_gazing", "num_gazing_each_frame")}
    out = model({"video": video}, gazing_info=info)
    kept = ~expected["if_padded_gazing"]
    close = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(out["log_action_probs"].exp()[kept], expected["gaze_probs"][kept], **close)
    torch.testing.assert_close(out["task_loss_prediction"][kept], expected["task_loss_prediction"][kept], **close)
    features, _ = model.gazing_model.vision_model(video[:1])
    torch.testing.assert_close(features, expected["vision_features_clip0"], **close)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official-shape goldens are not here")
def test_official_shape_has_the_published_size_and_names():
    model = model_of(OFFICIAL, None)
    assert sum(weight.numel() for weight in model.parameters()) == 3_258_240
    lines = (OFFICIAL.parent / "gaze_official_keys.tsv").read_text().splitlines()
    named = {
        name: [int(n) for n in shape.strip("[]").split(",")] for name, shape in (line.split("\t") for line in lines)
    }
    assert {name: list(weight.shape) for name, weight in model.state_dict().items()} == named
