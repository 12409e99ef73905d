"""Checks of the arrays that a caller gives against a schema, [E-02]; the arrays are not changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import errors
from ..format.schema import Schema, Tensor
from ..primitives import mask as masks
from ..primitives.dtypes import is_finite


def checked_arrays(given: Mapping[str, Any], schema: Schema, *, dense_only: bool) -> dict[str, np.ndarray]:
    """Check the arrays of all tensors, or only of the dense ones: flat little-endian arrays by name.

    Raises
    ------
    UpdateError
        A tensor is missing, unknown, of another shape or dtype, or holds a NaN or an infinity.
    """
    tensors = [tensor for tensor in schema if not (dense_only and tensor.masked)]
    check_names(given, [tensor.name for tensor in tensors], "update")
    return {tensor.name: _checked_array(given[tensor.name], tensor) for tensor in tensors}


def packed_bits(given: Mapping[str, Any], schema: Schema) -> dict[str, np.ndarray]:
    """Check the boolean arrays of all masked tensors: packed masks (spec 4.1) by name.

    Raises
    ------
    UpdateError
        A masked tensor is missing, a name is unknown, or an array has another shape or dtype.
    """
    masked = [tensor for tensor in schema if tensor.masked]
    check_names(given, [tensor.name for tensor in masked], "bits")
    return {tensor.name: masks.pack(_checked_bits(given[tensor.name], tensor)) for tensor in masked}


def checked_draws(draws: Mapping[str, np.ndarray], tensor: Tensor) -> np.ndarray:
    """Check the integers r (spec 4.3) of one masked tensor: flat, uint32.

    Raises
    ------
    ArgumentError
        The tensor has no array, or one with elements that are not integers from 0 to 2^24 - 1.
    UpdateError
        The array has another shape.
    """
    if tensor.name not in draws:
        raise errors.ArgumentError("draws", "an array for each masked tensor", f"nothing for {tensor.name!r}")
    array = np.asarray(draws[tensor.name])
    check_shape(array, tensor)
    if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() >= 2**24)):
        got = f"{array.min()} to {array.max()}" if array.dtype.kind in "iu" else array.dtype
        raise errors.ArgumentError(f"draws of {tensor.name!r}", "integers from 0 to 2^24 - 1", got)
    return np.ascontiguousarray(array, np.uint32).reshape(-1)


def check_names(given: Mapping[str, Any], required: list[str], field: str) -> None:
    """Check that an argument is a mapping with just the required names; `field` is its name."""
    if not isinstance(given, Mapping):
        raise errors.UpdateError(field, "a mapping of names to arrays", type(given).__name__)
    if missing := [name for name in required if name not in given]:
        raise errors.UpdateError(field, "every name of the schema", f"nothing for {missing}")
    known = set(required)
    if extra := [name for name in given if name not in known]:
        raise errors.UpdateError(field, "only names of the schema", extra)


def _checked_array(value: Any, tensor: Tensor) -> np.ndarray:
    array = np.asarray(value)
    check_shape(array, tensor)
    if array.dtype.newbyteorder("=") != tensor.type.numpy.newbyteorder("="):
        held = " (its bits, as uint16)" if tensor.dtype == "bfloat16" else ""
        raise errors.UpdateError(
            f"dtype of {tensor.name!r}", f"{tensor.dtype}{held}, as in the schema", array.dtype
        )
    flat = np.ascontiguousarray(array, tensor.type.numpy).reshape(-1)
    if tensor.dtype == "bool":
        flat = flat.view(np.uint8) != 0  # NumPy's bools may hold any byte, the format's do not
    if not is_finite(flat, tensor.type):
        raise errors.UpdateNonFiniteError(f"{tensor.name!r}", "finite values", "a NaN or an infinity")
    return flat


def _checked_bits(value: Any, tensor: Tensor) -> np.ndarray:
    array = np.asarray(value)
    check_shape(array, tensor)
    if array.dtype != np.bool_:
        raise errors.UpdateError(f"bits of {tensor.name!r}", "bool", array.dtype)
    return array


def check_shape(array: np.ndarray, tensor: Tensor) -> None:
    """Check that an array has the tensor's shape."""
    if array.shape != tensor.shape:
        raise errors.UpdateError(
            f"shape of {tensor.name!r}", f"{tensor.shape}, as in the schema", array.shape
        )
