"""The files of the behaviour analyses: a CSV for each analysis, one JSON with all figures and settings, the plots."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autogaze.archive import atomic_path
from autogaze.evaluation.behaviour import Behaviour
from autogaze.evaluation.behaviour_measures import DETAIL_EDGES, FLOW_EDGES_PX
from autogaze.evaluation.behaviour_plots import PLOTS, save_plot
from autogaze.evaluation.behaviour_rows import DetailRow, FlowRow, FrameShareRow, ScaleShareRow, SelectorBehaviour
from autogaze.evaluation.intervals import CONFIDENCE
from autogaze.evaluation.tables import write_rows
from autogaze.extras import require
from autogaze.results import OutputError, check_out
from autogaze.summary import versions
from autogaze.terminal import error_line

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT = "autogaze-behaviour"
FORMAT_VERSION = 1
RESULT = "behaviour.json"
TABLES: dict[str, type[DataclassInstance]] = {
    "behaviour_flow.csv": FlowRow,
    "behaviour_detail.csv": DetailRow,
    "behaviour_frames.csv": FrameShareRow,
    "behaviour_scales.csv": ScaleShareRow,
}
PICTURES = tuple(f"plots/{name}.png" for name in PLOTS)
NOTES = (
    "frames are stretched to the square of the grid's finest scale; motion and detail are of the stretched frames",
    "the first frame of a clip has no flow and is left out of gaze rate against flow",
    "flow of a patch is the fastest pixel in its box, so that coarse patches have more of it",
    "flow of a pixel is the larger of the flow to the frame before and of the flow back from there, 0 where that "
    "points outside the picture; small things that move by more than about 16 px a frame are often not followed",
    "gazes of one clip depend on each other: intervals over clips draw whole clips anew, wilson, sem and p do not",
)


def check_ready(out: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse a folder that holds results already, and a missing package, before any work is done.

    Raises:
        ImportError: opencv-python-headless, scipy or matplotlib is not installed (extra ``evaluate``).
        OutputError: ``out`` is not a folder, or holds such files and they are not to be replaced.
    """
    for module in ("cv2", "scipy", "matplotlib"):
        require(module, extra="evaluate")
    check_out(out)
    taken = [str(Path(out) / name) for name in (RESULT, *TABLES, *PICTURES) if os.path.lexists(Path(out) / name)]
    if taken and not overwrite:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise OutputError(f"{taken[0]}{more}: there already; --overwrite replaces them, another --out keeps them")


def save_behaviour(behaviour: Behaviour, out: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write all files into ``out``, replacing what is there; each appears whole or not at all, the JSON last.

    Raises:
        ValueError: there is no selector in it, as where every source failed.
        ImportError: matplotlib is not installed (extra ``evaluate``).
        OSError: a file cannot be written.
    """
    if not behaviour.selectors:
        raise ValueError("no source could be measured, so there is nothing to write")
    folder = Path(out)
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)  # comes last, so that it never speaks of files of another run
    for name, kind in TABLES.items():
        rows = [row for found in behaviour.selectors for row in _rows(found, kind)]
        write_rows(folder / name, rows, kind=kind)
    for name in PLOTS:
        save_plot(name, behaviour.selectors, folder / "plots" / f"{name}.png")
    with atomic_path(folder / RESULT) as temporary:
        text = json.dumps(to_json(behaviour), indent=1, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return tuple(folder / name for name in (*TABLES, *PICTURES, RESULT))


def to_json(behaviour: Behaviour) -> dict[str, Any]:
    """All figures, settings and versions as plain values."""
    plain: dict[str, Any] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "settings": {
            "cutting": asdict(behaviour.cutting),
            "seed": behaviour.seed,
            "draws": behaviour.draws,
            "confidence_of_intervals": CONFIDENCE,
            "flow_edges_px": FLOW_EDGES_PX,
            "detail_edges": DETAIL_EDGES,
            "selectors": [asdict(settings) for settings in behaviour.settings],
        },
        "notes": NOTES,
        "clips": behaviour.clips,
        "short_clips": behaviour.short_clips,
        "failed": [{"source": failure.source, "error": error_line(failure.error)} for failure in behaviour.failures],
        "warnings": behaviour.warnings,
        "seconds": behaviour.seconds,
        "versions": {**versions(), **_versions()},
        "results": [{**asdict(found), "kept_ratio": found.kept_ratio} for found in behaviour.selectors],
    }
    # Through text, so that tuples become the lists that every reader of the file sees.
    told: dict[str, Any] = json.loads(json.dumps(plain))
    return told


def summary_line(found: SelectorBehaviour) -> str:
    """What a selector looks at, in one line."""
    faster = [trend.gazed_moves_faster for trend in found.flow_trends]
    motion = ", ".join("–" if auc is None else f"{auc:.2f}" for auc in faster)
    scales = ", ".join(str(trend.scale_px) for trend in found.flow_trends)
    correlation = found.scale_and_detail
    if correlation.rho is None:
        told = "all gazes have one scale or one detail"
    else:
        told = f"scale against detail ρ = {correlation.rho:.2f}"
        if correlation.over_clips is not None:
            told += f" ({correlation.over_clips.low:.2f} to {correlation.over_clips.high:.2f} over clips)"
    first = found.frame_shares[0].share or 0.0
    return (
        f"{found.selector}: {found.gazes:,} gazes in {found.clips} {'clip' if found.clips == 1 else 'clips'} "
        f"({found.kept_ratio:.1%} kept, {first:.0%} of them in first frames); gazed patches move faster with AUC "
        f"{motion} at {scales} px; {told}"
    )


def _rows(found: SelectorBehaviour, kind: type[DataclassInstance]) -> Sequence[DataclassInstance]:
    tables: tuple[Sequence[DataclassInstance], ...] = (
        found.flow,
        found.detail,
        found.frame_shares,
        found.scale_shares,
    )
    return next(rows for rows in tables if isinstance(rows[0], kind))


def _versions() -> dict[str, str]:
    known = {}
    for package in ("scipy", "matplotlib", "opencv-python-headless"):
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # another build of it, such as opencv-python, does as well
            known[package] = "unknown"
    return known
