"""Masks: packing, meaning, sampling (spec 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from .checks import require
from .elements import f32_round

DENSE, BINARY, SIGNED, GRID = 0, 1, 2, 3  # spec 4.2, 6.4


def pack(bits: Sequence[int]) -> bytes:
    """Mask bits to bytes (spec 4.1)."""
    return bytes(sum(bit << k for k, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


def unpack(packed: bytes, n: int) -> list[int]:
    """The n bits of a mask, its padding checked (spec 4.1, [M-01])."""
    bits = [packed[i // 8] >> (i % 8) & 1 for i in range(8 * len(packed))]
    require(not any(bits[n:]), "F-28", f"padding of {n} elements: got last byte {packed[-1:].hex()}")
    return bits[:n]


def sign_of_bit(kind: int, bit: int) -> int:
    """m(i): 1 keeps the noise, 0 drops it, -1 negates it (spec 4.2, 8.2)."""
    return 1 if bit else (0 if kind == BINARY else -1)


def sample_bit(kind: int, u: float, noise_value: float, r: int) -> int:
    """The mask bit of a finite update u, a noise value, both f32, and 0 <= r < 2^24 (spec 4.3).

    Every operation is made exact with fractions and then rounded once to f32: no double rounding, and
    subnormal numbers are kept. An infinite p stays infinite, so its sign decides. The sign of a zero, which a
    fraction does not keep, does not matter: r < t is false for either zero.
    """
    p = f32_round(Fraction(u) / Fraction(noise_value))
    if math.isinf(p):
        return int(p > 0)
    if kind == BINARY:
        t = f32_round(Fraction(p) * 2**24)
    else:
        t = f32_round(Fraction(f32_round(Fraction(p) + 1)) * 2**23)
    return int(r < t)  # Python compares an int with a float exactly
