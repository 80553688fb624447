"""The published call: a dict of tensors in, a dict of tensors out, with the published names and slots.

Shape letters: B clips, T frames, N slots of all frames, S side of the frames the encoder reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from autogaze.choosing import FrameGaze, Sampler
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze.budgets import draw_budget
from autogaze.models.autogaze.configuration_autogaze import AutoGazeConfig
from autogaze.models.autogaze.decoding import ClipDecoder, ClipState, fit, to_gaze
from autogaze.models.autogaze.lockstep import LockstepEngine
from autogaze.models.autogaze.modeling_autogaze import GazeModel
from autogaze.packing import PaddedGaze, pack
from autogaze.retarget import retarget
from autogaze.selectors.base import Budget
from autogaze.tiling import merge, tile_layout


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What one call hands to the next under ``past_key_values``: opaque to callers.

    Going on twice from the same value is allowed: the second time copies the cache.
    """

    state: ClipState
    live: ClipState
    """The state that moves on; at the same frame as ``state`` unless somebody already went on from here."""

    def resume(self) -> ClipState:
        """A state to go on from."""
        return self.live if self.live.frames == self.state.frames else self.state.fork()


def pack_slots(clips: Sequence[Sequence[FrameGaze]], *, patches: int, device: torch.device) -> PaddedGaze:
    """The slots of a batch as they were decoded, each frame padded to the batch's longest.

    Unlike :func:`autogaze.packing.pack` this keeps a group's padding where the stop rule put it: scoring needs to
    know which head proposed a gaze.
    """
    count = [max(len(clip[t].index_S) for clip in clips) for t in range(len(clips[0]))]
    # Padding points at its frame's first patch: a consumer that gathers with it reads legal memory.
    position = np.tile(np.repeat(np.arange(len(count)) * patches, count), (len(clips), 1))
    padded = np.ones_like(position, bool)
    for b, clip in enumerate(clips):
        for first, frame in zip(np.cumsum([0, *count[:-1]]), clip, strict=True):
            here = slice(first, first + len(frame.index_S))
            position[b, here] += np.where(frame.kept_S, frame.index_S, 0)
            padded[b, here] = ~frame.kept_S
    return PaddedGaze(
        gazing_pos=torch.from_numpy(position).to(device),
        if_padded_gazing=torch.from_numpy(padded).to(device),
        num_gazing_each_frame=torch.tensor(count, device=device),
        num_vision_tokens_each_frame=patches,
    )


class PublishedCall:
    """``model(inputs, …)`` as the published implementation takes and answers it, at a batch size of one.

    Where that implementation lets a clip's result depend on the rest of its batch, this one does not.
    """

    def __init__(self, config: AutoGazeConfig, model: GazeModel, decoder: ClipDecoder, *, training: bool) -> None:
        self.config, self.model, self.decoder = config, model, decoder
        self.training = training  # draws gazes in training, takes the likeliest otherwise

    def __call__(
        self,
        inputs: Mapping[str, Tensor],
        *,
        target_scales: Sequence[int] | None = None,
        target_patch_size: int | None = None,
        gazing_info: Mapping[str, Any] | None = None,
        temperature: float = 1.0,
        gazing_ratio: float | Sequence[float] | None = None,
        task_loss_requirement: float | Tensor | None = None,
        generate_only: bool = False,
        use_cache: bool = False,
        past_key_values: Past | None = None,
    ) -> dict[str, Any]:
        """Gaze, or score given gazes.

        Args:
            inputs: ``{"video": (B, T, 3, H, W)}`` normalised frames; other sizes than S × S are resized bicubically.
            target_scales: scales of another vision transformer; the frames must be square, as large as its finest.
            target_patch_size: its patch size.
            gazing_info: gazes to score instead of generating, under the published names.
            temperature: of the draws, in training mode.
            gazing_ratio: most gazes a frame may get as a share of its patches; or one for each frame.
            task_loss_requirement: predicted loss at which a frame ends, as published: a calibration plays no part.
            generate_only: leave out the second pass that scores the gazes.
            use_cache: hand out what the next call needs to go on with the next frames.
            past_key_values: what the call before handed out. The three other ``past_`` values of the published
                signature hold nothing here.

        Raises:
            ValueError: the video, the target scales or the ratios do not fit, or gazes to score or a past are given
                together with target scales.
            BudgetError: a ratio or threshold is not legal.
        """
        video = inputs["video"]
        if video.ndim != 5 or video.shape[2] != 3 or 0 in video.shape or not video.is_floating_point():
            raise ValueError(
                f'inputs["video"] must be (B, T, 3, H, W) of normalised floats, none of them 0, '
                f"got {tuple(video.shape)} {video.dtype}"
            )
        video = video.to(self.model.connector.pos_embed)
        budget = self._budget(gazing_ratio, task_loss_requirement, frames=video.shape[1])
        if target_scales is not None or target_patch_size is not None:
            grid = PatchGrid(
                scales_px=tuple(target_scales or self.config.scales_px),
                patch_px=target_patch_size or self.config.grid.patch_px,
            )
            if grid != self.config.grid:
                if gazing_info is not None or past_key_values is not None:
                    raise ValueError(
                        "gazing_info and past_key_values are of the model's own grid, not of target_scales"
                    )
                slots = self._gaze_for(grid, video, budget, temperature)
                return self._result(slots, grid, budget, past=None, scored=(None, None))
        video, patches = fit(video, self.model.config.input_img_size), self.config.grid.num_patches
        past: Past | None = None
        scored: tuple[Tensor | None, Tensor | None] = (None, None)
        if gazing_info is not None:
            slots = PaddedGaze(
                gazing_pos=gazing_info["gazing_pos"],
                if_padded_gazing=gazing_info["if_padded_gazing"],
                num_gazing_each_frame=gazing_info["num_gazing_each_frame"],
                num_vision_tokens_each_frame=patches,
            )
        else:
            state = past_key_values.resume() if past_key_values is not None else None
            frames, state = self._generate(video, budget, temperature, state)
            slots = pack_slots(frames, patches=patches, device=video.device)
            past = Past(state.snapshot(), state) if use_cache else None
        if not generate_only and past_key_values is None:
            counts = slots.num_gazing_each_frame.tolist()
            frame = torch.repeat_interleave(slots.num_gazing_each_frame).to(video.device)
            local = slots.gazing_pos.to(video.device) - frame * patches
            scored = self.model(video, local, ~slots.if_padded_gazing.to(video.device), counts)
        return self._result(slots, self.config.grid, budget, past=past, scored=scored)

    def _budget(
        self, ratio: float | Sequence[float] | None, threshold: float | Tensor | None, *, frames: int
    ) -> Budget:
        if isinstance(threshold, Tensor):
            if threshold.numel() != 1 and not bool((threshold == threshold.flatten()[0]).all()):
                raise ValueError("task_loss_requirement must be one number for all clips and frames")
            threshold = float(threshold.flatten()[0])
        if ratio is None and threshold is None:
            return draw_budget(self.config, frames=frames, when="training" if self.training else "inference")
        budget = Budget(ratio=1.0 if ratio is None else ratio, threshold=threshold)
        if len(budget.ratios()) > 1 and len(budget.ratios()) != frames:
            raise ValueError(
                f"gazing_ratio must be a number or one for each of {frames} frames, got {len(budget.ratios())}"
            )
        return budget

    def _generate(
        self, video: Tensor, budget: Budget, temperature: float, state: ClipState | None
    ) -> tuple[list[list[FrameGaze]], ClipState]:
        B, T = video.shape[:2]
        # The ratios of a call are those of its own frames, also when it goes on from a past.
        limits = [budget.max_patches(self.config.grid.num_patches, t) for t in range(T)]
        if state is None:
            frames = T if T > 1 else self.config.max_num_frames  # a single frame is the first of a stream
            state = self.decoder.start(B, frames=frames, max_gazes=max(limits))
        elif len(state.decoder.length) != B:
            raise ValueError(f"the past is of {len(state.decoder.length)} clips, the video of {B}")
        sampler = self._sampler(B, temperature)
        slots = self.decoder.step(state, video, max_gazes_T=limits, threshold=budget.threshold, sampler=sampler)
        return slots, state

    def _sampler(self, clips: int, temperature: float) -> Sampler | None:
        if not self.training:
            return None
        return Sampler.from_generator(torch.default_generator, clips=clips, temperature=temperature)

    def _gaze_in_lockstep(self, tiles: Tensor, budget: Budget, temperature: float) -> list[list[FrameGaze]]:
        decoder = ClipDecoder(
            self.model, engine=LockstepEngine(self.model.gaze_decoder, positions=self.config.positions)
        )
        limits = [budget.max_patches(self.config.grid.num_patches, t) for t in range(tiles.shape[1])]
        state = decoder.start(len(tiles), frames=len(limits), max_gazes=max(limits))
        sampler = self._sampler(len(tiles), temperature)
        return decoder.step(state, tiles, max_gazes_T=limits, threshold=budget.threshold, sampler=sampler)

    def _gaze_for(self, grid: PatchGrid, video: Tensor, budget: Budget, temperature: float) -> PaddedGaze:
        """Gazes for another transformer's grid: sub-tiles of its frame are gazed at one by one and put together."""
        native = self.config.grid
        if grid.num_scales != native.num_scales:
            raise ValueError(f"target_scales must name {native.num_scales} scales, got {grid.scales_px}")
        B, (height, width) = len(video), video.shape[-2:]
        if height != width or height != grid.scales_px[-1]:
            raise ValueError(
                f"with target_scales the video must be {grid.scales_px[-1]} × {grid.scales_px[-1]} px, "
                f"got {height} × {width}"
            )
        side, native_side = grid.sides[-1], native.sides[-1]
        tiles = -(-side // native_side)
        tile_px = native_side * grid.patch_px
        spare = tiles * tile_px - height
        cut = F.pad(video, (0, spare, 0, spare)).reshape(*video.shape[:3], tiles, tile_px, tiles, tile_px)
        cut = cut.permute(0, 3, 5, 1, 2, 4, 6).flatten(1, 2)  # (B, tiles · tiles, T, 3, tile, tile)
        sub_tiles = fit(cut, self.model.config.input_img_size)
        frames = [tile for clip in sub_tiles for tile in self._gaze_in_lockstep(clip, budget, temperature)]
        side_px = min(height, tiles * tile_px)
        layout = FrameLayout(
            grid=native,
            height_px=side_px,
            width_px=side_px,
            tile_height_px=tile_px,
            tile_width_px=tile_px,
            tile_rows=tiles,
            tile_columns=tiles,
        )
        one_tile = tile_layout(native)
        parts = [to_gaze(clip, one_tile) for clip in frames]
        per_clip = [parts[b * tiles * tiles : (b + 1) * tiles * tiles] for b in range(B)]
        gazes = [retarget(merge(clip, layout), grid).in_order() for clip in per_clip]
        return pack(gazes, device=video.device)

    def _result(
        self,
        slots: PaddedGaze,
        grid: PatchGrid,
        budget: Budget,
        *,
        past: Past | None,
        scored: tuple[Tensor | None, Tensor | None],
    ) -> dict[str, Any]:
        shape = (len(slots.gazing_pos), len(slots.num_gazing_each_frame))
        threshold = budget.threshold
        required = None if threshold is None else torch.full(shape, threshold, device=slots.gazing_pos.device)
        return {
            **slots.to_dict(grid),
            "log_action_probs": scored[0],
            "task_loss_prediction": scored[1],
            "task_loss_requirement": required,
            "has_task_loss_requirement": threshold is not None,
            "past_key_values": past,
            "past_input_embeds": None,
            "past_attention_mask": None,
            "past_conv_values": None,
        }
