"""The gaze model people load: the modern calls here, the published call in :mod:`.published`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autogaze.choosing import FrameGaze, Sampler
from autogaze.errors import BudgetError, CheckpointError
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout, PatchGrid
from autogaze.models.autogaze import checkpoint
from autogaze.models.autogaze.budgets import draw_budget
from autogaze.models.autogaze.calibration import CALIBRATION_NAME, Calibration, weights_fingerprint
from autogaze.models.autogaze.configuration_autogaze import AutoGazeConfig, Positions
from autogaze.models.autogaze.decoding import ClipDecoder, as_tensor, fit, to_gaze
from autogaze.models.autogaze.modeling_autogaze import GazeModel, TeacherForcing
from autogaze.models.autogaze.published import PublishedCall
from autogaze.models.autogaze.scoring import Policy
from autogaze.packing import pack
from autogaze.selectors.base import Budget
from autogaze.static.engine import StaticEngine
from autogaze.tiling import split

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalised(frames: Tensor) -> Tensor:
    """What the encoder reads of (…, H, W, 3) frames of 0 to 255: (…, 3, H, W) fp32."""
    mean, std = (torch.tensor(v, device=frames.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (frames.movedim(-1, -3) / 127.5).sub_(1).sub_(mean).div_(std)


class AutoGaze(nn.Module):
    """A gaze model with its configuration.

    Shape letters: B clips, T frames, H × W their pixels, S the side the encoder reads (224).
    """

    def __init__(self, config: AutoGazeConfig | None = None, *, positions: Positions | None = None) -> None:
        """A model with fresh weights. ``positions`` overrides what the configuration says."""
        super().__init__()
        config = config or AutoGazeConfig()
        self.config = config if positions is None else replace(config, positions=positions)
        self.gazing_model = GazeModel(self.config.gaze_model_config)
        engine = StaticEngine(
            self.gazing_model.gaze_decoder,
            positions=self.config.positions,
            visual_tokens=self.config.gaze_model_config.connector_config.num_tokens,
        )
        self.decoder = ClipDecoder(self.gazing_model, engine=engine)
        self.calibration: Calibration | None = None
        """What a threshold of :meth:`gaze` goes through; None: it is compared with the predictions as they are. Set it
        to None to switch it off, also when the weights change. The published call never uses it, and
        ``Gaze.predicted_loss`` stays the bare prediction, which :meth:`Calibration.corrected` corrects."""

    # Loading and saving

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        positions: Positions | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        calibrated: bool = True,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load a folder, a ``.safetensors`` file (its ``config.json`` beside it) or a hub id, ready to gaze.

        Args:
            source: where the checkpoint is.
            positions: ``"true"``, ``"reference"`` or None for what the configuration says; a configuration that
                does not say is a published one, hence ``"reference"``.
            device: where the model goes; None: the CPU.
            dtype: precision of weights and activations; the heads compute in fp32 whatever it is.
            calibrated: use the ``calibration.json`` beside the weights, if there is one; see :attr:`calibration`.
            revision: branch, tag or commit on the hub; None: its default branch.
            token: access token of the hub; None: the one stored on this machine, if any.
            cache_dir: where downloads are kept; None: the hub's usual place.
            local_files_only: use what was downloaded before and never the network.

        Raises:
            CheckpointError: nothing is there, names or shapes differ from the configuration's, or the calibration is
                damaged or was fitted for other weights.
        """
        hub = checkpoint.HubOptions(
            revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        config_path, weights_path = checkpoint.find_files(source, hub)
        try:
            model = cls(AutoGazeConfig.from_json_file(config_path), positions=positions)
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{config_path} describes no network that can be built: {error}") from error
        checkpoint.load_weights(model, weights_path)
        calibration = Calibration.load(config_path.parent) if calibrated else None
        if calibration is not None:
            calibration.check_fits(weights_fingerprint(model), positions=model.config.positions)
            model.calibration = calibration
        return model.to(device=device, dtype=dtype).eval()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors``, under the published names, and the calibration.

        A calibration of other weights, such as those before training or rounding, is not written, and one that is in
        the folder already is removed: with these weights it would mean nothing.

        Raises:
            OSError: a file cannot be written.
        """
        checkpoint.save_checkpoint(self, self.config, folder)
        if self.calibration is not None and self.calibration.weights == weights_fingerprint(self):
            self.calibration.save(folder)
        else:
            (Path(folder) / CALIBRATION_NAME).unlink(missing_ok=True)

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, token: str | None = None, message: str = "Upload gaze model"
    ) -> str:
        """Save and upload to the hub; the address of the commit.

        Raises:
            CheckpointError: the hub refused.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return checkpoint.push_folder(Path(folder), repo_id, private=private, token=token, message=message)

    # What it is

    @property
    def grid(self) -> PatchGrid:
        """The patches it chooses from."""
        return self.config.grid

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.gazing_model.connector.pos_embed.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.gazing_model.connector.pos_embed.dtype

    @property
    def scales(self) -> list[int]:
        """Published name: the scales in pixels, ascending."""
        return list(self.config.scales_px)

    @property
    def num_vision_tokens_each_frame(self) -> int:
        """Published name: patches of one frame over all scales."""
        return self.grid.num_patches

    @property
    def num_vision_tokens_each_scale_each_frame(self) -> list[int]:
        """Published name: patches of one frame at each scale."""
        return list(self.grid.patches_per_scale)

    @property
    def frame_sampling_rate(self) -> int:
        """Published name: frames for each one gazed at, always 1."""
        return self.config.gaze_model_config.vision_model_config.temporal_patch_size

    @property
    def attn_mode(self) -> str:
        """Published name: what the configuration says of attention; kept for readers, chosen by the device here."""
        return str(self.config.extra.get("attn_mode", "sdpa"))

    @property
    def input_px(self) -> int:
        """S: side of the frames the encoder reads."""
        return self.config.gaze_model_config.input_img_size

    # Gazing

    def preprocess(self, frames: NDArray[np.uint8] | Tensor) -> Tensor:
        """Normalised (…, 3, H, W) tensors of (…, H, W, 3) uint8 frames, on the model's device and in its precision.

        ``((x / 127.5 - 1) - mean) / std`` with ImageNet's mean and deviation, as the published checkpoint wants it.

        Raises:
            ValueError: the frames are not uint8 with colours last.
        """
        frames = as_tensor(frames)
        if frames.dtype != torch.uint8 or frames.ndim < 3 or frames.shape[-1] != 3:
            raise ValueError(f"frames must be (..., H, W, 3) uint8, got {tuple(frames.shape)} {frames.dtype}")
        frames = frames.to(self.device)
        # In fp32 at first: a half-precision model must not see more rounding than it makes itself.
        if frames.device.type != "cpu":
            return normalised(frames).to(self.dtype)
        if frames.shape[:-3].numel() == 1:
            planes = frames.movedim(-1, -3).contiguous()  # the layout in which one frame takes least
            return normalised(planes.movedim(-3, -1)).to(self.dtype)
        # Frame by frame what lies between two steps stays in the processor's cache.
        video = torch.empty(frames.shape, dtype=self.dtype)
        for rgb_HW3, into_HW3 in zip(frames[None].flatten(0, -4), video[None].flatten(0, -4), strict=True):
            into_HW3.copy_(normalised(rgb_HW3).movedim(0, -1))
        return video.movedim(-1, -3)

    def gaze(
        self,
        video: NDArray[np.uint8] | Tensor,
        *,
        ratio: float | Sequence[float] | None = None,
        threshold: float | None = None,
        temperature: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Gaze:
        """Gaze at one clip; see :meth:`gaze_batch`. ``video`` is (T, H, W, 3) uint8 or normalised (T, 3, H, W)."""
        return self.gaze_batch(
            as_tensor(video)[None],
            ratio=ratio,
            threshold=threshold,
            temperature=temperature,
            generator=generator,
        )[0]

    def gaze_batch(
        self,
        videos: NDArray[np.uint8] | Tensor,
        *,
        ratio: float | Sequence[float] | None = None,
        threshold: float | None = None,
        temperature: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> list[Gaze]:
        """Gaze at a batch of clips; one result each, which does not depend on the others.

        Frames of another size than the encoder reads are resized to it (uint8 ones by an antialiased bilinear filter,
        normalised ones bicubically, both as published) and the result is in the coordinates of the frames given; use
        ``autogaze.gaze`` to tile large videos instead. A clip longer than
        the model's (16 frames) is gazed at in pieces of that length, each on its own.

        Args:
            videos: (B, T, H, W, 3) uint8, or (B, T, 3, H, W) float as :meth:`preprocess` makes them.
            ratio: most gazes a frame may get as a share of its patches, in (0, 1]; or one for each frame of a clip.
            threshold: reconstruction loss at which a frame ends. It is compared with the predicted loss, or, if the
                model has a :attr:`calibration`, goes through it first: then at most its α of the frames end above the
                threshold. With neither ratio nor threshold, the configuration decides, for bare predictions.
            temperature: draw gazes at this temperature; None: take the likeliest.
            generator: source of the draws, or one for each clip.

        Raises:
            ValueError: the videos are of another shape or type.
            BudgetError: a ratio or threshold is not legal, or less than the calibration can promise.
        """
        pixels, layout = self._pixels(as_tensor(videos))
        first = generator[0] if isinstance(generator, Sequence) else generator
        budget = self.budget(ratio, threshold, frames=pixels.shape[1], generator=first)
        level = self.stop_level(budget.threshold, layout=layout)
        sampler = self._sampler(len(pixels), temperature, generator)
        frames: list[list[FrameGaze]] = [[] for _ in pixels]
        for clip in torch.split(pixels, self.config.max_num_frames, dim=1):
            limits = [budget.max_patches(self.grid.num_patches, t) for t in range(clip.shape[1])]
            state = self.decoder.start(len(clip), frames=clip.shape[1], max_gazes=max(limits))
            pieces = self.decoder.step(state, clip, max_gazes_T=limits, threshold=level, sampler=sampler)
            for so_far, piece in zip(frames, pieces, strict=True):
                so_far += piece
        return [to_gaze(clip_frames, layout) for clip_frames in frames]

    def score(
        self, video: NDArray[np.uint8] | Tensor, gazes: Sequence[Gaze], *, policy: Policy | None = None
    ) -> TeacherForcing:
        """Log-probability of given gazes and loss after each, in one differentiable pass (teacher forcing).

        Gaze j of a frame counts as proposed by head j mod K. That is how a frame is gazed at, except in the last group
        of a frame that a threshold ended: a choice dropped there leaves its head's place empty, which a ``Gaze`` does
        not record. The published call keeps those places; score its result where that matters.

        Args:
            video: (B, T, H, W, 3) uint8 or normalised (B, T, 3, H, W) clips.
            gazes: B gazes of T frames each.
            policy: the distribution they were drawn from, with patches gazed before left out and a temperature; None:
                the published scoring, in which every patch can be chosen at temperature 1.

        Returns:
            (B, N) tensors, N the sum over frames of the most gazes any clip has there; slots past a clip's own are
            padding, in the order of :func:`autogaze.packing.pack`.

        Raises:
            ValueError: video and gazes do not belong together.
        """
        video, _ = self._pixels(as_tensor(video))
        if len(gazes) != len(video) or any(len(gaze) != video.shape[1] for gaze in gazes):
            raise ValueError(f"need one gaze of {video.shape[1]} frames for each of {len(video)} clips")
        if any(gaze.layout.grid != self.grid or gaze.layout.num_tiles != 1 for gaze in gazes):
            raise ValueError(f"the gazes must be of one tile of {self.grid}")
        packed = pack(gazes, device=self.device)
        frame = torch.repeat_interleave(packed.num_gazing_each_frame)
        local = packed.gazing_pos - frame * packed.num_vision_tokens_each_frame
        scored: TeacherForcing = self.gazing_model(
            video, local, ~packed.if_padded_gazing, packed.num_gazing_each_frame.tolist(), policy=policy
        )
        return scored

    def budget(
        self,
        ratio: float | Sequence[float] | None,
        threshold: float | None,
        *,
        frames: int,
        generator: torch.Generator | None = None,
    ) -> Budget:
        """The limits of one call: those given, or the configuration's when there are none.

        ``generator`` draws what the configuration leaves to chance; None: torch's own.

        Raises:
            BudgetError: a ratio or threshold is not legal, or there is not one ratio for each frame of a clip.
        """
        longest = self.config.max_num_frames
        if ratio is None and threshold is None:
            return self.promised(draw_budget(self.config, frames=min(frames, longest), generator=generator))
        budget = Budget(ratio=1.0 if ratio is None else ratio, threshold=threshold)
        if len(budget.ratios()) > 1 and not min(frames, longest) <= len(budget.ratios()) <= longest:
            raise BudgetError(
                f"ratio must be one number or one for each of {min(frames, longest)} frames of a clip, "
                f"got {len(budget.ratios())}"
            )
        return budget

    def promised(self, budget: Budget) -> Budget:
        """A budget of the configuration, whose threshold is for bare predictions, as the :attr:`calibration` has it."""
        if self.calibration is None or budget.threshold is None:
            return budget
        return replace(budget, threshold=self.calibration.default_threshold(budget.threshold))

    def stop_level(self, threshold: float | None, *, layout: FrameLayout | None = None) -> float | None:
        """The predicted loss at which frames end to keep a threshold: itself without a :attr:`calibration`.

        Warns with a :class:`~autogaze.errors.CalibrationWarning` where the calibration is not about gazing with this
        layout, or not about thresholds as large as that.

        Raises:
            BudgetError: the calibration cannot promise the threshold.
        """
        if self.calibration is None or threshold is None:
            return threshold
        level = self.calibration.level(threshold)
        if layout is not None:
            self.calibration.warn(threshold, layout=layout)
        return level

    def _pixels(self, videos: Tensor) -> tuple[Tensor, FrameLayout]:
        """Normalised (B, T, 3, S, S) frames, and where their patches are in the frames given."""
        if videos.ndim != 5 or 0 in videos.shape:
            raise ValueError(
                "clips are (…, T, H, W, 3) uint8 or normalised (…, T, 3, H, W) float of at least one frame, "
                f"got {tuple(videos.shape)} {videos.dtype} with the batch in front"
            )
        if videos.dtype == torch.uint8:
            layout = FrameLayout.resized(self.grid, height_px=videos.shape[2], width_px=videos.shape[3])
            frames = np.stack([split(video.cpu().numpy(), layout)[0] for video in videos])
            return self.preprocess(frames), layout
        if not videos.is_floating_point() or videos.shape[2] != 3:
            raise ValueError(
                f"clips must be (…, T, H, W, 3) uint8 or normalised (…, T, 3, H, W) float, "
                f"got {tuple(videos.shape)} {videos.dtype} with the batch in front"
            )
        layout = FrameLayout.resized(self.grid, height_px=videos.shape[3], width_px=videos.shape[4])
        return fit(videos.to(device=self.device, dtype=self.dtype), self.input_px), layout

    def _sampler(
        self,
        clips: int,
        temperature: float | None,
        generator: torch.Generator | Sequence[torch.Generator] | None,
    ) -> Sampler | None:
        if temperature is None:
            return None
        if isinstance(generator, Sequence):
            return Sampler(generator, temperature=temperature)
        return Sampler.from_generator(generator or torch.default_generator, clips=clips, temperature=temperature)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        target_scales: Sequence[int] | None = None,
        target_patch_size: int | None = None,
        gazing_info: Mapping[str, Any] | None = None,
        temperature: float = 1.0,
        gazing_ratio: float | Sequence[float] | None = None,
        task_loss_requirement: float | Tensor | None = None,
        generate_only: bool = False,
        use_cache: bool = False,
        past_key_values: Any = None,
        past_inputs_embeds: object = None,
        past_attention_mask: object = None,
        past_conv_values: object = None,
    ) -> dict[str, Any]:
        """The published call; arguments and result are told at :class:`.published.PublishedCall`."""
        call = PublishedCall(self.config, self.gazing_model, self.decoder, training=self.training)
        return call(
            inputs,
            target_scales=target_scales,
            target_patch_size=target_patch_size,
            gazing_info=gazing_info,
            temperature=temperature,
            gazing_ratio=gazing_ratio,
            task_loss_requirement=task_loss_requirement,
            generate_only=generate_only,
            use_cache=use_cache,
            past_key_values=past_key_values,
        )
