"""Layers that are not called as they were made: hooks are followed, what hides the attention is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module

import sparse_samples as samples
from autogaze.grid import PatchGrid
from autogaze.vision_encoders import sparsify

GRID = PatchGrid(scales_px=(16, 32), patch_px=samples.PATCH_PX)


def features(model: Any) -> torch.Tensor:
    gaze = samples.everything(GRID, frames=4)
    with torch.no_grad():
        return sparsify(model, attention="block_causal")(samples.video(), [gaze, gaze]).features


@pytest.mark.parametrize("name", ["SiglipVisionModel", "Dinov2Model", "CLIPVisionModel"])
def test_hooks_that_move_tensors_between_devices(name: str) -> None:
    model = samples.make(name)
    want = features(model)
    for module in model.modules():  # what a device_map of several devices does
        add_hook_to_module(module, AlignDevicesHook(execution_device="cpu"))
    assert torch.equal(features(model), want)
    remove_hook_from_module(model, recurse=True)
    assert torch.equal(features(model), want)


def test_hooks_of_torch_run() -> None:
    model, seen = samples.make("SiglipVisionModel"), []
    want = features(model)
    model.encoder.layers[1].self_attn.register_forward_hook(lambda module, *_: seen.append(module))
    model.encoder.layers[1].mlp.fc1.register_forward_hook(lambda *args: args[-1] * 2)
    assert not torch.equal(features(model), want) and len(seen) == 1


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_layers_are_run_as_they_were(in_place: bool) -> None:
    model = samples.make("SiglipVisionModel")
    want = features(model)
    if in_place:
        model.encoder.layers[1].compile(backend="eager")
    else:
        model.encoder.layers[1] = torch.compile(model.encoder.layers[1], backend="eager")
    torch.testing.assert_close(features(model), want)


def test_a_layer_that_attends_by_a_function_of_its_own_is_refused() -> None:
    model = samples.make("SiglipVisionModel")
    layer = model.encoder.layers[1]
    forward = layer.forward
    layer.forward = lambda x, **options: forward(x, **options)
    with pytest.raises(RuntimeError, match=r"layer 1 \(SiglipEncoderLayer\) attends by a function of its own"):
        features(model)
