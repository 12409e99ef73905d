"""The types of elements (spec 5.3), and exact arithmetic with their bit patterns (spec 1.4)."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import NamedTuple

from .checks import require

FLOAT32, BOOL = 1, 13  # spec 5.3


class Dtype(NamedTuple):
    """A type of elements (spec 5.3); `fraction` and `exponent` are the bits of a float's fields."""

    name: str
    size: int
    limbs: int  # spec 8.5
    signed: bool = True
    fraction: int = 0
    exponent: int = 0

    @property
    def quantum(self) -> Fraction:
        """The least positive value (spec 8.4)."""
        return Fraction(1, 1 << ((1 << (self.exponent - 1)) - 2 + self.fraction) if self.fraction else 1)


F32 = Dtype("float32", 4, 12, True, 23, 8)
DTYPES = {  # spec 5.3
    FLOAT32: F32,
    2: Dtype("float64", 8, 88, True, 52, 11),
    3: Dtype("float16", 2, 2, True, 10, 5),
    4: Dtype("bfloat16", 2, 11, True, 7, 8),
    **{5 + k: Dtype(f"int{8 << k}", 1 << k, limbs) for k, limbs in enumerate((1, 1, 2, 3))},
    **{9 + k: Dtype(f"uint{8 << k}", 1 << k, limbs, False) for k, limbs in enumerate((1, 1, 2, 3))},
    BOOL: Dtype("bool", 1, 1, False),
}


def is_finite(word: int, dtype: Dtype) -> bool:
    """Whether a float's bit pattern is neither an infinity nor a NaN; True for integers."""
    ones = (1 << dtype.exponent) - 1
    return not dtype.fraction or (word >> dtype.fraction) & ones != ones


def exact_value(word: int, dtype: Dtype) -> Fraction:
    """The exact value of a finite element, given as the unsigned integer of its bytes (spec 5.3)."""
    sign = dtype.signed and word >> (8 * dtype.size - 1)
    if not dtype.fraction:
        return Fraction(word - (1 << 8 * dtype.size) if sign else word)
    field, fraction = (word >> dtype.fraction) % (1 << dtype.exponent), word % (1 << dtype.fraction)
    magnitude = fraction if field == 0 else ((1 << dtype.fraction) + fraction) << (field - 1)
    return (-magnitude if sign else magnitude) * dtype.quantum


def round_float(x: Fraction, dtype: Dtype) -> int:
    """The bit pattern of x rounded once, to nearest, ties to even; 0 gives +0.0, overflow an infinity."""
    units = abs(x) / dtype.quantum
    shift = max(math.floor(units).bit_length() - dtype.fraction - 1, 0)  # dropped bits above the quantum
    # A normal number's hidden bit carries into the exponent field; so does rounding up to a power of two.
    word = (shift << dtype.fraction) + round(units / (1 << shift))  # round() takes a Fraction's ties to even
    word = min(word, ((1 << dtype.exponent) - 1) << dtype.fraction)
    return word | (x < 0) << (8 * dtype.size - 1)


def f32_from_bits(bits: int) -> float:
    """The f32 with this bit pattern, as a Python float, which holds every f32 exactly."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def f32_bits(x: float) -> int:
    """The bit pattern of a Python float that is exactly an f32; `ValueError` if it is not."""
    bits = int.from_bytes(struct.pack("<f", x), "little")
    if math.isfinite(x) and f32_from_bits(bits) != x:
        raise ValueError(f"{x!r} is not an f32")
    return bits


def f32_round(x: Fraction) -> float:
    """An exact fraction rounded to f32: an infinity beyond its range."""
    return f32_from_bits(round_float(x, F32))


def words_of(payload: bytes, dtype: int) -> list[int]:
    """The elements of a dense payload as the unsigned integers of their bytes (spec 1.2, 6.5)."""
    size = DTYPES[dtype].size
    return [int.from_bytes(payload[at : at + size], "little") for at in range(0, len(payload), size)]


def check_elements(payload: bytes, dtype: int) -> None:
    """Check that floats are finite and bools are 0 or 1, [F-29] and [F-30]."""
    for i, word in enumerate(words_of(payload, dtype)):
        require(is_finite(word, DTYPES[dtype]), "F-29", f"element {i}: {word:#x}")
        require(dtype != BOOL or word <= 1, "F-30", f"element {i}: expected 0 or 1, got {word}")
