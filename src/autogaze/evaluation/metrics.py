"""How far rebuilt pictures are from the true ones, frame by frame: MAE, MSE, PSNR and SSIM of 8-bit colours."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autogaze.evaluation.rows import PSNR_CEILING_DB
from autogaze.extras import require

# Shape letters: T frames of H × W pixels and C = 3 channels.

Pixels = NDArray[np.uint8]

WHITE = 255
SSIM_SIGMA_PX = 1.5
SSIM_WINDOW_PX = 11
_C1, _C2 = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2
_BAND_ROWS = 64
"""Rows of a frame that are compared at once: few enough to stay in a processor's cache, whatever the frame's size."""
_REACH_PX = SSIM_WINDOW_PX // 2


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureMetrics:
    """How far the pictures of T frames are from the true ones; colours in 0…1."""

    mae: NDArray[np.float64]
    """(T,) mean absolute error over pixels and channels."""
    mse: NDArray[np.float64]
    """(T,) mean squared error over pixels and channels."""
    psnr_db: NDArray[np.float64]
    """(T,) 10 · log₁₀(1 / MSE); infinite where nothing differs."""
    ssim: NDArray[np.float64]
    """(T,) structural similarity, at most 1, and 1 where nothing differs."""

    @property
    def capped_psnr_db(self) -> NDArray[np.float64]:
        """(T,) PSNR with ``PSNR_CEILING_DB`` in the place of what is above it, so that it can be averaged."""
        return np.minimum(self.psnr_db, PSNR_CEILING_DB)


def picture_metrics(rebuilt_THWC: Pixels, true_THWC: Pixels) -> PictureMetrics:
    """Compare pictures with the true ones; uses as many threads as torch is allowed.

    Absolute and squared errors are sums of whole numbers and so exact. SSIM is that of Wang et al., 2004, equation 13,
    as scikit-image has it with their settings: a Gaussian window (σ = 1.5 px, 11 px wide), K₁ = 0.01, K₂ = 0.03,
    variances over n, the mean over channels and over the pixels that the window reaches whole. It is calculated in
    double precision: variances are small differences of large numbers, and in single precision that of a flat picture
    is off by 3·10⁻⁴.

    Raises:
        ValueError: the pictures are not (T, H, W, 3) uint8 of one shape, or smaller than the window of SSIM.
        ImportError: OpenCV is not installed (extra ``evaluate``).
    """
    for pictures in (rebuilt_THWC, true_THWC):
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(f"pictures must be (T, H, W, 3) uint8, got {pictures.shape} {pictures.dtype}")
    if rebuilt_THWC.shape != true_THWC.shape:
        raise ValueError(f"pictures must have one shape, got {rebuilt_THWC.shape} and {true_THWC.shape}")
    T, H, W, _ = true_THWC.shape
    check_size(height_px=H, width_px=W)
    found_T4 = np.empty((T, 4))

    def compare(first: int) -> None:
        bands = _Bands(width_px=W)
        for t in range(first, T, threads):
            found_T4[t] = bands.compare(rebuilt_THWC[t], true_THWC[t])

    threads = max(1, min(T, torch.get_num_threads()))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(compare, range(threads)))
    mae_T, mse_T, psnr_T, ssim_T = found_T4.T.copy()
    return PictureMetrics(mae=mae_T, mse=mse_T, psnr_db=psnr_T, ssim=ssim_T)


def check_size(*, height_px: int, width_px: int) -> None:
    """Refuse pictures that the window of SSIM does not fit into.

    Raises:
        ValueError: a side is shorter than the window.
    """
    if min(height_px, width_px) < SSIM_WINDOW_PX:
        raise ValueError(
            f"SSIM needs pictures of at least {SSIM_WINDOW_PX} × {SSIM_WINDOW_PX} px, got {width_px} × {height_px}"
        )


class _Bands:
    """Compares pictures of one width, a band of rows at a time, always in the same memory: asking the system for it
    anew takes longer than the arithmetic.

    Raises:
        ImportError: OpenCV is not installed (extra ``evaluate``).
    """

    def __init__(self, *, width_px: int) -> None:
        self._cv2: Any = require("cv2", extra="evaluate")
        distance_px = np.arange(-_REACH_PX, _REACH_PX + 1) / SSIM_SIGMA_PX
        window = np.exp(-0.5 * distance_px**2)
        self._window = window / window.sum()
        shape = (_BAND_ROWS + 2 * _REACH_PX, width_px, 3)
        # Whole numbers up to 2 · 255² are exact in single precision, which halves what the filter has to read.
        self._colours = [np.empty(shape, np.float32) for _ in range(3)]
        self._means = [np.empty(shape) for _ in range(5)]

    def compare(self, rebuilt_HWC: Pixels, true_HWC: Pixels) -> tuple[float, float, float, float]:
        """MAE, MSE, PSNR in dB and SSIM of two (H, W, 3) uint8 pictures."""
        absolute = squared = 0.0
        for top in range(0, len(true_HWC), _BAND_ROWS):
            rows = slice(top, top + _BAND_ROWS)
            error = self._colours[0][: len(true_HWC[rows])]
            np.subtract(rebuilt_HWC[rows], true_HWC[rows], out=error, dtype=np.float32)
            np.abs(error, out=error)
            absolute += float(error.sum(dtype=np.float64))
            np.square(error, out=error)
            squared += float(error.sum(dtype=np.float64))
        mse = squared / (true_HWC.size * WHITE**2)
        psnr_db = 10 * math.log10(1 / mse) if squared else math.inf
        similarity = self._ssim(rebuilt_HWC, true_HWC) if squared else 1.0
        return absolute / (true_HWC.size * WHITE), mse, psnr_db, similarity

    def _ssim(self, rebuilt_HWC: Pixels, true_HWC: Pixels) -> float:
        H, W, _ = true_HWC.shape
        total = 0.0
        for top in range(0, H - 2 * _REACH_PX, _BAND_ROWS):
            rows = slice(top, top + _BAND_ROWS + 2 * _REACH_PX)
            total += self._sum_of_similarities(rebuilt_HWC[rows], true_HWC[rows])
        return total / int((H - 2 * _REACH_PX) * (W - 2 * _REACH_PX) * 3)

    def _sum_of_similarities(self, rebuilt_HWC: Pixels, true_HWC: Pixels) -> float:
        """Sum over the pixels that the window reaches whole, and over channels.

        ``(2·μx·μy + C₁)(2·σxy + C₂) / ((μx² + μy² + C₁)(σx² + σy² + C₂))``, step by step in place.
        """
        height = len(true_HWC)
        x, y, both = (colours[:height] for colours in self._colours)
        x[...], y[...] = rebuilt_HWC, true_HWC
        mean_x, mean_y = self._local_mean(x, 0), self._local_mean(y, 1)
        covariance = self._local_mean(np.multiply(x, y, out=both), 2)
        np.add(np.square(x, out=x), np.square(y, out=y), out=both)
        variances = self._local_mean(both, 3)
        product = np.multiply(mean_x, mean_y, out=self._inside(4, height))
        squares = np.add(np.square(mean_x, out=mean_x), np.square(mean_y, out=mean_y), out=mean_x)
        covariance -= product
        variances -= squares
        for twice, constant in ((product, _C1), (covariance, _C2)):
            twice *= 2
            twice += constant
        squares += _C1
        variances += _C2
        product *= covariance
        product /= np.multiply(squares, variances, out=squares)
        return float(product.sum())

    def _local_mean(self, values_HWC: NDArray[np.float32], number: int) -> NDArray[np.float64]:
        mean = self._means[number][: len(values_HWC)]
        self._cv2.sepFilter2D(values_HWC, self._cv2.CV_64F, self._window, self._window, dst=mean)
        return self._inside(number, len(values_HWC))

    def _inside(self, number: int, height: int) -> NDArray[np.float64]:
        """The part of a band that the window reaches whole."""
        return self._means[number][_REACH_PX : height - _REACH_PX, _REACH_PX:-_REACH_PX]
