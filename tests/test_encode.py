"""``autogaze encode``: features of what was kept, as files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

import autogaze
import small_vision
import sparse_samples as samples
from autogaze.cli import main
from autogaze.encode import EncodeOptions, encode_many, encode_to_files, whole_clips
from autogaze.errors import CheckpointError
from autogaze.gaze import Gaze
from autogaze.grid import PatchGrid
from autogaze.pipeline import iter_gaze
from autogaze.retarget import retarget
from autogaze.vision_encoders import sparsify
from autogaze.vision_encoders.loading import load_vision_model
from make_video import moving_frames, write_video

FRAMES = 19


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "film.mp4"
    write_video(path, moving_frames(FRAMES, seed=0, height_px=48, width_px=80), fps=10)
    return path


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of patches of 16 px, like the selector's."""
    folder = tmp_path_factory.mktemp("vit")
    samples.make("ViTModel", image_size=32, patch_size=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 of patches of 14 px, trained at 56 px."""
    return small_vision.save_dinov2(tmp_path_factory.mktemp("dinov2"))


def expected(video: Path, encoder: Path, *, scales: tuple[int, ...] | None, attention: str) -> list[torch.Tensor]:
    """Features of each clip of 16 frames by the parts that the command is made of."""
    checkpoint = load_vision_model(encoder)
    sparse = sparsify(checkpoint.model, attention=attention, antialias=True)
    found = []
    with torch.no_grad():
        for frames, gaze in whole_clips(iter_gaze(video, ratio=0.1)):
            grid = None if scales is None else PatchGrid(scales_px=scales, patch_px=sparse.tower.patch_px)
            read = gaze if grid is None else retarget(gaze, grid)
            colours = torch.from_numpy(frames.rgb).permute(0, 3, 1, 2).float() / 255
            found.append(sparse(checkpoint.space.from_unit(colours)[None], read).features)
    return found


@pytest.mark.parametrize("attention", ["frame", "block_causal"])
def test_the_gazes_own_patches(video: Path, vit: Path, tmp_path: Path, attention: str) -> None:
    how = EncodeOptions(encoder=vit, attention=attention)
    summary = encode_to_files(video, tmp_path, how=how, ratio=0.1)
    tensors = load_file(tmp_path / "film.features.safetensors")
    wanted = torch.cat(expected(video, vit, scales=None, attention=attention)).numpy()
    np.testing.assert_array_equal(tensors["feature"], wanted)
    gaze = autogaze.gaze(video, ratio=0.1)
    assert np.array_equal(tensors["frame"], gaze.frame)
    assert np.array_equal(tensors["index"], gaze.index)
    assert np.array_equal(tensors["box_px"], gaze.boxes_px)
    assert np.array_equal(tensors["scale_px"], gaze.scale_px)
    assert gaze.time_seconds is not None
    assert np.array_equal(tensors["time_seconds"], gaze.time_seconds[gaze.frame])
    assert (summary.frames, summary.features, summary.channels) == (FRAMES, gaze.num_gazes, 32)
    assert (summary.encoder_class, summary.scales_px) == ("ViTModel", (32, 64, 112, 224))
    assert summary.warnings == ()
    with safe_open(tmp_path / "film.features.safetensors", "np") as file:
        assert json.loads(file.metadata()["autogaze"])["attention"] == attention


def test_other_patches_get_the_size_the_model_was_trained_at(video: Path, dinov2: Path, tmp_path: Path) -> None:
    summary = encode_to_files(video, tmp_path, how=EncodeOptions(encoder=dinov2), ratio=0.1)
    assert (summary.scales_px, summary.patch_px) == ((56,), 14)
    (warning,) = summary.warnings
    assert f"they cover {summary.kept_share:.1%} of the encoder's" in warning
    wanted = torch.cat(expected(video, dinov2, scales=(56,), attention="frame")).numpy()
    np.testing.assert_array_equal(load_file(tmp_path / "film.features.safetensors")["feature"], wanted)


def test_patches_of_two_frames(video: Path, tmp_path: Path) -> None:
    samples.make("VJEPA2Model", patch_size=16, crop_size=32).save_pretrained(tmp_path / "vjepa")
    how = EncodeOptions(encoder=tmp_path / "vjepa", attention="bidirectional", scales_px=(224,))
    summary = encode_to_files(video, tmp_path, how=how, ratio=0.02)
    tensors = load_file(tmp_path / "film.features.safetensors")
    assert set(np.unique(tensors["frame"])) <= set(range(0, FRAMES, 2))
    assert summary.features == len(tensors["feature"]) <= summary.patches_kept


def test_parquet_holds_the_same(video: Path, vit: Path, tmp_path: Path) -> None:
    for file_format in ("safetensors", "parquet"):
        how = EncodeOptions(encoder=vit, file_format=file_format, precision="float16")
        encode_to_files(video, tmp_path / file_format, how=how, ratio=0.1)
    tensors = load_file(tmp_path / "safetensors/film.features.safetensors")
    table = pyarrow.parquet.read_table(tmp_path / "parquet/film.features.parquet")
    assert tensors["feature"].dtype == np.float16
    rows = table["feature"].combine_chunks()
    assert np.array_equal(rows.flatten().to_numpy().reshape(len(table), -1), tensors["feature"])
    for name in ("frame", "time_seconds", "scale_px", "index"):
        assert np.array_equal(table[name].to_numpy(), tensors[name])
    box = np.stack([table[name].to_numpy() for name in ("left_px", "top_px", "right_px", "bottom_px")], axis=1)
    assert np.array_equal(box, tensors["box_px"])
    assert json.loads(table.schema.metadata[b"autogaze"])["encoder_class"] == "ViTModel"


def test_a_gaze_of_before_gives_the_same_features(video: Path, vit: Path, tmp_path: Path) -> None:
    gaze = autogaze.gaze(video, ratio=0.1)
    gaze.save(tmp_path / "film.gaze")
    how = EncodeOptions(encoder=vit)
    encode_to_files(video, tmp_path / "made", how=how, ratio=0.1)
    for number, given in enumerate((gaze, tmp_path / "film.gaze", tmp_path)):
        encode_to_files(video, tmp_path / str(number), how=how, gaze=given)
        made, read = (load_file(tmp_path / where / "film.features.safetensors") for where in ("made", str(number)))
        assert all(np.array_equal(made[name], read[name], equal_nan=True) for name in made)


def test_what_is_complete_is_skipped_and_other_settings_are_not(video: Path, vit: Path, tmp_path: Path) -> None:
    def outcome(**settings: object) -> bool:
        how = EncodeOptions(encoder=vit, **settings)  # type: ignore[arg-type]
        (one,) = encode_many([video], tmp_path, how=how, ratio=0.1)
        assert one.error is None
        return one.skipped

    assert [outcome(), outcome(), outcome(attention="causal"), outcome(attention="causal")] == [
        False,
        True,
        False,
        True,
    ]
    assert [outcome(file_format="parquet"), outcome(file_format="parquet")] == [False, True]
    assert not (tmp_path / "film.features.safetensors").exists()


def test_nothing_kept_is_an_empty_file(vit: Path, tmp_path: Path) -> None:
    frames = np.full((2, 32, 32, 3), 128, np.uint8)
    gaze = autogaze.gaze(frames)
    nothing = Gaze(index=gaze.index[:0], count=np.zeros(2, np.int64), layout=gaze.layout)
    summary = encode_to_files(frames, tmp_path, how=EncodeOptions(encoder=vit), gaze=nothing, name="grey")
    assert summary.features == 0
    assert load_file(tmp_path / "grey.features.safetensors")["feature"].shape == (0, 32)


def test_the_command_as_a_process(video: Path, vit: Path, tmp_path: Path) -> None:
    words = ["encode", str(video), "--encoder", str(vit), "--ratio", "0.1", "--out", str(tmp_path), "--half"]
    done = subprocess.run([sys.executable, "-m", "autogaze.cli", *words], capture_output=True, text=True, check=True)
    assert "features of 32 (ViTModel)" in done.stdout
    assert load_file(tmp_path / "film.features.safetensors")["feature"].dtype == np.float16


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--scales", "56x112"], "--scales must be sides in pixels joined by +"),
            (["--scales", "28+56"], "cannot retarget"),
            (["--gaze", "nowhere.gaze"], "there is no gaze file or folder nowhere.gaze"),
            (["--attention", "all"], "attention"),
        ],
    )
    def test_words(
        self, video: Path, dinov2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
    ) -> None:
        with pytest.raises(SystemExit) as exit_:
            main(["encode", str(video), "--encoder", str(dinov2), "--out", str(tmp_path / "out"), *words])
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_options_beside_a_gaze(self, video: Path, vit: Path, tmp_path: Path) -> None:
        gaze = autogaze.gaze(video, ratio=0.1)
        with pytest.raises(ValueError, match="with a gaze nothing is left to choose, got also ratio"):
            encode_to_files(video, tmp_path, how=EncodeOptions(encoder=vit), gaze=gaze, ratio=0.1)

    def test_a_model_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(CheckpointError, match="'bert', which cannot be made sparse; legal are siglip"):
            load_vision_model(tmp_path)

    def test_a_format_that_is_none(self, vit: Path) -> None:
        with pytest.raises(ValueError, match="file_format must be safetensors or parquet, got 'csv'"):
            EncodeOptions(encoder=vit, file_format="csv")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", samples.FAMILIES)
def test_every_family_is_read_from_a_folder(name: str, tmp_path: Path) -> None:
    model = samples.make(name)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}')
    found = load_vision_model(tmp_path)
    assert type(found.model).__name__ == name
    assert found.space.mean == (0.1, 0.2, 0.3)
    assert found.image_px == samples.SIDE_PX
    grid = PatchGrid(scales_px=(samples.SIDE_PX,), patch_px=samples.PATCH_PX)
    video, gaze = samples.video(clips=1), samples.everything(grid, frames=4)
    with torch.no_grad():
        given, read = (sparsify(one)(video, gaze).features for one in (model, found.model))
    assert torch.equal(given, read)


def test_scales_of_tiles_side_by_side(dinov2: Path, tmp_path: Path) -> None:
    """Two tiles of 16 px patches a side are one frame of 14 px patches at as many scales."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 448, 448, 3), dtype=np.uint8)
    how = EncodeOptions(encoder=dinov2, scales_px=(56, 112, 196, 392))
    summary = encode_to_files(frames, tmp_path, how=how, name="tiles", ratio=0.05)
    assert summary.scales_px == (56, 112, 196, 392)
    assert summary.features == summary.patches_kept > 0
    with pytest.raises(ValueError, match="cannot retarget 1 × 1 tiles"):
        encode_to_files(frames, tmp_path, how=how, name="resized", ratio=0.05, mode="resize")


def test_an_encoder_that_is_a_file(vit: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        encode_to_files("any.mp4", tmp_path, how=EncodeOptions(encoder=vit / "config.json"))


def test_weights_of_another_shape_are_named(vit: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(vit, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"intermediate_size": config["intermediate_size"] * 2}))
    with pytest.raises(CheckpointError, match=r"misshapen: .*weight"):
        encode_to_files("any.mp4", tmp_path, how=EncodeOptions(encoder=other))


def test_the_features_may_be_read_by_whoever_may_read_the_summary(video: Path, vit: Path, tmp_path: Path) -> None:
    encode_to_files(video, tmp_path, how=EncodeOptions(encoder=vit), name="out", frames=2, mode="resize")
    features, summary = (tmp_path / f"out.features.{ending}" for ending in ("safetensors", "json"))
    assert features.stat().st_mode == summary.stat().st_mode
