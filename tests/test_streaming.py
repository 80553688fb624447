"""A stream gives what the whole video gives, in memory that does not grow."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import autogaze
from autogaze.errors import BudgetError, CheckpointError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.loading import load_selector
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.selector import PUBLISHED_BUDGET, AutoGazeSelector
from autogaze.selectors import make_selector
from autogaze.selectors.base import Budget
from autogaze.streaming import GazeSession

CHECKPOINT = Path(__file__).parent / "data" / "gaze_small"
CLIP_FRAMES = 8  # what this checkpoint sees at once


@lru_cache
def small() -> AutoGaze:
    return AutoGaze.from_pretrained(CHECKPOINT)


def moving(num_frames: int, *, height_px: int, width_px: int, seed: int = 0) -> NDArray[np.uint8]:
    """A bright square on its way over noise that changes a little."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 128, (1, height_px, width_px, 3), np.uint8).repeat(num_frames, 0)
    rgb += rng.integers(0, 8, rgb.shape, np.uint8)
    for t in range(num_frames):
        rgb[t, 8:24, 2 * t : 2 * t + 16] = 255
    return rgb


def streamed(session: GazeSession, rgb: Iterable[NDArray[np.uint8]]) -> Gaze:
    steps = [session.step(frame) for frame in rgb]
    assert all(len(step) == 1 for step in steps)
    return Gaze.concatenate(steps)


def assert_same(a: Gaze, b: Gaze) -> None:
    """The same gazes; numbers beside them as near as sums in another order are."""
    assert a.layout == b.layout
    assert np.array_equal(a.index, b.index)
    assert np.array_equal(a.count, b.count)
    for name in ("probability", "predicted_loss", "time_seconds"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=2e-4, equal_nan=True)


class TestStreamIsTheWholeVideo:
    @pytest.mark.parametrize("options", [{}, {"ratio": 0.05}, {"psnr_db": 25.0}, {"mode": "resize"}], ids=str)
    def test_replenish(self, options: dict[str, Any]) -> None:
        rgb = moving(18, height_px=60, width_px=250)
        session = autogaze.stream(height_px=60, width_px=250, **options)
        assert streamed(session, rgb).equals(autogaze.gaze(rgb, **options))

    @pytest.mark.parametrize("model", ["random", "uniform", "difference", "difference-paper", "detail"])
    def test_selectors_without_weights(self, model: str) -> None:
        rgb = moving(18, height_px=60, width_px=80)
        whole = autogaze.gaze(rgb, model=model, ratio=0.1)
        assert streamed(autogaze.stream(height_px=60, width_px=80, model=model, ratio=0.1), rgb).equals(whole)

    @pytest.mark.parametrize("mode", ["tiles", "resize"])
    def test_a_gaze_model_over_several_clips(self, mode: Any) -> None:
        rgb = moving(20, height_px=60, width_px=100)
        options: dict[str, Any] = {"ratio": 0.2, "threshold": 0.4, "mode": mode}
        whole = autogaze.gaze(rgb, model=small(), **options)
        assert_same(streamed(autogaze.stream(height_px=60, width_px=100, model=small(), **options), rgb), whole)
        # Every clip is gazed at on its own.
        later = autogaze.gaze(rgb[CLIP_FRAMES:], model=small(), **options)
        assert np.array_equal(whole[CLIP_FRAMES:].index, later.index)

    @pytest.mark.parametrize("step_frames", [1, 3, 20])
    @pytest.mark.parametrize("tile_batch", [1, 3, 4, 5])
    @pytest.mark.parametrize("kept_tiles", [0, 3, 4])
    def test_a_gaze_model_with_more_tiles_than_fit_a_batch(
        self, tile_batch: int, kept_tiles: int, step_frames: int
    ) -> None:
        side_px = small().grid.scales_px[-1]
        rgb = moving(20, height_px=side_px + 10, width_px=2 * side_px - 3)
        layout = FrameLayout.tiled(small().grid, height_px=rgb.shape[1], width_px=rgb.shape[2])
        assert layout.num_tiles == 4
        budget, frames = Budget(ratio=0.1, threshold=0.4), Frames.from_rgb(rgb)
        whole = AutoGazeSelector(small(), tile_batch=64).open(layout, budget).step(frames)
        session = AutoGazeSelector(small(), tile_batch=tile_batch, kept_tiles=kept_tiles).open(layout, budget)
        steps = [session.step(frames[t : t + step_frames]) for t in range(0, 20, step_frames)]
        assert_same(Gaze.concatenate(steps), whole)

    @pytest.mark.parametrize(("kept_tiles", "decoded"), [(2, (1 + 2 + 3 + 4) * 3), (3, (1 + 2 + 1 + 1) * 3)])
    def test_tiles_that_are_kept_are_decoded_again_once_in_a_clip(
        self, kept_tiles: int, decoded: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, frames = small(), Frames.from_rgb(moving(4, height_px=60, width_px=130))
        layout = FrameLayout.tiled(model.grid, height_px=60, width_px=130)
        session = AutoGazeSelector(model, tile_batch=2, kept_tiles=kept_tiles).open(layout, Budget(ratio=0.1))
        seen, decode_frame = [], model.decoder.engine.decode_frame

        def counting(state: Any, visual_BPC: torch.Tensor, **options: Any) -> Any:
            seen.append(len(visual_BPC))
            return decode_frame(state, visual_BPC, **options)

        monkeypatch.setattr(model.decoder.engine, "decode_frame", counting)
        for t in range(4):
            session.step(frames[t : t + 1])
        assert sum(seen) == decoded

    def test_a_ratio_for_each_frame_begins_again_with_each_clip(self) -> None:
        ratios = [0.4, *[0.05] * (CLIP_FRAMES - 1)]
        rgb = moving(18, height_px=60, width_px=80)
        session = autogaze.stream(height_px=60, width_px=80, model=small(), ratio=ratios, mode="resize")
        patches = small().grid.num_patches
        assert streamed(session, rgb).count.tolist() == [
            max(1, int(patches * ratios[t % CLIP_FRAMES] + 1e-9)) for t in range(18)
        ]

    def test_a_budget_per_clip_is_kept(self) -> None:
        rgb = moving(16, height_px=60, width_px=80)
        gaze = streamed(autogaze.stream(height_px=60, width_px=80, ratio=0.05, per="clip"), rgb)
        assert 0 < gaze.num_gazes <= 0.05 * gaze.num_patches


def state_bytes(value: object) -> int:
    """Bytes of all arrays and tensors that an object holds on to."""
    seen: set[int] = set()
    todo, total = [value], 0
    while todo:
        one = todo.pop()
        if (
            id(one) in seen
            or isinstance(one, type | torch.nn.Module)
            or (callable(one) and not hasattr(one, "__dict__"))
        ):
            continue
        seen.add(id(one))
        if isinstance(one, np.ndarray):
            total += one.nbytes
        elif isinstance(one, torch.Tensor):
            total += one.untyped_storage().nbytes()
        elif isinstance(one, dict | list | tuple) or hasattr(one, "__dict__") or hasattr(one, "__slots__"):
            todo += gc.get_referents(one)
    return total


class TestMemory:
    @pytest.mark.parametrize("model", ["replenish", "difference", "small", "small, tiles", "small, tiles again"])
    def test_does_not_grow(self, model: str) -> None:
        rgb = moving(3 * CLIP_FRAMES, height_px=60, width_px=130)
        chosen: Any = model
        if model.startswith("small"):
            chosen = AutoGazeSelector(small(), tile_batch=1, kept_tiles=0 if "again" in model else 64)
        mode: Any = "tiles" if "," in model else "resize"
        session = autogaze.stream(height_px=60, width_px=130, model=chosen, ratio=0.1, mode=mode)
        held = []
        for frame in rgb:
            session.step(frame)
            held.append(state_bytes(session))
        assert max(held) > 1000
        # From clip to clip; within one, a model's memory fills.
        assert held[CLIP_FRAMES : 2 * CLIP_FRAMES] == held[2 * CLIP_FRAMES :]

    @pytest.mark.parametrize(("tile_batch", "kept_tiles"), [(1, 64), (2, 0), (2, 64), (8, 64)])
    def test_whole_clips_leave_nothing_behind(self, tile_batch: int, kept_tiles: int) -> None:
        layout = FrameLayout.tiled(small().grid, height_px=60, width_px=330)
        selector = AutoGazeSelector(small(), tile_batch=tile_batch, kept_tiles=kept_tiles)
        session = selector.open(layout, Budget(ratio=0.1))
        assert layout.num_tiles > 2
        for clip in (moving(CLIP_FRAMES, height_px=60, width_px=330),) * 2:
            session.step(Frames.from_rgb(clip))
            assert state_bytes(session) < 5000
        session.step(Frames.from_rgb(clip[:1]))
        assert state_bytes(session) > 50_000

    def test_a_video_that_ends_inside_a_clip_leaves_its_frames_and_no_more(self) -> None:
        layout, clip = (
            FrameLayout.tiled(small().grid, height_px=60, width_px=330),
            moving(7, height_px=60, width_px=330),
        )
        session = AutoGazeSelector(small(), tile_batch=2, kept_tiles=64).open(layout, Budget(ratio=0.1))
        session.step(Frames.from_rgb(clip[:6]))
        assert clip[:6].nbytes <= state_bytes(session) < clip[:6].nbytes + 5000
        session.step(Frames.from_rgb(clip[6:]))  # it goes on: from now on it is worth remembering
        assert state_bytes(session) > clip.nbytes + 100_000


class TestStep:
    def test_times_are_those_given_or_thirtieths(self) -> None:
        session = autogaze.stream(height_px=20, width_px=30, ratio=0.1)
        rgb = moving(3, height_px=20, width_px=30)
        assert session.frames_seen == 0
        times = [session.step(rgb[0]), session.step(rgb[1], time_seconds=7.5), session.step(rgb[2])]
        assert [gaze.time_seconds.tolist() for gaze in times if gaze.time_seconds is not None] == [[0], [7.5], [2 / 30]]
        assert session.frames_seen == 3

    def test_takes_tensors_and_arrays_that_may_not_be_written(self) -> None:
        rgb = moving(1, height_px=20, width_px=30)[0]
        frozen = rgb.copy()
        frozen.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first, *others = [
                autogaze.stream(height_px=20, width_px=30).step(frame)
                for frame in (rgb, frozen, torch.from_numpy(rgb), rgb[::-1][::-1])
            ]
        assert all(first.equals(other) for other in others)

    @pytest.mark.parametrize(
        "wrong",
        [
            np.zeros((60, 79, 3), np.uint8),
            np.zeros((80, 60, 3), np.uint8),
            np.zeros((60, 80), np.uint8),
            np.zeros((60, 80, 4), np.uint8),
            np.zeros((1, 60, 80, 3), np.uint8),
            np.zeros((60, 80, 3), np.float32),
        ],
        ids=lambda frame: f"{frame.shape} {frame.dtype}",
    )
    @pytest.mark.parametrize("model", ["replenish", "small"])
    def test_a_wrong_frame_is_refused_and_forgotten(self, wrong: NDArray[Any], model: str) -> None:
        chosen: Any = small() if model == "small" else model
        rgb = moving(4, height_px=60, width_px=80)
        options: dict[str, Any] = {"model": chosen, "ratio": 0.1}
        session = autogaze.stream(height_px=60, width_px=80, **options)
        first = streamed(session, rgb[:2])
        with pytest.raises(ValueError, match=r"must be \(60, 80, 3\) uint8, got \("):
            session.step(wrong)
        rest = streamed(session, rgb[2:])
        assert_same_index(Gaze.concatenate([first, rest]), autogaze.gaze(rgb, **options))


def assert_same_index(a: Gaze, b: Gaze) -> None:
    assert np.array_equal(a.index, b.index)
    assert np.array_equal(a.count, b.count)


class TestOpening:
    def test_a_stream_knows_its_layout(self) -> None:
        session = autogaze.stream(height_px=300, width_px=500)
        assert session.layout == FrameLayout.tiled(PatchGrid(), height_px=300, width_px=500)
        resized = autogaze.stream(height_px=300, width_px=500, mode="resize")
        assert resized.layout == FrameLayout.resized(PatchGrid(), height_px=300, width_px=500)

    @pytest.mark.parametrize(("height_px", "width_px"), [(0, 20), (20, -1), (1.5, 20), (20, True), ("20", 20)])
    def test_a_size_that_is_none(self, height_px: int, width_px: int) -> None:
        with pytest.raises(ValueError, match="_px must be a whole number of at least 1, got"):
            autogaze.stream(height_px=height_px, width_px=width_px)

    def test_illegal_options(self) -> None:
        size: dict[str, Any] = {"height_px": 20, "width_px": 20}
        with pytest.raises(BudgetError, match="ratio must be above 0"):
            autogaze.stream(**size, ratio=7)
        with pytest.raises(CheckpointError, match="is no model"):
            autogaze.stream(**size, model="nothing")
        with pytest.raises(ValueError, match='mode must be "tiles" or "resize"'):
            autogaze.stream(**size, mode="crop")
        with pytest.raises(TypeError, match="fps"):
            autogaze.stream(**size, fps=2)

    def test_bare_frames_have_no_motion_vectors(self) -> None:
        with pytest.raises(ValueError, match=r"motion-vectors reads motion vectors, .* use flow or difference"):
            autogaze.stream(height_px=20, width_px=20, model="motion-vectors")


class TestGazeModelAsSelector:
    def test_default_budget_is_the_published_operating_point(self) -> None:
        assert AutoGazeSelector(small()).default_budget == PUBLISHED_BUDGET == Budget(ratio=0.75, threshold=0.7)
        assert AutoGazeSelector(small(), budget=Budget(ratio=0.1)).default_budget == Budget(ratio=0.1)

    @pytest.mark.parametrize(
        ("budget", "message"),
        [
            (Budget(psnr_db=30.0), "predicts a loss, not decibels; give a threshold, or use --model replenish"),
            (Budget(ratio=0.1, per="clip"), "keeps a ratio in every frame, not per clip"),
            (Budget(ratio=[0.2, 0.1]), "ratio must be one number or 8, one for each frame, got 2"),
        ],
    )
    def test_budgets_it_cannot_keep(self, budget: Budget, message: str) -> None:
        layout = FrameLayout.resized(small().grid, height_px=20, width_px=20)
        with pytest.raises(BudgetError, match=message):
            AutoGazeSelector(small()).open(layout, budget)
        with pytest.raises(BudgetError, match=message):
            autogaze.stream(
                height_px=20,
                width_px=20,
                model=small(),
                ratio=budget.ratio,
                psnr_db=budget.psnr_db,
                per=budget.per,
            )

    def test_a_layout_of_another_grid(self) -> None:
        layout = FrameLayout.resized(PatchGrid(scales_px=(32,)), height_px=20, width_px=20)
        with pytest.raises(ValueError, match=r"the layout is of PatchGrid.* the model of PatchGrid"):
            AutoGazeSelector(small()).open(layout, Budget(ratio=0.1))

    def test_a_batch_of_no_tiles(self) -> None:
        with pytest.raises(ValueError, match="tile_batch must be at least 1, got 0"):
            AutoGazeSelector(small(), tile_batch=0)
        with pytest.raises(ValueError, match="kept_tiles must be at least 0, got -1"):
            AutoGazeSelector(small(), kept_tiles=-1)


class TestLoading:
    def test_a_model_becomes_a_selector(self) -> None:
        selector = load_selector(small())
        assert isinstance(selector, AutoGazeSelector)
        assert selector.model is small()

    def test_a_path_is_as_good_as_its_text(self) -> None:
        rgb = moving(2, height_px=60, width_px=80)
        by_path, by_text, by_object = (
            autogaze.gaze(rgb, model=model, ratio=0.1) for model in (CHECKPOINT, str(CHECKPOINT), small())
        )
        assert by_path.equals(by_text)
        assert by_path.equals(by_object)

    def test_what_is_no_model(self) -> None:
        with pytest.raises(TypeError, match="a name, a path, a selector or an AutoGaze, got int"):
            load_selector(7)  # type: ignore[arg-type]

    def test_results_of_two_objects_are_never_taken_for_each_other(self, tmp_path: Path) -> None:
        sample = Path(__file__).parents[1] / "examples" / "sample.mp4"
        options: dict[str, Any] = {"frames": 1, "mode": "resize", "ratio": 0.01, "overlay": False, "sheet": False}
        first = autogaze.gaze_to_files(sample, tmp_path, model=make_selector("uniform"), **options)
        second = autogaze.gaze_to_files(sample, tmp_path, model=make_selector("uniform"), **options)
        assert first.settings.model == second.settings.model == "uniform"
        assert first.settings != second.settings
