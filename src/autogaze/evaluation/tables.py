"""Rows as tables: CSV files and back without loss, means over clips, and the same as text."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, get_args, get_origin, get_type_hints

from autogaze.archive import atomic_path
from autogaze.errors import AutoGazeError
from autogaze.evaluation.rows import ClipRow, SummaryRow

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RowT = TypeVar("RowT", bound="DataclassInstance")

CLIPS_CSV, FRAMES_CSV, SUMMARY_CSV = "metrics_by_clip_setting.csv", "metrics_by_frame.csv", "summary_by_setting.csv"


class TableError(AutoGazeError):
    """A CSV file does not hold the rows that were wanted."""


def write_rows(path: str | os.PathLike[str], rows: Iterable[RowT], *, kind: type[RowT]) -> None:
    """Write dataclasses of one kind as CSV with a heading; the file appears whole or not at all.

    Equal rows give equal bytes. Numbers are as short as they can be without loss, infinity is ``inf``, None an empty
    cell, a tuple a JSON list.

    Raises:
        OSError: the file cannot be written.
    """
    names = [field.name for field in fields(kind)]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(_UnixLines(file))
        writer.writerow(names)
        writer.writerows([_cell(getattr(row, name)) for name in names] for row in rows)


def read_rows(path: str | os.PathLike[str], kind: type[RowT]) -> list[RowT]:
    """The rows that :func:`write_rows` wrote, equal to those it was given.

    Raises:
        OSError: there is no such file, or it cannot be read.
        TableError: it holds something else.
    """
    types = get_type_hints(kind)
    with Path(path).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.reader(file)
        heading = next(reader, [])
        if heading != list(types):
            raise TableError(f"{path} has the columns {heading}, wanted are {list(types)}")
        try:
            return [
                kind(**{name: _value(types[name], cell) for name, cell in zip(heading, cells, strict=True)})
                for cells in reader
            ]
        except ValueError as error:
            raise TableError(f"line {reader.line_num} of {path} cannot be read: {error}") from error


class _UnixLines:
    """Ends lines as most tools expect it. Told to do so, ``csv`` would no longer quote carriage returns in cells."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> None:
        self._file.write(line.removesuffix("\r\n") + "\n")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, tuple) else str(value)


def _value(kind: Any, cell: str) -> Any:
    if get_origin(kind) is UnionType:
        (kind,) = (one for one in get_args(kind) if one is not type(None))
        return None if cell == "" else _value(kind, cell)
    return tuple(json.loads(cell)) if get_origin(kind) is tuple else kind(cell)


def summarise(clips: Sequence[ClipRow]) -> list[SummaryRow]:
    """Means over clips for each selector, setting and reconstructor, in the order in which these first appear."""
    groups: dict[tuple[str, str, str], list[ClipRow]] = defaultdict(list)
    for row in clips:
        groups[row.selector, row.setting, row.reconstructor].append(row)
    return [_mean_row(rows) for rows in groups.values()]


def _mean_row(rows: Sequence[ClipRow]) -> SummaryRow:
    first = rows[0]

    def mean(name: str) -> float:
        return math.fsum(getattr(row, name) for row in rows) / len(rows)

    def known(name: str) -> list[float]:
        return [value for row in rows if (value := getattr(row, name)) is not None]

    def mean_of_known(name: str) -> float | None:
        values = known(name)
        return math.fsum(values) / len(values) if values else None

    return SummaryRow(
        setting=first.setting,
        actual_gaze_ratio=mean("actual_gaze_ratio"),
        non_padded_gazes=mean("non_padded_gazes"),
        reconstruction_loss=mean("reconstruction_loss"),
        pixel_mae=mean("pixel_mae"),
        pixel_mse=mean("pixel_mse"),
        psnr=mean("psnr"),
        ssim=mean("ssim"),
        gaze_seconds=mean_of_known("gaze_seconds"),
        reconstruction_seconds=mean_of_known("reconstruction_seconds"),
        selector=first.selector,
        reconstructor=first.reconstructor,
        gaze_ratio_of_finest=mean("gaze_ratio_of_finest"),
        decode_seconds=mean_of_known("decode_seconds"),
        peak_memory_mb=max(known("peak_memory_mb"), default=None),
        clips=len(rows),
    )


_COLUMNS: Mapping[str, tuple[str, str]] = {
    "selector": ("selector", ""),
    "setting": ("setting", ""),
    "kept, all scales": ("actual_gaze_ratio", ".2%"),
    "of finest": ("gaze_ratio_of_finest", ".2%"),
    "gazes a clip": ("non_padded_gazes", ".1f"),
    "PSNR dB": ("psnr", ".2f"),
    "SSIM": ("ssim", ".4f"),
    "MAE": ("pixel_mae", ".4f"),
    "MSE": ("pixel_mse", ".5f"),
    "loss": ("reconstruction_loss", ".4f"),
    "gaze s": ("gaze_seconds", ".3f"),
    "rebuild s": ("reconstruction_seconds", ".3f"),
    "peak MB": ("peak_memory_mb", ".0f"),
}


def summary_text(summary: Sequence[SummaryRow], *, heading: Sequence[str], loss_units: Mapping[str, str]) -> str:
    """The heading, then a table of means for each reconstructor, fewest patches first.

    Args:
        summary: the means.
        heading: lines that say what was measured.
        loss_units: what a loss of 1 is, for each reconstructor.
    """
    text = io.StringIO()
    text.write("\n".join(heading) + "\n")
    for reconstructor in dict.fromkeys(row.reconstructor for row in summary):
        rows = [row for row in summary if row.reconstructor == reconstructor]
        text.write(f"\nRebuilt by {reconstructor}; loss: {loss_units.get(reconstructor, 'in its own unit')}\n\n")
        text.write(_aligned(sorted(rows, key=lambda row: (row.actual_gaze_ratio, -row.psnr))))
    return text.getvalue()


def _aligned(rows: Sequence[SummaryRow]) -> str:
    shown = [[_shown(getattr(row, name), form) for name, form in _COLUMNS.values()] for row in rows]
    lines = [list(_COLUMNS), *shown]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    of_words = [form == "" for _, form in _COLUMNS.values()]
    return "".join(
        "  ".join(
            cell.ljust(width) if words else cell.rjust(width)
            for cell, width, words in zip(line, widths, of_words, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def _shown(value: object, form: str) -> str:
    return "–" if value is None else format(value, form)
