"""What a machine could do at best: the multiplications of a clip, and how fast they can be done."""

from __future__ import annotations

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from autogaze.engine import Engine
from autogaze.models.autogaze import AutoGaze
from autogaze.models.autogaze.decoding import ClipDecoder

_SIDE = {"cpu": 2048, "cuda": 8192}


def synchronize(device: torch.device) -> None:
    """Wait for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def device_name(device: torch.device) -> str:
    """The accelerator's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def clip_flops(model: AutoGaze, gazes_T: list[int]) -> float:
    """Floating-point operations in the matrix products, convolutions and attention of one clip, as torch counts them.

    Of the decoder that computes nothing twice and nothing that is not read; attention to what is masked counts.
    """
    engine = Engine(model.gazing_model.gaze_decoder, positions=model.config.positions)
    decoder = ClipDecoder(model.gazing_model, engine=engine)
    side_px = model.input_px
    clip = torch.zeros(1, len(gazes_T), 3, side_px, side_px, device=model.device, dtype=model.dtype)
    state = decoder.start(1, frames=len(gazes_T), max_gazes=max(gazes_T))
    in_place = {torch.ops.aten.baddbmm_: _baddbmm_flops}  # torch counts the other form only
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        decoder.step(state, clip, max_gazes_T=gazes_T)
    return float(counter.get_total_flops())


def _baddbmm_flops(sum_BMN: list[int], a_BMD: list[int], b_BDN: list[int], **_: object) -> int:
    B, M, D = a_BMD
    return 2 * B * M * D * b_BDN[2]


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype, *, repeats: int = 9) -> float:
    """The best rate of the product of two large square matrices."""
    side = _SIDE.get(device.type, 2048)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times[1:])
