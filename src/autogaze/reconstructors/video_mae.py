"""The video masked autoencoder as a reconstructor: any size in tiles, any length in clips, any cut into steps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autogaze import tiling
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.reconstructors.base import Reconstruction, check_step
from autogaze.reconstructors.seams import blend_seams
from autogaze.selectors.base import CLIP_FRAMES
from autogaze.selectors.cells import resize
from autogaze.tasks.video_mae_reconstruction.incremental import VideoMAESession
from autogaze.tasks.video_mae_reconstruction.video_mae import VideoMAE

# Shape letters: T frames, H × W pixels of the video, K tiles, S pixels a side of a tile, P cells of a tile.

_PAST_BYTES = 1 << 30


class VideoMAEReconstructor:
    """Rebuilds the tiles of a frame by a :class:`VideoMAE`, each by itself, and takes the seams between them out.

    Every 16 frames a clip starts afresh, as for the gaze model, and every frame of a clip is rebuilt; so a frame is
    rebuilt from the gazes of its clip up to itself and from what the clip's earlier frames were rebuilt as. The loss
    of a frame is the mean over its tiles as the model rebuilt them, whose padding counts like the rest.

    Args:
        model: the autoencoder; causal.
        name: see :class:`~autogaze.reconstructors.base.Reconstructor`.
        tile_batch: tiles that go through the model at once. None: as many as keep what they remember of a clip
            below 1 GiB.

    Raises:
        ValueError: the model is not causal, or ``tile_batch`` is below 1.
    """

    def __init__(self, model: VideoMAE, *, name: str = "video_mae", tile_batch: int | None = None) -> None:
        if not model.config.causal:
            raise ValueError("a reconstructor must be causal; this VideoMAE's frames see later ones")
        if tile_batch is not None and tile_batch < 1:
            raise ValueError(f"tile_batch must be at least 1 or None, got {tile_batch}")
        self.model = model
        self.name = name
        self.clip_frames = min(CLIP_FRAMES, model.config.max_num_frames) if model.config.time_embed else CLIP_FRAMES
        """Frames after which the model starts afresh."""
        self.tile_batch = tile_batch or max(1, _PAST_BYTES // self._past_bytes())

    @property
    def loss_unit(self) -> str:
        """See :attr:`VideoMAE.loss_unit`."""
        return self.model.loss_unit

    def open(self, layout: FrameLayout) -> VideoMAEReconstructorSession:
        """Start on a video.

        Raises:
            ValueError: the layout's grid is not the model's.
        """
        return VideoMAEReconstructorSession(self, layout)

    def _past_bytes(self) -> int:
        """Most that one tile's clip takes as keys and values, in buffers that may be twice as long as needed."""
        config = self.model.config
        channels = (
            config.num_hidden_layers * config.hidden_size
            + config.decoder_num_hidden_layers * config.decoder_hidden_size
        )
        itemsize = self.model.decoder.mask_token.element_size()
        return 2 * 2 * channels * itemsize * self.clip_frames * config.grid.num_patches


class VideoMAEReconstructorSession:
    """One video on its way through the autoencoder."""

    def __init__(self, reconstructor: VideoMAEReconstructor, layout: FrameLayout) -> None:
        if layout.grid != reconstructor.model.grid:
            raise ValueError(
                f"this VideoMAE rebuilds {reconstructor.model.grid}, the gaze is on {layout.grid}; gaze with that grid "
                "or bring the gaze to it, see autogaze.retarget"
            )
        self.layout = layout
        self._reconstructor = reconstructor
        self._frame_of_clip = 0
        self._clips: dict[int, VideoMAESession] = {}  # by the first tile of each batch

    def step(self, frames: Frames, gaze: Gaze) -> Reconstruction:
        """See :meth:`~autogaze.reconstructors.base.ReconstructorSession.step`."""
        check_step(self.layout, frames, gaze)
        rgb, loss = np.empty_like(frames.rgb), np.empty(len(frames))
        start = 0
        while start < len(frames):
            stop = min(len(frames), start + self._reconstructor.clip_frames - self._frame_of_clip)
            self._rebuild(frames.rgb[start:stop], gaze[start:stop], rgb=rgb[start:stop], loss=loss[start:stop])
            self._frame_of_clip = (self._frame_of_clip + stop - start) % self._reconstructor.clip_frames
            start = stop
        return Reconstruction(rgb=rgb, loss=loss)

    def _rebuild(
        self, source_THWC: NDArray[np.uint8], gaze: Gaze, *, rgb: NDArray[np.uint8], loss: NDArray[np.float64]
    ) -> None:
        """Frames of one clip, into ``rgb`` and ``loss``."""
        tiles_KTHWC = tiling.split(source_THWC, self.layout)
        index_TK = [self._cells_of_tiles(one) for one in gaze]
        rebuilt_KTHWC, loss_TK = np.empty(tiles_KTHWC.shape, np.uint8), np.empty((len(gaze), len(tiles_KTHWC)))
        ends = self._frame_of_clip + len(gaze) == self._reconstructor.clip_frames
        for first in range(0, len(tiles_KTHWC), self._reconstructor.tile_batch):
            of_batch = slice(first, first + self._reconstructor.tile_batch)
            if self._frame_of_clip == 0:
                self._clips[first] = VideoMAESession(self._reconstructor.model, batch=len(tiles_KTHWC[of_batch]))
            clip = self._clips[first]
            for t, index_K in enumerate(index_TK):
                output = clip.rebuild(self._normalised(tiles_KTHWC[of_batch, t]), index_K[of_batch])
                rebuilt_KTHWC[of_batch, t] = self._colours(output.reconstruction[:, 0])
                loss_TK[t, of_batch] = output.loss_mean.double().cpu().numpy()
            if ends:  # what it remembers is in the way of the next batch
                del self._clips[first]
        for t in range(len(gaze)):
            rgb[t] = merge(rebuilt_KTHWC[:, t], self.layout)
        rgb[:] = blend_seams(rgb, self.layout)
        loss[:] = loss_TK.mean(axis=1)

    def _cells_of_tiles(self, gaze: Gaze) -> list[NDArray[np.int64]]:
        """The gazed cells of each tile in one frame."""
        tile, cell = np.divmod(gaze.index, self.layout.grid.num_patches)
        order = np.argsort(tile, kind="stable")
        return np.split(cell[order], np.searchsorted(tile[order], np.arange(1, self.layout.num_tiles)))

    def _normalised(self, tiles_KHWC: NDArray[np.uint8]) -> Tensor:
        """(K, 3, S, S) as the model reads them."""
        model = self._reconstructor.model
        tiles = torch.from_numpy(np.ascontiguousarray(tiles_KHWC)).to(model.device).permute(0, 3, 1, 2)
        return model.space.from_unit(tiles / 255)

    def _colours(self, frames_K3SS: Tensor) -> NDArray[np.uint8]:
        """(K, S, S, 3) uint8, rounded; what lies outside the legal colours is clamped."""
        colours = self._reconstructor.model.space.to_unit(frames_K3SS.float()).permute(0, 2, 3, 1) * 255
        rounded: NDArray[np.uint8] = colours.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        return rounded


def merge(tiles_KSSC: NDArray[np.uint8], layout: FrameLayout) -> NDArray[np.uint8]:
    """(H, W, 3) frame of (K, S, S, 3) tiles, the way back of :func:`autogaze.tiling.split`: padding is dropped."""
    height_px, width_px = layout.tile_height_px, layout.tile_width_px
    tiles = resize(tiles_KSSC, height_px, width_px)
    grid = tiles.reshape(layout.tile_rows, layout.tile_columns, height_px, width_px, 3).transpose(0, 2, 1, 3, 4)
    joined = grid.reshape(layout.tile_rows * height_px, layout.tile_columns * width_px, 3)
    return np.ascontiguousarray(joined[: layout.height_px, : layout.width_px])
