"""Calibrations that were never fitted."""

from autogaze.models.autogaze.calibration import Calibration, Promise


def promise(level: float, threshold: float) -> Promise:
    return Promise(
        threshold=threshold,
        level=level,
        kept_share=0.1,
        predicted=level * 0.9,
        loss=threshold * 0.7,
        above_level=0.5,
        above_threshold=0.08,
    )


def calibration(*pairs: tuple[float, float], weights: str = "sha256:0", positions: str = "true") -> Calibration:
    return Calibration(
        alpha=0.1,
        reconstructor="canvas",
        loss_unit="mean absolute error",
        weights=weights,
        positions=positions,
        ratio=0.75,
        mode="resize",
        clips=20,
        frames=320,
        clips_sha256="0" * 64,
        seed=0,
        promises=tuple(promise(level, threshold) for level, threshold in pairs),
        versions={"autogaze": "0"},
    )
