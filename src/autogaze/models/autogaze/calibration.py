"""What a threshold is worth: the stored correction of a stop head, and how a threshold goes through it.

A stop head predicts the loss a frame has reached, and may be too hopeful. A calibration lists levels at which to stop
by the prediction, and for each the threshold that was then kept: at most a share α of the frames ended above it. So
"a loss of at most ε" becomes "stop at the level that keeps ε", found on the line between the levels tried. It is fitted
by :mod:`autogaze.evaluation.calibrate`; :mod:`autogaze.evaluation.conformal` says what is exact and what is not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autogaze.archive import atomic_path
from autogaze.configuration import read_json_object
from autogaze.errors import BudgetError, CalibrationWarning, CheckpointError, PromiseError
from autogaze.grid import FrameLayout

CALIBRATION_NAME = "calibration.json"
"""Its name beside ``config.json`` and ``model.safetensors``."""
FORMAT = "autogaze-calibration"
FORMAT_VERSION = 1
_MODE_WORDS = {
    "resize": ("whole frames brought to one tile", "tiles", "--tiles"),
    "tiles": ("tiles", "whole frames brought to one tile", "--resize"),
}
"""What a calibration is for, what else there is, and the option that calibrates for that."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One level of a stop head and what it kept on the calibration clips; losses are in the reconstructor's unit."""

    threshold: float
    """ε: at most α of the frames end above this loss when stopping at ``level``."""
    level: float
    """λ: a frame ends once the predicted loss is at or below this."""
    kept_share: float
    """Patches kept, of all there were."""
    predicted: float | None
    """Mean prediction after the last gaze, over the frames whose stop head said something there; None: nowhere."""
    loss: float
    """Mean true loss after the last gaze."""
    above_level: float
    """Share of frames whose true loss is above ``level``: what the level was worth as a threshold by itself."""
    above_threshold: float
    """Share of frames whose true loss is above ``threshold``."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A fitted correction, and what it was fitted for and on.

    Raises:
        ValueError: alpha is not between 0 and 1, or the promises are none, or not in order.
    """

    alpha: float
    """α: the share of frames that may end above a threshold, on average over clips like those it was fitted on."""
    reconstructor: str
    """Name of the reconstructor that measured the true loss."""
    loss_unit: str
    """What a loss of 1 is under it, in a few words."""
    weights: str
    """:func:`weights_fingerprint` of the model it was fitted for."""
    positions: str
    """Position mode of the model it was fitted for."""
    ratio: float
    """Most patches a frame could keep meanwhile, as a share; a lower cap may end a frame before its threshold."""
    mode: Literal["tiles", "resize"]
    """Whether a clip was one tile cut from its video, or its whole frames brought to one tile."""
    clips: int
    """n: clips it was fitted on."""
    frames: int
    """Frames of them."""
    clips_sha256: str
    """SHA-256 of their pixels."""
    seed: int
    """Seed of what was drawn."""
    promises: tuple[Promise, ...]
    """One for each level tried: levels ascend, and thresholds do not fall."""
    versions: Mapping[str, str]
    """Version of each package the result depends on."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, got {self.alpha!r}")
        if not self.promises:
            raise ValueError("a calibration needs at least one promise, got none")
        numbers = [(promise.level, promise.threshold) for promise in self.promises]
        if not all(math.isfinite(number) for pair in numbers for number in pair):
            raise ValueError("levels and thresholds must be finite")
        for (level, threshold), (next_level, next_threshold) in itertools.pairwise(numbers):
            if not (level < next_level and threshold <= next_threshold):
                raise ValueError(
                    f"levels must rise and thresholds must not fall, "
                    f"got {(level, threshold)} before {(next_level, next_threshold)}"
                )

    @property
    def lowest_threshold(self) -> float:
        """Nothing below this can be promised."""
        return self.promises[0].threshold

    @property
    def highest_threshold(self) -> float:
        """From here on every threshold stops at the loosest level tried."""
        return self.promises[-1].threshold

    def level(self, threshold: float) -> float:
        """The level that keeps ``threshold``: on the line between the two promises beside it.

        The line is straight in logarithms, see :func:`between`. A threshold that was promised gets the largest level
        that promises it, and one above :attr:`highest_threshold` the loosest level tried.

        Raises:
            BudgetError: the threshold is not finite.
            PromiseError: the threshold is below :attr:`lowest_threshold`.
        """
        if not math.isfinite(threshold):
            raise BudgetError(f"threshold must be a finite number, got {threshold}")
        place = bisect_right(self._thresholds, threshold) - 1
        if place < 0:
            least = rounded_up(self.lowest_threshold)
            raise PromiseError(
                f"threshold {threshold:g} is less than this model can promise: the least that at most {self.alpha:.3g} "
                f"of the frames pass is {least:g} ({self.reconstructor}); give a threshold from there on, or a ratio; "
                f"losses here are the {self.loss_unit}; "
                f"a copy of the checkpoint without {CALIBRATION_NAME} stops by the bare predictions"
            )
        if place == len(self.promises) - 1:
            return self._levels[-1]
        return _on_line(threshold, self._thresholds[place : place + 2], self._levels[place : place + 2])

    def threshold(self, level: float) -> float:
        """What stopping at ``level`` keeps: the inverse of :meth:`level`, but for rounding.

        Below the strictest level tried it is :attr:`lowest_threshold`; infinite above the loosest.
        """
        place = bisect_left(self._levels, level)
        if place == len(self.promises):
            return math.inf
        if place == 0:
            return self._thresholds[0]
        return _on_line(level, self._levels[place - 1 : place + 1], self._thresholds[place - 1 : place + 1])

    def corrected(self, predicted: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """What predictions stand for: the smallest threshold at which a frame with this prediction would end.

        :meth:`threshold` of each. ``predicted <= level(threshold)`` where ``corrected(predicted) <= threshold``, but
        for rounding. NaN stays NaN.
        """
        predicted = np.asarray(predicted, np.float64)
        said = [math.nan if math.isnan(level) else self.threshold(level) for level in predicted.ravel().tolist()]
        return np.array(said, np.float64).reshape(predicted.shape)

    def default_threshold(self, configured: float) -> float:
        """The threshold of a call that names none, for a configuration's level: what that level is worth, in four
        digits; no less and no more than the calibration speaks of.

        A configuration's threshold was chosen for the bare predictions, and may be in another unit. So the default
        goes on costing what it did, and is called by what it is worth.
        """
        return rounded_up(min(self.threshold(configured), self.highest_threshold))

    def warn(self, threshold: float, *, layout: FrameLayout) -> None:
        """Warn of a use that the promise is not about; each is a :class:`~autogaze.errors.CalibrationWarning`.

        Frames are gazed at tile by tile though it was fitted on whole frames, or the reverse; or the threshold is
        above :attr:`highest_threshold`, where nothing was measured and nothing more is saved.
        """
        for told in self.doubts(threshold, layout=layout):
            warnings.warn(told, CalibrationWarning, stacklevel=4)

    def doubts(self, threshold: float, *, layout: FrameLayout) -> tuple[str, ...]:
        """What :meth:`warn` warns of: none, one or two lines."""
        told = []
        make, other = FrameLayout.tiled, FrameLayout.resized
        if self.mode == "resize":
            make, other = other, make
        size = {"height_px": layout.height_px, "width_px": layout.width_px}
        if layout == other(layout.grid, **size) != make(layout.grid, **size):
            fitted, used, flag = _MODE_WORDS[self.mode]
            told.append(
                f"the threshold of this model is calibrated for {fitted} and used for {used}, where more than "
                f"{self.alpha:.3g} of the frames may end above it; `autogaze calibrate {flag}` calibrates for that"
            )
        if threshold > rounded_up(self.highest_threshold):
            told.append(
                f"threshold {threshold:g} is more than this model was calibrated for: frames end as at "
                f"{rounded_up(self.highest_threshold):g}, with {self.promises[-1].kept_share:.2g} of the patches; "
                f"losses here are the {self.loss_unit} ({self.reconstructor})"
            )
        return tuple(told)

    @cached_property
    def _thresholds(self) -> list[float]:
        return [promise.threshold for promise in self.promises]

    @cached_property
    def _levels(self) -> list[float]:
        return [promise.level for promise in self.promises]

    # Files

    def to_json(self) -> dict[str, Any]:
        """The calibration as plain values; :meth:`from_json` reads it back without loss."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return {"format": FORMAT, "version": FORMAT_VERSION, **plain}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The calibration of a :meth:`to_json` value.

        Raises:
            CheckpointError: it is something else, damaged, or from another version.
        """
        if data.get("format") != FORMAT:
            raise CheckpointError("not a calibration of autogaze")
        if data.get("version") != FORMAT_VERSION:
            raise CheckpointError(
                f"calibration version {data.get('version')!r}, this autogaze reads version {FORMAT_VERSION}"
            )
        try:
            values = {field.name: data[field.name] for field in fields(cls)}
            for name in ("alpha", "ratio"):
                values[name] = float(values[name])
            values["promises"] = tuple(map(_promise, values["promises"]))
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"the calibration is damaged: {error}") from error

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the file into a checkpoint's folder; it appears whole or not at all. Where it is.

        Raises:
            OSError: it cannot be written.
        """
        path = Path(folder) / CALIBRATION_NAME
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self | None:
        """The calibration in a checkpoint's folder; None if there is none.

        Raises:
            CheckpointError: the file is damaged, or none that this version reads.
        """
        path = Path(folder) / CALIBRATION_NAME
        if not path.is_file():
            return None
        try:
            return cls.from_json(read_json_object(path))
        except CheckpointError as error:
            raise CheckpointError(str(error) if str(path) in str(error) else f"{path}: {error}") from error

    def check_fits(self, weights: str, *, positions: str) -> None:
        """Refuse to be used by another model than it was fitted for.

        Raises:
            CheckpointError: the fingerprint of the weights or the position mode is another.
        """
        advice = "calibrate it again, delete the file, or load it with calibrated=False"
        if weights != self.weights:
            raise CheckpointError(f"{CALIBRATION_NAME} was fitted for other weights than those beside it; {advice}")
        if positions != self.positions:
            raise CheckpointError(
                f'{CALIBRATION_NAME} was fitted with positions "{self.positions}", not "{positions}"; {advice}'
            )


def between(low: float, high: float, *, share: float) -> float:
    """A number part of the way from one to the other, in even ratios where both are above 0, in even steps else."""
    return low * (high / low) ** share if low > 0 else low + (high - low) * share


def _on_line(x: float, x_span: Sequence[float], y_span: Sequence[float]) -> float:
    """y at x on the line through two points, with the axes as :func:`between` has them; the second of equal xs."""
    (x0, x1), (y0, y1) = x_span, y_span
    if x in (x0, x1):
        return y1 if x == x1 else y0
    share = math.log(x / x0) / math.log(x1 / x0) if x0 > 0 else (x - x0) / (x1 - x0)
    return min(max(between(y0, y1, share=share), y0), y1)


def rounded_up(threshold: float) -> float:
    """The smallest number of four significant digits that is no smaller: a promise as people read and type it."""
    if threshold == 0:
        return 0.0
    digits = 3 - math.floor(math.log10(abs(threshold)))
    near = round(threshold, digits)
    return near if near >= threshold else round(near + 10.0**-digits, digits)


def _promise(data: Mapping[str, Any]) -> Promise:
    predicted = data["predicted"]
    numbers = {name: float(value) for name, value in data.items() if name != "predicted"}
    return Promise(predicted=None if predicted is None else float(predicted), **numbers)


def weights_fingerprint(module: nn.Module) -> str:
    """SHA-256 of all weights with their names and shapes, whatever precision a file stores them in.

    Weights are taken as fp32, so weights that were rounded have another fingerprint than before.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        values = weight.detach().to(device="cpu", dtype=torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().astype("<f4", copy=False).tobytes())
    return f"sha256:{digest.hexdigest()}"
