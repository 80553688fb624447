"""What a sparse encoder has to know of a family of vision transformers.

Shape letters: N patches, F frames a patch lasts, p side of a patch, C channels, P class and register tokens, M packed
tokens, R × K rows and columns of a grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autogaze.vision_encoders.attending import Attend
from autogaze.vision_encoders.stream_keys import Past
from autogaze.vision_encoders.view import layers_with


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenPositions:
    """Where the packed tokens are, for models that turn queries and keys by position in every layer."""

    patch: tuple[Tensor, ...]
    """What :meth:`Tower.tables` says of each patch, (N, …) each."""
    patch_slot: Tensor
    """(N,) place of each patch in the packed row."""
    frame: Tensor
    """(N,) number of each patch's frame (or group of frames), counted from the start of its clip."""
    tokens: int
    """M."""


class Tower:
    """A Hugging Face vision model taken apart. Subclasses say what differs; this is a ViT with a class token.

    To support another model, subclass this and pass the subclass: ``sparsify(model, tower=MyTower)``.
    """

    attention: ClassVar[str] = "attention"
    """Name of the attention module in a layer."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model

    # What the model consists of

    @property
    def embeddings(self) -> Any:
        """Module of patch embedding and positions."""
        return self.model.embeddings

    @property
    def patch_embedding(self) -> Any:
        """Convolution (or linear layer) that embeds patches."""
        return self.embeddings.patch_embeddings.projection

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer's layers in order."""
        holder = self.model.encoder if hasattr(self.model, "encoder") else self.model  # newer ViTs have no encoder
        return cast("nn.ModuleList", holder.layers if hasattr(holder, "layers") else holder.layer)

    @property
    def patch_px(self) -> int:
        """Side of a patch."""
        size = self.model.config.patch_size
        return int(size if isinstance(size, int) else size[0])

    @property
    def frames_per_patch(self) -> int:
        """Frames that one patch lasts."""
        return 1

    @property
    def weight(self) -> Tensor:
        """Weight of the patch embedding: the model's device and precision."""
        return cast("Tensor", self.patch_embedding.weight)

    @property
    def prefix_tokens(self) -> int:
        """P, how many class and register tokens a frame or clip has."""
        return 1

    # Before the layers

    def embed(self, pixels_N3Fpp: Tensor) -> Tensor:
        """(N, C) embedded patches, without positions."""
        weight = self.weight
        embedded: Tensor = F.linear(
            pixels_N3Fpp.flatten(1).to(weight.dtype), weight.flatten(1), self.patch_embedding.bias
        )
        return embedded

    def tables(self, rows: int, columns: int, *, finest: tuple[int, int]) -> tuple[Tensor, ...]:
        """(R · K, …) each: what the model says of the position of every cell of a grid, row by row.

        Args:
            rows: of the grid.
            columns: of the grid.
            finest: rows and columns of the finest grid.
        """
        return (self.position_table(rows, columns)[self.prefix_tokens :],)

    def position_table(self, rows: int, columns: int) -> Tensor:
        """(P + R · K, C) learned positions brought to a grid, as the model itself does it."""
        cells = rows * columns + self.prefix_tokens
        like = self.weight.new_empty(0, cells, self.model.config.hidden_size)
        table: Tensor = self.embeddings.interpolate_pos_encoding(like, rows * self.patch_px, columns * self.patch_px)
        return table[0]

    def place(self, patches_NC: Tensor, position: tuple[Tensor, ...]) -> Tensor:
        """(N, C) embedded patches with their positions."""
        return patches_NC + position[0]

    def prefix(self) -> Tensor:
        """(P, C) class and register tokens, with their positions."""
        token: Tensor = self.embeddings.cls_token[0]
        placed: Tensor = token + self.embeddings.position_embeddings[0, :1]
        return placed

    def enter(self, x_MC: Tensor) -> Tensor:
        """(M, C) what the first layer gets."""
        return cast("Tensor", self.embeddings.dropout(x_MC))

    # The layers

    def run(self, x_MC: Tensor, attend: Attend, positions: TokenPositions, past: Past | None) -> Iterator[Tensor]:
        """(M, C) output of each layer in turn."""
        turns = self.turns(positions)
        x_1MC = x_MC[None]
        for layer in layers_with(self.layers, attention=self.attention, attend=attend, past=past):
            x_1MC = self.run_layer(layer, x_1MC, turns)
            yield x_1MC[0]

    def turns(self, positions: TokenPositions) -> tuple[Tensor, ...]:
        """What each layer needs to turn queries and keys by position; nothing for learned positions."""
        return ()

    def run_layer(self, layer: Any, x_1MC: Tensor, turns: tuple[Tensor, ...]) -> Tensor:
        """(1, M, C) output of one layer."""
        return cast("Tensor", layer(x_1MC, attention_mask=None))

    # After them

    def leave(self, x_MC: Tensor) -> Tensor:
        """(M, C) after the last norm."""
        return cast("Tensor", self.model.layernorm(x_MC))

    def pool(self, prefix_GPC: Tensor) -> Tensor | None:
        """(G, C) what the model makes of a frame or clip, from its class and register tokens after the last norm.

        None where the model has none, or has :meth:`pool_patches`.
        """
        return prefix_GPC[:, 0]

    def pool_patches(self, patches_1NC: Tensor) -> Tensor | None:
        """(1, C) what the model makes of the patches of a frame or clip; None where class tokens do that."""
        return None


def no_tokens(like: Tensor, channels: int) -> Tensor:
    """(0, C)."""
    return torch.empty(0, channels, dtype=like.dtype, device=like.device)
