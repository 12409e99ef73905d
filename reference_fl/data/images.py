"""Preparing images for a network: normalisation, and augmentation for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


def normalise(
    images: NDArray[np.uint8], top: int, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Normalise images: (images / top - mean) / std, channel by channel.

    Parameters
    ----------
    images : numpy.ndarray
        uint8, shape (samples, channels, height, width).
    top : int
        The value of a white pixel.
    mean, std : sequence of float
        One number for each channel.

    Returns
    -------
    torch.Tensor
        float32, same shape, contiguous.
    """
    shift = np.asarray(mean, np.float32).reshape(-1, 1, 1)
    spread = np.asarray(std, np.float32).reshape(-1, 1, 1)
    out = images.astype(np.float32, order="C")  # the only copy; the rest works in place
    out /= np.float32(top)
    out -= shift
    out /= spread
    return torch.from_numpy(out)


@dataclass(frozen=True)
class CropAndFlip:
    """Crop the padded image at a random position, and flip it horizontally with probability 1/2.

    Attributes
    ----------
    fill : tuple of float
        The value of the padding, for each channel: that of a black pixel after normalisation.
    pad : int
        Pixels added at each side; the crop has the size of the original image.
    """

    fill: tuple[float, ...]
    pad: int = 4

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Augment a batch.

        Parameters
        ----------
        x : torch.Tensor
            float32, shape (samples, channels, height, width). Unchanged.
        generator : torch.Generator
            On the CPU; three numbers are drawn for each sample.

        Returns
        -------
        torch.Tensor
            New, of the same shape and dtype.
        """
        n, channels, height, width = x.shape
        top, left = torch.randint(0, 2 * self.pad + 1, (2, n, 1), generator=generator)
        flip = torch.randint(0, 2, (n, 1), generator=generator, dtype=torch.bool)
        columns = torch.arange(width).expand(n, width)
        columns = left + torch.where(flip, columns.flip(1), columns)
        rows = (top + torch.arange(height)) * (width + 2 * self.pad)
        place = (rows[:, :, None] + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
        return self._padded(x).flatten(2).gather(2, place.to(x.device)).view(x.shape)

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        n, _, height, width = x.shape
        black = torch.tensor(self.fill, dtype=x.dtype, device=x.device).view(1, -1, 1, 1)
        out = black.repeat(n, 1, height + 2 * self.pad, width + 2 * self.pad)
        out[:, :, self.pad : self.pad + height, self.pad : self.pad + width] = x
        return out


def crop_and_flip(mean: Sequence[float], std: Sequence[float]) -> CropAndFlip:
    """The augmentation for images that were normalised with this mean and standard deviation."""
    return CropAndFlip(tuple(-m / s for m, s in zip(mean, std, strict=True)))
