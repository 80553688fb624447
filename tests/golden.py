"""Outputs of the published implementation on random weights, and what is needed to compare with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

SMALL = Path(__file__).parent / "data" / "gaze_small"
OFFICIAL = Path(__file__).parents[2] / "shared" / "golden" / "gaze_official_shape"
FOLDERS = [folder for folder in (SMALL, OFFICIAL) if folder.is_dir()]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of the published implementation and its result."""

    folder: Path
    name: str
    info: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.folder.name}-{self.name}"

    @property
    def expected(self) -> dict[str, Tensor]:
        return load_file(self.folder / f"{self.name}.safetensors")

    def frames(self) -> Tensor:
        """(T, H, W, 3) uint8."""
        if "clip" not in self.info:
            return self.expected["frames"]
        return load_file(self.folder / "frames.safetensors")["frames"][self.info["clip"]][: self.info.get("frames")]

    def video(self) -> Tensor:
        """(1, T, 3, H, W) normalised."""
        return normalise(self.frames())[None]


def normalise(frames: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((frames / 127.5 - 1 - mean) / std).movedim(-1, -3)


def cases(kind: str) -> list[Case]:
    """All cases whose name has ``kind`` in it; "whole" is every plain call on a whole clip."""
    found = []
    for folder in FOLDERS:
        for name, info in json.loads((folder / "index.json").read_text()).items():
            special = [word for word in ("streaming", "target", "teacher_forcing") if word in name]
            if (kind == "whole" and not special) or kind in special:
                found.append(Case(folder=folder, name=name, info=info))
    return found


def kept_per_frame(index: Tensor, padded: Tensor, count: Tensor) -> list[list[int]]:
    """The kept entries of each frame of one clip's slots."""
    parts = zip(index.split(count.tolist()), padded.split(count.tolist()), strict=True)
    return [values[~padding].tolist() for values, padding in parts]
