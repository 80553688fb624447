"""Attention in tiles equals its dense definition, whatever the lengths, the heads and the size of the scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autogaze import tiled_attention
from autogaze.tiled_attention import QUERY_SCALE, Scratch

# Shape letters: N new tokens, L tokens, H query heads, G key/value heads, D channels of a head.

D = 8


def dense(q_NHD: Tensor, k_GLD: Tensor, v_GLD: Tensor) -> Tensor:
    """The definition, in fp64: softmax over all tokens up to each new one."""
    N, H, _ = q_NHD.shape
    G, L, _ = k_GLD.shape
    k_HLD, v_HLD = (x.double().repeat_interleave(H // G, 0) for x in (k_GLD, v_GLD))
    score_HNL = q_NHD.double().transpose(0, 1) @ k_HLD.transpose(1, 2) / D**0.5
    future_NL = torch.ones(N, L, dtype=torch.bool).triu(L - N + 1)
    return (score_HNL.masked_fill(future_NL, -torch.inf).softmax(-1) @ v_HLD).transpose(0, 1)


def sample(N: int, L: int, H: int, G: int, *, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(N * L + H)
    q_NHD = torch.randn(N, H, D, generator=generator) * spread
    # Longer buffers than tokens, as a cache has them; what lies behind the end is not a number.
    k_GLD, v_GLD = (torch.randn(G, L + 7, D, generator=generator) for _ in range(2))
    k_GLD[:, L:] = v_GLD[:, L:] = torch.nan
    return q_NHD, k_GLD[:, :L], v_GLD[:, :L]


def attend(q_NHD: Tensor, k_GLD: Tensor, v_GLD: Tensor) -> Tensor:
    return tiled_attention.attend(q_NHD, k_GLD, v_GLD, scratch=Scratch())


def scaled(q_NHD: Tensor) -> Tensor:
    return q_NHD * (QUERY_SCALE / D**0.5)


LENGTHS = [(1, 1), (1, 900), (2, 2), (10, 10), (10, 3000), (127, 127), (128, 128), (129, 700), (300, 300), (300, 1200)]


@pytest.mark.parametrize(("N", "L"), LENGTHS)
@pytest.mark.parametrize(("H", "G"), [(6, 6), (6, 2), (4, 1)])
def test_it_is_the_definition(N: int, L: int, H: int, G: int) -> None:
    q, k, v = sample(N, L, H, G)
    torch.testing.assert_close(attend(scaled(q), k, v), dense(q, k, v).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scores", [1, 2000, 40_000])
def test_the_size_of_the_tiles_changes_nothing(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = sample(150, 900, 4, 2)
    monkeypatch.setattr(tiled_attention, "_SCORES_OF_A_THREAD", scores)
    monkeypatch.setattr(tiled_attention, "_BLOCK", 37)
    torch.testing.assert_close(attend(scaled(q), k, v), dense(q, k, v).float(), atol=1e-5, rtol=0)


def test_what_a_scratch_was_used_for_plays_no_part() -> None:
    scratch = Scratch()
    for dtype in (torch.float32, torch.float64):
        for N, L in [(10, 30), (300, 1200), (10, 30), (150, 900)]:
            q, k, v = (x.to(dtype) for x in sample(N, L, 4, 2))
            found = tiled_attention.attend(scaled(q), k, v, scratch=scratch)
            torch.testing.assert_close(found, dense(q, k, v).to(dtype), atol=1e-5, rtol=0)
            assert found.data_ptr() != scratch.room(1, like=q).fill_(torch.nan).data_ptr()
            assert not found.isnan().any()


@pytest.mark.parametrize("spread", [0.0, 30.0, 1000.0])
@pytest.mark.parametrize("shift", [-3000.0, -300.0, 0.0, 300.0, 3000.0])
def test_scores_of_any_size(spread: float, shift: float) -> None:
    """Sums out of range go to the usual kernel; rounding grows with the scores in any fp32 kernel."""
    q, k, v = sample(20, 300, 4, 2, spread=spread)
    q[..., 0], k[..., 0] = D**0.5, shift
    error = 1e-6 * (1 + abs(shift) + 30 * spread)
    torch.testing.assert_close(attend(scaled(q), k, v), dense(q, k, v).float(), atol=error, rtol=0)


def test_ordinary_scores_need_no_other_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tiled_attention, "attend_masked")
    q, k, v = sample(20, 300, 4, 2)
    attend(scaled(q), k, v)
    with pytest.raises(NameError):
        attend(scaled(q) * 1000, k, v)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_good_as_its_inputs(dtype: torch.dtype) -> None:
    q, k, v = sample(20, 300, 4, 2)
    q, k, v = scaled(q).to(dtype), k.to(dtype), v.to(dtype)
    wanted = dense(q.double() / QUERY_SCALE * D**0.5, k, v)
    torch.testing.assert_close(attend(q, k, v).double(), wanted, atol=0.01, rtol=0)
