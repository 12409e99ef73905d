"""The constants of codings 1 and 4 (spec 6.8, 6.11), and the parts of a coded payload."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..primitives.noise import Gaussian, Noise

BUCKETS = 16
LANES = 8
"""States of a block in coding 1; a block of coding 4 has one."""

BLOCK = 2**16
"""Elements of a block."""

LOWEST = 2**16
"""The least value of a state, and the initial one, before a bit is coded."""


class Coded(NamedTuple):
    """The parts of a coded payload.

    Attributes
    ----------
    probabilities : numpy.ndarray
        Shape (16,): the probability of a set bit in each bucket: in coding 1 uint8, in 256ths; in coding 4
        uint16, in 4096ths.
    states : numpy.ndarray
        uint32, shape (blocks, 8), or (blocks, 1) in coding 4: the states with which decoding begins.
    counts : numpy.ndarray
        int64, shape (blocks,): the number of words of each block.
    words : numpy.ndarray
        uint16, shape (sum of counts,).
    """

    probabilities: np.ndarray
    states: np.ndarray
    counts: np.ndarray
    words: np.ndarray


def blocks(size: int) -> int:
    """The number of blocks of `size` elements."""
    return -(-size // BLOCK)


def shift(noise: Noise) -> int:
    """The bucket of a draw is min(|q| >> shift, 15) (spec 6.8)."""
    return 19 if isinstance(noise, Gaussian) else 20
