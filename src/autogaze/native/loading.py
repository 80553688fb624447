"""Compiled code in this process's memory, or why there is none."""

from __future__ import annotations

import ctypes
import os
import warnings
from functools import cache
from pathlib import Path

from autogaze.errors import FallbackWarning
from autogaze.native.compiler import CompilerFailedError, NativeError, compiled

SWITCH = "AUTOGAZE_NATIVE"
"""Environment variable; ``0`` leaves all work to torch and numpy."""


def load(source: Path) -> ctypes.CDLL | str:
    """The functions of a C file, or why they cannot be had.

    Compiled at the first call of a process that finds nothing in the cache. A failure is final for the process, and
    told once by a :class:`~autogaze.errors.FallbackWarning` if it is more than the lack of something.
    """
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    return _outcome(source)


@cache
def _outcome(source: Path) -> ctypes.CDLL | str:
    try:
        return ctypes.CDLL(str(compiled(source)))
    except (CompilerFailedError, OSError) as error:  # the loader's: a folder from which nothing may be run, for example
        warnings.warn(FallbackWarning(f"gazing without compiled code, slower: {error}"), stacklevel=2)
        return str(error)
    except NativeError as error:
        return str(error)
