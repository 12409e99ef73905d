"""The private random numbers of a training step: 16 bits an element, and the thresholds they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 2**16
"""Values of a training draw. 16 bits, because random bits are what a training step pays most for; the
expected weight is off by at most noise / LEVELS. The uploaded mask uses the codec's 24 bits (spec 4.3)."""


def draw(count: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """Uniform integers: int16, shape (count,). The generator advances by 64 bits for every four."""
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]


def thresholds(low: float, tau: float) -> tuple[float, float]:
    """The factor and the offset that turn a draw into a threshold.

    One random number x in (0, 1) an element both chooses the masked elements, x < tau, and samples their
    masks, for among them x / tau is uniform again: the threshold runs over (low, 1) while x runs over
    (0, tau), and is at least 1 from there on.
    """
    factor = (1.0 - low) / (tau * LEVELS)
    return factor, low + factor * (LEVELS + 1) / 2
