"""The refined canvas: starts as the canvas, sees only the past, and does not care how a frame is cut up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autogaze.errors import CheckpointError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.reconstructors import load_reconstructor, rebuild, refiner
from autogaze.reconstructors.provenance import OLDEST, CanvasRecorder, CanvasView
from autogaze.reconstructors.refined import RefinedReconstructor
from autogaze.reconstructors.refiner import CanvasTensors, Refiner, RefinerConfig

GRID = PatchGrid(scales_px=(32, 64), patch_px=16)
CONFIG = RefinerConfig(scales_px=(32, 64), widths=(8, 12), blocks=1)


def network(*, trained: bool = True, config: RefinerConfig = CONFIG) -> Refiner:
    torch.manual_seed(0)
    made = Refiner(config).eval()
    if trained:  # the last layer starts at zero and would hide all that comes before
        torch.nn.init.normal_(made.head.weight, std=0.2)
    return made


def moving(*, frames: int = 6, height_px: int = 64, width_px: int = 64, seed: int = 0) -> Frames:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (frames, -(-height_px // 8), -(-width_px // 8), 3), dtype=np.uint8)
    return Frames.from_rgb(coarse.repeat(8, 1).repeat(8, 2)[:, :height_px, :width_px])


def some_gaze(layout: FrameLayout, *, frames: int, share: float = 0.3, seed: int = 1) -> Gaze:
    mask = np.random.default_rng(seed).random((frames, layout.num_indices)) < share
    return Gaze.from_mask(mask & layout.inside, layout)


def one_tile() -> FrameLayout:
    return FrameLayout.resized(GRID, height_px=64, width_px=64)


def rebuilt(frames: Frames, gaze: Gaze, *, refiner: Refiner) -> NDArray[np.uint8]:
    return rebuild(frames, gaze=gaze, reconstructor=refiner).rgb


@pytest.mark.parametrize(
    "layout",
    [
        one_tile(),
        FrameLayout.tiled(GRID, height_px=90, width_px=131),
        FrameLayout.resized(GRID, height_px=50, width_px=70),
    ],
    ids=["one tile", "tiled", "resized"],
)
def test_untrained_it_is_the_canvas(layout: FrameLayout) -> None:
    frames = moving(height_px=layout.height_px, width_px=layout.width_px)
    gaze = some_gaze(layout, frames=6)
    canvas = rebuild(frames, gaze=gaze)
    refined = rebuild(frames, gaze=gaze, reconstructor=network(trained=False))
    np.testing.assert_array_equal(refined.rgb, canvas.rgb)
    # The canvas counts in half levels, the refined picture is rounded to whole ones.
    np.testing.assert_allclose(refined.loss, canvas.loss, atol=0.5 / 255)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_what_is_exact_is_left_alone(share: float) -> None:
    """The finest scale of this very frame; nothing else is, not even what it painted before."""
    layout, frames = one_tile(), moving()
    gaze = some_gaze(layout, frames=6, share=share)
    canvas, refined = (rebuild(frames, gaze=gaze, reconstructor=which).rgb for which in ("canvas", network()))
    finest = gaze.mask()[:, 4:].reshape(6, 4, 4).repeat(16, 1).repeat(16, 2)
    assert finest.any()
    np.testing.assert_array_equal(refined[finest], frames.rgb[finest])
    if share == 1.0:
        np.testing.assert_array_equal(refined, frames.rgb)
    else:
        assert (refined != canvas).any(-1)[~finest].mean() > 0.9


def test_the_loss_is_the_mean_absolute_error_of_the_picture() -> None:
    frames, layout = moving(), one_tile()
    refined = rebuild(frames, gaze=some_gaze(layout, frames=6), reconstructor=network())
    error = np.abs(refined.rgb.astype(float) - frames.rgb).mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(refined.loss, error, rtol=1e-12)


def test_how_a_video_is_cut_into_steps_changes_nothing() -> None:
    layout = FrameLayout.tiled(GRID, height_px=90, width_px=131)
    frames, gaze = moving(height_px=90, width_px=131), some_gaze(layout, frames=6)
    whole = rebuild(frames, gaze=gaze, reconstructor=network())
    session = RefinedReconstructor(network()).open(layout)
    parts = [session.step(frames[a:b], gaze[a:b]) for a, b in ((0, 1), (1, 4), (4, 6))]
    np.testing.assert_array_equal(np.concatenate([part.rgb for part in parts]), whole.rgb)
    np.testing.assert_array_equal(np.concatenate([part.loss for part in parts]), whole.loss)


def test_later_frames_do_not_reach_back() -> None:
    layout = one_tile()
    frames, other = moving(), moving(seed=9)
    gaze, changed = some_gaze(layout, frames=6), some_gaze(layout, frames=6, seed=5)
    mixed = Frames.from_rgb(np.concatenate([frames.rgb[:3], other.rgb[3:]]))
    mixed_gaze = Gaze.concatenate([gaze[:3], changed[3:]])
    before = rebuilt(frames, gaze, refiner=network())
    after = rebuilt(mixed, mixed_gaze, refiner=network())
    np.testing.assert_array_equal(before[:3], after[:3])
    assert (before[3:] != after[3:]).any()


def test_only_gazed_pixels_are_seen() -> None:
    layout = one_tile()
    frames, gaze = moving(), some_gaze(layout, frames=6, share=0.1)
    hidden = frames.rgb.copy()
    # Antialiasing reads a little beyond a coarse patch, so what is changed keeps clear of them.
    shown = gaze.mask()
    fine = layout.grid.offsets[1]
    for t in range(6):
        for patch in range(16):
            cell = np.s_[patch // 4 * 16 + 4 : patch // 4 * 16 + 12, patch % 4 * 16 + 4 : patch % 4 * 16 + 12]
            if not shown[t, fine + patch] and not shown[t, :fine].any():
                hidden[t][cell] = 7
    assert (hidden != frames.rgb).any()
    np.testing.assert_array_equal(
        rebuilt(frames, gaze, refiner=network()), rebuilt(Frames.from_rgb(hidden), gaze, refiner=network())
    )


def test_the_order_of_gazes_plays_no_part() -> None:
    layout = one_tile()
    frames, gaze = moving(), some_gaze(layout, frames=6)
    backwards = Gaze(index=np.concatenate([one.index[::-1] for one in gaze]), count=gaze.count, layout=layout)
    np.testing.assert_array_equal(
        rebuilt(frames, gaze, refiner=network()), rebuilt(frames, backwards, refiner=network())
    )


@pytest.mark.parametrize("config", [CONFIG, RefinerConfig(scales_px=(32, 64), widths=(6, 8, 10), blocks=2)])
def test_windows_equal_the_whole_frame(config: RefinerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = FrameLayout.tiled(GRID, height_px=210, width_px=345)
    frames = moving(frames=2, height_px=210, width_px=345)
    view = CanvasTensors.of(CanvasRecorder(layout).step(frames, some_gaze(layout, frames=2)), device="cpu")
    made = network(config=config)
    with torch.inference_mode():
        whole = made(view)
        monkeypatch.setattr(refiner, "WINDOW_PX", 4 * config.stride_px)
        torch.testing.assert_close(made.refine(view), whole, rtol=0, atol=2e-6)
        # The margin is what makes it so.
        monkeypatch.setattr(RefinerConfig, "margin_px", config.stride_px)
        assert not torch.allclose(made.refine(view), whole, atol=1e-3)


def test_the_recorder_knows_who_painted_when() -> None:
    layout = one_tile()
    fine = layout.grid.offsets[1]
    # Frame 0: the top left coarse patch, and the first fine patch on it. Frame 2: that coarse patch again.
    gaze = Gaze(index=np.array([fine, 0, 0]), count=np.array([2, 0, 1]), layout=layout)
    frames = moving(frames=3)
    view = CanvasRecorder(layout).step(frames, gaze)
    assert view.scale[0, 0, 0] == 2 and view.scale[0, 31, 31] == 1 and view.scale[0, 40, 40] == 0
    assert [view.age[t, 5, 5] for t in range(3)] == [0, 1, 0]
    assert view.age[2, 40, 40] == OLDEST
    # What was painted again is of the coarse scale now: an older, finer patch does not win.
    assert view.scale[2, 0, 0] == 1
    np.testing.assert_array_equal(view.before[1:], view.canvas[:-1])
    assert (view.before[0] == 128).all()
    np.testing.assert_array_equal(view.target, frames.rgb)
    np.testing.assert_array_equal(view.canvas, rebuild(frames, gaze=gaze).rgb)


def test_views_are_cut_and_stacked() -> None:
    layout = one_tile()
    view = CanvasRecorder(layout).step(moving(), some_gaze(layout, frames=6))
    again = CanvasView.stack([view[:2], view[np.array([2, 3])], view[4:]])
    assert len(again) == 6
    for name in ("canvas", "before", "scale", "age", "target"):
        np.testing.assert_array_equal(getattr(again, name), getattr(view, name))


def test_training_beats_the_canvas() -> None:
    layout = one_tile()
    frames, gaze = moving(), some_gaze(layout, frames=6)
    view = CanvasRecorder(layout).step(frames, gaze)
    shown, target = CanvasTensors.of(view, device="cpu"), torch.from_numpy(view.target).movedim(-1, 1) / 255
    made = network(trained=False)
    optimiser = torch.optim.Adam(made.parameters(), lr=5e-3)
    for _ in range(40):
        optimiser.zero_grad()
        (made(shown) - target).abs().mean().backward()
        optimiser.step()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in made.parameters())
    canvas = rebuild(frames, gaze=gaze).loss.mean()
    assert rebuild(frames, gaze=gaze, reconstructor=made).loss.mean() < 0.9 * canvas


class TestFiles:
    def test_round_trip(self, tmp_path: Path) -> None:
        made, layout = network(), one_tile()
        made.save_pretrained(tmp_path / "small")
        for source in (tmp_path / "small", str(tmp_path / "small" / "model.safetensors")):
            loaded = load_reconstructor(source)
            assert isinstance(loaded, RefinedReconstructor)
            assert loaded.refiner.config == CONFIG
            frames, gaze = moving(), some_gaze(layout, frames=6)
            np.testing.assert_array_equal(
                rebuild(frames, gaze=gaze, reconstructor=loaded).rgb, rebuilt(frames, gaze, refiner=made)
            )
        assert load_reconstructor(tmp_path / "small").name == "small"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"widths": []}, "widths of a refiner must be whole numbers above 0, got \\[\\]"),
            ({"widths": [8, True]}, "widths of a refiner must be whole numbers"),
            ({"blocks": 0}, "blocks of a refiner must be a whole number above 0, got 0"),
            ({"scales_px": [64, 32]}, "a refiner's grid is not legal"),
            ({"colour": "red"}, "has no colour; legal are"),
            ({"widths": [8, 16]}, "does not fit its configuration"),
            ({"widths": [8, 10**7]}, "does not fit its configuration"),
            ({"widths": [8] * 65}, "at most 16 levels and at most 64 blocks"),
            ({"blocks": 10**9}, "at most 64 blocks a level"),
        ],
    )
    def test_a_configuration_that_is_wrong(self, tmp_path: Path, change: dict[str, object], message: str) -> None:
        network().save_pretrained(tmp_path)
        data = json.loads((tmp_path / "config.json").read_text()) | change
        (tmp_path / "config.json").write_text(json.dumps(data))
        with pytest.raises(CheckpointError, match=message):
            load_reconstructor(tmp_path)

    def test_another_kind_of_model(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "autogaze"}')
        with pytest.raises(CheckpointError, match="model_type is 'autogaze', a refiner's is 'autogaze_refiner'"):
            Refiner.from_pretrained(tmp_path)

    @pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, None])
    def test_a_configuration_that_is_none(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json") as caught:
            Refiner.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)
        with pytest.raises(CheckpointError):
            load_reconstructor(tmp_path)


def test_another_grid_is_refused() -> None:
    layout = FrameLayout.resized(PatchGrid(scales_px=(16, 64)), height_px=64, width_px=64)
    with pytest.raises(ValueError, match="the refiner is of"):
        RefinedReconstructor(network()).open(layout)
