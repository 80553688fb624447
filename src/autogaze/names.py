"""What the files of a result are called: short, legal, and different for every source of a batch."""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from autogaze.video_sources import CAMERA, has_wildcard, is_url, name_of

if TYPE_CHECKING:
    from autogaze.video import VideoSource

MAX_BYTES = 180
"""Longest name; file systems allow 255 bytes with the ending and what a temporary file adds."""
MAX_FOLDERS = 8
"""Most folders put before a name to tell it from others; after that they are numbered."""


def result_name(source: VideoSource) -> str:
    """What the files of one source are called before their endings.

    The file's name without its ending, a folder's name, the folder of a glob, the last part of an address;
    ``video`` for an array.
    """
    return _name(source, folders=0, ending=False)


def result_names(sources: Sequence[VideoSource]) -> list[str]:
    """:func:`result_name` of each source, all different, even where case does not count.

    Sources of the same name keep their ending if that tells them apart (``clip-mp4``, ``clip-mov``); otherwise the
    name of their folder, or of more folders, goes before it (``a-clip``, ``b-clip``). So a name depends on the
    other sources but not on their order. What is still the same (one source twice) is numbered.
    """
    names = [result_name(source) for source in sources]
    groups = defaultdict(list)
    for number, name in enumerate(names):
        groups[name.casefold()].append(number)
    for group in groups.values():
        for folders, ending in [(depth, ending) for depth in range(MAX_FOLDERS + 1) for ending in (False, True)]:
            longer = [_name(sources[number], folders=folders, ending=ending) for number in group]
            if len({name.casefold() for name in longer}) == len(group):
                for number, name in zip(group, longer, strict=True):
                    names[number] = name
                break
    return _numbered(names)


def _name(source: VideoSource, *, folders: int, ending: bool) -> str:
    if not isinstance(source, (str, os.PathLike)):
        return "video"
    text = os.fspath(source)
    try:
        above, stem, suffix = _parts(text)
    except (OSError, ValueError):  # longer than a file system allows, a null character: opening it will say so
        above, stem, suffix = [], Path(text).stem, ""
    parts = [*above[len(above) - min(folders, len(above)) :], stem]
    return _legal("-".join(parts) + (suffix.replace(".", "-") if ending else ""))


def _parts(text: str) -> tuple[list[str], str, str]:
    """Folders above a source, its own name, and its ending."""
    suffix: str = ""
    above: list[str] = []
    if is_url(text):
        address = urlsplit(text)
        path = PurePosixPath(address.path)
        suffix, above = path.suffix, [address.netloc, *path.parent.parts]
    elif not text.startswith(CAMERA):
        absolute = Path(text).absolute()
        if has_wildcard(text):
            absolute = next(parent for parent in absolute.parents if not glob.has_magic(parent.name))
        suffix = "" if absolute.is_dir() else absolute.suffix
        above = list(absolute.parent.parts)
    return [part for part in above if part.strip("/")], name_of(text), suffix


def _legal(name: str) -> str:
    """Letters, digits and a few signs that no shell or file system minds, not hidden, not too long."""
    name = re.sub(r"[^\w.+=@-]+", "_", name).lstrip(".-")
    return name.encode()[:MAX_BYTES].decode(errors="ignore") or "video"


def _numbered(names: Sequence[str]) -> list[str]:
    taken = {name.casefold() for name in names}
    seen: set[str] = set()
    result = []
    for name in names:
        unique, number = name, 1
        while unique.casefold() in seen or (unique != name and unique.casefold() in taken):
            number += 1
            unique = f"{name}-{number}"
        seen.add(unique.casefold())
        result.append(unique)
    return result
