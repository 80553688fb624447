"""The masked autoencoder behind the interface of reconstructors."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autogaze import tiling
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.losses import UNIT, PixelSpace
from autogaze.models.autogaze.processing_autogaze import IMAGE_MEAN, IMAGE_STD
from autogaze.reconstructors import load_reconstructor, rebuild
from autogaze.reconstructors.seams import blend_seams
from autogaze.reconstructors.video_mae import VideoMAEReconstructor, merge
from autogaze.tasks.video_mae_reconstruction import VideoMAEReconstruction
from autogaze.tasks.video_mae_reconstruction.incremental import VideoMAESession
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE
from autogaze.utils import UnNormalize
from video_mae_samples import GRID, small_model

LAYOUTS = {
    "one tile": FrameLayout.tiled(GRID, height_px=32, width_px=32),
    "stretched": FrameLayout.resized(GRID, height_px=45, width_px=80),
    "tiles with padding": FrameLayout.tiled(GRID, height_px=50, width_px=70),
    "stretched tiles": FrameLayout(
        grid=GRID, height_px=50, width_px=70, tile_height_px=27, tile_width_px=36, tile_rows=2, tile_columns=2
    ),
}


def video(layout: FrameLayout, frames: int, *, seed: int = 0) -> Frames:
    """Colours that drift over the frame."""
    rng = np.random.default_rng(seed)
    shape = (frames, layout.height_px, layout.width_px, 3)
    return Frames.from_rgb(np.cumsum(rng.integers(0, 9, shape), axis=2).astype(np.uint8))


def gazes(layout: FrameLayout, frames: int, *, seed: int = 0) -> Gaze:
    rng = np.random.default_rng(seed)
    cells = np.flatnonzero(layout.inside)
    chosen = [rng.permutation(cells)[: rng.integers(0, len(cells) // 2 + 1)] for _ in range(frames)]
    return Gaze(index=np.concatenate(chosen), count=np.array([len(one) for one in chosen]), layout=layout)


def from_whole_clips(
    model: VideoMAE, frames: Frames, gaze: Gaze, *, halving: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The definition: each tile of each 16 frames as one clip, and no seams between tiles.

    ``halving``: colours are brought to −1…1 before they are normalised, as the published processor does, not to 0…1.
    """
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    rgb, loss = np.empty_like(frames.rgb), np.empty(len(frames))
    for start in range(0, len(frames), 16):
        part, of_part = frames[start : start + 16], gaze[start : start + 16]
        tiles = tiling.split(part.rgb, gaze.layout)
        levels = torch.from_numpy(np.ascontiguousarray(tiles))
        colours = levels / 127.5 - 1 if halving else levels / 255
        normalised = ((colours - mean) / std).permute(0, 1, 4, 2, 3)
        with torch.no_grad():
            output = model(normalised, [tiling.tile(of_part, tile) for tile in range(len(tiles))])
        back = output.reconstruction.permute(0, 1, 3, 4, 2) * std + mean
        back = (back + 1) * 127.5 if halving else back * 255
        rebuilt = back.round().clamp(0, 255).numpy().astype(np.uint8)
        for t in range(len(part)):
            rgb[start + t] = merge(rebuilt[:, t], gaze.layout)
        loss[start : start + 16] = output.loss_each_reconstruction_frame.double().mean(0).numpy()
    return blend_seams(rgb, gaze.layout), loss


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_video_is_rebuilt_as_its_tiles_and_clips(name: str) -> None:
    layout, model = LAYOUTS[name], small_model(initializer_range=0.1)
    frames, gaze = video(layout, 18), gazes(layout, 18)
    result = rebuild(frames, gaze=gaze, reconstructor=VideoMAEReconstructor(model))
    rgb, loss = from_whole_clips(model, frames, gaze)
    np.testing.assert_allclose(result.loss, loss, rtol=0, atol=1e-5)
    # A colour on the edge between two levels may fall to either side.
    assert np.abs(result.rgb.astype(int) - rgb).max() <= 1
    assert (result.rgb == rgb).mean() > 0.998
    assert result.rgb.std() > 1


@pytest.mark.parametrize("halving", [True, False])
def test_pixels_are_those_of_the_checkpoint(tmp_path: Path, halving: bool) -> None:
    """Reconstructor, task and unit read them in one space."""
    layout = LAYOUTS["one tile"]
    frames, gaze = video(layout, 5), gazes(layout, 5)
    small_model(initializer_range=0.1).save_pretrained(tmp_path)
    settings = tmp_path / "preprocessor_config.json"
    if halving:  # what published checkpoints without the file mean
        settings.unlink()
    else:
        settings.write_text(
            json.dumps({"rescale_factor": 1 / 255, "offset": False, "image_mean": IMAGE_MEAN, "image_std": IMAGE_STD})
        )
    model = VideoMAE.from_pretrained(tmp_path)
    rgb, loss = from_whole_clips(model, frames, gaze, halving=halving)
    result = rebuild(frames, gaze=gaze, reconstructor=str(tmp_path))
    np.testing.assert_allclose(result.loss, loss, rtol=0, atol=1e-5)
    assert np.abs(result.rgb.astype(int) - rgb).max() <= 1

    task = VideoMAEReconstruction.from_pretrained(tmp_path)
    seen = {"video_for_task": task.transform(list(frames.rgb), return_tensors="pt").pixel_values}
    np.testing.assert_allclose(task(seen, gaze, range(5)).outputs.loss_each_frame[0].detach(), loss, rtol=0, atol=1e-5)
    half = "half " if halving else ""
    unit = f"mean absolute error of a colour, in {half}standard deviations of ImageNet's colours"
    assert load_reconstructor(tmp_path).loss_unit == unit

    model.save_pretrained(tmp_path / "again")
    assert VideoMAE.from_pretrained(tmp_path / "again").space == model.space == task.mae.space
    colours = UnNormalize(task.transform.image_mean, task.transform.image_std, task.transform.rescale_factor)
    back = colours(seen["video_for_task"])[0].movedim(1, -1) * 255
    np.testing.assert_allclose(back, frames.rgb, atol=1e-3)


@pytest.mark.parametrize("tile_batch", [None, 4])
@pytest.mark.parametrize("steps", [[1] * 20, [7, 9, 4], [15, 2, 3], [17, 3]])
def test_how_a_video_is_cut_into_steps_changes_nothing(steps: list[int], tile_batch: int | None) -> None:
    layout = LAYOUTS["tiles with padding"]
    reconstructor = VideoMAEReconstructor(small_model(), tile_batch=tile_batch)
    frames, gaze = video(layout, 20), gazes(layout, 20)
    whole = reconstructor.open(layout).step(frames, gaze)
    session, start = reconstructor.open(layout), 0
    for count in steps:
        part = session.step(frames[start : start + count], gaze[start : start + count])
        np.testing.assert_array_equal(part.rgb, whole.rgb[start : start + count])
        np.testing.assert_array_equal(part.loss, whole.loss[start : start + count])
        start += count


def test_how_many_tiles_go_at_once_changes_nothing_to_speak_of() -> None:
    layout, model = LAYOUTS["tiles with padding"], small_model()
    frames, gaze = video(layout, 17), gazes(layout, 17)
    one, other = (VideoMAEReconstructor(model, tile_batch=count).open(layout).step(frames, gaze) for count in (1, None))
    np.testing.assert_allclose(one.loss, other.loss, rtol=0, atol=1e-5)


def test_sessions_of_one_reconstructor_do_not_mix() -> None:
    layout = LAYOUTS["one tile"]
    reconstructor = VideoMAEReconstructor(small_model())
    frames, gaze = video(layout, 4), gazes(layout, 4)
    alone = reconstructor.open(layout).step(frames, gaze)
    one, other = reconstructor.open(layout), reconstructor.open(layout)
    for t in range(4):
        got = one.step(frames[t : t + 1], gaze[t : t + 1])
        other.step(video(layout, 4, seed=5)[t : t + 1], gazes(layout, 4, seed=5)[t : t + 1])
        np.testing.assert_array_equal(got.rgb[0], alone.rgb[t])


def test_clips_start_afresh() -> None:
    layout = LAYOUTS["one tile"]
    reconstructor = VideoMAEReconstructor(small_model())
    frames, gaze = video(layout, 16), gazes(layout, 16)
    twice = Frames.from_rgb(np.concatenate([frames.rgb, frames.rgb]))
    index, count = np.concatenate([gaze.index, gaze.index]), np.concatenate([gaze.count, gaze.count])
    result = reconstructor.open(layout).step(twice, Gaze(index=index, count=count, layout=layout))
    np.testing.assert_array_equal(result.rgb[:16], result.rgb[16:])
    short = VideoMAEReconstructor(small_model(max_num_frames=3))
    assert (reconstructor.clip_frames, short.clip_frames) == (16, 3)
    assert short.open(layout).step(frames, gaze).loss.shape == (16,)
    assert VideoMAEReconstructor(small_model(max_num_frames=3, time_embed=False)).clip_frames == 16


def test_what_was_not_gazed_at_does_not_reach_the_picture() -> None:
    layout, reconstructor = LAYOUTS["tiles with padding"], VideoMAEReconstructor(small_model())
    nothing = Gaze(index=np.zeros(0, np.int64), count=np.zeros(2, np.int64), layout=layout)
    one, other = (reconstructor.open(layout).step(video(layout, 2, seed=seed), nothing) for seed in (1, 2))
    np.testing.assert_array_equal(one.rgb, other.rgb)
    assert not np.array_equal(one.loss, other.loss)


@pytest.mark.parametrize("name", ["one tile", "tiles with padding"])
def test_merging_is_the_way_back_of_splitting(name: str) -> None:
    frames = video(LAYOUTS[name], 1)
    tiles = tiling.split(frames.rgb, LAYOUTS[name])[:, 0]
    np.testing.assert_array_equal(merge(tiles, LAYOUTS[name]), frames.rgb[0])


@pytest.mark.parametrize("name", ["stretched", "stretched tiles"])
def test_merging_resized_tiles_keeps_a_smooth_picture(name: str) -> None:
    layout = LAYOUTS[name]
    ramp = np.linspace(20, 220, layout.width_px)[None, None, :, None] * np.ones((1, layout.height_px, 1, 3))
    frames = Frames.from_rgb(ramp.astype(np.uint8))
    difference = merge(tiling.split(frames.rgb, layout)[:, 0], layout).astype(int) - frames.rgb[0]
    # Padding is black and bleeds into the last pixels when tiles are resized.
    assert np.abs(difference[:, : layout.width_px - 3]).mean() < 2


@pytest.mark.parametrize(("value", "colour"), [(9.0, 255), (-9.0, 0)])
def test_colours_brighter_than_white_are_white(value: float, colour: int) -> None:
    layout, model = LAYOUTS["one tile"], small_model()
    with torch.no_grad():
        model.decoder.decoder_pred.weight.zero_()
        model.decoder.decoder_pred.bias.fill_(value)
    result = VideoMAEReconstructor(model).open(layout).step(video(layout, 1), gazes(layout, 1))
    assert (result.rgb == colour).all()


def test_what_a_clip_remembers_goes_with_the_clip() -> None:
    layout = LAYOUTS["tiles with padding"]
    session = VideoMAEReconstructor(small_model(), tile_batch=2).open(layout)

    def clips_remembered() -> int:
        gc.collect()
        return sum(type(thing) is VideoMAESession for thing in gc.get_objects())

    before = clips_remembered()
    session.step(video(layout, 16), gazes(layout, 16))
    assert clips_remembered() == before
    session.step(video(layout, 1), gazes(layout, 1))
    assert clips_remembered() == before + 3  # six tiles, two at once


def test_half_precision_rebuilds_too() -> None:
    layout = LAYOUTS["one tile"]
    frames, gaze = video(layout, 2), gazes(layout, 2)
    model = small_model(initializer_range=0.1)
    full = VideoMAEReconstructor(model).open(layout).step(frames, gaze)
    half = VideoMAEReconstructor(model.to(torch.bfloat16)).open(layout).step(frames, gaze)
    np.testing.assert_allclose(half.loss, full.loss, rtol=0.05)


def test_the_unit_is_that_of_the_models_loss() -> None:
    class Loss:
        unit = "apples"

        def __call__(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return torch.zeros(prediction.shape[:2])

    model = small_model()
    reconstructor = VideoMAEReconstructor(model, name="mine")
    assert (reconstructor.name, VideoMAEReconstructor(model).name) == ("mine", "video_mae")
    of_published = "mean absolute error of a colour, in half standard deviations of ImageNet's colours"
    assert reconstructor.loss_unit == of_published
    model.space = UNIT
    assert reconstructor.loss_unit == "mean absolute error of a colour, in colours from 0 to 1"
    model.space = PixelSpace(mean=(0, 0, 0), std=(0.1, 0.2, 0.25))
    assert reconstructor.loss_unit.endswith("in units of 0.1, 0.2, 0.25 of red, green and blue from 0 to 1")
    model.loss = Loss()
    assert reconstructor.loss_unit == "apples"
    model.loss = lambda prediction, target: torch.zeros(prediction.shape[:2])
    assert "was given" in reconstructor.loss_unit


def test_tiles_at_once_are_bounded_by_what_they_remember() -> None:
    assert VideoMAEReconstructor(small_model()).tile_batch > 1000
    assert VideoMAEReconstructor(small_model(time_embed=False), tile_batch=3).tile_batch == 3


def test_what_does_not_fit_is_refused() -> None:
    layout = LAYOUTS["one tile"]
    with pytest.raises(ValueError, match="must be causal"):
        VideoMAEReconstructor(small_model(causal=False))
    with pytest.raises(ValueError, match="tile_batch must be at least 1 or None, got 0"):
        VideoMAEReconstructor(small_model(), tile_batch=0)
    reconstructor = VideoMAEReconstructor(small_model())
    other = FrameLayout.tiled(PatchGrid(scales_px=(32,)), height_px=32, width_px=32)
    with pytest.raises(ValueError, match=r"rebuilds PatchGrid\(scales_px=\(16, 32\).*the gaze is on"):
        reconstructor.open(other)
    session = reconstructor.open(layout)
    with pytest.raises(ValueError, match="equally long"):
        session.step(video(layout, 2), gazes(layout, 3))
    with pytest.raises(ValueError, match="32×32"):
        session.step(video(LAYOUTS["stretched"], 2), gazes(layout, 2))
