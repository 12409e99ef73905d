"""The private random numbers of a training step: 16 bits an element, and the thresholds they stand for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import fedmrn_codec as fm

LEVELS = 2**16
"""Values of a training draw. 16 bits, because random bits are what a training step pays most for; the
expected weight is off by at most noise / LEVELS. The uploaded mask uses the codec's 24 bits (spec 4.3)."""


def draw(count: int, device: torch.device, seed: int, number: int) -> Tensor:
    """The halves of the codec's words (spec 2), the low one first: the same on every device.

    Parameters
    ----------
    count : int
    device : torch.device
    seed : int
        Unsigned 64-bit, private.
    number : int
        Of this drawing: the stream.

    Returns
    -------
    Tensor
        int16, shape (count,), uniform.
    """
    words = (count + 1) // 2
    if device.type == "cpu":
        numbers = torch.from_numpy(fm.philox_words(seed=seed, stream=number, count=words).view(np.int32))
    else:
        from fedmrn_codec.adapter_api.torch import words_tensor

        numbers = words_tensor(seed, number, 0, words, device=device).to(torch.int32)
    return numbers.view(torch.int16)[:count]


def thresholds(low: float, tau: float) -> tuple[float, float]:
    """The factor and the offset that turn a draw into a threshold.

    One random number x in (0, 1) an element both chooses the masked elements, x < tau, and samples their
    masks, for among them x / tau is uniform again: the threshold runs over (low, 1) while x runs over
    (0, tau), and is at least 1 from there on.
    """
    factor = (1.0 - low) / (tau * LEVELS)
    return factor, low + factor * (LEVELS + 1) / 2
