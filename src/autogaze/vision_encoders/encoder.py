"""Vision transformers that compute only what was gazed at.

Shape letters: B clips, T frames, H × W pixels, S side of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from torch import Tensor, nn

from autogaze.gaze import Gaze
from autogaze.grid import FrameLayout
from autogaze.vision_encoders.encoding import EncoderPass
from autogaze.vision_encoders.features import SparseFeatures, merge_frames
from autogaze.vision_encoders.options import SparseOptions
from autogaze.vision_encoders.pixels import PixelSource
from autogaze.vision_encoders.places import Places, Sequences
from autogaze.vision_encoders.session import SparseSession
from autogaze.vision_encoders.towers import Tower, tower_of

Gazes: TypeAlias = Gaze | Sequence[Gaze]


def sparsify(model: nn.Module, *, tower: type[Tower] | None = None, **options: Any) -> SparseEncoder:
    """An encoder that computes only the patches of a gaze, with the weights and layers of a Hugging Face model.

    The model is not changed and can be used as before; both share their weights. Whatever happens to the model
    (``.to()``, training, gradient checkpointing, adapters in place of linear layers, hooks on layers) happens to the
    encoder. All clips of a call go through a layer as one row of tokens, so stochastic depth, where a model has it,
    keeps or drops a layer for all of them at once.

    Args:
        model: one of :data:`~autogaze.vision_encoders.towers.TOWERS`.
        tower: how to take apart a model of another class.
        options: see :class:`SparseOptions`.

    Raises:
        ValueError: the model is of another class, or an option is not legal.
        TypeError: there is no such option, or the model is no module.
    """
    legal = [field.name for field in fields(SparseOptions)]
    unknown = [name for name in options if name not in legal]
    if unknown:
        raise TypeError(f"there is no option {', '.join(unknown)}; options are {', '.join(legal)}")
    return SparseEncoder(tower_of(model) if tower is None else tower(model), SparseOptions(**options))


class SparseEncoder(nn.Module):
    """A vision transformer that reads gazes; made by :func:`sparsify`."""

    def __init__(self, tower: Tower, options: SparseOptions) -> None:
        super().__init__()
        self.model: nn.Module = tower.model
        """The Hugging Face model, unchanged."""
        self.tower = tower
        self.options = options

    def forward(self, video: Tensor, gazes: Gazes, *, hidden_states: bool = False) -> SparseFeatures:
        """Features of the kept patches.

        Args:
            video: (B, T, 3, H, W) floating point frames, normalised as the model wants them, of the size that was
                gazed at; what tiles show past the frame is zero. Or the tiles of each clip, one after the other, cut
                and resized to the finest scale: (B · tiles, T, 3, S, S).
            gazes: one for each clip, of one layout, whose patches have the side of the model's. See
                :func:`~autogaze.retarget.retarget` to bring gazes to another grid.
            hidden_states: whether to return embeddings and the output of every layer too.

        Raises:
            ValueError: gazes and frames do not fit each other or the model.
            TypeError: the video is no tensor, or the gazes are none.
        """
        gazes = self.check(gazes)
        layout = gazes[0].layout
        source = PixelSource(video=video, layout=layout, antialias=self.options.antialias)
        if (source.clips, source.frames) != (len(gazes), gazes[0].num_frames):
            raise ValueError(
                f"there must be a gaze of {source.frames} frames for each of the {source.clips} clips of the video, "
                f"got {len(gazes)} gazes of {gazes[0].num_frames} frames"
            )
        last = self.tower.frames_per_patch
        merged = gazes if last == 1 else tuple(merge_frames(gaze, last) for gaze in gazes)
        places = Places.of(merged)
        separate = layout.num_tiles if self.options.tiles == "separate" else 1
        sequences = Sequences.of(places, clips=len(gazes), frames=len(merged[0]), tiles=separate)
        work = EncoderPass(self.tower, self.options, source, places, hidden_states=hidden_states)
        shape = sequences.count_ST.shape
        work.encode(sequences.frame_by_frame() if self.options.attention == "frame" else sequences)
        return work.result(merged, shape)

    def open(self, layout: FrameLayout) -> SparseSession:
        """Start on a clip that comes frame by frame.

        Raises:
            ValueError: the encoder's attention cannot be streamed.
        """
        return SparseSession(self, layout)

    def check(self, gazes: Gazes) -> tuple[Gaze, ...]:
        """The gazes of a batch, if this encoder can read them.

        Raises:
            ValueError: there are none, they differ in layout or frames, or their patches are not of the model's size.
        """
        gazes = (gazes,) if isinstance(gazes, Gaze) else tuple(gazes)
        if not gazes:
            raise ValueError("there must be a gaze for every clip, got none")
        for gaze in gazes:
            if not isinstance(gaze, Gaze):
                raise TypeError(
                    f"gazes must be a Gaze for every clip, got {type(gaze).__name__}; autogaze.packing.unpack makes "
                    "them of padded tensors"
                )
        layout, frames = gazes[0].layout, gazes[0].num_frames
        for gaze in gazes:
            if gaze.num_frames != frames:
                raise ValueError(
                    f"gazes of a batch must have equally many frames, got {frames} and {gaze.num_frames}; encode "
                    "clips of other lengths in a call of their own"
                )
            if gaze.layout != layout:
                raise ValueError(
                    f"gazes of a batch must have one layout, got {layout} and {gaze.layout}; encode clips of other "
                    "layouts in a call of their own"
                )
        if not frames:
            raise ValueError("clips must have at least one frame, got gazes of none")
        if layout.grid.patch_px != self.tower.patch_px:
            raise ValueError(
                f"the gazes are of patches of {layout.grid.patch_px} px, the model's patches have "
                f"{self.tower.patch_px} px; bring them to its grid with autogaze.retarget.retarget(gaze, "
                f"PatchGrid(scales_px=…, patch_px={self.tower.patch_px}))"
            )
        return gazes
