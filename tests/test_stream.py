"""Training clips and the stream that makes them."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autogaze.datasets.clips import (
    MAX_FRAMES,
    ClipMix,
    ClipRecipe,
    Footage,
    FootageCache,
    find_images,
    find_videos,
    read_video,
    render,
    scan,
    validation_recipes,
    window,
)
from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.labels import LabelRule, label_clip
from autogaze.datasets.stream import ClipShape, ClipStream, LabelledClip, Unreadable
from autogaze.errors import VideoError
from autogaze.grid import PatchGrid
from make_video import moving_frames, noisy_frames, write_video

SHAPE = ClipShape(grid=PatchGrid(scales_px=(32, 64)), frames=4)
LABELLER = GreedyLabeller(grid=SHAPE.grid)
RULE = LabelRule(threshold=0.03)


def recipe(kind: str = "video", number: int = 0, path: Path = Path("x.mp4")) -> ClipRecipe:
    return ClipRecipe(number=number, path=path, kind=kind, seed=0, rule=RULE)


def small_clips(clips: int) -> list[LabelledClip]:
    """Labelled clips of smooth noise that moves."""
    made = []
    for seed in range(clips):
        rgb = moving_frames(SHAPE.frames, height_px=64, width_px=64, seed=seed)
        label = label_clip(rgb, rule=RULE, grid=SHAPE.grid)
        made.append(LabelledClip(recipe=recipe(number=10 + seed), rgb=rgb, label=label))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(3):
        write_video(folder / f"{seed}.mp4", moving_frames(24, height_px=72, width_px=96, seed=seed))
    (folder / "broken.mp4").write_bytes(b"no video")
    Image.fromarray(moving_frames(1, height_px=160, width_px=200)[0]).save(folder / "page.png")
    return folder


def mix(folder: Path, **changes: float) -> ClipMix:
    return ClipMix(videos=find_videos(folder), images=find_images(folder), **changes)  # type: ignore[arg-type]


def test_folders_are_searched_by_kind(folder: Path) -> None:
    assert [path.name for path in find_videos(folder)] == ["0.mp4", "1.mp4", "2.mp4", "broken.mp4"]
    assert [path.name for path in find_images(folder)] == ["page.png"]
    assert find_videos(None) == find_images(None) == ()


def test_recipes_come_in_the_shares_asked_for(folder: Path) -> None:
    recipes = [mix(folder, scans=0.2, stills=0.1, cuts=0.3).recipe(n) for n in range(3000)]
    shares = {kind: sum(r.kind == kind for r in recipes) / 3000 for kind in ("scan", "still", "cut", "video")}
    assert shares["scan"] == pytest.approx(0.2, abs=0.03)
    assert shares["still"] == pytest.approx(0.08, abs=0.03)
    assert shares["cut"] == pytest.approx(0.24, abs=0.03)
    thresholds = [r.rule.threshold for r in recipes]
    assert 0.008 <= min(thresholds) < 0.0082 and 0.0585 < max(thresholds) <= 0.06
    assert np.median(thresholds) == pytest.approx((0.008 * 0.06) ** 0.5, rel=0.1)
    assert sum(r.rule.slip == 0 for r in recipes) / 3000 == pytest.approx(0.5, abs=0.04)
    assert {r.kind for r in map(ClipMix(videos=(), images=(Path("a.png"),)).recipe, range(50))} == {"scan"}


def test_a_mix_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one video or image"):
        ClipMix(videos=())


@pytest.mark.parametrize("kind", ["video", "still", "cut", "scan", "whole"])
def test_a_clip_depends_on_seed_and_number_alone(kind: str) -> None:
    footage = Footage(rgb=moving_frames(50, height_px=72, width_px=96), fps=30)

    def made(number: int) -> np.ndarray:
        return render(recipe(kind, number), footage, frames=4, side_px=64)

    assert made(1).shape == (4, 64, 64, 3) and made(1).dtype == np.uint8
    assert np.array_equal(made(1), made(1))
    assert np.array_equal(made(1), made(2)) == (kind == "whole")


def test_still_clips_hold_still_up_to_noise() -> None:
    footage = Footage(rgb=noisy_frames(50, height_px=72, width_px=96), fps=30)
    exact = 0
    for number in range(12):
        clip = render(recipe("still", number), footage, frames=4, side_px=64).astype(int)
        exact += (clip == clip[0]).all()
        assert np.abs(clip - clip[0]).mean() < 8
    assert 0 < exact < 12


def test_cut_clips_are_cut_once() -> None:
    rgb = np.zeros((200, 64, 64, 3), np.uint8)
    rgb += np.arange(200, dtype=np.uint8)[:, None, None, None]
    for number in range(8):
        levels = render(recipe("cut", number), Footage(rgb=rgb, fps=5), frames=16, side_px=64).mean((1, 2, 3))
        assert (np.abs(np.diff(levels)) > 3).sum() <= 1


def test_windows_keep_time_in_order_and_leave_frames_out_only_of_fast_videos() -> None:
    rgb = np.zeros((200, 16, 16, 3), np.uint8)
    rgb += np.arange(200, dtype=np.uint8)[:, None, None, None]
    for fps, expected in ((30, {1, 2, 3, 4}), (12, {1, 2}), (5, {1})):
        seen = set()
        for seed in range(40):
            levels = window(Footage(rgb=rgb, fps=fps), np.random.default_rng(seed), frames=16, side_px=16)[:, 0, 0, 0]
            seen |= set(np.diff(levels.astype(int)).tolist())
        assert seen == expected


def test_short_videos_run_back_and_forth() -> None:
    rgb = np.zeros((3, 16, 16, 3), np.uint8)
    rgb += 10 * np.arange(3, dtype=np.uint8)[:, None, None, None]
    clip = render(recipe("whole"), Footage(rgb=rgb, fps=30), frames=7, side_px=16)
    assert (clip[:, 0, 0, 0] // 10).tolist() == [0, 1, 2, 1, 0, 1, 2]
    one = render(recipe("whole"), Footage(rgb=rgb[:1], fps=30), frames=3, side_px=16)
    assert one.shape == (3, 16, 16, 3) and not one.any()


def test_whole_clips_are_the_beginning_of_the_video() -> None:
    rgb = moving_frames(40, height_px=72, width_px=96)
    clip = render(recipe("whole"), Footage(rgb=rgb, fps=30), frames=16, side_px=64)
    for made, source in zip(clip, rgb[::2], strict=False):
        assert np.array_equal(made, np.asarray(Image.fromarray(source).resize((64, 64), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("size", [(40, 300), (300, 40), (64, 64)])
def test_scans_stay_inside_images_of_any_shape(size: tuple[int, int]) -> None:
    rgb = np.full((*size, 3), 200, np.uint8)
    for seed in range(10):
        assert (scan(rgb, np.random.default_rng(seed), frames=5, side_px=32) == 200).all()


def test_scans_move() -> None:
    rgb = moving_frames(1, height_px=400, width_px=400)[0]
    moved = [
        not np.array_equal(*scan(rgb, np.random.default_rng(seed), frames=8, side_px=32)[[0, -1]]) for seed in range(10)
    ]
    assert sum(moved) >= 8


def test_large_videos_are_shrunk_and_long_ones_shortened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "large.mp4", moving_frames(70, height_px=400, width_px=480))
    assert read_video(tmp_path / "large.mp4").rgb.shape == (70, 320, 384, 3)
    monkeypatch.setattr("autogaze.datasets.clips.MAX_FRAMES", 40)
    assert MAX_FRAMES > 40
    assert len(read_video(tmp_path / "large.mp4").rgb) == 40


def test_the_cache_forgets_what_was_unused_for_longest(folder: Path) -> None:
    cache = FootageCache(2 * 24 * 72 * 96 * 3)
    first = cache.get(folder / "0.mp4")
    cache.get(folder / "1.mp4")
    assert cache.get(folder / "0.mp4") is first
    cache.get(folder / "2.mp4")
    assert cache.get(folder / "0.mp4") is first
    second = cache.get(folder / "1.mp4")
    assert second is cache.get(folder / "1.mp4")
    with pytest.raises(VideoError, match="broken"):
        cache.get(folder / "broken.mp4")


def test_workers_change_nothing(folder: Path) -> None:
    def some(workers: int) -> list[LabelledClip | Unreadable]:
        recipes = (mix(folder).recipe(number) for number in count())
        with ClipStream(recipes, SHAPE, labeller=LABELLER, workers=workers, ahead=5) as stream:
            found = []
            for made in islice(stream, 24):
                found.append(replace(made, rgb=made.rgb.copy()) if isinstance(made, LabelledClip) else made)
            return found

    alone, together = some(0), some(2)
    assert [made.recipe.number for made in together] == list(range(24))
    assert {type(made) for made in alone} == {LabelledClip, Unreadable}
    for one, other in zip(alone, together, strict=True):
        if isinstance(one, Unreadable):
            assert one == other and "broken.mp4" in one.message
            continue
        assert isinstance(other, LabelledClip)
        assert np.array_equal(one.rgb, other.rgb)
        assert one.label.gaze.equals(other.label.gaze)
        assert np.array_equal(one.label.best, other.label.best)


def test_a_stream_ends_with_its_recipes(folder: Path) -> None:
    recipes = validation_recipes(find_videos(folder)[:3])
    for workers in (0, 1):
        with ClipStream(iter(recipes), SHAPE, labeller=LABELLER, workers=workers, ahead=2) as stream:
            made = [clip.recipe for clip in stream]
        assert made == recipes
