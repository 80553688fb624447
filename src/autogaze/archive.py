"""One compressed file of named arrays with a JSON header: zip, versionable, no pickle."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from autogaze.errors import GazeFileError

HEADER = "header.json"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place if the block succeeds and vanishes if it fails."""
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; a result should be as readable as any other new file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], *, header: Mapping[str, Any]) -> None:
    """Write arrays and a header atomically.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(HEADER, json.dumps(dict(header), indent=1))
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)


def load(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what :func:`save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        GazeFileError: the file is not such an archive, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            header = json.loads(file.read(HEADER))
            arrays = {}
            for name in file.namelist():
                if name.endswith(".npy"):
                    with file.open(name) as entry:
                        arrays[name.removesuffix(".npy")] = cast(
                            "NDArray[Any]", np.lib.format.read_array(entry, allow_pickle=False)
                        )
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError) as error:
        raise GazeFileError(f"{path} is not a gaze file, or damaged: {error}") from error
    if not isinstance(header, dict):
        raise GazeFileError(f"{path} is not a gaze file: its header is not an object")
    return arrays, header


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
