"""Tables about gaze models: from ``bundled_on_val.json`` and ``stage_ablation.json`` to Markdown."""

from __future__ import annotations

from typing import Any

REPLENISH, RANDOM, ANEW = "replenish, threshold", "random, ratio", "replenish anew every 16 frames"
SAID = {"clip": "mean of the clips' needs", "mean": "need at the mean error"}


def against_both(data: dict[str, Any]) -> str:
    """The bundled model between replenish and chance, said both ways, under each reconstructor."""
    (name, *_) = data["checkpoints"]
    lines = [
        "| rebuilt by | mean error | said as | kept | of `replenish` | random needs |",
        "|:--|--:|:--|--:|--:|--:|",
    ]
    for by, told in data["short"]["reconstructors"].items():
        rows = [row for row in told["equal_loss"] if row["selector"] == f"{name}, threshold"]
        for row in rows:
            lines.append(
                f"| `{by}` | {row['loss']:g} | {SAID[row['by']]} | {_share(row)} "
                f"| {_times(row['times'][REPLENISH])} | {_times(row['fewer'][RANDOM])} |"
            )
    return "\n".join([*lines, "", f"{_clips(data)} In brackets 95 % of resamples of the clips."])


def all_selectors(data: dict[str, Any]) -> str:
    """Patches that every selector needs, clip by clip, under each reconstructor."""
    tables = []
    for by, told in data["short"]["reconstructors"].items():
        rows = [row for row in told["equal_loss"] if row["by"] == "clip"]
        losses = sorted({row["loss"] for row in rows}, reverse=True)
        lines = [
            f"| rebuilt by `{by}`, mean error | {' | '.join(f'{loss:g}' for loss in losses)} |",
            "|:--|" + "--:|" * len(losses),
        ]
        for selector in dict.fromkeys(row["selector"] for row in rows):
            cells = []
            for loss in losses:
                (row,) = (row for row in rows if (row["selector"], row["loss"]) == (selector, loss))
                never = f", {row['clips_that_miss']} never" if row["clips_that_miss"] else ""
                cells.append(f"{_share(row)} ({row['times'][REPLENISH]['value']:.1f}×{never})")
            lines.append(f"| {selector} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    note = (
        f"{_clips(data)} In brackets how many times the patches of `replenish`; \"never\": clips that do not get there "
        "at any limit tried, counted as needing every patch."
    )  # fmt: skip
    return "\n\n".join([*tables, note])


def thresholds(data: dict[str, Any]) -> str:
    """How thresholds are kept: bare predictions and through the calibration."""
    (name, *_) = data["checkpoints"]
    told = data["short"]["reconstructors"]["canvas"]
    rows = {(row["selector"], row["limit"]): row for row in told["limits"]}
    lines = [
        "| threshold asked for | frames above, bare | kept | frames above, calibrated | kept | kept by `replenish` |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    for selector, limit in rows:
        if selector != f"{name}, threshold":
            continue
        cells = []
        for label in (selector, f"{name}, calibrated"):
            row = rows.get((label, limit))
            cells += ["–", "–"] if row is None else [_above(row), f"{row['kept']:.1%}"]
        exact = rows.get((REPLENISH, limit))
        cells.append("–" if exact is None else f"{exact['kept']:.1%}")
        lines.append(f"| {limit:g} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{_clips(data)} In brackets a 95 % interval; frames of a clip go wrong together."])


def restart(data: dict[str, Any]) -> str:
    """What it costs to start anew every 16 frames where replenish remembers."""
    (name, *_) = data["checkpoints"]
    lines = [
        "| rebuilt by | mean error | 16 frames | up to 64 frames | of `replenish` started anew as well |",
        "|:--|--:|--:|--:|--:|",
    ]
    for by in data["short"]["reconstructors"]:
        found = {
            kind: {
                row["loss"]: row["times"]
                for row in data[kind]["reconstructors"][by]["equal_loss"]
                if row["selector"] == f"{name}, threshold" and row["by"] == "mean"
            }
            for kind in ("short", "long")
        }
        for loss in found["short"]:
            cells = [_times(found[kind][loss][REPLENISH]) for kind in ("short", "long")]
            cells.append(_times(found["long"][loss][ANEW]))
            lines.append(f"| `{by}` | {loss:g} | {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Patches of the gaze model as a multiple of those of `replenish`, at equal mean error: "
            f"{data['short']['clips']} clips of 16 frames, and {data['long']['clips']} of up to 64, where the model "
            "starts anew every 16 and `replenish` goes on, but for the last column.",
        ]
    )


def stages(data: dict[str, Any]) -> str:
    """What each training stage is worth on small networks."""
    return "\n\n".join([*(_ablation(rows) for rows in data["tables"].values()), _baselines(data)])


def _ablation(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | kept at the error | error at equal counts | kept / error by its stop head | a clip |",
        "|:--|--:|--:|--:|--:|",
    ]
    for row in rows:
        spread = {name: _spread(row[name], name) for name in row if name not in ("network", "seeds")}
        lines.append(
            f"| {row['network']} | {spread['kept_by_mean']} | {spread['loss_at_counts']} "
            f"| {spread['stopped_kept']} / {spread['stopped_loss']} | {spread['clip_ms']} |"
        )
    return "\n".join(lines)


def _baselines(data: dict[str, Any]) -> str:
    found = data["baselines"]
    seeds = data["seeds"]
    spread = f" ± is the standard deviation over {len(seeds)} seeds." if len(seeds) > 1 else " One seed, so no spread."
    return (
        f"{found['clips']} clips that no training saw; the error is {found['loss']:g}. In every frame as many patches: "
        f"{found['greedy_loss']:.4f} for the greedy search, which keeps {found['greedy_kept']:.1%}, and "
        f"{found['random_loss_at_counts']:.4f} for chance.{spread}"
    )


def _spread(figure: dict[str, Any], name: str) -> str:
    if figure["mean"] is None:
        return "–"
    unit, digits = (100, 1) if "kept" in name else (1, 1) if name.endswith("_ms") else (1, 4)
    sign = " %" if "kept" in name else " ms" if name.endswith("_ms") else ""
    words = f"{unit * figure['mean']:.{digits}f}"
    if figure["deviation"] is not None:
        words += f" ± {unit * figure['deviation']:.{digits}f}"
    return words + sign


def _clips(data: dict[str, Any]) -> str:
    return f"{data['short']['clips']} validation clips of 16 frames."


def _share(row: dict[str, Any]) -> str:
    return "–" if row["kept"] is None else f"{row['kept']:.1%}"


def _times(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    interval = "" if found["low"] is None else f" ({found['low']:.2f} to {found['high']:.2f})"
    return f"{found['value']:.2f}×{interval}"


def _above(row: dict[str, Any]) -> str:
    low, high = row["above_interval"]
    return f"{row['above']:.0%} ({low:.0%} to {high:.0%})"


def lazy_labels(data: dict[str, Any]) -> str:
    """What the lazy search of labels saves and loses against trying every patch."""
    lines = [
        "| judged by | tried for a gaze, at most | evaluations saved | final loss above `exhaustive` | by clip |",
        "|:--|--:|--:|--:|:--|",
    ]
    for row in data["rows"]:
        if row["method"] == "exhaustive":
            continue
        tried = row["method"].removeprefix("lazy ")
        saved = f"{row['times_fewer']:.0f}×" if tried != row["method"] else "–"
        clips = ", ".join(f"{100 * above:+.1f}" for above in row["above_exhaustive_by_clip"])
        lines.append(f"| {row['judge']} | {tried} | {saved} | {100 * row['above_exhaustive']:+.1f} % | {clips} |")
    told = [
        f"{trial['judge']}: {len(trial['clips'])} clips of {trial['frames'][0]} frames of {trial['frame_px']} px, "
        f"{sum(trial['gazes'])} gazes in all"
        for trial in data["trials"]
    ]
    mae = data["video_mae"]
    trained = f" `video_mae` was trained for {mae['steps']} steps." if mae else ""
    return "\n".join(
        [
            *lines,
            "",
            f"{'; '.join(told)}. Counts are drawn as in the paper, with a mean share of at most "
            f"{data['trials'][0]['budget']['high']:.0%}. Final loss: after the last gaze of each frame, mean over "
            f"frames, then over clips.{trained} `--candidates` is {data['default_candidates']} if not given.",
        ]
    )
