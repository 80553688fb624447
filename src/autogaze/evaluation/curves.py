"""Rows of an evaluation as curves: metrics, operating points, and what they are called."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from autogaze.evaluation.fronts import Front, Point, lead, pareto_front
from autogaze.evaluation.rows import ClipRow, SummaryRow

EXACT_DB = 50.0
"""From this PSNR on nobody sees a difference (the error is below one of 255 levels); some are infinite."""


class Kind(Enum):
    """What limits the patches of a setting."""

    FRAME = "share of every frame"
    """The same share of every frame."""
    CLIP = "share of a clip"
    """The frames of a clip share one budget."""
    THRESHOLD = "loss threshold"
    """Frames end once they are good enough, with or without a limit beside."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One operating point of a selector."""

    name: str
    """As rows name it."""
    kind: Kind
    """What limits it."""
    ratio: float | None
    """The ratio asked for."""
    threshold: float | None
    """The threshold asked for, in the selector's own unit."""
    per_clip: bool
    """Whether the ratio is that of a clip."""

    @property
    def label(self) -> str:
        """A few signs for a picture: ``10 %``, ``10 % clip``, ``≤ 0.7``, ``≤ 0.7, 75 %``."""
        share = "" if self.ratio is None else f"{100 * self.ratio:.3g} %{' clip' if self.per_clip else ''}"
        if self.kind is not Kind.THRESHOLD:
            return share
        if self.threshold is None:
            return self.name
        return f"≤ {self.threshold:.3g}" + (f", {share}" if share else "")

    @property
    def order(self) -> tuple[int, float, float, str]:
        """By kind, and in each from few patches to many as far as the limits tell; a threshold alone before one with a
        ratio beside it."""
        share = 0.0 if self.ratio is None else self.ratio
        loss = 0.0 if self.threshold is None else self.threshold
        return (list(Kind).index(self.kind), -loss, share, self.name)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure of quality as pictures and words show it."""

    field: str
    """Name of the rows' field."""
    title: str
    """What it is called."""
    higher_is_better: bool
    """Whether more is better."""
    logarithmic: bool
    """Whether an axis of it is logarithmic."""

    def of(self, row: SummaryRow | ClipRow) -> float:
        """Its value in a row."""
        value: float = getattr(row, self.field)
        return psnr_of(value) if self.field == "pixel_mse" else value

    def quality(self, value: float) -> float:
        """The value as :class:`~autogaze.evaluation.fronts.Point` wants it."""
        return value if self.higher_is_better else -value

    def is_shown(self, value: float) -> bool:
        """Whether a mean of it has a place on an axis; one of exactly rebuilt frames has none."""
        if not math.isfinite(value):
            return False
        return value > 0 if self.logarithmic else self.field != "pixel_mse" or value < EXACT_DB


LOSS = Metric(field="reconstruction_loss", title="reconstruction loss", higher_is_better=False, logarithmic=True)
MAE = Metric(field="pixel_mae", title="pixel MAE", higher_is_better=False, logarithmic=True)
# Not the mean of PSNRs: one clip that is rebuilt exactly, 100 dB, would outweigh what happens to all others.
PSNR = Metric(field="pixel_mse", title="PSNR of the mean squared error, dB", higher_is_better=True, logarithmic=False)
SSIM = Metric(field="ssim", title="SSIM", higher_is_better=True, logarithmic=False)
METRICS = (LOSS, MAE, PSNR, SSIM)


def reconstructors(rows: Iterable[SummaryRow | ClipRow]) -> list[str]:
    """Names of the reconstructors in the order in which they come."""
    return list(dict.fromkeys(row.reconstructor for row in rows))


def selectors(rows: Iterable[SummaryRow | ClipRow]) -> list[str]:
    """Names of the selectors in the order in which they come."""
    return list(dict.fromkeys(row.selector for row in rows))


def settings(clips: Iterable[ClipRow]) -> dict[tuple[str, str], Setting]:
    """(selector, setting's name) → setting, in the order of :attr:`Setting.order`."""
    found: dict[tuple[str, str], Setting] = {}
    for row in clips:
        if (row.selector, row.setting) not in found:
            found[row.selector, row.setting] = _setting(row)
    return dict(sorted(found.items(), key=lambda item: item[1].order))


def _setting(row: ClipRow) -> Setting:
    ratio, threshold = row.gazing_ratio_arg, row.task_loss_requirement_arg
    per_clip = row.budget_per == "clip"
    if threshold is not None or ratio is None:
        kind = Kind.THRESHOLD
    else:
        kind = Kind.CLIP if per_clip else Kind.FRAME
    return Setting(name=row.setting, kind=kind, ratio=ratio, threshold=threshold, per_clip=per_clip)


def patches_a_frame(clips: Iterable[ClipRow]) -> tuple[int, int] | None:
    """Patches of a frame over all scales and at the finest one, such as 265 and 196; None if clips differ."""
    found = {
        tuple(
            round(row.non_padded_gazes / (share * row.frames))
            for share in (row.actual_gaze_ratio, row.gaze_ratio_of_finest)
        )
        for row in clips
        if row.non_padded_gazes and row.actual_gaze_ratio > 0 and row.gaze_ratio_of_finest > 0
    }
    if len(found) != 1:
        return None
    all_scales, finest = found.pop()
    return all_scales, finest


def psnr_of(mean_squared_error: float) -> float:
    """PSNR in dB of colours in 0…1; infinite without error."""
    if math.isnan(mean_squared_error):
        return math.nan
    return -10 * math.log10(mean_squared_error) if mean_squared_error > 0 else math.inf


def front_of(rows: Iterable[SummaryRow], *, metric: Metric) -> Front:
    """The Pareto front of one selector's rows."""
    return pareto_front(
        Point(
            kept=row.actual_gaze_ratio,
            quality=metric.quality(metric.of(row)),
            setting=row.setting,
        )
        for row in rows
        if metric.is_shown(metric.of(row))
    )


def ranked(summary: Sequence[SummaryRow], *, reconstructor: str) -> list[str]:
    """Selectors, the best first: by how far their front of PSNR leads the others' where both keep as much.

    Those without a front come last, by name.
    """
    of = [row for row in summary if row.reconstructor == reconstructor]
    fronts = {name: front_of((row for row in of if row.selector == name), metric=PSNR) for name in selectors(of)}
    leads = {name: sum(lead(front, other) for other in fronts.values()) for name, front in fronts.items()}
    return sorted(fronts, key=lambda name: (not fronts[name], -leads[name], name))
