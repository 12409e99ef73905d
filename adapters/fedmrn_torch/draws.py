"""Private randomness: the seeds of one PSM, and the 16-bit draws of a training step with their thresholds."""

from __future__ import annotations

import hashlib
import secrets

import numpy as np
import torch
from torch import Tensor

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import U64, unsigned

LEVELS = 2**16
"""Number of values of a training draw. 16 bits, because random bits are the largest cost of a training step;
the expected weight is off by at most noise / LEVELS. The uploaded mask uses 24 bits (spec 4.3)."""


def draw(count: int, device: torch.device, seed: int, number: int) -> Tensor:
    """Random 16-bit integers: the halves of the codec's words (spec 2), low half first; on any device.

    Parameters
    ----------
    count : int
        Number of elements.
    device : torch.device
    seed : int
        Unsigned 64-bit, private.
    number : int
        Identifies this array of draws; it is the stream of the words.

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
    """The factor and the offset that turn a draw into a threshold; `low` and `tau` as in `masking.mask_`.

    One random number x in (0, 1) per element serves two purposes. An element is masked if x < tau; among the
    masked elements x / tau is uniform again, so it also samples the mask. The threshold covers (low, 1) while
    x covers (0, tau), and is at least 1 for larger x.
    """
    factor = (1.0 - low) / (tau * LEVELS)
    return factor, low + factor * (LEVELS + 1) / 2


def checked_private_seed(private_seed: int | None, seed: int) -> int:
    """A PSM's private seed, different from the public one, [M-03]; by default from the operating system."""
    if private_seed is None:
        return secrets.randbelow(U64)
    number = unsigned(private_seed, U64, "private_seed")
    if number == seed:
        raise fm.ArgumentError("private_seed", "a value other than the public seed", number)
    return number


def derived_seed(private_seed: int, seed: int, purpose: str) -> int:
    """A 64-bit seed for one purpose, derived from the private and the public seed; never the public seed."""
    digest = hashlib.sha256(f"fedmrn_torch {purpose} {private_seed} {seed}".encode()).digest()
    derived = int.from_bytes(digest[:8], "little")
    return derived if derived != seed else (derived + 1) % U64
