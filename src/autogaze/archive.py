"""One compressed file of named arrays with a JSON header: zip, versionable, no pickle."""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autogaze.errors import GazeFileError

HEADER = "header.json"
_NAMES = "arrays"
# What zipfile, zlib, json and numpy raise on broken bytes.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)

_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""Of file systems, and of what is no file on one, that cannot sync."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new path beside ``path``; the file written there takes its place if the block succeeds, else it vanishes.

    Raises:
        OSError: the file cannot be moved into place, or the block wrote none.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")
    try:
        yield temporary
        commit(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def commit(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its name: what is found there is all of it, even after a power cut.

    Raises:
        OSError: it is not there, cannot be moved, or its content cannot be brought to the disk.
    """
    sync(temporary)
    temporary.replace(path)
    sync_names(path.parent)


def sync(path: Path) -> None:
    """Bring a file, or a folder with all that is in it, to the disk; until then the system may keep it in memory.

    Raises:
        OSError: it is not there, or its content cannot be brought to the disk.
    """
    if sys.platform == "win32":  # syncs only what is open for writing
        return
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_dir():
            sync_names(file)
            continue
        with file.open("rb") as opened:
            try:
                os.fsync(opened.fileno())
            except OSError as error:
                if error.errno not in _NO_SYNC:
                    raise
    if path.is_dir():
        sync_names(path)


def sync_names(folder: Path) -> None:
    """Bring to the disk what is called what in a folder, as far as the system can."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], *, header: Mapping[str, Any]) -> None:
    """Write arrays and a header atomically; equal content gives equal bytes.

    Raises:
        OSError: the file cannot be written.
        ValueError: an array holds Python objects.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        with file.open(_entry(HEADER), "w") as entry:
            entry.write(json.dumps({**header, _NAMES: list(arrays)}, indent=1).encode())
        for name, array in arrays.items():
            # The size is not known beforehand, and a day of 4K video passes 2 GiB.
            with file.open(_entry(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)


def load(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what :func:`save` wrote.

    Raises:
        OSError: there is no such file, or it cannot be read.
        GazeFileError: the file is not such an archive, or damaged.
    """
    content = Path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            header = json.loads(file.read(HEADER))
            if not isinstance(header, dict):
                raise ValueError("its header is not an object")
            arrays = {}
            # By the header's list and not the file's: that one has no checksum, and could lose an array unseen.
            for name in header.pop(_NAMES):
                with file.open(f"{name}.npy") as entry:
                    arrays[name] = np.lib.format.read_array(entry, allow_pickle=False)
    except _DAMAGE as error:
        raise GazeFileError(f"{path} is not a gaze file, or damaged ({error}); write it again") from error
    return arrays, header


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # its fixed date makes equal content equal bytes
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16  # else unzip makes files that nobody may read
    return entry
