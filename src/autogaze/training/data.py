"""What a run's data are, in few words, so that a run that goes on notices when they have become others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autogaze.datasets.sources import find_images, find_validation, find_videos

if TYPE_CHECKING:
    from autogaze.training.run_settings import ClipSettings

NO_SIZE = -1
"""Of what is not there any more."""


def data_of(settings: ClipSettings) -> dict[str, str]:
    """Number, bytes and a digest of names and sizes of the files of each kind; contents are not read.

    Names count from the folder that was given on, so data that were moved as a whole are the same.

    Raises:
        VideoError: a folder is missing.
    """
    labels = () if settings.labels is None else (settings.labels,)
    found: dict[str, list[tuple[Path, Sequence[Path]]]] = {
        "video_files": [(root, find_videos([root])) for root in settings.videos],
        "image_files": [(root, find_images([root])) for root in settings.images],
        "label_files": [(root, sorted(root.iterdir()) if root.is_dir() else [root]) for root in labels],
        "validation_files": [
            *((root, find_validation([root])) for root in settings.val),
            *((root, find_validation([], training=[root])) for root in settings.videos),
        ],
    }
    return {kind: _told(parts) for kind, parts in found.items() if parts}


def _told(parts: Iterable[tuple[Path, Sequence[Path]]]) -> str:
    files = [(_name(path, root), _size(path)) for root, paths in parts for path in paths]
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()[:8]
    return f"{len(files)} files, {sum(max(0, size) for _, size in files)} bytes, {digest}"


def _name(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return NO_SIZE
