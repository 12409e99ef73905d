"""Models as arrays by name: their schema, their id, and the arithmetic of updates (spec 1.6).

Floats are subtracted and added in their dtype and rounded once. Integers wrap around, and bools use exclusive
or both for differences and for sums, so that base plus (trained minus base) is the trained value. bfloat16
arrays hold the bits in uint16, since NumPy lacks the dtype; the schema distinguishes them from integers. A
model may be any mapping, such as one that loads each array when it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from .. import errors
from ..format.schema import Schema, Tensor
from ..primitives.dtypes import round_to_bfloat16, widen_bfloat16

Arrays = Mapping[str, np.ndarray]


def schema_of(
    arrays: Arrays, masked: Collection[str] | None = None, leave_out: Collection[str] = ()
) -> Schema:
    """The schema of a model, in the order of its arrays; masked floats of any precision become float32.

    Parameters
    ----------
    arrays : mapping of str to array
    masked : collection of str, optional
        Names of the arrays to mask. Default: floats of two or more dimensions. All others are dense.
    leave_out : collection of str
        Names of the arrays that are not in the schema, and so never sent.

    Raises
    ------
    SchemaError
        The model is no mapping of names to arrays; a name is not the model's; or the format cannot represent
        the array, or not as a masked tensor.
    """
    _check_mapping(arrays)
    for name in (*(masked or ()), *leave_out):
        if name not in arrays:
            raise errors.SchemaError("masked and leave_out", "names of the model's arrays", repr(name))
    return Schema(_tensor(name, array, masked) for name, array in arrays.items() if name not in leave_out)


def check_schema(schema: Iterable[Tensor], arrays: Arrays) -> None:
    """Check that a model has each tensor, with its shape and its dtype, or any float dtype if it is masked.

    Raises
    ------
    SchemaError
        A tensor is missing, or has another shape or dtype.
    """
    _check_mapping(arrays)
    for tensor in schema:
        if tensor.name not in arrays:
            raise errors.SchemaError("schema", "names of the model's arrays", repr(tensor.name))
        array = arrays[tensor.name]
        dtype = _dtype(tensor.name, array)
        fits = dtype.kind == "f" if tensor.masked else dtype == tensor.type.numpy
        if not fits or array.shape != tensor.shape:
            raise errors.SchemaError("schema", f"{_described(array)}, as in the model", str(tensor))


def model_id(arrays: Arrays, schema: Schema | None = None) -> int:
    """The id of a model: 64 bits of a SHA-256 of its names, dtypes, shapes and elements, never 0 (spec 1.7).

    Parameters
    ----------
    arrays : mapping of str to array
    schema : Schema, optional
        Required if the model has bfloat16 tensors, held as uint16 bits.

    Raises
    ------
    SchemaError
        The model is no mapping of names to arrays, the format cannot represent an array, or a dense tensor of
        the schema has another dtype.
    """
    _check_mapping(arrays)
    digest = hashlib.sha256()
    dtypes = {tensor.name: tensor.dtype for tensor in schema or () if not tensor.masked}
    for name, array in arrays.items():
        dtype = _dtype(name, array)
        tensor = Tensor(name, array.shape, dtype=dtypes.get(name, dtype.name))
        if dtype.name != tensor.type.numpy.name:
            held = f"{tensor.type.numpy.name}, of a {tensor.dtype} tensor of the schema"
            raise errors.SchemaError(f"dtype of {name!r}", held, dtype)
        digest.update(tensor.head + bytes([tensor.type.code]) + tensor.dimensions)
        digest.update(np.ascontiguousarray(array, tensor.type.numpy).reshape(-1).view(np.uint8).data)
    return int.from_bytes(digest.digest()[:8], "little") or 1


def difference(trained: Arrays, received: Arrays, schema: Schema) -> dict[str, np.ndarray]:
    """The update, trained minus received model, as `encode` takes it; `encode` refuses NaN and infinities.

    Raises
    ------
    UpdateError
        A tensor of the schema is missing, or its shapes or dtypes in the two models differ.
    """
    return {tensor.name: _difference_of(tensor, trained, received) for tensor in schema}


def as_update(arrays: Arrays, schema: Schema) -> dict[str, np.ndarray]:
    """Convert an update that was computed elsewhere for `encode`: masked tensors to float32.

    Raises
    ------
    UpdateError
        A tensor of the schema is missing. Shapes and dtypes are left for `encode` to check.
    """
    return {tensor.name: _as_masked(_named(arrays, tensor, "update"), tensor) for tensor in schema}


def apply(base: Arrays, update: Arrays, schema: Schema | None = None) -> dict[str, np.ndarray]:
    """A model plus an update from `decode` or `Aggregator.mean`: new arrays by name.

    Floats are added in the wider of the two dtypes and rounded once to the model's. Arrays that the update
    does not have are not copied.

    Parameters
    ----------
    base, update : mapping of str to array
    schema : Schema, optional
        Required if the model has bfloat16 tensors, held as uint16 bits.

    Raises
    ------
    UpdateError
        One of the two is no mapping; a name is not the model's, a shape differs, or only one of the two
        arrays is of floats.
    """
    for field, given in (("base", base), ("update", update)):
        _check_mapping(given, field, errors.UpdateError)
    for name, array in update.items():
        got = _described(base[name]) if name in base else "nothing"
        if name not in base or not _fits(base[name], array):
            raise errors.UpdateError(f"{name!r} of the model", f"{_described(array)}, as in the update", got)
    dtypes = {tensor.name: tensor.dtype for tensor in schema or ()}
    return {
        name: add(array, update[name], dtypes.get(name)) if name in update else array
        for name, array in base.items()
    }


def _check_mapping(
    arrays: Arrays, field: str = "model", error: type[errors.ArgumentError] = errors.SchemaError
) -> None:
    if not isinstance(arrays, Mapping):
        raise error(field, "a mapping of names to arrays", type(arrays).__name__)


def _dtype(name: str, array: np.ndarray) -> np.dtype[np.generic]:
    """The dtype of an array of a model, which may be of any library whose dtypes are NumPy's."""
    if not _is_array(array):
        raise errors.SchemaError(f"{name!r} of the model", "a NumPy array", type(array).__name__)
    return array.dtype


def _is_array(array: object) -> bool:
    return isinstance(getattr(array, "dtype", None), np.dtype)


def _fits(base: np.ndarray, update: np.ndarray) -> bool:
    if not (_is_array(base) and _is_array(update)):
        return False
    return base.shape == update.shape and (base.dtype.kind == "f") == (update.dtype.kind == "f")


def add(base: np.ndarray, update: np.ndarray, dtype: str | None = None) -> np.ndarray:
    """The sum of two arrays as in `apply`; a sum of floats may be infinite.

    Parameters
    ----------
    base, update : numpy.ndarray
        Of the same shape.
    dtype : str, optional
        "bfloat16" if both hold bfloat16 bits in uint16.

    Returns
    -------
    numpy.ndarray
        New, of the shape and dtype of `base`.
    """
    if base.dtype == np.bool_:
        return np.asarray(np.bitwise_xor(base, update))
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "bfloat16":
            return round_to_bfloat16(widen_bfloat16(base) + widen_bfloat16(update))
        return np.asarray(base + update).astype(base.dtype)


def subtract(trained: np.ndarray, received: np.ndarray, dtype: str | None = None) -> np.ndarray:
    """The difference of two arrays as in `difference`; one of floats may be infinite.

    Parameters
    ----------
    trained, received : numpy.ndarray
        Of the same shape and dtype.
    dtype : str, optional
        "bfloat16" if both hold bfloat16 bits in uint16.

    Returns
    -------
    numpy.ndarray
        New, of the same shape and dtype.
    """
    if trained.dtype == np.bool_:
        return np.asarray(np.bitwise_xor(trained, received))
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "bfloat16":
            return round_to_bfloat16(widen_bfloat16(trained) - widen_bfloat16(received))
        return np.asarray(trained - received)


def restored(array: np.ndarray, dtype: np.dtype[np.generic]) -> np.ndarray:
    """Convert an array back to a dtype that a framework's averaging has changed; integers are rounded."""
    if array.dtype == dtype:
        return array
    return np.asarray(np.rint(array) if dtype.kind in "iu" else array).astype(dtype)


def _tensor(name: str, array: np.ndarray, masked: Collection[str] | None) -> Tensor:
    dtype = _dtype(name, array)
    is_float = dtype.kind == "f"
    mask = is_float and array.ndim >= 2 if masked is None else name in masked
    if mask and not is_float:
        raise errors.SchemaError(f"dtype of masked {name!r}", "a float", dtype)
    return Tensor(name, array.shape, mask, "float32" if mask else dtype.name)


def _difference_of(tensor: Tensor, trained: Arrays, received: Arrays) -> np.ndarray:
    now, start = _named(trained, tensor, "trained arrays"), _named(received, tensor, "received arrays")
    if now.shape != start.shape or now.dtype != start.dtype:
        raise errors.UpdateError(
            f"trained {tensor.name!r}", f"{_described(start)}, as received", _described(now)
        )
    if tensor.masked and now.dtype == np.float16:
        now, start = now.astype(np.float32), start.astype(np.float32)
    return _as_masked(subtract(now, start, tensor.dtype), tensor)


def _as_masked(update: np.ndarray, tensor: Tensor) -> np.ndarray:
    with np.errstate(over="ignore"):
        return update.astype(np.float32) if tensor.masked and update.dtype.kind == "f" else update


def _named(arrays: Arrays, tensor: Tensor, field: str) -> np.ndarray:
    _check_mapping(arrays, field, errors.UpdateError)
    if tensor.name not in arrays:
        raise errors.UpdateError(field, "every name of the schema", f"nothing for {tensor.name!r}")
    return np.asarray(arrays[tensor.name])


def _described(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}" if _is_array(array) else f"a {type(array).__name__}"
