"""Trained value minus base value, and base value plus update, in each tensor's own dtype (spec 1.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .. import errors
from ..dtypes import is_finite, widen_bfloat16
from ..schema import Schema, Tensor

Arrays = Mapping[str, np.ndarray]


def subtract(trained: Arrays, base: Arrays, schema: Schema) -> dict[str, np.ndarray]:
    """The update of each tensor of the schema: trained minus base.

    Floats are rounded once to their dtype. Integers and bools must not leave their range.

    Raises
    ------
    UpdateError
        A difference that the dtype cannot hold, such as that of an unsigned counter that went down.
    """
    return {t.name: _subtract(trained[t.name], base[t.name], t) for t in schema}


def add(base: Arrays, update: Arrays, schema: Schema) -> dict[str, np.ndarray]:
    """The new model: base plus update, for each tensor that the update has.

    Raises
    ------
    UpdateError
        A sum that the dtype cannot hold.
    """
    return {t.name: _add(base[t.name], update[t.name], t) for t in schema if t.name in update}


def narrow_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bfloat16 bits (uint16) nearest to float32 values, ties to even; same shape."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    up = np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    rounded = np.where(np.isnan(values), bits | np.uint32(1 << 22), bits + up)
    return (rounded >> np.uint32(16)).astype(np.uint16)


def _subtract(trained: np.ndarray, base: np.ndarray, tensor: Tensor) -> np.ndarray:
    a, b = _flat(trained, tensor), _flat(base, tensor)
    if tensor.type.is_float:
        out = _in_floats(np.subtract, a, b, tensor)
    else:
        out = a - b
        lost = (a < b) if out.dtype.kind == "u" else (a < b) != (out < 0)
        _check_range(lost, f"{tensor.name!r} minus the base", tensor)
    return _shaped(out, tensor)


def _add(base: np.ndarray, update: np.ndarray, tensor: Tensor) -> np.ndarray:
    a, b = _flat(base, tensor), _flat(update, tensor)
    if tensor.type.is_float:
        out = _in_floats(np.add, a, b, tensor)
        finite = is_finite(a, tensor.type) and is_finite(b, tensor.type)
        _check_range(finite and not is_finite(out, tensor.type), f"base plus {tensor.name!r}", tensor)
    else:
        out = a + b
        lost = (out < a) if out.dtype.kind == "u" else (out < a) != (b < 0)
        _check_range(
            lost | (out > 1) if tensor.dtype == "bool" else lost, f"base plus {tensor.name!r}", tensor
        )
    return _shaped(out, tensor)


def _flat(array: np.ndarray, tensor: Tensor) -> np.ndarray:
    """One dimension, native byte order; bools as integers."""
    flat = np.asarray(array).astype(tensor.type.numpy.newbyteorder("="), copy=False).reshape(-1)
    return flat.view(np.uint8) if tensor.dtype == "bool" else flat


def _shaped(flat: np.ndarray, tensor: Tensor) -> np.ndarray:
    return (flat.view(np.bool_) if tensor.dtype == "bool" else flat).reshape(tensor.shape)


def _in_floats(
    operation: Callable[[np.ndarray, np.ndarray], np.ndarray], a: np.ndarray, b: np.ndarray, tensor: Tensor
) -> np.ndarray:
    with np.errstate(all="ignore"):
        if tensor.dtype == "bfloat16":
            return narrow_bfloat16(operation(widen_bfloat16(a), widen_bfloat16(b)))
        return operation(a, b)


def _check_range(lost: np.ndarray | bool, what: str, tensor: Tensor) -> None:
    if np.any(lost):
        raise errors.UpdateError(what, "a value out of range", f"{tensor.dtype} must hold it")
