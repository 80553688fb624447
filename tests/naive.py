"""The definition of decoding: everything is computed anew for every group, one clip at a time, without a cache."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autogaze.models.autogaze.configuration_autogaze import Positions
from autogaze.models.autogaze.modeling_autogaze import GazeModel


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
