"""Attention of a few new tokens over many earlier ones, in tiles that stay in a processor's cache.

No mask is read and no largest score is looked for: scores are logarithms to base 2, and powers of two far from 1 are
as exact as those near it. Only where a sum of them nears the ends of the number range is that sum thrown away, and
the usual kernel asked.

Shape letters: N new tokens, H query heads, G key/value heads, R = H / G query heads that share one, M = N · R queries
of a key/value head token by token, L tokens that the new ones are the last of, D channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_SCALE = math.log2(math.e)
"""What queries are multiplied by, besides 1 / sqrt(D), so that powers of two of the scores are their exponentials."""

_SCORES_OF_A_THREAD = 1 << 19
"""Scores of a tile for each thread: small enough for its caches, large enough that threads seldom wait for another."""
_BLOCK = 256
"""New tokens whose view of each other is masked; what comes after a block is not computed before it."""
_LEAST, _MOST = 2.0**-90, 2.0**100
"""Range of the sums that are trusted: nothing that counts was rounded away, nothing overflowed."""


class Scratch:
    """Memory for the scores of a tile, which one call after another writes over, and what they are masked with.

    Memory that is new to a process costs more than what is written to it. Calls that share a scratch must not overlap.
    """

    def __init__(self) -> None:
        self._room = self._triangle = torch.empty(0)

    def room(self, size: int, *, like: Tensor) -> Tensor:
        """(size,) of anything, of the device and precision of ``like``; good until the next call."""
        if len(self._room) < size or self._room.dtype != like.dtype or self._room.device != like.device:
            self._room = like.new_empty(size)
        return self._room[:size]

    def triangle(self, side: int, *, like: Tensor) -> Tensor:
        """(side, side) ones on and below the diagonal, elsewhere zeros, of the device and precision of ``like``."""
        have = self._triangle
        if len(have) < side or have.dtype != like.dtype or have.device != like.device:
            self._triangle = like.new_ones(side, side).tril_()
        return self._triangle[:side, :side]


def attend(q_NHD: Tensor, k_GLD: Tensor, v_GLD: Tensor, *, scratch: Scratch) -> Tensor:
    """(N, H, D) attention of each of the last N tokens to all tokens up to itself.

    ``q_NHD`` comes multiplied by :data:`QUERY_SCALE` / sqrt(D).
    """
    if q_NHD.dtype.itemsize < 4:  # half precision would round the weights, which the usual kernel does not
        return attend_masked(q_NHD, k_GLD, v_GLD)
    N, H, D = q_NHD.shape
    G, L, _ = k_GLD.shape
    R = H // G
    q_GMD = q_NHD.view(N, G, R, D).transpose(0, 1).reshape(G, N * R, D)
    width = max(_BLOCK, _SCORES_OF_A_THREAD * torch.get_num_threads() // (N * H))
    room = scratch.room(N * H * min(width + _BLOCK, L), like=q_GMD)
    sum_GM1 = value_GMD = room  # the first tile is seen by all
    for first, start, end, masked in _tiles(N, L, width=width):
        seeing_GMD = q_GMD[:, first * R :] if first else q_GMD
        weight = room[: G * seeing_GMD.shape[1] * (end - start)].view(G, -1, end - start)
        torch.bmm(seeing_GMD, k_GLD[:, start:end].transpose(1, 2), out=weight).exp2_()
        if masked > 1:
            own = weight[:, : masked * R, -masked:].view(G, masked, R, masked)
            own.mul_(scratch.triangle(masked, like=weight)[:, None])
        if start == 0:
            sum_GM1, value_GMD = weight.sum(-1, keepdim=True), torch.bmm(weight, v_GLD[:, :end])
        else:
            sum_GM1[:, first * R :] += weight.sum(-1, keepdim=True)
            value_GMD[:, first * R :].baddbmm_(weight, v_GLD[:, start:end])
    least, most = torch.aminmax(sum_GM1)
    if not (float(least) > _LEAST and float(most) < _MOST):
        return attend_masked(q_NHD, k_GLD, v_GLD)
    return value_GMD.div_(sum_GM1).view(G, N, R, D).transpose(0, 1).reshape(N, H, D)


def attend_masked(q_NHD: Tensor, k_GLD: Tensor, v_GLD: Tensor) -> Tensor:
    """The same by torch's own kernel under a mask."""
    N, L = len(q_NHD), k_GLD.shape[1]
    visible_NL = torch.ones(N, L, dtype=torch.bool, device=q_NHD.device).tril_(L - N)
    out_1HND = F.scaled_dot_product_attention(
        q_NHD.transpose(0, 1)[None],
        k_GLD[None],
        v_GLD[None],
        visible_NL if N > 1 else None,
        scale=1 / QUERY_SCALE,
        enable_gqa=q_NHD.shape[1] != len(k_GLD),
    )
    return out_1HND[0].transpose(0, 1)


def _tiles(N: int, L: int, *, width: int) -> Iterator[tuple[int, int, int, int]]:
    """(first new token that sees it, start, end, how many of its last tokens do not see each other wholly)."""
    past, start = L - N, 0
    while past - start > width:
        yield 0, start, start + width, 0
        start += width
    for first in range(0, N, _BLOCK):
        end = min(first + _BLOCK, N)
        yield first, start, past + end, end - first
        start = past + end
