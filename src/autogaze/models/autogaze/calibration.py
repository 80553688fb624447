"""What a threshold is worth: the stored correction of a stop head, and how a threshold goes through it.

A stop head predicts the loss a frame has reached, and may be too hopeful. A calibration lists levels at which to stop
by the prediction, and for each the threshold that was then kept: at most a share α of the frames ended above it. So
"a loss of at most ε" becomes "stop at the largest level whose threshold is at most ε". It is fitted by
:mod:`autogaze.evaluation.calibrate`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from bisect import bisect_right
from collections.abc import Mapping
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
from autogaze.errors import BudgetError, CheckpointError, PromiseError

CALIBRATION_NAME = "calibration.json"
"""Its name beside ``config.json`` and ``model.safetensors``."""
FORMAT = "autogaze-calibration"
FORMAT_VERSION = 1


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
        """The largest level tried whose promise is at most ``threshold``.

        Between two levels nothing was measured, so nothing is interpolated: the lower one holds until the threshold
        of the next is reached. Above :attr:`highest_threshold` that is the loosest level.

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
                f"a copy of the checkpoint without {CALIBRATION_NAME} stops by the bare predictions"
            )
        return self.promises[place].level

    def corrected(self, predicted: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """What predictions stand for: the smallest threshold at which a frame with this prediction would end.

        ``predicted <= level(threshold)`` exactly where ``corrected(predicted) <= threshold``. Infinite above the
        loosest level; NaN stays NaN.
        """
        predicted = np.asarray(predicted, np.float64)
        thresholds = np.append(self._thresholds, np.inf)
        corrected = thresholds[np.searchsorted(self._levels, predicted, side="left")]
        return np.where(np.isnan(predicted), np.nan, corrected)

    def default_threshold(self, configured: float) -> float:
        """The threshold of a call that names none, for a configuration's level: what that level, or the nearest below
        it that was tried, promises.

        A configuration's threshold was chosen for the bare predictions, and may be in another unit. So the default
        goes on costing what it did, and is called by what it is worth.
        """
        exact = self.promises[max(0, bisect_right(self._levels, configured) - 1)].threshold
        short = rounded_up(exact)
        return short if self.level(short) == self.level(exact) else exact

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
