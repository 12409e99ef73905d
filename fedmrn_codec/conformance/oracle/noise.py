"""Random words and noise (spec 2, 3)."""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from .elements import f32_round

UNIFORM, GAUSSIAN, BERNOULLI = 1, 2, 3  # spec 3.1
TABLE_SHA256 = "dd66b5cfd76836da9b554bd89e3ccd03b8e70a5a015b51e5d4ca9a2b4963deb9"  # spec 3.4
STEP_SHIFT = {UNIFORM: 24, GAUSSIAN: 21, BERNOULLI: 0}  # spec 3.1
# spec 3.5, as bit patterns: positive floats are ordered as their patterns, infinity and NaN above all.
SCALES = {
    UNIFORM: ((127 - 102) << 23, 0x7F7FFFFF),
    GAUSSIAN: ((127 - 105) << 23, (127 + 125) << 23),
    BERNOULLI: ((127 - 126) << 23, 0x7F7FFFFF),
}
LARGEST_DRAW = {UNIFORM: 2**24 - 1, GAUSSIAN: 13291661, BERNOULLI: 1}  # spec 3.2 to 3.4


def philox_block(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 of four counter words and two key words (spec 2.3)."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for r in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        a, b = (k0 + r * 0x9E3779B9) % 2**32, (k1 + r * 0xBB67AE85) % 2**32
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ a, p1 % 2**32, (p0 >> 32) ^ c3 ^ b, p0 % 2**32
    return c0, c1, c2, c3


@functools.lru_cache(2**12)  # the words of a block are read one after the other, and repeatedly
def _block(seed: int, stream: int, b: int) -> tuple[int, int, int, int]:
    counter = (b % 2**32, b >> 32, stream % 2**32, stream >> 32)
    return philox_block(counter, (seed % 2**32, seed >> 32))


def philox_word(seed: int, stream: int, j: int) -> int:
    """Word j of a stream, a u32 (spec 2.1, 2.2)."""
    return _block(seed, stream, j // 4)[j % 4]


# 3 Noise


@functools.cache
def gaussian_table() -> tuple[int, ...]:
    """The quantile table T, its digest checked (spec 3.4)."""
    data = (Path(__file__).parents[2] / "primitives" / "data" / "gaussian.bin").read_bytes()
    if hashlib.sha256(data).hexdigest() != TABLE_SHA256:
        raise ValueError("gaussian.bin does not have the digest of the format's table")
    return struct.unpack("<2049I", data)


def draw_of_word(distribution: int, w: int, i: int) -> int:
    """The draw q(i) made from its word (spec 3.2, 3.3, 3.4)."""
    if distribution == UNIFORM:  # spec 3.2
        return 2 * (w >> 8) - (2**24 - 1)
    if distribution == BERNOULLI:  # spec 3.3
        return 1 if w >> (i % 32) & 1 else -1
    table, x = gaussian_table(), 2 * (w % 2**31) + 1  # spec 3.4
    j = x.bit_length() - 1
    m = x << (31 - j)
    s, f = (m >> 25) % 64, (m >> 9) % 2**16
    k = 64 * j + s
    g = table[k] - (((table[k] - table[k + 1]) * f + 2**15) >> 16)
    return -max(g, 1) if w >> 31 else max(g, 1)


def draw(distribution: int, seed: int, stream: int, i: int) -> int:
    """The integer draw q(i) (spec 3.1)."""
    j = i // 32 if distribution == BERNOULLI else i
    return draw_of_word(distribution, philox_word(seed, stream, j), i)


def step(distribution: int, scale: float) -> Fraction:
    """What a draw is multiplied by, an f32 for every allowed scale (spec 3.1)."""
    return Fraction(scale) / (1 << STEP_SHIFT[distribution])


def scale_allowed(distribution: int, scale_bits: int) -> bool:
    """Whether a bit pattern is a scale that [N-03] allows (spec 3.5)."""
    least, largest = SCALES[distribution]
    return least <= scale_bits <= largest


def noise(distribution: int, scale: float, seed: int, stream: int, i: int) -> float:
    """noise(i) as a Python float that is exactly the f32 (spec 3.1)."""
    return f32_round(draw(distribution, seed, stream, i) * step(distribution, scale))
