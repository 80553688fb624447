"""What gazing sets in torch for a while, and puts back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from autogaze.engine import Engine
from autogaze.models.autogaze.decoding import ClipDecoder, exact_convolutions
from autogaze.static.engine import StaticEngine
from autogaze.vision_encoders.attending import attend_with
from autogaze.vision_encoders.windows import ATTENTIONS, Windows
from small_models import clips, small_model


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether cuDNN could be asked, at every attention."""
    real, allowed = F.scaled_dot_product_attention, []

    def attend(*args, **kwargs):
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return real(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    return allowed


@pytest.mark.parametrize("static", [False, True])
def test_lengths_are_not_asked_of_a_library_that_compiles_each(static, asked):
    usual = torch.backends.cuda.cudnn_sdp_enabled()
    model, video = small_model(), clips(2)
    options = {"positions": "true"} | ({"visual_tokens": 16, "static": True} if static else {"together": True})
    decoder = ClipDecoder(model, engine=(StaticEngine if static else Engine)(model.gaze_decoder, **options))
    state = decoder.start(2, frames=video.shape[1], max_gazes=10)
    frames = decoder.step(state, video, max_gazes_T=[10] * video.shape[1])
    count = [5] * video.shape[1]
    index = torch.tensor([[i for frame in clip for i in frame.index_S[:5]] for clip in frames])
    model(video, index, torch.ones_like(index, dtype=torch.bool), count)
    assert asked and not any(asked)
    assert torch.backends.cuda.cudnn_sdp_enabled() == usual


def test_nor_are_lengths_of_windows(asked):
    windows = Windows.of([[3, 2], [4]], attention=ATTENTIONS[0])
    q, k, v = torch.randn(3, 9, 2, 8).unbind()
    attend_with(windows, backend="sdpa", device=q.device, dtype=q.dtype)(q, k, v, scale=1.0, dropout=0.0)
    assert asked and not any(asked)


@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_convolutions_of_fp32_are_exact_whatever_was_set_before(precision):
    """As ``torch.backends.cudnn.conv.fp32_precision`` is the only one that is set, the older switch cannot be read."""
    convolutions = torch.backends.cudnn.conv
    usual, convolutions.fp32_precision = convolutions.fp32_precision, precision
    with FakeTensorMode():
        on_cuda = torch.empty(1, device="cuda")
    try:
        for like, inside in ((on_cuda, "ieee"), (on_cuda.half(), precision), (torch.empty(1), precision)):
            with exact_convolutions(like):
                assert convolutions.fp32_precision == inside
            assert convolutions.fp32_precision == precision
    finally:
        convolutions.fp32_precision = usual
