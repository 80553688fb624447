"""How far a rebuilt picture is from the true one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autogaze.selectors.distortion import picture_error

# Shape letters: H × W pixels of a picture.


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureError:
    """The error of one picture, exact: it is made of whole numbers."""

    absolute: NDArray[np.uint8]
    """(H, W, 3) absolute differences in levels of 255."""

    @classmethod
    def between(cls, true: NDArray[np.uint8], rebuilt: NDArray[np.uint8]) -> PictureError:
        """The error of an (H, W, 3) picture that should be ``true``.

        Raises:
            ValueError: the two are not of one shape.
        """
        if true.shape != rebuilt.shape:
            raise ValueError(f"pictures to compare must have one shape, got {true.shape} and {rebuilt.shape}")
        return cls(absolute=picture_error(true, rebuilt))

    @cached_property
    def squared_sum(self) -> int:
        """Sum of the squared differences."""
        return int(np.square(self.absolute, dtype=np.uint16).sum(dtype=np.int64))

    @cached_property
    def mean_levels(self) -> float:
        """Mean absolute difference in levels of 255."""
        return float(self.absolute.mean())

    @property
    def psnr_db(self) -> float:
        """Peak signal-to-noise ratio; infinite where nothing differs."""
        return psnr_db(self.squared_sum, self.absolute.size)


def psnr_db(squared_sum: int, num_values: int) -> float:
    """Peak signal-to-noise ratio of ``num_values`` pixels times channels whose squared errors, in levels of 255, have
    this sum; infinite where nothing differs.
    """
    return 10 * math.log10(255**2 * num_values / squared_sum) if squared_sum else math.inf
