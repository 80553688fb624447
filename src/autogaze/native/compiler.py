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
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from autogaze.errors import AutoGazeError

FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared"),
    "-Wl,--as-needed",  # or the compiler's own OpenMP library would be loaded beside torch's
)
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
        folder: where libraries are kept; None: :func:`cache_folder`. Where nothing can be written, or others could
            write too, the library lies in a temporary folder of this process.

    Raises:
        NativeError: this is another system or processor than such code is written for, or there is no compiler.
        CompilerFailedError: the compiler failed.
    """
    processor, openmp = _processor(), _openmp_of_torch()
    key = b"\0".join([os.fsencode(" ".join([*FLAGS, processor, str(openmp)])), source.read_bytes()])
    name = f"{source.stem}-{hashlib.sha256(key).hexdigest()[:24]}.so"
    place = _own(folder)
    if (place / name).is_file():
        return place / name
    command = [*_compiler(), *FLAGS, str(source), str(openmp), "-lm"]
    _remove_abandoned(place)
    with tempfile.NamedTemporaryFile(dir=place, prefix=name, suffix=".part", delete=False) as part:
        pass
    try:
        _run([*command, "-o", part.name])
        Path(part.name).chmod(0o700)  # whatever this user's files are usually like
        return Path(part.name).replace(place / name)  # at once: other processes see all of it or nothing
    finally:
        Path(part.name).unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where libraries are kept: ``autogaze`` in ``$XDG_CACHE_HOME``, without that in ``~/.cache``.

    Raises:
        RuntimeError: this user has no home.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "autogaze"


def _own(folder: Path | None) -> Path:
    """The folder, if this user and nobody else can write to it, or else a temporary one: what lies there is run."""
    with suppress(OSError, RuntimeError):
        folder = cache_folder() if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & 0o022 and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return Path(_temporary_folder().name)


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed while they compiled have left."""
    for part in folder.glob("*.part"):
        with suppress(OSError):  # another process removes it too
            if time.time() - part.stat().st_mtime > 2 * _PATIENCE_S:
                part.unlink()


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
        if command and shutil.which(command[0]) and _is_gcc(command):
            return command
    raise NativeError("no GCC was found; install gcc, or name one in $CC")


def _is_gcc(command: list[str]) -> bool:
    """Whether a compiler is GCC. Others' code calls other OpenMP libraries, and gets wrong answers from this one."""
    try:
        defined = _run([*command, "-dM", "-E", "-x", "c", os.devnull])
    except CompilerFailedError:
        return False
    return "__GNUC__" in defined and "__clang__" not in defined


def _openmp_of_torch() -> Path:
    """The OpenMP library that torch has loaded.

    Raises:
        NativeError: there is none.
    """
    found = [path for path in _loaded() if path.name.startswith(("libgomp", "libiomp5", "libomp")) and path.is_file()]
    if not found:
        raise NativeError("this torch has no OpenMP threads to share")
    # Other packages bring such libraries too.
    return next((path for path in found if Path(torch.__file__).parent in path.parents), found[0])


def _loaded() -> list[Path]:
    """The files in this process's memory, and things that are no files."""
    lines = os.fsdecode(Path("/proc/self/maps").read_bytes()).splitlines()
    return [Path(line.split(maxsplit=5)[-1]) for line in lines]


def _run(command: list[str]) -> str:
    """What a command prints.

    Raises:
        CompilerFailedError: it failed.
    """
    try:
        done = subprocess.run(command, capture_output=True, errors="replace", timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerFailedError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise CompilerFailedError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
