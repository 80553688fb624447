"""Results of different sources never share a name."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autogaze.names import MAX_BYTES, result_name, result_names


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("clip.mp4", "clip"),
        ("some/where/clip.v2.mp4", "clip.v2"),
        (Path("some/clip.webm"), "clip"),
        ("https://example.org/videos/clip.mp4?token=a/b", "clip"),
        ("frames/*.png", "frames"),
        ("camera:0", "camera0"),
        ("what is (this)!.mov", "what_is_this_"),
        (np.zeros((1, 2, 2, 3), np.uint8), "video"),
    ],
)
def test_a_source_gives_its_name(source: str, name: str) -> None:
    assert result_name(source) == name


def test_a_folder_keeps_its_whole_name(tmp_path: Path) -> None:
    (tmp_path / "scene.2").mkdir()
    assert result_name(tmp_path / "scene.2") == "scene.2"


def test_names_that_differ_are_left_alone() -> None:
    assert result_names(["a/x.mp4", "b/y.mp4"]) == ["x", "y"]


def test_the_ending_tells_files_of_one_folder_apart() -> None:
    assert result_names(["a/x.mp4", "a/x.mov", "a/y.mp4"]) == ["x-mp4", "x-mov", "y"]


def test_the_folder_tells_files_of_one_name_apart() -> None:
    assert result_names(["a/x.mp4", "b/x.mp4"]) == ["a-x", "b-x"]
    assert result_names(["p/a/x.mp4", "q/a/x.mp4"]) == ["p-a-x", "q-a-x"]
    assert result_names(["https://one.org/x.mp4", "https://two.org/x.mp4"]) == ["one.org-x", "two.org-x"]


def test_case_does_not_tell_files_apart() -> None:
    names = result_names(["a/X.mp4", "b/x.mp4"])
    assert names == ["a-X", "b-x"]


def test_the_same_source_twice_is_numbered() -> None:
    assert result_names(["x.mp4", "x.mp4"]) == ["x", "x-2"]
    arrays = [np.zeros((1, 2, 2, 3), np.uint8)] * 3
    assert result_names(arrays) == ["video", "video-2", "video-3"]


def test_a_number_never_hits_a_name_that_is_taken() -> None:
    assert result_names(["x.mp4", "x.mp4", "x-2.mp4"]) == ["x", "x-3", "x-2"]


@given(st.permutations(["a/x.mp4", "a/x.mov", "b/x.mp4", "b/y.mp4", "c/y.mp4"]))
def test_names_do_not_depend_on_the_order(sources: list[str]) -> None:
    names = dict(zip(sources, result_names(sources), strict=True))
    assert names["b/y.mp4"] == "b-y"
    assert names == dict(zip(sorted(sources), result_names(sorted(sources)), strict=True))


@given(st.lists(st.text(alphabet="ab/.-*é ", min_size=1, max_size=12), max_size=6))
def test_names_are_always_legal_and_different(sources: list[str]) -> None:
    names = result_names(sources)
    assert len({name.casefold() for name in names}) == len(sources)
    for name in names:
        assert name
        assert "/" not in name
        assert not name.startswith(".")


def test_a_long_name_is_cut_to_what_file_systems_allow() -> None:
    names = result_names(["é" * 120 + ".mp4", "é" * 120 + "e.mp4", "é" * 400 + ".mp4"])
    assert all(len(name.encode()) <= MAX_BYTES + 4 for name in names)
    assert len(set(names)) == 3
