"""Masked noise of many clients at once: unit noise, progressive stochastic masking, what masks reveal.

The noise of an element is scale * z, with z of unit scale: uniform in (-1, 1), standard normal, or +-1. The
formulas are those of `fedmrn_torch.masking`; the random numbers are torch's own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BUCKETS = 16
SMALLEST = 2.0**-24  # noise is never zero
LOW = {"binary": 0.0, "signed": -1.0}


def unit_noise(distribution: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise of scale 1, float32, never zero."""
    if distribution == "gaussian":
        z = torch.randn(shape, generator=generator)
    else:
        z = torch.rand(shape, generator=generator).mul_(2).sub_(1)
        if distribution == "bernoulli":
            return torch.where(z < 0, -1.0, 1.0)
    return torch.where(z.abs() < SMALLEST, SMALLEST, z)


def buckets(distribution: str, z: Tensor) -> Tensor:
    """The bucket of each element by the size of its noise: int64, 0..15, equally likely."""
    size = z.abs()
    quantile = torch.erf(size / math.sqrt(2)) if distribution == "gaussian" else size
    return (quantile * BUCKETS).long().clamp_(max=BUCKETS - 1)


def bucket_energies(distribution: str) -> Tensor:
    """The mean of z squared in each bucket: float64, shape (16,)."""
    if distribution == "bernoulli":
        return torch.ones(BUCKETS, dtype=torch.float64)
    fine = 4096
    quantile = (torch.arange(BUCKETS * fine, dtype=torch.float64) + 0.5) / (BUCKETS * fine)
    z = torch.erfinv(quantile) * math.sqrt(2) if distribution == "gaussian" else quantile
    return z.square().view(BUCKETS, fine).mean(1)


class Masking:
    """Progressive stochastic masking of the updates of several clients, with work space that is used again.

    Parameters
    ----------
    noise : Tensor
        float32, shape (clients, masked).
    kind : {"binary", "signed"}
    generator : torch.Generator
        Of the private random numbers.
    """

    def __init__(self, noise: Tensor, kind: str, generator: torch.Generator) -> None:
        self.noise, self.low, self.generator = noise, LOW[kind], generator
        self._inverse = noise.reciprocal()
        self._draws = torch.empty_like(noise)

    def effective(self, update: Tensor, tau: Tensor) -> Tensor:
        """The masked update of one training step; `tau`, shape (clients, 1): the share of masked elements."""
        share = torch.mul(update, self._inverse).clamp_(self.low, 1.0)
        draws = self._draws.uniform_(generator=self.generator)
        # One number a threshold: below tau it samples the mask too, for there x / tau is uniform again.
        draws.mul_((1 - self.low) / tau).add_(self.low)
        value = (draws < share).float()
        if self.low:
            value.mul_(1 - self.low).add_(self.low)
        return torch.where(draws < 1.0, value, share).mul_(self.noise)

    def bits(self, update: Tensor) -> Tensor:
        """One sample of the masks: bool, shape (clients, masked)."""
        share = torch.mul(update, self._inverse).clamp_(self.low, 1.0)
        draws = self._draws.uniform_(generator=self.generator)
        return draws.mul_(1 - self.low).add_(self.low) < share


def entropy(set_bits: Tensor, elements: Tensor) -> Tensor:
    """Entropy of bits with these counts, in bits, summed over the last dimension: float64."""
    p = (set_bits.double() / elements.clamp(min=1)).clamp(1e-12, 1 - 1e-12)
    each = -(p * p.log2() + (1 - p) * (1 - p).log2())
    return (each * elements).sum(-1)
