"""How far rebuilt pictures are from the true ones, frame by frame: MAE, MSE, PSNR and SSIM of 8-bit colours."""

from __future__ import annotations

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
_BAND_ROWS = 256
"""Rows of a frame that are filtered at once, which bounds memory whatever the height of the frame."""


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
    """(T,) structural similarity, see :func:`ssim`; 1 where nothing differs."""

    @property
    def capped_psnr_db(self) -> NDArray[np.float64]:
        """(T,) PSNR with ``PSNR_CEILING_DB`` in the place of what is above it, so that it can be averaged."""
        return np.minimum(self.psnr_db, PSNR_CEILING_DB)


def picture_metrics(rebuilt_THWC: Pixels, true_THWC: Pixels) -> PictureMetrics:
    """Compare pictures with the true ones; uses as many threads as torch is allowed.

    Absolute and squared errors are sums of whole numbers and so exact.

    Raises:
        ValueError: the pictures are not (T, H, W, 3) uint8 of one shape, or too small for :func:`ssim`.
        ImportError: OpenCV is not installed (extra ``evaluate``).
    """
    for pictures in (rebuilt_THWC, true_THWC):
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(f"pictures must be (T, H, W, 3) uint8, got {pictures.shape} {pictures.dtype}")
    if rebuilt_THWC.shape != true_THWC.shape:
        raise ValueError(f"pictures must have one shape, got {rebuilt_THWC.shape} and {true_THWC.shape}")
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        found_T4 = np.array(list(pool.map(_compare, rebuilt_THWC, true_THWC))).reshape(-1, 4)
    mae_T, mse_T, psnr_T, ssim_T = found_T4.T
    return PictureMetrics(mae=mae_T, mse=mse_T, psnr_db=psnr_T, ssim=ssim_T)


def _compare(rebuilt_HWC: Pixels, true_HWC: Pixels) -> tuple[float, float, float, float]:
    error = np.maximum(rebuilt_HWC, true_HWC) - np.minimum(rebuilt_HWC, true_HWC)
    absolute = int(error.sum(dtype=np.int64))
    similarity = ssim(rebuilt_HWC, true_HWC) if absolute else 1.0
    squared = int(np.square(error, dtype=np.uint16).sum(dtype=np.int64))
    mse = squared / (error.size * WHITE**2)
    return absolute / (error.size * WHITE), mse, 10 * np.log10(1 / mse) if squared else np.inf, similarity


def ssim(rebuilt_HWC: Pixels, true_HWC: Pixels) -> float:
    """Structural similarity of two (H, W, 3) uint8 pictures, at most 1: Wang et al., 2004, equation 13.

    As there and in scikit-image: a Gaussian window (σ = 1.5 px, 11 px wide), K₁ = 0.01, K₂ = 0.03, variances over
    n; the mean over channels and over the pixels that the window reaches whole. Calculated in double precision:
    variances are small differences of large numbers, and in single precision a flat picture is off by 3·10⁻⁴.

    Raises:
        ValueError: a side is shorter than the window.
        ImportError: OpenCV is not installed (extra ``evaluate``).
    """
    H, W, _ = true_HWC.shape
    if min(H, W) < SSIM_WINDOW_PX:
        raise ValueError(f"SSIM needs pictures of at least {SSIM_WINDOW_PX} × {SSIM_WINDOW_PX} px, got {W} × {H}")
    cv2 = require("cv2", extra="evaluate")
    reach = SSIM_WINDOW_PX // 2
    total = 0.0
    for top in range(0, H - 2 * reach, _BAND_ROWS):
        rows = slice(top, min(H, top + _BAND_ROWS + 2 * reach))
        total += float(_similarities(cv2, rebuilt_HWC[rows], true_HWC[rows]).sum())
    return total / ((H - 2 * reach) * (W - 2 * reach) * 3)


def _similarities(cv2: Any, rebuilt_HWC: Pixels, true_HWC: Pixels) -> NDArray[np.float64]:
    """Structural similarity around every pixel that the window reaches whole."""
    reach = SSIM_WINDOW_PX // 2
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SSIM_SIGMA_PX) ** 2)
    window /= window.sum()

    def local_mean(values_HWC: NDArray[np.float32]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = cv2.sepFilter2D(values_HWC, cv2.CV_64F, window, window)
        return means[reach:-reach, reach:-reach]

    # Up to 2 · 255² whole numbers are exact in single precision, which halves what the filter has to read.
    x, y = rebuilt_HWC.astype(np.float32), true_HWC.astype(np.float32)
    mean_x, mean_y = local_mean(x), local_mean(y)
    squares, product = mean_x * mean_x + mean_y * mean_y, 2 * (mean_x * mean_y)
    variances = local_mean(x * x + y * y) - squares
    covariance_twice = 2 * local_mean(x * y) - product
    similar: NDArray[np.float64] = (product + _C1) * (covariance_twice + _C2) / ((squares + _C1) * (variances + _C2))
    return similar
