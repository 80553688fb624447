"""What the layers keep between the steps of a stream: keys and values of earlier tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

# Shape letters: M new tokens, L tokens so far, H heads, D channels of a head.


class LayerKeys:
    """Keys and values of one layer that earlier steps of a stream have left; grows at its end."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None
        self._length = 0

    def extend(self, k_MHD: Tensor, v_MHD: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens; all of them, (L, H, D) each."""
        start, self._length = self._length, self._length + len(k_MHD)
        if self._kept is None or self._length > len(self._kept[0]):
            room = 2 * self._length
            grown = tuple(new.new_empty(room, *new.shape[1:]) for new in (k_MHD, v_MHD))
            if self._kept is not None:
                for more, kept in zip(grown, self._kept, strict=True):
                    more[:start] = kept[:start]
            self._kept = (grown[0], grown[1])
        keys, values = self._kept
        keys[start : self._length], values[start : self._length] = k_MHD, v_MHD
        return keys[: self._length], values[: self._length]


@dataclass(slots=True)
class Past:
    """Earlier frames of one sequence."""

    layers: list[LayerKeys]
    """One for each layer."""
    tokens: int = field(default=0)
    """L, tokens so far."""

    @classmethod
    def empty(cls, layers: int) -> Past:
        """Before the first frame."""
        return cls([LayerKeys() for _ in range(layers)])
