"""What every selector is: something that turns frames into a gaze within a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Protocol, cast

from autogaze.errors import BudgetError
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid

CLIP_FRAMES = 16
"""Frames of one clip: what the gaze model sees at once, and what a clip budget is spread over."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many patches may be used, and when a frame is good enough. A limit that is None does not apply.

    Raises:
        BudgetError: a limit is not a number in its legal range.
    """

    ratio: float | Sequence[float] | None = None
    """Ceiling as a share of the patches of a frame, in (0, 1]; a sequence has one for each frame of a clip."""
    threshold: float | None = None
    """A frame ends once its reconstruction loss is at or below this, in the selector's own unit."""
    psnr_db: float | None = None
    """A frame ends once its reconstruction has at least this PSNR."""
    per: Literal["frame", "clip"] = "frame"
    """Whether ``ratio`` limits every frame, or a clip of 16 frames whose frames share what it allows."""

    def __post_init__(self) -> None:
        for name in ("ratio", "threshold", "psnr_db"):
            object.__setattr__(self, name, as_limit(getattr(self, name), name=name))
        for ratio in self.ratios():
            if not 0 < ratio <= 1:  # NaN is not > 0
                raise BudgetError(f"ratio must be above 0 and at most 1, got {ratio!r}; 0.1 keeps at most a tenth")
        for name, limit in (("threshold", self.threshold), ("psnr_db", self.psnr_db)):
            if isinstance(limit, tuple) or (limit is not None and not math.isfinite(limit)):
                raise BudgetError(f"{name} must be a finite number, got {limit!r}")
        if self.per not in ("frame", "clip"):
            raise BudgetError(f'per must be "frame" or "clip", got {self.per!r}')
        if self.per == "clip" and isinstance(self.ratio, tuple):
            raise BudgetError("a ratio for each frame cannot also be one budget per clip; give one number")

    def ratios(self) -> tuple[float, ...]:
        """The ratios given: none, one, or one for each frame of a clip."""
        if self.ratio is None:
            return ()
        return self.ratio if isinstance(self.ratio, tuple) else (cast("float", self.ratio),)

    def check_one_ratio_a_frame(self) -> None:
        """Refuse a list of ratios that does not name one for each frame of a clip.

        Raises:
            BudgetError: the list is neither one number nor as long as a clip.
        """
        if len(self.ratios()) not in (0, 1, CLIP_FRAMES):
            raise BudgetError(
                f"ratio must be one number or {CLIP_FRAMES}, one for each frame of a clip, got {len(self.ratios())}"
            )

    def max_patches_of_clip(self, num_patches: int, num_frames: int) -> int:
        """Most gazes that the first ``num_frames`` frames of a clip may have together when they share the ratio.

        That is the ratio of what these frames have, and at least 1 for each of them; so a clip that ends early
        has kept no more than a whole one would. Without a ratio it is all there is.
        """
        (ratio,) = self.ratios() or (1.0,)
        return max(num_frames, max_patches(ratio, num_frames * num_patches)) if num_frames else 0

    def max_patches(self, num_patches: int, frame_of_clip: int) -> int:
        """Most gazes that frame number ``frame_of_clip`` of its clip may get, out of ``num_patches``; at least 1.

        Without a ratio that is ``num_patches``. ``per`` plays no part here: sharing out the sum over a clip is
        the selector's business.

        Raises:
            BudgetError: there is no ratio for that frame.
        """
        ratios = self.ratios()
        if not ratios:
            return num_patches
        if len(ratios) == 1:
            return max_patches(ratios[0], num_patches)
        if frame_of_clip >= len(ratios):
            raise BudgetError(f"ratio has {len(ratios)} numbers, too few for frame {frame_of_clip} of a clip")
        return max_patches(ratios[frame_of_clip], num_patches)


def as_limit(value: object, *, name: str = "ratio") -> float | tuple[float, ...] | None:
    """A limit as plain numbers, whatever library they came from; ``name`` is what an error calls it.

    A number, or an array or tensor that holds one, becomes a float; a list, or a (T,) array or tensor, a tuple of
    floats, or a float where it holds one alone; None stays None. Whether a number is in range is not looked at.

    Raises:
        BudgetError: it is none of these, or holds nothing.
    """
    if value is None:
        return None
    plain = _plain(value)
    if isinstance(plain, Real):
        return float(plain)
    if not isinstance(plain, Sequence) or isinstance(plain, (str, bytes)):
        raise BudgetError(f"{name} must be a {'' if name == 'ratio' else 'finite '}number, got {value!r}")
    if not plain:
        raise BudgetError(f"{name} must be a number or name one number for each frame of a clip, got none")
    numbers = [_plain(number) for number in plain]
    for number in numbers:
        if not isinstance(number, Real):
            raise BudgetError(f"{name} must hold one number for each frame of a clip, got {number!r}")
    return float(numbers[0]) if len(numbers) == 1 else tuple(map(float, numbers))


def _plain(value: object) -> Any:
    """What an array, a tensor or one of their scalars holds, as Python's own numbers and lists."""
    return value.tolist() if hasattr(value, "tolist") else value


def max_patches(ratio: float, num_patches: int) -> int:
    """``max(1, floor(ratio · num_patches))``, with 0.29 of 100 being 29 whatever binary fractions say."""
    return max(1, math.floor(ratio * num_patches + 1e-9))


class SelectorSession(Protocol):
    """One video on its way through a selector."""

    layout: FrameLayout
    """Layout of every gaze that :meth:`step` returns."""

    def step(self, frames: Frames) -> Gaze:
        """The gaze of the next frames of the video (any number of them, at least 1), with their times.

        Raises:
            ValueError: the frames are not of the session's height and width.
        """
        ...


class Selector(Protocol):
    """Anything that turns a video into a :class:`~autogaze.gaze.Gaze`, learned or not."""

    @property
    def name(self) -> str:
        """Short name, as the command line takes it."""
        ...

    @property
    def grid(self) -> PatchGrid:
        """Patches of one tile."""
        ...

    @property
    def default_budget(self) -> Budget:
        """What is used when the user gives no limit."""
        ...

    @property
    def needs_motion_vectors(self) -> bool:
        """Whether :attr:`Frames.motion_vectors` must be there."""
        ...

    def open(self, layout: FrameLayout, budget: Budget) -> SelectorSession:
        """Start on a video whose frames have this layout.

        Raises:
            BudgetError: the budget names a limit that this selector cannot keep.
        """
        ...


def clips(frames: Frames, *, start: int, clip_frames: int = CLIP_FRAMES) -> Iterator[tuple[Frames, int]]:
    """Cut frames where clips of a video begin.

    ``start`` is the number of the first frame in the video; yields (frames of one clip, position of the first
    of them in that clip).
    """
    done = 0
    while done < len(frames):
        position = (start + done) % clip_frames
        upto = min(len(frames), done + clip_frames - position)
        yield frames[done:upto], position
        done = upto
