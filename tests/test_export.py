"""Exported gaze models choose what torch chooses, wherever they go, and say what a host must know."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

import autogaze
from autogaze.cli import main
from autogaze.errors import CheckpointError
from autogaze.export import Exported, ExportError, export_gaze_model, folder
from autogaze.export.manifest import StopLevels
from autogaze.export.programs import FRAMES, PAST, TOKENS, decoder_program, encoder_program
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.calibration import Calibration
from autogaze.results import OutputError
from calibration_samples import calibration

ROOT = Path(__file__).parents[1]
SMALL = ROOT / "tests" / "data" / "gaze_small"
EXAMPLE = ROOT / "examples" / "gaze_with_onnxruntime.py"
BUNDLED = ROOT / "src" / "autogaze" / "checkpoints" / "gaze"


def example() -> ModuleType:
    """The loop that the example shows."""
    spec = importlib.util.spec_from_file_location("gaze_with_onnxruntime", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OnnxGaze = example().OnnxGaze


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Four gazes a group, two query heads for each key/value head."""
    return export_gaze_model(SMALL, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_gaze_model("bundled", tmp_path_factory.mktemp("bundled"))


@pytest.fixture(scope="module")
def as_torch(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Of a model that was handed in; its weights are whole in half precision, and it must stay as it is."""
    model = AutoGaze.from_pretrained(SMALL, dtype=torch.bfloat16)
    exported = export_gaze_model(model, tmp_path_factory.mktemp("torch"), format="torch")
    assert model.dtype == torch.bfloat16
    return exported


def frames_of_small(clip: int = 0) -> NDArray[np.uint8]:
    return load_file(SMALL / "frames.safetensors")["frames"][clip].numpy()


def sample_frames(count: int) -> NDArray[np.uint8]:
    """Frames of the sample video as the bundled model sees them whole."""
    from autogaze.grid import FrameLayout, PatchGrid
    from autogaze.tiling import split

    with autogaze.open_video(ROOT / "examples" / "sample.mp4", window_frames=count) as reader:
        layout = FrameLayout.resized(PatchGrid(), height_px=reader.height_px, width_px=reader.width_px)
        return split(next(reader).rgb, layout)[0]


def by_torch(model: AutoGaze, frames: NDArray[np.uint8], **limits: Any) -> list[list[int]]:
    return [frame.index.tolist() for frame in model.gaze(frames, **limits)]


def by_onnx(exported: Path, frames: NDArray[np.uint8], **limits: Any) -> list[list[int]]:
    model, threshold = OnnxGaze(exported), limits.get("threshold")
    level = None if threshold is None else model.level(threshold)
    ratios = np.resize(limits.get("ratio", 1.0), len(frames))
    return [model.step(frame, level=level, ratio=ratio) for frame, ratio in zip(frames, ratios, strict=True)]


class TestDecisions:
    @pytest.mark.parametrize("positions", ["true", "reference"])
    @pytest.mark.parametrize("clip", [0, 1])
    @pytest.mark.parametrize(
        "limits",
        [
            {"ratio": 0.1},
            {"ratio": 1.0},
            {"ratio": [0.3, 0.05, 1.0, 0.5, 0.05]},
            {"threshold": -1.3},
            {"ratio": 0.75, "threshold": -1.0},
            {"ratio": 0.4, "threshold": -1.1},
        ],
        ids=str,
    )
    def test_of_a_small_model(
        self, small: Exported, positions: Any, clip: int, limits: dict[str, Any], tmp_path: Path
    ) -> None:
        place = tmp_path / "small"
        shutil.copytree(small.folder, place)
        about = json.loads((place / "gaze.json").read_text())
        assert about["positions"] == "reference"  # the checkpoint is like the published ones
        (place / "gaze.json").write_text(json.dumps({**about, "positions": positions}))
        frames = frames_of_small(clip)[:5]
        chosen = by_torch(AutoGaze.from_pretrained(SMALL, positions=positions), frames, **limits)
        assert by_onnx(place, frames, **limits) == chosen

    @pytest.mark.parametrize(
        ("count", "limits"),
        [
            (17, {"ratio": 0.75, "threshold": 0.03865}),
            (3, {"threshold": 0.025}),
            (4, {"ratio": 0.1}),
            (3, {"ratio": 0.2, "threshold": 0.021}),
        ],
        ids=str,
    )
    def test_of_the_bundled_model(self, bundled: Exported, count: int, limits: dict[str, Any]) -> None:
        frames = sample_frames(count)
        chosen = by_torch(AutoGaze.from_pretrained(BUNDLED), frames, **limits)
        assert by_onnx(bundled.folder, frames, **limits) == chosen
        assert sum(map(len, chosen)) > count

    def test_a_clip_starts_with_nothing_remembered(self, small: Exported) -> None:
        frames = np.concatenate([frames_of_small(0), frames_of_small(0)[:3]])
        model = AutoGaze.from_pretrained(SMALL)
        assert len(frames) > model.config.max_num_frames
        assert by_onnx(small.folder, frames, ratio=0.3) == by_torch(model, frames, ratio=0.3)


class TestPrograms:
    def test_the_encoder_takes_frames_together_or_one_by_one(self, small: Exported) -> None:
        session = onnxruntime.InferenceSession(small.folder / "encoder.onnx")
        frames = frames_of_small()[:5]
        start = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs() if i.name != "frames"}
        together, *last = session.run(None, {"frames": frames, **start})
        one_by_one, state = [], start
        for frame in frames:
            visual, *after = session.run(None, {"frames": frame[None], **state})
            one_by_one.append(visual[0])
            state = dict(zip(state, after, strict=True))
        np.testing.assert_allclose(np.stack(one_by_one), together, atol=1e-5)
        for a, b in zip(state.values(), last, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        # What is remembered plays a part.
        assert np.abs(session.run(None, {"frames": frames[1:2], **start})[0][0] - together[1]).max() > 1e-3

    @pytest.mark.parametrize("sizes", [{FRAMES: 1, TOKENS: 1, PAST: 0}, {FRAMES: 6, TOKENS: 16, PAST: 3}], ids=str)
    def test_of_torch_compute_what_the_network_computes(self, as_torch: Exported, sizes: dict[str, int]) -> None:
        model = AutoGaze.from_pretrained(SMALL)
        for program in (encoder_program(model), decoder_program(model)):
            read = torch.export.load(as_torch.folder / f"{program.name}.pt2").module()
            inputs = program.sample(seed=5, sizes=sizes)
            with torch.no_grad():
                torch.testing.assert_close(read(*inputs), program.module(*inputs), atol=1e-5, rtol=0)

    def test_inputs_and_outputs_are_those_the_manifest_tells(self, small: Exported) -> None:
        about = json.loads((small.folder / "gaze.json").read_text())
        for name in ("encoder", "decoder_step"):
            session = onnxruntime.InferenceSession(small.folder / about[name]["file"])
            kinds = {"float32": "tensor(float)", "int64": "tensor(int64)", "uint8": "tensor(uint8)"}
            told = [(port["name"], port["shape"], kinds[port["dtype"]]) for port in about[name]["inputs"]]
            assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == told
            # The length of the cache is a sum, whose terms may stand in any order.
            sums = {"tokens + past": "past + tokens"}
            found = [(o.name, [sums.get(n, n) for n in o.shape], kinds["float32"]) for o in session.get_outputs()]
            assert found == [(port["name"], port["shape"], kinds[port["dtype"]]) for port in about[name]["outputs"]]

    def test_say_nothing_of_where_they_were_made(self, small: Exported, as_torch: Exported, bundled: Exported) -> None:
        for exported in (small, as_torch, bundled):
            for name in exported.files:
                for content in contents(exported.folder / name):
                    for place in (ROOT, exported.folder, sys.prefix, torch.__file__, Path.home(), "site-packages"):
                        named = str(place).encode() in content  # pytest would explain megabytes
                        assert not named, f"{name} names {place}"


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and those of the files in it."""
    yield path.read_bytes()
    if path.suffix == ".pt2":
        with zipfile.ZipFile(path) as file:
            yield from (file.read(name) for name in file.namelist())


class TestManifest:
    def test_tells_the_model(self, bundled: Exported) -> None:
        about = json.loads((bundled.folder / "gaze.json").read_text())
        selector: Any = autogaze.load_selector("bundled")
        assert (about["format"], about["version"], about["programs"]) == ("autogaze-export", 1, "onnx")
        assert (about["model"], about["positions"], about["clip_frames"]) == ("bundled", "true", 16)
        assert (about["scales_px"], about["patch_px"], about["num_patches"]) == ([32, 64, 112, 224], 16, 265)
        assert (about["group_size"], about["visual_tokens"], about["first_visual_token"]) == (10, 196, 266)
        assert about["weights"] == selector.model.calibration.weights
        assert (about["ratio"], about["threshold"]) == (0.75, selector.default_budget.threshold)

    def test_a_threshold_goes_through_the_calibration(self, bundled: Exported) -> None:
        model, fitted = OnnxGaze(bundled.folder), Calibration.load(BUNDLED)
        assert fitted is not None
        lowest, highest = fitted.lowest_threshold, fitted.highest_threshold
        for threshold in [lowest, *np.linspace(lowest, 1.2 * highest, 50), fitted.promises[3].threshold]:
            assert model.level(threshold) == pytest.approx(fitted.level(threshold), rel=1e-12)
        with pytest.raises(SystemExit, match=r"least threshold this model can promise is 0\.02097"):
            model.level(0.99 * lowest)

    def test_a_model_without_one_compares_with_the_predictions(self, small: Exported) -> None:
        assert OnnxGaze(small.folder).level(-1.25) == -1.25

    def test_of_equal_promises_the_cheapest_counts(self) -> None:
        told = StopLevels.of(calibration((0.1, 0.2), (0.2, 0.3), (0.25, 0.3), (0.4, 0.5)))
        assert told is not None
        assert (told.thresholds, told.levels) == ((0.2, 0.3, 0.5), (0.1, 0.25, 0.4))

    def test_promises_without_logarithms_are_left_out(self) -> None:
        told = StopLevels.of(calibration((-0.1, 0.2), (0.0, 0.25), (0.1, 0.3)))
        assert told is not None
        assert (told.thresholds, told.levels) == ((0.3,), (0.1,))
        assert StopLevels.of(calibration((-0.1, 0.2))) is None


class TestCommand:
    def test_says_what_it_wrote(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["export", "--model", str(SMALL), "--out", str(tmp_path / "out"), "--format", "torch"]
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        assert out.startswith(f"{SMALL}: 0.")
        assert "MB, outputs at most " in out
        assert out.endswith(f" → {tmp_path}/out/{{encoder.pt2,decoder_step.pt2,gaze.json}}\n")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            *("decoder_step.pt2", "encoder.pt2", "gaze.json")
        ]
        assert json.loads((tmp_path / "out/gaze.json").read_text())["model"] == "gaze_small"

    def test_json_is_all_there_is(self, small: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        place = tmp_path / "out"
        shutil.copytree(small.folder, place)  # the other format, which must not stay beside the new one
        with pytest.raises(SystemExit):
            main(["export", "--model", str(SMALL), "--out", str(place), "--format", "torch", "--overwrite", "--json"])
        said = json.loads(capsys.readouterr().out)
        assert said["files"] == ["encoder.pt2", "decoder_step.pt2", "gaze.json"]
        assert sorted(path.name for path in place.iterdir()) == sorted(said["files"])
        assert said["num_bytes"] == sum(path.stat().st_size for path in place.iterdir())
        assert said["difference"] < 1e-5


class TestErrors:
    def test_a_selector_has_no_network(self, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="replenish has no network to export; legal are bundled"):
            export_gaze_model("replenish", tmp_path / "out", format="torch")
        assert not (tmp_path / "out").exists()

    def test_an_unknown_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"'bundeld' is no model \(did you mean bundled"):
            export_gaze_model("bundeld", tmp_path / "out", format="torch")

    def test_an_export_is_there_already(self, small: Exported) -> None:
        with pytest.raises(
            ExportError, match=r"holds gaze\.json and encoder\.onnx and decoder_step\.onnx already; --overwrite"
        ):
            export_gaze_model(SMALL, small.folder, format="torch")

    def test_a_file_is_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(OutputError, match="is a file; results need a folder"):
            export_gaze_model(SMALL, tmp_path / "out", format="torch")

    def test_an_unknown_format(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="format must be onnx or torch, got 'tensorrt'"):
            export_gaze_model(SMALL, tmp_path / "out", format="tensorrt")  # type: ignore[arg-type]

    @pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
    def test_a_package_is_missing(self, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"{package} is not installed; run: pip install 'autogaze\[export\]'"):
            export_gaze_model(SMALL, tmp_path / "out")

    def test_a_program_that_computes_something_else_is_not_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder, "write", lambda program, path, **_: path.touch())
        monkeypatch.setattr(folder, "difference", lambda *_, **__: float("nan"))
        with pytest.raises(ExportError, match=r"outputs of encoder\.pt2 are up to nan away"):
            export_gaze_model(SMALL, tmp_path / "out", format="torch")
        assert not (tmp_path / "out").exists()


def test_the_example_gazes_without_torch(bundled: Exported, tmp_path: Path) -> None:
    """As a process of its own, at a file, and chooses what ``autogaze.gaze`` chooses."""
    command = [sys.executable, "-X", "importtime", EXAMPLE, ROOT / "examples/sample.mp4", "--model", bundled.folder]
    limits = ["--frames", "18", "--threshold", "0.03", "--ratio", "0.5", "--out", tmp_path / "patches.json"]
    done = subprocess.run([*command, *limits], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "onnxruntime" in imported
    assert not imported & {"torch", "autogaze"}
    kept = json.loads((tmp_path / "patches.json").read_text())
    with autogaze.open_video(ROOT / "examples/sample.mp4", window_frames=18) as reader:
        rgb = next(reader).rgb
    gaze = autogaze.gaze(rgb, model="bundled", mode="resize", threshold=0.03, ratio=0.5)
    assert kept == [frame.index.tolist() for frame in gaze]
    assert done.stdout.splitlines()[-1] == f"{gaze.ratio:.2%} of the patches kept"
