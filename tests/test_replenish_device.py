"""Replenishment on a device takes the gazes that it takes on the host; here the device is the processor itself."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.loading import load_selector
from autogaze.selectors import device
from autogaze.selectors.base import Budget
from autogaze.selectors.canvas import quality
from autogaze.selectors.cells import resize
from autogaze.selectors.device import DeviceEasel
from autogaze.selectors.easel import HostEasel
from autogaze.selectors.greedy import Goal
from autogaze.selectors.replenish import Replenish, ReplenishSession
from autogaze.selectors.taps import Taps

CPU = torch.device("cpu")
SAMPLE = Path(__file__).parents[1] / "examples" / "sample.mp4"
ODD = PatchGrid(scales_px=(8, 16, 28, 56), patch_px=4)  # the published grid at a quarter of its size
UNCOVERED = PatchGrid(scales_px=(24, 36, 72), patch_px=8)


@pytest.fixture(scope="module")
def frames() -> Frames:
    """Frames of a real video with its own noise, 140×110 px."""
    with av.open(str(SAMPLE)) as container:
        rgb = [
            frame.to_ndarray(format="rgb24")[100:210, 200:340] for frame in islice(container.decode(video=0), 40, 46)
        ]
    return Frames.from_rgb(np.stack(rgb))


def both(frames: Frames, layout: FrameLayout, budget: Budget) -> tuple[Gaze, Gaze]:
    """The gaze on the host and on the device; both sessions' canvases must agree."""
    squared = budget.psnr_db is not None
    host = ReplenishSession(layout, budget, HostEasel(layout, squared=squared))
    other = ReplenishSession(layout, budget, DeviceEasel(layout, squared=squared, device=CPU))
    gazes = host.step(frames), other.step(frames)
    np.testing.assert_array_equal(other.canvas.half_levels, host.canvas.half_levels)
    return gazes


@pytest.mark.parametrize(
    "budget",
    [
        Budget(ratio=0.05),
        Budget(ratio=(0.3,) + (0.02,) * 15),
        Budget(threshold=0.03),
        Budget(threshold=1.0),
        Budget(psnr_db=29.0),
        Budget(threshold=0.02, ratio=0.1),
    ],
    ids=str,
)
def test_gazes_and_losses_equal_those_on_the_host(frames: Frames, budget: Budget):
    layout = FrameLayout.tiled(ODD, height_px=110, width_px=140)
    few = frames[:4]
    host, other = both(few, layout, budget)
    assert other.equals(host)
    assert host.num_gazes >= len(few)
    last = np.cumsum(other.count) - 1
    np.testing.assert_allclose(other.predicted_loss[last], quality(few, gaze=other).loss, rtol=0, atol=1e-6)


def test_a_clip_budget_is_planned_alike(frames: Frames):
    grid = PatchGrid(scales_px=(16, 32))
    small = Frames.from_rgb(np.ascontiguousarray(frames.rgb[:6, :32, :48]))
    host, other = both(small, FrameLayout.tiled(grid, height_px=32, width_px=48), Budget(ratio=0.2, per="clip"))
    assert other.equals(host)
    assert len(set(host.count.tolist())) > 1


@pytest.mark.parametrize("rounds", [1, 3, 300])
def test_when_the_host_looks_changes_nothing(frames: Frames, rounds: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "ROUNDS", rounds)
    layout = FrameLayout.tiled(ODD, height_px=110, width_px=140)
    for budget in (Budget(ratio=0.2), Budget(psnr_db=27.0)):
        host, other = both(frames[:1], layout, budget)
        assert other.equals(host)


@pytest.mark.parametrize("grid", [PatchGrid(), UNCOVERED, PatchGrid(scales_px=(24, 36), patch_px=8)])
@pytest.mark.parametrize("resized", [False, True])
def test_any_grid_and_layout(frames: Frames, grid: PatchGrid, resized: bool):
    make = FrameLayout.resized if resized else FrameLayout.tiled
    host, other = both(frames[:2], make(grid, height_px=110, width_px=140), Budget(threshold=0.03))
    assert other.equals(host)


def test_ties_are_broken_alike():
    # Flat pictures in few colours, the second tile the first one again: most gains come twice.
    rng = np.random.default_rng(1)
    blocks = rng.choice([0, 90, 255], (3, 7, 14, 3)).repeat(8, 1).repeat(8, 2)
    blocks[:, :, 56:] = blocks[:, :, :56]
    layout = FrameLayout.tiled(ODD, height_px=56, width_px=112)
    for budget in (Budget(threshold=0.06), Budget(ratio=0.07), Budget()):
        host, other = both(Frames.from_rgb(blocks.astype(np.uint8)), layout, budget)
        assert other.equals(host)


def test_a_frame_that_nothing_improves_gets_no_gaze(frames: Frames):
    still = Frames.from_rgb(np.repeat(frames.rgb[:1], 3, 0))
    host, other = both(still, FrameLayout.tiled(ODD, height_px=110, width_px=140), Budget())
    assert other.equals(host)
    assert other.count[1:].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("from_px", "to_px"), [(224, 32), (224, 64), (224, 112), (16, 112), (16, 56), (16, 32), (72, 36), (8, 8)]
)
def test_whole_number_resizing_equals_torch(from_px: int, to_px: int):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, from_px, from_px, 3)).astype(np.uint8)
    taps = Taps.of(from_px, to_px, device=CPU)
    for images in (noise, (noise > 200).astype(np.uint8) * 255):
        resized = taps.along(taps.along(torch.from_numpy(images).int(), 2), 1)
        np.testing.assert_array_equal(resized.numpy(), resize(images, to_px, to_px))


@pytest.mark.parametrize("name", [None, "cpu", "cuda"])
def test_a_device_is_chosen_as_for_models(name: str | None):
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    selector = load_selector("replenish", device=name)
    assert isinstance(selector, Replenish)
    session = selector.open(FrameLayout.tiled(PatchGrid(), height_px=224, width_px=224), Budget())
    assert isinstance(session._easel, DeviceEasel if name == "cuda" else HostEasel)


def test_the_host_builds_ahead_where_many_patches_were_taken(frames: Frames) -> None:
    layout = FrameLayout.tiled(ODD, height_px=110, width_px=140)
    easel = HostEasel(layout, squared=False)
    rgb, built = frames.rgb[:3].copy(), []
    rgb[:, :56, :56] = 20  # four coarse patches paint the first tile
    for most, frame in zip((40, 2, 2), rgb, strict=True):  # on 6 tiles
        seen = easel.see(frame)
        easel.advance(seen, max_patches=most, goal=Goal())
        built.append(seen.built.all(1).tolist())
    assert built[1] == [False] + [True] * 5
    assert not any(built[2])
