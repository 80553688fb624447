"""Errors and warnings a user can meet; each message says what was got, what is legal and what to do."""

from __future__ import annotations


class AutoGazeError(Exception):
    """Base of the errors that autogaze raises about its input."""


class GazeFileError(AutoGazeError):
    """A file or JSON value does not hold a gaze that this version reads."""


class VideoError(AutoGazeError):
    """A video source cannot be opened, or nothing in it can be decoded."""


class CheckpointError(AutoGazeError):
    """A checkpoint is missing, incomplete, or does not fit the model."""


class OptionError(AutoGazeError, ValueError):
    """An option is not legal, or not for this model or together with another."""


class BudgetError(AutoGazeError, ValueError):
    """A ratio, threshold or other limit is not legal, or not one this selector can keep."""


class PromiseError(BudgetError):
    """A threshold is legal, and less than the calibration of this gaze model can promise."""


class TrainingError(AutoGazeError):
    """A run cannot start or go on."""


class AutoGazeWarning(UserWarning):
    """Base of what autogaze warns of, through :mod:`warnings`; the command line tells each of them once, in a line."""


class FallbackWarning(AutoGazeWarning):
    """A faster way of computing the same is not to be had here; the text says why."""


class CalibrationWarning(AutoGazeWarning):
    """A threshold is legal, and the calibration of the gaze model does not speak of it, or not of this use."""
