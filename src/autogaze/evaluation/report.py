"""The report of an evaluation: one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from autogaze.archive import atomic_path
from autogaze.evaluation.curves import EXACT_DB, reconstructors
from autogaze.evaluation.findings import at_equal_psnr
from autogaze.evaluation.fronts import FAR
from autogaze.evaluation.plots import HEATMAP, PER_FRAME, TIME, TRADEOFF
from autogaze.evaluation.report_images import grids, plot
from autogaze.evaluation.report_tables import colors_of, equal_psnr_table, full_table, matrix, worst_clips
from autogaze.evaluation.report_words import facts, findings, missing, subtitle, without_clip_budgets
from autogaze.evaluation.rows import ClipRow, SummaryRow
from autogaze.extras import require

if TYPE_CHECKING:
    from jinja2 import Template

MOST_BYTES = 14_000_000
"""What the pictures of a report may take; grids beyond it are left out."""
_TITLE = "What kept patches are worth"
_TEMPLATE = "report.html.jinja"


def write_report(
    path: Path,
    *,
    folder: Path,
    metadata: Mapping[str, Any],
    summary: Sequence[SummaryRow],
    clips: Sequence[ClipRow],
) -> None:
    """Write the report of an evaluation; it appears whole or not at all. Equal input gives equal bytes.

    Args:
        path: where the HTML file goes.
        folder: the evaluation's folder; pictures are taken from its ``plots`` and ``visualizations``.
        metadata: plain values about the evaluation. All are shown; some have a place of their own: ``videos``,
            ``selectors`` and ``reconstructors`` (each with ``name``, ``weights_sha256``; ``loss_unit``), ``settings``,
            ``versions``, ``machine``, ``skipped`` (each with ``reason``), ``failures`` (``video``, ``reason``) and
            ``command``, a line of the shell. None is needed.
        summary: means over clips.
        clips: what they are means of.

    Raises:
        ImportError: jinja2 or matplotlib is not installed.
        OSError: the file cannot be written.
    """
    context = _context(folder, metadata=metadata, summary=summary, clips=clips)
    html = _template().render(context)
    with atomic_path(path) as temporary:
        # A file name that is not text keeps its bytes as escapes.
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace", newline="\n")


@cache
def _template() -> Template:
    jinja2 = require("jinja2", extra="evaluate")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    text = files("autogaze.evaluation").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return cast("Template", environment.from_string(text))


def _context(
    folder: Path, *, metadata: Mapping[str, Any], summary: Sequence[SummaryRow], clips: Sequence[ClipRow]
) -> dict[str, Any]:
    names, colors = reconstructors(summary), colors_of(summary)
    equal = {name: at_equal_psnr(summary, clips, reconstructor=name) for name in names}
    tables = (equal_psnr_table(equal[name], reconstructor=name, colors=colors) for name in names)
    pictures = {
        "tradeoff": plot(folder / "plots" / TRADEOFF, alt="Loss, error, PSNR and SSIM against the share kept"),
        "per_frame": plot(folder / "plots" / PER_FRAME, alt="Kept patches and loss by frame position"),
        "heatmap": plot(folder / "plots" / HEATMAP, alt="Mean kept patches by setting and frame position"),
        "time": plot(folder / "plots" / TIME, alt="Seconds of the selectors against what is kept, and quality"),
    }
    known = (TRADEOFF, PER_FRAME, HEATMAP, TIME)
    others = sorted(path for path in (folder / "plots").glob("*.png") if path.name not in known)
    more = [one for path in others if (one := plot(path, alt=path.stem.replace("_", " "))) is not None]
    used_bytes = sum(len(picture.uri) for picture in (*pictures.values(), *more) if picture is not None)
    chosen_grids = grids(folder / "visualizations", clips=clips, most_bytes=MOST_BYTES - used_bytes)
    worst = [table for name in names for table in worst_clips(summary, clips, reconstructor=name, colors=colors)]
    return {
        "title": _TITLE,
        "subtitle": subtitle(summary, clips),
        "sections": _sections(
            {**pictures, "more": more or None},
            has_grids=bool(chosen_grids.by_clip or chosen_grids.left_out),
            has_worst=bool(worst),
        ),
        "findings": findings(equal, summary, clips),
        "without_clip_budgets": without_clip_budgets(metadata, summary, clips),
        "equal_tables": [table for table in tables if table is not None],
        "intervals": any(cost.interval for found in equal.values() for one in found for cost in one.costs),
        "exact_db": f"{EXACT_DB:g}",
        "far": f"{FAR:g}",
        "facts": facts(metadata, summary, clips),
        "matrices": [matrix(summary, clips, reconstructor=name, colors=colors) for name in names],
        "full_tables": [full_table(summary, reconstructor=name, colors=colors) for name in names],
        **pictures,
        "more": more,
        "grids": chosen_grids,
        "worst_tables": worst,
        "missing": missing(metadata, summary),
        "command": metadata.get("command"),
        "recorded": json.dumps(metadata, indent=1, ensure_ascii=False, default=str),
    }


def _sections(pictures: Mapping[str, object], *, has_grids: bool, has_worst: bool) -> list[tuple[str, str]]:
    all_sections = (
        ("findings", "Findings", True),
        ("measured", "What was measured", True),
        ("tradeoff", "Trade-off", pictures["tradeoff"] is not None),
        ("summary", "All settings", True),
        ("frames", "Along the clip", pictures["per_frame"] is not None),
        ("time", "Time", pictures["time"] is not None),
        ("more", "More plots", pictures["more"] is not None),
        ("grids", "To look at", has_grids),
        ("worst", "Worst clips", has_worst),
        ("missing", "What is missing", True),
        ("repeat", "To repeat it", True),
    )
    return [(name, words) for name, words, is_there in all_sections if is_there]
