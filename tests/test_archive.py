"""Files: what is saved comes back, what is broken says so, and nothing is ever unpickled."""

import errno
import json
import os
import pickle
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autogaze import archive
from autogaze.errors import GazeFileError
from autogaze.gaze import Gaze, load
from gaze_samples import TILED, random_gaze

NOTHING = Gaze(index=np.empty(0, int), count=np.empty(0, int), layout=TILED)


@pytest.mark.parametrize(
    "saved",
    [
        random_gaze(0),
        random_gaze(1, numbers=False),
        random_gaze(2, layout=TILED, num_frames=40, most=700),
        random_gaze(3, num_frames=3, most=0),
        replace(random_gaze(4), predicted_loss=np.full(random_gaze(4).num_gazes, np.nan)),
        replace(random_gaze(4), probability=np.full(random_gaze(4).num_gazes, np.inf)),
        NOTHING,
    ],
    ids=["numbers", "bare", "large", "no gazes", "all NaN", "infinite", "empty video"],
)
def test_load_gives_back_what_was_saved(tmp_path: Path, saved: Gaze):
    saved.save(tmp_path / "a.gaze")
    loaded = Gaze.load(tmp_path / "a.gaze")
    assert loaded.equals(saved)
    assert loaded.index.dtype == loaded.count.dtype == np.int64
    assert load(str(tmp_path / "a.gaze")).equals(saved)
    saved.save(tmp_path / "b.gaze")
    assert (tmp_path / "a.gaze").read_bytes() == (tmp_path / "b.gaze").read_bytes()


def test_the_file_is_small(tmp_path: Path):
    large = random_gaze(2, layout=TILED, num_frames=40, most=700, numbers=False)
    large.save(tmp_path / "a.gaze")
    assert (tmp_path / "a.gaze").stat().st_size < 2 * large.num_gazes + 2000


def test_saving_replaces_the_whole_file_or_nothing(tmp_path: Path):
    path = tmp_path / "a.gaze"
    random_gaze(0).save(path)
    random_gaze(1).save(path)
    assert Gaze.load(path).equals(random_gaze(1))
    with pytest.raises(TypeError):
        archive.save(path, {"index": np.arange(3)}, header={"bad": object()})
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        archive.save(path, {"index": np.arange(3), "bad": np.array([object()])}, header={})
    with pytest.raises(KeyboardInterrupt), archive.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert Gaze.load(path).equals(random_gaze(1))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gaze"]


def test_saving_where_nothing_can_be_written(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        random_gaze(0).save(tmp_path / "missing" / "a.gaze")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        random_gaze(0).save(tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_what_has_its_name_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    replace_file, names = Path.replace, dict[int, str]()

    def synced(descriptor: int) -> None:
        done.append(names[os.fstat(descriptor).st_ino])

    def replaced(path: Path, target: Path) -> Path:
        done.append(f"→ {target.name}")
        return replace_file(path, target)

    def name(*paths: Path) -> None:
        names.update({path.stat().st_ino: path.name for path in paths})

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    name(tmp_path)
    with archive.atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("all of it")
        name(temporary)
    assert done == [temporary.name, "→ a.txt", tmp_path.name]
    done.clear()
    folder = tmp_path / "new"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "b.txt").write_text("all of it")
    name(folder, folder / "inside", folder / "inside" / "b.txt")
    archive.commit(folder, tmp_path / "folder")
    assert set(done[:3]) == {"b.txt", "inside", "new"} and done[3:] == ["→ folder", tmp_path.name]


def test_content_that_does_not_reach_the_disk_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(descriptor: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", failing)
    number = errno.EIO
    with pytest.raises(OSError, match="no"):
        random_gaze(0).save(tmp_path / "a.gaze")
    assert not list(tmp_path.iterdir())
    number = errno.EINVAL  # a file system that cannot sync at all
    random_gaze(0).save(tmp_path / "a.gaze")
    assert Gaze.load(tmp_path / "a.gaze").equals(random_gaze(0))


def test_a_file_has_the_rights_of_any_new_file(tmp_path: Path):
    (tmp_path / "other").touch()
    random_gaze(0).save(tmp_path / "a.gaze")
    assert (tmp_path / "a.gaze").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Gaze.load(tmp_path / "a.gaze")


def rewritten(path: Path, **changes) -> Path:
    """A copy of a gaze file with entries of its header, or arrays, replaced (None removes)."""
    arrays, header = archive.load(path)
    for name, value in changes.items():
        target = arrays if isinstance(value, np.ndarray) or name in arrays else header
        if value is None:
            del target[name]
        else:
            target[name] = value
    archive.save(path.with_name("changed.gaze"), arrays, header=header)
    return path.with_name("changed.gaze")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "is not a gaze; `autogaze gaze`, Gaze.save"),
        ({"version": 3}, "has gaze format version 3, this autogaze reads versions 1 and 2; update autogaze"),
        ({"version": None}, "version None"),
        ({"layout": None}, "is damaged: 'layout'"),
        ({"layout": {}}, "is damaged: 'scales_px'"),
        ({"index": None}, "is damaged"),
        ({"index": np.array([0.5])}, "is damaged: index must hold whole numbers"),
        ({"count": np.array([7, 7])}, "is damaged: count must be"),
        ({"probability": np.ones(2)}, "is damaged: probability must be"),
        ({"surprise": np.ones(2)}, "is damaged: .*surprise"),
    ],
)
def test_files_that_are_not_ours(tmp_path: Path, changes: dict, message: str):
    random_gaze(0).save(tmp_path / "a.gaze")
    with pytest.raises(GazeFileError, match=message):
        Gaze.load(rewritten(tmp_path / "a.gaze", **changes))


def test_foreign_files(tmp_path: Path):
    (tmp_path / "text").write_text("no gaze here")
    (tmp_path / "empty").touch()
    np.savez(tmp_path / "other.npz", index=np.arange(3))
    with zipfile.ZipFile(tmp_path / "list.zip", "w") as file:
        file.writestr("header.json", "[1, 2]")
    with zipfile.ZipFile(tmp_path / "bare.zip", "w") as file:
        file.writestr("header.json", "{}")
    with zipfile.ZipFile(tmp_path / "words.zip", "w") as file:
        file.writestr("header.json", "{broken")
    for path in tmp_path.iterdir():
        with pytest.raises(GazeFileError, match=f"{path.name} is not a gaze file"):
            Gaze.load(path)


def test_damaged_bytes_are_told_or_harmless(tmp_path: Path):
    saved, path = random_gaze(0), tmp_path / "a.gaze"
    saved.save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(GazeFileError):
            Gaze.load(path)
    rng = random.Random(0)
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(rng.choice((1, 1, 4))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        try:
            loaded = Gaze.load(path)
        except GazeFileError:
            continue
        assert loaded.equals(saved)  # the byte was one of those that mean nothing


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    exploded = tmp_path / "exploded"
    with zipfile.ZipFile(tmp_path / "evil.gaze", "w") as file:
        file.writestr("header.json", json.dumps(random_gaze(0).to_json() | {"arrays": ["index"]}))
        with file.open("index.npy", "w") as entry:
            np.lib.format.write_array(entry, np.array([Bomb(exploded)], dtype=object), allow_pickle=True)
    with pytest.raises(GazeFileError, match="Object arrays"):
        Gaze.load(tmp_path / "evil.gaze")
    assert not exploded.exists()

    def never(*_, **__):
        raise AssertionError("pickle was used")

    for name in ("load", "loads", "dump", "dumps"):
        monkeypatch.setattr(pickle, name, never)
    random_gaze(0).save(tmp_path / "a.gaze")
    assert Gaze.load(tmp_path / "a.gaze").equals(random_gaze(0))
