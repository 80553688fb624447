"""The tables of the report, as plain values that its template shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from autogaze.evaluation.curves import PSNR, Kind, Setting, front_of, ranked, settings
from autogaze.evaluation.findings import Cost, EqualPsnr
from autogaze.evaluation.rows import PSNR_CEILING_DB, ClipRow, SummaryRow
from autogaze.evaluation.style import selector_styles, share

_WORST = 8
_USUAL_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One value of a table."""

    text: str
    """What is shown."""
    order: float | None = None
    """What it is sorted by; None: its text, or last in a column of numbers."""
    small: str = ""
    """Shown below, smaller."""
    is_best: bool = False
    """Whether it stands out."""
    color: str = ""
    """Of a dot before the text, as #rrggbb; none if empty."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a head; the first column names the rows."""

    caption: str
    """What it shows."""
    head: tuple[Cell, ...]
    """Names of the columns."""
    rows: tuple[tuple[Cell, ...], ...]
    """Each as long as the head."""


Colors = Mapping[str, str]
"""Selector → #rrggbb."""


def colors_of(summary: Iterable[SummaryRow]) -> Colors:
    """The selectors' colours in the plots."""
    return {name: style.color for name, style in selector_styles(row.selector for row in summary).items()}


def equal_psnr_table(found: Sequence[EqualPsnr], *, reconstructor: str, colors: Colors) -> Table | None:
    """Selectors × PSNRs: what is kept, and how many times what the best keeps; None where nothing was compared."""
    if not found:
        return None
    rows = []
    for number, cost in enumerate(found[0].costs):
        cells = [_cost_cell(one.costs[number], best=one.best) for one in found]
        rows.append((Cell(text=cost.selector, color=colors.get(cost.selector, "")), *cells))
    return Table(
        caption=f"Patches kept at an equal PSNR of the mean squared error, rebuilt by {reconstructor}",
        head=(Cell(text="selector"), *(Cell(text=f"{one.psnr_db:g} dB") for one in found)),
        rows=tuple(rows),
    )


def _cost_cell(cost: Cost, *, best: str) -> Cell:
    if cost.kept is None:
        return Cell(text="–")
    is_best = cost.selector == best
    return Cell(text=share(cost.kept), order=cost.kept, small="least" if is_best else cost.words, is_best=is_best)


def matrix(summary: Sequence[SummaryRow], clips: Sequence[ClipRow], *, reconstructor: str, colors: Colors) -> Table:
    """Settings × selectors: PSNR of the mean squared error, and the share kept."""
    names = ranked(summary, reconstructor=reconstructor)
    by_key = {(row.selector, row.setting): row for row in summary if row.reconstructor == reconstructor}
    known = settings(clips)
    ordered = dict.fromkeys([name for _, name in known] + [name for _, name in by_key])
    labels = {name: setting.label for (_, name), setting in known.items()}
    rows = []
    for setting in ordered:
        of = [by_key.get((name, setting)) for name in names]
        best = max((PSNR.of(row) for row in of if row is not None), default=math.nan)
        is_contest = len({PSNR.of(row) for row in of if row is not None}) > 1
        cells = [
            Cell(text="–")
            if row is None
            else Cell(
                text=_psnr(PSNR.of(row)), order=PSNR.of(row), small=share(row.actual_gaze_ratio),
                is_best=is_contest and PSNR.of(row) == best,
            )
            for row in of
        ]  # fmt: skip
        rows.append((Cell(text=setting, small=labels.get(setting, "")), *cells))
    return Table(
        caption=f"{PSNR.title}, and below it the share of the patches kept; rebuilt by {reconstructor}",
        head=(Cell(text="setting"), *(Cell(text=name, color=colors.get(name, "")) for name in names)),
        rows=tuple(rows),
    )


def full_table(summary: Sequence[SummaryRow], *, reconstructor: str, colors: Colors) -> Table:
    """All means of a reconstructor, one row for each selector and setting."""
    of = [row for row in summary if row.reconstructor == reconstructor]
    fronts = {
        name: {point.setting for point in front_of((row for row in of if row.selector == name), metric=PSNR)}
        for name in {row.selector for row in of}
    }
    rows = tuple(
        (
            Cell(text=row.selector, color=colors.get(row.selector, "")),
            Cell(text=row.setting, is_best=row.setting in fronts[row.selector]),
            Cell(text=share(row.actual_gaze_ratio), order=row.actual_gaze_ratio),
            Cell(text=share(row.gaze_ratio_of_finest), order=row.gaze_ratio_of_finest),
            _number(row.non_padded_gazes, ",.0f"),
            _number(row.reconstruction_loss, ".3g"),
            _number(row.pixel_mae, ".3g"),
            _number(row.pixel_mse, ".2e"),
            Cell(text=_psnr(PSNR.of(row)), order=PSNR.of(row)),
            Cell(text=_psnr(row.psnr), order=row.psnr),
            _number(row.ssim, ".3f"),
            _number(row.gaze_seconds, ".3g"),
            _number(row.reconstruction_seconds, ".3g"),
            _number(row.decode_seconds, ".3g"),
            _number(row.peak_memory_mb, ",.0f"),
            _number(row.clips, ",d"),
        )
        for row in of
    )
    head = (
        *(
            "selector",
            "setting",
            "kept",
            "of finest scale",
            "patches a clip",
            "loss",
            "MAE",
            "MSE",
            "PSNR of it",
            "mean PSNR",
            "SSIM",
        ),
        *("selector, s", "rebuilding, s", "decoding, s", "peak memory, MB", "clips"),
    )
    return Table(
        caption=f"All means, rebuilt by {reconstructor}; PSNR in dB, settings on their selector's front bold",
        head=tuple(Cell(text=text) for text in head),
        rows=rows,
    )


def worst_clips(
    summary: Sequence[SummaryRow], clips: Sequence[ClipRow], *, reconstructor: str, colors: Colors
) -> list[Table]:
    """The clips with the largest loss: a table for each selector that stops at a threshold, at that threshold.

    If none does, one for the best selector at the setting that keeps nearest to a tenth.
    """
    names, known = ranked(summary, reconstructor=reconstructor), settings(clips)
    of = [row for row in clips if row.reconstructor == reconstructor]
    chosen = [pair for name in names if (pair := _threshold_of(name, known)) is not None]
    if not chosen and names:
        chosen = [min((key for key in known if key[0] == names[0]), key=lambda key: _distance(key, of))]
    tables = []
    for selector, setting in chosen:
        rows = [row for row in of if (row.selector, row.setting) == (selector, setting)]
        rows = sorted(rows, key=lambda row: (-row.reconstruction_loss, row.clip_name))[:_WORST]
        if rows:
            tables.append(
                Table(
                    caption=f"{selector}, {setting}, rebuilt by {reconstructor}",
                    head=tuple(
                        Cell(text=text)
                        for text in ("clip", "loss", "PSNR, dB", "SSIM", "kept", "patches", "most in a frame")
                    ),
                    rows=tuple(_clip_cells(row, color=colors.get(selector, "")) for row in rows),
                )
            )
    return tables


def _threshold_of(selector: str, known: Mapping[tuple[str, str], Setting]) -> tuple[str, str] | None:
    """The strictest threshold of a selector, alone if it can be."""
    found = [s for (name, _), s in known.items() if name == selector and s.kind is Kind.THRESHOLD]
    if not found:
        return None
    best = min(found, key=lambda s: (s.ratio is not None, math.inf if s.threshold is None else s.threshold, s.name))
    return selector, best.name


def _distance(key: tuple[str, str], clips: Sequence[ClipRow]) -> float:
    """How far a selector's setting is from keeping the usual share, as a ratio's logarithm."""
    kept = [row.actual_gaze_ratio for row in clips if (row.selector, row.setting) == key]
    mean = fmean(kept) if kept else 0.0
    return abs(math.log(mean / _USUAL_SHARE)) if mean > 0 else math.inf


def _clip_cells(row: ClipRow, *, color: str) -> tuple[Cell, ...]:
    most = max(row.non_padded_gazes_by_frame, default=0)
    return (
        Cell(text=row.clip_name, color=color),
        _number(row.reconstruction_loss, ".3g"),
        Cell(text=_psnr(row.psnr), order=row.psnr),
        _number(row.ssim, ".3f"),
        Cell(text=share(row.actual_gaze_ratio), order=row.actual_gaze_ratio),
        _number(row.non_padded_gazes, ",d"),
        _number(most, ",d"),
    )


def _number(value: float | None, form: str) -> Cell:
    """A number; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return Cell(text="–" if value is None or math.isnan(value) else "∞")
    return Cell(text=format(value, form), order=float(value))


def _psnr(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "exact" if value >= PSNR_CEILING_DB else f"{value:.1f}"
