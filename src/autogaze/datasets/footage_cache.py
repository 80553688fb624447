"""Decoded sources kept in memory and, if asked for, in a folder that outlives the run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from autogaze.archive import atomic_path
from autogaze.datasets.footage import Footage, Reading
from autogaze.errors import VideoError

LOG = logging.getLogger(__name__)
VERSION = 1
"""Footage that another version decoded is not used."""
ABANDONED_SECONDS = 3600.0
"""Half files of this age belong to a process that was killed."""
_PARTS = ".npy", ".json"
# What numpy and json raise on broken files.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError)


class FootageCache:
    """Decoded sources, as many as fit into ``max_bytes``; the one unused for longest goes first."""

    def __init__(self, max_bytes: int, *, folder: str | os.PathLike[str] | None = None) -> None:
        """An empty cache; with ``folder`` what was decoded before is read from there, and what is new kept.

        Raises:
            OSError: the folder cannot be made.
        """
        self.max_bytes = max_bytes
        self._folder = None if folder is None else FootageFolder(folder)
        self._kept: OrderedDict[Reading, Footage] = OrderedDict()
        self._broken: dict[Reading, str] = {}

    def get(self, reading: Reading) -> Footage:
        """The footage, which is not to be written to.

        Raises:
            VideoError: it cannot be read.
        """
        if reading in self._broken:
            raise VideoError(self._broken[reading])
        if reading not in self._kept:
            try:
                self._kept[reading] = self._read(reading)
            except VideoError as error:
                self._broken[reading] = str(error)  # a truncated hour takes as long to find out about the second time
                raise
            while len(self._kept) > 1 and sum(footage.rgb.nbytes for footage in self._kept.values()) > self.max_bytes:
                self._kept.popitem(last=False)
        self._kept.move_to_end(reading)
        return self._kept[reading]

    def _read(self, reading: Reading) -> Footage:
        if self._folder is None:
            return reading.read()
        found = self._folder.load(reading)
        if found is None:
            found = reading.read()
            self._folder.save(reading, found)
        return found


class FootageFolder:
    """Footage on disk: ``KEY.npy`` with the pixels and ``KEY.json`` with what they are.

    The key speaks of the file's path, size and time of change, and of how it was decoded: after any change it is
    decoded again. Several processes may use the folder at once, since files appear whole or not at all.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Make the folder, and remove half files that killed processes left in it.

        Raises:
            OSError: the folder cannot be made.
        """
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._is_full = False
        for half in self.folder.glob(".*"):
            with suppress(OSError):  # another process may be faster
                if half.suffix in _PARTS and time.time() - half.stat().st_mtime > ABANDONED_SECONDS:
                    half.unlink()

    def load(self, reading: Reading) -> Footage | None:
        """What :meth:`save` kept, its pixels read from the disk as they are looked at; None if it is not there, or
        damaged.
        """
        try:
            pixels, said = self._paths(reading)
            told = json.loads(said.read_text(encoding="utf-8"))
            rgb = np.load(pixels, mmap_mode="r", allow_pickle=False)
            if rgb.dtype != np.uint8 or list(rgb.shape) != told["shape"] or pixels.stat().st_size != told["bytes"]:
                return None
            return Footage(rgb=rgb, fps=float(told["fps"]))
        except _DAMAGE:
            return None

    def save(self, reading: Reading, footage: Footage) -> None:
        """Keep footage; a disk that is full is told of once in the log, and does no other harm."""
        if self._is_full:
            return
        try:
            pixels, said = self._paths(reading)
            with atomic_path(pixels) as path, path.open("wb") as file:
                np.save(file, footage.rgb, allow_pickle=False)
            told: dict[str, Any] = {
                "path": str(reading.path),
                "decoded": repr(reading),
                "shape": list(footage.rgb.shape),
                "fps": footage.fps,
                "bytes": pixels.stat().st_size,
            }
            # Last, because it is what makes the pixels count.
            with atomic_path(said) as path:
                path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            self._is_full = True
            LOG.warning("%s takes no more footage, which is decoded again each time: %s", self.folder, error)

    def _paths(self, reading: Reading) -> tuple[Path, Path]:
        path = reading.path.resolve()
        try:
            status = path.stat()
        except OSError as error:
            raise VideoError(f"{reading.path} cannot be read: {error.strerror or error}") from error
        key = repr((VERSION, str(path), status.st_size, status.st_mtime_ns, reading))
        name = f"{path.stem[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
        return self.folder / f"{name}.npy", self.folder / f"{name}.json"
