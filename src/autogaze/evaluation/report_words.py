"""What the report says in words: findings, what was measured, what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autogaze.evaluation.curves import Kind, patches_a_frame, reconstructors, selectors, settings
from autogaze.evaluation.findings import EqualPsnr, best_win, equal_psnr_sentences, win_sentence
from autogaze.evaluation.rows import ClipRow, SummaryRow

_MOST_LISTED = 6
_SHORT_HASH = 12
_MOST_OPEN = 12


def subtitle(summary: Sequence[SummaryRow], clips: Sequence[ClipRow]) -> str:
    """How much was measured, in one line."""
    videos, clip_names = {row.video for row in clips}, {(row.video, row.clip_name) for row in clips}
    counts = (
        (len(videos), "video", "videos"),
        (len(clip_names), "clip", "clips"),
        (len(selectors(summary)), "selector", "selectors"),
        (len({row.setting for row in summary}), "setting", "settings"),
    )
    told = ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in counts)
    return f"autogaze evaluate: {told}; rebuilt by {' and '.join(reconstructors(summary)) or 'nobody'}"


def findings(
    equal: Mapping[str, Sequence[EqualPsnr]], summary: Sequence[SummaryRow], clips: Sequence[ClipRow]
) -> list[str]:
    """Sentences, the main one first."""
    known = settings(clips)
    sentences: list[str] = []
    for name, found in equal.items():
        first, *others = equal_psnr_sentences(found, reconstructor=name) or [""]
        sentences += [first] if first else []
        sentences += [" ".join(others)] if others else []
        for kind in (Kind.THRESHOLD, Kind.CLIP):
            win = best_win(summary, clips, reconstructor=name, kind=kind)
            if win is not None:
                sentences.append(f"Rebuilt by {name}, {win_sentence(win, known=known)}")
    return sentences


def without_clip_budgets(metadata: Mapping[str, Any], summary: Sequence[SummaryRow], clips: Sequence[ClipRow]) -> str:
    """A sentence on the selectors whose ratios of clips were all skipped; empty if there are none."""
    sharing = {selector for (selector, _), setting in settings(clips).items() if setting.kind is Kind.CLIP}
    skipped = {
        str(one.get("selector"))
        for one in _items(metadata, "skipped")
        if str(one.get("setting")).startswith("clip_") and one.get("reconstructor") is None
    }
    names = [name for name in selectors(summary) if name in skipped - sharing]
    if not names:
        return ""
    whose = "its" if len(names) == 1 else "their"
    return (
        f"{', '.join(names)} cannot share a budget over a clip; "
        f"{whose} points are thresholds and shares of every frame."
    )


def facts(
    metadata: Mapping[str, Any], summary: Sequence[SummaryRow], clips: Sequence[ClipRow]
) -> list[tuple[str, str]]:
    """What was measured, on what and with what: names and values."""
    asked = _mapping(metadata.get("settings"))
    lengths = sorted({row.frames for row in clips})
    patches = patches_a_frame(clips)
    units = {str(one.get("name")): str(one.get("loss_unit")) for one in _items(metadata, "reconstructors")}
    stride = asked.get("stride", 1)
    every = "" if stride == 1 else f", every {stride}. frame of the video"
    of = f"{patches[0]} over all scales, {patches[1]} at the finest; shares are of the {patches[0]}" if patches else ""
    found = [
        ("videos", _some(sorted({row.video for row in clips}))),
        ("frames of a clip", ", ".join(map(str, lengths)) + every),
        ("patches of a frame", of),
        ("loss", "; ".join(f"{name}: {units.get(name, 'in its own unit')}" for name in reconstructors(summary))),
        ("selectors", _identities(metadata, "selectors")),
        ("reconstructors", _identities(metadata, "reconstructors")),
        ("settings", ", ".join(dict.fromkeys(row.setting for row in summary))),
        ("layout", {"resize": "one tile stretched over the frame", "tiles": "tiles"}.get(str(asked.get("mode")), "")),
        ("seed", str(asked.get("seed", ""))),
        ("machine", _plain(metadata.get("machine", ""))),
        ("versions", _plain(metadata.get("versions", ""))),
    ]
    return [(name, words) for name, words in found if words]


def _identities(metadata: Mapping[str, Any], kind: str) -> str:
    """Names, each with the start of its weights' hash."""
    told = []
    for one in _items(metadata, kind):
        weights = one.get("weights_sha256")
        told.append(f"{one.get('name')} (weights {str(weights)[:_SHORT_HASH]})" if weights else f"{one.get('name')}")
    return ", ".join(told)


def missing(metadata: Mapping[str, Any], summary: Sequence[SummaryRow]) -> list[tuple[str, list[str], bool]]:
    """Headings and lines of what failed, was skipped, or was not quite right, and whether the lines show at once.

    Few lines do, and so does whatever was skipped of a selector that the report compares.
    """
    measured = set(selectors(summary))
    touches_measured = any(one.get("selector") in measured for one in _items(metadata, "skipped"))
    failures = [f"{one.get('video', '?')}: {one.get('reason', '?')}" for one in _items(metadata, "failures")]
    skipped: dict[tuple[str, str], list[str]] = {}
    for one in _items(metadata, "skipped"):
        who = " rebuilt by ".join(str(one[key]) for key in ("selector", "reconstructor") if one.get(key))
        skipped.setdefault((who, str(one.get("reason", "?"))), []).append(str(one.get("setting") or "all settings"))
    notes = [
        f"{one.get('video', '?')}: {note}" for one in _items(metadata, "videos") for note in one.get("notes") or ()
    ]
    found = (
        ("Videos that failed", failures, False),
        ("Skipped", [f"{who}: {', '.join(which)}: {why}" for (who, why), which in skipped.items()], touches_measured),
        ("Videos with something amiss", notes, False),
    )
    return [(name, lines, matters or len(lines) <= _MOST_OPEN) for name, lines, matters in found if lines]


def _items(metadata: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The mappings in a list of the metadata; none if there is no such list."""
    value = metadata.get(key)
    listed: Iterable[object] = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return [one for one in listed if isinstance(one, Mapping)]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: object) -> str:
    """A value of the metadata in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items() if one not in (None, "", [], {}))
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return str(value)


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_MOST_LISTED])
    return shown if len(names) <= _MOST_LISTED else f"{len(names):,}: {shown} and {len(names) - _MOST_LISTED:,} more"
