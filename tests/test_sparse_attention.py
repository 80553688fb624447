"""Back ends of attention: each gives what a dense mask gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import sparse_samples as samples
from autogaze.grid import PatchGrid
from autogaze.vision_encoders import encoding, sparsify
from autogaze.vision_encoders.attending import FLEX_BLOCK, Backend, _block_mask, attend_with
from autogaze.vision_encoders.windows import ATTENTIONS, Attention, Windows
from sparse_samples import Largest

# Shape letters: M tokens, L keys, H heads, D channels of a head.

CPU = torch.device("cpu")
H, D = 2, 8
RAGGED = {
    "one frame": [[5]],
    "equal frames": [[4, 4, 4], [4, 4, 4]],
    "empty frames and clips": [[0, 3, 0], [], [0], [1, 2]],
    "more than two blocks": [[100, 57, 1, 0, 130], [3], [128, 128]],
    "whole blocks": [[128, 256], [384]],
}

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def numbers(windows: Windows, past: int = 0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(M, H, D) queries, (L, H, D) keys and values."""
    rng = torch.Generator().manual_seed(seed)
    M, L = windows.num_tokens, past + windows.num_tokens
    q, k, v = (torch.randn(count, H, D, generator=rng) for count in (M, L, L))
    return 3 * q, k, v


def seen(windows: Windows, keys: int) -> NDArray[np.bool_]:
    """(M, L)."""
    key = np.arange(keys)
    matrix: NDArray[np.bool_] = (key >= windows.first_M[:, None]) & (key < windows.end_M[:, None])
    return matrix


def masked(windows: Windows, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """(M, H, D) by a mask of all against all."""
    hidden = torch.from_numpy(~seen(windows, len(k)))
    scores = torch.einsum("mhd,lhd->hml", q, k) * scale
    return torch.einsum("hml,lhd->mhd", scores.masked_fill(hidden, -math.inf).softmax(-1), v)


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("sequences", RAGGED.values(), ids=RAGGED)
def test_back_ends_are_a_dense_mask(sequences: list[list[int]], attention: Attention, backend: Backend) -> None:
    windows = Windows.of(sequences, attention=attention)
    q, k, v = numbers(windows)
    out = attend_with(windows, backend=backend, device=CPU, dtype=q.dtype)(q, k, v, scale=0.4, dropout=0.0)
    torch.testing.assert_close(out, masked(windows, q, k, v, 0.4), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
@pytest.mark.parametrize("attention", ["frame", "block_causal", "causal"])
@pytest.mark.parametrize(("frames", "past"), [([1], 1), ([3, 0, 4], 6), ([100, 60], 150), ([128], 256)])
def test_back_ends_see_the_past(frames: list[int], past: int, attention: Attention, backend: Backend) -> None:
    windows = Windows.of([frames], attention=attention, past=past)
    q, k, v = numbers(windows, past)
    out = attend_with(windows, backend=backend, device=CPU, dtype=q.dtype)(q, k, v, scale=0.4, dropout=0.0)
    torch.testing.assert_close(out, masked(windows, q, k, v, 0.4), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_gradients_are_those_of_a_dense_mask(attention: Attention) -> None:
    windows = Windows.of([[3, 0, 4, 4], [2], [3, 4]], attention=attention)
    inputs = [part.requires_grad_() for part in numbers(windows)]
    towards = torch.randn(windows.num_tokens, H, D, generator=torch.Generator().manual_seed(1))
    attend = attend_with(windows, backend="sdpa", device=CPU, dtype=torch.float32)
    own = torch.autograd.grad((attend(*inputs, scale=0.4, dropout=0.0) * towards).sum(), inputs)
    theirs = torch.autograd.grad((masked(windows, *inputs, 0.4) * towards).sum(), inputs)
    torch.testing.assert_close(own, theirs, atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sequences=st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=3), min_size=1, max_size=3),
    attention=st.sampled_from(ATTENTIONS),
    past=st.integers(0, 300),
)
def test_blocks_say_what_the_windows_say(sequences: list[list[int]], attention: Attention, past: int) -> None:
    past = 0 if attention == "bidirectional" or len(sequences) > 1 else past
    windows = Windows.of(sequences, attention=attention, past=past)
    if not windows.num_tokens:
        return
    expected = seen(windows, windows.num_keys)
    mask = _block_mask(windows, CPU)
    rows, columns = -(-windows.num_tokens // FLEX_BLOCK), -(-windows.num_keys // FLEX_BLOCK)
    padded = np.zeros((rows * FLEX_BLOCK, columns * FLEX_BLOCK), bool)
    padded[: len(expected), : expected.shape[1]] = expected
    for row in range(rows):
        partial = set(mask.kv_indices[0, 0, row, : mask.kv_num_blocks[0, 0, row]].tolist())
        full = set(mask.full_kv_indices[0, 0, row, : mask.full_kv_num_blocks[0, 0, row]].tolist())
        assert not partial & full
        queries = slice(row * FLEX_BLOCK, min(len(expected), (row + 1) * FLEX_BLOCK))  # those past the end: no matter
        for column in range(columns):
            block = padded[queries, column * FLEX_BLOCK : (column + 1) * FLEX_BLOCK]
            assert column not in full or block.all()  # not masked at all
            assert column in full | partial or not block.any()  # not computed at all
            assert column in full or not block.all() or column in partial
    query, key = torch.arange(windows.num_tokens)[:, None], torch.arange(windows.num_keys)[None]
    assert np.array_equal(mask.mask_mod(query, query, query, key).numpy(), expected)


def test_blocks_that_all_see_are_not_masked() -> None:
    mask = _block_mask(Windows.of([[256, 256, 10]], attention="block_causal"), CPU)
    assert mask.full_kv_num_blocks[0, 0].tolist() == [2, 2, 4, 4, 4]
    assert mask.kv_num_blocks[0, 0].tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_no_matrix_of_tokens_against_tokens_is_made(attention: Attention) -> None:
    windows = Windows.of([[300, 200, 300, 400]], attention=attention)
    q, k, v = numbers(windows)
    with Largest() as largest:
        attend = attend_with(windows, backend="sdpa", device=CPU, dtype=q.dtype)
        attend(q, k, v, scale=0.4, dropout=0.0)
    assert 0 < largest.most <= 2 * q.nbytes < windows.num_tokens**2 / 4
    with Largest() as largest:
        _block_mask(windows, CPU)
    assert largest.most < windows.num_tokens**2 / 64


def test_no_tokens_give_nothing() -> None:
    windows = Windows.of([[0], []], attention="frame")
    q, k, v = numbers(windows)
    assert attend_with(windows, backend="sdpa", device=CPU, dtype=q.dtype)(q, k, v, scale=1, dropout=0).shape == (
        0,
        H,
        D,
    )


def test_what_suits_a_cpu() -> None:
    windows = Windows.of([[3]], attention="frame")
    attend = attend_with(windows, backend=None, device=CPU, dtype=torch.float32)
    assert type(attend) is type(attend_with(windows, backend="sdpa", device=CPU, dtype=torch.float32))


def test_dropout_drops_and_needs_the_back_end_that_has_it() -> None:
    windows = Windows.of([[40]], attention="frame")
    q, k, v = numbers(windows)
    attend = attend_with(windows, backend="sdpa", device=CPU, dtype=q.dtype)
    assert not torch.equal(attend(q, k, v, scale=1, dropout=0.5), attend(q, k, v, scale=1, dropout=0.5))
    flex = attend_with(windows, backend="flex", device=CPU, dtype=q.dtype)
    with pytest.raises(ValueError, match='attention dropout needs the back end "sdpa"'):
        flex(q, k, v, scale=1, dropout=0.5)


def test_varlen_says_why_it_cannot() -> None:
    windows = Windows.of([[3, 2]], attention="frame")
    with pytest.raises(ValueError, match='"varlen" runs on CUDA alone, not on cpu; use "sdpa" or "flex"'):
        attend_with(windows, backend="varlen", device=CPU, dtype=torch.bfloat16)
    cuda = torch.device("cuda")
    with pytest.raises(ValueError, match=r"needs half precision, not torch\.float32"):
        attend_with(windows, backend="varlen", device=cuda, dtype=torch.float32)
    earlier = Windows.of([[3, 2]], attention="block_causal")
    with pytest.raises(ValueError, match="share no keys, not frames that see earlier ones"):
        attend_with(earlier, backend="varlen", device=cuda, dtype=torch.bfloat16)


def test_unknown_back_ends_are_refused() -> None:
    with pytest.raises(ValueError, match="backend must be one of sdpa, varlen, flex or None, got 'eager'"):
        attend_with(Windows.of([[3]], attention="frame"), backend="eager", device=CPU, dtype=torch.float32)  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["varlen", "flex", "sdpa"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("sequences", RAGGED.values(), ids=RAGGED)
def test_back_ends_on_cuda(sequences: list[list[int]], attention: Attention, backend: Backend) -> None:
    windows = Windows.of(sequences, attention=attention)
    if backend == "varlen" and attention == "block_causal":
        pytest.skip("frames share keys")
    q, k, v = (part.repeat(1, 1, 2).to("cuda", torch.bfloat16) for part in numbers(windows))
    attend = attend_with(windows, backend=backend, device=q.device, dtype=q.dtype)
    expected = masked(windows, *(part.float().cpu() for part in (q, k, v)), 0.2)
    torch.testing.assert_close(attend(q, k, v, scale=0.2, dropout=0.0).float().cpu(), expected, atol=2e-2, rtol=2e-2)


def test_the_back_end_is_picked_for_the_precision_that_autocast_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.dtype] = []
    real = encoding.attend_with

    def spied(*args: Any, dtype: torch.dtype, **options: Any) -> Any:
        asked.append(dtype)
        return real(*args, dtype=dtype, **options)

    monkeypatch.setattr(encoding, "attend_with", spied)
    encoder = sparsify(samples.make("ViTModel"))
    grid = PatchGrid(scales_px=(samples.SIDE_PX,), patch_px=samples.PATCH_PX)
    video, gaze = samples.video(clips=1), samples.everything(grid, frames=4)
    with torch.no_grad():
        encoder(video, gaze)
        with torch.autocast("cpu", torch.bfloat16):
            encoder(video, gaze)
    assert asked == [torch.float32, torch.bfloat16]
