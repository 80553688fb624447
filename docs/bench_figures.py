"""Tables of what gazing costs: from the JSON of ``autogaze bench`` and of ``watch_latency.py`` to Markdown."""

from __future__ import annotations

from typing import Any

from autogaze.benching.rows import three_digits

STAGES = ("decode", "preprocess", "gaze", "write")


def costs(data: dict[str, Any]) -> str:
    """Every row that was measured: latency, throughput, stages and memory."""
    frames = min(16, data["video"]["frames"])
    length = f"{frames} {'frame' if frames == 1 else 'frames'}"
    lines = [
        f"| selector | kept | {length} | a tile | frames a second | {' | '.join(STAGES)} | memory |",
        "|:--|--:|--:|--:|--:|" + "--:|" * (len(STAGES) + 1),
    ]
    for row in data["rows"]:
        said, memory = row["summary"], row["summary"]["memory_over_base_mb"]
        clip = said["clip_ms"]
        name = f"{row['settings']['model']}`, naive loop" if row["naive"] else f"{row['name']}`"
        lines.append(
            f"| `{name} | {said['kept_share']:.1%} "
            f"| {_ms(clip['median'])} ({three_digits(clip['quartile_low'])}–{three_digits(clip['quartile_high'])}) "
            f"| {_ms(said['tile_clip_ms'])} | {three_digits(said['fps']['median'])} "
            f"| {' | '.join(_share(said['stage_shares'][stage]) for stage in STAGES)} "
            f"| {'–' if memory is None else f'+{memory:.0f} MB'} |"
        )
    return "\n".join([*lines, "", _where(data)])


def watching(data: dict[str, Any]) -> str:
    """How long after a frame its gaze is there, and how many frames were too many."""
    lines = ["| selector | frames dropped | median | 95 % | 99 % | longest | kept |", "|:--|--:|--:|--:|--:|--:|--:|"]
    for name, found in data["models"].items():
        dropped = found["frames_dropped"]["median"] / found["frames_captured"]["median"]
        latency = " | ".join(_ms(found["latency_ms"][part]["median"]) for part in ("p50", "p95", "p99", "max"))
        lines.append(f"| `{name}` | {dropped:.1%} | {latency} | {found['kept_share']['median']:.1%} |")
    stream, machine = data["stream"], data["machine"]
    return "\n".join(
        [
            *lines,
            "",
            f"Latency from frame to gaze: a stream of {stream['side_px']} × {stream['side_px']} px at {stream['fps']} "
            f"frames a second for {stream['seconds']:.0f} s, with `--resize`, on {machine['threads']} threads of "
            f"{machine['processor']} (torch {data['versions']['torch']}); medians of {data['repeats']} runs of "
            "`benchmarks/watch_latency.py`.",
        ]
    )


def _where(data: dict[str, Any]) -> str:
    video, machine = data["video"], data["machine"]
    name = "A procedural clip" if video["is_procedural"] else f"`{video['name'].rpartition('/')[2]}`"
    count = machine["torch_threads"]
    where = f"{count} {'thread' if count == 1 else 'threads'} of {machine['processor']}"
    where += f", {machine['accelerator']}" if machine["accelerator"] else ""
    return (
        f"{name} of {video['width_px']}×{video['height_px']} px, {video['frames']} frames, on {where} "
        f"(torch {data['versions']['torch']}): medians of {data['repeats']} passes, from `autogaze bench`. "
        "In brackets quartiles. Frames a second are from the video file to the gaze file, stages are shares of that "
        "time, and memory is over that of a process which has imported everything."
    )


def _ms(value: float) -> str:
    return f"{three_digits(value)} ms"


def _share(value: float) -> str:
    return f"{value:.0%}" if value else "–"
