"""The files of an encoding: features of what was gazed at, by any vision transformer that can be made sparse."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, Unpack

import numpy as np
import torch

from autogaze.encode_summary import EncodingSeconds, EncodingSettings, EncodingSummary
from autogaze.features_file import FeatureWriter, ParquetWriter, SafetensorsWriter, columns
from autogaze.frames import Frames
from autogaze.gaze import Gaze
from autogaze.gazed import (
    Gazed,
    GazeSource,
    Origin,
    check_gaze,
    doubts,
    gaze_of,
    identity_of,
    is_folder,
    made_or_given,
    open_gazed,
)
from autogaze.grid import PatchGrid
from autogaze.loading import checkpoint_fingerprint
from autogaze.names import result_name, result_names
from autogaze.pipeline import OnProgress, Options, Recipe
from autogaze.results import Job, OnOutcome, Outcome, check_many, check_name, check_out, do_all, staging
from autogaze.retarget import retarget
from autogaze.selectors.base import CLIP_FRAMES, clips
from autogaze.summary import FEATURES_PARQUET, FEATURES_SAFETENSORS, FEATURES_SUMMARY
from autogaze.video import VideoSource
from autogaze.vision_encoders import SparseEncoder, sparsify
from autogaze.vision_encoders.loading import VisionCheckpoint, load_vision_model
from autogaze.vision_encoders.places import Tiles
from autogaze.vision_encoders.windows import Attention

FileFormat: TypeAlias = Literal["safetensors", "parquet"]
Precision: TypeAlias = Literal["float32", "float16"]
MUCH_MORE = 2.0
"""How many times the share that was chosen may be kept of the encoder's patches before that is told."""


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How features are made, beside the options that say how to gaze.

    Raises:
        ValueError: a choice is not legal.
    """

    encoder: str | os.PathLike[str]
    """Folder or hub id of a vision model of transformers, see :data:`~autogaze.vision_encoders.TOWERS`."""
    scales_px: tuple[int, ...] | None = None
    """Scales the model reads, to which gazes are brought (see :func:`~autogaze.retarget.retarget`); None: those of
    the gaze where its patches have the side of the model's, else one, the size the model was trained at."""
    attention: Attention = "frame"
    """What patches of a clip of 16 frames see of each other."""
    tiles: Tiles = "separate"
    """What the tiles of large frames are to each other."""
    file_format: FileFormat = "safetensors"
    """Parquet needs no memory for the whole video."""
    precision: Precision = "float32"
    """Of the numbers in the file."""

    def __post_init__(self) -> None:
        for name, legal in (("file_format", ("safetensors", "parquet")), ("precision", ("float32", "float16"))):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name} must be {' or '.join(legal)}, got {getattr(self, name)!r}")


def encode_to_files(
    source: VideoSource,
    out: str | os.PathLike[str],
    *,
    how: EncodeOptions,
    gaze: GazeSource | None = None,
    name: str | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    **options: Unpack[Options],
) -> EncodingSummary:
    """Gaze at a source and write the features of what was kept into the folder ``out``, made if need be.

    Writes ``<name>.features.safetensors`` or ``.parquet``, see :func:`~autogaze.features_file.columns`, and last
    ``<name>.features.json``, the summary. Each appears whole or not at all. If both are there already, made from the
    same source with the same settings, nothing is done.

    Args:
        source: see :func:`~autogaze.pipeline.gaze`.
        out: the folder.
        how: the encoder, and how it reads.
        gaze: a gaze of the source, a file that holds one, or a folder that holds ``<name>.gaze``; None: a model makes
            it on the way.
        name: what the files are called, a plain file name; None takes the source's own name without its ending.
        overwrite: whether to do again what is complete, and to replace files of those names that are no result of
            this source.
        on_progress: called after each window of frames.
        options: the options of :func:`~autogaze.pipeline.gaze`; with a gaze none but ``device`` is legal.

    Raises:
        OutputError: ``out`` is not a folder, or holds files of those names that are no result of this source; or the
            name is not a plain file name.
        GazeFileError: there is no gaze of that name, or it is damaged.
        GazeMismatchError: the gaze is of another video.
        CheckpointError: there is no such encoder, or it cannot be loaded.
        ValueError: there are options beside a gaze, or the gaze cannot be brought to the encoder's patches.
        OSError: a file cannot be written.
        AutoGazeError: as :func:`~autogaze.pipeline.gaze`.
    """
    plan = _Plan.of(how, gaze, options)
    job = plan.job(
        source, out=Path(out), name=result_name(source) if name is None else check_name(name), overwrite=overwrite
    )
    check_out(out)
    return job.do(on_progress)


def encode_many(
    sources: Sequence[VideoSource],
    out: str | os.PathLike[str],
    *,
    how: EncodeOptions,
    gaze: GazeSource | None = None,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    on_outcome: OnOutcome[EncodingSummary] | None = None,
    **options: Unpack[Options],
) -> list[Outcome[EncodingSummary]]:
    """:func:`encode_to_files` for many sources with one encoder, going on after one that fails.

    Raises:
        OutputError: ``out`` is not a folder.
        TypeError: one source was given, not a list of them.
        ValueError: one gaze was given for several sources, or options beside a gaze.
        OSError: there is no room to write, so that the other sources would fail too.
        AutoGazeError: the options are not legal, or there is no such encoder.
    """
    check_many(sources, many="encode_many", one="encode_to_files")
    check_gaze(gaze)
    if gaze is not None and len(sources) > 1 and not is_folder(gaze):
        raise ValueError(f"one gaze is of one source, got {len(sources)} sources; give the folder of their gazes")
    plan = _Plan.of(how, gaze, options)
    check_out(out)
    jobs = (
        plan.job(source, out=Path(out), name=name, overwrite=overwrite)
        for source, name in zip(sources, result_names(sources), strict=True)
    )
    return do_all(jobs, on_progress=on_progress, on_outcome=on_outcome)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """What is the same for every source."""

    how: EncodeOptions
    gaze: GazeSource | Recipe
    checkpoint: VisionCheckpoint
    encoder: SparseEncoder

    @classmethod
    def of(cls, how: EncodeOptions, gaze: GazeSource | None, options: Options) -> _Plan:
        origin = made_or_given(gaze, options)
        checkpoint = load_vision_model(how.encoder, device=options.get("device"))
        encoder = sparsify(checkpoint.model, attention=how.attention, tiles=how.tiles, antialias=True)
        plan = cls(how=how, gaze=origin, checkpoint=checkpoint, encoder=encoder)
        if isinstance(origin, Recipe):  # refuse a grid before the first video is decoded
            plan.check_grid(origin)
        return plan

    def check_grid(self, recipe: Recipe) -> None:
        """Refuse scales that gazes of no video could be brought to.

        Raises:
            ValueError: there are none of those patches, or frames of no size have them.
        """
        patch_px, scales_px, grid = self.encoder.tower.patch_px, self.how.scales_px, recipe.selector.grid
        if scales_px is not None:
            theirs = PatchGrid(scales_px=scales_px, patch_px=patch_px)
            if recipe.settings.mode == "tiles" and theirs.num_scales == grid.num_scales:
                return  # n × n tiles may fit; which n, the video tells
        side_px = grid.scales_px[-1]
        self.reads(
            Gaze.from_mask(np.zeros((1, grid.num_patches), bool), recipe.layout(height_px=side_px, width_px=side_px))
        )

    def reads(self, gaze: Gaze) -> Gaze:
        """A gaze in patches that the encoder reads.

        Raises:
            ValueError: it cannot be brought to them.
        """
        patch_px, scales_px = self.encoder.tower.patch_px, self.how.scales_px
        if scales_px is None:
            if gaze.layout.grid.patch_px == patch_px:
                return gaze
            scales_px = (self.checkpoint.image_px,)
        return retarget(gaze, PatchGrid(scales_px=scales_px, patch_px=patch_px))

    def job(self, source: VideoSource, *, out: Path, name: str, overwrite: bool) -> _Job:
        gaze, how = gaze_of(name, self.gaze), self.how
        file, identity = identity_of(gaze)
        path = Path(how.encoder)
        settings = EncodingSettings(
            gaze_file=file,
            gaze_fingerprint=identity,
            selector=gaze.settings if isinstance(gaze, Recipe) else None,
            encoder=os.fspath(how.encoder),
            encoder_fingerprint=checkpoint_fingerprint(path) if path.exists() else None,
            scales_px=how.scales_px,
            attention=how.attention,
            tiles=how.tiles,
            precision=how.precision,
        )
        return _Job(source=source, out=out, name=name, overwrite=overwrite, gaze=gaze, plan=self, settings=settings)


@dataclass(kw_only=True, eq=False)
class _Tally:
    """What is known of the frames encoded so far."""

    gazes: list[Gaze] = field(default_factory=list)
    chosen: int = 0
    chosen_of: int = 0
    features: int = 0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0

    def add(self, gaze: Gaze, read: Gaze) -> None:
        """Count a clip's gaze, and what of the encoder's patches that is."""
        self.gazes.append(read)
        self.chosen += gaze.num_gazes
        self.chosen_of += gaze.num_patches

    def warnings(self) -> tuple[str, ...]:
        """What to know of a gaze that means far more patches to the encoder than were chosen."""
        read = sum(gaze.num_gazes for gaze in self.gazes) / max(1, sum(gaze.num_patches for gaze in self.gazes))
        chosen = self.chosen / max(1, self.chosen_of)
        if read <= MUCH_MORE * chosen:
            return ()
        return (
            f"{chosen:.1%} of the patches were chosen, and they cover {read:.1%} of the encoder's: coarse patches are "
            "many fine ones; an encoder that reads all scales of the gaze saves more",
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job(Job[EncodingSummary]):
    """One source to be encoded."""

    gaze: Origin
    plan: _Plan
    settings: EncodingSettings

    def endings(self) -> tuple[str, ...]:
        file = FEATURES_PARQUET if self.plan.how.file_format == "parquet" else FEATURES_SAFETENSORS
        return file, FEATURES_SUMMARY

    def optional_endings(self) -> tuple[str, ...]:
        return FEATURES_PARQUET, FEATURES_SAFETENSORS

    def load_summary(self) -> EncodingSummary:
        return EncodingSummary.load(self.summary_path)

    def has_settings_of(self, summary: EncodingSummary) -> bool:
        # Where a gaze lies does not matter if it is the same.
        return replace(summary.settings, gaze_file=self.settings.gaze_file) == self.settings

    def run(self, on_progress: OnProgress | None) -> EncodingSummary:
        fingerprint_before = self.fingerprint()
        model: Any = self.plan.checkpoint.model
        with (
            open_gazed(self.source, self.gaze, on_progress=on_progress) as stream,
            staging(self.out, self.name) as folder,
        ):
            tally = self._write(stream, folder)
            summary = EncodingSummary.of(
                Gaze.concatenate(tally.gazes),
                source=self.source_name,
                source_fingerprint=fingerprint_before,
                name=self.name,
                files=self.files(),
                fps=stream.fps,
                encoder_class=type(model).__name__,
                channels=model.config.hidden_size,
                features=tally.features,
                settings=self.settings,
                seconds=EncodingSeconds(
                    decode=stream.reader.decode_seconds,
                    gaze=stream.gaze_seconds,
                    encode=tally.encode_seconds,
                    write=tally.write_seconds,
                    total=stream.seconds,
                ),
                warnings=(*doubts(self.gaze, fingerprint_before), *stream.reader.warnings, *tally.warnings()),
            )
            summary.save(folder / f"{self.name}{FEATURES_SUMMARY}")
            self.publish(folder)
        return summary

    def _write(self, stream: Gazed, folder: Path) -> _Tally:
        tally, last = _Tally(), self.plan.encoder.tower.frames_per_patch
        with self._writer(folder) as writer:
            done = 0
            for frames, gaze in whole_clips(stream):
                started = time.perf_counter()
                read = self.plan.reads(gaze)
                feature_NC, of = self._features(frames, read)
                encoded = time.perf_counter()
                writer.write(feature_NC, columns(of, first_frame=done, frames_per_patch=last))
                tally.add(gaze, read)
                tally.features += len(feature_NC)
                tally.encode_seconds += encoded - started
                tally.write_seconds += time.perf_counter() - encoded
                done += len(frames)
            started = time.perf_counter()
        tally.write_seconds += time.perf_counter() - started
        return tally

    def _writer(self, folder: Path) -> FeatureWriter:
        how, model = self.plan.how, self.plan.checkpoint.model
        kind = ParquetWriter if how.file_format == "parquet" else SafetensorsWriter
        config: Any = model.config
        header = {"encoder": os.fspath(how.encoder), "encoder_class": type(model).__name__, "attention": how.attention}
        dtype = np.float16 if how.precision == "float16" else np.float32
        return kind(folder / self.files()[0], header=header, channels=config.hidden_size, dtype=dtype)

    @torch.inference_mode()
    def _features(self, frames: Frames, gaze: Gaze) -> tuple[np.ndarray[Any, Any], Gaze]:
        """Features of a clip, and the gaze that they belong to."""
        plan = self.plan
        device = plan.encoder.tower.weight.device
        colours = torch.from_numpy(np.ascontiguousarray(frames.rgb)).to(device).permute(0, 3, 1, 2).float() / 255
        out = plan.encoder(plan.checkpoint.space.from_unit(colours)[None], gaze)
        precision = torch.float16 if plan.how.precision == "float16" else torch.float32
        return out.features.to(precision).cpu().numpy(), out.gazes[0]


def whole_clips(stream: Iterable[tuple[Frames, Gaze]]) -> Iterator[tuple[Frames, Gaze]]:
    """Windows of frames and their gazes, cut and joined to clips of 16 frames; the last may be shorter."""
    held: list[tuple[Frames, Gaze]] = []
    seen = 0
    for frames, gaze in stream:
        start = 0
        for part, _ in clips(frames, start=seen):
            held.append((part, gaze[start : start + len(part)]))
            start += len(part)
            if (seen + start) % CLIP_FRAMES == 0:
                yield _joined(held)
                held = []
        seen += len(frames)
    if held:
        yield _joined(held)


def _joined(parts: Sequence[tuple[Frames, Gaze]]) -> tuple[Frames, Gaze]:
    if len(parts) == 1:
        return parts[0]
    frames = Frames(
        rgb=np.concatenate([frames.rgb for frames, _ in parts]),
        time_seconds=np.concatenate([frames.time_seconds for frames, _ in parts]),
        number=np.concatenate([frames.number for frames, _ in parts]),
    )
    return frames, Gaze.concatenate([gaze for _, gaze in parts])
