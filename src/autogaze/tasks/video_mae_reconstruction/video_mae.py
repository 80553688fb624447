"""The video masked autoencoder: a video and its gazes in, the frames rebuilt from them out."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from autogaze.errors import CheckpointError
from autogaze.gaze import Gaze
from autogaze.grid import PatchGrid
from autogaze.losses.pixel import PUBLISHED, Loss, PixelSpace
from autogaze.models.autogaze.checkpoint import HubOptions, save_checkpoint
from autogaze.packing import PaddedGaze
from autogaze.tasks.video_mae_reconstruction.block_causal import BlockCausal, FrameTokens
from autogaze.tasks.video_mae_reconstruction.checkpoint_video_mae import read_checkpoint
from autogaze.tasks.video_mae_reconstruction.configuration_video_mae import VideoMAEConfig
from autogaze.tasks.video_mae_reconstruction.modeling_video_mae import Decoder, Encoder, init_weights

# Shape letters: B clips, T frames, F frames asked for, P cells of a frame over all scales, S pixels a side of a frame.

LOG = logging.getLogger(__name__)

GazingInfo: TypeAlias = Gaze | Sequence[Gaze] | PaddedGaze | Mapping[str, Any]
"""The gazes of a batch of clips: one clip's, one for each clip, padded tensors, or the published mapping of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoMAEOutput:
    """Rebuilt frames, and how far from the true ones they are."""

    reconstruction: Tensor
    """(B, F, 3, S, S) in the pixel space of the input."""
    loss_each_reconstruction_frame: Tensor
    """(B, F) in the unit of the model's loss."""
    loss_mean: Tensor
    """(B,) mean over frames."""
    frame_idx_to_reconstruct: Tensor
    """(F,) int64 the frames that were rebuilt."""


class VideoMAE(nn.Module):
    """A masked autoencoder (He et al. 2021) that sees the gazed cells of every scale of a video, block-causally.

    A token sees its own frame, earlier frames and the class token, so the loss of a frame does not depend on later
    frames. Attention takes memory linear in the tokens. The tables of positions are sines and not trained.

    Args:
        config: sizes, see :mod:`~autogaze.tasks.video_mae_reconstruction.configuration_video_mae`.
        loss: how far rebuilt frames are from the true ones; None: mean absolute error in the space of the input,
            times the weight that the configuration gives ``l1`` (1 if it names none). The other terms of
            ``config.loss_type`` need networks of their own: pass a loss that has them. It is no part of the model:
            not in its state dict, and not moved with it.
        space: what the pixels it reads and makes mean.
    """

    loss: Loss
    """See the argument; may be replaced at any time."""
    space: PixelSpace
    """See the argument. The network computes with numbers as they are; whoever makes them from colours, and colours
    from them, does it by this."""

    def __init__(self, config: VideoMAEConfig, *, loss: Loss | None = None, space: PixelSpace = PUBLISHED) -> None:
        super().__init__()
        self.config = config
        self.space = space
        self.vit = Encoder(config)
        self.decoder = Decoder(config)
        l1_weight = dict(zip(config.loss_names, config.loss_weight_of_each, strict=True)).get("l1", 1.0)
        self.loss = MeanAbsoluteError(weight=l1_weight) if loss is None else loss
        self.init_weights()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "loss":  # a loss with weights must not become a part of the model
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights."""
        init_weights(self, std=self.config.initializer_range, generator=generator)

    # Checkpoints

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        config: VideoMAEConfig | None = None,
        loss: Loss | None = None,
        space: PixelSpace | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load a checkpoint, ready to rebuild.

        It may be ours (a folder, a ``.safetensors`` file with its ``config.json`` beside it), the published
        ``videomae.pt``, or a ``vit_mae`` checkpoint of Hugging Face to start training from: that one has no scales
        and no time, whose entries start at zero, so that a still picture of one scale is rebuilt as there. Pickles
        are read without running what is in them. How many names were left aside or start fresh is logged.

        Args:
            source: the file, its folder, or a hub id.
            config: the network to build, where the checkpoint says too little: its scales and frames for a
                ``vit_mae`` (tables of positions are resized), everything for a file without ``config.json``.
            loss: see :class:`VideoMAE`.
            space: see :class:`VideoMAE`. None: what the checkpoint's ``preprocessor_config.json`` says; without one
                the published space, or for a ``vit_mae`` colours normalised by ImageNet's mean and deviation.
            device: where the model goes; None: the CPU.
            dtype: precision of the weights.
            revision: branch, tag or commit on the hub; None: its default branch.
            token: access token of the hub; None: the one stored on this machine, if any.
            cache_dir: where downloads are kept; None: the hub's usual place.
            local_files_only: use what was downloaded before and never the network.

        Raises:
            CheckpointError: nothing is there, it is damaged, or names or shapes differ from the configuration's.
        """
        hub = HubOptions(revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
        checkpoint = read_checkpoint(source, hub=hub, config=config)
        try:
            # Where all weights are there, fresh ones would be drawn only to be thrown away.
            with torch.device("cpu" if checkpoint.needs_fresh_weights else "meta"):
                model = cls(checkpoint.config, loss=loss, space=checkpoint.space if space is None else space)
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{source} describes no network that can be built: {error}") from error
        model.load_state_dict(checkpoint.fitted(model, source=source), assign=True)
        for what, names in (("ignored", checkpoint.ignored), ("not in the checkpoint", checkpoint.fresh)):
            if names:
                LOG.info("%s: %d weights %s, such as %s", source, len(names), what, names[0])
        return model.to(device=device, dtype=dtype).eval()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json``, ``model.safetensors`` and, for :attr:`space`, ``preprocessor_config.json``.

        Raises:
            OSError: a file cannot be written.
        """
        save_checkpoint(self, self.config, folder)
        self.space.processor(side_px=self.config.image_size).save_pretrained(folder)

    # What it is

    @property
    def grid(self) -> PatchGrid:
        """The cells of one frame."""
        return self.config.grid

    @property
    def loss_unit(self) -> str:
        """What a loss of 1 is, in a few words: as the loss says in an attribute ``unit``, if it is not the default."""
        if isinstance(self.loss, MeanAbsoluteError):
            weighted = "" if self.loss.weight == 1 else f"{self.loss.weight:g} × "
            return f"{weighted}mean absolute error of a colour, in {self.space.unit}"
        return str(getattr(self.loss, "unit", "the loss that the VideoMAE was given"))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.mask_token.device

    # Rebuilding

    def forward(
        self,
        pixel_values: Tensor,
        gazing_info: GazingInfo,
        frame_idx_to_reconstruct: Sequence[int] | Tensor | None = None,
        *,
        interpolate_pos_encoding: bool = True,
    ) -> VideoMAEOutput:
        """Rebuild frames from the gazed cells.

        Args:
            pixel_values: (B, T, 3, S, S) normalised frames, S being the finest scale.
            gazing_info: the gazes of each clip, on one tile of this model's grid. Cells named twice count once,
                their order means nothing, and what padded slots hold is not looked at.
            frame_idx_to_reconstruct: frames to rebuild, the same for every clip; None: all. The cells of these
                frames are all decoded, of the others only the gazed ones, so a frame's loss depends a little on
                which earlier frames are rebuilt too.
            interpolate_pos_encoding: taken for the published call's sake; tables always fit the scales.

        Raises:
            TypeError: ``gazing_info`` is none of the four kinds.
            ValueError: a shape or dtype differs, a position or frame is out of range, or the gazes are of another
                grid, batch or number of frames.
        """
        S, T = self.grid.scales_px[-1], self.check_video(pixel_values)
        asked = _frames(frame_idx_to_reconstruct, num_frames=T)
        y_BFPC = self.decoded(pixel_values, gazing_info, asked)
        return self.judged(
            self.decoder.pixels(y_BFPC), target=pixel_values.reshape(-1, T, 3, S, S)[:, asked], frames=asked
        )

    def decoded(self, pixel_values: Tensor, gazing_info: GazingInfo, frames: Sequence[int] | Tensor) -> Tensor:
        """(B, F, P, C) what the decoder makes of every cell of some frames, before it is turned into pixels.

        Arguments and errors are those of :meth:`forward`.
        """
        T = self.check_video(pixel_values)
        asked = _frames(frames, num_frames=T)
        kept_BTP = gazed_cells(gazing_info, grid=self.grid, batch=len(pixel_values), num_frames=T).to(
            pixel_values.device
        )
        decoded_BTP = kept_BTP.clone()
        decoded_BTP[:, asked] = True
        seen, decoded = FrameTokens.from_mask(kept_BTP), FrameTokens.from_mask(decoded_BTP)

        x_BNC = torch.cat(
            [self.vit.embeddings.class_token(len(pixel_values)), self.vit.embeddings(pixel_values, seen)], dim=1
        )
        x_BNC = self.vit(x_BNC, self._attention(seen, self.config.num_hidden_layers))
        y_BMC = torch.cat(
            [
                self.decoder.class_token(x_BNC[:, :1]),
                self.decoder.tokens(x_BNC[:, 1:], seen=seen, decoded=decoded),
            ],
            dim=1,
        )
        y_BMC = self.decoder(y_BMC, self._attention(decoded, self.config.decoder_num_hidden_layers))
        return torch.stack([y_BMC[:, 1 + decoded.starts[t] : 1 + decoded.starts[t + 1]] for t in asked], dim=1)

    def judged(self, reconstruction: Tensor, *, target: Tensor, frames: Sequence[int]) -> VideoMAEOutput:
        """(B, F, 3, S, S) rebuilt frames with their losses."""
        loss_BF = self.loss(reconstruction, target)
        return VideoMAEOutput(
            reconstruction=reconstruction,
            loss_each_reconstruction_frame=loss_BF,
            loss_mean=loss_BF.mean(-1),
            frame_idx_to_reconstruct=torch.tensor(list(frames), device=reconstruction.device),
        )

    def check_video(self, pixel_values: Tensor) -> int:
        """T of a (B, T, 3, S, S) float video.

        Raises:
            ValueError: it is not such a video, or has more frames than there are time entries.
        """
        S, got = self.grid.scales_px[-1], tuple(pixel_values.shape)
        if len(got) != 5 or got[2:] != (3, S, S) or 0 in got:
            raise ValueError(
                f"pixel_values must be (B, T, 3, {S}, {S}), got {got}; resize the frames, or cut them into tiles of "
                f"{S} px as autogaze.tiling.split does"
            )
        if not pixel_values.is_floating_point():
            raise ValueError(f"pixel_values must be normalised floating-point colours, got {pixel_values.dtype}")
        self.check_num_frames(got[1])
        return got[1]

    def check_num_frames(self, num_frames: int) -> None:
        """Refuse clips longer than the table of times.

        Raises:
            ValueError: they are.
        """
        if self.config.time_embed and num_frames > self.config.max_num_frames:
            raise ValueError(f"a clip may have at most {self.config.max_num_frames} frames, got {num_frames}")

    def _attention(self, tokens: FrameTokens, layers: int) -> list[BlockCausal]:
        return [BlockCausal(tokens, causal=self.config.causal)] * layers


@dataclass(frozen=True, kw_only=True)
class MeanAbsoluteError:
    """The loss of a model that was given none."""

    weight: float = 1.0
    """What the mean is multiplied by."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(B, F) mean absolute difference over channels and pixels times the weight, in float32 at least."""
        precise = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        return self.weight * (precise - target).abs().mean((2, 3, 4))


def gazed_cells(gazing_info: GazingInfo, *, grid: PatchGrid, batch: int, num_frames: int) -> Tensor:
    """(B, T, P) bool: the cells that were gazed at.

    Raises:
        TypeError: ``gazing_info`` is none of its four kinds.
        ValueError: it is of another grid, batch or number of frames, or a position is out of range.
    """
    if isinstance(gazing_info, Mapping):
        try:
            gazing_info = PaddedGaze.from_dict({"num_vision_tokens_each_frame": grid.num_patches, **gazing_info})
        except KeyError as error:
            raise ValueError(f"gazing_info lacks {error}; pass what the gaze model returned") from error
    if isinstance(gazing_info, PaddedGaze):
        return _cells_of_padded(gazing_info, grid=grid, batch=batch, num_frames=num_frames)
    gazes = [gazing_info] if isinstance(gazing_info, Gaze) else gazing_info
    if not isinstance(gazes, Sequence) or not all(isinstance(gaze, Gaze) for gaze in gazes):
        raise TypeError(f"gazing_info must be gazes, a PaddedGaze or a mapping, got {type(gazing_info).__name__}")
    if len(gazes) != batch:
        raise ValueError(f"there must be one gaze for each of {batch} clips, got {len(gazes)}")
    for gaze in gazes:
        if gaze.layout.grid != grid or gaze.layout.num_tiles != 1:
            raise ValueError(f"gazes must be on one tile of {grid}, got {gaze.layout}; autogaze.tiling.tile cuts them")
        if len(gaze) != num_frames:
            raise ValueError(f"gazes must be of the clip's {num_frames} frames, got {len(gaze)}")
    return torch.from_numpy(np.stack([gaze.mask() for gaze in gazes]))


def _cells_of_padded(gazes: PaddedGaze, *, grid: PatchGrid, batch: int, num_frames: int) -> Tensor:
    P, slots_T = grid.num_patches, gazes.num_gazing_each_frame
    position_BN, padded_BN = gazes.gazing_pos, gazes.if_padded_gazing
    if gazes.num_vision_tokens_each_frame != P:
        raise ValueError(f"the gazes are of frames of {gazes.num_vision_tokens_each_frame} patches, the grid has {P}")
    if len(position_BN) != batch:
        raise ValueError(f"there must be one gaze for each of {batch} clips, got {len(position_BN)}")
    if len(slots_T) != num_frames or int(slots_T.sum()) != position_BN.shape[1]:
        raise ValueError(
            f"num_gazing_each_frame must have {num_frames} numbers that sum to {position_BN.shape[1]} slots, "
            f"got {slots_T.tolist()}"
        )
    frame_N = torch.arange(num_frames, device=slots_T.device).repeat_interleave(slots_T).to(position_BN.device)
    wrong_BN = ~padded_BN & (position_BN.div(P, rounding_mode="floor") != frame_N)
    if wrong_BN.any():
        b, slot = wrong_BN.nonzero()[0].tolist()
        first = int(frame_N[slot]) * P
        raise ValueError(
            f"position {int(position_BN[b, slot])} of clip {b} is in a slot of frame {int(frame_N[slot])}, whose "
            f"positions are {first}..{first + P - 1}: frame · {P} + patch"
        )
    # Padding lands in one spare column, so it can never mark a cell.
    mask_BS = torch.zeros(batch, num_frames * P + 1, dtype=torch.bool, device=position_BN.device)
    mask_BS.scatter_(1, position_BN.masked_fill(padded_BN, num_frames * P), True)
    return mask_BS[:, :-1].reshape(batch, num_frames, P)


def _frames(frames: Sequence[int] | Tensor | None, *, num_frames: int) -> list[int]:
    if frames is None:
        return list(range(num_frames))
    plain = frames.tolist() if isinstance(frames, Tensor) else frames
    try:
        numbers = [operator.index(frame) for frame in plain]
    except TypeError as error:
        raise ValueError(
            f"frame_idx_to_reconstruct must be one list of frame numbers for the batch, got {frames!r}"
        ) from error
    if not numbers or not 0 <= min(numbers) <= max(numbers) < num_frames:
        raise ValueError(f"frame_idx_to_reconstruct must name frames in 0..{num_frames - 1}, got {numbers}")
    return numbers
