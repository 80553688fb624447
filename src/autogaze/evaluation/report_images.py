"""Pictures inside the report: plots as they are, grids compressed, as many as there is room for."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from PIL import Image, UnidentifiedImageError, features

from autogaze.evaluation.curves import Kind, settings
from autogaze.evaluation.grids import TITLE_KEY, grid_name
from autogaze.evaluation.rows import ClipRow

_QUALITY = 80
_WEBP_EFFORT = 2
"""Half the time of the usual 4, for files 4 % larger; JPEG knows no such thing and ignores it."""
_USUAL_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as the report holds it."""

    uri: str
    """``data:`` address with all its bytes."""
    alt: str
    """What it shows, in words."""
    width_px: int
    """Width it was drawn at."""
    height_px: int
    """Height it was drawn at."""


@dataclass(frozen=True, kw_only=True)
class Grids:
    """The qualitative grids that fit."""

    by_clip: Mapping[str, Sequence[Picture]]
    """Clip → its grids; "" holds those of no known clip."""
    left_out: int
    """Grids in the folder that are not in the report."""


def plot(path: Path, *, alt: str) -> Picture | None:
    """A PNG as it is; None if there is none that can be read."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            width_px, height_px = image.size
    except (OSError, UnidentifiedImageError):
        return None
    return Picture(uri=_uri(content, kind="png"), alt=alt, width_px=width_px, height_px=height_px)


def grids(folder: Path, *, clips: Sequence[ClipRow], most_bytes: int) -> Grids:
    """The PNGs of a folder, compressed with loss, that take at most so many bytes of HTML together.

    Settings at which selectors can be compared come first: thresholds, then those that keep near 5 %, so that a report
    without room for all has the same setting under every selector and clip.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.png"))} if folder.is_dir() else {}
    clip_of = {stem: row.clip_name for row in reversed(clips) for stem in _stems(row) if stem in files}
    wanted = _wanted(files, clips)
    chosen: dict[str, Picture] = {}
    used_bytes = 0
    for stem in wanted:
        picture = _grid(files[stem])
        if picture is None:
            continue
        if used_bytes + len(picture.uri) > most_bytes:
            break
        used_bytes += len(picture.uri)
        chosen[stem] = picture
    by_clip: dict[str, list[Picture]] = {}
    for stem in sorted(chosen, key=lambda stem: (clip_of.get(stem) is None, clip_of.get(stem, ""), wanted.index(stem))):
        by_clip.setdefault(clip_of.get(stem, ""), []).append(chosen[stem])
    return Grids(by_clip=by_clip, left_out=len(files) - len(chosen))


def _stems(row: ClipRow) -> tuple[str, str]:
    """What a row's grid may be called, without its ending."""
    return grid_name(row, with_reconstructor=True), grid_name(row, with_reconstructor=False)


def _wanted(files: Mapping[str, Path], clips: Sequence[ClipRow]) -> list[str]:
    """All names of files, the one that is wanted most first."""
    known = settings(clips)
    shares: dict[str, list[float]] = {}
    for row in clips:
        shares.setdefault(row.setting, []).append(row.actual_gaze_ratio)
    rank: dict[str, tuple[bool, float, str, str]] = {}
    for row in clips:
        is_threshold = known[row.selector, row.setting].kind is Kind.THRESHOLD
        mean = fmean(shares[row.setting])
        distance = 0.0 if is_threshold else abs(math.log(max(mean, 1e-9) / _USUAL_SHARE))
        # Of thresholds the one without a ratio beside it is enough.
        is_capped = is_threshold and row.gazing_ratio_arg is not None
        for stem in _stems(row):
            rank.setdefault(stem, (is_capped, distance, "" if is_threshold else row.setting, row.clip_name))
    last = (True, math.inf, "", "")
    return sorted(files, key=lambda stem: (rank.get(stem, last), stem))


def _grid(path: Path) -> Picture | None:
    try:
        with Image.open(path) as image:
            image.load()
            title = str(image.info.get(TITLE_KEY, path.stem))
            content, kind = io.BytesIO(), "webp" if features.check("webp") else "jpeg"
            image.convert("RGB").save(content, format=kind, quality=_QUALITY, method=_WEBP_EFFORT)
            uri = _uri(content.getvalue(), kind=kind)
            return Picture(uri=uri, alt=title, width_px=image.width, height_px=image.height)
    except (OSError, UnidentifiedImageError):
        return None


def _uri(content: bytes, *, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
