"""``autogaze encode``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from autogaze.commands.batch import GazeOptions, SourceOptions, SpeechOptions
from autogaze.commands.words import argument
from autogaze.errors import AutoGazeError

if TYPE_CHECKING:
    from autogaze.encode_summary import EncodingSummary
    from autogaze.pipeline import OnProgress
    from autogaze.results import OnOutcome


@dataclass(frozen=True, kw_only=True)
class _Encoding(SourceOptions):
    encoder: Annotated[str, tyro.conf.arg(metavar="PATH|ID")]
    """Folder or hub id of a vision model: SigLIP, SigLIP 2, CLIP, DINOv2, DINOv3, ViT, DeiT, ViT-MAE, V-JEPA 2."""
    gaze: Annotated[Path | None, argument("FILE|DIR")] = None
    """Encode what this .gaze file kept, or NAME.gaze in this folder; without it the model below gazes."""
    scales: Annotated[str | None, argument("PX[+PX...]")] = None
    """Scales the encoder reads, such as 224 or 56+112+196+392; its own size where its patches are not the gaze's."""
    attention: Literal["frame", "block_causal", "causal", "bidirectional"] = "frame"
    """What patches of a clip of 16 frames see: their frame, earlier ones too, earlier patches, or all."""
    joint: Annotated[bool, argument(None)] = False
    """The tiles of a frame see each other and have positions of the whole frame; else each is a clip of its own."""
    format: Literal["safetensors", "parquet"] = "safetensors"
    """Kind of file; Parquet needs no memory for the whole video."""
    half: Annotated[bool, argument(None)] = False
    """Write half precision."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("features")
    """Folder for the results."""


# The last base comes first in the help.
@dataclass(frozen=True, kw_only=True)
class EncodeCommand(SpeechOptions, GazeOptions, _Encoding):
    """Write the features that a vision transformer gives the patches that were kept, and nothing else is computed.

    Writes NAME.features.safetensors (or .parquet) with feature, frame, time, scale and box of every kept patch, and
    NAME.features.json. What is complete already is skipped.
    """

    def run(self) -> int:
        """Encode all sources; 2 if one of them failed."""
        from autogaze.encode import EncodeOptions, encode_many
        from autogaze.results import check_out
        from autogaze.video import find_sources

        options = self.options()
        if self.gaze is not None:
            if self.chosen():
                raise AutoGazeError(
                    f"with --gaze the patches are chosen already; leave out {' and '.join(self.chosen())}, or --gaze"
                )
            options = {"device": self.device}
        how = EncodeOptions(
            encoder=self.encoder,
            scales_px=_scales(self.scales),
            attention=self.attention,
            tiles="joint" if self.joint else "separate",
            file_format=self.format,
            precision="float16" if self.half else "float32",
        )
        check_out(self.out)
        found = find_sources(self.sources)

        def work(on_progress: OnProgress, on_outcome: OnOutcome[EncodingSummary]) -> None:
            encode_many(
                found,
                self.out,
                how=how,
                gaze=self.gaze,
                overwrite=self.overwrite,
                on_progress=on_progress,
                on_outcome=on_outcome,
                **options,
            )

        return self.run_batch(work, num_sources=len(found), out=self.out)


def _scales(words: str | None) -> tuple[int, ...] | None:
    if words is None:
        return None
    try:
        return tuple(int(word) for word in words.split("+"))
    except ValueError:
        raise AutoGazeError(
            f"--scales must be sides in pixels joined by +, such as 56+112+196+392, got {words!r}"
        ) from None
