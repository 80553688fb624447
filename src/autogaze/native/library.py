"""The compiled decoder, as Python calls it.

Shape letters: N new tokens of all rows, A rows in use, C channels, G key/value heads, D channels of a head, E = D / 2
pairs of them, O numbers read out of a token, L places of the cache, W the width of a panel.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autogaze.native.compiler import NativeError
from autogaze.native.loading import load
from autogaze.native.packing import PackedDecoder
from autogaze.tiled_attention import Scratch

_SOURCE = Path(__file__).with_name("decoder.c")


class _Shape(ctypes.Structure):
    """``struct shape``."""

    _fields_ = (
        ("layers", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("head_dim", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("capacity", ctypes.c_int64),
        ("eps", ctypes.c_double),
    )


def readable(tensor: Tensor) -> bool:
    """Whether the code can read such numbers: fp32 on the CPU."""
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


class Library:
    """The functions of the shared library."""

    def __init__(self, code: ctypes.CDLL) -> None:
        size, pointer = ctypes.c_int64, ctypes.c_void_p
        self._feed = code.autogaze_feed
        self._feed.restype = None
        self._feed.argtypes = [*[pointer] * 4, size, size, *[pointer] * 4, size]
        self._scratch = code.autogaze_scratch
        self._scratch.restype = size
        self._scratch.argtypes = [pointer, size, size, size]
        self._takes = code.autogaze_takes
        self._takes.restype = size
        self._takes.argtypes = [size]
        code.autogaze_panel.restype = size
        self.panel: int = code.autogaze_panel()
        """W: outputs of a matrix, and places of the cache, that are computed at once."""

    def __reduce__(self) -> tuple[Callable[[int], Library], tuple[int]]:
        return _of_panel, (self.panel,)  # states are copied and go to other processes; the code stays where it is

    def takes(self, head_dim: int) -> bool:
        """Whether heads of so many channels can be computed."""
        return bool(self._takes(head_dim))

    def feed(
        self,
        decoder: PackedDecoder,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        spans_A4: NDArray[np.int64],
        x_NC: Tensor,
        turn_N1E: Tensor,
        scratch: Scratch,
    ) -> Tensor:
        """Read new tokens; what is read out of each row's last one, (A, O).

        Everything is fp32, on the CPU and contiguous.

        Args:
            decoder: its matrices.
            keys: per layer (rows of the cache, G, L, D), in memory (…, L / W, D, W); written to.
            values: per layer (rows of the cache, G, L, D); written to.
            spans_A4: of each row in use: row of the cache, first of its new tokens among N, how many they are, and how
                many tokens are in the cache when these are.
            x_NC: the new tokens, row after row; overwritten.
            turn_N1E: rotation of each pair of channels at each token's position, complex.
            scratch: working memory.

        Raises:
            ValueError: the new tokens are of another precision or on another device.
        """
        if not readable(x_NC):  # its memory would be read all the same
            raise ValueError(
                f"tokens must be torch.float32 on the CPU as the weights, got {x_NC.dtype} on {x_NC.device}"
            )
        _, G, L, D = values[0].shape
        shape = _Shape(
            layers=len(decoder.layers),
            channels=decoder.channels,
            heads=decoder.query_heads,
            kv_heads=G,
            head_dim=D,
            inner=decoder.inner,
            outputs=decoder.outputs,
            capacity=L,
            eps=decoder.eps,
        )
        pointers = [
            tensor.data_ptr()
            for layer, *of_cache in zip(decoder.layers, keys, values, strict=True)
            for tensor in (*layer.tensors(), *of_cache)
        ]
        said_AO = x_NC.new_empty(len(spans_A4), decoder.outputs)
        threads, sizes = torch.get_num_threads(), (len(spans_A4), len(x_NC))
        room = scratch.room(self._scratch(ctypes.byref(shape), len(x_NC), len(spans_A4), threads), like=x_NC)
        self._feed(
            ctypes.byref(shape),
            (ctypes.c_void_p * len(pointers))(*pointers),
            decoder.heads.data_ptr(),
            spans_A4.ctypes.data,
            *sizes,
            x_NC.data_ptr(),
            turn_N1E.data_ptr(),
            said_AO.data_ptr(),
            room.data_ptr(),
            threads,
        )
        return said_AO


def library() -> Library | None:
    """The compiled decoder; None where there is none, see :func:`state`."""
    code = load(_SOURCE)
    return None if isinstance(code, str) else _library(code)


def state() -> str:
    """In words, whether decoding on this machine's processor is compiled, or why not."""
    code = load(_SOURCE)
    return f"torch ({code})" if isinstance(code, str) else "compiled"


@cache
def _library(code: ctypes.CDLL) -> Library:
    return Library(code)


def _of_panel(panel: int) -> Library:
    """The compiled decoder, for a state that was made with one.

    Raises:
        NativeError: there is none here, or another processor's, to which the state's memory means something else.
    """
    found = library()
    if found is None or found.panel != panel:
        here = state() if found is None else f"compiled in panels of {found.panel}"
        raise NativeError(f"a state of decoding compiled in panels of {panel} cannot go on here, which is {here}")
    return found
