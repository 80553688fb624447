"""C into a shared library for this very processor, once; later runs find it in the user's cache.

The library uses the OpenMP threads that torch has: a second set of them would fight with it for the same cores.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from autogaze.errors import AutoGazeError

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")
_NEEDED_FEATURES = {"avx2", "fma"}
_PATIENCE_S = 120


class NativeError(AutoGazeError):
    """Compiled code cannot be had here; the message says why."""


class CompilerFailedError(NativeError):
    """There is a compiler, and it did not do its work: worth a look."""


def compiled(source: Path, *, folder: Path | None = None) -> Path:
    """The shared library of a C file: the one in ``folder``, or a new one.

    Args:
        source: one file, which includes nothing but headers of the compiler and the C library.
        folder: where libraries are kept; None: :func:`cache_folder`. Where nothing can be written, the library lies in
            a temporary folder of this process.

    Raises:
        NativeError: this is another system or processor than such code is written for, or there is no compiler.
        CompilerFailedError: the compiler failed.
    """
    processor, openmp = _processor(), _openmp_of_torch()
    key = "\0".join([*FLAGS, processor, str(openmp), source.read_text()])
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    place = _own(cache_folder() if folder is None else folder)
    if (place / name).is_file():
        return place / name
    command = [*_compiler(), *FLAGS, str(source), str(openmp), "-lm"]
    with tempfile.NamedTemporaryFile(dir=place, prefix=name, suffix=".part", delete=False) as part:
        pass
    try:
        _run([*command, "-o", part.name])
        return Path(part.name).replace(place / name)  # at once: other processes see all of it or nothing
    finally:
        Path(part.name).unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where libraries are kept: ``autogaze`` in ``$XDG_CACHE_HOME``, without that in ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "autogaze"


def _own(folder: Path) -> Path:
    """The folder, if it is this user's and can be written to, or else a temporary one."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    except OSError:
        pass
    return Path(_temporary_folder().name)


@cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="autogaze-")


def _processor() -> str:
    """What this processor can do, in words.

    Raises:
        NativeError: it is not one that the code is written for.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise NativeError(f"compiled decoding is for Linux on x86-64, not {sys.platform} on {platform.machine()}")
    features = _features()
    if not set(features) >= _NEEDED_FEATURES:
        raise NativeError("the processor lacks AVX2 or FMA, without which torch is faster")
    return " ".join(features)


def _features() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])


def _compiler() -> list[str]:
    """The command that compiles C.

    Raises:
        NativeError: there is none.
    """
    for candidate in (os.environ.get("CC", ""), "gcc", "cc"):
        command = candidate.split()
        if command and shutil.which(command[0]):
            return command
    raise NativeError("no C compiler was found; install gcc, or name one in $CC")


def _openmp_of_torch() -> Path:
    """The OpenMP library that torch has loaded.

    Raises:
        NativeError: there is none.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if path.name.startswith(("libgomp", "libiomp5", "libomp")) and path.is_file():
            return path
    raise NativeError("this torch has no OpenMP threads to share")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerFailedError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise CompilerFailedError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
