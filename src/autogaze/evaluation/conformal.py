"""Conformal risk control of a stop rule: which threshold each level keeps, and which level to try next.

Angelopoulos, Bates, Fisch, Lei and Schuster, *Conformal Risk Control*, 2022 (arXiv 2208.02814). The risk of a clip is
the share of its frames whose true loss is above the threshold ε: between 0 and 1, and no smaller at a laxer level λ.
A level keeps a threshold if the n calibration clips satisfy ``n / (n + 1) · mean risk + 1 / (n + 1) ≤ α``.

Clips and not frames are counted, because clips are what can be taken for exchangeable: the frames of one clip show
the same scene, share a canvas and go wrong together, so 16 of them are not 16 independent witnesses.

Then the expected risk of one more such clip is at most α, whichever of the levels that satisfy this is used, and
however it was found. Proof: let A be the levels at which the risks of all n + 1 clips together sum to at most
α (n + 1). The level used is in A, since the last clip adds at most 1. A reaches from the strictest level up to a limit
that does not depend on the clips' order, and just below it every clip has a risk Mᵢ, the largest it has in A. The sum
of the Mᵢ is at most α (n + 1), so by exchangeability the last one's expectation is at most α, and its risk at the
level used is at most that. ∎

What is exact and what is not:

- A level that keeps more patches in one frame leads to other gazes in the next, so now and then a stricter level does
  worse. The largest risk of a clip at any stricter level tried counts instead of its own, as the paper advises. Then
  the proof is of levels that were fixed beforehand; for those that are chosen by what the clips showed, as
  :func:`next_level` does, it holds as far as a stricter level does no worse.
- A threshold between two promises gets a level on the line between theirs, at which no clip was gazed at. Its risk is
  no larger than that of the laxer one, as far as a stricter level does no worse, but it is not proved to be at most α:
  the promise of a level is taken for a line between two levels. To keep to the levels tried would be proved, and cost
  a threshold the whole way down to the promise below it.
- What is left is the price of n clips, ``1 / (n + 1)``: with 93 clips 1.1 points of a promise of a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autogaze.errors import AutoGazeError
from autogaze.models.autogaze.calibration import between

# Shape letters: n clips, M levels in ascending order, T frames of a clip.

Floats = NDArray[np.float64]
_ROUNDING = 1e-9
CLOSE = 0.01
"""Relative distance of two thresholds, or two levels, below which no level between them is worth its time."""


class CalibrationError(AutoGazeError):
    """A stop head cannot be calibrated with what is given."""


def fewest_clips(alpha: float) -> int:
    """Clips below which nothing can be promised: with ``1 / (n + 1) > α`` not even perfect ones would do."""
    return max(1, math.ceil(1 / alpha - 1 - _ROUNDING))


def corrected_risk(risk: float, *, clips: int) -> float:
    """``n / (n + 1) · risk + 1 / (n + 1)``: the mean risk if one more clip were as bad as can be."""
    return (clips * risk + 1) / (clips + 1)


def clip_risks(losses: Sequence[Floats], threshold: float) -> Floats:
    """(n, M) risk of each clip at each level, no smaller than at a stricter one.

    ``losses`` has, for each clip, the (M, T) true loss of its frames at each level.
    """
    shares = np.stack([(clip > threshold).mean(axis=1) for clip in losses])
    return np.maximum.accumulate(shares, axis=1)


def promised_thresholds(losses: Sequence[Floats], *, alpha: float) -> Floats:
    """(M,) the smallest threshold each level keeps; not falling from a stricter level to a laxer one.

    Only a loss that some frame had can be the smallest, so those are searched, and the result is exact.

    Args:
        losses: for each clip the (M, T) true loss of its frames at each level, in ascending order of level.
        alpha: α.

    Raises:
        CalibrationError: there are too few clips for this alpha.
        ValueError: alpha is not between 0 and 1, or the clips do not have equally many levels.
    """
    n, alpha = len(losses), check_alpha(alpha)
    if n < fewest_clips(alpha):
        raise CalibrationError(
            f"alpha {alpha:g} can be promised from {fewest_clips(alpha)} clips on, got {n}; "
            f"give more videos, or an alpha of at least {1 / (n + 1):.3g}"
        )
    longest = max(clip.shape[1] for clip in losses)
    frames = np.array([clip.shape[1] for clip in losses])
    # Frames that are not there are never above a threshold.
    padded = np.stack([np.pad(c, ((0, 0), (0, longest - c.shape[1])), constant_values=-np.inf) for c in losses])

    def keeps(threshold: float, level: int) -> bool:
        above = (padded[:, : level + 1] > threshold).sum(axis=2).max(axis=1)
        return corrected_risk(float((above / frames).mean()), clips=n) <= alpha + _ROUNDING

    candidates = np.unique(np.concatenate([clip.ravel() for clip in losses]))
    promised, low = np.empty(padded.shape[1]), 0
    for level in range(padded.shape[1]):
        high = len(candidates) - 1  # no loss is above the largest
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if keeps(float(candidates[middle]), level) else (middle + 1, high)
        promised[level] = candidates[low]
    return promised


def next_level(levels: Sequence[float], thresholds: Sequence[float], *, wanted: Sequence[float] = ()) -> float | None:
    """The level whose trial says most; None where none does.

    Without wanted thresholds it lies halfway between the two promises that are farthest apart. With some it is the
    level that a line between its neighbours gives to the one farthest from all promises, so that each is soon met.

    Args:
        levels: those tried, ascending, at least two.
        thresholds: what each promises.
        wanted: thresholds that should be met closely; one below all promises asks for a stricter level, on the line
            through the two strictest, and no farther off than these are from each other.
    """
    gaps: list[tuple[float, int, float]] = []  # how wide, before which level, how far on to the next
    for threshold in wanted:
        place = int(np.searchsorted(thresholds, threshold, side="right")) - 1
        if place < 0:
            short, step = _log_ratio(thresholds[0], threshold), _log_ratio(thresholds[1], thresholds[0])
            gaps.append((short, -1, min(1.0, short / step) if step else 1.0))
        elif place < len(levels) - 1:
            below, above = _log_ratio(threshold, thresholds[place]), _log_ratio(thresholds[place + 1], threshold)
            gaps.append((min(below, above), place, below / (below + above)))
    if not wanted:
        gaps = [(_log_ratio(thresholds[j + 1], thresholds[j]), j, 0.5) for j in range(len(levels) - 1)]
    for gap, place, share in sorted(gaps, reverse=True):
        if gap < CLOSE:
            return None
        if place < 0:
            stricter = levels[0] ** 2 / levels[1] if levels[0] > 0 else 2 * levels[0] - levels[1]
            return between(levels[0], stricter, share=share)
        low, high = levels[place], levels[place + 1]
        if high - low > CLOSE * max(abs(low), abs(high)):
            return between(low, high, share=share)
    return None


def check_alpha(alpha: float) -> float:
    """Alpha, if it is legal.

    Raises:
        CalibrationError: it is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise CalibrationError(f"alpha must be above 0 and below 1, got {alpha:g}; 0.1 allows a tenth of the frames")
    return alpha


def _log_ratio(larger: float, smaller: float) -> float:
    tiny = float(np.finfo(np.float64).tiny)
    return math.log(max(larger, tiny) / max(smaller, tiny))
