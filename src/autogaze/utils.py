"""Small helpers under the names that users of the published package import."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_UINT8_TO_UNIT = 1 / 255


def get_gazing_pos_from_gazing_mask(gazing_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of a mask, always as a pair.

    Args:
        gazing_mask: (B, N) of any dtype, not 0 where a patch was gazed at.

    Returns:
        gazing_pos: (B, K) int64 ascending positions, K the most that any row has, −1 in padded slots.
        if_padded_gazing: (B, K) bool, true in padded slots, which are the last of each row.

    Raises:
        ValueError: the mask is not (B, N).
    """
    if gazing_mask.ndim != 2:
        raise ValueError(f"gazing_mask must be (B, N), got {tuple(gazing_mask.shape)}")
    gazed = gazing_mask != 0
    count = gazed.sum(dim=1)
    K = int(count.max()) if len(count) else 0
    position = gazed.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :K]
    padded = torch.arange(K, device=gazing_mask.device) >= count[:, None]
    return position.masked_fill(padded, -1), padded


class UnNormalize:
    """Undoes a normalisation by mean and standard deviation, channel by channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], rescale_factor: float | None = None) -> None:
        """See the class.

        Args:
            mean: what was subtracted from each channel.
            std: what each channel was divided by.
            rescale_factor: what pixels of 0..255 had been multiplied by before; when given, the result is brought to
                0..1 for display, and clamped. Any other factor than 1 / 255 means that 1 was subtracted as well.

        Raises:
            ValueError: mean and std are not equally long.
        """
        if len(mean) != len(std):
            raise ValueError(f"mean and std must be equally long, got {len(mean)} and {len(std)} numbers")
        self.mean, self.std, self.rescale_factor = tuple(mean), tuple(std), rescale_factor

    def __call__(self, image: Tensor) -> Tensor:
        """A new tensor ``image · std + mean`` of (…, C, H, W) floats.

        Raises:
            ValueError: the image does not have as many channels as there are means.
        """
        if image.ndim < 3 or image.shape[-3] != len(self.mean):
            raise ValueError(f"image must be (…, {len(self.mean)}, H, W), got {tuple(image.shape)}")
        result = image * image.new_tensor(self.std)[:, None, None] + image.new_tensor(self.mean)[:, None, None]
        if self.rescale_factor is None:
            return result
        if abs(self.rescale_factor - _UINT8_TO_UNIT) > 1e-6:
            result = result / 2 + 0.5
        return result.clamp(0, 1)
