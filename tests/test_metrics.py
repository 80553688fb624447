"""Errors, PSNR and SSIM are those of the libraries that people compare with."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autogaze.evaluation.metrics import picture_metrics
from autogaze.evaluation.rows import PSNR_CEILING_DB

data = pytest.importorskip("skimage.data")
skimage = pytest.importorskip("skimage.metrics")

Pixels = NDArray[np.uint8]


def noise(T: int, height_px: int, width_px: int, *, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (T, height_px, width_px, 3), dtype=np.uint8)


def disturbed(rgb: Pixels, *, by: int, seed: int = 1) -> Pixels:
    change = np.random.default_rng(seed).integers(-by, by + 1, rgb.shape)
    return np.clip(rgb.astype(int) + change, 0, 255).astype(np.uint8)


def real(T: int) -> Pixels:
    picture = data.astronaut()
    return np.stack([picture[100 + 3 * t : 244 + 3 * t, 150:290] for t in range(T)])


def flat(*colours: int) -> Pixels:
    return np.stack([np.full((24, 30, 3), colour, np.uint8) for colour in colours])


def reference_ssim(rebuilt: Pixels, true: Pixels) -> list[float]:
    return [
        skimage.structural_similarity(
            x / 255,
            y / 255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=-1,
        )
        for x, y in zip(rebuilt, true, strict=True)
    ]


PAIRS = {
    "noise": (disturbed(noise(3, 40, 56), by=30), noise(3, 40, 56)),
    "nothing in common": (noise(2, 33, 47, seed=5), noise(2, 33, 47, seed=6)),
    "a real picture, disturbed": (disturbed(real(2), by=12), real(2)),
    "a real picture, moved": (real(2)[::-1], real(2)),
    "taller than a band": (disturbed(noise(1, 200, 16), by=60), noise(1, 200, 16)),
    "flat": (flat(201, 0, 255), flat(200, 1, 0)),
    "as small as the window": (disturbed(noise(2, 11, 11), by=9), noise(2, 11, 11)),
}


@pytest.mark.parametrize("name", PAIRS)
class TestEqualsScikitImage:
    def test_ssim(self, name: str) -> None:
        rebuilt, true = PAIRS[name]
        np.testing.assert_allclose(picture_metrics(rebuilt, true).ssim, reference_ssim(rebuilt, true), atol=1e-12)

    def test_errors_and_psnr(self, name: str) -> None:
        rebuilt, true = PAIRS[name]
        found = picture_metrics(rebuilt, true)
        for t, (x, y) in enumerate(zip(rebuilt / 255, true / 255, strict=True)):
            assert found.mse[t] == pytest.approx(skimage.mean_squared_error(y, x), rel=1e-12)
            assert found.psnr_db[t] == pytest.approx(skimage.peak_signal_noise_ratio(y, x, data_range=1.0), rel=1e-12)
            assert found.mae[t] == pytest.approx(np.abs(x - y).mean(), rel=1e-12)


def test_ssim_equals_torchmetrics_where_the_window_reaches_whole() -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    rebuilt, true = disturbed(real(2)[:, :32, :40], by=25), real(2)[:, :32, :40]
    x, y = (torch.from_numpy(np.ascontiguousarray(p)).permute(0, 3, 1, 2).double() / 255 for p in (rebuilt, true))
    _, everywhere = image.structural_similarity_index_measure(
        x, y, data_range=1.0, reduction="none", return_full_image=True
    )
    expected = everywhere[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    np.testing.assert_allclose(picture_metrics(rebuilt, true).ssim, expected, atol=1e-12)


def test_what_does_not_differ_is_exact() -> None:
    true = noise(2, 20, 20)
    rebuilt = true.copy()
    rebuilt[1, 3, 4, 0] ^= 1
    found = picture_metrics(rebuilt, true)
    assert (found.mae[0], found.mse[0], found.psnr_db[0], found.ssim[0]) == (0, 0, np.inf, 1)
    assert found.mae[1] == 1 / (255 * 1200)
    assert found.mse[1] == 1 / (255**2 * 1200)
    assert found.capped_psnr_db.tolist() == [PSNR_CEILING_DB, found.psnr_db[1]]


def test_black_for_white_is_the_worst() -> None:
    found = picture_metrics(flat(0), flat(255))
    assert (found.mae[0], found.mse[0], found.psnr_db[0]) == (1, 1, 0)
    assert found.ssim[0] == pytest.approx(1e-4 / (1 + 1e-4))


def test_order_of_the_pictures_in_memory_and_of_the_two_plays_no_part() -> None:
    rebuilt, true = PAIRS["noise"]
    found = picture_metrics(rebuilt, true)
    swapped = picture_metrics(np.asfortranarray(true), rebuilt)
    for name in ("mae", "mse", "psnr_db", "ssim"):
        np.testing.assert_allclose(getattr(swapped, name), getattr(found, name), rtol=1e-12)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
def test_the_number_of_threads_changes_nothing() -> None:
    rebuilt, true = disturbed(noise(5, 90, 40), by=20), noise(5, 90, 40)
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        metrics = picture_metrics(rebuilt, true)
        found.append(np.stack([metrics.mae, metrics.mse, metrics.psnr_db, metrics.ssim]))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("rebuilt", "true", "message"),
    [
        (noise(2, 20, 20), noise(3, 20, 20), r"one shape, got \(2, 20, 20, 3\) and \(3, 20, 20, 3\)"),
        (noise(2, 20, 20).astype(np.float32), noise(2, 20, 20), r"\(T, H, W, 3\) uint8, got \(2, 20, 20, 3\) float32"),
        (noise(2, 20, 20)[0], noise(2, 20, 20)[0], r"got \(20, 20, 3\) uint8"),
        (noise(2, 10, 20), noise(2, 10, 20), "at least 11 × 11 px, got 20 × 10"),
    ],
)
def test_pictures_that_cannot_be_compared(rebuilt: Pixels, true: Pixels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        picture_metrics(rebuilt, true)
