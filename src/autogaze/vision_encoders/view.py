"""The layers of a Hugging Face model with another attention, without touching the model.

A view is made anew for every pass: shallow copies of the layers and their attention modules, which share weights,
buffers, hooks and submodules with the originals. The copies read a copied configuration that names our attention
function; the model itself, its configuration included, stays as it is and can be used at the same time.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from types import MethodType
from typing import Any

from torch import Tensor, nn

from autogaze.extras import require
from autogaze.vision_encoders.attending import Attend
from autogaze.vision_encoders.stream_keys import LayerKeys, Past

# Shape letters: M packed tokens, H heads, D channels of a head.

NAME = "autogaze_packed"


def layers_with(
    layers: nn.ModuleList, *, attention: str, attend: Attend, past: Past | None = None
) -> Iterator[nn.Module]:
    """The layers in order, each attending with ``attend``; each has to be run before the next is taken.

    Args:
        layers: of the model.
        attention: name of a layer's attention module, which has a ``config`` and picks its function by it.
        attend: what to attend with.
        past: what earlier steps of a stream have left; None: there are none.

    Raises:
        RuntimeError: a layer was called and did not attend so.
    """
    _register()
    configs: dict[int, Any] = {}
    for number, layer in enumerate(layers):
        layer = getattr(layer, "_orig_mod", layer)  # what torch.compile has compiled attends as it did then
        inner = getattr(layer, attention)
        config = configs.get(id(inner.config))
        if config is None:
            config = configs[id(inner.config)] = copy.copy(inner.config)
            config._attn_implementation = NAME
        inner = _shallow(inner)
        inner.config = config
        inner.attend_packed = told = _LayerAttention(attend, None if past is None else past.layers[number])
        shown = _shallow(layer)
        shown._modules = {**layer._modules, attention: inner}
        yield shown
        if not told.called:
            raise RuntimeError(
                f"layer {number} ({type(layer).__name__}) attends by a function of its own, so patches would see those "
                "of other clips; undo what replaced its forward"
            )


def _shallow(module: Any) -> Any:
    """A shallow copy. Methods that were set on the module alone, as accelerate does, are the copy's and not its."""
    copied = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, MethodType) and value.__self__ is module:
            copied.__dict__[name] = MethodType(value.__func__, copied)
        elif isinstance(value, functools.partial) and value.args and value.args[0] is module:
            copied.__dict__[name] = functools.partial(value.func, copied, *value.args[1:], **value.keywords)
    return copied


class _LayerAttention:
    """What one layer's attention function calls."""

    def __init__(self, attend: Attend, past: LayerKeys | None) -> None:
        self._attend, self._past = attend, past
        self.called = False

    def __call__(self, q_MHD: Tensor, k_MHD: Tensor, v_MHD: Tensor, *, scale: float, dropout: float) -> Tensor:
        self.called = True
        if self._past is not None:
            k_MHD, v_MHD = self._past.extend(k_MHD, v_MHD)
        return self._attend(q_MHD, k_MHD, v_MHD, scale=scale, dropout=dropout)


def _attention_function(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function as transformers calls them, on (1, H, M, D); the mask is the module's own affair here."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return module.attend_packed(q, k, v, scale=scale, dropout=dropout)[None], None


def _register() -> None:
    utils = require("transformers.modeling_utils", extra="hf")
    if NAME not in utils.ALL_ATTENTION_FUNCTIONS:
        utils.ALL_ATTENTION_FUNCTIONS.register(NAME, _attention_function)
