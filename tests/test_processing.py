"""The published image processor and helpers."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub.errors import RemoteEntryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autogaze.errors import CheckpointError
from autogaze.models.autogaze import processing_autogaze
from autogaze.models.autogaze.processing_autogaze import AutoGazeImageProcessor
from autogaze.utils import UnNormalize, get_gazing_pos_from_gazing_mask

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "processor"
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))
FRAMES = np.random.default_rng(0).integers(0, 256, (3, 30, 48, 3), np.uint8)


def by_hand(frame: np.ndarray) -> np.ndarray:
    return ((frame / np.float32(127.5) - 1 - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the published results are not on this machine")
@pytest.mark.parametrize(
    ("case", "size"),
    [("landscape_shortest_224", None), ("portrait_square_224", (224, 224)), ("downscale_square_224", (224, 224))],
)
def test_published_pixels(case: str, size: tuple[int, int] | None):
    from safetensors.numpy import load_file

    golden = load_file(GOLDEN / f"{case}.safetensors")
    (ours,) = AutoGazeImageProcessor(size=size)(list(golden["frames"]), return_tensors="np").pixel_values
    assert ours.shape == golden["pixel_values"].shape
    np.testing.assert_allclose(ours, golden["pixel_values"].astype(np.float32), atol=4e-3, rtol=0)


def test_every_level_is_exact_where_nothing_is_resized():
    frame = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=-1)
    (video,) = AutoGazeImageProcessor(size=(16, 16))([frame]).pixel_values
    assert video[0].dtype == np.float32 and video[0].shape == (3, 16, 16)
    np.testing.assert_allclose(video[0], by_hand(frame), rtol=1e-6, atol=1e-6)


def test_resizing_is_pils_antialiased_bilinear():
    (video,) = AutoGazeImageProcessor(size=(8, 20))(list(FRAMES)).pixel_values
    for ours, frame in zip(video, FRAMES, strict=True):
        resized = np.asarray(Image.fromarray(frame).resize((20, 8), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(ours, by_hand(resized), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(90, 160, (224, 398)), (160, 90, (398, 224)), (224, 224, (224, 224)), (300, 180, (373, 224)), (1, 1, (224, 224))],
)
def test_the_shorter_side_is_224_and_nothing_is_cropped(height: int, width: int, expected: tuple[int, int]):
    ((frame,),) = AutoGazeImageProcessor()([np.zeros((height, width, 3), np.uint8)]).pixel_values
    assert frame.shape == (3, *expected)


def test_size_is_a_mapping():
    assert AutoGazeImageProcessor().size == {"shortest_edge": 224}
    assert AutoGazeImageProcessor(size=100).size == {"shortest_edge": 100}
    for size in ((392, 200), [392, 200], {"height": 392, "width": 200}):
        processor = AutoGazeImageProcessor(size=size)
        assert (processor.size["height"], processor.size["width"]) == (392, 200)


def test_all_ways_to_give_frames_are_one():
    processor = AutoGazeImageProcessor(size=(8, 8))
    (expected,) = processor(list(FRAMES), return_tensors="np").pixel_values
    one_video = [
        tuple(FRAMES),
        FRAMES,
        [Image.fromarray(frame) for frame in FRAMES],
        [Image.fromarray(frame).convert("RGBA") for frame in FRAMES],
        torch.from_numpy(FRAMES),
        list(torch.from_numpy(FRAMES).permute(0, 3, 1, 2)),
        FRAMES.transpose(0, 3, 1, 2),
        [list(FRAMES)],
        [FRAMES],
        FRAMES[None],
    ]
    for images in one_video:
        (video,) = processor(images).pixel_values
        np.testing.assert_array_equal(np.stack(video), expected)
    for single in (FRAMES[0], Image.fromarray(FRAMES[0])):
        ((frame,),) = processor(images=single).pixel_values
        np.testing.assert_array_equal(frame, expected[0])
    several = processor([list(FRAMES), list(FRAMES[::-1])]).pixel_values
    np.testing.assert_array_equal(np.stack(several[1]), expected[::-1])


def test_results_as_lists_arrays_and_tensors():
    processor = AutoGazeImageProcessor(size=(8, 8))
    lists = processor(list(FRAMES))
    assert isinstance(lists.pixel_values, list) and isinstance(lists.pixel_values[0], list)
    assert lists["pixel_values"] is lists.pixel_values and dict(lists) == {"pixel_values": lists.pixel_values}
    with pytest.raises(KeyError):
        lists["pixels"]
    tensor = processor([FRAMES, FRAMES], return_tensors="pt").pixel_values
    assert tensor.shape == (2, 3, 3, 8, 8) and tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor[0].numpy(), np.stack(lists.pixel_values[0]))


def test_steps_can_be_left_out():
    raw = AutoGazeImageProcessor(do_resize=False, do_rescale=False, do_normalize=False)(FRAMES).pixel_values[0]
    np.testing.assert_array_equal(np.stack(raw), FRAMES.transpose(0, 3, 1, 2))
    unit = AutoGazeImageProcessor(do_resize=False, do_normalize=False, rescale_factor=1 / 255, offset=False)
    np.testing.assert_allclose(unit(FRAMES).pixel_values[0][0].max(), FRAMES[0].max() / 255)


PUBLISHED = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "AutoGazeImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "offset": True,
    "resample": 2,
    "rescale_factor": 1 / 127.5,
    "size": {"shortest_edge": 224},
}


def test_settings_are_read_overridden_and_written(tmp_path: Path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PUBLISHED))
    processor = AutoGazeImageProcessor.from_pretrained(tmp_path)
    assert processor.to_dict() == PUBLISHED, "unknown keys are kept"
    (tmp_path / "model.safetensors").touch()
    assert AutoGazeImageProcessor.from_pretrained(str(tmp_path / "model.safetensors")).to_dict() == PUBLISHED
    square = AutoGazeImageProcessor.from_pretrained(tmp_path, size=(392, 392), resample=3, local_files_only=True)
    assert square.size == {"height": 392, "width": 392} and square.resample == 3
    square.save_pretrained(tmp_path / "new" / "folder")
    assert AutoGazeImageProcessor.from_pretrained(tmp_path / "new" / "folder").to_dict() == square.to_dict()


def test_defaults_are_the_published_settings(tmp_path: Path):
    assert AutoGazeImageProcessor.from_pretrained(tmp_path).to_dict().items() <= PUBLISHED.items()
    assert PUBLISHED.keys() - AutoGazeImageProcessor().to_dict().keys() == {"crop_size"}


@pytest.mark.parametrize(
    "content",
    ["{broken", "[1]", '{"size": -3}', '{"do_center_crop": true}', '{"image_std": [1, 0, 1]}', '{"resample": 99}'],
)
def test_damaged_settings(tmp_path: Path, content: str):
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json does not hold legal settings"):
        AutoGazeImageProcessor.from_pretrained(tmp_path)


def test_no_such_checkpoint(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*there is no such folder"):
        AutoGazeImageProcessor.from_pretrained(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="cannot get nobody/nothing from the hub"):
        AutoGazeImageProcessor.from_pretrained("nobody/nothing", local_files_only=True, cache_dir=str(tmp_path))


def test_a_hub_checkpoint_without_settings_gets_the_defaults(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def absent(*place: str, **options):
        asked.append((place, options["revision"]))
        raise RemoteEntryNotFoundError("no such file", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(processing_autogaze, "hf_hub_download", absent)
    processor = AutoGazeImageProcessor.from_pretrained("owner/name", size=99, revision="main")
    assert asked == [(("owner/name", "preprocessor_config.json"), "main")]
    assert processor.size == {"shortest_edge": 99}


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"size": 0}, "size must be shortest_edge, or height and width, in whole pixels, got 0"),
        ({"size": (224,)}, "size must be"),
        ({"size": (224.0, 224.0)}, "size must be"),
        ({"size": {"longest_edge": 224}}, "size must be"),
        ({"size": {"height": 224}}, "size must be"),
        ({"image_mean": (0.5, 0.5)}, "three numbers each"),
        ({"do_center_crop": True}, "do_center_crop=True is not supported"),
    ],
)
def test_impossible_settings(settings_: dict, message: str):
    with pytest.raises(ValueError, match=message):
        AutoGazeImageProcessor(**settings_)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one frame"),
        ([[]], "at least one frame"),
        ([list(FRAMES), []], "at least one frame"),
        (np.zeros((0, 4, 4, 3), np.uint8), "at least one frame"),
        (FRAMES / 255, r"a frame must be a PIL image or \(H, W, 3\) uint8, got \(30, 48, 3\) float64"),
        ([np.zeros((4, 4, 4), np.uint8)], r"got \(4, 4, 4\) uint8"),
        ([np.zeros((0, 4, 3), np.uint8)], r"got \(0, 4, 3\) uint8"),
    ],
)
def test_impossible_frames(images, message: str):
    with pytest.raises(ValueError, match=message):
        AutoGazeImageProcessor()(images)


def test_what_does_not_stack():
    processor, other = AutoGazeImageProcessor(), FRAMES[:, :, :20]
    assert [len(video) for video in processor([FRAMES, other]).pixel_values] == [3, 3]
    with pytest.raises(ValueError, match="do not stack; give size="):
        processor([FRAMES, other], return_tensors="pt")
    with pytest.raises(ValueError, match="do not stack"):
        processor([FRAMES, FRAMES[:2]], return_tensors="np")
    with pytest.raises(ValueError, match='must be "pt", "np" or None'):
        processor(FRAMES, return_tensors="tf")  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(0, 9), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_positions_of_a_mask(seed: int, B: int, N: int, share: float):
    mask = torch.from_numpy(np.random.default_rng(seed).random((B, N)) < share)
    expected = [row.nonzero()[:, 0].tolist() for row in mask]
    for kind in (torch.bool, torch.int64, torch.float32):
        position, padded = get_gazing_pos_from_gazing_mask(mask.to(kind))
        assert (position.dtype, padded.dtype) == (torch.int64, torch.bool)
        assert position.shape == padded.shape == (B, max(map(len, expected), default=0))
        assert [row[~pad].tolist() for row, pad in zip(position, padded, strict=True)] == expected
        assert (position[padded] == -1).all()
        assert all(pad.tolist() == sorted(pad.tolist()) for pad in padded), "padding comes last"


def test_positions_of_a_long_mask_are_in_order():
    mask = torch.from_numpy(np.random.default_rng(0).random((2, 16 * 265)) < 0.1)
    position, padded = get_gazing_pos_from_gazing_mask(mask)
    for row, slots, pad in zip(mask, position, padded, strict=True):
        assert torch.equal(slots[~pad], row.nonzero()[:, 0])


@pytest.mark.parametrize("B", [1, 2, 3])
def test_an_empty_mask_still_gives_a_pair(B: int):
    result = get_gazing_pos_from_gazing_mask(torch.zeros(B, 5))
    assert isinstance(result, tuple) and [part.shape for part in result] == [(B, 0), (B, 0)]


def test_positions_need_a_flat_mask():
    with pytest.raises(ValueError, match=r"must be \(B, N\), got \(2, 3, 4\)"):
        get_gazing_pos_from_gazing_mask(torch.zeros(2, 3, 4))


@pytest.mark.parametrize("lead", [(), (2,), (2, 5)])
def test_unnormalize_undoes_the_processor(lead: tuple[int, ...]):
    pixels = torch.rand(*lead, 3, 4, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = torch.from_numpy(MEAN)[:, None, None], torch.from_numpy(STD)[:, None, None]
    normalised = (pixels - mean) / std
    before = normalised.clone()
    torch.testing.assert_close(UnNormalize(MEAN.tolist(), STD.tolist())(normalised), pixels)
    assert torch.equal(normalised, before), "the argument is left alone"
    shown = UnNormalize(MEAN.tolist(), STD.tolist(), 1 / 127.5)(normalised)
    torch.testing.assert_close(shown, pixels / 2 + 0.5, atol=1e-6, rtol=0)
    clamped = UnNormalize(MEAN.tolist(), STD.tolist(), 1 / 255)(normalised)
    torch.testing.assert_close(clamped, pixels.clamp(0, 1), atol=1e-6, rtol=0)


def test_unnormalize_errors():
    with pytest.raises(ValueError, match="equally long, got 3 and 1 numbers"):
        UnNormalize((0, 0, 0), (1,))
    with pytest.raises(ValueError, match=r"image must be \(…, 3, H, W\), got \(1, 4, 4\)"):
        UnNormalize((0, 0, 0), (1, 1, 1))(torch.zeros(1, 4, 4))
