"""The constants of the entropy codings (spec 6.8, 6.11, 6.14), and the parts of a coded payload."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..primitives.noise import Gaussian, Noise

BUCKETS = 16
LANES = 8
"""States of a block in coding 1; a block of coding 4 has one."""

SYMBOLS = 215
"""The symbols of coding 5: 0, then those of each magnitude class, first of positive integers."""

EXACT = 32
"""The least magnitude that has plain bits beside its symbol."""

_WIDE = np.arange(SYMBOLS // 2 + 1 - EXACT)
EXTRA = np.repeat(np.concatenate([np.zeros(EXACT, np.int64), 3 + _WIDE // 4]), 2)[1:].astype(np.uint32)
"""The number of plain bits of each symbol: shape (215,)."""

LEAST = np.repeat(np.concatenate([np.arange(EXACT), (4 + _WIDE % 4) << (3 + _WIDE // 4)]), 2)[1:].astype(
    np.int32
)
"""The least magnitude of each symbol: shape (215,)."""

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
        uint16, in 4096ths. In coding 5 shape (215,), uint32: the frequency of each symbol, in 16384ths.
    states : numpy.ndarray
        uint32, shape (blocks, 8), or (blocks, 1) in codings 4 and 5: the states with which decoding begins.
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
