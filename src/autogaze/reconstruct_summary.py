"""What was rebuilt of one source, and how well: the ``<name>.reconstruction.json`` beside every reconstruction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from autogaze.gaze import Gaze
from autogaze.picture_error import psnr_db
from autogaze.summary import REBUILT_FORMAT, ResultSummary, Settings, tuples


@dataclass(frozen=True, kw_only=True)
class ReconstructionSettings:
    """Everything that decides a reconstruction: two runs with equal settings give equal pictures."""

    gaze_file: str | None
    """The file that the gaze was read from; None where a model made it, or it was given as an object."""
    gaze_fingerprint: str | None
    """Size and time of change of that file."""
    selector: Settings | None
    """How the gaze was made; None where it was given."""
    reconstructor: str
    """Reconstructor name, path or hub id, as it was asked for."""
    reconstructor_fingerprint: str | None
    """Size and time of change of a checkpoint on this disk; None for what has no file."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionSeconds:
    """Wall-clock seconds of each stage of one source."""

    decode: float
    """Reading and converting frames."""
    gaze: float
    """Choosing patches; 0 where the gaze was given."""
    reconstruct: float
    """Rebuilding frames, and measuring their loss."""
    write: float
    """Measuring errors, drawing, and writing the files."""
    total: float
    """From opening the source to the last file."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionSummary(ResultSummary):
    """One source, what was kept of it, and how well it could be rebuilt from that."""

    FORMAT: ClassVar[str] = REBUILT_FORMAT
    KIND: ClassVar[str] = "reconstruction"

    reconstructor: str
    """Name of the reconstructor."""
    loss_unit: str
    """What a loss of 1 is."""
    loss_mean: float
    """Mean loss of the frames."""
    loss_worst: float
    """Largest loss of a frame."""
    worst_frame: int
    """Which frame that is, counted from 0 among those that were gazed at."""
    psnr_db: float | None
    """Of the squared error over all frames; None where nothing differs."""
    loss_per_frame: tuple[float, ...]
    """Loss of each frame."""
    psnr_db_per_frame: tuple[float | None, ...]
    """PSNR of each frame; None where nothing differs."""
    settings: ReconstructionSettings
    """What was asked for."""
    seconds: ReconstructionSeconds
    """Where the time went."""

    @property
    def total_seconds(self) -> float:
        """Seconds from opening the source to the last file."""
        return self.seconds.total

    def headline(self) -> str:
        """What came out, in a few words for people."""
        quality = "exact" if self.psnr_db is None else f"PSNR {self.psnr_db:.1f} dB"
        return f"{super().headline()}, {quality}, mean loss {self.loss_mean:.4f} ({self.reconstructor})"

    @classmethod
    def of(
        cls,
        gaze: Gaze,
        *,
        loss: Sequence[float],
        squared_sum: Sequence[int],
        source: str,
        source_fingerprint: str | None,
        name: str,
        files: tuple[str, ...],
        fps: float,
        reconstructor: str,
        loss_unit: str,
        settings: ReconstructionSettings,
        seconds: ReconstructionSeconds,
        warnings: tuple[str, ...] = (),
    ) -> ReconstructionSummary:
        """The summary of a reconstruction; ``squared_sum`` has each frame's sum of squared errors, in levels of 255."""
        num_values = gaze.layout.height_px * gaze.layout.width_px * 3
        worst_frame = max(range(len(loss)), key=loss.__getitem__)
        return cls._of_gaze(
            gaze,
            loss_mean=math.fsum(loss) / len(loss),
            loss_worst=loss[worst_frame],
            worst_frame=worst_frame,
            psnr_db=_finite(psnr_db(sum(squared_sum), num_values * len(squared_sum))),
            loss_per_frame=tuple(loss),
            psnr_db_per_frame=tuple(_finite(psnr_db(one, num_values)) for one in squared_sum),
            source=source,
            source_fingerprint=source_fingerprint,
            name=name,
            files=files,
            fps=fps,
            reconstructor=reconstructor,
            loss_unit=loss_unit,
            settings=settings,
            seconds=seconds,
            warnings=warnings,
        )

    @classmethod
    def _revived(cls, values: dict[str, Any]) -> dict[str, Any]:
        settings = values["settings"]
        selector = settings["selector"]
        made = ReconstructionSettings(
            **{**settings, "selector": None if selector is None else Settings(**tuples(selector))}
        )
        return {**values, "settings": made, "seconds": ReconstructionSeconds(**values["seconds"])}


def _finite(quality_db: float) -> float | None:
    """JSON has no word for infinity."""
    return quality_db if math.isfinite(quality_db) else None
