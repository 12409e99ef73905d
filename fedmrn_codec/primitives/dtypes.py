"""The element types of a tensor (spec 5.3), and the conversions of bfloat16, which NumPy lacks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Dtype:
    """One row of table 5.3.

    Attributes
    ----------
    name : str
        The name in a schema.
    code : int
        The code in a frame.
    numpy : numpy.dtype
        The little-endian NumPy dtype of the elements; uint16, for the bits, where the dtype is bfloat16.
    precision : int or None
        Bits of a float's significand, the implicit one included; None for integers and bool.
    exponent : int
        The least positive value is 2^exponent (spec 8.4): 0 for integers.
    limbs : int
        Base-2^24 digits of the largest magnitude divided by the least positive value (spec 8.5).
    """

    name: str
    code: int
    numpy: np.dtype[np.generic]
    precision: int | None = None
    exponent: int = 0
    limbs: int = 1

    @property
    def is_float(self) -> bool:
        """Whether the elements are floats."""
        return self.precision is not None


DTYPES = {
    dtype.name: dtype
    for dtype in (
        Dtype("float32", 1, np.dtype("<f4"), precision=24, exponent=-149, limbs=12),
        Dtype("float64", 2, np.dtype("<f8"), precision=53, exponent=-1074, limbs=88),
        Dtype("float16", 3, np.dtype("<f2"), precision=11, exponent=-24, limbs=2),
        Dtype("bfloat16", 4, np.dtype("<u2"), precision=8, exponent=-133, limbs=11),
        Dtype("int8", 5, np.dtype("<i1")),
        Dtype("int16", 6, np.dtype("<i2")),
        Dtype("int32", 7, np.dtype("<i4"), limbs=2),
        Dtype("int64", 8, np.dtype("<i8"), limbs=3),
        Dtype("uint8", 9, np.dtype("<u1")),
        Dtype("uint16", 10, np.dtype("<u2")),
        Dtype("uint32", 11, np.dtype("<u4"), limbs=2),
        Dtype("uint64", 12, np.dtype("<u8"), limbs=3),
        Dtype("bool", 13, np.dtype("?")),
    )
}
BY_CODE = {dtype.code: dtype for dtype in DTYPES.values()}


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Convert bfloat16 bits (uint16, any shape) to float32 of the same shape; the conversion is exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round to bfloat16, as uint16 bits of the same shape: once, to nearest, ties to even; NaN stays NaN.

    Parameters
    ----------
    values : numpy.ndarray of float32 or float64, any shape
        float64 is first rounded to odd in float32, which makes the second rounding give what a single one
        would (Boldo and Melquiond, IEEE Transactions on Computers 57(4), 2008).
    """
    narrow = np.asarray(_round_to_odd(values) if values.dtype == np.float64 else values, np.float32)
    bits = narrow.view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    nearest = np.where(np.isnan(narrow), bits | np.uint32(1 << 22), nearest)
    return (nearest >> np.uint32(16)).astype("<u2")


def _round_to_odd(values: np.ndarray) -> np.ndarray:
    """Round float64 to float32 towards zero, and set the last bit where the result is not exact."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        nearest = values.astype(np.float32)
    wide = nearest.astype(np.float64)
    bits = nearest.view(np.uint32) - (np.abs(wide) > np.abs(values)).astype(np.uint32)
    odd: np.ndarray = np.where(wide == values, bits, bits | np.uint32(1)).view(np.float32)
    return odd


def is_finite(array: np.ndarray, dtype: Dtype) -> bool:
    """Whether no element is a NaN or an infinity; always true for integers and bool."""
    if not dtype.is_float:
        return True
    finite = np.isfinite(widen_bfloat16(array) if dtype.name == "bfloat16" else array)
    return bool(np.logical_and.reduce(finite, axis=None))  # for a short array `all` takes twice as long
