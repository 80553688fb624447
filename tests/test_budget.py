"""Budgets, how clips are cut, and optional packages."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autogaze.errors import AutoGazeError, BudgetError
from autogaze.extras import require
from autogaze.frames import Frames
from autogaze.selectors.base import CLIP_FRAMES, Budget, as_limit, clips, max_patches


@pytest.mark.parametrize(
    ("ratio", "num_patches", "most"),
    [(0.1, 265, 26), (1.0, 265, 265), (0.75, 265, 198), (0.001, 265, 1), (0.29, 100, 29), (0.57, 100, 57), (1, 1, 1)],
)
def test_most_patches(ratio: float, num_patches: int, most: int):
    assert max_patches(ratio, num_patches) == most


@given(st.integers(1, 1000), st.integers(1, 50_000))
def test_a_ratio_is_what_its_decimals_say(thousandths: int, num_patches: int):
    exact = math.floor(Fraction(thousandths, 1000) * num_patches)
    assert max_patches(thousandths / 1000, num_patches) == max(1, exact)


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 50_000))
def test_a_ratio_is_a_ceiling(ratio: float, num_patches: int):
    most = max_patches(ratio, num_patches)
    assert 1 <= most <= num_patches
    assert most == 1 or most <= ratio * num_patches + 1e-8


def test_one_ratio_or_one_for_each_frame():
    assert Budget().ratios() == () and Budget().max_patches(265, 3) == 265
    assert Budget(ratio=0.1).max_patches(265, 15) == 26
    each = Budget(ratio=[0.2, 0.06])  # a list is taken too, and kept as a tuple
    assert each.ratio == each.ratios() == (0.2, 0.06)
    assert [each.max_patches(265, t) for t in (0, 1)] == [53, 15]
    assert hash(each) == hash(Budget(ratio=(0.2, 0.06)))
    with pytest.raises(BudgetError, match="ratio has 2 numbers, too few for frame 2 of a clip"):
        each.max_patches(265, 2)
    assert Budget(ratio=(0.1,)).max_patches(265, 7) == 26, "one number serves every frame"
    assert Budget(ratio=np.float32(0.5)).max_patches(10, 0) == 5


@pytest.mark.parametrize(
    ("given_as", "limit"),
    [
        (None, None),
        (1, 1.0),
        (np.float32(0.5), 0.5),
        (np.int64(1), 1.0),
        (np.array(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        (torch.nn.Parameter(torch.tensor([0.5])), 0.5),
        ([0.25], 0.25),
        (Fraction(1, 2), 0.5),
        ([0.5, np.float32(0.25), torch.tensor(1)], (0.5, 0.25, 1.0)),
        (np.array([0.5, 0.25]), (0.5, 0.25)),
        (torch.tensor([0.5, 0.25]), (0.5, 0.25)),
    ],
)
def test_numbers_of_any_library_are_limits(given_as: object, limit: float | tuple[float, ...] | None):
    plain = as_limit(given_as)
    assert plain == limit
    assert all(
        type(number) is float for number in (plain if isinstance(plain, tuple) else (plain,)) if number is not None
    )
    assert Budget(ratio=given_as).ratio == limit
    if not isinstance(limit, tuple):
        budget = Budget(threshold=given_as, psnr_db=given_as)
        assert budget.threshold == budget.psnr_db == limit


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"ratio": 0}, "ratio must be above 0 and at most 1, got 0.0; 0.1 keeps"),
        ({"ratio": -1}, "got -1"),
        ({"ratio": 7}, "got 7"),
        ({"ratio": math.nan}, "got nan"),
        ({"ratio": math.inf}, "got inf"),
        ({"ratio": "0.1"}, "ratio must be a number, got '0.1'"),
        ({"ratio": ["0.1", "0.2"]}, "ratio must hold one number for each frame of a clip, got '0.1'"),
        ({"ratio": np.full((2, 2), 0.1)}, "ratio must hold one number for each frame"),
        ({"threshold": (0.1, 0.2)}, "threshold must be a finite number, got"),
        ({"ratio": (0.1, 0.0)}, "got 0.0"),
        ({"ratio": (0.1, None)}, "got None"),
        ({"ratio": ()}, "one number for each frame of a clip, got none"),
        ({"threshold": math.nan}, "threshold must be a finite number, got nan"),
        ({"threshold": "low"}, "threshold must be a finite number, got 'low'"),
        ({"psnr_db": math.inf}, "psnr_db must be a finite number, got inf"),
        ({"per": "video"}, 'per must be "frame" or "clip", got \'video\''),
        ({"per": "clip", "ratio": (0.1, 0.2)}, "cannot also be one budget per clip"),
    ],
)
def test_impossible_budgets(limits: dict, message: str):
    with pytest.raises(BudgetError, match=message) as error:
        Budget(**limits)
    assert isinstance(error.value, ValueError) and isinstance(error.value, AutoGazeError)


def test_a_budget_is_a_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Budget().ratio = 0.5  # type: ignore[misc]
    assert Budget(ratio=0.5, per="clip", threshold=-1.0, psnr_db=30.0) == Budget(
        ratio=0.5, per="clip", threshold=-1.0, psnr_db=30.0
    )


@given(st.integers(0, 100), st.integers(1, 70))
def test_clips_begin_where_the_video_says(start: int, num_frames: int):
    frames = Frames.from_rgb(np.zeros((num_frames, 1, 1, 3), np.uint8))
    at = start
    for clip, position in clips(frames, start=start):
        assert position == at % CLIP_FRAMES
        assert clip.number.tolist() == list(range(at - start, at - start + len(clip)))
        assert position + len(clip) <= CLIP_FRAMES
        at += len(clip)
        assert at % CLIP_FRAMES == 0 or at == start + num_frames
    assert at == start + num_frames


def test_optional_packages(tmp_path, monkeypatch: pytest.MonkeyPatch):
    assert require("json", extra="table").dumps([1]) == "[1]"
    with pytest.raises(
        ImportError, match=r"no_such_package.part is not installed; run: pip install 'autogaze\[table\]'"
    ):
        require("no_such_package.part", extra="table")
    (tmp_path / "broken_package.py").write_text("import its_own_missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_own_missing_dependency"):
        require("broken_package", extra="table")
