"""The definition of decoding: everything is computed anew for every group, one clip at a time, without a cache."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autogaze.models.autogaze.configuration_autogaze import Positions
from autogaze.models.autogaze.modeling_autogaze import GazeDecoder, GazeModel


@torch.no_grad()
def naive_gaze(
    model: GazeModel,
    video_TCSS: Tensor,
    *,
    max_gazes: list[int],
    threshold: float | None = None,
    positions: Positions = "true",
) -> list[tuple[list[int], list[bool]]]:
    """Per frame the chosen patches and which of them were kept."""
    decoder, K = model.gaze_decoder, model.gaze_decoder.group_size
    frames, tokens, place, unfed = [], [], [], []
    for visual, most in zip(model.connector(model.vision_model(video_TCSS[None])[0])[0], max_gazes, strict=True):
        new = [*decoder.model.embed_tokens(torch.tensor(unfed, dtype=torch.long)), *visual]
        place += range(len(tokens), len(tokens) + len(new))
        tokens += new
        first_feed_end, chosen, kept, ended = len(tokens), [], [], False
        while not ended:
            visible = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
            hidden = decoder.model(torch.stack(tokens)[None], torch.tensor(place)[None], visible[None])[0, -1]
            logits, loss = decoder.read_out(hidden)
            logits[:, [-1, *chosen]] = -torch.inf
            unfed = []
            for i in range(K):
                if len(chosen) == min(most, decoder.vocab_size - 1):
                    ended = True
                    break
                chosen.append(int(logits[i].argmax()))
                logits[:, chosen[-1]] = -torch.inf
                keep = threshold is None or len(chosen) == 1 or float(loss[i]) > np.float32(threshold)
                kept.append(keep)
                unfed += [chosen[-1]] if keep else []
            ended = ended or len(chosen) == min(most, decoder.vocab_size - 1) or not all(kept)
            if not ended:
                start = first_feed_end - K if positions == "reference" else len(tokens)
                place += range(start, start + K)
                tokens += [*decoder.model.embed_tokens(torch.tensor(unfed))]
        frames.append((chosen, kept))
    return frames


@torch.no_grad()
def naive_lockstep(
    model: GazeModel, video_BTCSS: Tensor, *, most: int, threshold: float, positions: Positions
) -> list[list[tuple[list[int], list[bool]]]]:
    """The same for a batch whose rows wait for each other as in the published loop; per clip and frame.

    While any row goes on, every row's last group is read too, padding included. Padding is seen by its own group only.
    """
    decoder, K = model.gaze_decoder, model.gaze_decoder.group_size
    visual_BTPC = model.connector(model.vision_model(video_BTCSS)[0])
    rows = [_Row(decoder) for _ in video_BTCSS]
    for t in range(video_BTCSS.shape[1]):
        for row, visual_PC in zip(rows, visual_BTPC[:, t], strict=True):
            row.begin(visual_PC)
        while True:
            for row in rows:
                if not row.ended:
                    row.choose(most, threshold, K)
            if all(row.ended for row in rows):
                break
            for row in rows:
                if row.group:
                    row.read_group(positions, K)
    return [row.frames for row in rows]


class _Row:
    """One clip of :func:`naive_lockstep`: its tokens, their places, and the group each was read in."""

    def __init__(self, decoder: GazeDecoder) -> None:
        self.decoder = decoder
        self.tokens: list[Tensor] = []
        self.place: list[int] = []
        self.read_in: list[int] = []
        self.padded: list[bool] = []
        self.frames: list[tuple[list[int], list[bool]]] = []
        self.group: list[tuple[int, bool]] = []
        self.ended = False

    def kept(self) -> int:
        return len(self.tokens) - sum(self.padded)

    def add(self, tokens: list[Tensor], places: range, padded: list[bool]) -> None:
        self.read_in += [max(self.read_in, default=-1) + 1] * len(tokens)
        self.tokens += tokens
        self.place += places
        self.padded += padded

    def begin(self, visual_PC: Tensor) -> None:
        unfed = [index for index, keep in self.group if keep]
        new = [*self.decoder.model.embed_tokens(torch.tensor(unfed, dtype=torch.long)), *visual_PC]
        self.add(new, range(self.kept(), self.kept() + len(new)), [False] * len(new))
        self.first_feed_end, self.group, self.ended = self.kept(), [], False
        self.frames.append(([], []))

    def read_group(self, positions: Positions, K: int) -> None:
        start = self.first_feed_end - K if positions == "reference" else self.kept()
        tokens = [*self.decoder.model.embed_tokens(torch.tensor([index for index, _ in self.group]))]
        self.add(tokens, range(start, start + K), [not keep for _, keep in self.group])
        self.group = []

    def choose(self, most: int, threshold: float, K: int) -> None:
        order = torch.arange(len(self.tokens))
        group, hidden = torch.tensor(self.read_in), torch.tensor(self.padded)
        visible = (order[None] <= order[:, None]) & (~hidden[None] | (group[None] == group[:, None]))
        out = self.decoder.model(torch.stack(self.tokens)[None], torch.tensor(self.place)[None], visible[None])
        logits, loss = self.decoder.read_out(out[0, -1])
        chosen, kept = self.frames[-1]
        logits[:, [-1, *chosen]] = -torch.inf
        for i in range(min(K, most - len(chosen))):
            chosen.append(int(logits[i].argmax()))
            logits[:, chosen[-1]] = -torch.inf
            kept.append(len(chosen) == 1 or float(loss[i]) > np.float32(threshold))
        self.group = list(zip(chosen, kept, strict=True))[(len(chosen) - 1) // K * K :]
        self.ended = len(chosen) == most or not all(keep for _, keep in self.group)
