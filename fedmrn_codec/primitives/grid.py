"""Grids: float tensors as integers times a step, which is a power of two (spec 6.12)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import errors
from .dtypes import Dtype, round_to_bfloat16
from .noise import MAX_DRAW


@dataclass(frozen=True)
class Bounds:
    """The bounds of the grids of one dtype (spec 6.12).

    Attributes
    ----------
    largest : int
        Magnitude of an integer.
    least_exponent, largest_exponent : int
        The step is 2 to the power of an integer in this range, both ends included.
    """

    largest: int
    least_exponent: int
    largest_exponent: int

    def allows(self, step: float) -> bool:
        """Whether a step is a power of two within the bounds; False for NaN."""
        try:
            fraction, exponent = math.frexp(step)
        except OverflowError:  # an integer beyond the floats
            return False
        return fraction == 0.5 and self.least_exponent < exponent <= self.largest_exponent + 1

    def __str__(self) -> str:
        return f"a power of two from 2^{self.least_exponent} to 2^{self.largest_exponent}"


BOUNDS = {
    "float32": Bounds(MAX_DRAW, -126, 104),
    "float64": Bounds(MAX_DRAW, -126, 104),
    "float16": Bounds(2**11 - 1, -24, 5),
    "bfloat16": Bounds(2**8 - 1, -126, 120),
}
"""Of each float dtype, by name."""


@dataclass(frozen=True)
class Grid:
    """The step of a masked tensor that is sent as integers; in sums it stands where others have a noise.

    Parameters
    ----------
    scale : float
        The step.
    """

    scale: float
    code: ClassVar[int] = 4
    name: ClassVar[str] = "grid"
    largest_draw: ClassVar[int] = MAX_DRAW

    @property
    def step(self) -> np.float32:
        """The float32 that the integers are multiplied by."""
        return np.float32(self.scale)

    @classmethod
    def allows(cls, scale: float) -> bool:
        """Whether a float32 step is within the bounds of spec 6.12; False for NaN."""
        return BOUNDS["float32"].allows(scale)

    @classmethod
    def bounds(cls) -> str:
        """The bounds of spec 6.12, as text for an error message."""
        return str(BOUNDS["float32"])


def values(integers: np.ndarray, step: float, dtype: Dtype) -> np.ndarray:
    """The elements of a grid: shape (n,), in the dtype's NumPy form; conversion and product are exact."""
    if dtype.name == "bfloat16":
        return round_to_bfloat16(integers.astype(np.float32) * np.float32(step))
    return np.asarray(integers.astype(dtype.numpy) * dtype.numpy.type(step))


def rounded(elements: np.ndarray, step: float, name: str, dtype: Dtype) -> np.ndarray:
    """The integers nearest to elements / step, ties to even: int32, shape (n,).

    Parameters
    ----------
    elements : numpy.ndarray of float32, float64 or float16, shape (n,)
        Finite; float32 in place of bfloat16.
    step : float
        A power of two within the bounds of the dtype.
    name : str
        The tensor's, for the message.
    dtype : Dtype

    Raises
    ------
    UpdateGridError
        An integer is beyond the bounds of spec 6.12.
    """
    largest = BOUNDS[dtype.name].largest
    with np.errstate(over="ignore", under="ignore"):
        quotient = elements * (np.float64 if elements.dtype == np.float64 else np.float32)(1 / step)
    np.rint(quotient, out=quotient)
    if quotient.size and (found := float(max(quotient.max(), -quotient.min()))) > largest:
        raise errors.UpdateGridError(f"{name!r}", f"at most {largest} steps of {step!r}", f"{found:.0f}")
    return quotient.astype(np.int32)
