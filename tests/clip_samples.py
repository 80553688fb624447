"""Small clips, and the files to make them of."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from autogaze.datasets.labellers import GreedyLabeller
from autogaze.datasets.labels import Label, LabelRule, label_clip
from autogaze.datasets.recipes import ClipRecipe, Kind
from autogaze.datasets.stream import ClipShape, LabelledClip
from autogaze.grid import PatchGrid
from make_video import moving_frames, write_video

SHAPE = ClipShape(grid=PatchGrid(scales_px=(32, 64)), frames=4)
LABELLER = GreedyLabeller(grid=SHAPE.grid)
RULE = LabelRule(threshold=0.03)


def recipe(kind: Kind = "video", number: int = 0, path: Path | None = Path("x.mp4")) -> ClipRecipe:
    return ClipRecipe(number=number, path=path, kind=kind, seed=0, rule=RULE)


def small_clips(clips: int) -> list[LabelledClip[Label]]:
    """Labelled clips of smooth noise that moves."""
    made = []
    for seed in range(clips):
        rgb = moving_frames(SHAPE.frames, height_px=64, width_px=64, seed=seed)
        label = label_clip(rgb, rule=RULE, grid=SHAPE.grid)
        made.append(LabelledClip(recipe=recipe(number=10 + seed), rgb=rgb, label=label))
    return made


def write_sources(folder: Path) -> Path:
    """Three videos, a broken one and an image."""
    for seed in range(3):
        write_video(folder / f"{seed}.mp4", moving_frames(24, height_px=72, width_px=96, seed=seed))
    (folder / "broken.mp4").write_bytes(b"no video")
    Image.fromarray(moving_frames(1, height_px=160, width_px=200)[0]).save(folder / "page.png")
    return folder


def write_unreadable(folder: Path) -> list[Path]:
    """Files that are no videos, each in another way; the names of all."""
    folder.mkdir(exist_ok=True)
    write_video(folder / "whole.mp4", moving_frames(24))
    content = (folder / "whole.mp4").read_bytes()
    (folder / "whole.mp4").unlink()
    (folder / "empty.mp4").touch()
    (folder / "truncated.mp4").write_bytes(content[: len(content) // 2])
    (folder / "text.mp4").write_text("no video\n" * 100)
    (folder / "folder.mp4").mkdir(exist_ok=True)
    return sorted(folder.iterdir())
