"""Counts and sums that a caller gives to `Tally.from_counts`, as arrays; the arrays are not changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import errors
from ..format.schema import Schema, Tensor
from ..primitives.dtypes import Dtype
from ..primitives.grid import BOUNDS
from ..sums.counts import counts_dtype
from ..sums.exact import LIMB, integer_range
from ..sums.rows import Rows
from .arrays import check_names, check_shape

DenseTotals = np.ndarray | tuple[np.ndarray, float]
"""The sum of a dense tensor over frames: integers, or the integers of a grid and its step."""


def checked_counts(given: Mapping[str, Any], schema: Schema, frames: int) -> dict[str, np.ndarray]:
    """The counts of all masked tensors, by name: flat copies, of the narrowest type; errors as `Tally`'s."""
    masked = [tensor for tensor in schema if tensor.masked]
    check_names(given, [tensor.name for tensor in masked], "counts")
    out = {}
    for tensor in masked:
        field = f"counts of {tensor.name!r}"
        array = _integers(given[tensor.name], tensor, field)
        _check_range(array, 0, frames, field)
        out[tensor.name] = array.astype(counts_dtype(frames))
    return out


def dense_limbs(given: Mapping[str, DenseTotals], schema: Schema, frames: int) -> dict[int, Rows]:
    """The limbs of the sums of all dense tensors, by stream; errors as in `Tally.from_counts`."""
    dense = {stream: tensor for stream, tensor in enumerate(schema) if not tensor.masked}
    check_names(given, [tensor.name for tensor in dense.values()], "dense")
    return {stream: _limbs(given[tensor.name], tensor, frames) for stream, tensor in dense.items()}


def _limbs(value: Any, tensor: Tensor, frames: int) -> Rows:
    field = f"sum of {tensor.name!r}"
    if not tensor.type.is_float:
        array = _integers(value, tensor, field)
        least, largest = integer_range(tensor.type)
        _check_range(array, frames * least, frames * largest, field)
        return limbs_of(array, 0, tensor.type)
    if not isinstance(value, tuple) or len(value) != 2:
        raise errors.UpdateError(field, "a pair of integers and a step", type(value).__name__)
    integers, step = value
    bounds = BOUNDS[tensor.dtype]
    if not isinstance(step, int | float | np.floating) or not bounds.allows(float(step)):
        raise errors.ArgumentError(f"step of {tensor.name!r}", str(bounds), repr(step))
    array = _integers(integers, tensor, field)
    _check_range(array, -frames * bounds.largest, frames * bounds.largest, field)
    return limbs_of(array, math.frexp(float(step))[1] - 1 - tensor.type.exponent, tensor.type)


def limbs_of(integers: np.ndarray, position: int, dtype: Dtype) -> Rows:
    """The rows of limbs of integers * 2^position that are not all 0 (spec 8.4).

    A digit has 24 bits; the last limb of the dtype takes what is left, as the limbs of frames do.
    """
    negative = integers < 0
    # Of Python integers too; as uint64, -x is 2^64 - x.
    rest = abs(integers) if integers.dtype == object else _magnitudes(integers, negative)
    limb, shift = divmod(position, LIMB)
    rows: Rows = {}
    while rest.any():
        last, kept = limb == dtype.limbs - 1, LIMB - shift
        digit = (rest if last else rest & _like(2**kept - 1, rest)) << _like(shift, rest)
        row = digit.astype(np.int64)
        if row.any():
            rows[limb] = np.where(negative, -row, row)
        if last:
            break
        rest = rest >> _like(kept, rest)
        limb, shift = limb + 1, 0
    return rows


def _magnitudes(integers: np.ndarray, negative: np.ndarray) -> np.ndarray:
    size = integers.astype(np.uint64)
    return np.where(negative, np.uint64(0) - size, size)


def _like(value: int, array: np.ndarray) -> Any:
    """An integer of the array's type."""
    return value if array.dtype == object else np.uint64(value)


def _integers(value: Any, tensor: Tensor, field: str) -> np.ndarray:
    """An array of integers, flat, of the tensor's shape."""
    array = np.asarray(value)
    check_shape(array, tensor)
    flat = array.reshape(-1)
    if array.dtype == object and not all(type(each) is int for each in flat):
        raise errors.UpdateError(field, "integers", "other objects")
    if array.dtype.kind not in "iuO":
        raise errors.UpdateError(field, "integers", array.dtype)
    return flat


def _check_range(array: np.ndarray, least: int, largest: int, field: str) -> None:
    if array.size and (int(array.min()) < least or int(array.max()) > largest):
        got = f"{array.min()} to {array.max()}"
        raise errors.ArgumentError(field, f"{least} to {largest}", got)
