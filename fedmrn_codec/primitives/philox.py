"""The random words (spec 2) in NumPy: Philox4x32-10 (Salmon et al., SC 2011)."""

from __future__ import annotations

import numpy as np

MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW = 2**32 - 1


def philox_blocks(seed: int, stream: int, first: int, count: int) -> np.ndarray:
    """Blocks `first` to `first + count - 1` of a stream: uint32, shape (count, 4) (spec 2.2, 2.3)."""
    low, shift = np.uint64(LOW), np.uint64(32)
    block = np.uint64(first) + np.arange(count, dtype=np.uint64)
    c0, c1 = block & low, block >> shift
    c2, c3 = np.full(count, stream & LOW, np.uint64), np.full(count, stream >> 32, np.uint64)
    for r in range(ROUNDS):
        k0 = np.uint64(((seed & LOW) + r * WEYL_0) & LOW)
        k1 = np.uint64(((seed >> 32) + r * WEYL_1) & LOW)
        p0, p1 = c0 * np.uint64(MULTIPLIER_0), c2 * np.uint64(MULTIPLIER_1)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def philox_words(seed: int, stream: int, start: int, count: int) -> np.ndarray:
    """Words `start` to `start + count - 1` of a stream (spec 2.1).

    Parameters
    ----------
    seed, stream : int
        Unsigned 64-bit.
    start, count : int
        Not negative; start + count is at most 2^64.

    Returns
    -------
    numpy.ndarray of uint32, shape (count,)
    """
    first = start // 4
    blocks = philox_blocks(seed, stream, first, -(-(start + count) // 4) - first)
    return blocks.reshape(-1)[start - 4 * first :][:count]
