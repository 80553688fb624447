"""What training clips are made of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from autogaze.datasets.clips import ClipMix, mixed_sources, reading_of, render, validation_recipes
from autogaze.datasets.footage import Footage
from autogaze.datasets.label_entries import LabelFileError, VideoLabel, label_key
from autogaze.datasets.label_file import write_labels
from autogaze.datasets.labels import label_clip
from autogaze.datasets.recipes import ClipRecipe
from autogaze.datasets.sources import (
    LabelledVideos,
    ProceduralClips,
    ScanningClips,
    VideoClips,
    find_images,
    find_validation,
    find_videos,
    pick,
)
from autogaze.datasets.stream import ClipMaker, LabelledClip
from autogaze.errors import VideoError
from clip_samples import LABELLER, RULE, SHAPE, recipe, write_sources
from make_video import moving_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two roots, one with train and val; empty files do, since nothing reads them."""
    for name in ("a/train/10.mp4", "a/train/2.mp4", "a/train/b/1.mp4", "a/val/v.webm", "a/loose.mp4", "a/train/p.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("b/x.mp4", "b/deep/er/y.MOV", "b/.hidden.mp4", "b/.cache/z.mp4", "b/notes.txt", "b/deep/i.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/folder.mp4").mkdir()
    (tmp_path / "b/folder.mp4/inside.mp4").touch()
    return tmp_path


# Finding


def names(paths: tuple[Path, ...], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_roots_are_searched_in_the_natural_order_of_names(tree: Path) -> None:
    roots = [tree / "b", tree / "a"]
    assert names(find_videos(roots), tree) == [
        *("b/deep/er/y.MOV", "b/folder.mp4", "b/x.mp4"),
        *("a/train/2.mp4", "a/train/10.mp4", "a/train/b/1.mp4"),
    ]
    assert names(find_images(roots), tree) == ["b/deep/i.jpg", "a/train/p.png"]
    assert names(find_videos([tree / "b" / "x.mp4"]), tree) == ["b/x.mp4"]
    assert find_videos([]) == ()


def test_roots_with_train_and_val_mean_the_one_asked_for(tree: Path) -> None:
    assert names(find_videos([tree / "a"], split="val"), tree) == ["a/val/v.webm"]
    assert names(VideoClips(roots=(tree / "a",), split="val").paths, tree) == ["a/val/v.webm"]
    assert find_images([tree / "a"], split="val") == ()
    assert names(find_validation([], training=[tree / "a", tree / "b"]), tree) == ["a/val/v.webm"]
    assert names(find_validation([tree / "b/deep"], training=[tree / "a"]), tree) == ["b/deep/er/y.MOV", "a/val/v.webm"]
    assert names(find_validation([tree / "a"], training=[tree / "a"]), tree) == ["a/val/v.webm"]


def test_links_are_followed_once(tree: Path) -> None:
    (tree / "b/deep/back").symlink_to(tree / "b")
    (tree / "b/other").symlink_to(tree / "a/val")
    expected = ["b/deep/er/y.MOV", "b/folder.mp4", "b/other/v.webm", "b/x.mp4"]
    assert names(find_videos([tree / "b"]), tree) == expected


def test_missing_and_empty_roots_are_told(tree: Path) -> None:
    with pytest.raises(VideoError, match=r"no file or folder .*gone"):
        find_videos([tree / "gone"])
    with pytest.raises(VideoError, match=r"no image in .*er; give folders"):
        ScanningClips(roots=(tree / "b/deep/er",))
    with pytest.raises(VideoError, match="no video in no folder at all"):
        VideoClips(roots=())


# Mixing


def tuples(mix: ClipMix, count: int) -> list[tuple[str, str, float, float]]:
    found = []
    for made in map(mix.recipe, range(count)):
        assert made.path is not None
        found.append((made.path.name, made.kind, round(made.rule.threshold, 12), round(made.rule.slip, 12)))
    return found


def test_recipes_of_earlier_checkpoints_stay_what_they_were(tmp_path: Path) -> None:
    """Computed when videos and images were all there was; the bundled checkpoint saw these."""
    for name in [*(f"{n}.mp4" for n in range(7)), *(f"{n}.png" for n in range(3))]:
        (tmp_path / name).touch()
    both = ClipMix(sources=mixed_sources(videos=[tmp_path], images=[tmp_path]))
    assert tuples(both, 10) == PINNED
    assert both.recipe(0).rule.max_gazes == 1024
    videos = ClipMix(sources=mixed_sources(videos=[tmp_path]), seed=5)
    assert [name for name, *_ in tuples(videos, 20)] == [f"{n}.mp4" for n in PINNED_VIDEOS]
    assert [kind for _, kind, *_ in tuples(videos, 20)] == ["video"] * 13 + ["still"] + ["video"] * 6


PINNED = [
    ("1.mp4", "still", 0.008270898298, 0.273826673183),
    ("3.mp4", "video", 0.054966511705, 0.0),
    ("1.png", "scan", 0.010716712554, 0.0),
    ("6.mp4", "video", 0.015148676184, 0.0),
    ("1.mp4", "video", 0.019677683612, 0.065875154838),
    ("3.mp4", "video", 0.016822980252, 0.0),
    ("1.mp4", "video", 0.024032365786, 0.187990257004),
    ("2.png", "scan", 0.020895975012, 0.284507759023),
    ("5.mp4", "video", 0.00935183846, 0.0),
    ("6.mp4", "video", 0.030820727541, 0.047566591711),
]
PINNED_VIDEOS = (5, 3, 2, 0, 0, 6, 1, 2, 3, 5, 6, 2, 6, 2, 5, 6, 3, 2, 1, 3)


def test_sources_come_by_weight(folder: Path) -> None:
    sources = (
        ScanningClips(roots=(folder,), weight=1),
        VideoClips(roots=(folder,), weight=5, stills=0.1, cuts=0.3),
        ProceduralClips(weight=2, sprites=4, text=3, pans=2, cuts=1),
        VideoClips(roots=(folder,), weight=0),
    )
    mix = ClipMix(sources=sources, seed=1)
    counts = Counter(made.kind for made in map(mix.recipe, range(10_000)))
    shares = {"scan": 1 / 8, "video": 0.6 * 5 / 8, "still": 0.1 * 5 / 8, "cut": 0.3 * 5 / 8}
    shares |= {"sprites": 0.4 * 2 / 8, "text": 0.3 * 2 / 8, "pan": 0.2 * 2 / 8, "scenes": 0.1 * 2 / 8}
    assert sum(shares.values()) == pytest.approx(1)
    assert set(counts) == set(shares)
    squares = [(counts[kind] - 10_000 * share) ** 2 / (10_000 * share) for kind, share in shares.items()]
    assert sum(squares) < 24.3  # 7 degrees of freedom; exceeded by chance once in a thousand times


def test_rules_are_drawn_evenly(folder: Path) -> None:
    rules = [ClipMix(sources=(ProceduralClips(),)).recipe(n).rule for n in range(3000)]
    thresholds = [rule.threshold for rule in rules]
    assert 0.008 <= min(thresholds) < 0.0082 and 0.0585 < max(thresholds) <= 0.06
    assert np.median(thresholds) == pytest.approx((0.008 * 0.06) ** 0.5, rel=0.1)
    assert sum(rule.slip == 0 for rule in rules) / 3000 == pytest.approx(0.5, abs=0.04)
    assert 0.29 < max(rule.slip for rule in rules) <= 0.3


def test_settings_name_their_sources(folder: Path) -> None:
    def weights(**settings: object) -> dict[str, float]:
        return {type(source).__name__: source.weight for source in mixed_sources(**settings)}  # type: ignore[arg-type]

    both = {"videos": [folder], "images": [folder]}
    assert weights(**both) == {"ScanningClips": 0.15, "VideoClips": 0.85}
    assert weights(**both, scans=0.5, procedural=0.2) == pytest.approx(
        {"ScanningClips": 0.4, "VideoClips": 0.4, "ProceduralClips": 0.2}
    )
    assert weights(images=[folder]) == {"ScanningClips": 1}
    assert weights(videos=[folder], procedural=1) == {"ProceduralClips": 1}
    assert weights(**both, scans=0) == {"VideoClips": 1}
    with pytest.raises(ValueError, match="no clips are asked for"):
        mixed_sources()
    with pytest.raises(ValueError, match=r"procedural must be a share from 0 to 1, got 1\.5"):
        mixed_sources(procedural=1.5)


def test_mixes_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one source"):
        ClipMix(sources=())
    with pytest.raises(ValueError, match="not all 0"):
        ClipMix(sources=(ProceduralClips(weight=0),))
    with pytest.raises(ValueError, match="at least 0"):
        ProceduralClips(sprites=-1)


def test_weights_lie_end_to_end() -> None:
    assert [pick((1, 0, 3), u) for u in (0, 0.2499, 0.25, 0.9999999999999999)] == [0, 0, 2, 2]
    assert pick((0.1,) * 10 + (0,), np.nextafter(1, 0)) == 9
    with pytest.raises(ValueError, match="at least 0"):
        pick((), 0.5)


# Labelled videos


def write_label_file(folder: Path, *, frames: int = SHAPE.frames, videos: int = 3) -> Path:
    labels = []
    for n in range(videos):
        label = label_clip(moving_frames(frames, height_px=64, width_px=64, seed=n), rule=RULE, grid=SHAPE.grid)
        labels.append(VideoLabel(key=label_key(folder / f"{n}.mp4"), gaze=label.gaze, start=2 * n))
    write_labels(folder / "labels.json", labels)
    return folder / "labels.json"


def test_labelled_videos_come_each_once_before_any_comes_again(folder: Path, tmp_path: Path) -> None:
    labels = write_label_file(folder)
    source = LabelledVideos(labels=labels, roots=(folder,), grid=SHAPE.grid)
    assert [path.name for path in source.paths] == ["0.mp4", "1.mp4", "2.mp4"]
    mix = ClipMix(sources=(source,))
    turns = [[mix.recipe(3 * turn + k).path for k in range(3)] for turn in range(8)]
    assert all(set(turn) == set(source.paths) for turn in turns)
    assert len({tuple(map(str, turn)) for turn in turns}) > 2


def test_labelled_clips_are_the_frames_that_were_labelled(folder: Path) -> None:
    source = LabelledVideos(labels=write_label_file(folder), roots=(folder,), grid=SHAPE.grid)
    maker = ClipMaker(SHAPE, labeller=LABELLER, cache_bytes=10**9)
    for made in map(ClipMix(sources=(source,)).recipe, range(3)):
        assert made.path is not None and made.start == 2 * int(made.path.stem)
        clip = maker.make(made)
        assert isinstance(clip, LabelledClip)
        assert clip.label is made.label and clip.rgb.shape == SHAPE.shape
        expected = label_clip(
            moving_frames(SHAPE.frames, height_px=64, width_px=64, seed=int(made.path.stem)), rule=RULE, grid=SHAPE.grid
        )
        assert clip.label.gaze.equals(expected.gaze)


def test_labels_that_do_not_fit_are_told(folder: Path, tmp_path: Path) -> None:
    made = ClipMix(
        sources=(LabelledVideos(labels=write_label_file(folder, frames=3), roots=(folder,), grid=SHAPE.grid),)
    ).recipe(0)
    with pytest.raises(ValueError, match=r"has 3 frames at scales \(32, 64\), and clips have 4"):
        ClipMaker(SHAPE, labeller=LABELLER, cache_bytes=0).make(made)
    write_sources(tmp_path)
    with pytest.raises(LabelFileError, match="other videos"):
        LabelledVideos(labels=write_label_file(folder), roots=(tmp_path,), grid=SHAPE.grid)


# Rendering


@pytest.mark.parametrize("kind", ["sprites", "text", "pan", "scenes"])
def test_drawn_clips_need_no_file(kind: str) -> None:
    made = ClipRecipe(number=3, kind=kind, seed=0, rule=RULE)  # type: ignore[arg-type]
    assert reading_of(made) is None
    assert render(made, None, frames=4, side_px=64).shape == (4, 64, 64, 3)


def test_files_are_read_as_their_recipes_need_it() -> None:
    path = Path("x.mp4")
    whole, labelled = reading_of(recipe("cut")), reading_of(recipe("labelled"), frames=4, side_px=64)
    assert whole is not None and labelled is not None and whole.path == labelled.path == path
    assert whole == reading_of(recipe("still", 7)) != labelled
    rgb = moving_frames(4, height_px=64, width_px=64)
    assert render(recipe("labelled"), Footage(rgb=rgb, fps=1), frames=4, side_px=64) is rgb


def test_validation_takes_thresholds_in_turn(folder: Path) -> None:
    made = validation_recipes(find_videos([folder]), thresholds=(0.01, 0.02))
    assert [one.rule.threshold for one in made] == [0.01, 0.02, 0.01, 0.02]
    assert {one.kind for one in made} == {"whole"} and not any(one.rule.slip for one in made)
