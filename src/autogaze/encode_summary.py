"""What was encoded of one source: the ``<name>.features.json`` beside every file of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from autogaze.gaze import Gaze
from autogaze.summary import FEATURES_FORMAT, ResultSummary, Settings, tuples


@dataclass(frozen=True, kw_only=True)
class EncodingSettings:
    """Everything that decides the features: two runs with equal settings give equal files."""

    gaze_file: str | None
    """The file that the gaze was read from; None where a model made it, or it was given as an object."""
    gaze_fingerprint: str | None
    """Size and time of change of that file."""
    selector: Settings | None
    """How the gaze was made; None where it was given."""
    encoder: str
    """Folder or hub id of the vision model."""
    encoder_fingerprint: str | None
    """Size and time of change of a checkpoint on this disk; None for what has no file."""
    scales_px: tuple[int, ...] | None
    """Scales that the gaze was brought to; None: its own, or the size the model was trained at."""
    attention: str
    """What patches see of each other."""
    tiles: str
    """What the tiles of large frames are to each other."""
    precision: str
    """Of the numbers in the file."""


@dataclass(frozen=True, kw_only=True)
class EncodingSeconds:
    """Wall-clock seconds of each stage of one source."""

    decode: float
    """Reading and converting frames."""
    gaze: float
    """Choosing patches; 0 where the gaze was given."""
    encode: float
    """Computing features."""
    write: float
    """Writing the file."""
    total: float
    """From opening the source to the last file."""


@dataclass(frozen=True, kw_only=True)
class EncodingSummary(ResultSummary):
    """One source, what was kept of it, and the features of that; kept patches count in the model's grid."""

    FORMAT: ClassVar[str] = FEATURES_FORMAT
    KIND: ClassVar[str] = "file of features"

    encoder_class: str
    """Class of the vision model."""
    channels: int
    """Numbers of one feature."""
    features: int
    """Features in the file: the kept patches, or fewer where a patch lasts several frames."""
    settings: EncodingSettings
    """What was asked for."""
    seconds: EncodingSeconds
    """Where the time went."""

    @property
    def total_seconds(self) -> float:
        """Seconds from opening the source to the last file."""
        return self.seconds.total

    def headline(self) -> str:
        """What came out, in a few words for people."""
        return f"{super().headline()}, {self.features:,} features of {self.channels} ({self.encoder_class})"

    @classmethod
    def of(cls, gaze: Gaze, **values: Any) -> EncodingSummary:
        """The summary of an encoding; ``values`` are what the gaze does not tell."""
        return cls._of_gaze(gaze, **values)

    @classmethod
    def _revived(cls, values: dict[str, Any]) -> dict[str, Any]:
        settings = values["settings"]
        selector = settings["selector"]
        made = EncodingSettings(
            **tuples({**settings, "selector": None if selector is None else Settings(**tuples(selector))})
        )
        return {**values, "settings": made, "seconds": EncodingSeconds(**values["seconds"])}
