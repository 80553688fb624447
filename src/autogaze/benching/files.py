"""The files of a benchmark: ``bench.json`` and ``bench.png``."""

from __future__ import annotations

from pathlib import Path

from autogaze.benching.plot import write_plot
from autogaze.benching.report import BenchReport
from autogaze.results import OutputError, check_out

JSON, PICTURE = "bench.json", "bench.png"


def claim(folder: Path, *, overwrite: bool) -> None:
    """Find out, before anything is measured, whether the files could be put into ``folder``.

    Raises:
        OutputError: it is no folder that can be written into, or holds such files and they may not be replaced.
    """
    check_out(folder)
    taken = [name for name in (JSON, PICTURE) if (folder / name).exists()]
    if taken and not overwrite:
        raise OutputError(
            f"{folder} holds {' and '.join(taken)} already; --overwrite replaces a benchmark, another --out keeps it"
        )


def write_files(folder: Path, report: BenchReport) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write them into ``folder``, which is made if need be: their names, and what could not be written.

    Without matplotlib there is no picture, and none of another benchmark is left.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PICTURE).unlink(missing_ok=True)
    report.save(folder / JSON)
    try:
        write_plot(folder / PICTURE, report=report)
    except ImportError as error:
        return (JSON,), (f"{PICTURE} was left out: {error}",)
    return (JSON, PICTURE), ()
