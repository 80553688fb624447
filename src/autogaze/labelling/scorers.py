"""What a label search asks: the loss of a frame under many sets of gazes, by any of the reconstructors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autogaze.errors import CheckpointError
from autogaze.grid import FrameLayout, Indices, PatchGrid
from autogaze.reconstructors import Reconstructor
from autogaze.reconstructors.canvas import CanvasReconstructor
from autogaze.reconstructors.provenance import OLDEST
from autogaze.reconstructors.refined import RefinedReconstructor
from autogaze.reconstructors.refiner import CanvasTensors, Refiner
from autogaze.reconstructors.video_mae import VideoMAEReconstructor
from autogaze.selectors.cells import Pixels, Tiling
from autogaze.selectors.distortion import Scales, canvas_errors, loss
from autogaze.selectors.painting import Painting
from autogaze.tasks.video_mae_reconstruction.incremental import VideoMAESession
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE

# Shape letters: T frames, S pixels a side of a frame, P patches of it, C candidates, k gazes of each.

Losses = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """What becomes of a frame under each of some sets of gazes."""

    losses: Losses
    """(C,) its loss."""
    picture: Pixels
    """(S, S, 3) uint8 how it is rebuilt from the first of the sets with the lowest loss."""


class ClipScorer(Protocol):
    """One clip on its way through a reconstructor, frame by frame; the first frame is the next one at the start."""

    def tried(self, candidates: Indices) -> Tried:
        """The next frame under each of C sets of gazes, (C, k) int64, whatever their order; C is at least 1.

        Nothing is committed. k may be 0, and no patch stands twice in a set.
        """
        ...

    def commit(self, index: Indices) -> None:
        """The next frame has these gazes, (k,) int64; the frame after it becomes the next one."""
        ...


class CandidateScorer(Protocol):
    """A reconstructor as a judge of gazes."""

    @property
    def grid(self) -> PatchGrid:
        """Patches of a frame."""
        ...

    @property
    def loss_unit(self) -> str:
        """What a loss of 1 is."""
        ...

    def open(self, rgb: Pixels) -> ClipScorer:
        """Start on a (T, S, S, 3) clip, S being the finest scale."""
        ...


def make_scorer(reconstructor: Reconstructor) -> CandidateScorer:
    """The judge that a reconstructor is.

    Raises:
        CheckpointError: it is of a kind that cannot try many sets of gazes.
    """
    if isinstance(reconstructor, CanvasReconstructor):
        return CanvasScorer()
    if isinstance(reconstructor, RefinedReconstructor):
        return RefinedScorer(reconstructor.refiner)
    if isinstance(reconstructor, VideoMAEReconstructor):
        return VideoMAEScorer(reconstructor.model)
    raise CheckpointError(
        f"{reconstructor.name!r} cannot judge labels; the canvas, a refiner and a VideoMAE can (or write a "
        "CandidateScorer for it)"
    )


class CanvasScorer:
    """The canvas: exact, in whole numbers."""

    loss_unit = CanvasReconstructor.loss_unit

    def __init__(self, grid: PatchGrid | None = None) -> None:
        self.grid = grid or PatchGrid()

    def open(self, rgb: Pixels) -> CanvasClip:
        """See :meth:`CandidateScorer.open`."""
        return CanvasClip(rgb, self.grid)


class CanvasClip:
    """One clip on its way over a canvas. It is the state of a clip for searches that use the canvas as a guide, too."""

    def __init__(self, rgb: Pixels, grid: PatchGrid) -> None:
        side_px = grid.scales_px[-1]
        self.tiling = Tiling(FrameLayout.tiled(grid, height_px=side_px, width_px=side_px))
        self.canvas = Painting.blank(self.tiling)
        """One tile, after the last committed frame."""
        self._rgb = rgb
        self.number = 0
        """The next frame."""
        self._look()

    def _look(self) -> None:
        tiles = self.tiling.split(self._rgb[self.number])
        self.scales = Scales.of(tiles, self.tiling, squared=False)
        """The next frame as each of its scales shows it."""
        self.errors = canvas_errors(tiles, self.canvas, self.tiling, squared=False)
        """What the canvas lacks of the next frame, per atom."""

    def tried(self, candidates: Indices) -> Tried:
        """See :meth:`ClipScorer.tried`."""
        losses = self.losses(candidates)
        return Tried(losses=losses, picture=self.picture(candidates[losses.argmin()]))

    def losses(self, candidates: Indices) -> Losses:
        """(C,) loss of the next frame under each set of gazes, (C, k)."""
        cells = self.tiling.cells
        # What no patch of a scale covers belongs to one patch more, which is never taken.
        taken = np.zeros((len(candidates), cells.grid.num_patches + 1), bool)
        np.put_along_axis(taken, candidates, True, axis=1)
        error_CA = np.repeat(self.errors.absolute, len(candidates), axis=0)
        for patch_of_atom, shown in zip(cells.patch_of_atom, self.scales.errors.absolute[0], strict=True):
            error_CA = np.where(taken[:, patch_of_atom], shown, error_CA)  # coarse to fine: finer patches win
        return np.array([loss(absolute, self.tiling.num_values) for absolute in error_CA.sum(1)])

    def picture(self, index: Indices) -> Pixels:
        """(S, S, 3) uint8 the canvas with these gazes of the next frame, (k,), pasted on it."""
        canvas = self.canvas.copy()
        self.paste(index, canvas)
        picture: Pixels = canvas.brighter[0]
        return picture

    def commit(self, index: Indices) -> None:
        """See :meth:`ClipScorer.commit`."""
        self.paste(index, self.canvas)
        self.number += 1
        if self.number < len(self._rgb):
            self._look()

    def paste(self, index: Indices, canvas: Painting) -> None:
        """Paste patches of the next frame on a canvas."""
        self.scales.paste(index, canvas)


class RefinedScorer:
    """A refiner: every candidate's canvas goes through the network."""

    loss_unit = RefinedReconstructor.loss_unit

    def __init__(self, refiner: Refiner, *, candidate_batch: int = 16) -> None:
        self.refiner, self.candidate_batch = refiner, candidate_batch

    @property
    def grid(self) -> PatchGrid:
        """See :attr:`CandidateScorer.grid`."""
        return self.refiner.config.grid

    def open(self, rgb: Pixels) -> RefinedClip:
        """See :meth:`CandidateScorer.open`."""
        return RefinedClip(self.refiner, rgb, candidate_batch=self.candidate_batch)


class RefinedClip:
    """One clip on its way through a refiner."""

    def __init__(self, refiner: Refiner, rgb: Pixels, *, candidate_batch: int) -> None:
        self._refiner, self._rgb, self._candidate_batch = refiner, rgb, candidate_batch
        self._state = CanvasClip(rgb, refiner.config.grid)
        self._scale = np.zeros(rgb.shape[1:3], np.uint8)
        self._age = np.full(rgb.shape[1:3], OLDEST, np.uint8)

    def tried(self, candidates: Indices) -> Tried:
        """See :meth:`ClipScorer.tried`."""
        parts = range(0, len(candidates), self._candidate_batch)
        return _joined([self._tried(candidates[first : first + self._candidate_batch]) for first in parts])

    def commit(self, index: Indices) -> None:
        """See :meth:`ClipScorer.commit`."""
        self._scale, self._age = self._provenance(index)
        self._state.commit(index)

    def _tried(self, candidates: Indices) -> Tried:
        refined = self._refined(candidates)
        target = torch.from_numpy(np.ascontiguousarray(self._rgb[self._state.number])).to(refined.device).movedim(-1, 0)
        losses: Losses = ((refined - target).abs().flatten(1).double().mean(1) / 255).cpu().numpy()
        picture: Pixels = refined[int(losses.argmin())].byte().permute(1, 2, 0).cpu().numpy()
        return Tried(losses=losses, picture=picture)

    @torch.inference_mode()
    def _refined(self, candidates: Indices) -> torch.Tensor:
        """(C, 3, S, S) floats from 0 to 255, rounded: a refined frame is judged in 8 bits."""
        canvases, scales, ages = [], [], []
        for index in candidates:
            canvases.append(self._state.picture(index))
            scale, age = self._provenance(index)
            scales.append(scale)
            ages.append(age)
        device = self._refiner.device
        stacked = [torch.from_numpy(np.stack(part)).to(device) for part in (canvases, scales, ages)]
        before = torch.from_numpy(self._state.picture(np.empty(0, np.int64))).to(device).expand_as(stacked[0])
        view = CanvasTensors(canvas_BHWC=stacked[0], before_BHWC=before, scale_BHW=stacked[1], age_BHW=stacked[2])
        refined: torch.Tensor = (self._refiner(view).clamp(0, 1) * 255).round()
        return refined

    def _provenance(self, index: Indices) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(S, S) scale that painted each pixel, and how long ago, once these are pasted."""
        cells = self._state.tiling.cells
        scale, age = self._scale.copy(), self._age + (self._age < OLDEST)
        for patch in sorted(index.tolist()):  # coarse to fine: finer patches win
            box = cells.box_of_patch_px[patch]
            scale[box], age[box] = cells.scale_of_patch[patch] + 1, 0
        return scale, age


class VideoMAEScorer:
    """A masked autoencoder. The past is encoded once; a frame's loss is as if it alone of the clip were rebuilt.

    Raises:
        ValueError: the model is not causal.
    """

    def __init__(self, model: VideoMAE, *, candidate_batch: int = 32) -> None:
        VideoMAESession(model)  # refuses what cannot go frame by frame
        self.model, self.candidate_batch = model, candidate_batch

    @property
    def grid(self) -> PatchGrid:
        """See :attr:`CandidateScorer.grid`."""
        return self.model.grid

    @property
    def loss_unit(self) -> str:
        """See :attr:`CandidateScorer.loss_unit`."""
        return self.model.loss_unit

    def open(self, rgb: Pixels) -> VideoMAEClip:
        """See :meth:`CandidateScorer.open`."""
        return VideoMAEClip(self.model, rgb, candidate_batch=self.candidate_batch)


class VideoMAEClip:
    """One clip on its way through a masked autoencoder."""

    def __init__(self, model: VideoMAE, rgb: Pixels, *, candidate_batch: int) -> None:
        self._session, self._model, self._candidate_batch = VideoMAESession(model), model, candidate_batch
        frames = torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2)
        self._pixels_T3SS = model.space.from_unit(frames.to(model.device) / 255)

    def tried(self, candidates: Indices) -> Tried:
        """See :meth:`ClipScorer.tried`."""
        parts = range(0, len(candidates), self._candidate_batch)
        return _joined([self._tried(candidates[first : first + self._candidate_batch]) for first in parts])

    @torch.inference_mode()
    def _tried(self, candidates: Indices) -> Tried:
        pixels = self._next()
        frames_C3SS = self._session.reconstructions(
            pixels, torch.from_numpy(candidates), candidate_batch=self._candidate_batch
        )
        frames_C13SS = frames_C3SS[:, None]
        found = self._model.loss(frames_C13SS, pixels[None].expand_as(frames_C13SS))[:, 0]
        losses: Losses = found.double().cpu().numpy()
        colours = (self._model.space.to_unit(frames_C3SS[int(losses.argmin())].float()) * 255).round().clamp(0, 255)
        picture: Pixels = colours.byte().permute(1, 2, 0).cpu().numpy()
        return Tried(losses=losses, picture=picture)

    def commit(self, index: Indices) -> None:
        """See :meth:`ClipScorer.commit`."""
        self._session.add_frame(self._next(), torch.from_numpy(index)[None])

    def _next(self) -> torch.Tensor:
        return self._pixels_T3SS[self._session.num_frames, None]


def _joined(parts: Sequence[Tried]) -> Tried:
    """All sets of all parts."""
    least = int(np.argmin([part.losses.min() for part in parts]))
    return Tried(losses=np.concatenate([part.losses for part in parts]), picture=parts[least].picture)
