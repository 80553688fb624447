"""Attention by frame segments against the definition: one dense mask of tokens by tokens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autogaze.tasks.video_mae_reconstruction.block_causal import (
    BlockCausal,
    FrameTokens,
    _with_log_sum_in_parts,
    attend_branches,
)

P = 6


def masks(rows: int, frames: int, *, seed: int = 0, keep: float = 0.5) -> Tensor:
    return torch.rand(rows, frames, P, generator=torch.Generator().manual_seed(seed)) < keep


def qkv(rows: int, tokens: int, *, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, tokens, 3, 4, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def dense(tokens: FrameTokens, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """The definition."""
    frame_N = torch.cat([torch.tensor([-1]), tokens.frame_N])
    used_BN = torch.ones(len(q), len(frame_N), dtype=torch.bool)
    if tokens.used_BN is not None:
        used_BN[:, 1:] = tokens.used_BN
    visible_BNN = used_BN[:, None, :].expand(-1, len(frame_N), -1)
    if causal:
        visible_BNN = visible_BNN & (frame_N[None, :] <= frame_N[:, None])
    heads_first = [tensor.transpose(1, 2) for tensor in (q, k, v)]
    return F.scaled_dot_product_attention(*heads_first, visible_BNN[:, None]).transpose(1, 2)


def used(tokens: FrameTokens, x: Tensor) -> Tensor:
    """What stands in used slots, the class token's included."""
    if tokens.used_BN is None:
        return x
    return x[F.pad(tokens.used_BN, (1, 0), value=True)]


CASES = {
    "ragged": masks(3, 5),
    "equal counts": torch.stack([masks(1, 5, seed=1)[0], masks(1, 5, seed=1)[0].flip(-1)]),
    "every cell": torch.ones(2, 3, P, dtype=torch.bool),
    "nothing": torch.zeros(2, 3, P, dtype=torch.bool),
    "empty frames": masks(2, 6, seed=2) & (torch.arange(6) % 2 == 1)[:, None],
    "one row sees nothing": masks(2, 4, seed=3) & torch.tensor([True, False])[:, None, None],
    "ragged at the end alone": torch.cat([torch.ones(2, 2, P, dtype=torch.bool), masks(2, 1, seed=4)], dim=1),
}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_segments_equal_the_dense_mask_forward_and_backward(name: str, causal: bool) -> None:
    tokens = FrameTokens.from_mask(CASES[name])
    inputs = qkv(len(CASES[name]), 1 + tokens.num_slots)
    got = used(tokens, BlockCausal(tokens, causal=causal)(*inputs))
    wanted = used(tokens, dense(tokens, *inputs, causal=causal))
    torch.testing.assert_close(got, wanted)
    weight = torch.randn(got.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    for one, other in zip(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((wanted * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_the_cells_of_the_mask_in_order(name: str) -> None:
    mask = CASES[name]
    tokens = FrameTokens.from_mask(mask)
    kept = torch.ones(len(mask), tokens.num_slots, dtype=torch.bool) if tokens.used_BN is None else tokens.used_BN
    for row in range(len(mask)):
        got = list(zip(tokens.frame_N[kept[row]].tolist(), tokens.cell_BN[row, kept[row]].tolist(), strict=True))
        assert got == [tuple(place) for place in mask[row].nonzero().tolist()]
    # Only frames before ``full`` are free of unused slots, and they are all free of them.
    assert kept[:, : tokens.full].all()
    assert tokens.full == tokens.num_slots or not kept[:, tokens.full :].all()


@pytest.mark.parametrize("name", CASES)
def test_slots_are_found_in_a_larger_selection(name: str) -> None:
    mask = CASES[name]
    larger = mask.clone()
    larger[:, ::2] = True
    seen, decoded = FrameTokens.from_mask(mask), FrameTokens.from_mask(larger)
    place = F.pad(decoded.place_BN, (0, 1), value=mask[0].numel())  # the spare slot
    assert torch.equal(place.gather(1, seen.slots_in(decoded)), seen.place_BN)


@pytest.mark.parametrize("ragged", [True, False])
def test_branches_see_the_shared_past_and_themselves(ragged: bool) -> None:
    C, n, L = 4, 5, 7
    (q, k, v), (_, past_k, past_v) = qkv(C, n), qkv(1, L, seed=1)
    rng = torch.Generator().manual_seed(2)
    used_Cn = (torch.rand(C, n, generator=rng) < 0.6) if ragged else None
    if used_Cn is not None:
        used_Cn[2] = False  # sees the past alone
    past_used_L = torch.tensor([True, False, True, True, False, True, True]) if ragged else None
    with torch.no_grad():
        got = attend_branches(
            q, k, v, used_Cn=used_Cn, past_k_LHD=past_k[0], past_v_LHD=past_v[0], past_used_L=past_used_L
        )
    keys = torch.cat([past_k.expand(C, -1, -1, -1), k], dim=1).transpose(1, 2)
    values = torch.cat([past_v.expand(C, -1, -1, -1), v], dim=1).transpose(1, 2)
    visible = None
    if used_Cn is not None and past_used_L is not None:
        visible = torch.cat([past_used_L.expand(C, -1), used_Cn], dim=1)[:, None, None]
    wanted = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, visible).transpose(1, 2)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("masked", [True, False])
def test_sums_of_other_devices_equal_the_kernel_of_the_cpu(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (tensor.transpose(1, 2).detach() for tensor in qkv(2, 11))
    hidden = torch.zeros(2, 1, 1, 11, dtype=torch.float64)
    hidden[0, ..., 4:9] = torch.finfo(torch.float64).min / 2
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    monkeypatch.setattr("autogaze.tasks.video_mae_reconstruction.block_causal._KEYS_AT_ONCE", 4)
    got, got_log = _with_log_sum_in_parts(q, k, v, hidden if masked else None)
    wanted, wanted_log = kernel(q, k, v, attn_mask=hidden if masked else None)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)  # scores are summed in float32
    torch.testing.assert_close(got_log.double(), wanted_log.double(), rtol=1e-5, atol=1e-6)
