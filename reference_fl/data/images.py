"""Images as a network takes them: normalised; and augmented, for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F


def normalise(
    images: NDArray[np.uint8], top: int, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """(images / top - mean) / std, channel by channel.

    Parameters
    ----------
    images : numpy.ndarray
        uint8, shape (samples, channels, height, width).
    top : int
        The value of a white pixel.
    mean, std : sequence of float
        One number a channel.

    Returns
    -------
    torch.Tensor
        float32, same shape, contiguous.
    """
    shift = np.asarray(mean, np.float32).reshape(-1, 1, 1)
    spread = np.asarray(std, np.float32).reshape(-1, 1, 1)
    out = images.astype(np.float32, order="C")  # the one copy; the rest is in place
    out /= np.float32(top)
    out -= shift
    out /= spread
    return torch.from_numpy(out)


@dataclass(frozen=True)
class CropAndFlip:
    """Random crop of the padded image, and a flip from left to right in half of all cases.

    Attributes
    ----------
    fill : tuple of float
        The normalised value of a black pixel, for each channel: with it the border is padded.
    pad : int
        Pixels at each side; a crop has the size of the image.
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
            On the CPU; gives three numbers a sample.

        Returns
        -------
        torch.Tensor
            New, of the same shape and dtype.
        """
        n, _, height, width = x.shape
        top, left = torch.randint(0, 2 * self.pad + 1, (2, n, 1), generator=generator)
        flip = torch.randint(0, 2, (n, 1), generator=generator, dtype=torch.bool)
        columns = torch.arange(width).expand(n, width)
        rows = (top + torch.arange(height)).to(x.device)
        columns = (left + torch.where(flip, columns.flip(1), columns)).to(x.device)
        sample = torch.arange(n, device=x.device)[:, None, None]
        out = self._padded(x).permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
        return out.permute(0, 3, 1, 2).contiguous()

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        fill = torch.tensor(self.fill, dtype=x.dtype, device=x.device).view(-1, 1, 1)
        return F.pad(x - fill, (self.pad,) * 4) + fill


def crop_and_flip(mean: Sequence[float], std: Sequence[float]) -> CropAndFlip:
    """The augmentation of images that `normalise` made with this mean and standard deviation."""
    return CropAndFlip(tuple(-m / s for m, s in zip(mean, std, strict=True)))
