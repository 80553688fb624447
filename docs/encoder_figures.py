"""Tables about sparse encoders: from ``sparse_encoders.json`` to Markdown."""

from __future__ import annotations

from typing import Any

FRAMES, SIDE_PX = 16, 224


def short(data: dict[str, Any]) -> str:
    """One row for each share kept, the base setting alone."""
    lines = [
        "| patches kept | dense ViT-B | sparse ViT-B | choosing them | in all | memory, dense → sparse |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for row in data["rows"]:
        if _is_base(row) and row["scales"] == 1:
            lines.append(
                f"| {row['share']:.0%} | {_ms(row['dense_ms'])} | {_ms(row['sparse_ms'])} | {_ms(row['select_ms'])} "
                f"| {_times(row['faster_with_selector'])} "
                f"| {row['dense_memory_mb']:.0f} → {row['memory_mb']:.0f} MB |"
            )
    return "\n".join([*lines, "", _crossover(data)])


def full(data: dict[str, Any]) -> str:
    """Every row that was measured, those that lose included."""
    lines = [
        "| model | frames | size | scales | attention | kept | tokens | dense | sparse | choosing | alone | in all |",
        "|:--|--:|--:|--:|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in data["rows"]:
        lines.append(
            f"| ViT-{row['size']} | {row['frames']} | {row['side_px']} px | {row['scales']} | `{row['attention']}` "
            f"| {row['share']:.4g} | {row['tokens']:,} | {_ms(row['dense_ms'])} | {_ms(row['sparse_ms'])} "
            f"| {_ms(row['select_ms'])} | {_alone(row)} | {row['faster_with_selector']:.1f}× |"
        )
    long = data["long_video"]
    return "\n".join(
        [
            *lines,
            "",
            f"{_crossover(data)} Alone, without choosing: against the dense model frame by frame and, in brackets, all "
            "frames in one batch; for `block_causal` the dense pass is the same encoder keeping everything. "
            f"{long['frames']} frames of {long['side_px']} px at {long['share']:.0%} of four scales "
            f"({long['tokens']:,} tokens): {long['seconds']:.0f} seconds, "
            f"{long['peak_mb'] / 1e3:.1f} GB for the whole process.",
        ]
    )


def _alone(row: dict[str, Any]) -> str:
    if "dense_frame_by_frame_ms" not in row:
        return f"{row['faster_than_batched']:.1f}×"
    return f"{row['faster']:.1f}× ({row['faster_than_batched']:.1f}×)"


def _is_base(row: dict[str, Any]) -> bool:
    wanted = {"size": "B", "frames": FRAMES, "side_px": SIDE_PX, "attention": "frame"}
    return all(row[name] == value for name, value in wanted.items())


def _crossover(data: dict[str, Any]) -> str:
    where = ", ".join(
        f"with {scales} {'up to ' + format(share, '.0%') if share is not None else 'at any share measured'}"
        for scales, share in data["crossover"].items()
    )
    machine = f"{data['machine']['threads']} threads of {data['machine']['processor']}"
    return (
        f"Medians for {FRAMES} frames of {SIDE_PX} px in fp32 on {machine} (torch {data['versions']['torch']}), random "
        f"weights; patches chosen by `replenish`. Choosing and encoding together pay {where}."
    )


def _ms(value: float) -> str:
    return f"{value / 1e3:.2f} s" if value >= 1e3 else f"{value:.0f} ms"


def _times(faster: float) -> str:
    return f"{faster:.1f}× faster" if faster >= 1.05 else f"{faster:.2f}×"
