"""Tables of what gazing costs: from the JSON of ``autogaze bench`` and of ``watch_latency.py`` to Markdown."""

from __future__ import annotations

from typing import Any

from autogaze.benching.rows import three_digits
from autogaze.benching.table import limit

STAGES = ("decode", "preprocess", "gaze", "write")


def costs(data: dict[str, Any]) -> str:
    """Every row that was measured: latency, throughput, stages and memory."""
    frames = min(16, data["video"]["frames"])
    length = f"{frames} {'frame' if frames == 1 else 'frames'}"
    lines = [
        f"| selector | limit | kept | {length} | a tile | frames a second | {' | '.join(STAGES)} | memory |",
        "|:--|--:|--:|--:|--:|--:|" + "--:|" * (len(STAGES) + 1),
    ]
    for row in data["rows"]:
        said, memory = row["summary"], row["summary"]["memory_over_base_mb"]
        clip = said["clip_ms"]
        name = f"{row['settings']['model']}`, naive loop" if row["naive"] else f"{row['name']}`"
        lines.append(
            f"| `{name} | {limit(threshold=row['settings']['threshold'], ratio=row['settings']['ratio'])} "
            f"| {said['kept_share']:.1%} "
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


def cascade(data: dict[str, Any]) -> str:
    """What opening fewer tiles saves a gaze model on large frames, and what it loses."""
    lines = ["| video | change | tiles open | time | kept | mean error |", "|:--|--:|--:|--:|--:|--:|"]
    for video in data["videos"]:
        rows = [row for row in video["rows"] if row["model"] == "bundled"]
        width_px, height_px = video["size_px"]
        for row in rows:
            if 0 < row["change"] < 1e-6:  # every tile open, each by itself
                continue
            seconds, all_seconds = row["seconds"]["median"], rows[0]["seconds"]["median"]
            name = "" if row["change"] else f"{video['video'].rpartition('_')[0]}, {width_px}×{height_px}"
            time = f"{seconds:.1f} s ({seconds / all_seconds:.0%})"
            lines.append(
                f"| {name} | {row['change']:g} | {row['opened_share']:.0%} | {time} "
                f"| {row['kept']:.1%} | {row['loss']:.4f} |"
            )
    machine, frames = data["machine"], data["videos"][0]["frames"]
    return "\n".join(
        [
            *lines,
            "",
            f"The bundled model at its default threshold; {frames} frames, every {data['stride']}th of the video, on "
            f"{machine['threads']} threads (torch {data['versions']['torch']}), from `benchmarks/cascade.py`.",
        ]
    )


def many_tiles(data: dict[str, Any]) -> str:
    """One sentence: a tile costs as much among many as among few."""
    rows = data["growth"]["rows"]
    times = [f"{row['seconds_per_tile_ms']['median']:.0f} ms among {row['tiles']:,}" for row in rows]
    frames = data["frames_of_a_clip"]
    memory = f"{rows[0]['peak_memory_mb']:.0f} MB, then {rows[-1]['peak_memory_mb']:.0f} MB"
    more = data["over_fresh"]["seconds_per_tile_ms"]
    than_new = f"{abs(more):.0%} {'more' if more > 0 else 'less'} than new processes that took turns with it"
    return (
        f"Of {data['video']} a tile of {frames} {'frame' if frames == 1 else 'frames'} took the {data['model']} model "
        f"{', '.join(times)}; in the end {than_new}. Memory peaked at {memory} ({data['machine']['threads']} threads, "
        "`benchmarks/many_tiles.py`)."
    )


def stream_tiles(data: dict[str, Any]) -> str:
    """What large frames one by one cost, with and without memory between them."""
    ways = {
        "whole": "all frames at once",
        "kept": "one by one, tiles kept",
        "again": "one by one, decoded again (`kept_tiles=0`)",
    }
    lines = ["| frames come | a frame | longest step | more memory |", "|:--|--:|--:|--:|"]
    for way, said in ways.items():
        row = {name: value["median"] for name, value in data["ways"][way].items()}
        memory = f"{row['memory_mb']:.0f} MB" if "memory_mb" in row else "–"
        lines.append(f"| {said} | {_ms(row['frame_ms'])} | {_ms(row['longest_step_ms'])} | {memory} |")
    width_px, height_px = data["size_px"]
    return "\n".join(
        [
            *lines,
            "",
            f"The {data['model']} model at its default threshold, {data['frames']} frames of {data['video']}, "
            f"{width_px} × {height_px} px, {data['tiles']} tiles; memory beyond what was held "
            f"after the first frame; medians of {data['repeats']} runs on "
            f"{data['machine']['threads']} threads (`benchmarks/stream_tiles.py`).",
        ]
    )


def half_precision(data: dict[str, Any]) -> str:
    """What becomes of decisions in half precision."""
    lines = [
        "| limit | precision | same patches, same order | same patches | in both, of those in either | kept "
        "| mean error | time |",
        "|:--|:--|--:|--:|--:|--:|--:|--:|",
    ]
    for row in data["rows"]:
        alike = " | ".join(f"{row[name]:.1%}" for name in ("same", "same_set", "overlap"))
        lines.append(
            f"| {row['limit']} | {row['precision']} | {alike} | {row['kept']:.1%} | {row['loss']:.4f} "
            f"| {row['clip_ms']:.0f} ms |"
        )
    machine = data["machine"]
    where = (
        f"{machine['threads']} threads of {machine['processor']}" if machine["device"] == "cpu" else machine["device"]
    )
    return "\n".join(
        [
            *lines,
            "",
            f"Share of the frames of {data['clips']} validation clips whose decisions are those of fp32; the "
            f"{data['model']} model on {where} (torch {data['versions']['torch']}), from "
            "`benchmarks/half_precision.py`.",
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
