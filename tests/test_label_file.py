"""Label files come back as they were written, are as published, and are refused where they cannot be right."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from autogaze.datasets.label_file import (
    LabelFileError,
    Labels,
    VideoLabel,
    find_label,
    label_key,
    labelled_videos,
    read_labels,
    write_labels,
    write_parquet,
)
from autogaze.errors import AutoGazeWarning
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from label_samples import GRID, LAYOUT, ORIGIN, random_label

LABELS = [random_label(f"set/train/{n}.mp4", seed=n, start=7 * (n % 2)) for n in range(7)]
PUBLISHED = {
    "InternVid_res448_250K/train/a b.mp4": {"gazing_pos": [[4, 264, 0], [1]], "task_losses": [[0.9, 0.5, 0.25], [0.7]]},
    "100DoH_res448_250K/val/c.mp4": {"gazing_pos": [[3], [2, 5]], "task_losses": [[1], [0.125, 0.1]]},
}


def write(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data))
    return path


def one(**changes: object) -> dict[str, object]:
    """A label file of one clip of 2 frames."""
    return {"a/b/c.mp4": {"gazing_pos": [[4, 0], [1]], "task_losses": [[0.9, 0.5], [0.7]], **changes}}


def assert_equal(labels: Labels, expected: list[VideoLabel]) -> None:
    assert list(labels) == [label.key for label in expected]
    for found, label in zip(labels.values(), expected, strict=True):
        assert found.gaze.equals(label.gaze)
        assert found.start == label.start


def test_json_comes_back(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.json", LABELS)
    assert_equal(read_labels(tmp_path / "labels.json", grid=GRID), LABELS)


def test_published_json_is_read_and_written_exactly(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "in.json", PUBLISHED))
    label = labels["InternVid_res448_250K/train/a b.mp4"]
    assert label.gaze.index.tolist() == [4, 264, 0, 1]
    assert label.gaze.count.tolist() == [3, 1]
    assert label.gaze.predicted_loss is not None
    assert label.gaze.predicted_loss.tolist() == pytest.approx([0.9, 0.5, 0.25, 0.7])
    assert label.start == 0
    assert label.gaze.layout == FrameLayout.tiled(PatchGrid(), height_px=224, width_px=224)
    write_labels(tmp_path / "out.json", labels.values())
    assert json.loads((tmp_path / "out.json").read_text()) == PUBLISHED


def test_a_label_is_what_training_takes() -> None:
    label = LABELS[0].label
    assert label.gaze is LABELS[0].gaze
    assert label.best.all()
    assert label.best.shape == label.gaze.index.shape
    assert math.isnan(label.threshold)


def test_only_clips_that_begin_later_say_where(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.json", LABELS[:2])
    entries = list(json.loads((tmp_path / "labels.json").read_text()).values())
    assert set(entries[0]) == {"gazing_pos", "task_losses"}
    assert entries[1]["clip_start"] == 7


@pytest.mark.parametrize("shard_clips", [1, 3, 7, 100])
def test_parquet_comes_back_from_one_file_or_many(tmp_path: Path, shard_clips: int) -> None:
    write_parquet(tmp_path / "labels.parquet", LABELS, origin=ORIGIN, shard_clips=shard_clips)
    write_parquet(tmp_path / "labels", LABELS, origin=ORIGIN, shard_clips=shard_clips)
    assert len(list((tmp_path / "labels").iterdir())) == math.ceil(7 / shard_clips)
    for name in ("labels.parquet", "labels"):
        labels = read_labels(tmp_path / name)
        assert_equal(labels, LABELS)
        assert labels.origin == ORIGIN
        assert labels.grid == GRID
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "labels.parquet"]


def test_parquet_without_a_clip(tmp_path: Path) -> None:
    for name in ("labels.parquet", "labels"):
        write_parquet(tmp_path / name, [], origin=ORIGIN)
        assert len(read_labels(tmp_path / name)) == 0


def test_parquet_columns_are_those_of_the_json(tmp_path: Path) -> None:
    write_parquet(tmp_path / "labels.parquet", LABELS, origin=ORIGIN)
    write_labels(tmp_path / "labels.json", LABELS)
    rows = pyarrow.parquet.read_table(tmp_path / "labels.parquet").to_pylist()
    entries = json.loads((tmp_path / "labels.json").read_text())
    for row, (key, entry) in zip(rows, entries.items(), strict=True):
        assert row["key"] == key
        assert row["gazing_pos"] == entry["gazing_pos"]
        assert row["task_losses"] == [np.array(frame, np.float32).tolist() for frame in entry["task_losses"]]


def test_a_folder_of_labels_is_replaced_and_others_are_left(tmp_path: Path) -> None:
    write_parquet(tmp_path / "labels", LABELS, origin=ORIGIN, shard_clips=1)
    write_parquet(tmp_path / "labels", LABELS[:2], origin=ORIGIN)
    assert_equal(read_labels(tmp_path / "labels"), LABELS[:2])
    (tmp_path / "labels" / "diary.txt").touch()
    with pytest.raises(LabelFileError, match=r"diary.txt is there already"):
        write_parquet(tmp_path / "labels", LABELS, origin=ORIGIN)
    with pytest.raises(ValueError, match="shard_clips 0"):
        write_parquet(tmp_path / "more", LABELS, origin=ORIGIN, shard_clips=0)


def test_a_file_that_cannot_be_finished_leaves_the_one_before(tmp_path: Path) -> None:
    def broken() -> object:
        yield LABELS[0]
        raise KeyboardInterrupt

    for name, writer in (
        ("l.json", lambda path, labels: write_labels(path, labels)),
        ("l.parquet", lambda path, labels: write_parquet(path, labels, origin=ORIGIN)),
        ("l", lambda path, labels: write_parquet(path, labels, origin=ORIGIN, shard_clips=1)),
    ):
        writer(tmp_path / name, LABELS)
        with pytest.raises(KeyboardInterrupt):
            writer(tmp_path / name, broken())
        assert_equal(read_labels(tmp_path / name, grid=GRID), LABELS)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"gazing_pos": [[4, 265], [1]]}, r"another grid: frame 0 of 'a/b/c.mp4' has a gaze at 265.*32\+64\+112\+224"),
        ({"gazing_pos": [[4, 0], [-1]]}, r"another grid: frame 1 .* has a gaze at -1"),
        ({"gazing_pos": [[4], [1]]}, r"one loss for each gaze; its frames have 1, 1 gazes and 2, 1 losses"),
        ({"task_losses": [[0.9, 0.5]]}, r"2, 1 gazes and 2 losses"),
        ({"task_losses": [[0.9, float("nan")], [0.1]]}, "frame 0 of 'a/b/c.mp4' has a loss of nan"),
        ({"task_losses": [[0.9, 0.5], [float("inf")]]}, "frame 1 .* has a loss of inf"),
        ({"task_losses": [[0.9, 1e300], [0.1]]}, r"frame 0 .* has a loss of 1e\+300"),
        ({"task_losses": [[0.9, 10**400], [0.1]]}, "frame 0 .* has a loss of inf"),
        ({"task_losses": [[0.9, None], [0.1]]}, "must hold numbers"),
        ({"gazing_pos": [[4, 4], [1]]}, "frame 0 .* has patch 4 twice"),
        ({"gazing_pos": [[4, 1.0], [1]]}, "whole numbers"),
        ({"gazing_pos": [[4, True], [1]]}, "whole numbers"),
        ({"gazing_pos": [4, 0, 1]}, "a list with one list for each frame"),
        ({"gazing_pos": [], "task_losses": []}, "a list with one list for each frame"),
        ({"clip_start": -1}, "clip_start"),
    ],
)
def test_damaged_labels_are_refused(tmp_path: Path, entry: dict[str, object], told: str) -> None:
    with pytest.raises(LabelFileError, match=told):
        read_labels(write(tmp_path / "labels.json", one(**entry)))


def test_the_same_patch_in_two_frames_is_legal(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "labels.json", one(gazing_pos=[[4, 0], [4]])))
    assert labels["a/b/c.mp4"].gaze.index.tolist() == [4, 0, 4]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"gazing_pos": [[1]]}}', "\x89PNG", "[" * 100_000])
def test_what_is_no_label_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.json").write_text(text, encoding="latin-1")
    with pytest.raises(LabelFileError, match=r"label"):
        read_labels(tmp_path / "labels.json")


def test_what_is_no_parquet_of_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    path.write_bytes(b"nothing")
    with pytest.raises(LabelFileError, match="no label file"):
        read_labels(path)
    pyarrow.parquet.write_table(pyarrow.table({"key": ["a"]}), path)
    with pytest.raises(LabelFileError, match="no label file"):
        read_labels(path)
    write_parquet(path, LABELS, origin=ORIGIN)
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.drop_columns(["task_losses"]), path)
    with pytest.raises(LabelFileError, match="no label file"):
        read_labels(path)
    gone = pyarrow.array([None] * len(LABELS), table.schema.field("task_losses").type)
    pyarrow.parquet.write_table(table.set_column(2, table.schema.field("task_losses"), gone), path)
    with pytest.raises(LabelFileError, match="gaps"):
        read_labels(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(LabelFileError, match="holds no label file"):
        read_labels(tmp_path / "folder")
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path / "nowhere.json")


def test_parquet_of_another_grid_or_of_several_runs_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    write_parquet(folder / "a.parquet", LABELS, origin=ORIGIN)
    with pytest.raises(LabelFileError, match="another grid"):
        read_labels(folder, grid=PatchGrid())
    write_parquet(folder / "b.parquet", LABELS, origin=ORIGIN)
    with pytest.raises(LabelFileError, match="again"):
        read_labels(folder)
    other = ORIGIN.from_json({**ORIGIN.to_json(), "seed": 4})
    write_parquet(folder / "b.parquet", [], origin=other)
    with pytest.raises(LabelFileError, match="made otherwise"):
        read_labels(folder)


def test_labels_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    gaze = Gaze(index=np.array([1]), count=np.array([1]), layout=LAYOUT)
    for writer in (write_labels, lambda path, labels: write_parquet(path, labels, origin=ORIGIN)):
        with pytest.raises(ValueError, match="losses"):
            writer(tmp_path / "labels.parquet", [VideoLabel(key="a", gaze=gaze)])
    assert not list(tmp_path.iterdir())


def test_keys_are_the_last_three_parts_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert label_key("/data/set/train/a.mp4") == "set/train/a.mp4"
    assert label_key("/a.mp4") == "a.mp4"
    (tmp_path / "set" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "set")
    assert label_key("train/a.mp4") == label_key(Path("./train/a.mp4")) == "set/train/a.mp4"


def test_labels_are_found_by_path(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "labels.json", PUBLISHED))
    here = Path("/data/InternVid_res448_250K/train/a b.mp4")
    label = find_label(labels, here)
    assert label is not None and label.key == "InternVid_res448_250K/train/a b.mp4"
    assert find_label(labels, "/data/other/train/a b.mp4") is None
    with pytest.warns(AutoGazeWarning, match="has labels for 1 of 2 videos"):
        assert labelled_videos(labels, (Path("/x/y.mp4"), here)) == (here,)


def test_labels_for_other_videos_show_a_key_and_a_path(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "labels.json", one()))
    with pytest.raises(LabelFileError, match=r"one of its keys is 'a/b/c.mp4', that of /x/y/z/v.mp4 .*'y/z/v.mp4'"):
        labelled_videos(labels, (Path("/x/y/z/v.mp4"),))
    with pytest.raises(LabelFileError, match="there is no video"):
        labelled_videos(labels, ())
    with pytest.raises(LabelFileError, match="holds none"):
        labelled_videos(read_labels(write(tmp_path / "none.json", {})), (Path("/x.mp4"),))


def test_two_videos_of_one_label_are_refused(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "labels.json", one()))
    first, second = Path("/x/a/b/c.mp4"), Path("/y/a/b/c.mp4")
    with pytest.raises(LabelFileError, match=r"/x/a/b/c.mp4 and /y/a/b/c.mp4 would both have the label 'a/b/c.mp4'"):
        labelled_videos(labels, (first, second))
    assert labelled_videos(labels, (first, first)) == (first, first)


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "labels.json", one()))
    video = Path("/x/a/b/c.mp4")
    assert labelled_videos(labels, (video,), frames=2) == (video,)
    with pytest.raises(LabelFileError, match=r"'a/b/c.mp4' has 2 frames, and clips have 16; .* --clip-len 16"):
        labelled_videos(labels, (video,), frames=16)


def test_labels_of_videos_that_were_replaced_are_left_out(tmp_path: Path) -> None:
    videos = [tmp_path / "set" / "train" / f"{n}.mp4" for n in range(4)]
    videos[0].parent.mkdir(parents=True)
    for video in videos:
        video.write_bytes(b"12345")
    sizes = [5, 5, None, 6]
    made = [replace(label, video_bytes=size) for label, size in zip(LABELS, sizes, strict=False)]
    write_parquet(tmp_path / "labels.parquet", made, origin=ORIGIN)
    labels = read_labels(tmp_path / "labels.parquet")
    assert [label.video_bytes for label in labels.values()] == sizes
    told = r"for 3 of 4 videos; the others are left out; 1 changed since .*, such as \S*/3\.mp4; label them again"
    with pytest.warns(AutoGazeWarning, match=told):
        assert labelled_videos(labels, videos) == tuple(videos[:3])
    with pytest.raises(LabelFileError, match=r"of the videos with labels 1 changed since they were labelled"):
        labelled_videos(labels, videos[3:])


def test_parquet_without_sizes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    write_parquet(path, LABELS, origin=ORIGIN)
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.drop_columns(["video_bytes"]), path)
    assert_equal(read_labels(path), LABELS)
