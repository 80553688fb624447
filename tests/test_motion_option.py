"""``motion="global"`` from every entry, and what is made of a gaze whose canvas moved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import autogaze
import sparse_samples
from autogaze.cli import main
from autogaze.datasets.textures import draw_texture
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.info import GazeInfo, describe
from autogaze.overlay import overlay_frame
from autogaze.pipeline import make_recipe
from autogaze.results import Outcome
from autogaze.selectors import make_selector
from autogaze.selectors.canvas import quality, reconstruct
from autogaze.selectors.cascade import Cascade
from autogaze.selectors.replenish import Replenish
from autogaze.summary import Settings, Summary
from autogaze.tiling import merge
from autogaze.watching import Tally, Watched, watch
from make_video import write_video

T, HEIGHT_PX, WIDTH_PX = 8, 200, 300  # two tiles


@pytest.fixture(scope="module")
def pan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that goes right and down over a still surface."""
    surface = draw_texture(np.random.default_rng(13), height_px=HEIGHT_PX + 40, width_px=WIDTH_PX + 80)
    rgb = [surface[3 * t : 3 * t + HEIGHT_PX, 7 * t : 7 * t + WIDTH_PX] for t in range(T)]
    return write_video(tmp_path_factory.mktemp("pan") / "pan.mp4", rgb, fps=10, options={"crf": "10"})


@pytest.fixture(scope="module")
def moving(pan: Path) -> Gaze:
    gaze = autogaze.gaze(pan, motion="global")
    assert gaze.shift_px is not None
    assert gaze.shift_px.tolist() == [[0, 0]] + [[-3, -7]] * (T - 1)
    return gaze


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def check_said(gaze: Gaze, loss: Any) -> None:
    """The selector said what the loss of each frame is in the end, wherever it could: beside a gaze."""
    assert gaze.predicted_loss is not None
    gazed = gaze.count > 0
    said = gaze.predicted_loss[np.cumsum(gaze.count)[gazed] - 1]
    np.testing.assert_array_equal(np.asarray(loss, np.float32)[gazed], said)


def rgb_of(path: Path) -> np.ndarray[Any, Any]:
    with autogaze.open_video(path) as reader:
        return np.concatenate([frames.rgb for frames in reader])


# One gaze from every entry


def test_the_command_gives_what_the_function_gives(pan: Path, moving: Gaze, tmp_path: Path) -> None:
    assert run("gaze", pan, "--motion", "global", "--quiet", "--out", tmp_path) == 0
    assert Gaze.load(tmp_path / "pan.gaze").equals(moving)
    assert json.loads((tmp_path / "pan.json").read_text())["settings"]["motion"] == "global"
    info = describe(str(tmp_path / "pan.gaze"))
    assert isinstance(info, GazeInfo)
    assert "shift_px" in info.numbers
    assert moving.num_gazes < 0.5 * autogaze.gaze(pan).num_gazes


def test_windows_streams_arrays_and_objects_give_it_too(pan: Path, moving: Gaze) -> None:
    windows = list(autogaze.iter_gaze(pan, motion="global"))
    assert Gaze.concatenate([part for _, part in windows]).equals(moving)
    rgb = rgb_of(pan)
    session = autogaze.stream(height_px=HEIGHT_PX, width_px=WIDTH_PX, motion="global")
    times = moving.time_seconds
    assert times is not None
    steps = [session.step(one, time_seconds=float(at)) for one, at in zip(rgb, times, strict=True)]
    assert Gaze.concatenate(steps).equals(moving)
    assert all(step.equals(one) for step, one in zip(steps, moving, strict=True))
    for gaze in (autogaze.gaze(rgb, motion="global"), autogaze.gaze(pan, model=Replenish(motion="global"))):
        assert np.array_equal(gaze.index, moving.index)
        assert np.array_equal(gaze.shift_px, moving.shift_px)


def test_a_watched_camera_is_followed(pan: Path) -> None:
    seen: list[Watched] = []

    def on_frame(one: Watched, tally: Tally) -> bool:
        seen.append(one)
        return True

    summary = watch(rgb_of(pan)[:4], motion="global", fps=20, on_frame=on_frame)
    assert summary.settings.motion == "global"
    gaze = Gaze.concatenate([one.gaze for one in seen])  # of the frames that were not dropped
    rebuilt = quality(Frames.from_rgb(np.stack([one.rgb for one in seen])), gaze=gaze)
    check_said(gaze, rebuilt.loss)
    assert len(gaze) == 1 or gaze.shift_px is not None


@pytest.mark.parametrize("still", [0, 90, "noise"])
def test_a_still_clip_gives_the_same_with_both_motions(still: int | str, tmp_path: Path) -> None:
    picture = np.full((HEIGHT_PX, WIDTH_PX, 3), 0 if still == "noise" else still, np.uint8)
    if still == "noise":
        picture = np.random.default_rng(3).integers(0, 256, picture.shape).astype(np.uint8)
    rgb = np.repeat(picture[None], 3, axis=0)
    gazes = [autogaze.gaze(rgb, motion=motion) for motion in ("none", "global")]  # type: ignore[arg-type]
    assert gazes[0].equals(gazes[1])
    assert gazes[1].shift_px is None
    for number, gaze in enumerate(gazes):
        gaze.save(tmp_path / f"{number}.gaze")
    assert (tmp_path / "0.gaze").read_bytes() == (tmp_path / "1.gaze").read_bytes()


# What is made of it


@pytest.mark.parametrize("how", [(), ("--resize", "--stride", 2), ("--ratio", 0.02, "--per", "clip")])
def test_reconstruct_finds_the_loss_that_was_said(pan: Path, tmp_path: Path, how: tuple[object, ...]) -> None:
    words = (*how, "--motion", "global")
    assert run("gaze", pan, *words, "--no-overlay", "--no-sheet", "--quiet", "--out", tmp_path) == 0
    gaze = Gaze.load(tmp_path / "pan.gaze")
    assert gaze.shift_px is not None
    found = []
    for number, made in enumerate((("--gaze", tmp_path / "pan.gaze"), words)):
        out = tmp_path / str(number)
        assert run("reconstruct", pan, *made, "--no-side-by-side", "--quiet", "--out", out) == 0
        found.append(json.loads((out / "pan.reconstruction.json").read_text())["loss_per_frame"])
    assert found[0] == found[1]
    check_said(gaze, found[0])


def test_pictures_follow_the_canvas_or_the_frame(pan: Path, moving: Gaze, tmp_path: Path) -> None:
    rgb = rgb_of(pan)
    autogaze.reconstruct_to_files(pan, tmp_path, gaze=moving)
    canvas = reconstruct(Frames.from_rgb(rgb), gaze=moving)
    written = rgb_of(tmp_path / "pan.reconstruction.mp4")
    assert np.abs(written.astype(int) - canvas).mean() < 4  # levels that coding costs
    still = replace(moving, shift_px=None)
    smeared = reconstruct(Frames.from_rgb(rgb), gaze=still)
    assert np.abs(smeared[-1].astype(int) - canvas[-1]).mean() > 8
    # An overlay shows patches of the frame itself, wherever the canvas is.
    np.testing.assert_array_equal(overlay_frame(rgb[3], moving[3]), overlay_frame(rgb[3], still[3]))


def test_encode_reads_the_patches_whatever_moved(pan: Path, tmp_path: Path, moving: Gaze) -> None:
    sparse_samples.make("ViTModel", image_size=32, patch_size=16).save_pretrained(tmp_path / "vit")
    moving.save(tmp_path / "pan.gaze")
    replace(moving, shift_px=None).save(tmp_path / "still.gaze")
    features = []
    for number, made in enumerate(
        (("--gaze", tmp_path / "pan.gaze"), ("--motion", "global"), ("--gaze", tmp_path / "still.gaze"))
    ):
        out = tmp_path / str(number)
        assert run("encode", pan, "--encoder", tmp_path / "vit", *made, "--joint", "--quiet", "--out", out) == 0
        features.append(load_file(out / "pan.features.safetensors"))
    assert np.array_equal(features[0]["index"], moving.index)
    for other in features[1:]:
        for name, values in features[0].items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)


# What counts as the same result


def test_another_motion_is_another_result(pan: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"overlay": False, "sheet": False}

    def skipped(**motion: Any) -> bool:
        (outcome,) = autogaze.gaze_many([pan], tmp_path, **options, **motion)
        assert isinstance(outcome, Outcome)
        assert outcome.error is None
        return outcome.skipped

    assert [skipped(), skipped(motion="none"), skipped(motion="global"), skipped(motion="global")] == [
        *(False, True, False, True)
    ]
    assert [skipped(), skipped()] == [False, True]
    # Summaries of before motion was an option are of a canvas that stands still.
    told = json.loads((tmp_path / "pan.json").read_text())
    del told["settings"]["motion"]
    (tmp_path / "pan.json").write_text(json.dumps(told))
    assert Summary.load(tmp_path / "pan.json").settings.motion == "none"
    assert [skipped(), skipped(motion="global")] == [True, False]


def test_another_motion_is_another_reconstruction(pan: Path, tmp_path: Path) -> None:
    def skipped(motion: Any) -> bool:
        options: dict[str, Any] = {"side_by_side": False, "frames": 2, "motion": motion}
        return autogaze.reconstruct_many([pan], tmp_path, **options)[0].skipped

    assert [skipped(one) for one in ("none", "global", "global", "none")] == [False, False, True, False]


def test_settings_tell_how_an_object_moves() -> None:
    assert make_recipe(model=Replenish(motion="global")).settings.motion == "global"
    assert make_recipe(model=Replenish()).settings.motion == "none"
    assert make_recipe(model="random", ratio=0.1).settings.motion == "none"
    assert Settings(model="replenish").motion == "none"


# What is refused


@pytest.mark.parametrize("model", ["random", "difference", "bundled", "owner/name"])
def test_who_has_no_canvas_has_no_motion(model: str, pan: Path, tmp_path: Path, capsys: Any) -> None:
    expected = (
        f"motion='global' moves the canvas of replenish, and {model} has none; leave motion out, or use replenish"
    )
    for ask in (autogaze.load_selector, lambda model, motion: make_recipe(model=model, motion=motion)):
        with pytest.raises(ValueError, match=expected):
            ask(model, motion="global")
    assert run("gaze", pan, "--model", model, "--motion", "global", "--out", tmp_path / "out") == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_refusals(pan: Path, tmp_path: Path, moving: Gaze, capsys: Any) -> None:
    with pytest.raises(ValueError, match=r"an object moves as it was made, got also motion='global'"):
        autogaze.gaze(pan, model=Replenish(), motion="global")
    with pytest.raises(ValueError, match=r'motion must be "none" or "global", got \'local\''):
        autogaze.gaze(pan, motion="local")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="moves the canvas of replenish, and flow has none"):
        make_selector("flow", motion="global")
    with pytest.raises(ValueError, match="with a gaze nothing is left to choose, got also motion"):
        autogaze.reconstruct_to_files(pan, tmp_path / "out", gaze=moving, motion="global")
    for verb in (("reconstruct",), ("encode", "--encoder", "any")):
        assert run(verb[0], pan, *verb[1:], "--gaze", pan, "--motion", "global", "--out", tmp_path / "out") == 2
        assert "with --gaze the patches are chosen already; leave out --motion, or --gaze" in capsys.readouterr().err
    assert run("gaze", pan, "--motion", "local", "--out", tmp_path / "out") == 2
    assert "Expected one of ('none', 'global')" in capsys.readouterr().err


def test_a_cascade_and_a_moving_canvas_exclude_each_other(pan: Path, moving: Gaze, tmp_path: Path, capsys: Any) -> None:
    expected = "moves the canvas of whole frames, and a cascade opens tiles one by one; leave one of the two out"
    with pytest.raises(ValueError, match=expected):
        Cascade(Replenish(motion="global"), change=0.1)
    with pytest.raises(ValueError, match=expected):
        autogaze.stream(height_px=HEIGHT_PX, width_px=WIDTH_PX, cascade=0.1, motion="global")
    assert run("gaze", pan, "--cascade", 0.1, "--motion", "global", "--out", tmp_path / "out") == 2
    assert expected in capsys.readouterr().err
    # A cascade that opens all tiles is the selector itself.
    assert autogaze.gaze(pan, cascade=0, motion="global").equals(moving)
    # Behind another selector the motion cannot be seen until there is one.
    hidden = Cascade(Cascade(Replenish(motion="global"), change=0), change=0.01)
    with pytest.raises(ValueError, match="the gaze of tile 0 has shifts, with which no frame is made"):
        autogaze.gaze(pan, model=hidden)


def test_shifts_of_one_tile_are_those_of_the_frame(moving: Gaze) -> None:
    layout = FrameLayout.tiled(moving.layout.grid, height_px=224, width_px=224)
    one = Gaze(index=np.arange(T), count=np.ones(T, np.int64), layout=layout, shift_px=moving.shift_px)
    assert merge([one], layout).equals(one)
