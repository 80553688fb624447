"""The order of samples and the clips of each step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from autogaze.datasets.clips import ClipMix, mixed_sources
from autogaze.datasets.feed import ClipFeed
from autogaze.datasets.labellers import no_label
from autogaze.datasets.labels import Label
from autogaze.datasets.order import SampleOrder
from autogaze.datasets.sources import ProceduralClips, VideoClips
from autogaze.datasets.stream import LabelledClip
from autogaze.errors import TrainingError
from clip_samples import LABELLER, SHAPE, write_sources, write_unreadable

ORDER = SampleOrder(block=16, reuse=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def mix(folder: Path) -> ClipMix:
    """Clips of all kinds, some of them unreadable."""
    return ClipMix(sources=mixed_sources(videos=[folder], images=[folder], scans=0.2, procedural=0.2))


def steps(mix: ClipMix, count: int, **changes: object) -> list[list[LabelledClip[Label]]]:
    settings = {"batch": 6, "order": ORDER, "labeller": LABELLER, "ahead": 5, **changes}
    with ClipFeed(mix, SHAPE, **settings) as feed:  # type: ignore[arg-type]
        return [feed.step() for _ in range(count)]


def contents(clips: list[LabelledClip[Label]]) -> list[tuple[int, bytes, bytes]]:
    return [(clip.recipe.number, clip.rgb.tobytes(), clip.label.gaze.index.tobytes()) for clip in clips]


# Order


@pytest.mark.parametrize(("block", "reuse"), [(16, 3), (24, 1), (15, 4)])
def test_blocks_are_gone_through_one_after_the_other(block: int, reuse: int) -> None:
    order = SampleOrder(block=block, reuse=reuse, seed=3)
    for turn in range(2 * reuse):
        numbers = [order.number(i) for i in range(turn * block, (turn + 1) * block)]
        first = turn // reuse * block
        assert sorted(numbers) == list(range(first, first + block))
        assert (numbers == sorted(numbers)) == (turn % reuse == 0)
        assert {order.block_of(i) for i in range(turn * block, (turn + 1) * block)} == {turn // reuse}
        assert order.is_last(turn * block) == (turn % reuse == reuse - 1)


def test_a_data_set_is_one_block_without_end() -> None:
    order = SampleOrder(block=7, reuse=None)
    epochs = [[order.number(i) for i in range(7 * epoch, 7 * epoch + 7)] for epoch in range(50)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 40
    assert order.block_of(10**12) == 0 and not order.is_last(10**12)


def test_every_pass_leaves_a_recipe_with_the_same_process() -> None:
    order = SampleOrder(block=32, reuse=4)
    for i in range(256):
        assert order.number(i) % 8 == i % 8
    assert len({tuple(order.number(32 * turn + j) for j in range(32)) for turn in range(1, 4)}) == 3
    assert SampleOrder(block=12).classes == 4 and SampleOrder(block=7).classes == 1


def test_passes_are_shuffled_evenly() -> None:
    """Every place of a residue class is as likely for each of its recipes (chi-squared, 7 degrees of freedom)."""
    first = [SampleOrder(block=64, reuse=2, seed=seed).number(64) // 8 for seed in range(800)]
    counts = np.array([Counter(first)[place] for place in range(8)])
    assert ((counts - 100) ** 2 / 100).sum() < 24.3  # exceeded by chance once in a thousand times


@pytest.mark.parametrize("wrong", [{"block": 0}, {"block": 4, "reuse": 0}])
def test_an_order_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SampleOrder(**wrong)


# Feed


def is_broken(mix: ClipMix, number: int) -> bool:
    path = mix.recipe(number).path
    return path is not None and path.name == "broken.mp4"


def test_a_step_holds_the_clips_of_its_samples(mix: ClipMix) -> None:
    for step, clips in enumerate(steps(mix, 8)):
        samples = [ORDER.number(i) for i in range(6 * step, 6 * step + 6)]
        readable = [n for n in samples if not is_broken(mix, n)]
        assert [clip.recipe.number for clip in clips] == readable
        for clip in clips:
            assert clip.rgb.shape == SHAPE.shape and clip.label.gaze.num_gazes


def test_workers_change_nothing(mix: ClipMix) -> None:
    made = [
        steps(mix, 8, workers=workers) for workers in (0, 1, 3)
    ]  # all of it is still there when the workers are gone
    assert len({clip.recipe.kind for step in made[0] for clip in step}) > 4
    assert all(clip.rgb.flags.owndata for clips in made for step in clips for clip in step)
    alone, one, three = ([contents(step) for step in clips] for clips in made)
    assert alone == one == three


@pytest.mark.parametrize(
    ("order", "batch", "world"),
    [(ORDER, 6, 2), (SampleOrder(block=7, reuse=None), 6, 2), (SampleOrder(block=9, reuse=3), 7, 3)],
)
def test_processes_share_what_one_would_get(mix: ClipMix, order: SampleOrder, batch: int, world: int) -> None:
    alone = steps(mix, 9, order=order, batch=batch)
    parts = [steps(mix, 9, order=order, batch=batch, rank=rank, world=world) for rank in range(world)]
    for step, whole in enumerate(alone):
        samples = range(batch * step, batch * step + batch)
        shared = []
        for rank, part in enumerate(parts):
            readable = [order.number(i) for i in samples if i % world == rank and not is_broken(mix, order.number(i))]
            assert [clip.recipe.number for clip in part[step]] == readable
            shared += contents(part[step])
        assert sorted(shared) == sorted(contents(whole))


@pytest.mark.parametrize("first", [1, 3, 7])
def test_a_feed_goes_on_where_another_stopped(mix: ClipMix, first: int) -> None:
    whole = steps(mix, 9)
    assert [contents(step) for step in steps(mix, 9 - first, first_step=first)] == list(map(contents, whole[first:]))


@pytest.mark.parametrize(("kept", "made"), [(2**30, 32), (0, 64), (8 * 4 * 64 * 64 * 3, 48)])
def test_clips_that_come_again_are_kept_as_far_as_there_is_room(mix: ClipMix, kept: int, made: int) -> None:
    readable = ClipMix(sources=(ProceduralClips(),))
    expected = [contents(step) for step in steps(readable, 8, batch=8)]
    with ClipFeed(readable, SHAPE, batch=8, order=ORDER, labeller=LABELLER, kept_bytes=kept) as feed:
        assert [contents(feed.step()) for _ in range(8)] == expected
        assert feed.made == made and feed.next_step == 8


def test_unreadable_sources_are_named_once_and_left_out(folder: Path, tmp_path: Path) -> None:
    unreadable = write_unreadable(tmp_path)
    mix = ClipMix(sources=(VideoClips(roots=(folder / "0.mp4", tmp_path), cuts=0),))
    with ClipFeed(mix, SHAPE, batch=40, order=SampleOrder(block=40), labeller=no_label) as feed:
        clips = feed.step()
        assert [clip.recipe.number for clip in clips] == [
            number for number in range(40) if mix.recipe(number).path == folder / "0.mp4"
        ]
        assert 0 < len(clips) == feed.made < 30 and all(clip.label is None for clip in clips)
        feed.step()
        assert sorted(feed.unreadable) == [str(path) for path in unreadable]
        assert all(Path(path).name in message for path, message in feed.unreadable.items())


def test_the_cache_on_disk_changes_nothing(mix: ClipMix, tmp_path: Path) -> None:
    plain, cold, warm = (
        [contents(step) for step in steps(mix, 3, cache_folder=cache)] for cache in (None, tmp_path, tmp_path)
    )
    assert plain == cold == warm
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}


def test_a_run_goes_on_while_something_can_be_made(folder: Path, tmp_path: Path) -> None:
    roots = (folder / "0.mp4", *[tmp_path / f"{n}.mp4" for n in range(9)])
    for path in roots[1:]:
        path.touch()
    mix = ClipMix(sources=(VideoClips(roots=roots),))
    with ClipFeed(mix, SHAPE, batch=40, order=SampleOrder(block=40), labeller=no_label) as feed:
        assert 10 < sum(len(feed.step()) for _ in range(10)) < 300
        assert len(feed.unreadable) == 9


@pytest.mark.parametrize("batch", [8, 256])
def test_a_run_ends_if_nothing_can_be_made(folder: Path, batch: int) -> None:
    broken = ClipMix(sources=(VideoClips(roots=(folder / "broken.mp4",)),))
    with ClipFeed(broken, SHAPE, batch=batch, order=SampleOrder(block=8, reuse=None), labeller=no_label) as feed:
        for _ in range(100 // batch):
            assert feed.step() == []
        with pytest.raises(TrainingError, match=r"none of 100 clips .*broken\.mp4"):
            feed.step()


@pytest.mark.parametrize("wrong", [{"rank": 2, "world": 2}, {"rank": -1}, {"world": 7}, {"first_step": -1}])
def test_illegal_numbers_are_refused(mix: ClipMix, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"got -1|cannot be shared"):
        steps(mix, 1, **wrong)
