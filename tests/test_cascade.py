import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import autogaze
from autogaze.cli import main
from autogaze.errors import AutoGazeWarning, BudgetError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze.autogaze import AutoGaze
from autogaze.models.autogaze.selector import AutoGazeSelector
from autogaze.pipeline import make_recipe
from autogaze.selectors import make_selector
from autogaze.selectors.base import Budget, Selector, SelectorSession
from autogaze.selectors.canvas import quality
from autogaze.selectors.cascade import Cascade, CascadeSession
from autogaze.selectors.replenish import Replenish, ReplenishSession
from autogaze.summary import Settings
from autogaze.tiling import tile
from small_models import small_config

# 2 × 3 tiles of 32 px; the last row and column reach past the frame.
GRID = PatchGrid(scales_px=(8, 16, 32), patch_px=4)
HEIGHT_PX, WIDTH_PX = 50, 90
LAYOUT = FrameLayout.tiled(GRID, height_px=HEIGHT_PX, width_px=WIDTH_PX)
FRAMES = 20
CASCADE = Cascade(Replenish(GRID), change=0.1)


def still(frames: int = FRAMES) -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT_PX, WIDTH_PX, 3)).astype(np.uint8)
    return np.repeat(picture[None], frames, axis=0)


def moving(frames: int = FRAMES) -> np.ndarray:
    """A white square that goes round inside the first tile, from the fourth frame on."""
    rgb = still(frames) // 2
    for t in range(3, frames):
        top_px, left_px = 2 + 3 * (t % 4), 2 + 3 * (t // 4 % 4)
        rgb[t, top_px : top_px + 8, left_px : left_px + 8] = 255
    return rgb


def run(selector: Selector, rgb: np.ndarray, budget: Budget, *, step: int = 16) -> tuple[Gaze, np.ndarray]:
    """The gaze of all frames, and which tiles were open in each."""
    session: SelectorSession = selector.open(LAYOUT, budget)
    frames = Frames.from_rgb(rgb)
    gazes, opened = [], []
    for first in range(0, len(frames), step):
        gazes.append(session.step(frames[first : first + step]))
        opened.append(getattr(session, "opened_TK", None))
    return Gaze.concatenate(gazes), np.concatenate(opened) if isinstance(session, CascadeSession) else np.empty(0)


def counts(gaze: Gaze) -> np.ndarray:
    """(T, K) gazes of each tile."""
    return np.stack([tile(gaze, number).count for number in range(LAYOUT.num_tiles)], axis=1)


@pytest.mark.parametrize("budget", [Budget(threshold=0.02), Budget(ratio=0.1, per="clip")])
def test_level_zero_is_the_inner_selector(budget: Budget) -> None:
    whole, _ = run(Replenish(GRID), moving(), budget)
    assert run(Cascade(Replenish(GRID), change=0), moving(), budget)[0].equals(whole)


def test_one_tile_is_the_inner_selector() -> None:
    layout = FrameLayout.resized(GRID, height_px=HEIGHT_PX, width_px=WIDTH_PX)
    frames = Frames.from_rgb(moving())
    gazes = [selector.open(layout, Budget(ratio=0.1)).step(frames) for selector in (Replenish(GRID), CASCADE)]
    assert gazes[0].equals(gazes[1])


def test_a_still_scene_opens_nothing_after_the_first_frame() -> None:
    gaze, opened = run(CASCADE, still(), Budget(ratio=0.1))
    assert opened[0].all()
    assert not opened[1:].any()
    assert (counts(gaze)[0] > 0).all()
    assert gaze.count[1:].sum() == 0
    assert gaze.predicted_loss is not None  # though later steps opened no tile


def test_a_small_moving_object_opens_its_tile_alone() -> None:
    gaze, opened = run(CASCADE, moving(), Budget(threshold=0.01))
    assert opened[3:, 0].all()
    assert not opened[1:3].any()
    assert not opened[1:, 1:].any()
    assert (counts(gaze)[~opened] == 0).all()
    assert (counts(gaze)[opened] > 0).all()


def test_a_slow_fade_opens_a_tile_again_and_again() -> None:
    rgb = np.arange(0, 160, 8, dtype=np.uint8)[:, None, None, None] + np.zeros((FRAMES, 50, 90, 3), np.uint8)
    _, opened = run(CASCADE, rgb, Budget(ratio=0.1))
    # 0.1 is 25.5 levels: 4 steps of 8.
    assert opened[:, 0].tolist() == [t % 4 == 0 for t in range(FRAMES)]


def test_larger_changes_open_fewer_tiles() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (8, HEIGHT_PX, WIDTH_PX, 3)).astype(np.uint8)
    opened = [run(Cascade(Replenish(GRID), change=change), rgb, Budget(ratio=0.05))[1] for change in (1e-3, 0.5, 0.9)]
    shares = [part.mean() for part in opened]
    assert shares[0] == 1
    assert shares[0] > shares[1] > shares[2]


@pytest.mark.parametrize("budget", [Budget(threshold=0.02), Budget(ratio=0.1), Budget(psnr_db=25)])
@pytest.mark.parametrize("step", [1, 5])
def test_a_stream_gets_what_a_file_gets(budget: Budget, step: int) -> None:
    assert run(CASCADE, moving(), budget)[0].equals(run(CASCADE, moving(), budget, step=step)[0])


def test_every_tile_is_a_video_of_its_open_frames() -> None:
    rgb = moving()
    gaze, opened = run(CASCADE, rgb, Budget(threshold=0.02))
    for number, (row_px, column_px) in enumerate([(0, 0), (0, 32), (0, 64), (32, 0), (32, 32), (32, 64)]):
        part = rgb[opened[:, number], row_px : row_px + 32, column_px : column_px + 32]
        layout = FrameLayout.tiled(GRID, height_px=part.shape[1], width_px=part.shape[2])
        alone = Replenish(GRID).open(layout, Budget(threshold=0.02)).step(Frames.from_rgb(part))
        assert tile(gaze, number).index.tolist() == alone.index.tolist()
        assert gaze.predicted_loss is not None
        assert tile(gaze, number).count[opened[:, number]].tolist() == alone.count.tolist()


def test_opened_tiles_keep_their_limits() -> None:
    rgb = moving()
    gaze, opened = run(CASCADE, rgb, Budget(ratio=0.25))
    inside = LAYOUT.inside.reshape(LAYOUT.num_tiles, -1).sum(1)
    assert (counts(gaze) <= opened * (inside // 4)).all()
    for budget in (Budget(threshold=0.02), Budget(psnr_db=25)):
        gaze, opened = run(CASCADE, rgb, budget)
        for t in (0, 3):
            # The first tile by itself, which is whole.
            part = Frames.from_rgb(rgb[: t + 1, :32, :32])
            reached = quality(part, gaze=tile(gaze[: t + 1], 0))
            if budget.threshold is not None:
                assert reached.loss[t] <= budget.threshold
            else:
                assert reached.psnr_db[t] >= 25


def test_a_clip_budget_is_shared_by_the_open_frames_of_a_tile() -> None:
    gaze, opened = run(CASCADE, moving(), Budget(ratio=0.1, per="clip"), step=1)
    first = tile(gaze, 0).count[opened[:, 0]]
    assert first[:16].sum() <= 0.1 * 16 * GRID.num_patches
    assert (first > 0).all()


def test_a_gaze_model_as_a_stream_and_as_a_file() -> None:
    model = AutoGazeSelector(AutoGaze(small_config()))
    side_px = model.grid.scales_px[-1]
    rgb = np.repeat(np.random.default_rng(2).integers(0, 256, (1, side_px, 3 * side_px, 3)), FRAMES, axis=0)
    rgb[2:, :, :side_px] = np.random.default_rng(3).integers(0, 256, (FRAMES - 2, side_px, side_px, 3))
    frames = Frames.from_rgb(rgb.astype(np.uint8))
    layout = FrameLayout.tiled(model.grid, height_px=side_px, width_px=3 * side_px)
    cascade, budget = Cascade(model, change=0.2), Budget(ratio=0.2)
    file, stream = cascade.open(layout, budget), cascade.open(layout, budget)
    whole = file.step(frames)
    parts = Gaze.concatenate([stream.step(frames[t : t + 1]) for t in range(FRAMES)])
    assert whole.index.tolist() == parts.index.tolist()
    assert whole.count.tolist() == parts.count.tolist()
    assert whole.probability is not None
    assert tile(whole, 2).count[1:].sum() == 0
    assert (tile(whole, 0).count[2:] > 0).all()
    everything = Cascade(model, change=0).open(layout, budget).step(frames)
    assert everything.equals(model.open(layout, budget).step(frames))


def test_as_an_option_of_gaze_and_of_a_stream() -> None:
    rgb = np.zeros((3, 300, 500, 3), np.uint8)
    rgb[2, :40, :40] = 200
    gaze = autogaze.gaze(rgb, cascade=0.1)
    opened_tiles = np.unique(gaze[2].index // gaze.layout.grid.num_patches)
    assert opened_tiles.tolist() == [0]
    session = autogaze.stream(height_px=300, width_px=500, cascade=0.1)
    assert np.array_equal(Gaze.concatenate([session.step(frame) for frame in rgb]).index, gaze.index)
    assert autogaze.gaze(rgb, cascade=0).equals(autogaze.gaze(rgb))
    assert autogaze.gaze(rgb, model=Cascade(make_selector("replenish"), change=0.1)).equals(gaze)
    assert Cascade(make_selector("replenish"), change=0.1).name == "cascade:replenish"


def test_a_result_knows_its_cascade(tmp_path: Path) -> None:
    old = {"model": "replenish", "mode": "tiles"}
    assert Settings(**old).cascade is None  # as summaries of before say nothing of it
    sample = str(Path(__file__).parents[1] / "examples" / "sample.mp4")
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "gaze",
                sample,
                "--frames",
                "2",
                "--no-overlay",
                "--no-sheet",
                "--quiet",
                "--cascade",
                "0.2",
                "--out",
                str(tmp_path),
            ]
        )
    assert ended.value.code == 0
    assert json.loads((tmp_path / "sample.json").read_text())["settings"]["cascade"] == 0.2


@pytest.mark.parametrize("change", [-0.1, 1, 1.5, float("nan"), True, "0.1"])
def test_errors_of_the_level(change: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        Cascade(Replenish(GRID), change=change)
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        make_recipe(cascade=change)


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="motion vectors"):
        Cascade(make_selector("motion-vectors"), change=0.1)
    with pytest.raises(ValueError, match="leave one of the two out"):
        make_recipe(cascade=0.1, mode="resize")
    with pytest.raises(BudgetError):
        CASCADE.open(LAYOUT, Budget(threshold=-1))
    session = CASCADE.open(LAYOUT, Budget(ratio=0.1))
    with pytest.raises(ValueError, match="frames must be"):
        session.step(Frames.from_rgb(np.zeros((1, 20, 20, 3), np.uint8)))
    assert session.step(Frames.from_rgb(still(1))).num_gazes > 0


def test_warnings_are_those_of_the_whole_frame(recwarn: pytest.WarningsRecorder) -> None:
    class Wary(Replenish):
        def open(self, layout: FrameLayout, budget: Budget) -> ReplenishSession:
            warnings.warn(f"not for {layout.num_tiles} tiles", AutoGazeWarning, stacklevel=2)
            return super().open(layout, budget)

    Cascade(Wary(GRID), change=0.1).open(LAYOUT, Budget(ratio=0.1))
    assert [str(warning.message) for warning in recwarn] == ["not for 6 tiles"]
