"""A clip that goes through the masked autoencoder frame by frame: what is past is kept and never computed again.

Shape letters: B rows, P cells of a frame over all scales, C candidates, k gazes of a candidate, n tokens, L tokens of
the past, H heads, D channels of a head, S pixels a side of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autogaze.attention import any_length
from autogaze.tasks.video_mae_reconstruction.block_causal import Attend, FrameTokens, attend_branches
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE, VideoMAEOutput


class VideoMAESession:
    """Clips of B rows on their way through a :class:`VideoMAE`, frame by frame, without gradients.

    A frame is committed either by :meth:`add_frame`, and then later frames see its gazed cells alone, or by
    :meth:`rebuild`, and then they see all its decoded cells, as if it were in ``frame_idx_to_reconstruct``. Whatever
    was committed how, a frame comes out as from the whole clip so far. The weights must not change meanwhile.

    Raises:
        ValueError: the model is not causal, or ``batch`` is below 1.
    """

    def __init__(self, model: VideoMAE, *, batch: int = 1) -> None:
        if not model.config.causal:
            raise ValueError("only a causal VideoMAE can go frame by frame; this one's frames see later ones")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.model, self.batch = model, batch
        self.num_frames = 0
        """Frames committed so far."""
        self._encoder = _Past(model.config.num_hidden_layers)
        self._decoder = _Past(model.config.decoder_num_hidden_layers)
        with torch.no_grad():
            x_B1C = model.vit(model.vit.embeddings.class_token(batch), self._encoder.append(1, None))
            model.decoder(model.decoder.class_token(x_B1C), self._decoder.append(1, None))
        self._advance(1, 1, frames=0)

    @torch.no_grad()
    def add_frame(self, pixel_values: Tensor, index: Tensor | Sequence[Any]) -> None:
        """Commit the gazes of the next frame.

        Args:
            pixel_values: (B, 3, S, S) normalised.
            index: gazed cells of each row: (B, k) int64 in which negative numbers are padding, or B sequences.

        Raises:
            ValueError: a shape differs, a cell is out of range, or the clip has no room for another frame.
        """
        seen = FrameTokens.from_mask(self._mask(index, rows=self.batch)[:, None])
        self._commit(pixel_values, seen=seen, decoded=seen)

    @torch.no_grad()
    def rebuild(self, pixel_values: Tensor, index: Tensor | Sequence[Any]) -> VideoMAEOutput:
        """Commit the next frame and rebuild it; F is 1. Arguments and errors are those of :meth:`add_frame`."""
        mask_BP = self._mask(index, rows=self.batch)
        seen, decoded = FrameTokens.from_mask(mask_BP[:, None]), self._all_cells(self.batch)
        number = self.num_frames
        y_BPC = self._commit(pixel_values, seen=seen, decoded=decoded)
        reconstruction = self.model.decoder.pixels(y_BPC[:, None])
        return self.model.judged(reconstruction, target=pixel_values[:, None], frames=[number])

    @torch.no_grad()
    def losses(self, pixel_values: Tensor, candidates: Tensor, *, candidate_batch: int = 32) -> Tensor:
        """What the next frame's loss would be under each of many sets of gazes; nothing is committed.

        Equal to the loss of the last frame of the clip so far when that frame is rebuilt.

        Args:
            pixel_values: (B, 3, S, S) normalised next frame.
            candidates: (B, C, k) int64 cells of each set, negative numbers being padding; or (C, k) if B is 1.
            candidate_batch: sets that are tried at once, which bounds the memory.

        Returns:
            (B, C) losses, or (C,) of (C, k) candidates.

        Raises:
            ValueError: a shape differs, a cell is out of range, or the clip has no room for another frame.
        """
        rows = candidates if candidates.ndim == 3 else candidates[None]
        losses = [
            torch.cat(
                [
                    self.model.loss(frames, pixel_values[b, None, None].expand_as(frames))[:, 0]
                    for frames in self._try(pixel_values, rows, row=b, candidate_batch=candidate_batch)
                ]
            )
            for b in range(self.batch)
        ]
        return torch.stack(losses) if candidates.ndim == 3 else losses[0]

    @torch.no_grad()
    def reconstructions(self, pixel_values: Tensor, candidates: Tensor, *, candidate_batch: int = 32) -> Tensor:
        """The next frame as each set of gazes would rebuild it: (B, C, 3, S, S), or (C, 3, S, S) of (C, k) candidates.

        Arguments and errors are those of :meth:`losses`.
        """
        rows = candidates if candidates.ndim == 3 else candidates[None]
        frames = [
            torch.cat(list(self._try(pixel_values, rows, row=b, candidate_batch=candidate_batch)))[:, 0]
            for b in range(self.batch)
        ]
        return torch.stack(frames) if candidates.ndim == 3 else frames[0]

    def _try(self, pixel_values: Tensor, candidates_BCk: Tensor, *, row: int, candidate_batch: int) -> Iterator[Tensor]:
        """(c, 1, 3, S, S) of one batch of candidates after the other."""
        self._check(pixel_values)
        if candidates_BCk.ndim != 3 or len(candidates_BCk) != self.batch or not candidates_BCk.shape[1]:
            raise ValueError(
                f"candidates must be ({self.batch}, C, k) with at least one candidate, or (C, k) for one row, "
                f"got {tuple(candidates_BCk.shape)}"
            )
        if candidate_batch < 1:
            raise ValueError(f"candidate_batch must be at least 1, got {candidate_batch}")
        model, t = self.model, self.num_frames
        cells_PC = model.vit.embeddings(pixel_values[row, None, None], self._all_cells(1), first_frame=t)[0]
        for index_Ck in torch.split(candidates_BCk[row], candidate_batch):
            seen = FrameTokens.from_mask(self._mask(index_Ck, rows=len(index_Ck))[:, None])
            x_CnC = model.vit(cells_PC[seen.cell_BN], self._encoder.branches(row, seen.used_BN))
            decoded = self._all_cells(len(index_Ck))
            y_CPC = model.decoder.tokens(x_CnC, seen=seen, decoded=decoded, first_frame=t)
            y_CPC = model.decoder(y_CPC, self._decoder.branches(row, None))
            yield model.decoder.pixels(y_CPC[:, None])

    def _commit(self, pixel_values: Tensor, *, seen: FrameTokens, decoded: FrameTokens) -> Tensor:
        """(B, M, C) decoded tokens of the frame."""
        self._check(pixel_values)
        model, t = self.model, self.num_frames
        x_BNC = model.vit.embeddings(pixel_values[:, None], seen, first_frame=t)
        x_BNC = model.vit(x_BNC, self._encoder.append(seen.num_slots, seen.used_BN))
        x_BMC = model.decoder.tokens(x_BNC, seen=seen, decoded=decoded, first_frame=t)
        y_BMC: Tensor = model.decoder(x_BMC, self._decoder.append(decoded.num_slots, decoded.used_BN))
        self._advance(seen.num_slots, decoded.num_slots, frames=1)
        return y_BMC

    def _advance(self, encoder: int, decoder: int, *, frames: int) -> None:
        # Only now: a frame that failed half-way leaves the session as it was.
        self._encoder.length += encoder
        self._decoder.length += decoder
        self.num_frames += frames

    def _check(self, pixel_values: Tensor) -> None:
        S = self.model.grid.scales_px[-1]
        if pixel_values.shape != (self.batch, 3, S, S) or not pixel_values.is_floating_point():
            got = f"{tuple(pixel_values.shape)} {pixel_values.dtype}"
            raise ValueError(f"pixel_values must be ({self.batch}, 3, {S}, {S}) normalised floats, got {got}")
        self.model.check_num_frames(self.num_frames + 1)

    def _all_cells(self, rows: int) -> FrameTokens:
        every = torch.ones(rows, 1, self.model.grid.num_patches, dtype=torch.bool, device=self.model.device)
        return FrameTokens.from_mask(every)

    def _mask(self, index: Tensor | Sequence[Any], *, rows: int) -> Tensor:
        """(rows, P) bool."""
        if not isinstance(index, Tensor):
            parts = [torch.as_tensor(part, dtype=torch.int64) for part in index]
            padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=-1) if parts else None
            index = torch.empty(0, 0, dtype=torch.int64) if padded is None else padded
        if index.ndim != 2 or len(index) != rows or index.dtype != torch.int64:
            got = f"{tuple(index.shape)} {index.dtype}"
            raise ValueError(f"there must be the cells of each of {rows} rows, (rows, k) int64, got {got}")
        P, places = self.model.grid.num_patches, index.to(self.model.device)
        if (places >= P).any():
            raise ValueError(f"cells must be in 0..{P - 1}, or negative for padding, got {int(places.max())}")
        mask_rP = torch.zeros(rows, P + 1, dtype=torch.bool, device=places.device)
        return mask_rP.scatter_(1, places.masked_fill(places < 0, P), True)[:, :-1]


class _Past:
    """Keys and values that a stack of layers has seen, in buffers that double when they are full."""

    def __init__(self, num_layers: int) -> None:
        self.length = 0
        """L; more may be written behind, which :meth:`append` overwrites."""
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * num_layers
        self._used_BL: Tensor | None = None

    def append(self, count: int, used_Bn: Tensor | None) -> list[Attend]:
        """Attention of each layer that writes ``count`` tokens behind the past and sees both.

        The caller adds ``count`` to :attr:`length` once all layers are done.
        """
        if used_Bn is not None or self._used_BL is not None:
            self._used_BL = self._joined(count, used_Bn)
        return [partial(self._append, layer) for layer in range(len(self._layers))]

    def branches(self, row: int, used_Cn: Tensor | None) -> list[Attend]:
        """Attention of each layer in which every candidate sees itself and the past of one row; nothing is written."""
        past_used_L = None if self._used_BL is None else self._used_BL[row, : self.length]
        return [partial(self._branch, layer, row, used_Cn, past_used_L) for layer in range(len(self._layers))]

    def _joined(self, count: int, used_Bn: Tensor | None) -> Tensor:
        """(B, L + count) which keys are no padding."""
        one = used_Bn if used_Bn is not None else self._used_BL
        assert one is not None
        past_BL = one.new_ones(len(one), self.length) if self._used_BL is None else self._used_BL[:, : self.length]
        return torch.cat([past_BL, one.new_ones(len(one), count) if used_Bn is None else used_Bn], dim=1)

    def _append(self, layer: int, q_BnHD: Tensor, k_BnHD: Tensor, v_BnHD: Tensor) -> Tensor:
        end = self.length + k_BnHD.shape[1]
        k_BLHD, v_BLHD = self._room(layer, like=k_BnHD, tokens=end)
        k_BLHD[:, self.length : end], v_BLHD[:, self.length : end] = k_BnHD, v_BnHD
        if not k_BnHD.shape[1]:
            return q_BnHD
        with any_length():
            out_BHnD = F.scaled_dot_product_attention(
                q_BnHD.transpose(1, 2),
                k_BLHD[:, :end].transpose(1, 2),
                v_BLHD[:, :end].transpose(1, 2),
                None if self._used_BL is None else self._used_BL[:, None, None],
            )
        return out_BHnD.transpose(1, 2)

    def _branch(
        self,
        layer: int,
        row: int,
        used_Cn: Tensor | None,
        past_used_L: Tensor | None,
        q_CnHD: Tensor,
        k_CnHD: Tensor,
        v_CnHD: Tensor,
    ) -> Tensor:
        if not q_CnHD.shape[1]:
            return q_CnHD
        buffers = self._layers[layer]
        assert buffers is not None, "the class token is committed first"
        return attend_branches(
            q_CnHD,
            k_CnHD,
            v_CnHD,
            used_Cn=used_Cn,
            past_k_LHD=buffers[0][row, : self.length],
            past_v_LHD=buffers[1][row, : self.length],
            past_used_L=past_used_L,
        )

    def _room(self, layer: int, *, like: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer with room for so many tokens; (B, at least ``tokens``, H, D) each."""
        buffers = self._layers[layer]
        if buffers is None or buffers[0].shape[1] < tokens:
            B, _, H, D = like.shape
            k, v = (like.new_empty(B, 2 * tokens, H, D) for _ in range(2))
            if buffers is not None:
                k[:, : self.length], v[:, : self.length] = (old[:, : self.length] for old in buffers)
            buffers = self._layers[layer] = (k, v)
        return buffers
