"""Decoding a batch the way the published loop does: nobody's frame ends before everybody's does."""

from __future__ import annotations

import numpy as np

from autogaze.choosing import Group
from autogaze.engine import DecoderState, Engine


class LockstepEngine(Engine):
    """An engine whose rows influence each other as in the published loop.

    That loop feeds every row's group as long as one row of the batch goes on, and finds out which gazes are padding
    only when the frame has ended for all. So the last group of a row that ended early is read in the middle of the
    frame, padding included, at the positions such a group gets there. The published implementation gazes at the
    sub-tiles of a larger frame as one batch; to give its results, so do we. Nothing else uses this engine.
    """

    def _on_ended(self, state: DecoderState, rows: list[int], group: Group, anchor: list[int]) -> None:
        ended = [
            clip for clip in range(len(rows)) if group.ended_A[clip] and group.size_A[clip] == group.index_AK.shape[1]
        ]
        if not ended:
            return
        done = [rows[clip] for clip in ended]
        self._feed_groups(state, done, [group.index_AK[clip] for clip in ended], anchor)
        for clip, row in zip(ended, done, strict=True):
            kept = np.flatnonzero(group.kept_AK[clip])
            first = state.length[row] - group.index_AK.shape[1]
            for cache in (*state.keys, *state.values):
                # The padding was read but is not remembered.
                cache[row, :, first : first + len(kept)] = cache[row, :, first + kept]
            state.length[row] = first + len(kept)
            state.unfed[row] = np.empty(0, np.int64)
